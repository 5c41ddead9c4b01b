"""The golden machine's checks of images, kernels and the vector unit's operands: what is an error, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from golden.convolution import Window
from golden.tensor import Tensor, fit
from shiftgrad.isa import Flag, Memory, Opcode, Status, encode
from tests.machine_bench import SMALL, Bench

SEED = 15
ACT, ERR, WGT, MOM, VEC = Memory
CONFIG = replace(SMALL, act_words=2400, err_words=1400, tensors=40)
GAP = 40  # words between tensors: some grow
SHAPE, RANGE, TENSOR, FLAGS = Status.BAD_SHAPE, Status.OUT_OF_RANGE, Status.BAD_TENSOR, Status.ILLEGAL_FLAGS

# name: memory, planes, height, width, columns, more fields
TENSORS: dict[str, tuple[Any, ...]] = {
    "x": (ACT, 2, 5, 4, 3), "w": (WGT, 3, 3, 2, 5, dict(step_y=1, pad_y=1)), "y": (ACT, 2, 3, 3, 5),
    "bias": (VEC, 1, 1, 1, 5), "d": (VEC, 1, 1, 1, 1), "e": (ERR, 2, 3, 3, 5), "dx": (ERR, 2, 5, 4, 3),
    "mask": (ACT, 2, 5, 4, 3), "m": (MOM, 3, 3, 2, 5), "m1": (MOM, 1, 1, 1, 1), "s": (VEC, 1, 1, 1, 1),
    "mb": (MOM, 1, 1, 1, 5),
    "half": (ACT, 2, 5, 4, 4), "z": (ACT, 2, 5, 4, 4), "full": (ACT, 2, 9, 8, 3),
    "de": (ERR, 2, 9, 8, 3), "da": (ERR, 2, 9, 8, 3), "dh": (ERR, 2, 5, 4, 4), "dmask": (ACT, 2, 9, 8, 3),
    "mean": (ACT, 2, 1, 1, 3), "dmean": (ERR, 2, 1, 1, 3),
    "p": (ACT, 2, 4, 6, 3), "q": (ACT, 2, 2, 3, 3), "dp": (ERR, 2, 4, 6, 3), "dq": (ERR, 2, 2, 3, 3),
}
IDS = {name: index for index, name in enumerate(TENSORS)}
GOOD: dict[str, dict[str, Any]] = {
    "fwd": dict(opcode=Opcode.FWD, flags=Flag.BIAS | Flag.SCALAR, dst="y", a="x", b="w", c="bias", d="d"),
    "bwd": dict(opcode=Opcode.BWD, flags=Flag.MASK, dst="dx", a="e", b="w", c="mask"),
    "grad": dict(opcode=Opcode.GRAD, flags=Flag.SCALAR, dst="w", a="x", b="e", c="m", d="d", imm=4),
    "ones": dict(opcode=Opcode.GRAD, flags=Flag.ONES | Flag.SCALAR, dst="bias", b="e", c="mb", d=99, imm=4),
    "add": dict(opcode=Opcode.ADD, flags=Flag.PAIR | Flag.BIAS | Flag.SCALAR, dst="half", a="z", b="full", c="s",
                d="d"),
    "addb": dict(opcode=Opcode.ADDB, flags=Flag.PAIR | Flag.MASK | Flag.SCALAR, dst="de", a="da", b="dh", c="dmask",
                 d="d"),
    "sum": dict(opcode=Opcode.SUM, flags=Flag.PAIR, dst="s", a="y", b="e", c="m1", imm=4),
    "avg": dict(opcode=Opcode.AVG, dst="mean", a="x"),
    "avgb": dict(opcode=Opcode.AVGB, flags=Flag.MASK, dst="dx", a="dmean", c="mask"),
    "max": dict(opcode=Opcode.MAX, dst="q", a="p"),
    "maxb": dict(opcode=Opcode.MAXB, dst="dp", a="dq", b="p"),
}
AS_IMAGES = {  # operands whose planes, height and width count; of the others only rows and columns do
    "fwd": "yxw", "bwd": ("dx", "e", "w"), "grad": "wxe", "ones": (), "add": ("half", "full"), "addb": ("de", "dh"),
    "sum": (), "avg": ("mean", "x"), "avgb": ("dx", "dmean"), "max": "qp", "maxb": ("dp", "dq", "p"),
}


@pytest.fixture
def bench() -> Bench:
    print("seed", SEED)
    bench = Bench(CONFIG, np.random.default_rng(SEED))
    for memory, planes, height, width, cols, *more in TENSORS.values():
        index = bench.tensor(memory, planes * height * width, cols, -9)
        bench.free[memory] += GAP if memory in (ACT, ERR) else 0
        bench.describe(index, planes=planes, height=height - 1, width=width - 1, **(more[0] if more else {}))
        bench.fill(index)
    return bench


def word(name: str, **changed: Any) -> int:
    fields = {**GOOD[name], **changed}
    return encode(**{field: IDS[value] if isinstance(value, str) else value for field, value in fields.items()})


CHANGES: list[tuple[str, str, dict[str, int], Status | None]] = [  # instruction, tensor, changed fields, status
    # a convolution's sizes
    ("fwd", "y", dict(height=1), SHAPE), ("fwd", "y", dict(height=3), SHAPE), ("fwd", "y", dict(width=3), SHAPE),
    ("fwd", "y", dict(planes=1), SHAPE), ("fwd", "y", dict(planes=3, height=1), SHAPE),
    ("fwd", "x", dict(planes=3), SHAPE),
    ("fwd", "x", dict(height=5), None), ("fwd", "x", dict(height=6), SHAPE), ("fwd", "x", dict(height=3), SHAPE),
    ("fwd", "x", dict(cols=4), SHAPE), ("fwd", "w", dict(planes=2), SHAPE), ("fwd", "w", dict(cols=4), SHAPE),
    ("fwd", "w", dict(step_y=0), SHAPE), ("fwd", "w", dict(step_x=1), SHAPE), ("fwd", "w", dict(pad_y=0), SHAPE),
    ("fwd", "w", dict(pad_y=2), SHAPE), ("fwd", "w", dict(pad_y=3), SHAPE), ("fwd", "w", dict(pad_x=1), SHAPE),
    ("fwd", "w", dict(pad_x=2), SHAPE), ("fwd", "w", dict(height=3), SHAPE), ("fwd", "w", dict(height=7), SHAPE),
    ("fwd", "w", dict(width=7), SHAPE), ("fwd", "x", dict(height=0), SHAPE), ("fwd", "x", dict(width=0), SHAPE),
    ("bwd", "dx", dict(height=5), SHAPE), ("bwd", "dx", dict(width=4), SHAPE), ("bwd", "dx", dict(planes=1), SHAPE),
    ("bwd", "e", dict(height=1), SHAPE), ("bwd", "e", dict(planes=1), SHAPE), ("bwd", "w", dict(pad_x=2), SHAPE),
    ("bwd", "w", dict(step_y=0), SHAPE), ("bwd", "mask", dict(planes=1), SHAPE), ("bwd", "mask", dict(cols=2), SHAPE),
    ("grad", "w", dict(step_x=1), SHAPE), ("grad", "w", dict(pad_y=7), SHAPE), ("grad", "w", dict(planes=2), SHAPE),
    ("grad", "e", dict(width=1), SHAPE), ("grad", "x", dict(planes=1), SHAPE), ("grad", "m", dict(width=0), SHAPE),
    ("ones", "mb", dict(height=1), SHAPE), ("ones", "bias", dict(width=1), SHAPE),
    # bias and scalars
    ("fwd", "bias", dict(cols=1, stride=1), None), ("fwd", "bias", dict(cols=2, stride=1), SHAPE),
    ("fwd", "bias", dict(cols=1, stride=1, planes=2), SHAPE), ("fwd", "bias", dict(height=1), SHAPE),
    ("fwd", "d", dict(cols=2), SHAPE), ("fwd", "d", dict(planes=2), SHAPE), ("fwd", "d", dict(width=1), SHAPE),
    ("grad", "d", dict(cols=4), SHAPE), ("add", "d", dict(cols=2), SHAPE), ("addb", "d", dict(height=1), SHAPE),
    ("add", "s", dict(cols=2), SHAPE), ("add", "s", dict(planes=2), SHAPE),
    # sums
    ("add", "z", dict(planes=1), SHAPE), ("add", "z", dict(cols=3), SHAPE), ("add", "half", dict(cols=2), SHAPE),
    ("add", "full", dict(height=9), None), ("add", "full", dict(height=7), SHAPE), ("add", "full", dict(width=6), None),
    ("add", "full", dict(width=5), SHAPE), ("add", "full", dict(height=4, width=3), None),
    ("add", "full", dict(height=4), SHAPE), ("add", "full", dict(planes=1), SHAPE), ("add", "full", dict(cols=4), None),
    ("add", "full", dict(cols=5, stride=2), SHAPE), ("add", "full", dict(cols=1), None),
    ("addb", "da", dict(planes=1), SHAPE), ("addb", "dmask", dict(width=5), SHAPE),
    ("addb", "dh", dict(height=3), SHAPE),
    ("addb", "dh", dict(planes=1), SHAPE), ("addb", "dh", dict(cols=2), SHAPE), ("addb", "dh", dict(cols=3), None),
    ("addb", "dh", dict(height=8, width=7), None), ("addb", "dh", dict(height=8), SHAPE),
    ("sum", "s", dict(cols=2), SHAPE), ("sum", "s", dict(planes=2), SHAPE), ("sum", "m1", dict(cols=3), SHAPE),
    ("sum", "y", dict(planes=1), SHAPE), ("sum", "e", dict(cols=6), SHAPE),
    # pooling
    ("avg", "mean", dict(height=1), SHAPE), ("avg", "mean", dict(planes=1), SHAPE), ("avg", "x", dict(planes=1), SHAPE),
    ("avg", "mean", dict(cols=2), SHAPE), ("avg", "x", dict(height=0, width=0), None),
    ("avgb", "dmean", dict(width=1), SHAPE), ("avgb", "dmean", dict(planes=1), SHAPE),
    ("avgb", "dx", dict(cols=2), SHAPE),
    ("avgb", "mask", dict(planes=1), SHAPE), ("max", "p", dict(height=4), SHAPE), ("max", "p", dict(width=4), SHAPE),
    ("max", "p", dict(planes=1), SHAPE), ("max", "q", dict(cols=2), SHAPE), ("max", "q", dict(height=2), SHAPE),
    ("maxb", "dp", dict(height=4), SHAPE), ("maxb", "dq", dict(width=1), SHAPE), ("maxb", "p", dict(width=4), SHAPE),
    ("maxb", "p", dict(height=5, width=3), SHAPE), ("maxb", "p", dict(cols=4), SHAPE),
    ("maxb", "dq", dict(cols=2), SHAPE),
    # sizes of tensors and memories
    *((name, tensor, dict(planes=planes, height=height, width=width), SHAPE)
      for name, tensor in (("fwd", "x"), ("bwd", "e"), ("grad", "m"), ("add", "full"), ("sum", "e"), ("avg", "x"),
                           ("addb", "dmask"), ("max", "p"), ("maxb", "p"), ("avgb", "dmean"))
      for planes, height, width in ((0, 4, 4), (65535, 1, 0), (256, 255, 0), (1, 255, 255), (65535, 255, 255),
                                    (32768, 255, 255), (257, 255, 0), (32768, 0, 1))),
    ("fwd", "x", dict(planes=65535, height=0, width=0), RANGE),
    ("add", "full", dict(planes=257, height=254, width=0), RANGE),
    ("sum", "e", dict(planes=1, height=254, width=254), RANGE), ("max", "p", dict(base=2400 - 47), RANGE),
    ("add", "full", dict(base=(1 << 20) - 1), RANGE), ("add", "d", dict(base=64), RANGE),
    ("sum", "m1", dict(base=512), RANGE),
    ("maxb", "p", dict(base=2400 - 48), None), ("fwd", "d", dict(stride=2), SHAPE),
    ("sum", "m1", dict(stride=0), SHAPE),
    ("avg", "x", dict(memory=ERR), TENSOR), ("add", "d", dict(memory=MOM), TENSOR),
    ("sum", "m1", dict(memory=VEC), TENSOR),
    ("add", "full", dict(exponent=61), Status.OVERFLOW), ("sum", "m1", dict(count=9), Status.OVERFLOW),
    ("maxb", "p", dict(exponent=-61), Status.OVERFLOW), ("add", "d", dict(exponent=60), None),
]
FIELDS: list[tuple[str, dict[str, Any], Status | None]] = [  # instruction, its changed fields, status
    *((name, dict(flags=GOOD[name].get("flags", 0) | flag), FLAGS) for name, flag in (
        ("fwd", Flag.PAIR), ("fwd", Flag.MASK), ("bwd", Flag.SCALAR), ("bwd", Flag.BIAS), ("grad", Flag.MASK),
        ("grad", Flag.PAIR), ("add", Flag.MASK), ("add", Flag.ONES), ("addb", Flag.RELU), ("addb", Flag.BIAS),
        ("addb", Flag.FREEZE), ("sum", Flag.SCALAR), ("sum", Flag.FREEZE), ("avg", Flag.RELU), ("avg", Flag.MASK),
        ("avgb", Flag.FREEZE), ("max", Flag.MASK), ("max", Flag.RELU), ("maxb", Flag.FREEZE), ("maxb", Flag.PAIR))),
    ("add", dict(dst="z"), Status.OVERLAP),
    ("bwd", dict(dst="e", a="e"), SHAPE), ("addb", dict(dst="da"), Status.OVERLAP),
    ("add", dict(b="half"), Status.OVERLAP),
    ("sum", dict(b="e", flags=0, a=200), None), ("sum", dict(imm=64), Status.OVERFLOW),
    ("sum", dict(imm=-1), Status.OVERFLOW),
    ("sum", dict(imm=63), None), ("add", dict(flags=0, b=200, c=200, d=200), None), ("add", dict(b=200), TENSOR),
    ("add", dict(a="half"), Status.OVERLAP), ("add", dict(c=200), TENSOR), ("add", dict(d=200), TENSOR),
    ("add", dict(b="de"), TENSOR), ("addb", dict(b="full"), TENSOR), ("addb", dict(c="da"), TENSOR),
    ("addb", dict(flags=0, b=99, c=99, d=99), None), ("fwd", dict(flags=0, c=99, d=99), None),
    ("fwd", dict(d=40), TENSOR),
    ("fwd", dict(d="bias"), SHAPE), ("fwd", dict(d="m1"), TENSOR), ("grad", dict(d="x"), TENSOR),
    ("ones", dict(d=255), None),
    ("avg", dict(b=99, c=99, d=99), None), ("avgb", dict(flags=0, c=99), None), ("avgb", dict(c="dx"), TENSOR),
    ("maxb", dict(b="dp"), TENSOR), ("maxb", dict(flags=Flag.MASK, c=99), None), ("add", dict(a="full"), SHAPE),
    ("add", dict(b="z"), None), ("add", dict(c="d"), None), ("addb", dict(b="da"), None), ("sum", dict(dst="d"), None),
]


def outcome(bench: Bench, instruction: int, status: Status | None) -> None:
    """The status, and after an error everything as before."""
    machine, before = bench.machine, bench.machine.snapshot()
    others = machine.saturated, machine.retired, dict(machine.counters)
    assert bench.step(instruction) == status
    if status is not None:
        assert machine.compare(before) == []
        assert (machine.saturated, machine.retired, machine.counters) == others


@pytest.mark.parametrize("name", GOOD)
def test_good_instructions_run(name: str, bench: Bench) -> None:
    outcome(bench, word(name), None)


@pytest.mark.parametrize(("name", "tensor", "fields", "status"), CHANGES)
def test_a_changed_tensor(name: str, tensor: str, fields: dict[str, int], status: Status | None, bench: Bench) -> None:
    bench.describe(IDS[tensor], **fields)
    outcome(bench, word(name), status)


@pytest.mark.parametrize(("name", "fields", "status"), FIELDS)
def test_changed_fields(name: str, fields: dict[str, Any], status: Status | None, bench: Bench) -> None:
    outcome(bench, word(name, **fields), status)


@pytest.mark.parametrize(("name", "dst", "other"), [
    ("fwd", "y", "x"), ("bwd", "dx", "e"), ("add", "half", "z"), ("add", "half", "full"), ("addb", "de", "da"),
    ("addb", "de", "dh"), ("avg", "mean", "x"), ("avgb", "dx", "dmean"), ("max", "q", "p"), ("maxb", "dp", "dq"),
])
def test_overlap_by_one_word(name: str, dst: str, other: str, bench: Bench) -> None:
    """From either side; next to each other is fine. Every destination is wholly elsewhere else."""
    mine, theirs = bench.machine.tensor(IDS[dst]), bench.machine.tensor(IDS[other])
    top = 2100 if mine.memory == ACT else 950
    mine_size, their_size = mine.end - mine.base, theirs.end - theirs.base
    bench.describe(IDS[other], base=top)
    for base, status in ((top - mine_size + 1, Status.OVERLAP), (top - mine_size, None),
                         (top + their_size - 1, Status.OVERLAP), (top + their_size, None)):
        bench.describe(IDS[dst], base=base)
        outcome(bench, word(name), status)


@pytest.mark.parametrize("name", GOOD)
def test_forms_that_mean_nothing(name: str, bench: Bench) -> None:
    """Window bits of all but a product's weights, and the form of what is taken as a matrix, change nothing."""
    before = bench.machine.snapshot()
    outcome(bench, word(name), None)
    after = bench.machine.snapshot()
    weights = "w" if name in ("fwd", "bwd", "grad") else ""
    for tensor in TENSORS:
        if tensor != weights:
            bench.describe(IDS[tensor], step_y=1, step_x=1, pad_y=5, pad_x=7)
        _, planes, height, width, *_ = TENSORS[tensor]
        if tensor not in AS_IMAGES[name] and tensor != weights:
            bench.describe(IDS[tensor], planes=1, height=height * planes * width - 1, width=0)
    form = bench.machine.table[:, [1, 3]].copy()
    for memory, array in bench.machine.memories.items():
        array[:] = before[memory]
    bench.machine.lfsr[:] = before["lfsr"]
    bench.machine.table[:] = before["table"]
    bench.machine.table[:, [1, 3]] = form
    outcome(bench, word(name), None)
    assert np.array_equal(bench.machine.table[:, [1, 3]], form)
    bench.machine.table[:, [1, 3]] = after["table"][:, [1, 3]]
    assert bench.machine.compare(after) == []


def test_a_dense_layer_with_a_step_is_a_dense_layer(bench: Bench) -> None:
    """Of images of one pixel; images of more lines with a 1 x 1 kernel are the same with their lines in rows."""
    dense = [bench.tensor(*form) for form in ((ACT, 6, 3), (WGT, 3, 5), (ACT, 6, 5))]
    x, w, y = dense
    instruction = encode(Opcode.FWD, dst=y, a=x, b=w)
    outcome(bench, instruction, None)
    values = bench.values(y).copy()
    for image, weights in ((dict(planes=6), dict(step_y=1, step_x=1)), (dict(planes=1, height=2, width=1), {})):
        bench.describe(x, **image)
        bench.describe(y, **image, exponent=0, count=0)
        bench.describe(w, **weights)
        bench.values(y)[:] = 0
        outcome(bench, instruction, None)
        assert np.array_equal(bench.values(y), values)
        bench.describe(w, step_y=0, step_x=0)


@pytest.mark.parametrize(("taps", "channels", "good"), [
    (3, 43690, True), (4, 32767, True), (4, 32768, False), (7, 18725, False),
])
def test_backward_sums_fit_32_bits(taps: int, channels: int, good: bool) -> None:
    """Taps times channels out: 131,071 terms of 2^14 fit, one more may not."""
    window = Window(height=taps)
    dst = Tensor(0, ERR, 0, 1, 1, taps, 1, 1, Window(), 0, 0, ())
    a = Tensor(1, ERR, 0, 1, 1, 1, 1, channels, Window(), 0, 0, ())
    b = Tensor(2, WGT, 0, 1, 1, taps, 1, channels, window, 0, 0, ())
    assert fit(Opcode.BWD, {"dst": dst, "a": a, "b": b}, 10) is good


@pytest.mark.parametrize(("rows", "cols", "good"), [
    (1 << 15, 1 << 8, True), (65535, 256, True), (65535, 257, False), (1 << 15, 512, True), ((1 << 15) + 1, 512, False),
    (1, 65535, True), (300, 32769, False), (256, 65535, True), (257, 65535, False),
])
def test_the_longest_sum(rows: int, cols: int, good: bool) -> None:
    """24 bits of rows and columns together: more than the memories of any machine hold, so only here."""
    one = Tensor(0, VEC, 0, 1, 1, 1, 1, 1, Window(), 0, 0, ())
    b = Tensor(1, ERR, 0, 1, rows, 1, 1, cols, Window(), 0, 0, ())
    assert fit(Opcode.SUM, {"dst": one, "b": b, "c": one}, 10) is good


@pytest.mark.parametrize(("window", "status"), [
    (Window(7, 7), None), (Window(8, 1), SHAPE), (Window(1, 8), SHAPE), (Window(2, 2, pad_y=1, pad_x=1), None),
    (Window(2, 2, pad_y=2), SHAPE), (Window(2, 2, pad_x=2), SHAPE), (Window(1, 1, pad_x=1), SHAPE),
    (Window(7, 7, pad_y=6, pad_x=6), None), (Window(7, 7, pad_y=7, pad_x=6), SHAPE),
])
def test_limits_of_kernel_and_padding(window: Window, status: Status | None) -> None:
    """Images that fit the window: 7 lines at most, and less padding than that, in all three phases."""
    bench = Bench(CONFIG, np.random.default_rng(SEED))
    size, out = (8, 9), window.output(8, 9)
    images = [bench.tensor(memory, lines * pixels, 1) for memory, (lines, pixels) in (
        (ACT, size), (ACT, out), (ERR, size), (ERR, out), (WGT, (window.height, window.width)),
        (MOM, (window.height, window.width)))]
    x, y, dx, e, w, m = images
    kernel = window.height, window.width
    for index, (height, width) in zip(images, (size, out, size, out, kernel, kernel), strict=True):
        bench.describe(index, planes=1, height=height - 1, width=width - 1)
    bench.describe(w, pad_y=window.pad_y, pad_x=window.pad_x)
    for instruction in (encode(Opcode.FWD, dst=y, a=x, b=w), encode(Opcode.BWD, dst=dx, a=e, b=w),
                        encode(Opcode.GRAD, dst=w, a=x, b=e, c=m, imm=3)):
        outcome(bench, instruction, status)
