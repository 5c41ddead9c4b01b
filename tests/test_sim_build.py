"""The Verilator build and its harness, on a small design: a memory behind AXI4-Lite that counts."""

import threading

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Out

import sim.build
from hw.axi import AxiLite
from sim.build import BuildError, build
from sim.model import AccessError, Simulation, SimulationError

pytestmark = pytest.mark.xdist_group("sim_build")
WORDS = 32
START = 4 * WORDS  # writing n here makes the design busy; it retires n instructions, one every 16 cycles
DEAF = 0x800  # no answer ever
PUBLIC = (("*", "store"), ("*", "held"))


class Small(wiring.Component):
    """WORDS words at 0; the rest refuses."""

    def __init__(self) -> None:
        self.axi = AxiLite()
        self.ports = {name: member for name, member in self.axi.signature.members.items() if name != "bus"}
        super().__init__({**self.ports, "busy": Out(1), "retired": Out(32)})

    def elaborate(self, _platform):
        m = Module()
        m.submodules.axi = axi = self.axi
        m.submodules.store = store = Memory(shape=32, depth=WORDS, init=[])
        for name, member in self.ports.items():
            inner, outer = getattr(axi, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        read, write, bus = store.read_port(), store.write_port(granularity=8), axi.bus
        left, wait = Signal(16), Signal(4)
        start = bus.addr == START
        held = Signal()
        m.d.sync += [held.eq(bus.valid & ~bus.ready), bus.ready.eq(0)]
        m.d.comb += [read.addr.eq(bus.addr[2:]), write.addr.eq(bus.addr[2:]), write.data.eq(bus.w_data),
                     bus.r_data.eq(read.data), self.busy.eq(left != 0)]
        with m.If(bus.valid & ~bus.ready & held & (bus.addr != DEAF)):
            m.d.sync += [bus.ready.eq(1), bus.error.eq((bus.addr >= START) & ~(start & bus.write))]
            with m.If(bus.write & start):
                m.d.sync += [left.eq(bus.w_data), wait.eq(0)]
            m.d.comb += write.en.eq((bus.write & (bus.addr < START)).replicate(4) & Cat(bus.strobe))
        with m.If(self.busy):
            m.d.sync += wait.eq(wait + 1)
            with m.If(wait == 15):
                m.d.sync += [left.eq(left - 1), self.retired.eq(self.retired + 1)]
        return m


@pytest.fixture(scope="module")
def text():
    return verilog.convert(Small(), name="small", emit_src=False, strip_internal_attrs=True)


@pytest.fixture(scope="module")
def library(text):
    return build(text, top="small", public=PUBLIC)


@pytest.fixture
def simulation(library):
    with Simulation(library) as simulation:
        simulation.reset()
        yield simulation


def test_the_second_build_is_the_first(text, library):
    lines = []
    assert build(text, top="small", public=PUBLIC, progress=lines.append) == library
    assert not lines


def test_concurrent_builds_compile_once(text, monkeypatch, tmp_path):
    monkeypatch.setattr(sim.build, "BUILD", tmp_path)
    compiled = []

    def compile_slowly(work, *_):
        compiled.append(work)
        (work / "obj").mkdir()
        (work / "obj" / sim.build.LIBRARY).write_text("library")

    monkeypatch.setattr(sim.build, "_compile", compile_slowly)
    paths, lines = [], []
    threads = [threading.Thread(target=lambda: paths.append(build(text, top="small", progress=lines.append)))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1
    assert len(set(paths)) == 1 and len(paths) == 4 and paths[0].read_text() == "library"
    assert not list(tmp_path.glob(".*"))


def test_a_failed_build_names_the_error_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sim.build, "BUILD", tmp_path)
    with pytest.raises(BuildError, match=r"(?s)syntax error.*\.log"):
        build("module broken(; endmodule", top="broken", progress=lambda _: None)
    assert not list(tmp_path.rglob(sim.build.LIBRARY))


def test_a_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sim.build, "BUILD", tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="no-such-compiler"):
        build("module m; endmodule", top="m", progress=lambda _: None)


def test_words_written_are_read_and_seen_in_memory(simulation):
    seed = 1
    print("seed", seed)
    words = np.random.default_rng(seed).integers(0, 1 << 32, WORDS, np.uint32)
    view = simulation.view("*store")
    assert view.shape == (WORDS,) and view.dtype == np.uint32 and not view.any()
    simulation.write(0, words)
    np.testing.assert_array_equal(view, words)
    np.testing.assert_array_equal(simulation.read(0, WORDS), words)
    np.testing.assert_array_equal(simulation.read(12, 3), words[3:6])
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


@pytest.mark.parametrize("strobe", range(16))
def test_strobes(simulation, strobe):
    simulation.write(8, [0x11223344])
    simulation.write(8, [0xAABBCCDD], strobe)
    mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
    assert simulation.read(8)[0] == (0xAABBCCDD & mask | 0x11223344 & ~mask)


def test_a_refused_word_is_named_and_the_ones_before_it_count(simulation):
    with pytest.raises(AccessError, match="write at 0x000084") as caught:
        simulation.write(START - 4, [7, 0, 9, 9])
    assert caught.value.address == START + 4
    assert simulation.read(START - 4)[0] == 7
    with pytest.raises(AccessError, match="read at 0x000080"):
        simulation.read(START - 4, 2)
    assert simulation.read(START - 4)[0] == 7


def test_a_design_that_does_not_answer_is_no_hang(simulation):
    with pytest.raises(SimulationError, match="does not answer"):
        simulation.read(DEAF)
    simulation.reset()
    simulation.write(0, [3])
    assert simulation.read(0)[0] == 3


def test_run_stops_at_each_instruction_and_at_the_end(simulation):
    simulation.write(START, [3])
    for retired in (1, 2, 3):
        assert simulation.busy
        assert simulation.run(100) <= 16
        assert simulation.retired == retired
    assert not simulation.busy
    assert simulation.run(100) == 0


def test_run_gives_up(simulation):
    simulation.write(START, [1])
    before = simulation.cycles
    with pytest.raises(SimulationError, match="within 5 cycles"):
        simulation.run(5)
    assert simulation.cycles == before + 5


def test_reset_stops_and_clears(simulation):
    simulation.write(START, [9])
    simulation.run(100)
    simulation.reset()
    assert not simulation.busy and simulation.retired == 0
    simulation.tick(50)
    assert simulation.retired == 0


def test_instances_are_independent(library):
    with Simulation(library) as one, Simulation(library) as two:
        one.reset()
        two.reset()
        one.write(0, [1])
        two.write(0, [2])
        assert one.read(0)[0] == 1 and two.read(0)[0] == 2
        assert list(one.view("*store")[:1]) == [1] and list(two.view("*store")[:1]) == [2]


def test_variables_are_found_by_pattern(simulation):
    assert simulation.find("*store") == ["top.small.store"]
    assert simulation.find("top.small.*") == ["top.small.held", "top.small.store"]
    with pytest.raises(SimulationError, match="got none"):
        simulation.view("*nothing*")
    with pytest.raises(SimulationError, match="wanted one variable"):
        simulation.view("*")


def test_a_closed_simulation_says_so(library):
    simulation = Simulation(library)
    simulation.close()
    simulation.close()
    with pytest.raises(SimulationError, match="closed"):
        simulation.tick()
