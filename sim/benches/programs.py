"""Programs over the bus: random ones, faulty ones, and what a host may do meanwhile."""

from __future__ import annotations

import numpy as np

from shiftgrad.device import ADDRESSES, START
from shiftgrad.isa import LFSR_BASE, LOADABLE, Region, Status
from sim.benches.tb import TB, crossed
from sim.loading import free_words
from sim.programs import random_case

LARGEST = 9  # two tiles and a bit


@crossed
async def random_programs(tb: TB) -> None:
    """Forward, backward, gradient and loss in any order leave the golden machine's bits."""
    await tb.load(random_case(tb.rng.getrandbits(32), tb.config, length=8, largest=LARGEST))
    await tb.run()


@crossed
async def faulty_programs(tb: TB) -> None:
    """A flipped bit in an instruction or a table entry stops the machine where the golden machine stops."""
    stopped = set()
    for _ in range(2):
        await tb.load(random_case(tb.rng.getrandbits(32), tb.config, length=3, largest=LARGEST, fault=True))
        stopped.add(await tb.run())
    tb.dut._log.info("stopped with %s", ", ".join(sorted(status.name for status in stopped)))
    assert await tb.run(tb.config.program_words) == Status.PC_RANGE


@crossed
async def a_busy_machine_guards_its_memories(tb: TB) -> None:
    """While a program runs windows and generators are refused, registers answer, and a second start is refused.

    Writes to ACT and VEC are taken.
    """
    case = random_case(7, tb.config, length=12, largest=LARGEST)
    await tb.load(case)
    await tb.start()
    for memory in LOADABLE:
        free = int(np.flatnonzero(free_words(tb.config, case, memory))[-1])
        await tb.write(Region[memory.upper()].address + free * tb.config.pitch(memory), [0x89ABCDEF])
        await tb.refused(Region[memory.upper()].address, write=False)
    for region in (Region.PROGRAM, Region.TABLE, Region.WGT):
        await tb.refused(region.address)
        assert tb.dut.busy.value == 1, "the program ended too soon to tell"
    await tb.refused(LFSR_BASE, read=False)
    await tb.refused(ADDRESSES["CTRL"], data=START.to_bytes(4, "little"), read=False)
    assert await tb.register("STATUS") & 1
    status = await tb.wait()
    assert status == tb.golden.run()
    await tb.compare()
