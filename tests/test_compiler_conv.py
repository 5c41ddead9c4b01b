"""Programs, lifetimes and limits of convolutional networks."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from golden.machine import GoldenMachine
from golden.tensor import fit, tensor
from shiftgrad import isa
from shiftgrad.compiler import CompileError, compile_network
from shiftgrad.config import CONFIGS, Config
from shiftgrad.initialise import initial_vectors, initial_weights, weight_exponent
from shiftgrad.isa import LEGAL_FLAGS, OPERANDS, Flag, Memory, Opcode
from shiftgrad.models import (
    Block,
    Conv,
    Dense,
    GlobalAverage,
    Layer,
    MaxPool,
    Network,
    NetworkError,
    fixup_resnet,
    lenet,
    mlp,
)
from shiftgrad.plan import Plan

BIG = Config(name="big", size=4, act_words=131072, err_words=131072, wgt_words=131072, mom_words=131072,
             vec_words=32768, program_words=2048, tensors=256)
HEAD = (GlobalAverage(name="average"), Dense(name="fc", units=3))


def plan_of(network: Network, config: Config = BIG, **options: object) -> Plan:
    return compile_network(network, config, **{"batch": 2, "lr_shift": 4, **options})  # type: ignore[arg-type]


# --- programs -------------------------------------------------------------------------------------

def test_a_block() -> None:
    network = Network(name="n", shape=(6, 6, 1), layers=(Conv(name="s", channels=4, relu=True), Block(
        name="b", channels=8, step=2, shortcut="conv"), *HEAD))
    plan = plan_of(network, batch=4)
    texts = [(i.phase, str(i).replace(".DELAYED", "")) for i in plan.program_of("train") if i.layer == "b"]
    assert texts == [
        ("forward", "FWD.RELU.BIAS.SCALAR dst=b.h, a=s.out, b=b.conv1.weight, c=b.b1b, d=b.b1a"),
        ("forward", "FWD.SCALAR dst=b.z, a=b.h, b=b.conv2.weight, d=b.b2a"),
        ("forward", "FWD dst=b.s, a=s.out, b=b.shortcut.weight"),
        ("forward", "ADD.RELU.BIAS.SCALAR.PAIR dst=b.out, a=b.z, b=b.s, c=b.b2b, d=b.m"),
        ("backward", "ADDB.SCALAR dst=b.e_z, a=b.error, d=b.m"),
        ("scalar", "SUM.PAIR dst=b.m, a=b.z, b=b.error, c=b.m_momentum imm=9"),
        ("scalar", "SUM dst=b.b2b, b=b.error, c=b.b2b_momentum imm=9"),
        ("backward", "BWD dst=b.e_h2, a=b.e_z, b=b.conv2.weight"),
        ("weights", "GRAD.SCALAR dst=b.conv2.weight, a=b.h, b=b.e_z, c=b.conv2.momentum, d=b.b2a imm=6"),
        ("scalar", "SUM dst=b.b2a, b=b.e_h2, c=b.b2a_momentum imm=9"),
        ("backward", "ADDB.MASK dst=b.e_h, a=b.e_h2, c=b.h"),
        ("scalar", "SUM dst=b.b1b, b=b.e_h, c=b.b1b_momentum imm=9"),
        ("backward", "BWD dst=b.e_u, a=b.e_h, b=b.conv1.weight"),
        ("weights", "GRAD.SCALAR dst=b.conv1.weight, a=s.out, b=b.e_h, c=b.conv1.momentum, d=b.b1a imm=6"),
        ("scalar", "SUM dst=b.b1a, b=b.e_u, c=b.b1a_momentum imm=9"),
        ("backward", "BWD dst=b.e_s, a=b.error, b=b.shortcut.weight"),
        ("backward", "ADDB.MASK.PAIR dst=s.error, a=b.e_u, b=b.e_s, c=s.out"),
        ("weights", "GRAD dst=b.shortcut.weight, a=s.out, b=b.error, c=b.shortcut.momentum imm=6"),
    ]
    assert {t.name for t in plan.kept()} == {"input", "s.out", "b.h", "b.z", "b.out", "average.out"}
    assert "kept for the backward pass: input" in plan.describe()


def test_pooling_and_averages() -> None:
    plan = plan_of(lenet((8, 8, 1), 10))
    texts = [str(i) for i in plan.program_of("train")]
    assert "MAX.DELAYED dst=pool1.out, a=conv1.out" in texts
    assert "MAXB.MASK.DELAYED dst=conv1.error, a=pool1.error, b=conv1.out" in texts
    average = next(str(i) for i in plan_of(fixup_resnet((4, 4, 1), 3, depth=1, width=4)).instructions
                   if i.opcode == Opcode.AVGB)
    assert average == "AVGB.MASK.DELAYED dst=block1.error, a=average.error, c=block1.out"
    assert all(i.flags & Flag.FREEZE for i in plan.program_of("evaluate") if Flag.FREEZE & LEGAL_FLAGS[i.opcode])


def random_network(rng: random.Random) -> Network:
    side = rng.choice((6, 7, 8, 12))
    shape = (side, rng.choice((6, 8)), rng.choice((1, 3, 5)))
    layers: list[Layer] = []
    at = shape
    for name in "abcd"[:rng.randint(1, 4)]:
        kinds: list[Layer] = [
            Conv(name=name, channels=rng.randint(1, 9), kernel=rng.choice((1, 2, 3)), step=rng.choice((1, 2)),
                 relu=rng.random() < 0.7, bias=rng.choice((None, "channel", "scalar")))]
        if at[2] <= 9:
            kinds.append(Block(name=name, channels=rng.randint(at[2], 9), step=rng.choice((1, 2)),
                               shortcut=rng.choice(("subsample", "conv"))))
        if at[0] % 2 == at[1] % 2 == 0:
            kinds.append(MaxPool(name=name))
        layers.append(rng.choice(kinds))
        at = layers[-1].output(at)
    return Network(name="random", shape=shape, layers=(*layers, *HEAD))


def test_random_networks_are_legal_and_never_overwrite_what_is_needed() -> None:
    """Every instruction passes the machine's checks, and reads what its own writers put there."""
    print("seed 4")
    rng = random.Random(4)
    for _ in range(60):
        plan = plan_of(random_network(rng), replace(BIG, size=rng.choice((4, 8, 12, 16)), act_words=65536,
                                                    err_words=65536, wgt_words=65536, mom_words=65536),
                       batch=rng.choice((1, 3)), scale=rng.choice(("delayed", "current")))
        owner = {(t.memory, t.base + w): t.name for t in plan.tensors for w in range(t.words)
                 if t.memory not in (Memory.ACT, Memory.ERR) or t.name == "input"}
        for i in plan.program_of("train"):
            if not i.operands:
                continue
            fields = isa.decode(i.word)
            assert set(OPERANDS(i.opcode, fields["flags"])) == set(i.operands)
            entries = {role: tensor(fields[role], plan.tensors[fields[role]].descriptor()) for role in i.operands}
            assert fit(i.opcode, entries, 256), i
            for role, name in i.operands.items():
                t = plan.tensor(name)
                if role != "dst" or t.memory not in (Memory.ACT, Memory.ERR):
                    assert {owner[t.memory, t.base + w] for w in range(t.words)} == {name}, (i, name)
            t = plan.tensor(i.operands["dst"])
            owner |= {(t.memory, t.base + w): t.name for w in range(t.words)}


# --- initialisation -------------------------------------------------------------------------------

@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_fixup(depth: int) -> None:
    network = fixup_resnet((8, 8, 3), 10, depth=depth, width=8)
    weights = initial_weights(network, 1)
    assert network.blocks == depth
    for w in network.weights():
        he = math.sqrt(2 / w.fan_in)
        std = weights[w.name].std() * 2.0 ** weight_exponent(w)
        if w.name.endswith("conv2.weight") or w.name == "fc.weight":
            assert std == 0 and weight_exponent(w) == math.ceil(math.log2(he)) - 7
        else:
            wanted = he * (depth ** -0.5 if "conv1" in w.name else 1)
            assert std == pytest.approx(wanted, rel=0.12)
            assert weight_exponent(w) == math.ceil(math.log2(4 * wanted)) - 7
    vectors = initial_vectors(network)
    assert all((v == (16384 if name.endswith(".m") else 0)).all() for name, v in vectors.items())
    assert sum(v.size == 1 for v in vectors.values()) == 5 * depth + 1


def test_ready_made_networks() -> None:
    table = fixup_resnet((14, 14, 1), 10, channels=(8, 8, 16, 16))
    blocks = [layer for layer in table.layers if isinstance(layer, Block)]
    assert [(b.channels, b.step, b.shortcut) for b in blocks] == [
        (8, 1, "identity"), (16, 2, "subsample"), (16, 1, "identity")]
    deep = [layer.channels for layer in fixup_resnet((32, 32, 3), 10, depth=9).layers if isinstance(layer, Block)]
    assert deep == [16] * 3 + [32] * 3 + [64] * 3
    for shape in ((28, 28, 1), (8, 8, 1), (14, 14, 1), (32, 32, 3)):
        plan_of(lenet(shape, 10))


# --- rejections -----------------------------------------------------------------------------------

@pytest.mark.parametrize(("shape", "layers", "message"), [
    ((5, 6, 1), (MaxPool(name="p"), *HEAD), "layer p: 2 x 2 pooling needs even sides, got 5 x 6: use a Conv of step 2"),
    ((9, 9, 1), (Conv(name="c", channels=2), Dense(name="d", units=2)),
     "layer d: a Dense behind another layer takes images of at most 7 x 7, got 9 x 9: put a MaxPool"),
    ((3, 3, 1), (Conv(name="c", channels=2, kernel=5, pad=0), *HEAD), "layer c: a kernel of 5 x 5 .* larger images"),
    ((6, 6, 4), (Block(name="b", channels=8), *HEAD), "layer b: an identity shortcut needs step 1 and the input's 4"),
    ((6, 6, 4), (Block(name="b", channels=3, shortcut="subsample"), *HEAD), "layer b: .*at least the input's 4 chan"),
    ((4, 4, 1), (Conv(name="c", channels=2),), "layer c: .*wanted a Dense or a GlobalAverage at the end, got .*4 x 4"),
    ((4, 4), HEAD, "network n: shape must be [(]height, width, channels[)], .*got [(]4, 4[)]"),
])
def test_networks_that_make_no_sense(shape: tuple[int, int, int], layers: tuple[Layer, ...], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        Network(name="n", shape=shape, layers=layers)


@pytest.mark.parametrize(("options", "message"), [
    ({"kernel": 8}, "layer c: kernel must be one of .*, got 8"),
    ({"step": 3}, r"layer c: step must be one of \(1, 2\)"),
    ({"bias": "row"}, "layer c: bias must be one of .*got 'row'"), ({"pad": 3}, "layer c: pad must be .*got 3"),
    ({"channels": 0}, "layer c: channels must be an integer from 1, got 0"),
    ({"kernel": 3.0}, "layer c: kernel must be one of .*, got 3.0"),
    ({"step": True}, "layer c: step must be .*got True"),
    ({"pad": 1.0}, "layer c: pad must be one of .*, got 1.0"),
    ({"relu": 1}, "layer c: relu must be True or False, got 1"),
    ({"zero": None}, "layer c: zero must be True or False, got None"),
])
def test_convolutions_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        Conv(**{"name": "c", "channels": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("network", "config", "batch", "message"), [
    (fixup_resnet((8, 8, 1), 10), {"act_words": 8192}, 16,
     r"layer block\d: block\d.\w+ does not fit the act memory of big: \d+ bytes are needed, .* bytes over"),
    (fixup_resnet((32, 32, 3), 10), {}, 64, "the input: input has 65536 rows, 64 images of 1024 pixels; .*most 63"),
    (fixup_resnet((8, 8, 1), 10, depth=100_000), {}, 1,
     "layer block256: the tensor table of big has 256 entries, got 100003 layers"),
    (fixup_resnet((8, 8, 1), 10, depth=12), {}, 1, "layer block12: .* tensor table of big: 280 .* 256: 24 over"),
    (Network(name="n", shape=(8, 8, 1), layers=(Conv(name="c", channels=20000, kernel=1), Conv(
        name="d", channels=2, kernel=3), *HEAD)), {}, 1,
     r"layer d: a sum of 180000 .* most .* inputs \(9 taps x 20000 c"),
])
def test_what_does_not_fit(network: Network, config: dict[str, int], batch: int, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        plan_of(network, replace(BIG, **config), batch=batch)


def test_a_dense_network_needs_no_form() -> None:
    assert not any(any(isa.unpack(isa.DESCRIPTOR[3], t.descriptor()[3]).values())
                   for t in plan_of(mlp(9, (5,), 3)).tensors)


def test_a_virtual_machine_has_wider_windows() -> None:
    config = CONFIGS["golden_16x16"]
    machine = GoldenMachine(replace(config, act_words=1 << 17, err_words=64, wgt_words=64, mom_words=64))
    address = machine.config.address(isa.Region.ACT) + 16 * ((1 << 17) - 1)
    machine.write(address, [0x04030201])
    assert machine.memories["act"][-1, :4].tolist() == [1, 2, 3, 4]
    assert machine.read(address).tolist() == [0x04030201]


def test_the_range_of_weights_that_start_at_zero() -> None:
    def exponents(**more: float) -> dict[str, int]:
        return {w.name: weight_exponent(w) for w in fixup_resnet((8, 8, 1), 10, channels=(4, 4, 8), **more).weights()}

    quarter, whole = exponents(), exponents(zero_range=1.0)
    zeros = {"block1.conv2.weight", "block2.conv2.weight", "fc.weight"}
    assert {name: whole[name] - quarter[name] for name in quarter} == {name: 2 * (name in zeros) for name in quarter}
    for wrong in (0, 2.0 ** -11, 5.0, True, "1", float("nan")):
        with pytest.raises(NetworkError, match="layer block1: zero_range must be a number from 0.0009765625 to 4, got"):
            fixup_resnet((8, 8, 1), 10, channels=(4, 4), zero_range=wrong)  # type: ignore[arg-type]
