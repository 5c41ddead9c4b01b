"""The loss unit against golden.numerics.loss_rows, on a model of the skewed memories."""

import gc
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator

from golden.numerics import loss_rows
from hw.loss import LossUnit
from hw.loss_error import Reciprocal
from hw.memory import WRITE_DELAY

SEED = 20240
LATENCY = 2
UNWRITTEN = 99  # never an error of these rows' guard words


class Skewed:
    """Read side of a memory: lane n answers cycle t's root access in cycle t + n + LATENCY, and holds."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words
        self.lanes = words.shape[1]
        self.history: list[tuple[int, int]] = [(0, 0)] * (self.lanes + LATENCY)
        self.now = [77] * self.lanes

    def step(self, en: int, addr: int) -> list[int]:
        """Root access of this cycle -> data of the next one."""
        self.history = [(en, addr), *self.history[:-1]]
        for lane in range(self.lanes):
            was, at = self.history[lane + LATENCY - 1]
            if was:
                self.now[lane] = int(self.words[at, lane])
        return self.now


@dataclass
class Job:
    """Logits int8[B, C], their exponent, labels uint16[B], and where they lie."""

    z: np.ndarray
    exponent: int
    labels: np.ndarray
    z_base: int = 3
    y_base: int = 2
    e_base: int = 1


@dataclass
class Result:
    errors: np.ndarray
    loss: int
    correct: int
    samples: int
    cycles: int


def pack(values: np.ndarray, base: int, lanes: int, filler: np.random.Generator, bound: int) -> np.ndarray:
    """Row-major words at ``base``; everything else, padding included, is noise."""
    rows, cols = values.shape
    stride = -(-cols // lanes)
    words = filler.integers(-bound, bound + 1, (base + rows * stride + 1, lanes))
    tensor = words[base:base + rows * stride].reshape(rows, stride * lanes)
    tensor[:, :cols] = values
    return words


def run(jobs: list[Job], *, lanes: int, classes: int, seed: int) -> list[Result]:
    """All jobs, one after the other, on one unit; checks that nothing but the error rows is written."""
    dut = LossUnit(lanes=lanes, classes=classes, read_latency=LATENCY)
    rng = np.random.default_rng(seed)
    results = []

    async def bench(ctx):
        for job in jobs:
            rows, cols = job.z.shape
            stride = -(-cols // lanes)
            labels = np.where(job.labels > 32767, job.labels - 65536, job.labels)
            z = Skewed(pack(job.z, job.z_base, lanes, rng, 127))
            y = Skewed(pack(labels[None, :], job.y_base, lanes, rng, 32767))
            err = np.full((job.e_base + rows * stride + 1, lanes), UNWRITTEN)
            writes: list[tuple[int, int]] = [(0, 0)] * (WRITE_DELAY + lanes)  # of this cycle and those before
            for name, value in {"rows": rows, "cols": cols, "exponent": job.exponent, "z_base": job.z_base,
                                "z_stride": stride, "y_base": job.y_base, "e_base": job.e_base,
                                "e_stride": stride}.items():
                ctx.set(getattr(dut, name), value)
            ctx.set(dut.start, 1)
            cycles, limit = 0, bound(rows, stride * lanes) + 50
            while True:
                assert cycles < limit, f"no done after {cycles} cycles"
                writes = [(ctx.get(dut.e_en), ctx.get(dut.e_addr)), *writes[:-1]]
                data = ctx.get(dut.e_data)
                for lane, (en, addr) in enumerate(writes[WRITE_DELAY:]):
                    if en:
                        err[addr, lane] = data
                if ctx.get(dut.done):
                    assert not any(en for en, _ in writes), "done before the last lane is written"
                    break
                z_next = list(z.step(ctx.get(dut.z_en), ctx.get(dut.z_addr)))
                y_next = list(y.step(ctx.get(dut.y_en), ctx.get(dut.y_addr)))
                await ctx.tick()
                ctx.set(dut.start, 0)
                ctx.set(dut.z_data, z_next)
                ctx.set(dut.y_data, y_next)
                cycles += 1
            body = err[job.e_base:job.e_base + rows * stride].reshape(rows, stride * lanes)
            guard = np.concatenate([err[:job.e_base], err[job.e_base + rows * stride:]])
            assert (guard == UNWRITTEN).all()
            results.append(Result(body, *(ctx.get(s) for s in (dut.loss, dut.correct, dut.samples)), cycles))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return results


def bound(rows: int, padded: int) -> int:
    """Cycles the unit promises for ``rows`` rows of ``padded`` lanes."""
    return rows * max(2 * padded, padded + 19) + padded + 50


def check(jobs: list[Job], *, lanes: int, classes: int, seed: int = SEED) -> None:
    print(f"seed {seed}")
    for job, got in zip(jobs, run(jobs, lanes=lanes, classes=classes, seed=seed), strict=True):
        rows, cols = job.z.shape
        want = loss_rows(job.z, job.exponent, job.labels)
        padded = -(-cols // lanes) * lanes
        errors = np.zeros((rows, padded), int)
        errors[:, :cols] = want.errors
        np.testing.assert_array_equal(got.errors, errors, err_msg=f"{rows} x {cols}, exponent {job.exponent}")
        assert (got.loss, got.correct, got.samples) == (want.loss, want.correct, want.samples), job
        assert got.cycles <= bound(rows, padded)


def random_job(rng: np.random.Generator, rows: int, cols: int, exponent: int, *, spread: int = 127) -> Job:
    """Uniform logits in +-spread; labels mostly valid, some just or far beyond the last class."""
    labels = rng.integers(0, cols, rows)
    labels[rng.random(rows) < 0.15] = rng.choice([cols, cols + 1, 256, 32768, 65535])
    labels = np.where(labels == 256, max(256, cols), labels)
    return Job(rng.integers(-spread, spread + 1, (rows, cols)), exponent, labels,
               *(int(x) for x in rng.integers(0, 20, 3)))


@pytest.mark.parametrize("lanes", [4, 12])
def test_shapes(lanes):
    rng = np.random.default_rng(SEED + lanes)
    jobs = [random_job(rng, rows, cols, exponent)
            for cols in (1, lanes - 1, lanes, lanes + 1, 10)
            for rows, exponent in ((1, -5), (2 * lanes + 3, -4))]
    check(jobs, lanes=lanes, classes=32)


def test_most_classes():
    rng = np.random.default_rng(SEED)
    flat = Job(np.full((1, 256), 5), 0, np.array([255]))
    check([random_job(rng, 2, 256, -4), flat, random_job(rng, 1, 255, -8)], lanes=12, classes=256)


def test_exponents():
    rng = np.random.default_rng(SEED + 1)
    exponents = [-60, -25, -18, -17, -16, -15, -9, -7, -6, -5, -3, -1, 0, 1, 5, 6, 7, 8, 9, 10, 20, 21, 60]
    check([random_job(rng, 4, 10, e) for e in exponents], lanes=8, classes=10)


def test_every_distance():
    """One row a distance: d = 0 to 254 at the exponents of a trained net."""
    z = np.stack([np.full(255, 127), 127 - np.arange(255)], axis=1)
    labels = np.arange(255) % 2
    check([Job(z, e, labels) for e in (-4, -6)], lanes=4, classes=2)


def test_ties_and_labels():
    z = np.array([[7, 7, 7, -3, 7], [-127] * 5, [127, -127, 127, 127, -127], [-127] * 4 + [127],
                  [0, 1, 1, 0, 0]])
    jobs = [Job(z, e, np.array(labels))
            for e in (-60, -4, 60)
            for labels in ([0, 0, 0, 4, 1], [1, 4, 3, 0, 2], [5, 6, 32768, 65535, 32767], [4, 5, 2, 260, 257])]
    check(jobs, lanes=4, classes=5)


def test_cycles():
    """Short rows are bound by the division, long ones by reading twice; the task's bound is 3 P + 40 a row."""
    rng = np.random.default_rng(SEED)
    for lanes, cols in ((4, 4), (8, 10), (8, 100)):
        padded = -(-cols // lanes) * lanes
        one, many = (run([random_job(rng, rows, cols, -4)], lanes=lanes, classes=128, seed=SEED)[0].cycles
                     for rows in (1, 9))
        assert (many - one) / 8 == max(2 * padded, padded + 19)
        assert one <= 3 * padded + 47


def test_reciprocal():
    rng = np.random.default_rng(SEED)
    values = [1 << 16, (1 << 16) + 1, (1 << 17) - 1, 1 << 17, (1 << 24) - 1, 1 << 24]
    values += map(int, rng.integers(1 << 16, 1 << 24, 20))
    dut = Reciprocal()

    async def bench(ctx):
        for s in values:
            ctx.set(dut.s, s)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            await ctx.tick().repeat(dut.latency)
            assert ctx.get(dut.step) == dut.latency
            assert ctx.get(dut.r) == ((1 << 34) - 1) // s
            octave = s.bit_length() - 17
            assert (ctx.get(dut.octave), ctx.get(dut.index)) == (octave, (s << 8 >> octave + 16) & 255)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("sizes", [{"lanes": 2}, {"lanes": 4, "classes": 1}, {"lanes": 4, "classes": 257},
                                   {"lanes": 4, "read_latency": 0}])
def test_bad_sizes(sizes):
    with warnings.catch_warnings(action="ignore", category=UnusedElaboratable):
        with pytest.raises(ValueError, match="must be .* got"):
            LossUnit(**sizes)
        gc.collect()  # here, where Amaranth may say that the unit was never used
