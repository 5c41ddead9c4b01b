"""Unsigned activations: their rules, what reads and writes them, the compiler's choice, and the RTL beside golden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden import numerics
from golden.convolution import product
from shiftgrad.compiler import compile_network
from shiftgrad.config import Config, ConfigError, get_config
from shiftgrad.datasets import load
from shiftgrad.device import ADDRESSES, GoldenDevice
from shiftgrad.host import Host
from shiftgrad.isa import KNOWS_UNSIGNED, UNSIGNED, Flag, Memory, Opcode, Status, encode
from shiftgrad.models import Conv, Dense, GlobalAverage, MaxPool, Network, fixup_resnet
from shiftgrad.record import Hyper
from shiftgrad.train import Trainer
from sim.campaign import Campaign
from sim.device import VerilatorDevice
from sim.programs import small_config
from tests.machine_bench import SMALL, Bench

SEED = 78
MACHINE = replace(SMALL, unsigned=True)
RTL = replace(small_config(4, unsigned=True), act_words=700, err_words=500, wgt_words=400, mom_words=400,
              program_words=100, tensors=80)


# --- rules ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("s", range(-10, 34))
def test_requantise(s: int, dtype: type, rng: np.random.Generator) -> None:
    """Nearest with ties to even, then at most 255: in fractions, one by one."""
    ends = [0, 1, 2, 3, 127, 128, 254, 255, 256, 2**30, 2**31 - 1]
    halves = [min(2**31 - 1, (2 * k + 1) << s - 1) for k in (0, 1, 127, 253, 254, 255)] if s > 0 else []
    near = rng.integers(0, 1 << max(1, min(31, s + 8)), 20)
    v = np.array([*ends, *halves, *near, *rng.integers(0, 2**31, 20)], dtype)
    q, saturated = numerics.requantise(v, s, unsigned=True)
    wanted = [round(Fraction(int(x)) / Fraction(2) ** s) for x in v]
    assert q.dtype == np.uint8 and q.tolist() == [min(255, w) for w in wanted]
    assert saturated == sum(w > 255 for w in wanted)


@pytest.mark.parametrize("largest", [1, 127, 128, 181, 182, 255, 256, 362, 363, 2**31 - 1])
def test_own_exponent(largest: int) -> None:
    """One less than int8's: mantissas up to sqrt(2) * 256 are asked for, and more than half of 255 are used."""
    own = numerics.own_exponent(largest, 3, 0, unsigned=True)
    assert own == numerics.own_exponent(largest, 3, 0) - 1
    assert 181 <= largest * 2.0 ** (3 - own) < 363


def test_with_scalar() -> None:
    """Both terms saturate to +-255; -128 is no special case."""
    a = np.array([0, 1, 128, 255], np.uint8)
    for scalar, wanted in ((0, [0, 1, 128, 255]), (200, [200, 201, 255, 255]), (-200, [-200, -199, -72, 55]),
                           (-300, [-255, -254, -127, 0]), (300, [255] * 4)):
        assert numerics.with_scalar(a, scalar, 0).tolist() == wanted


def test_products_are_exact() -> None:
    """Sums of 65,535 products of the largest magnitudes, which float32 alone could not hold."""
    a = np.full((1, 65535), 255, np.uint8)
    for weight in (-128, 127):
        assert product(a, np.full((65535, 1), weight, np.int8)).tolist() == [[65535 * 255 * weight]]
    a[0, ::7] = 254
    assert product(a, np.full((65535, 1), 127, np.int8)).item() == int(a.sum(dtype=np.int64)) * 127


# --- operands and results -------------------------------------------------------------------------

def image(bench: Bench, memory: int, channels: int, side: int = 2, exponent: int = -5) -> int:
    """Images of two planes, ``side`` squared; ``memory`` may be UNSIGNED."""
    index = bench.tensor(Memory.ACT if memory == UNSIGNED else Memory(memory), 2 * side * side, channels, exponent)
    bench.describe(index, planes=2, height=side - 1, width=side - 1, memory=memory)
    return index


READERS = {
    "fwd": (Opcode.FWD, Flag(0), ("a",)), "scalar": (Opcode.FWD, Flag.SCALAR, ("a",)),
    "bwd": (Opcode.BWD, Flag.MASK, ("c",)), "grad": (Opcode.GRAD, Flag(0), ("a",)),
    "add": (Opcode.ADD, Flag.PAIR, ("a", "b")), "addb": (Opcode.ADDB, Flag.MASK, ("c",)),
    "sum": (Opcode.SUM, Flag.PAIR, ("a",)), "avg": (Opcode.AVG, Flag(0), ("a",)),
    "avgb": (Opcode.AVGB, Flag.MASK, ("c",)), "max": (Opcode.MAX, Flag(0), ("a",)),
    "maxb": (Opcode.MAXB, Flag.MASK, ("b",)),
}


def operands(bench: Bench, opcode: Opcode, kind: int) -> dict[str, int]:
    """Tensors that fit ``opcode``; those of ACT that it reads of ``kind``, with an exponent one less when UNSIGNED."""
    act, err = Memory.ACT, Memory.ERR
    exponent = -5 - (kind == UNSIGNED)
    read = lambda channels=4, side=2: image(bench, kind, channels, side, exponent)  # noqa: E731
    weights, momentum = (bench.tensor(memory, 4, 3, -7) for memory in (Memory.WGT, Memory.MOM))
    scalar, vec_momentum = bench.tensor(Memory.VEC, 1, 1, -14), bench.tensor(Memory.MOM, 1, 1, -9)
    return {
        Opcode.FWD: lambda: {"dst": image(bench, act, 3), "a": read(), "b": weights, "d": scalar},
        Opcode.BWD: lambda: {"dst": image(bench, err, 4), "a": image(bench, err, 3), "b": weights, "c": read()},
        Opcode.GRAD: lambda: {"dst": weights, "a": read(), "b": image(bench, err, 3), "c": momentum, "imm": 3},
        Opcode.ADD: lambda: {"dst": image(bench, act, 4), "a": read(), "b": read()},
        Opcode.ADDB: lambda: {"dst": image(bench, err, 4), "a": image(bench, err, 4), "c": read()},
        Opcode.SUM: lambda: {"dst": scalar, "a": read(), "b": image(bench, err, 4), "c": vec_momentum, "imm": 3},
        Opcode.AVG: lambda: {"dst": image(bench, act, 4, 1), "a": read()},
        Opcode.AVGB: lambda: {"dst": image(bench, err, 4), "a": image(bench, err, 4, 1), "c": read()},
        Opcode.MAX: lambda: {"dst": image(bench, act, 4, 1), "a": read()},
        Opcode.MAXB: lambda: {"dst": image(bench, err, 4), "a": image(bench, err, 4, 1), "b": read()},
    }[opcode]()


@pytest.mark.parametrize("name", READERS)
def test_reading(name: str) -> None:
    """Twice the mantissas at half the step are the same numbers: the same result, exponent and generator states."""
    opcode, flags, roles = READERS[name]
    found = []
    for kind in (Memory.ACT, UNSIGNED):
        rng = np.random.default_rng(SEED)  # the same for both
        bench = Bench(MACHINE, rng)
        chosen = operands(bench, opcode, kind)
        for role, index in chosen.items():
            if role == "imm":
                continue
            values = rng.integers(-110, 111, bench.values(index).shape)  # no sum with the scalar saturates
            if role in roles:
                values = np.abs(values) * (2 if kind == UNSIGNED else 1)
                values[0, :2] = 0
            bench.values(index)[:] = 1 << 11 if role == "d" else values
        assert bench.step(encode(opcode, flags=flags, **chosen)) is None
        machine, written = bench.machine, [chosen["dst"], *([chosen["c"]] if "imm" in chosen else [])]
        found.append([*(bench.values(index).tolist() for index in written), machine.lfsr.tolist(), machine.saturated,
                      *(machine.tensor(index).exponent for index in written)])
    assert found[0] == found[1]
    assert np.any(np.array(found[0][0]) != 0)


@pytest.mark.parametrize("opcode", [Opcode.FWD, Opcode.ADD, Opcode.AVG, Opcode.MAX])
def test_writing(opcode: Opcode, rng: np.random.Generator) -> None:
    """Negative results become 0, with RELU and without it; the others are rounded to 255 steps."""
    bench = Bench(MACHINE, rng)
    chosen = operands(bench, opcode, Memory.ACT)
    for role in sorted(set(chosen) - {"dst", "d"}):
        bench.fill(chosen[role])
    bench.values(chosen["a"])[:, 0] = -np.abs(bench.values(chosen["a"])[:, 0])
    if opcode == Opcode.ADD:
        bench.values(chosen["b"])[0, 0] = -1
    bench.describe(chosen["dst"], memory=UNSIGNED)
    a = bench.values(chosen["a"]).astype(np.int64).reshape(2, 2, 2, 4)
    v = {
        Opcode.FWD: lambda: a.reshape(-1, 4) @ bench.values(chosen["b"]).astype(np.int64),
        Opcode.ADD: lambda: a + bench.values(chosen["b"]).astype(np.int64).reshape(a.shape),
        Opcode.AVG: lambda: a.sum(axis=(1, 2)), Opcode.MAX: lambda: a.max(axis=(1, 2)),
    }[opcode]()
    flags = Flag.PAIR if opcode == Opcode.ADD else Flag(0)
    assert bench.step(encode(opcode, flags=flags, **{r: i for r, i in chosen.items() if r != "d"})) is None
    v = np.maximum(v, 0).reshape(bench.values(chosen["dst"]).shape)
    step = 2.0 ** (np.floor(2 * np.log2(v.max()) + 1) // 2 - 8)  # log2 rounded to the nearest integer
    np.testing.assert_array_equal(bench.values(chosen["dst"]), np.minimum(255, np.rint(v / step)))
    e_v = {Opcode.FWD: -12, Opcode.ADD: -5, Opcode.AVG: -7, Opcode.MAX: -5}[opcode]
    assert bench.machine.tensor(chosen["dst"]).exponent == e_v + int(np.log2(step))
    assert bench.values(chosen["dst"]).max() > 180 and 0 in bench.values(chosen["dst"])


@pytest.mark.parametrize(("config", "opcode", "status"), [
    (MACHINE, Opcode.LOSS, Status.BAD_TENSOR), (SMALL, Opcode.FWD, Status.BAD_TENSOR), (MACHINE, Opcode.FWD, None),
])
def test_who_takes_them(config: Config, opcode: Opcode, status: Status | None, rng: np.random.Generator) -> None:
    """LOSS does not, and no other machine."""
    bench = Bench(config, rng)
    a = bench.tensor(Memory.ACT, 4, 4)
    others = ({"dst": bench.tensor(Memory.ERR, 4, 4), "b": bench.tensor(Memory.VEC, 1, 4)} if opcode == Opcode.LOSS
              else {"dst": bench.tensor(Memory.ACT, 4, 4), "b": bench.tensor(Memory.WGT, 4, 4)})
    word = encode(opcode, a=a, **others)
    assert bench.step(word) is None
    bench.describe(a, memory=UNSIGNED)
    assert bench.step(word) == status


def test_they_live_in_act_alone(rng: np.random.Generator) -> None:
    bench = Bench(MACHINE, rng)
    a, b, dst = (bench.tensor(memory, 4, 4) for memory in (Memory.ACT, Memory.WGT, Memory.ACT))
    bench.describe(b, memory=UNSIGNED)
    assert bench.step(encode(Opcode.FWD, a=a, b=b, dst=dst)) == Status.BAD_TENSOR


def test_overlap_with_one(rng: np.random.Generator) -> None:
    """An unsigned and a signed tensor may share a word no more than two of a kind."""
    bench = Bench(MACHINE, rng)
    a, b, dst = (bench.tensor(memory, 4, 4) for memory in (Memory.ACT, Memory.WGT, Memory.ACT))
    bench.describe(dst, memory=UNSIGNED, base=2)
    assert bench.step(encode(Opcode.FWD, a=a, b=b, dst=dst)) == Status.OVERLAP


# --- compiler and host ----------------------------------------------------------------------------

def test_what_the_compiler_makes_unsigned() -> None:
    network = Network(name="net", shape=(8, 8, 1), layers=(
        Conv(name="c1", channels=4, relu=True), MaxPool(name="p1"), Conv(name="c2", channels=4), MaxPool(name="p2"),
        *fixup_resnet((2, 2, 4), 3, channels=(4, 4)).layers))
    chosen = compile_network(network, get_config("sim_8x8_unsigned"), batch=2, lr_shift=3)
    assert {t.name for t in chosen.tensors if t.unsigned} == {
        "c1.out", "p1.out", "stem.out", "block1.h", "block1.out", "average.out"}
    assert all((t.descriptor()[2] & 7 == UNSIGNED) == t.unsigned for t in chosen.tensors)
    assert not any(t.unsigned for t in compile_network(network, get_config("sim_8x8"), batch=2, lr_shift=3).tensors)
    network = Network(name="logits", shape=(4, 4, 1),
                      layers=(Conv(name="c1", channels=3, relu=True), GlobalAverage(name="pool")))
    chosen = compile_network(network, get_config("sim_8x8_unsigned"), batch=2, lr_shift=3)
    assert [t.name for t in chosen.tensors if t.unsigned] == ["c1.out"], "LOSS takes no unsigned logits"


def test_the_host_reads_and_writes_them() -> None:
    config = get_config("sim_8x8_unsigned")
    host = Host(GoldenDevice(config), compile_network(
        Network(name="net", shape=(4, 4, 1), layers=(Conv(name="c1", channels=4, relu=True), GlobalAverage(name="pool"),
                                                     Dense(name="fc", units=3))), config, batch=2, lr_shift=3))
    values = np.arange(128, dtype=np.int64).reshape(32, 4) * 2
    host.write_tensor("c1.out", values)
    found = host.read_tensor("c1.out")
    assert found.dtype == np.uint8 and found.tolist() == values.tolist()
    for wrong in (-1, 256):
        with pytest.raises(ValueError, match=r"c1.out: mantissas must be from 0 to 255"):
            host.write_tensor("c1.out", np.where(values == 0, wrong, values))


def test_not_on_a_dense_machine() -> None:
    with pytest.raises(ConfigError, match="dense machine"):
        Config(name="both", size=4, dense=True, unsigned=True)


# --- the RTL beside golden ------------------------------------------------------------------------

@pytest.fixture(scope="module")
def device() -> Iterator[VerilatorDevice]:
    device = VerilatorDevice(RTL)
    yield device
    device.close()


def test_random_programs(device: VerilatorDevice) -> None:
    """Half of their activations are unsigned; everything is compared after every instruction.

    Some programs are full of errors, some are stopped on the way, some go on while a host loads other words.
    """
    device.reset()
    before, campaign = device.compared_instructions, Campaign(device)
    for seed in range(40):
        print("seed", seed)
        campaign.run(seed)
    assert device.compared_instructions - before > 1200 and not device.mismatches
    assert campaign.stopped > 2 and campaign.loaded


def test_the_device_says_that_it_knows_them(device: VerilatorDevice) -> None:
    assert device.read_register("CONFIG") & KNOWS_UNSIGNED
    assert device.golden and device.golden.read(ADDRESSES["CONFIG"]) & KNOWS_UNSIGNED


@pytest.mark.parametrize("scale", ["delayed", "current"])
def test_training(device: VerilatorDevice, scale: str) -> None:
    device.reset()
    network = fixup_resnet((8, 8, 1), 10, channels=(4, 4, 8))
    plan = compile_network(network, RTL, batch=1, lr_shift=5, scale=scale)
    before = device.compared_instructions
    trainer = Trainer(device, plan, load("digits"), Hyper(batch=1, epochs=1, lr_shift=5, scale=scale, seed=SEED))
    trainer.run(max_steps=6)
    assert device.compared_instructions - before >= 6 * len(plan.program_of("train")) and not device.mismatches
