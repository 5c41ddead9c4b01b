"""Which instruction is next: decoded, its operands looked up in the tensor table, both checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from golden.tensor import PLACE_WORDS, Tensor, fit, scales, tensor, terms
from shiftgrad.config import MEMORIES, Config
from shiftgrad.isa import EXPONENT_MAX, EXPONENT_MIN, HISTORY, OPERANDS, Flag, Memory, Opcode, Status, decode

__all__ = ["Instruction", "Issuer", "Stop"]

ROWS_MAX = 65535
U32 = NDArray[np.uint32]


class Stop(Exception):  # noqa: N818
    """Ends the instruction in progress before it wrote anything."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Instruction:
    """One that passed every check.

    Attributes
    ----------
    word : as in the program memory
    opcode, flags, imm : its fields
    operands : table entries by operand
    """

    def __init__(self, word: int, operands: dict[str, Tensor], table: U32) -> None:
        field = decode(word)
        self.opcode, self.flags, self.imm = Opcode(field["opcode"]), field["flags"], field["imm"]
        self.word, self.operands = word, operands
        self._ids = np.array([entry.id for entry in operands.values()])
        self._places = table[self._ids, :PLACE_WORDS].tobytes()

    def refresh(self, table: U32) -> bool:
        """Read exponents and histories anew; False when anything else changed, and the checks have to be made again."""
        entries = table[self._ids]
        if entries[:, :PLACE_WORDS].tobytes() != self._places:
            return False
        for entry, scale in zip(self.operands.values(), scales(entries), strict=True):
            entry.exponent, entry.count, entry.history = scale
        return all(map(_in_range, self.operands.values()))


class Issuer:
    """Finds the instruction at a program counter; one that has not changed since it was checked is not checked again.

    Parameters
    ----------
    config : of the machine
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._known: dict[int, Instruction] = {}

    def fetch(self, pc: int, program: NDArray[np.uint64], table: U32) -> Instruction:
        """The instruction at ``pc``; :class:`Stop` with the first check that fails."""
        if pc >= self.config.program_words:
            raise Stop(Status.PC_RANGE)
        word, known = int(program[pc]), self._known.get(pc)
        if known is None or known.word != word or not known.refresh(table):
            known = self._known[pc] = Instruction(word, self._checked(word, table), table)
        return known

    def _checked(self, word: int, table: U32) -> dict[str, Tensor]:
        field = decode(word)
        legal = self.config.legal_flags
        if field["opcode"] not in legal:
            raise Stop(Status.ILLEGAL_OPCODE)
        opcode, flags = Opcode(field["opcode"]), field["flags"]
        if flags & ~int(legal[opcode]):
            raise Stop(Status.ILLEGAL_FLAGS)
        if opcode == Opcode.HALT:
            raise Stop(Status.HALTED)
        unsigned = self.config.unsigned and opcode != Opcode.LOSS
        operands = {name: self.operand(field[name], memory, table, unsigned=unsigned)
                    for name, memory in OPERANDS(opcode, Flag(flags)).items()}
        if not fit(opcode, operands, self.config.classes) or terms(opcode, operands) >= self.config.terms_end:
            raise Stop(Status.BAD_SHAPE)
        dst = operands["dst"]
        for other in operands.values():
            if other is not dst and other.memory == dst.memory and dst.base < other.end and other.base < dst.end:
                raise Stop(Status.OVERLAP)
        return operands

    def operand(self, index: int, memory: Memory, table: U32, *, unsigned: bool = False) -> Tensor:
        """Entry ``index`` as an operand that must live in ``memory`` and may be ``unsigned``."""
        if index >= self.config.tensors:
            raise Stop(Status.BAD_TENSOR)
        entry = tensor(index, table[index])
        if entry.memory != memory or entry.unsigned > unsigned:
            raise Stop(Status.BAD_TENSOR)
        if (not entry.planes or not entry.cols or entry.rows > ROWS_MAX
                or entry.stride != self.config.stride(entry.cols)
                or (self.config.dense and table[index, 3])):  # an image, or a kernel
            raise Stop(Status.BAD_SHAPE)
        if entry.end > self.config.words(MEMORIES[memory]):
            raise Stop(Status.OUT_OF_RANGE)
        if not _in_range(entry):
            raise Stop(Status.OVERFLOW)
        return entry


def _in_range(entry: Tensor) -> bool:
    return EXPONENT_MIN <= entry.exponent <= EXPONENT_MAX and entry.count <= HISTORY
