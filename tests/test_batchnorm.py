"""The FP32 batch normalisation unit against its model, bit for bit, and the model against float64."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from experiments.batchnorm import model
from experiments.batchnorm.program import Register
from experiments.batchnorm.unit import BatchNorm


def simulate(steps):
    """Run ``steps(ctx, unit)`` on a unit."""
    unit = BatchNorm()

    async def bench(ctx):
        await steps(ctx, unit)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


async def load(ctx, unit, registers, *, backward):
    ctx.set(unit.backward, backward)
    ctx.set(unit.load, 1)
    for register, value in registers.items():
        ctx.set(unit.address, int(register))
        ctx.set(unit.value, int(model.bits(value)))
        await ctx.tick()
    ctx.set(unit.load, 0)


async def stream(ctx, unit, x, z, *, normalise, backward):
    """One pass; the results it gave."""
    ctx.set(unit.normalise, normalise)
    y, x_hat = [], []
    for i in range(len(x) + (unit.FORWARD_LATENCY + 2 if normalise else 1)):
        ctx.set(unit.valid, i < len(x))
        ctx.set(unit.last, i == len(x) - 1)
        # what comes without valid must not matter
        ctx.set(unit.x, int(model.bits(x)[i]) if i < len(x) else 0x7FC00000)
        ctx.set(unit.z, int(model.bits(z)[i]) if i < len(x) else 0x7FC00000)
        for found, enable, value in ((y, unit.y_valid, unit.y), (x_hat, unit.x_hat_valid, unit.x_hat)):
            if ctx.get(enable):
                found.append(ctx.get(value))
        if normalise and i == (unit.BACKWARD_LATENCY if backward else unit.FORWARD_LATENCY):
            assert len(y) == 1
        await ctx.tick()
    return np.array(y, np.uint32), np.array(x_hat, np.uint32)


async def scalars(ctx, unit, *, backward):
    cycles = 2  # stream went on for one
    while ctx.get(unit.busy):
        await ctx.tick()
        cycles += 1
    assert cycles == unit.scalar_cycles(backward=backward)


async def registers(ctx, unit, wanted, names):
    for register in names:
        ctx.set(unit.address, int(register))
        assert ctx.get(unit.read) == int(model.bits(wanted[register])), register.name


@pytest.mark.parametrize("counts", [(1, 2, 7, 8), (9, 10, 100)])
def test_unit_is_its_model(counts):
    rng = np.random.default_rng(5)

    async def steps(ctx, unit):
        for count in counts:
            x = (rng.normal(size=count) * 2.0 ** rng.integers(-20, 20) + rng.normal()).astype(np.float32)
            dy = rng.normal(size=count).astype(np.float32)
            loaded = model.constants(count, gamma=rng.normal(), beta=rng.normal())
            y, x_hat, after = model.forward(x, loaded)
            await load(ctx, unit, loaded, backward=0)
            assert not (await stream(ctx, unit, x, x, normalise=0, backward=0))[0].size
            await scalars(ctx, unit, backward=False)
            await registers(ctx, unit, after, (Register.S, Register.Q, Register.MEAN, Register.DEVIATION))
            got = await stream(ctx, unit, x, x, normalise=1, backward=0)
            np.testing.assert_array_equal(got[0], model.bits(y))
            np.testing.assert_array_equal(got[1], model.bits(x_hat))

            loaded |= {Register.DEVIATION: after[Register.DEVIATION]}
            dx, after = model.backward(dy, x_hat, loaded)
            await load(ctx, unit, loaded, backward=1)
            await stream(ctx, unit, dy, x_hat, normalise=0, backward=1)
            await scalars(ctx, unit, backward=True)
            await registers(ctx, unit, after, (Register.S, Register.Q, Register.MEAN_S, Register.FACTOR))
            got = await stream(ctx, unit, dy, x_hat, normalise=1, backward=1)
            np.testing.assert_array_equal(got[0], model.bits(dx))

    simulate(steps)


@pytest.mark.parametrize("count", [8, 1000, 25088])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_model_is_batch_normalisation(count, scale):
    rng = np.random.default_rng(count)
    x = (scale * (rng.normal(size=count) + 0.5)).astype(np.float32)
    dy = rng.normal(size=count).astype(np.float32)
    loaded = model.constants(count, gamma=1.5, beta=-0.25)
    y, x_hat, after = model.forward(x, loaded)

    exact = x.astype(np.float64)
    deviation = 1 / np.sqrt(exact.var() + 1e-5)
    wanted = (exact - exact.mean()) * deviation
    np.testing.assert_allclose(after[Register.DEVIATION], deviation, rtol=1e-5)
    np.testing.assert_allclose(x_hat, wanted, atol=2e-5)
    np.testing.assert_allclose(y, 1.5 * wanted - 0.25, atol=3e-5)

    dx, after = model.backward(dy, x_hat, loaded | {Register.DEVIATION: after[Register.DEVIATION]})
    error = dy.astype(np.float64)
    np.testing.assert_allclose(after[Register.S], error.sum(), atol=1e-5 * np.abs(error).sum())
    np.testing.assert_allclose(after[Register.Q], error @ wanted, atol=1e-5 * np.abs(error * wanted).sum())
    wanted_dx = 1.5 * deviation * (error - error.mean() - wanted * (error @ wanted) / count)
    np.testing.assert_allclose(dx, wanted_dx, atol=3e-5 * 1.5 * deviation)


def test_reciprocal_square_roots():
    """Within two units in the last place, whatever the variance; a variance that rounds below 0 counts as 0."""
    rng = np.random.default_rng(9)
    for variance in (*2.0 ** rng.uniform(-16, 60, 300), 1.0, 2.0, 4.0, 1e-5):
        root = float(np.sqrt(np.float32(variance)))
        _, _, after = model.forward(np.array([root, -root], np.float32), model.constants(2, gamma=1, beta=0))
        held = float(np.float32(np.float32(root) * np.float32(root)) + np.float32(1e-5))
        assert abs(float(after[Register.DEVIATION]) * np.sqrt(held) - 1) < 2.0**-22
    _, x_hat, _ = model.forward(np.full(5, 3.3, np.float32), model.constants(5, gamma=1, beta=0))
    assert np.all(np.isfinite(x_hat))
