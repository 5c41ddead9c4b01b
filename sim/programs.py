"""Random programs: shapes, data, exponents, histories and faults no compiler would choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import Device, RegisterAccess
from shiftgrad.isa import DESCRIPTOR_WORDS, INSTRUCTION, OPERAND_NAMES, TERMS_END, Opcode, Region, Status, encode
from sim.program_builder import OPERATIONS, Builder
from sim.program_tensors import descriptor

__all__ = ["OPERATIONS", "Builder", "Case", "descriptor", "execute", "load", "random_case", "small_config"]

ATTEMPTS = 8  # for each instruction wanted: towards the end few new tensors fit
ENDLESS, ENDLESS_MAX = 0.1, 64  # share of the faulty programs without HALT, in program memories up to this size
SPOILED = (0, 0, 1, 1, 2, 3, 3, 3, 4)  # words of a tensor table entry
OPERAND_BITS = [field.low for field in INSTRUCTION if field.name in OPERAND_NAMES]


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


def mantissas(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int8]:
    """A memory image of several kinds of data; -128 is not excluded."""
    image = rng.integers(-127, 128, shape)
    image[rng.random(shape) < rng.choice([0.0, 0.3, 0.9])] = 0
    edge = rng.integers(0, shape[0] + 1)
    image[:edge] = np.clip(image[:edge], -2, 2)
    image[rng.random(shape) < 0.01] = -128
    return image.astype(np.int8)


def vectors(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int16]:
    """Labels, and biases and scalars of every magnitude."""
    image = rng.integers(-32768, 32768, shape) >> rng.integers(0, 12, shape)
    return np.where(rng.random(shape) < 0.4, rng.integers(0, 12, shape), image).astype(np.int16)


def random_case(seed: int, config: Config, *, length: int = 12, largest: int | None = None, palette: int = 0,
                fault: int = 0, operations: tuple[Opcode, ...] | None = None, images: float = 0.5) -> Case:
    """A program of up to ``length`` instructions; ``fault`` times a bit or an operand in it, or of the table, is wrong.

    Parameters
    ----------
    seed : everything follows from it
    length : instructions, fewer when not even known tensors fit together any more
    largest : greatest dimension, default 3 T + 1
    palette : how many different dimensions, so that results are operands later; 0 for no bound
    fault : faults; some programs with any have no HALT and fill the program memory
    operations : what to choose from, one named twice twice as often; all when None
    images : share of FWD, BWD and GRAD that are convolutions
    """
    rng = np.random.default_rng(seed)
    operations = operations or tuple(opcode for opcode in OPERATIONS if opcode in config.legal_flags)
    builder = Builder(rng, config, largest or 3 * config.size + 1, operations=operations,
                      images=0.0 if config.dense else images)
    builder.limit(palette)
    for _ in range(ATTEMPTS * length):
        if len(builder.program) == length:
            break
        builder.instruction()
    table = rng.integers(0, 1 << 32, (config.tensors, DESCRIPTOR_WORDS), np.uint32)
    if builder.entries:
        table[:len(builder.entries)] = builder.entries
    program = [*builder.program, encode(Opcode.HALT)]
    if fault and builder.program and config.program_words <= ENDLESS_MAX and rng.random() < ENDLESS:
        program = [builder.program[i % len(builder.program)] for i in range(config.program_words)]
    for _ in range(fault):
        spoil(rng, config, program, table, len(builder.entries))
    memories: dict[str, NDArray[Any]] = {}
    for name in MEMORIES:
        shape = (config.words(name), config.pitch(name) // config.lane_bytes(name))
        memories[name] = vectors(rng, shape) if name == "vec" else mantissas(rng, shape)
    return Case(program=program, table=table, memories=memories,
                seeds=rng.integers(0, 1 << 32, config.size, np.uint32), lr_shift=int(rng.integers(0, 12)))


def spoil(rng: np.random.Generator, config: Config, program: list[int], table: NDArray[np.uint32],
          tensors: int) -> None:
    """Flip a bit of an instruction or of a tensor, exchange an operand, move a tensor near another or make it huge."""
    where, kind = int(rng.integers(len(program))), rng.random()
    if kind < 0.4 or not tensors:
        program[where] ^= 1 << int(rng.integers(64))
    elif kind < 0.65:
        bits = int(rng.choice([8, 32]))  # the lower ones do less harm, which is harder to see
        table[int(rng.integers(tensors)), int(rng.choice(SPOILED))] ^= np.uint32(1 << int(rng.integers(bits)))
    elif kind < 0.7:  # the sizes agree, only their products are too large
        most = [1 << int(rng.integers(1, bits + 1)) for bits in (16, 16, 8, 8)]
        planes, cols, height, width = rng.integers(most).tolist()
        entry = table[int(rng.integers(tensors))]
        entry[1:4] = planes | cols << 16, int(entry[2]) & 7 | config.stride(cols) << 16, height | width << 8
    elif kind < 0.85:
        low, other = rng.choice(OPERAND_BITS, 2).tolist()
        index = program[where] >> other & 0xFF if kind < 0.8 else int(rng.integers(tensors))
        program[where] = program[where] & ~(0xFF << low) | index << low
    else:
        dst, near = (program[where] >> low & 0xFF for low in rng.choice(OPERAND_BITS, 2, replace=False).tolist())
        if max(dst, near) < tensors:
            table[dst, 0] = int(table[near, 0]) + int(rng.integers(8))


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


def small_config(size: int, *, dense: bool = False, unsigned: bool = False) -> Config:
    """A machine of ``size`` whose memories are so small that loading and comparing them is quick; few powers of two."""
    words = 97 * size
    name = f"campaign_{size}x{size}{'_unsigned' * unsigned}"
    return Config(name=name, size=size, act_words=words, err_words=words - 1, wgt_words=words + 1, mom_words=words,
                  vec_words=8 * size + 3, program_words=50, tensors=45, classes=2 * size + 3,
                  dense=dense, unsigned=unsigned,
                  terms_end=2 * size + 2 if dense else TERMS_END)


def execute(device: Device, case: Case) -> list[Status]:
    """Load a case and run it, going on behind each instruction that is an error; why it stopped each time."""
    load(device, case)
    pc, reasons = 0, []
    while pc < len(case.program):
        reasons.append(device.run(pc))
        pc = device.read_register("PC") + 1  # type: ignore[attr-defined]
    return reasons
