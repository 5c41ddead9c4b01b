"""The controller's instruction set and its assembler."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

__all__ = ["ADDRESS_BITS", "Assembler", "AssemblyError", "Op", "Port", "Read", "Slot"]

ADDRESS_BITS = 11  # of code and of data, and width of an immediate
IMMEDIATE_MIN, IMMEDIATE_MAX = -(1 << ADDRESS_BITS - 1), (1 << ADDRESS_BITS - 1) - 1


class AssemblyError(ValueError):
    """Code that does not fit, or names something that is not there."""


class Op(IntEnum):
    """Operation codes, bits 15:11; bits 10:0 are an address, an immediate or a port. A is the accumulator."""

    LDA = 0  # A = [n]
    AND = 1
    OR = 2
    XOR = 3
    ADD = 4  # A = A + [n]
    SUB = 5  # A = A - [n]
    LDX = 6  # A = [P + n], n below 8, P a multiple of 8 unless n is 0
    STA = 7  # [n] = A
    LDI = 8  # A = n, signed
    ANI = 9  # A = A & n, n signed
    ADI = 12  # A = A + n, n signed
    STX = 15  # [P + n] = A, as LDX
    SHR = 16  # A = A / 2, unsigned
    SHL = 17  # A = 2 A
    ROR = 18  # A rotated right by 8
    IN = 19  # A = port n
    OUT = 20  # port n = A
    SETP = 21  # P = A
    LINK = 22  # A = return address
    MUL = 23  # A = (A + [n] if P is odd) / 2, P = P / 2
    JMP = 24
    JZ = 25  # if A = 0
    JNZ = 26
    JN = 27  # if A < 0
    JP = 28  # if A >= 0
    CALL = 29  # return address = next
    RET = 30  # to the return address
    JMPA = 31  # to A


class Port(IntEnum):
    """What OUT writes."""

    A_ADDR = 0  # stream A: address
    A_STEP = 1  # added after each word
    A_WRAP = 2  # instead, after every fourth
    B_ADDR = 3
    B_STEP = 4
    B_WRAP = 5
    D_ADDR = 6  # row of the destination behind the first to be drained
    C_ADDR = 7  # row of the second operand, the first to be drained
    ROW_STEP = 8  # words of a row of both
    MODE = 9  # see ``Mode``
    SHIFTS = 10  # shift amounts, 7 bits each: step (or of SHIFT_X), requantise, align, guard
    TERMS = 11  # length of the reduction
    TILE = 12  # rows, columns << 3, word of a vector << 6; starts the tile
    SHIFT_X = 13  # into the shifter
    WORD = 14  # word to write
    STORE = 15  # write it: bit 0 ACT at A_ADDR, 1 ERR at A_ADDR, 2 WGT and MOM at B_ADDR, 3 VEC at A_ADDR (16 bits)
    REPLY = 16  # to the bus; the access ends
    REFUSE = 17  # the same with an error
    STATUS = 18  # busy, status << 8
    RETIRED = 19
    SEED = 20  # into the generator of lane 3; each other one gets that of the lane behind it
    CLEAR = 21  # maximum and count of saturated mantissas become 0


class Read(IntEnum):
    """What IN reads."""

    REQUEST = 0  # bus: 1 while an access waits
    TILE = 1  # 1 while a tile is under way
    ADDRESS = 2  # bus: byte address, bit 24 write, bit 25 all strobes
    DATA = 3  # bus: data to write
    A = 4  # word of stream A
    B = 5
    VECTOR = 6  # 16 bits of VEC at A_ADDR, sign-extended
    MAXIMUM = 7
    SHIFTED = 8  # the shifter's integer part, from the fourth cycle after SHIFT_X
    SEED = 9  # generator of lane 0
    SATURATED = 10


class Slot(IntEnum):
    """Who uses the shifter in a cycle, by the two low bits of the drain's count; also its amount in SHIFTS."""

    REQUANTISE = 0
    STEP = 1
    GUARD = 2
    ALIGN = 3


class Assembler:
    """Collects code, variables and constants; labels and variables are names, resolved by :meth:`words`.

    Parameters
    ----------
    variables : data addresses for variables and constants, in this order
    """

    def __init__(self, variables: Iterable[int]) -> None:
        self.free = iter(variables)
        self.code: list[tuple[Op, int | str]] = []
        self.labels: dict[str, int] = {}
        self.variables: dict[str, int] = {}
        self.constants: dict[int, int] = {}
        self.fresh = 0

    # --- names ------------------------------------------------------------------------------------

    def reserve(self, name: str, address: int) -> None:
        """Name a data address that is not one of ours."""
        self.variables[name] = address

    def variable(self, name: str, count: int = 1) -> int:
        """Address of ``name``, given when first used; ``count`` addresses in a row."""
        if name not in self.variables:
            self.variables[name] = self._next()
            for _ in range(count - 1):
                self._next()
        return self.variables[name]

    def constant(self, value: int) -> int:
        """Address of a 32-bit constant."""
        value &= 0xFFFFFFFF
        if value not in self.constants:
            self.constants[value] = self._next()
        return self.constants[value]

    def _next(self) -> int:
        try:
            return next(self.free)
        except StopIteration:
            raise AssemblyError("no room for another variable") from None

    def label(self, name: str) -> None:
        """The next instruction's address."""
        if name in self.labels:
            raise AssemblyError(f"label {name} is there already")
        self.labels[name] = len(self.code)

    def local(self) -> str:
        """A name for a label nobody else uses."""
        self.fresh += 1
        return f".{self.fresh}"

    # --- code -------------------------------------------------------------------------------------

    def emit(self, op: Op, *operands: int | str) -> None:
        """An instruction for each operand, one when there is none."""
        for operand in operands or (0,):
            if isinstance(operand, str) and op < Op.JMP:
                operand = self.variable(operand)
            self.code.append((op, operand))

    def load(self, value: int | str) -> None:
        """A = a number, or a variable."""
        if isinstance(value, str):
            self.emit(Op.LDA, value)
        elif IMMEDIATE_MIN <= value <= IMMEDIATE_MAX:
            self.emit(Op.LDI, value)
        else:
            self.emit(Op.LDA, self.constant(value))

    def add(self, value: int | str) -> None:
        """A = A + a number, or a variable."""
        if isinstance(value, int) and IMMEDIATE_MIN <= value <= IMMEDIATE_MAX:
            self.emit(Op.ADI, value)
        else:
            self.emit(Op.ADD, value if isinstance(value, str) else self.constant(value))

    def sub(self, value: int | str) -> None:
        """A = A - a number, or a variable."""
        if isinstance(value, int):
            self.add(-value)
        else:
            self.emit(Op.SUB, value)

    def store(self, *names: str) -> None:
        """Variables = A."""
        self.emit(Op.STA, *names)

    def move(self, name: str, value: int | str) -> None:
        """Variable = a number, or a variable."""
        self.load(value)
        self.store(name)

    def out(self, port: Port, value: int | str | None = None) -> None:
        """Port = A, or a number, or a variable."""
        if value is not None:
            self.load(value)
        self.emit(Op.OUT, port)

    def read(self, port: Read) -> None:
        """A = port."""
        self.emit(Op.IN, port)

    def jump(self, label: str, *, when: Op = Op.JMP) -> None:
        """Go to ``label``, when A is so."""
        self.emit(when, label)

    def call(self, label: str) -> None:
        """Call a routine."""
        self.emit(Op.CALL, label)

    def enter(self, name: str) -> None:
        """Begin of a routine that calls others."""
        self.label(name)
        self.emit(Op.LINK)
        self.store(f"{name}.link")

    def leave(self, name: str) -> None:
        """End of such a routine."""
        self.load(f"{name}.link")
        self.emit(Op.JMPA)

    def words(self) -> list[int]:
        """The code, 16 bits a word."""
        if len(self.code) > 1 << ADDRESS_BITS:
            raise AssemblyError(f"wanted at most {1 << ADDRESS_BITS} instructions, got {len(self.code)}")
        return [op << ADDRESS_BITS | self._resolve(operand) & (1 << ADDRESS_BITS) - 1 for op, operand in self.code]

    def _resolve(self, operand: int | str) -> int:
        if isinstance(operand, int):
            return int(operand)
        if operand not in self.labels:
            raise AssemblyError(f"no label {operand!r}")
        return self.labels[operand]
