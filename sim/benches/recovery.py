"""Reset and abort in the middle of things."""

from __future__ import annotations

import cocotb
from cocotb.triggers import ClockCycles

from golden.machine import GoldenMachine
from shiftgrad.isa import LFSR_BASE, Region, Status
from sim.benches.tb import TB, crossed
from sim.programs import Case, random_case


def long_case(tb: TB) -> Case:
    """A program that takes a while."""
    return random_case(tb.rng.getrandbits(32), tb.config, length=10, largest=10)


@crossed
async def reset_in_an_instruction(tb: TB) -> None:
    """After a reset at any moment the machine is idle, answers, and runs the next program like a new one."""
    await tb.load(long_case(tb))
    await tb.start()
    await ClockCycles(tb.dut.clk, tb.rng.randint(1, 400))
    await tb.reset(tb.rng.randint(1, 5))
    assert tb.dut.busy.value == 0
    assert await tb.register("STATUS") == Status.RESET << 8
    assert await tb.register("RETIRED") == 0
    tb.golden = GoldenMachine(tb.config)
    await tb.load(long_case(tb))
    await tb.run()


@crossed
async def reset_in_a_transfer(tb: TB) -> None:
    """A transfer cut off by reset leaves no half of itself behind."""
    for _ in range(4):
        writing = cocotb.start_soon(tb.master.write(Region.ACT.address, bytes(64)))
        reading = cocotb.start_soon(tb.master.read(Region.TABLE.address, 64))
        await ClockCycles(tb.dut.clk, tb.rng.randint(1, 60))
        await tb.reset()
        writing.cancel()
        reading.cancel()
        await tb.write(LFSR_BASE, range(1, 1 + tb.config.size))
        assert list(await tb.read(LFSR_BASE, tb.config.size)) == list(range(1, 1 + tb.config.size))


@crossed
async def abort_in_an_instruction(tb: TB) -> None:
    """An abort at any moment stops the machine, and the next program runs as if it had not been."""
    await tb.load(long_case(tb))
    await tb.start()
    await ClockCycles(tb.dut.clk, tb.rng.randint(1, 300))
    busy = bool(tb.dut.busy.value)
    await tb.abort()
    status = await tb.wait()
    assert status == Status.ABORTED or not busy, f"wanted ABORTED, got {status.name}"
    await tb.load(long_case(tb))
    for name in ("loss", "correct", "samples", "saturated"):
        setattr(tb.golden, name, await tb.register(name.upper()))
    await tb.run()
