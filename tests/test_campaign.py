"""The whole RTL against the golden machine: random programs, errors, aborts and resets in mid-instruction."""

import numpy as np
import pytest
from amaranth.hdl import Assert
from click.testing import CliRunner

from golden.machine import GoldenMachine
from hw.top import to_verilog
from shiftgrad.device import ABORT, ADDRESSES, START, DeviceError, GoldenDevice
from shiftgrad.isa import LFSR_BASE, PRODUCTS, VECTORS, Flag, Memory, Opcode, Region, Status, encode
from sim import campaign
from sim.build import build
from sim.device import VerilatorDevice
from sim.interrupt import interrupt
from sim.loading import Pieces, execute_loading
from sim.model import AccessError, Simulation, SimulationError
from sim.programs import descriptor, execute, load, random_case, small_config
from tests.test_sim_build import START as SMALL_START
from tests.test_sim_build import Small

pytestmark = pytest.mark.xdist_group("campaign")
CONFIG = small_config(4)
SHAPES = {"length": 30, "largest": 10}


@pytest.fixture(scope="module")
def device():
    device = VerilatorDevice(CONFIG)
    yield device
    device.close()


@pytest.fixture
def fresh(device):
    """The device after reset, both machines alike."""
    device.reset()
    device.clear_counters()
    return device


@pytest.mark.parametrize("block", range(10))
def test_random_programs(fresh, block):
    """Legal programs: everything equal after every instruction, all of them executed."""
    for seed in range(15 * block, 15 * block + 15):
        print("seed", seed)
        case = random_case(seed, CONFIG, **SHAPES, palette=2 + seed % 4)
        before = fresh.compared_instructions
        assert set(execute(fresh, case)) <= {Status.HALTED, Status.OVERFLOW}, "shifts may be out of range"
        assert fresh.compared_instructions - before == len(case.program)


def test_random_programs_with_errors(fresh):
    """Flipped bits in programs and tables: the same status and PC, nothing written, and the next instruction works."""
    reasons = set()
    for seed in range(1000, 1120):
        print("seed", seed)
        reasons |= set(execute(fresh, random_case(seed, CONFIG, **SHAPES, palette=3, fault=6)))
    assert reasons >= {Status.HALTED, *Status} - {Status.RESET, Status.ABORTED, Status.PC_RANGE, Status.OVERLAP}


def state(device):
    """Everything a program can change."""
    found = {name: device.state.memory(name) for name in device.state.banks}
    found |= {f"table{word}": column.copy() for word, column in device.state.table.items()}
    return found | {"program": device.state.program.copy(), "lfsr": np.concatenate(device.state.lfsr)}


def assert_same(now, then):
    for name, array in now.items():
        np.testing.assert_array_equal(array, then[name], err_msg=name)


def product():
    """A case with one legal FWD: dst 5 x 9 (tensor 0) = a 5 x 6 (1) . b 6 x 9 (2)."""
    case = random_case(3, CONFIG, length=0)
    shapes = [(Memory.ACT, 3, 5, 9), (Memory.ACT, 40, 5, 6), (Memory.WGT, 0, 6, 9)]
    for index, (memory, base, rows, cols) in enumerate(shapes):
        case.table[index] = descriptor(memory=memory, base=base, stride=CONFIG.stride(cols), planes=rows, cols=cols)
    case.program = [encode(Opcode.FWD, dst=0, a=1, b=2), encode(Opcode.HALT)]
    return case


# what is XORed where: into the program word, or (tensor, word of its entry)
ERRORS = {
    Status.HALTED: ("program", 0),
    Status.ILLEGAL_OPCODE: ("program", 0x40),
    Status.ILLEGAL_FLAGS: ("program", int(Flag.ONES) << 8),
    Status.BAD_TENSOR: ((2, 2), 1),
    Status.BAD_SHAPE: ((1, 1), 1),
    Status.OUT_OF_RANGE: ((2, 0), CONFIG.wgt_words - 6 * 3 + 1),
    Status.OVERLAP: ((1, 0), 40 ^ 17),
    Status.OVERFLOW: ((2, 4), 61),
    Status.PC_RANGE: ("pc", CONFIG.program_words),
}


@pytest.mark.parametrize("status", ERRORS, ids=lambda status: status.name)
def test_an_error_leaves_everything_untouched(fresh, status):
    case, pc = product(), 0
    where, bits = ERRORS[status]
    if where == "program":
        case.program[0] ^= bits
    elif where == "pc":
        pc = bits
    else:
        case.table[where] ^= bits
    load(fresh, case)
    then = state(fresh)
    assert fresh.run(pc) == status
    if status == Status.HALTED:  # no error: the very same program does write
        assert fresh.read_register("RETIRED") == 1 and (state(fresh)["act"] != then["act"]).any()
        return
    assert_same(state(fresh), then)
    assert fresh.read_register("PC") == pc and fresh.read_register("RETIRED") == 0


@pytest.mark.parametrize("reset", [False, True], ids=["abort", "reset"])
def test_stopped_in_mid_instruction(fresh, reset):
    """At random cycles; what is left is of before or after the instruction, and a new program runs bit for bit."""
    seed, stopped = 77, 0
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for number in range(40):
        case = random_case(seed + number, CONFIG, **SHAPES, palette=3)
        cycles = int(rng.integers(150 * len(case.program)))
        print("program", seed + number, "cycles", cycles)
        stopped += interrupt(fresh, case, cycles, reset=reset)
        execute(fresh, random_case(1000 + number, CONFIG, length=6, largest=10))
    assert stopped > 20


@pytest.mark.parametrize("opcode", [*PRODUCTS, *VECTORS, Opcode.LOSS], ids=lambda opcode: opcode.name)
def test_abort_in_every_part_of_an_instruction(fresh, opcode):
    case = one_case(opcode)
    ended, cycles = False, 0
    while not ended and cycles < 20_000:
        ended = not interrupt(fresh, case, cycles, reset=False)
        cycles += 7 + cycles // 20
    assert ended
    assert execute(fresh, case) == [Status.HALTED]


@pytest.mark.parametrize("opcode", [*PRODUCTS, *VECTORS, Opcode.LOSS], ids=lambda opcode: opcode.name)
def test_started_at_once_after_a_short_reset(fresh, opcode):
    """In nearly every cycle of an instruction: what the reset left is all there is, the next run gets nothing else."""
    case = one_case(opcode)
    stopped, cycles = True, 0
    while stopped:
        fresh.reset()
        load(fresh, case)
        fresh.simulation.write(ADDRESSES["CTRL"], [START])
        fresh.simulation.tick(cycles)
        stopped = fresh.simulation.busy
        fresh.simulation.reset(1)
        left = state(fresh)
        fresh.simulation.write(ADDRESSES["CTRL"], [START])
        assert fresh.wait() == Status.HALTED
        golden = GoldenMachine(CONFIG)
        for name, memory in golden.memories.items():
            memory[:] = left[name]
        for word in fresh.state.table:
            golden.table[:, word] = left[f"table{word}"]
        golden.program[:] = left["program"]
        assert golden.run(0) == Status.HALTED
        wanted = golden.memories | {"lfsr": golden.lfsr}
        wanted |= {f"table{word}": golden.table[:, word] for word in fresh.state.table}
        now = state(fresh)
        for name, array in wanted.items():
            np.testing.assert_array_equal(now[name], array, err_msg=f"{name}, reset after {cycles} cycles")
        cycles += 1 + cycles // 100
    assert cycles > 50


def one_case(opcode):
    """A program of one instruction that runs to its end."""
    for seed in range(200):
        case = random_case(seed, CONFIG, length=1, largest=9, operations=(opcode,))
        if len(case.program) == 2 and execute(GoldenDevice(CONFIG), case) == [Status.HALTED]:
            print("seed", seed)
            return case
    raise AssertionError(f"no {opcode.name} in 200 seeds")


def test_an_abort_of_an_idle_machine_keeps_the_results(fresh):
    for seed in range(200):
        execute(fresh, random_case(seed, CONFIG, length=1, largest=9))
        if fresh.golden.saturated and fresh.golden.loss and fresh.golden.correct:
            break
    print("seed", seed)
    names = ("LOSS", "CORRECT", "SAMPLES", "SATURATED", "STATUS", "PC", "RETIRED")
    then = [fresh.read_register(name) for name in names]
    assert all(then[:4]), "wanted something to keep"
    for bits in (ABORT, START | ABORT):
        fresh.simulation.write(ADDRESSES["CTRL"], [bits])
        fresh.simulation.tick(100)
        assert [fresh.read_register(name) for name in names] == then


def start(device, seed=5):
    """Start a program behind the golden machine's back and let a few instructions run."""
    case = random_case(seed, CONFIG, **SHAPES, palette=3)
    load(device, case)
    device.simulation.write(ADDRESSES["START_PC"], [0])
    device.simulation.write(ADDRESSES["CTRL"], [START])
    device.simulation.tick(700)
    assert device.simulation.busy
    return case


def test_a_learning_rate_is_that_of_the_whole_instruction(fresh):
    """LR_SHIFT written at any time while a GRAD runs counts from the next instruction."""
    seed = next(s for s in range(200) if random_case(s, CONFIG, length=1, largest=9).program[0] & 0xFF == Opcode.GRAD)
    print("seed", seed)
    case = random_case(seed, CONFIG, length=1, largest=9)
    case.lr_shift = 3
    assert execute(fresh, case) == [Status.HALTED]
    for cycles in (20, 60, 90, 120):
        load(fresh, case)
        fresh.simulation.write(ADDRESSES["START_PC"], [0])
        fresh.simulation.write(ADDRESSES["CTRL"], [START])
        fresh.simulation.tick(cycles)
        assert fresh.simulation.busy and not fresh.simulation.retired
        fresh.simulation.write(ADDRESSES["LR_SHIFT"], [63])
        while fresh.simulation.busy:
            fresh.simulation.tick()
        assert fresh.golden.run(0) == Status.HALTED
        for name in ("wgt", "mom", "vec"):
            np.testing.assert_array_equal(fresh.state.memory(name), fresh.golden.memories[name], f"{name}, {cycles}")


WINDOWS = [region.address for region in Region if region != Region.REGISTERS] + [LFSR_BASE]


def test_memories_refuse_the_host_while_busy(fresh):
    """Refused accesses change nothing: the program ends as if there were none."""
    case = start(fresh)
    for address in WINDOWS:
        if address not in (Region.ACT.address, Region.VEC.address):
            with pytest.raises(AccessError, match="write"):
                fresh.simulation.write(address, [0xFFFFFFFF])
        with pytest.raises(AccessError, match="read"):
            fresh.simulation.read(address)
    assert fresh.simulation.busy, "wanted a program that runs longer"
    while fresh.simulation.busy:
        fresh.simulation.run(10_000)
    then = state(fresh)
    fresh.reset()
    assert execute(fresh, case) == [Status.HALTED]
    assert_same(state(fresh), then)


@pytest.mark.parametrize("block", range(4))
def test_a_load_while_a_program_runs(fresh, block):
    """Writes to free words of ACT and VEC at any time: all arrive, and no instruction sees them."""
    words = 0
    for seed in range(2000 + 15 * block, 2015 + 15 * block):
        print("seed", seed)
        case = random_case(seed, CONFIG, **SHAPES, palette=2 + seed % 4, fault=6 if seed % 5 == 0 else 0)
        words += execute_loading(fresh, case, np.random.default_rng(seed))[1]
    assert words > 1000


def test_a_load_changes_no_cycle(fresh):
    for seed in range(3000, 3010):
        print("seed", seed)
        counts = []
        for loads in (False, True):
            case = random_case(seed, CONFIG, **SHAPES, palette=3)
            fresh.clear_counters()
            if loads:
                execute_loading(fresh, case, np.random.default_rng(seed))
            else:
                execute(fresh, case)
            counts.append({name: value for name, value in fresh.counters().items() if name.endswith("_CYCLES")})
        assert counts[0] == counts[1]


def test_a_load_waits_for_the_machines_own_writes(fresh):
    """A write to ACT in every cycle holds one of the host's up until the pass ends, and no longer."""
    rows, width = 40, CONFIG.size
    table = np.zeros((CONFIG.tensors, 8), np.uint32)
    for index, base in enumerate((0, rows)):
        table[index] = descriptor(base=base, stride=1, planes=rows, cols=width, memory=int(Memory.ACT))
    fresh.write(Region.TABLE.address, table.reshape(-1))
    fresh.write(Region.PROGRAM.address, np.array([encode(Opcode.ADD, dst=1, a=0), encode(Opcode.HALT)], np.uint64)
                .view(np.uint32))
    free = Region.ACT.address + CONFIG.pitch("act") * 2 * rows
    waits = []
    for delay in range(0, 400, 3):
        fresh.start(0)
        fresh.simulation.tick(delay)
        before = fresh.simulation.cycles
        fresh.write(free, [delay])
        if not fresh.simulation.retired:  # else the device has compared, too
            waits.append(fresh.simulation.cycles - before)
        assert fresh.wait() == Status.HALTED
        assert fresh.read(free)[0] == delay
    print(sorted(set(waits)))
    assert min(waits) < 12 and rows <= max(waits) < rows + 30 and len(waits) > 60


@pytest.mark.parametrize("seed", [600, 700])
def test_abort_with_a_load_in_progress(fresh, seed):
    stopped = 0
    for number in range(seed, seed + 40):
        case = random_case(number, CONFIG, **SHAPES, palette=3)
        rng = np.random.default_rng(number)
        cycles = int(rng.integers(150 * len(case.program)))
        print("program", number, "cycles", cycles)
        stopped += interrupt(fresh, case, cycles, reset=False, pieces=Pieces(CONFIG, case, rng))
        execute(fresh, random_case(1000 + number, CONFIG, length=6, largest=10))
    assert stopped > 20


def test_registers_answer_while_busy(fresh):
    start(fresh)
    assert fresh.status() == (True, Status.RESET)
    first = fresh.counters()
    fresh.simulation.tick(100)
    second = fresh.counters()
    assert second["OTHER_CYCLES"] >= first["OTHER_CYCLES"] and second != first
    assert fresh.read_register("PC") == fresh.read_register("RETIRED") == fresh.simulation.retired
    assert fresh.simulation.busy


def test_start_is_refused_while_busy(fresh):
    start(fresh)
    with pytest.raises(AccessError):
        fresh.simulation.write(ADDRESSES["CTRL"], [START])
    retired = fresh.simulation.retired
    fresh.simulation.run(10_000)
    assert fresh.simulation.retired == retired + 1, "it goes on where it was"


@pytest.mark.parametrize("bits", [ABORT, START | ABORT])
def test_abort_wins_over_start(fresh, bits):
    start(fresh)
    fresh.simulation.write(ADDRESSES["CTRL"], [bits])
    fresh.simulation.tick(200)
    assert fresh.status() == (False, Status.ABORTED)
    with pytest.raises(DeviceError):
        fresh.write(Region.TABLE.address - 4, [0])


def test_every_busy_cycle_is_counted_once_in_each_group(fresh):
    case = random_case(9, CONFIG, **SHAPES, palette=3)
    load(fresh, case)
    fresh.simulation.write(ADDRESSES["START_PC"], [0])
    fresh.simulation.write(ADDRESSES["CTRL"], [START])
    busy = 0
    while not fresh.simulation.busy:
        fresh.simulation.tick()
    while fresh.simulation.busy:
        fresh.simulation.tick()
        busy += 1
    counts = fresh.counters()
    phases = sum(counts[f"{name}_CYCLES"] for name in ("FWD", "BWD", "GRAD", "VECTOR", "OTHER"))
    parts = sum(counts[f"{name}_CYCLES"] for name in ("FEED", "STREAM", "RANGE", "DRAIN", "TAIL", "SETUP", "LOSS"))
    assert phases == parts
    assert 0 <= phases - busy <= 4, "the write of CTRL takes a few cycles of the program"


class Broken(Small):
    """Claims that it never retires a second instruction."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.sync += Assert(self.retired < 2, "small: two instructions")
        return m


def test_a_broken_assertion_ends_the_call_and_not_the_process():
    text = to_verilog(Broken(), "broken")
    with Simulation(build(text, top="broken", public=(("*", "left"),))) as simulation:
        simulation.reset()
        simulation.write(SMALL_START, [4])
        simulation.run(100)
        with pytest.raises(SimulationError, match=r"cycle \d+: small: two instructions"):
            simulation.tick(1000)
        assert simulation.cycles < 200
        simulation.reset()
        simulation.tick(10)


def test_the_command_line(monkeypatch):
    monkeypatch.setattr(campaign, "small_config", lambda size, *, dense, unsigned: CONFIG)
    result = CliRunner().invoke(campaign.main, ["--size", "4", "--programs", "9", "--seed", "16"])
    assert result.exit_code == 0, result.output
    assert "seeds 16 to 24: 9 programs" in result.output and " 0 mismatches" in result.output


def test_the_command_line_names_the_seed_that_fails(monkeypatch):
    def fail(self, seed):
        if seed == 18:
            raise DeviceError("act word 3 lane 1: simulated 5, golden 6")

    monkeypatch.setattr(campaign.Campaign, "run", fail)
    result = CliRunner().invoke(campaign.main, ["--size", "4", "--programs", "9", "--seed", "16"])
    assert result.exit_code == 1
    assert "--programs 1 --seed 18" in result.output and "simulated 5, golden 6" in result.output
