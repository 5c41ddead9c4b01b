"""The golden machine's memories and registers as the host bus sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.generator import default_seeds
from shiftgrad.config import MEMORIES, Config
from shiftgrad.isa import (
    COUNTERS,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    KNOWS_UNSIGNED,
    LFSR_BASE,
    LOADS_WHILE_BUSY,
    MAGIC,
    REGISTERS,
    Region,
    Register,
    Status,
)

__all__ = ["BusError", "HostPort", "descriptor_masks"]

U32 = NDArray[np.uint32]
LR_SHIFT_MASK, START_PC_MASK = 0x3F, 0xFFFF


class BusError(ValueError):
    """An access the machine answers with an error; nothing was read or written. ``address`` is the first bad one."""

    def __init__(self, address: int, why: str) -> None:
        super().__init__(f"bus error at 0x{address:06x}: {why}")
        self.address = address


def descriptor_masks() -> U32:
    """Defined bits of each word of a tensor table entry."""
    masks = [sum(((1 << field.width) - 1) << field.low for field in word) for word in DESCRIPTOR]
    return np.array(masks, np.uint32)


class HostPort:
    """State of the machine and its address map; :class:`golden.machine.GoldenMachine` adds the instructions.

    Attributes
    ----------
    memories : dict of int8[words, T] (``vec``: int16[words, T])
    program : uint64[program_words]
    table : uint32[tensors, 8], the tensor table
    lfsr : uint32[T], the generators
    pc, start_pc, lr_shift, retired, loss, correct, samples, saturated : registers
    status : why the machine is not running
    counters : the 48-bit counters by name; cycles read 0
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.memories: dict[str, NDArray[Any]] = {
            name: np.zeros((config.words(name), config.size), np.int16 if name == "vec" else np.int8)
            for name in MEMORIES
        }
        self.program = np.zeros(config.program_words, np.uint64)
        self.table = np.zeros((config.tensors, DESCRIPTOR_WORDS), np.uint32)
        self.lfsr = default_seeds(config.size)
        self.pc = self.start_pc = self.lr_shift = self.retired = 0
        self.loss = self.correct = self.samples = self.saturated = 0
        self.status = Status.RESET
        self.counters = dict.fromkeys(COUNTERS, 0)
        self._written: dict[str, tuple[int, int]] = {}
        self._registers: dict[int, Register] = {
            register.address: register for register in REGISTERS if register.address < LFSR_BASE + 4 * config.size
        }

    def run(self, pc: int = 0) -> Status:
        """Execute from ``pc`` until the machine stops; why it did."""
        raise NotImplementedError

    def state(self) -> dict[str, NDArray[Any]]:
        """Every data memory, ``table`` and ``lfsr``: the arrays themselves, no copies."""
        return {**self.memories, "table": self.table, "lfsr": self.lfsr}

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copies of :meth:`state`."""
        return {name: array.copy() for name, array in self.state().items()}

    def compare(self, other: dict[str, NDArray[Any]]) -> list[str]:
        """Names of the arrays in ``other`` that differ from :meth:`state`, in its order."""
        mine = self.state()
        return [name for name in mine if name in other and not np.array_equal(mine[name], other[name])]

    def mark(self, memory: str, start: int, stop: int) -> None:
        """Words [start, stop) of ``memory`` are written."""
        low, high = self._written.get(memory, (start, stop))
        self._written[memory] = min(low, start), max(high, stop)

    def take_written(self) -> dict[str, tuple[int, int]]:
        """By memory, the first word and the end of what was written since this was last called."""
        written, self._written = self._written, {}
        return written

    # --- the bus ----------------------------------------------------------------------------------

    def write(self, address: int, words: ArrayLike) -> None:
        """Write 32-bit ``words`` from byte ``address`` up; ``BusError`` before anything is written."""
        data = np.atleast_1d(np.asarray(words)).astype(np.uint32)
        region, low = self._locate(address, len(data), "w")
        high = low + len(data)
        if region == Region.REGISTERS:
            for i, value in enumerate(data.tolist()):
                self._write_register(4 * (low + i), value)
        elif region == Region.PROGRAM:
            self.program.view(np.uint32)[low:high] = data
        elif region == Region.TABLE:
            masks = descriptor_masks()[np.arange(low, high) % DESCRIPTOR_WORDS]
            self.table.reshape(-1)[low:high] = data & masks
        else:
            first, lanes = self._lanes(region, low, high)
            lanes.view(np.uint32).reshape(-1)[low - first:high - first] = data
            name = region.name.lower()
            start = first * 4 // self.config.pitch(name)
            self.memories[name][start:start + len(lanes)] = lanes[:, :self.config.size]
            self.mark(name, start, start + len(lanes))

    def read(self, address: int, count: int = 1) -> U32:
        """``count`` 32-bit words from byte ``address`` up; ``BusError`` when one of them does not exist."""
        region, low = self._locate(address, count, "r")
        high = low + count
        if region == Region.REGISTERS:
            return np.array([self._read_register(4 * i) for i in range(low, high)], np.uint32)
        if region == Region.PROGRAM:
            return self.program.view(np.uint32)[low:high].copy()
        if region == Region.TABLE:
            return self.table.reshape(-1)[low:high].copy()
        first, lanes = self._lanes(region, low, high)
        return lanes.view(np.uint32).reshape(-1)[low - first:high - first]

    def _locate(self, address: int, count: int, access: str) -> tuple[Region, int]:
        """Region and 32-bit index in it; every word of the ``access``, r or w, exists and allows it."""
        if address % 4:
            raise BusError(address, "the address must be a multiple of 4")
        try:
            region = Region(address >> self.config.window_bits)
        except ValueError:
            raise BusError(address, "no such region") from None
        low = (address - self.config.address(region)) >> 2
        if region == Region.REGISTERS:
            for bad in range(4 * low, 4 * (low + count), 4):
                if bad not in self._registers:
                    raise BusError(bad, "no such register")
                if access not in (register := self._registers[bad]).access:
                    raise BusError(bad, f"register {register.name} is {register.access}")
        elif low + count > (words := self._region_words(region)):
            first = self.config.address(region) + 4 * max(low, words)
            raise BusError(first, f"{region.name} has {words} words of 32 bits")
        return region, low

    def _region_words(self, region: Region) -> int:
        if region == Region.PROGRAM:
            return 2 * self.config.program_words
        if region == Region.TABLE:
            return DESCRIPTOR_WORDS * self.config.tensors
        name = region.name.lower()
        return self.config.words(name) * self.config.pitch(name) // 4

    def _lanes(self, region: Region, low: int, high: int) -> tuple[int, NDArray[Any]]:
        """Index of the first 32-bit word, and a copy of the whole memory words around [low, high), unused lanes 0."""
        name = region.name.lower()
        memory, per_word = self.memories[name], self.config.pitch(name) // 4
        start, stop = low // per_word, -(-high // per_word)
        lanes = np.zeros((stop - start, per_word * 4 // memory.itemsize), memory.dtype)
        lanes[:, :self.config.size] = memory[start:stop]
        return start * per_word, lanes

    # --- registers --------------------------------------------------------------------------------

    def _write_register(self, address: int, value: int) -> None:
        name = self._registers[address].name
        if name == "START_PC":
            self.start_pc = value & START_PC_MASK
        elif name == "LR_SHIFT":
            self.lr_shift = value & LR_SHIFT_MASK
        elif name.startswith("LFSR"):
            self.lfsr[int(name[4:])] = value or 1
        elif name == "CTRL":
            if value & 4:
                self.counters = dict.fromkeys(COUNTERS, 0)
            if value & 3 == 1:  # abort wins; there is nothing to abort
                self.run(self.start_pc)

    def _read_register(self, address: int) -> int:
        name = self._registers[address].name
        if name.startswith("LFSR"):
            return int(self.lfsr[int(name[4:])])
        if name.endswith(("_LO", "_HI")):
            return self.counters[name[:-3]] >> (32 if name.endswith("_HI") else 0) & 0xFFFFFFFF
        if name == "MAGIC":
            return MAGIC
        if name == "CONFIG":
            can = LOADS_WHILE_BUSY * self.config.loads_while_busy | KNOWS_UNSIGNED * self.config.unsigned
            return self.config.size | (self.config.tensors - 1).bit_length() << 8 | can
        if name == "STATUS":
            return int(self.status) << 8
        return int(getattr(self, name.lower())) & 0xFFFFFFFF
