"""Random programs: shapes, data, exponents, histories and faults no compiler would choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import Device, RegisterAccess
from shiftgrad.isa import DESCRIPTOR, DESCRIPTOR_WORDS, HISTORY, Flag, Memory, Opcode, Region, Status, encode, pack

__all__ = ["Builder", "Case", "execute", "load", "random_case", "small_config"]

ATTEMPTS = 8  # for each instruction wanted: towards the end few new tensors fit


@dataclass(kw_only=True)
class Case:
    """One random program and everything it starts from.

    Attributes
    ----------
    program : 64-bit words, ending in HALT
    table : uint32[tensors, 8]
    memories : name -> int8 (vec: int16) [words, pitch / lane bytes], as the host writes them
    seeds : uint32[T] generator states
    lr_shift : LR_SHIFT register
    """

    program: list[int]
    table: NDArray[np.uint32]
    memories: dict[str, NDArray[Any]]
    seeds: NDArray[np.uint32]
    lr_shift: int


def descriptor(**values: int) -> NDArray[np.uint32]:
    """Table entry with the named fields, the others 0."""
    words = [pack(fields, {f.name: values[f.name] for f in fields if f.name in values}) for fields in DESCRIPTOR]
    return np.array(words, np.uint32)


@dataclass
class Builder:
    """Allocates tensors and appends instructions; ``full`` when one found no room, sizes from ``palette`` if any."""

    rng: np.random.Generator
    config: Config
    largest: int
    program: list[int] = field(default_factory=list)
    entries: list[NDArray[np.uint32]] = field(default_factory=list)
    shapes: dict[tuple[Memory, int, int], list[int]] = field(default_factory=dict)
    used: dict[Memory, int] = field(default_factory=dict)
    palette: list[int] = field(default_factory=list)
    full: bool = False

    def size(self) -> int:
        """A dimension: often around multiples of T, sometimes 1."""
        rng, t = self.rng, self.config.size
        if self.palette:
            return int(rng.choice(self.palette))
        if rng.random() < 0.4:
            return int(np.clip(rng.integers(1, 3) * t + rng.integers(-1, 2), 1, self.largest))
        return int(rng.integers(1, self.largest + 1))

    def tensor(self, memory: Memory, rows: int, cols: int, *, fresh: bool = False, avoid: int = -1) -> int:
        """Index of a tensor of this shape: an old one (not ``avoid``) half of the time, else a new one."""
        known = [i for i in self.shapes.get((memory, rows, cols), []) if i != avoid]
        if known and not fresh and self.rng.random() < 0.5:
            return int(self.rng.choice(known))
        stride = self.config.stride(cols)
        base = self.used.get(memory, 0) + int(self.rng.integers(0, 3))
        if base + rows * stride > self.config.words(memory.name.lower()) or len(self.entries) >= self.config.tensors:
            self.full = True
            return 0
        self.used[memory] = base + rows * stride
        wild = self.rng.random() < 0.1
        exponent = int(self.rng.integers(-60, 61) if wild else self.rng.integers(-12, -2))
        own = np.clip(exponent + self.rng.integers(-2, 3, HISTORY), -60, 60)
        self.entries.append(descriptor(
            base=base, stride=stride, planes=rows, cols=cols, memory=int(memory), exponent=exponent,
            count=int(self.rng.choice([0, 0, 1, 3, HISTORY])), **{f"history{i}": int(e) for i, e in enumerate(own)}))
        index = len(self.entries) - 1
        self.shapes.setdefault((memory, rows, cols), []).append(index)
        return index

    def flags(self, *choices: Flag) -> int:
        """Each flag with probability one half."""
        return sum(int(flag) for flag in choices if self.rng.random() < 0.5)

    def instruction(self) -> None:
        """Append one legal instruction, unless it does not fit."""
        opcode = self.rng.choice([Opcode.FWD, Opcode.BWD, Opcode.GRAD, Opcode.GRAD, Opcode.LOSS])
        m, n, k = self.size(), self.size(), self.size()
        if opcode == Opcode.FWD:
            a = self.tensor(Memory.ACT, m, k)
            fields = {"a": a, "dst": self.tensor(Memory.ACT, m, n, avoid=a), "b": self.tensor(Memory.WGT, k, n)}
            flags = self.flags(Flag.RELU, Flag.BIAS, Flag.DELAYED, Flag.FREEZE)
            if flags & Flag.BIAS:
                fields["c"] = self.tensor(Memory.VEC, 1, n)
        elif opcode == Opcode.BWD:
            a = self.tensor(Memory.ERR, m, k)
            fields = {"a": a, "dst": self.tensor(Memory.ERR, m, n, avoid=a), "b": self.tensor(Memory.WGT, n, k)}
            flags = self.flags(Flag.MASK, Flag.DELAYED)
            if flags & Flag.MASK:
                fields["c"] = self.tensor(Memory.ACT, m, n)
        elif opcode == Opcode.GRAD:
            flags = self.flags(Flag.ONES, Flag.DELAYED)
            fields = {"b": self.tensor(Memory.ERR, k, n)}
            if flags & Flag.ONES:
                fields |= {"dst": self.tensor(Memory.VEC, 1, n), "c": self.tensor(Memory.MOM, 1, n)}
            else:
                fields |= {"dst": self.tensor(Memory.WGT, m, n), "c": self.tensor(Memory.MOM, m, n),
                           "a": self.tensor(Memory.ACT, k, m)}
            fields["imm"] = int(self.rng.integers(-2, 12))
        else:
            n = min(n, self.config.classes)
            flags = 0
            fields = {"a": self.tensor(Memory.ACT, m, n), "dst": self.tensor(Memory.ERR, m, n),
                      "b": self.tensor(Memory.VEC, 1, m)}
        if not self.full:
            self.program.append(encode(opcode, flags=flags, **fields))

    def mantissas(self, shape: tuple[int, int]) -> NDArray[np.int8]:
        """A memory image of several kinds of data; -128 is not excluded."""
        rng = self.rng
        image = rng.integers(-127, 128, shape)
        image[rng.random(shape) < rng.choice([0.0, 0.3, 0.9])] = 0
        edge = rng.integers(0, shape[0] + 1)
        image[:edge] = np.clip(image[:edge], -2, 2)
        image[rng.random(shape) < 0.01] = -128
        return image.astype(np.int8)


def random_case(seed: int, config: Config, *, length: int = 12, largest: int | None = None, palette: int = 0,
                fault: int = 0) -> Case:
    """A program of up to ``length`` instructions; ``fault`` of its bits, or of the table's, are flipped.

    Parameters
    ----------
    seed : everything follows from it
    length : instructions, fewer when not even known tensors fit together any more
    largest : greatest dimension, default 3 T + 1
    palette : how many different dimensions, so that results are operands later; 0 for no bound
    """
    rng = np.random.default_rng(seed)
    builder = Builder(rng, config, largest or 3 * config.size + 1)
    builder.palette = [builder.size() for _ in range(palette)]
    for _ in range(ATTEMPTS * length):
        if len(builder.program) == length:
            break
        builder.full = False
        builder.instruction()
    table = rng.integers(0, 1 << 32, (config.tensors, DESCRIPTOR_WORDS), np.uint32)
    if builder.entries:
        table[:len(builder.entries)] = builder.entries
    program = [*builder.program, encode(Opcode.HALT)]
    for _ in range(fault):
        if rng.random() < 0.6:
            program[int(rng.integers(len(program)))] ^= 1 << int(rng.integers(64))
        elif builder.entries:
            word = int(rng.choice([0, 0, 1, 2, 4]))
            table[int(rng.integers(len(builder.entries))), word] ^= np.uint32(1 << int(rng.integers(32)))
    memories: dict[str, NDArray[Any]] = {}
    for name in MEMORIES:
        lanes = config.pitch(name) // config.lane_bytes(name)
        shape = (config.words(name), lanes)
        if name == "vec":
            image = rng.integers(-32767, 32768, shape)
            small = rng.random(shape) < 0.5
            memories[name] = np.where(small, rng.integers(0, 12, shape), image).astype(np.int16)
        else:
            memories[name] = builder.mantissas(shape)
    return Case(program=program, table=table, memories=memories,
                seeds=rng.integers(0, 1 << 32, config.size, np.uint32), lr_shift=int(rng.integers(0, 12)))


def load(device: Device, case: Case) -> None:
    """Write a case over the host bus."""
    config = device.config
    assert isinstance(device, RegisterAccess)
    program = np.zeros(config.program_words, np.uint64)
    program[:len(case.program)] = case.program
    device.write(Region.PROGRAM.address, program.view(np.uint32))
    device.write(Region.TABLE.address, case.table.reshape(-1))
    for name, image in case.memories.items():
        device.write(Region[name.upper()].address, np.ascontiguousarray(image).view(np.uint32).reshape(-1))
    device.seed(case.seeds)
    device.write_register("LR_SHIFT", case.lr_shift)


def small_config(size: int) -> Config:
    """A machine of ``size`` whose memories are so small that loading and comparing them is quick; few powers of two."""
    words = 61 * size
    return Config(name=f"campaign_{size}x{size}", size=size, act_words=words, err_words=words - 1, wgt_words=words + 1,
                  mom_words=words, vec_words=8 * size + 3, program_words=50, tensors=45, classes=2 * size + 3)


def execute(device: Device, case: Case) -> list[Status]:
    """Load a case and run it, going on behind each instruction that is an error; why it stopped each time."""
    load(device, case)
    pc, reasons = 0, []
    while pc < len(case.program):
        reasons.append(device.run(pc))
        pc = device.read_register("PC") + 1  # type: ignore[attr-defined]
    return reasons
