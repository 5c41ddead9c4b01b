"""What every bench has: clock, reset, the AXI4-Lite master, a golden machine, and the crossing of pauses."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp
from numpy.typing import ArrayLike, NDArray

from golden.machine import GoldenMachine
from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import ABORT, ADDRESSES, START
from shiftgrad.isa import DESCRIPTOR_WORDS, LFSR_BASE, Region, Status
from sim.benches.runner import CONFIG_VARIABLE
from sim.programs import Case

__all__ = ["TB", "crossed"]

BUSY_LIMIT = 200_000  # cycles
U32 = NDArray[np.uint32]
Bench = Callable[["TB"], Awaitable[None]]


def crossed(bench: Bench) -> Any:
    """A test of ``bench`` for each of: idle cycles in requests or not, back-pressure on responses or not."""

    async def test(dut: Any, idle: float, pressure: float) -> None:
        tb = TB(dut, idle=idle, pressure=pressure)
        await tb.reset()
        await bench(tb)

    test.__name__ = test.__qualname__ = bench.__name__
    test.__module__, test.__doc__ = bench.__module__, bench.__doc__
    return cocotb.test()(cocotb.parametrize(idle=[0.0, 0.6], pressure=[0.0, 0.6])(test))


class TB:
    """The simulated design and its drivers.

    Parameters
    ----------
    idle, pressure : probability that a cycle offers no request, and takes no response
    """

    def __init__(self, dut: Any, *, idle: float, pressure: float) -> None:
        self.dut = dut
        self.config = Config(**json.loads(os.environ[CONFIG_VARIABLE]))
        self.golden = GoldenMachine(self.config)
        self.rng = random.Random(random.getrandbits(64))  # cocotb seeds the module's generator and prints the seed
        self.random = np.random.default_rng(self.rng.getrandbits(64))
        Clock(dut.clk, 10, unit="ns").start()
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        write, read = self.master.write_if, self.master.read_if
        for channels, probability in (((write.aw_channel, write.w_channel, read.ar_channel), idle),
                                      ((write.b_channel, read.r_channel), pressure)):
            for channel in channels:
                channel.log.setLevel(logging.WARNING)
                if probability:
                    channel.set_pause_generator(self._pauses(probability))
        write.log.setLevel(logging.WARNING)
        read.log.setLevel(logging.WARNING)

    def _pauses(self, probability: float) -> Iterator[bool]:
        rng = random.Random(self.rng.getrandbits(64))
        while True:
            yield rng.random() < probability

    async def reset(self, cycles: int = 4) -> None:
        """Pulse reset."""
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, cycles)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    async def adopt(self) -> None:
        """Give the golden machine what memories hold from before the reset."""
        for _, address, count in self.windows():
            self.golden.write(address, await self.read(address, count))

    # --- accesses ---------------------------------------------------------------------------------

    async def write(self, address: int, words: ArrayLike, *, mirror: bool = True) -> None:
        """Write words that must be accepted, to the golden machine too."""
        data = np.atleast_1d(np.asarray(words)).astype(np.uint32)
        answer = await self.master.write(address, data.astype("<u4").tobytes())
        assert answer.resp == AxiResp.OKAY, f"write of {len(data)} words at 0x{address:06x}: {answer.resp!r}"
        if mirror:
            self.golden.write(address, data)

    async def read(self, address: int, count: int = 1) -> U32:
        """Read words that must be there."""
        answer = await self.master.read(address, 4 * count)
        assert answer.resp == AxiResp.OKAY, f"read of {count} words at 0x{address:06x}: {answer.resp!r}"
        return np.frombuffer(answer.data, "<u4").astype(np.uint32)

    async def refused(self, address: int, *, read: bool = True, write: bool = True, data: bytes = bytes(4)) -> None:
        """One access in each direction that must be answered with SLVERR."""
        if write:
            answer = await self.master.write(address, data)
            assert answer.resp == AxiResp.SLVERR, f"write at 0x{address:06x}: {answer.resp!r}"
        if read:
            answer = await self.master.read(address, 4)
            assert answer.resp == AxiResp.SLVERR, f"read at 0x{address:06x}: {answer.resp!r}"

    async def register(self, name: str) -> int:
        """Value of a register."""
        return int((await self.read(ADDRESSES[name]))[0])

    # --- programs ---------------------------------------------------------------------------------

    async def load(self, case: Case) -> None:
        """Write a whole case over the bus."""
        program = np.zeros(self.config.program_words, np.uint64)
        program[:len(case.program)] = case.program
        await self.write(Region.PROGRAM.address, program.view(np.uint32))
        await self.write(Region.TABLE.address, case.table.reshape(-1))
        for name, image in case.memories.items():
            await self.write(Region[name.upper()].address, np.ascontiguousarray(image).view(np.uint32).reshape(-1))
        await self.write(LFSR_BASE, case.seeds)
        await self.write(ADDRESSES["LR_SHIFT"], case.lr_shift)

    async def start(self, pc: int = 0) -> None:
        """Start the simulated machine; it is busy when this returns."""
        await self.write(ADDRESSES["START_PC"], pc)
        await self.write(ADDRESSES["CTRL"], START, mirror=False)

    async def wait(self) -> Status:
        """Wait until the machine stops, and say why it did."""
        for _ in range(BUSY_LIMIT):
            await ReadOnly()
            if not self.dut.busy.value:
                break
            await RisingEdge(self.dut.clk)
        else:
            raise AssertionError(f"busy for {BUSY_LIMIT} cycles")
        await RisingEdge(self.dut.clk)
        word = await self.register("STATUS")
        assert not word & 1
        return Status(word >> 8)

    async def run(self, pc: int = 0) -> Status:
        """Run on both machines and compare all there is to see."""
        await self.start(pc)
        simulated, wanted = await self.wait(), self.golden.run(pc)
        assert simulated == wanted, f"simulated {simulated.name}, golden {wanted.name}"
        await self.compare()
        return simulated

    async def abort(self) -> None:
        """Stop the machine; golden knows nothing of it."""
        await self.write(ADDRESSES["CTRL"], ABORT, mirror=False)

    async def compare(self) -> None:
        """Everything a host can read is what the golden machine has."""
        names = ["STATUS", "PC", "RETIRED", "LOSS", "CORRECT", "SAMPLES", "SATURATED"]
        for name in names:
            simulated, wanted = await self.register(name), int(self.golden.read(ADDRESSES[name])[0])
            assert simulated == wanted, f"register {name}: simulated {simulated}, golden {wanted}"
        for name, address, count in self.windows():
            np.testing.assert_array_equal(await self.read(address, count), self.golden.read(address, count), name)

    def windows(self) -> Iterator[tuple[str, int, int]]:
        """Name, byte address and number of 32-bit words of everything that holds data."""
        config = self.config
        yield "generators", LFSR_BASE, config.size
        yield "program", Region.PROGRAM.address, 2 * config.program_words
        yield "table", Region.TABLE.address, DESCRIPTOR_WORDS * config.tensors
        for name in MEMORIES:
            yield name, Region[name.upper()].address, config.words(name) * config.pitch(name) // 4
