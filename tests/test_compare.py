"""A difference planted anywhere is found after the very instruction, whatever that instruction writes."""

import ctypes

import numpy as np
import pytest

from golden.machine import GoldenMachine
from shiftgrad.config import MEMORIES
from shiftgrad.device import GoldenDevice
from sim.compare import Comparison, MismatchError
from sim.device import VerilatorDevice
from sim.machine import RESULTS
from sim.programs import load, random_case, small_config

pytestmark = pytest.mark.xdist_group("campaign")
CONFIG = small_config(4)
ENDS = (0, -1)
AFTER = 3  # instructions that are right before


@pytest.fixture(scope="module")
def device():
    device = VerilatorDevice(CONFIG)
    yield device
    device.close()


def poke(view, index):
    """Flip the lowest bit of an element of the simulated design."""
    address = view.ctypes.data + index % len(view) * view.itemsize
    ctypes.c_uint8.from_address(address).value ^= 1


def places():
    """Name in the message, view of the state, index."""
    for name in MEMORIES:
        for lane in ENDS:
            for word in ENDS:
                where = f"{name} word {word % CONFIG.words(name)} lane {lane % CONFIG.size}:"
                yield pytest.param(where, lambda state, name=name, lane=lane: state.banks[name][lane], word, id=where)
    for word in (0, 1, 2, 3, 4, 5, 6):
        for entry in ENDS:
            where = f"word {word} of tensor {entry % CONFIG.tensors}:"
            yield pytest.param(where, lambda state, word=word: state.table[word], entry, id=where)
    for lane in ENDS:
        where = f"generator of lane {lane % CONFIG.size}:"
        yield pytest.param(where, lambda state, lane=lane: state.lfsr[lane], 0, id=where)
    for index in ENDS:
        where = f"program word {index % CONFIG.program_words}:"
        yield pytest.param(where, lambda state: state.program, index, id=where)
    for name in RESULTS:
        where = f"register {name.upper()}:"
        yield pytest.param(where, lambda state, name=name: state.results[name], 0, id=where)


@pytest.mark.parametrize("where, view, index", list(places()))
def test_a_stray_write_of_the_simulation(device, monkeypatch, where, view, index):
    device.reset()
    device.compared_instructions = device.mismatches = 0
    load(device, random_case(3, CONFIG, length=6, largest=9))
    advance, done = device._advance, []

    def stray():
        advance()
        done.append(1)
        if len(done) == AFTER + 1:
            poke(view(device.state), index)

    monkeypatch.setattr(device, "_advance", stray)
    with pytest.raises(MismatchError, match=rf"after instruction {AFTER} \([A-Z]+\): {where}"):
        device.run()
    assert (device.compared_instructions, device.mismatches) == (AFTER + 1, 1)
    poke(view(device.state), index)


@pytest.mark.parametrize("name", MEMORIES)
def test_a_write_of_the_golden_machine_alone(device, name):
    device.reset()
    comparison = Comparison(device.simulation, device.state, device.golden)
    assert comparison.equal() and not comparison.differences()
    last = CONFIG.words(name) - 1
    device.golden.memories[name][last, -1] ^= 1
    device.golden.mark(name, last, last + 1)
    assert not comparison.equal()
    (difference,) = comparison.differences()
    assert difference.where == f"{name} word {last} lane {CONFIG.size - 1}"


def test_a_write_that_the_golden_machine_does_not_mark_is_found_when_the_program_ends(device):
    device.reset()
    case = random_case(3, CONFIG, length=6, largest=9)
    load(device, case)
    device.read(0x400000)
    device._differences(False)
    device.golden.memories["wgt"][-1, 0] ^= 1
    with pytest.raises(MismatchError, match=rf"after instruction {len(case.program) - 1} \(HALT\): wgt word"):
        device.run()


@pytest.mark.parametrize("seed", range(60))
def test_the_golden_machine_marks_everything_it_writes(seed):
    case = random_case(seed, CONFIG, length=30, largest=10, palette=3, fault=6 * (seed % 3 == 0))
    golden = GoldenDevice(CONFIG)
    load(golden, case)
    machine = golden.machine
    assert machine.take_written() == {name: (0, CONFIG.words(name)) for name in MEMORIES}
    changed, status = 0, None
    while status is None:
        before = machine.snapshot()
        status = machine.step()
        written = machine.take_written()
        for name in MEMORIES:
            start, stop = written.get(name, (0, 0))
            before[name][start:stop] = machine.memories[name][start:stop]
            np.testing.assert_array_equal(before[name], machine.memories[name], f"{name}, instruction {machine.pc}")
        changed += len(written)
    assert changed or machine.retired == 0


def test_marks_are_one_span_a_memory():
    machine = GoldenMachine(CONFIG)
    machine.mark("act", 5, 7)
    machine.mark("act", 1, 2)
    machine.mark("vec", 3, 4)
    assert machine.take_written() == {"act": (1, 7), "vec": (3, 4)}
    assert machine.take_written() == {}


def test_blocks_must_be_alike(device):
    with pytest.raises(ValueError, match="wanted contiguous arrays alike"):
        device.simulation.blocks([(np.zeros(4, np.uint8), np.zeros(4, np.uint16))])
    with pytest.raises(ValueError, match="wanted contiguous arrays alike"):
        device.simulation.blocks([(np.zeros(4, np.uint8), np.zeros(8, np.uint8)[::2])])
