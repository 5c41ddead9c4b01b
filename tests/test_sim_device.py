"""The simulated device: in step with the golden machine, and loud when it is not."""

import numpy as np
import pytest

from golden.machine import GoldenMachine
from shiftgrad.compiler import compile_network
from shiftgrad.config import MEMORIES, get_config
from shiftgrad.device import ABORT, ADDRESSES, START, Device, DeviceError, GoldenDevice
from shiftgrad.host import Host
from shiftgrad.isa import LFSR_BASE, Opcode, Region, Status, encode
from shiftgrad.models import mlp
from sim.compare import MismatchError
from sim.device import CYCLE_LIMIT, VerilatorDevice
from sim.programs import load, random_case
from tests.arrays import assert_same

pytestmark = pytest.mark.xdist_group("sim_4x4")
CONFIG = get_config("sim_4x4")


@pytest.fixture(scope="module")
def shared():
    device = VerilatorDevice(CONFIG)
    yield device
    device.close()


@pytest.fixture
def device(shared):
    """Just out of reset, nothing compared yet."""
    shared.reset()
    shared.compared_instructions = shared.mismatches = 0
    shared.stop, shared.cycle_limit = True, CYCLE_LIMIT
    shared.golden = shared.golden or GoldenMachine(CONFIG)
    return shared


def small_case(seed, opcode=None):
    """A random program, the first one from ``seed`` up that has ``opcode``."""
    while True:
        case = random_case(seed, CONFIG, length=6, largest=9)
        if opcode is None or any(word & 0xFF == opcode for word in case.program):
            print("seed", seed)
            case.lr_shift = max(case.lr_shift, 2)  # a learning-rate shift below 0 would stop the program
            return case
        seed += 1


def test_it_is_a_device(device):
    assert isinstance(device, Device)
    assert device.config is CONFIG


@pytest.mark.parametrize("seed", [1, 2])
def test_random_programs_agree(device, seed):
    case = small_case(seed)
    load(device, case)
    reference = GoldenDevice(CONFIG)
    load(reference, case)
    assert device.run() == reference.run() == Status.HALTED
    assert device.compared_instructions == len(case.program)
    assert device.mismatches == 0
    for name in MEMORIES:
        np.testing.assert_array_equal(device.state.memory(name), reference.machine.memories[name])
    assert device.counters()["RETIRED"] == len(case.program) - 1
    assert device.cycles_per_second > 0 and device.cycles > 0


CORRUPTIONS = {
    **{name: lambda golden, name=name: golden.memories[name].__setitem__((-1, -1), 77) for name in MEMORIES},
    "word 6 of tensor": lambda golden: golden.table.__setitem__((-1, 6), 123),
    "generator": lambda golden: golden.lfsr.__setitem__(-1, 123),
    "program": lambda golden: golden.program.__setitem__(-1, 123),
    "register SATURATED": lambda golden: setattr(golden, "saturated", -9),
    "register LOSS": lambda golden: setattr(golden, "loss", -9),
    "register CORRECT": lambda golden: setattr(golden, "correct", -9),
    "register PC": lambda golden: golden.program.__setitem__(0, encode(Opcode.LOSS)),
    "register STATUS": lambda golden: golden.program.__setitem__(0, 0),
    "register FWD_MACS": lambda golden: golden.counters.__setitem__("FWD_MACS", 9),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_a_difference_anywhere_is_found_and_named(device, what):
    device.write(Region.PROGRAM.address, [int(Opcode.HALT), 0])
    if what == "register PC":
        device.write(ADDRESSES["START_PC"], [0])
        device.golden.start_pc = 5
        device.golden.program[5] = int(Opcode.HALT)
        with pytest.raises(MismatchError, match=what):
            device.write(ADDRESSES["CTRL"], [START])
    else:
        CORRUPTIONS[what](device.golden)
        with pytest.raises(MismatchError, match=rf"after instruction 0 \(HALT\).*{what}"):
            device.run()
    assert device.mismatches == 1


def test_a_difference_names_word_values_and_number(device):
    device.write(Region.ACT.address, [0])
    device.write(Region.PROGRAM.address, [int(Opcode.HALT), 0])
    device.golden.memories["act"][0, 2] = -5
    with pytest.raises(MismatchError, match="act word 0 lane 2: simulated 0, golden -5") as caught:
        device.run()
    (difference,) = caught.value.differences
    assert (difference.simulated, difference.golden, difference.count) == (0, -5, 1)


def test_mismatches_can_be_counted_instead(device):
    load(device, small_case(3))
    device.stop = False
    device.golden.memories["mom"][-1, 0] ^= 1
    assert device.run() == Status.HALTED
    assert device.mismatches == device.compared_instructions > 1


def test_an_instruction_too_many_is_a_mismatch(device):
    load(device, small_case(4, Opcode.GRAD))
    device.golden.lr_shift = 200
    with pytest.raises(MismatchError, match=r"\((GRAD|SUM)\): instructions retired: simulated"):
        device.run()


def test_a_read_window_is_compared(device):
    device.write(Region.WGT.address, [1, 2, 3])
    assert list(device.read(Region.WGT.address, 3)) == [1, 2, 3]
    device.golden.memories["wgt"][1, 0] = 9
    with pytest.raises(MismatchError, match="read of 3 words from 0x600000: word 1"):
        device.read(Region.WGT.address, 3)


def test_a_start_through_the_register_runs_in_lock_step(device):
    case = small_case(5)
    load(device, case)
    device.write(ADDRESSES["START_PC"], [0])
    device.write(ADDRESSES["CTRL"], [START])
    assert device.status() == (False, Status.HALTED)
    assert device.compared_instructions == len(case.program)


def test_training_while_the_next_batch_is_loaded(device):
    """Compared after every instruction, with the host's writes of the next batch under way; as fast as without."""
    plan = compile_network(mlp(64, (16,), 10), CONFIG, batch=16, lr_shift=4)
    hosts = [Host(device, plan), Host(GoldenDevice(CONFIG), plan)]
    rng = np.random.default_rng(5)
    batches = [(rng.integers(0, 256, (16, 64), np.uint8), rng.integers(0, 10, 16)) for _ in range(4)]
    busy, results = [], []
    for host in hosts:
        host.load(3)
        left = iter(batches)
        host.load_batch(*next(left))
        device.clear_counters()
        for _ in batches:
            meanwhile = device.simulation.cycles
            results.append(host.train_step(0, lambda left=left: next(left, None)))
            busy.append(device.simulation.cycles - meanwhile)
    assert results[:4] == results[4:]
    assert_same(*(host.state() for host in hosts))
    assert device.compared_instructions == 4 * len(plan.program_of("train")) and device.mismatches == 0
    assert busy[0] > 1000 and max(busy[1:4]) - busy[0] < 100, "a step takes no longer for the load"


def test_registers_read_while_a_program_runs(device):
    """Time passes in every access: instructions that end meanwhile are compared, however long nobody waits."""
    case = small_case(11)
    load(device, case)
    device.start()
    polls = 0
    while device.status()[0]:
        device.counters()
        polls += 1
    assert polls > 1 and device.wait() == Status.HALTED
    assert device.compared_instructions == len(case.program) and device.mismatches == 0


def test_an_abort_while_a_host_loads(device):
    """What was written is there, and the machines go on alike."""
    case = small_case(12)
    load(device, case)
    last = Region.VEC.address + CONFIG.vec_words * CONFIG.pitch("vec") - 4
    for polls in (1, 10, 30):
        device.start()
        for _ in range(polls):
            device.status()
        device.write(last, [polls])
        assert device.simulation.busy, "wanted a program that runs longer"
        device.write_register("CTRL", ABORT)
        assert device.wait() == Status.ABORTED and device.read(last)[0] == polls
    assert device.run() == Status.HALTED and device.mismatches == 0


def test_a_refused_load_leaves_both_machines_alike(device):
    """Words before a refused one are written while a program runs, too; the program goes on."""
    case = small_case(9)
    load(device, case)
    device.start()
    last = Region.VEC.address + CONFIG.vec_words * CONFIG.pitch("vec") - 4
    for address, words in ((last, [0x00020001, 7]), (Region.ERR.address, [1]), (Region.TABLE.address, [1])):
        with pytest.raises(DeviceError, match="refused"):
            device.write(address, words)
    with pytest.raises(DeviceError, match="refused"):
        device.read(Region.ACT.address)
    assert device.simulation.busy, "wanted a program that runs longer"
    assert device.wait() == Status.HALTED
    assert device.read(last)[0] == 0x00020001 and device.mismatches == 0


@pytest.mark.parametrize("address", [Region.ACT.address + (1 << 20) - 4, 0xF00000, 0x30, 2])
def test_refused_accesses_raise(device, address):
    with pytest.raises(DeviceError, match="refused"):
        device.read(address)
    with pytest.raises(DeviceError, match="refused"):
        device.write(address, [1])


def test_words_before_a_refused_one_reach_both_machines(device):
    last = Region.VEC.address + CONFIG.vec_words * CONFIG.pitch("vec") - 4
    with pytest.raises(DeviceError):
        device.write(last, [0x00020001, 7])
    assert device.read(last)[0] == 0x00020001


def test_errors_agree_and_stop_at_the_instruction(device):
    load(device, small_case(6))
    device.write(Region.PROGRAM.address + 8, [0xFF, 0])
    assert device.run() == Status.ILLEGAL_OPCODE
    assert device.read_register("PC") == 1


def test_an_instruction_that_takes_too_long_is_given_up(device):
    load(device, small_case(7, Opcode.FWD))
    device.cycle_limit = 3
    with pytest.raises(DeviceError, match="instruction 0 does not end: .* within 3 cycles"):
        device.run()
    device.reset()
    assert device.status() == (False, Status.RESET)
    device.cycle_limit = CYCLE_LIMIT
    device.write(LFSR_BASE, np.arange(1, CONFIG.size + 1))
    assert device.run() == Status.HALTED


def test_without_comparing(device):
    case = small_case(8)
    device.golden = None
    load(device, case)
    assert device.run() == Status.HALTED
    assert device.compared_instructions == device.mismatches == 0
