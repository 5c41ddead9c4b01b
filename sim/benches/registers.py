"""Every register: what it reads, what it takes, what it refuses."""

from __future__ import annotations

from shiftgrad.device import ADDRESSES, CLEAR
from shiftgrad.isa import LFSR_BASE, MAGIC, REGISTERS, Region
from sim.benches.tb import TB, crossed

WRITABLE = {"START_PC": 0xFFFF, "LR_SHIFT": 0x3F}


@crossed
async def reset_values(tb: TB) -> None:
    """After reset registers read as the golden machine's; write-only ones refuse."""
    assert await tb.register("MAGIC") == MAGIC
    for register in REGISTERS:
        if register.address >= LFSR_BASE + 4 * tb.config.size:
            await tb.refused(register.address)
        elif "r" in register.access:
            simulated, wanted = await tb.register(register.name), int(tb.golden.read(register.address)[0])
            assert simulated == wanted, f"{register.name}: simulated 0x{simulated:x}, golden 0x{wanted:x}"
        else:
            await tb.refused(register.address, write=False)


@crossed
async def writable_registers_keep_their_bits(tb: TB) -> None:
    """Ones, zeros and random bits; no register disturbs another."""
    await tb.adopt()
    for value in (0xFFFFFFFF, 0, *(tb.rng.getrandbits(32) for _ in range(3))):
        for name, mask in WRITABLE.items():
            await tb.write(ADDRESSES[name], value)
            assert await tb.register(name) == value & mask, name
        for lane in range(tb.config.size):
            await tb.write(LFSR_BASE + 4 * lane, value ^ lane)
    for lane in range(tb.config.size):
        assert await tb.register(f"LFSR{lane}") == value ^ lane or 1
    await tb.write(LFSR_BASE, 0)
    assert await tb.register("LFSR0") == 1
    await tb.compare()


@crossed
async def refused_register_accesses(tb: TB) -> None:
    """Read-only registers, gaps, parts of words and other regions answer SLVERR and change nothing."""
    await tb.adopt()
    await tb.write(ADDRESSES["START_PC"], 0x1234)
    for register in REGISTERS:
        if register.access == "ro":
            await tb.refused(register.address, read=False)
    for address in (0x30, 0x3C, 0xFC, LFSR_BASE + 4 * tb.config.size, 0xFFFFC, 3 << 20, 0xF00000):
        await tb.refused(address)
    for data in (b"\xff", b"\xff\xff", b"\xff\xff\xff"):
        await tb.refused(ADDRESSES["START_PC"], data=data, read=False)
    assert await tb.register("START_PC") == 0x1234
    await tb.compare()


@crossed
async def clearing_counters(tb: TB) -> None:
    """Counters count a run, and CTRL clears them."""
    await tb.adopt()
    await tb.write(Region.PROGRAM.address, [1, 0])  # HALT
    await tb.run()
    assert await tb.register("OTHER_CYCLES_LO") > 0
    assert await tb.register("SETUP_CYCLES_LO") == await tb.register("OTHER_CYCLES_LO")
    await tb.write(ADDRESSES["CTRL"], CLEAR)
    assert await tb.register("OTHER_CYCLES_LO") == 0
