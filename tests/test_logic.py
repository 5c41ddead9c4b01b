"""What every unit is made of, against plain arithmetic."""

import pytest
from amaranth.hdl import Cat, Module, ResetInserter, Signal, signed
from amaranth.sim import Simulator

from hw.logic import at_least, delayed, greater, one_of, times


def run(m: Module, testbench) -> None:
    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


def test_comparisons_of_every_byte() -> None:
    m, x, y, above = Module(), Signal(8), Signal(8), Signal()
    reached = Signal(258)
    m.d.comb += [above.eq(greater(x, y)), reached.eq(Cat(at_least(x, bound) for bound in range(258)))]

    async def testbench(ctx) -> None:
        for a in range(256):
            ctx.set(x, a)
            assert ctx.get(reached) == sum((a >= bound) << bound for bound in range(258)), a
            for b in range(256):
                ctx.set(y, b)
                assert ctx.get(above) == (a > b), (a, b)

    run(m, testbench)


def test_greater_of_an_odd_number_of_bits() -> None:
    m, x, y, above = Module(), Signal(9), Signal(9), Signal()
    m.d.comb += above.eq(greater(x, y))

    async def testbench(ctx) -> None:
        for a in range(512):
            ctx.set(x, a)
            for b in (a, *(a ^ 1 << bit for bit in range(9)), a ^ 255, a ^ 511):
                ctx.set(y, b)
                assert ctx.get(above) == (a > b), (a, b)

    run(m, testbench)


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 9, 12, 16, 147])
def test_times(factor: int) -> None:
    m, x = Module(), Signal(signed(9))
    product = times(x, factor)
    y = Signal(signed(18))
    m.d.comb += y.eq(product)

    async def testbench(ctx) -> None:
        for a in range(-256, 256):
            ctx.set(x, a)
            assert ctx.get(y) == a * factor

    run(m, testbench)


def test_one_of() -> None:
    m, chosen, values = Module(), Signal(3), [0x35, 0xC1, 0x7E]
    y = Signal(8)
    signals = [Signal(8, name=f"value{i}", init=value) for i, value in enumerate(values)]
    m.d.comb += y.eq(one_of(zip(chosen, signals, strict=True)))

    async def testbench(ctx) -> None:
        for i, value in enumerate([0, *values]):
            ctx.set(chosen, 1 << i >> 1)
            assert ctx.get(y) == value

    run(m, testbench)


@pytest.mark.parametrize(("resets", "clears"), [(False, False), (True, False), (False, True)])
def test_delays(resets: bool, clears: bool) -> None:
    """Values pass one register a cycle; a reset or ``clear`` makes those that have one 0 and no others."""
    inner, x, reset, clear = Module(), Signal(signed(8)), Signal(), Signal()
    stages = delayed(inner, x, 3, "x", resets=resets, clear=clear if clears else None, first=5)
    assert stages[0] is x and [stage.name for stage in stages[1:]] == ["x5", "x6", "x7"]
    assert [stage.shape() for stage in stages] == [signed(8)] * 4
    m = Module()
    m.submodules.inner = ResetInserter(reset)(inner)
    expected = [0, 0, 0]
    given = [-128, 127, 3, -1, 55, -77, 20, 9, 1]

    async def testbench(ctx) -> None:
        nonlocal expected
        for cycle, value in enumerate(given):
            ctx.set(x, value)
            ctx.set(reset, cycle == 4)
            ctx.set(clear, cycle == 7)
            await ctx.tick()
            gone = (cycle == 4 and (resets or clears)) or (cycle == 7 and clears)
            expected = [0, 0, 0] if gone else [value, *expected[:2]]
            assert [ctx.get(stage) for stage in stages[1:]] == expected, cycle

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
