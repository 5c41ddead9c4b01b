"""Networks, initialisation, memory plans and programs."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from shiftgrad import isa
from shiftgrad.compiler import CompileError, batch_shift, compile_network
from shiftgrad.config import CONFIGS, Config
from shiftgrad.initialise import generator_seeds, initial_weights, weight_exponent
from shiftgrad.isa import LEGAL_FLAGS, OPERANDS, Flag, Memory, Opcode
from shiftgrad.models import Dense, Network, NetworkError, Weights, mlp
from shiftgrad.plan import Plan, first_fit, peak

BIG = Config(name="big", size=4, act_words=65536, err_words=65536, wgt_words=65536, mom_words=65536, vec_words=32768,
             tensors=256)


def plan_of(network: Network, config: Config = CONFIGS["sim_8x8"], *, batch: int = 4, **options: object) -> Plan:
    return compile_network(network, config, batch=batch, **{"lr_shift": 4, **options})  # type: ignore[arg-type]


# --- networks -------------------------------------------------------------------------------------

def test_mlp_layers() -> None:
    network = mlp(64, (48, 20), 10)
    assert [(layer, shape) for layer, shape in network.steps()] == [
        (Dense(name="fc1", units=48, relu=True), (1, 1, 64)), (Dense(name="fc2", units=20, relu=True), (1, 1, 48)),
        (Dense(name="fc3", units=10), (1, 1, 20))]
    assert [(w.name, w.fan_in) for w in network.weights()] == [
        ("fc1.weight", 64), ("fc2.weight", 48), ("fc3.weight", 20)]
    assert (network.classes, network.parameters) == (10, 65 * 48 + 49 * 20 + 21 * 10)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: Dense(name="a", units=0), "layer a: units must be an integer from 1, got 0"),
    (lambda: Dense(name="a", units=True), "layer a: units must be an integer from 1, got True"),
    (lambda: Dense(name="a b", units=1), "must be an identifier, got 'a b'"),
    (lambda: mlp(0, (), 2), "inputs must be an integer from 1, got 0"),
    (lambda: Network(name="n", inputs=1, layers=()), "one or more"),
    (lambda: Network(name="n", inputs=1, layers=("x",)), "layer 0 must be a Dense, Conv, .*, got str"),  # type: ignore[arg-type]
    (lambda: Network(name="n", inputs=1, layers=(Dense(name="a", units=2),) * 2), "layer a: names must be unique"),
    (lambda: Network(name="n", inputs=1, layers=(Dense(name="a", units=2, relu=True),)), "layer a: the last layer"),
    (lambda: mlp(3, (), 1), "layer fc1: a classifier needs at least 2 units, got 1"),
])
def test_networks_that_make_no_sense(build: object, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        build()  # type: ignore[operator]


# --- initialisation -------------------------------------------------------------------------------

def exponent(fan_in: int, **more: object) -> int:
    return weight_exponent(Weights(name="w", inputs=fan_in, outputs=1, **more))  # type: ignore[arg-type]


def test_weight_exponents() -> None:
    # std = sqrt(2 / 32) = 1/4 gives 4 std = 1 exactly
    assert exponent(32) == -7
    assert exponent(33) == -7  # just below 1 still rounds up
    assert exponent(31) == -6
    assert exponent(32, gain=1 / 4) == -9
    assert exponent(784) == math.ceil(math.log2(4 * math.sqrt(2 / 784))) - 7 == -9


def test_weights_are_he() -> None:
    network = Network(name="n", inputs=784, layers=(
        Dense(name="a", units=200, relu=True), Dense(name="b", units=50, relu=True),
        Dense(name="c", units=10, zero=True)))
    weights = initial_weights(network, 5)
    for layer, (name, q) in zip(network.weights(), weights.items(), strict=True):
        assert name == layer.name and q.dtype == np.int8 and q.shape == (layer.fan_in, layer.outputs)
        assert np.abs(q.astype(int)).max(initial=0) <= 127
        if layer.zero:
            assert not q.any() and weight_exponent(layer) == exponent(50, gain=1 / 4)
        else:
            std = q.std() * 2.0 ** weight_exponent(layer)
            assert std == pytest.approx(math.sqrt(2 / layer.fan_in), rel=0.05)
    again, other = initial_weights(network, 5), initial_weights(network, 6)
    assert np.array_equal(weights["a.weight"], again["a.weight"])
    assert not np.array_equal(weights["a.weight"], other["a.weight"])


def test_generator_seeds() -> None:
    seeds = generator_seeds(0, 16)
    assert seeds.dtype == np.uint32 and seeds.all() and len(set(seeds.tolist())) == 16
    assert np.array_equal(seeds, generator_seeds(0, 16)) and not np.array_equal(seeds, generator_seeds(1, 16))


# --- programs -------------------------------------------------------------------------------------

def test_programs_of_two_layers() -> None:
    plan = plan_of(mlp(64, (48,), 10), batch=16)
    delayed = "DELAYED"
    assert [(i.phase, i.layer, str(i)) for i in plan.program_of("train")] == [
        ("forward", "fc1", f"FWD.RELU.BIAS.{delayed} dst=fc1.out, a=input, b=fc1.weight, c=fc1.bias"),
        ("forward", "fc2", f"FWD.BIAS.{delayed} dst=fc2.out, a=fc1.out, b=fc2.weight, c=fc2.bias"),
        ("loss", "", "LOSS dst=fc2.error, a=fc2.out, b=labels"),
        ("backward", "fc2", f"BWD.MASK.{delayed} dst=fc1.error, a=fc2.error, b=fc2.weight, c=fc1.out"),
        ("weights", "fc2", f"GRAD.{delayed} dst=fc2.weight, a=fc1.out, b=fc2.error, c=fc2.momentum imm=8"),
        ("bias", "fc2", f"GRAD.ONES.{delayed} dst=fc2.bias, b=fc2.error, c=fc2.bias_momentum imm=8"),
        ("weights", "fc1", f"GRAD.{delayed} dst=fc1.weight, a=input, b=fc1.error, c=fc1.momentum imm=8"),
        ("bias", "fc1", f"GRAD.ONES.{delayed} dst=fc1.bias, b=fc1.error, c=fc1.bias_momentum imm=8"),
        ("halt", "", "HALT"),
    ]
    assert plan.entries == {"train": 0, "evaluate": 9}
    assert [i.phase for i in plan.program_of("evaluate")] == ["forward", "forward", "loss", "halt"]
    assert all(i.flags & Flag.FREEZE for i in plan.program_of("evaluate") if i.opcode == Opcode.FWD)
    assert [i.shape for i in plan.instructions[:8]] == [
        (16, 48, 64), (16, 10, 48), (16, 10, 0), (16, 48, 10), (48, 10, 16), (1, 10, 16), (64, 48, 16), (1, 48, 16)]
    live = {tensor.name: tensor.live for tensor in plan.tensors if tensor.memory in (Memory.ACT, Memory.ERR)}
    assert live == {"input": (0, 8), "fc1.out": (0, 4), "fc1.error": (3, 7), "fc2.out": (1, 2), "fc2.error": (2, 5)}


def test_without_relu_bias_or_delay() -> None:
    network = Network(name="n", inputs=5, layers=(Dense(name="a", units=7, bias=False), Dense(name="b", units=3)))
    plan = plan_of(network, batch=1, scale="current")
    train = plan.program_of("train")
    assert [i.phase for i in train] == [
        "forward", "forward", "loss", "backward", "weights", "bias", "weights", "halt"]
    assert not any(i.flags & (Flag.DELAYED | Flag.MASK | Flag.RELU) for i in train)
    assert "c" not in train[0].operands and "c" not in train[3].operands
    assert "a.bias" not in {tensor.name for tensor in plan.tensors}


@pytest.mark.parametrize(("batch", "shift"), [(1, 0), (2, 1), (3, 2), (5, 2), (6, 3), (11, 3), (12, 4), (32, 5)])
def test_mean_of_the_batch_is_in_the_immediate(batch: int, shift: int) -> None:
    assert batch_shift(batch) == shift
    gradients = [i for i in plan_of(mlp(4, (), 2), batch=batch, lr_shift=3).instructions if i.opcode == Opcode.GRAD]
    assert [i.imm for i in gradients] == [3 + shift] * 2


def test_words_decode_to_legal_instructions() -> None:
    """Ids, memories and flags are those the machine accepts, for random networks."""
    rng = random.Random(2)
    for _ in range(60):
        plan = random_plan(rng)
        for i in plan.instructions:
            fields = isa.decode(i.word)
            opcode = Opcode(fields["opcode"])
            assert opcode == i.opcode and not fields["flags"] & ~LEGAL_FLAGS[opcode]
            used = OPERANDS(opcode, fields["flags"])
            assert set(used) == set(i.operands)
            for role, memory in used.items():
                tensor = plan.tensors[fields[role]]
                assert (tensor.name, tensor.memory) == (i.operands[role], memory)


# --- memory plan ----------------------------------------------------------------------------------

def random_plan(rng: random.Random) -> Plan:
    names = "abcdefgh"[: rng.randint(1, 8)]
    layers = tuple(
        Dense(name=name, units=rng.randint(2, 40), relu=name != names[-1] and rng.random() < 0.7,
              bias=rng.random() < 0.7)
        for name in names)
    network = Network(name="random", inputs=rng.randint(1, 50), layers=layers)
    return plan_of(network, replace(BIG, size=rng.choice((4, 8, 12, 16))), batch=rng.choice((1, 2, 7, 16)),
                   scale=rng.choice(("delayed", "current")))


def test_no_tensor_is_overwritten_while_it_is_needed() -> None:
    """Follows the writes of the train program: every operand read still holds what its own writer put there."""
    print("seed 1")
    rng = random.Random(1)
    for _ in range(150):
        plan = random_plan(rng)
        owner: dict[tuple[Memory, int], str] = {}
        written_by_host = [t for t in plan.tensors if t.memory not in (Memory.ACT, Memory.ERR) or t.name == "input"]
        for tensor in written_by_host:
            cells = {(tensor.memory, tensor.base + w) for w in range(tensor.words)}
            assert not cells & owner.keys(), tensor
            owner |= dict.fromkeys(cells, tensor.name)
        for i in plan.program_of("train"):
            for role, name in i.operands.items():
                t = plan.tensor(name)
                if role == "dst" and t.memory in (Memory.ACT, Memory.ERR):
                    continue
                assert {owner[t.memory, t.base + w] for w in range(t.words)} == {name}, (i, name)
            if i.operands:
                t = plan.tensor(i.operands["dst"])
                owner |= {(t.memory, t.base + w): t.name for w in range(t.words)}
                sources = [plan.tensor(n) for role, n in i.operands.items() if role != "dst"]
                assert not any(t.memory == s.memory and t.base < s.base + s.words and s.base < t.base + t.words
                               for s in sources if i.opcode != Opcode.GRAD)
        assert all(t.base + t.words <= plan.config.words(t.memory.name.lower()) for t in plan.tensors)


def test_errors_share_their_memory() -> None:
    plan = plan_of(mlp(8, (64,) * 6, 10), batch=8)
    errors = [t for t in plan.tensors if t.memory == Memory.ERR]
    assert plan.used_words(Memory.ERR) == 2 * 64 < sum(t.words for t in errors)
    for a, b in combinations(errors, 2):
        overlap = a.base < b.base + b.words and b.base < a.base + a.words
        together = a.live[0] <= b.live[1] and b.live[0] <= a.live[1]
        assert not (overlap and together), (a, b)


def test_first_fit() -> None:
    assert first_fit([]) == []
    spans = [(10, 0, 1), (2, 1, 2), (12, 2, 3)]  # by size: 14 words; in order the last would end at 24
    assert peak(spans, first_fit(spans)) == 14
    spans = [(5, 0, 1), (4, 1, 2), (4, 2, 3), (5, 3, 4)]  # in order: 9 words
    assert first_fit(spans) == [0, 5, 0, 4]


def test_descriptors() -> None:
    plan = plan_of(mlp(9, (17,), 10), batch=3)
    for tensor in plan.tensors:
        words = [isa.unpack(fields, word) for fields, word in zip(isa.DESCRIPTOR, tensor.descriptor(), strict=True)]
        assert words[0] == {"base": tensor.base}
        assert words[1] == {"planes": tensor.rows, "cols": tensor.cols}
        assert words[2] == {"memory": tensor.memory, "stride": -(-tensor.cols // 8)}
        assert not any(words[3].values())
        assert words[4] == {"exponent": tensor.exponent, "count": 0}
    assert plan.tensor("fc1.weight").exponent == exponent(9)
    assert plan.tensor("fc1.bias").exponent == -14
    with pytest.raises(KeyError, match="no tensor 'x'; there are: input, labels, fc1.weight"):
        plan.tensor("x")


def test_reports() -> None:
    plan = plan_of(mlp(64, (48,), 10))
    text = plan.describe()
    assert all(t.name in text for t in plan.tensors) and "program evaluate at 9" in text
    data = json.loads(json.dumps(plan.to_json()))
    assert [int(i["word"], 16) for i in data["instructions"]] == list(plan.program)
    assert data["entries"] == {"train": 0, "evaluate": 9}


def test_the_board_fits_mnist() -> None:
    assert plan_of(mlp(784, (128,), 10), CONFIGS["ulx3s_85f_8x8"], batch=32).used_words(Memory.WGT) == 12800


# --- rejections -----------------------------------------------------------------------------------

@pytest.mark.parametrize(("network", "config", "options", "message"), [
    (mlp(1024, (128, 8), 10), {}, {}, "layer fc2: fc2.weight does not fit the wgt memory of sim_8x8: "
     "132224 bytes are needed, there are 131072: 1152 bytes over"),
    (mlp(1024, (128,), 10), {"wgt_words": 65536}, {}, "layer fc1: fc1.bias_momentum does not fit the mom memory"),
    (mlp(784, (8,), 10), {}, {"batch": 128}, "network mlp-784-8-10: input does not fit the act memory of sim_8x8: "
     "103424 bytes are needed, there are 65536: 37888 bytes over"),
    (mlp(8, (64,), 10), {"err_words": 50}, {"batch": 8},
     "layer fc1: fc1.error does not fit the err memory of sim_8x8: "
     "640 bytes are needed, there are 400: 240 bytes over"),
    (mlp(8, (), 10), {"vec_words": 4}, {"batch": 64},
     "network mlp-8-10: labels does not fit the vec memory of sim_8x8: "
     "160 bytes are needed, there are 64: 96 bytes over"),
    (mlp(8, (8,), 10), {"program_words": 12}, {}, "layer fc2: .* the program memory of sim_8x8: 13 .* 12: 1 over"),
    (mlp(8, (8,) * 4, 10), {"tensors": 13}, {}, "layer fc2: .* the tensor table of sim_8x8: 32 .* 13: 19 over"),
    (mlp(8, (), 10), {"classes": 9}, {}, "layer fc1: sim_8x8 classifies at most 9 classes, got 10 units"),
    (mlp(8, (70000,), 10), {}, {}, "layer fc1: units must be at most 65535, got 70000"),
    (mlp(65536, (), 10), {}, {}, "layer fc1: inputs must be at most 65535, got 65536"),
    (mlp(131072, (), 10), {}, {}, "layer fc1: a sum of 131072 int8 products could overflow 32 bits: at most 131071"),
    (mlp(8, (), 10), {}, {"batch": 0}, "batch must be an integer from 1 to 65535, got 0"),
    (mlp(8, (), 10), {}, {"batch": 65536}, "batch must be an integer from 1 to 65535, got 65536"),
    (mlp(8, (), 10), {}, {"lr_shift": 62}, "must be from 0 to 63, got 62 [+] 2"),
    (mlp(8, (), 10), {}, {"lr_shift": -3}, "must be from 0 to 63, got -3 [+] 2"),
    (mlp(8, (), 10), {}, {"batch": True}, "batch must be an integer from 1 to 65535, got True"),
    (mlp(8, (), 10), {}, {"lr_shift": 1.5}, "lr_shift must be an integer, got 1.5"),
    (mlp(8, (), 10), {}, {"scale": "now"}, "scale must be one of .*, got 'now'"),
])
def test_what_does_not_fit(network: Network, config: dict[str, int], options: dict[str, int], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        plan_of(network, replace(CONFIGS["sim_8x8"], **config), **options)  # type: ignore[arg-type]


# --- the next mini-batch --------------------------------------------------------------------------

def test_the_next_batch_has_a_place_that_nothing_shares() -> None:
    plan = plan_of(mlp(64, (48, 20), 10), batch=16)
    assert set(plan.loading.second) == {"input", "labels"} and not plan.loading.why
    for name, base in plan.loading.second.items():
        loaded = plan.tensor(name)
        places = [(t.base, t.base + t.words) for t in plan.tensors if t.memory == loaded.memory and t is not loaded]
        spans = [(loaded.base, loaded.base + loaded.words), (base, base + loaded.words)]
        for low, high in (spans[0], spans[1]):
            others = [*places, *(span for span in spans if span != (low, high))]
            assert all(high <= start or end <= low for start, end in others), name
            assert plan.used_words(loaded.memory) >= high
    assert str(plan.loading).startswith("next batch: loaded while a program runs, every other one with input at ")
    assert str(plan.loading) in plan.describe()
    assert plan.to_json()["loading"] == {"second": plan.loading.second, "why": ""}


@pytest.mark.parametrize("memory", ["act", "vec"])
def test_without_room_for_it_there_is_one_place(memory: str) -> None:
    """A word less than two places take: one of each, and the plan says what was missing."""
    roomy = plan_of(mlp(64, (48,), 10), batch=16)
    needed = roomy.used_words(Memory[memory.upper()])
    assert roomy.loading.second
    tight = replace(CONFIGS["sim_8x8"], **{f"{memory}_words": needed - 1})
    plan = plan_of(mlp(64, (48,), 10), tight, batch=16)
    assert not plan.loading.second
    assert str(plan.loading) == (f"next batch: loaded between programs, for a second place does not fit the {memory} "
                                 f"memory of sim_8x8: {needed} words are needed, there are {needed - 1}")
    assert plan.used_words(Memory[memory.upper()]) < needed
    assert plan_of(mlp(64, (48,), 10), replace(tight, **{f"{memory}_words": needed}), batch=16).loading.second


def test_a_machine_that_takes_no_writes_while_it_runs_has_one_place() -> None:
    plan = plan_of(mlp(64, (48,), 10), CONFIGS["up5k_4x4"])
    assert not plan.loading.second
    assert plan.loading.why == "for up5k_4x4 takes no writes while one runs"
