"""Every memory window: random words and lanes, with what is around them looked at."""

from __future__ import annotations

import numpy as np
from cocotbext.axi import AxiResp

from shiftgrad.config import MEMORIES
from shiftgrad.isa import Region
from sim.benches.tb import TB, crossed


@crossed
async def whole_windows(tb: TB) -> None:
    """Random words everywhere read back as the golden machine keeps them, unused bits and lanes as 0."""
    for _, address, count in tb.windows():
        await tb.write(address, tb.random.integers(0, 1 << 32, count, np.uint32))
    await tb.compare()


@crossed
async def lanes_and_their_neighbours(tb: TB) -> None:
    """Writes of a few whole lanes at any lane of a data memory (bytes, halves in VEC) change those alone."""
    await tb.adopt()
    for name in MEMORIES:
        base, lane = Region[name.upper()].address, tb.config.lane_bytes(name)
        lanes = tb.config.words(name) * tb.config.pitch(name) // lane
        image = bytearray(tb.random.bytes(lanes * lane))
        await tb.write(base, np.frombuffer(image, "<u4"))
        for _ in range(8):
            count = tb.rng.randint(1, 11)
            first = tb.rng.choice([0, lanes - count, tb.rng.randint(0, lanes - count)])
            at, data = first * lane, tb.random.bytes(count * lane)
            answer = await tb.master.write(base + at, data)
            assert answer.resp == AxiResp.OKAY, f"{len(data)} bytes at 0x{base + at:06x}: {answer.resp!r}"
            image[at:at + len(data)] = data
        tb.golden.write(base, np.frombuffer(image, "<u4"))
    await tb.compare()


@crossed
async def ends_of_windows(tb: TB) -> None:
    """The word behind a window is refused, and so are parts of words in the program and the table."""
    await tb.adopt()
    for name, address, count in tb.windows():
        await tb.write(address + 4 * (count - 1), tb.rng.getrandbits(32))
        await tb.refused(address + 4 * count)
        if name in ("program", "table"):
            await tb.refused(address, data=b"\x55\x55", read=False)
        if name == "vec":  # half a lane, low or high
            await tb.refused(address, data=b"\x55", read=False)
            await tb.refused(address + 1, data=b"\x55", read=False)
    await tb.compare()
