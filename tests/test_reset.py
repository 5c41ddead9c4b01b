"""A reset while something is written: memories, the tensor table and the generators keep what they have."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, ResetInserter, Signal

from hw.bus import HostBus
from hw.host import HostInterface
from hw.memory import SkewedMemory
from hw.table import TensorTable
from hw.vector import VectorUnit
from shiftgrad.isa import DESCRIPTOR_WORDS, LFSR_BASE, Region
from sim.programs import small_config
from tests.rtl_bench import simulate

CYCLES = 40  # all that was under way has ended


class Idle:
    """Host and table joined as in :mod:`hw.core`, the machine idle, with a reset of their own."""

    def __init__(self, size: int) -> None:
        self.m, self.reset = Module(), Signal()
        self.host, self.table = HostInterface(config=small_config(size)), TensorTable(depth=45)
        inner = Module()
        inner.submodules.host, inner.submodules.table = host, table = self.host, self.table
        inner.d.comb += host.t_r_data.eq(table.h_r_data)
        inner.d.sync += [table.id.eq(host.t_id), table.h_word.eq(host.t_word), table.h_write.eq(host.t_write),
                         table.h_w_data.eq(host.t_data)]
        self.m.submodules.inner = ResetInserter(self.reset)(inner)

    async def access(self, ctx: Any, address: int, value: int, *, write: bool = True,
                     at_most: int = CYCLES) -> int:
        """One access, given up after ``at_most`` cycles; what was read."""
        bus: HostBus = self.host.bus
        for signal, it in ((bus.valid, 1), (bus.write, write), (bus.addr, address), (bus.w_data, value),
                           (bus.strobe, 15)):
            ctx.set(signal, it)
        found = 0
        for _ in range(at_most):
            if ctx.get(bus.ready):
                found = ctx.get(bus.r_data)
                await ctx.tick()
                break
            await ctx.tick()
        for signal in (bus.valid, bus.addr, bus.w_data):
            ctx.set(signal, 0)
        return int(found)

    async def restart(self, ctx: Any, cycles: int) -> None:
        """Reset for so many cycles."""
        ctx.set(self.reset, 1)
        await ctx.tick().repeat(cycles)
        ctx.set(self.reset, 0)


@pytest.mark.parametrize(("size", "cycles"), [(4, 1), (8, 4), (16, 4)])
def test_no_generator_is_loaded_after_a_reset(size: int, cycles: int) -> None:
    dut = Idle(size)
    loads = []

    async def bench(ctx: Any) -> None:
        await dut.access(ctx, LFSR_BASE + 4 * (size - 1), 0x12345678)
        await dut.restart(ctx, cycles)
        for _ in range(CYCLES):
            loads.append(ctx.get(dut.host.seed_load))
            await ctx.tick()

    simulate(dut.m, bench)
    assert not any(loads)


@pytest.mark.parametrize("cycles", [1, 2, 4])
@pytest.mark.parametrize("before", range(9))
def test_a_table_entry_that_is_not_written_keeps_what_it_has(before: int, cycles: int) -> None:
    dut = Idle(4)
    found = []

    async def bench(ctx: Any) -> None:
        first, other = (Region.TABLE.address + 4 * DESCRIPTOR_WORDS * entry for entry in (0, 9))
        await dut.access(ctx, first, 0x1234)
        await dut.access(ctx, other, 0x4321, at_most=before)
        await dut.restart(ctx, cycles)
        await ctx.tick().repeat(CYCLES)
        found.extend([await dut.access(ctx, address, 0, write=False) for address in (first, other)])

    simulate(dut.m, bench)
    assert found[0] == 0x1234 and found[1] in (0, 0x4321)


@pytest.mark.parametrize("cycles", [1, 2])
@pytest.mark.parametrize("before", range(8))
def test_a_word_of_a_memory_is_written_or_keeps_what_it_has(before: int, cycles: int) -> None:
    lanes, m, reset = 4, Module(), Signal()
    memory = SkewedMemory(lanes=lanes, depth=8, width=8)
    m.submodules.memory = ResetInserter(reset)(memory)
    found = np.zeros((2, lanes), int)

    async def write(ctx: Any, address: int, value: int, *, stop: int = CYCLES) -> None:
        for cycle in range(CYCLES):  # lane n's data come n + 1 cycles after the enable; in cycle ``stop`` all is reset
            ctx.set(reset, stop <= cycle < stop + cycles)
            ctx.set(memory.w_en, cycle == 0)
            ctx.set(memory.w_addr, address if cycle == 0 else 0)
            for lane in range(lanes):
                ctx.set(memory.w_data[lane], value if cycle == lane + 1 <= stop else 0)
            await ctx.tick()

    async def bench(ctx: Any) -> None:
        await write(ctx, 0, 11)
        await write(ctx, 3, 22)
        await write(ctx, 3, 33, stop=before)
        for row, address in enumerate((0, 3)):
            ctx.set(memory.r_addr, address)
            ctx.set(memory.r_en, 1)
            await ctx.tick().repeat(CYCLES)
            found[row] = [ctx.get(memory.r_data[lane]) for lane in range(lanes)]

    simulate(m, bench)
    assert (found[0] == 11).all() and set(found[1]) <= {22, 33}


@pytest.mark.parametrize("size", [4, 16])
def test_no_total_comes_after_a_reset(size: int) -> None:
    """In any cycle of a SUM: lane by lane a total takes longer, and would be one of the next run's."""
    m, reset, vector = Module(), Signal(), VectorUnit(size=size)
    m.submodules.vector = ResetInserter(reset)(vector)
    late = []

    async def bench(ctx: Any) -> None:
        for cycles in range(5, CYCLES):
            ctx.set(reset, 1)
            await ctx.tick().repeat(4)
            ctx.set(reset, 0)
            ctx.set(vector.control.total, 1)
            ctx.set(vector.control.factor, 1)
            for operand in (vector.a, vector.b, vector.dst):
                for field in (operand.stride, operand.planes, operand.cols):
                    ctx.set(field, 1)
            await ctx.tick().repeat(4)
            ctx.set(vector.start, 1)
            await ctx.tick()
            ctx.set(vector.start, 0)
            await ctx.tick().repeat(cycles)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            for _ in range(60):
                late.append(ctx.get(vector.token))
                await ctx.tick()

    simulate(m, bench)
    assert not any(late)
