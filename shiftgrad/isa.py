"""The one definition of what crosses the host interface: instructions, tensor table, registers, address map.

The compiler, the golden machine, the RTL decoder, the C header and ``docs/isa.md`` all derive from the tables here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

__all__ = [
    "ADDRESS_BITS", "COUNTERS", "DENSE_FLAGS", "DESCRIPTOR", "DESCRIPTOR_WORDS", "EXPONENT_MAX", "EXPONENT_MIN",
    "Field", "Flag",
    "HISTORY", "INSTRUCTION", "INSTRUCTION_BITS", "KERNEL_MAX", "KNOWS_UNSIGNED", "LEGAL_FLAGS", "LFSR_BASE",
    "LOADABLE", "LOADS_WHILE_BUSY", "LR_MAX", "MAGIC", "Memory",
    "OPERANDS", "OPERAND_NAMES", "Opcode", "PRODUCTS", "REGISTERS", "Region", "Register", "SUM_BITS_MAX",
    "Status", "TERMS_END", "UNSIGNED", "VECTORS", "decode", "encode", "pack", "unpack",
]


@dataclass(frozen=True, kw_only=True)
class Field:
    """``width`` bits of a word from bit ``low`` up; two's complement when ``signed``."""

    name: str
    low: int
    width: int
    signed: bool = False
    doc: str = ""


def pack(fields: tuple[Field, ...], values: dict[str, int]) -> int:
    """Place ``values`` in their fields (absent ones are 0); ``ValueError`` when one does not fit."""
    word = 0
    known = {field.name: field for field in fields}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"no field {name!r}; there are: {', '.join(known)}")
        field = known[name]
        low, high = (-(1 << field.width - 1), 1 << field.width - 1) if field.signed else (0, 1 << field.width)
        if not low <= value < high:
            raise ValueError(f"{name} must be from {low} to {high - 1}, got {value}")
        word |= (value & ((1 << field.width) - 1)) << field.low
    return word


def unpack(fields: tuple[Field, ...], word: int) -> dict[str, int]:
    """The value of every field of ``word``; the inverse of :func:`pack`."""
    values = {}
    for field in fields:
        value = word >> field.low & ((1 << field.width) - 1)
        if field.signed and value >> field.width - 1:
            value -= 1 << field.width
        values[field.name] = value
    return values


# --- instructions ---------------------------------------------------------------------------------

INSTRUCTION_BITS = 64
INSTRUCTION = (
    Field(name="opcode", low=0, width=8, doc="operation"),
    Field(name="flags", low=8, width=8, doc="modifiers; a flag the operation does not know is an error"),
    Field(name="dst", low=16, width=8, doc="tensor written"),
    Field(name="a", low=24, width=8, doc="first operand"),
    Field(name="b", low=32, width=8, doc="second operand"),
    Field(name="c", low=40, width=8, doc="bias, mask or momentum"),
    Field(name="d", low=48, width=8, doc="scalar: added to `a` or multiplied with it"),
    Field(name="imm", low=56, width=8, signed=True, doc="learning-rate shift of GRAD and SUM"),
)


class Opcode(IntEnum):
    """Operations. All other codes, 0 among them, stop the machine."""

    HALT = 0x01
    FWD = 0x10
    BWD = 0x11
    GRAD = 0x12
    LOSS = 0x20
    ADD = 0x30
    ADDB = 0x31
    SUM = 0x32
    AVG = 0x33
    AVGB = 0x34
    MAX = 0x35
    MAXB = 0x36


class Flag(IntFlag):
    """Instruction modifiers."""

    RELU = 0x01  # FWD, ADD: negative results become 0
    BIAS = 0x02  # FWD: add tensor c to every row, or to every element when it is 1 x 1; ADD: add scalar c
    MASK = 0x04  # backward operations: keep results only where tensor c (MAXB: b) > 0
    ONES = 0x08  # GRAD: operand a is one row of ones (exponent 0); dst is a bias
    DELAYED = 0x10  # scale from the exponent history when there is one
    FREEZE = 0x20  # forward operations: leave the exponent history as it is (evaluation)
    SCALAR = 0x40  # FWD, GRAD: scalar d is added to operand a; ADD, ADDB: operand a is multiplied by scalar d
    PAIR = 0x80  # ADD, ADDB: operand b is added; SUM: products with operand a


LEGAL_FLAGS = {
    Opcode.HALT: Flag(0),
    Opcode.FWD: Flag.RELU | Flag.BIAS | Flag.DELAYED | Flag.FREEZE | Flag.SCALAR,
    Opcode.BWD: Flag.MASK | Flag.DELAYED,
    Opcode.GRAD: Flag.ONES | Flag.DELAYED | Flag.SCALAR,
    Opcode.LOSS: Flag(0),
    Opcode.ADD: Flag.RELU | Flag.BIAS | Flag.DELAYED | Flag.FREEZE | Flag.SCALAR | Flag.PAIR,
    Opcode.ADDB: Flag.MASK | Flag.DELAYED | Flag.SCALAR | Flag.PAIR,
    Opcode.SUM: Flag.DELAYED | Flag.PAIR,
    Opcode.AVG: Flag.DELAYED | Flag.FREEZE,
    Opcode.AVGB: Flag.MASK | Flag.DELAYED,
    Opcode.MAX: Flag.DELAYED | Flag.FREEZE,
    Opcode.MAXB: Flag.MASK | Flag.DELAYED,
}
# of a machine without images, scalars and vector unit
DENSE_FLAGS = {
    opcode: LEGAL_FLAGS[opcode] & ~Flag.SCALAR
    for opcode in (Opcode.HALT, Opcode.FWD, Opcode.BWD, Opcode.GRAD, Opcode.LOSS)
}
PRODUCTS = (Opcode.FWD, Opcode.BWD, Opcode.GRAD)  # run on the array
VECTORS = (Opcode.ADD, Opcode.ADDB, Opcode.SUM, Opcode.AVG, Opcode.AVGB, Opcode.MAX, Opcode.MAXB)  # on the vector unit


class Memory(IntEnum):
    """Memory codes of the tensor table (names as ``config.MEMORIES``)."""

    ACT = 0
    ERR = 1
    WGT = 2
    MOM = 3
    VEC = 4


UNSIGNED = 5  # memory code of a tensor in ACT whose mantissas are 0 to 255, on machines that KNOWS_UNSIGNED says of

OPERAND_NAMES = ("dst", "a", "b", "c", "d")  # the order they are checked in
_ALWAYS = {
    Opcode.HALT: {},
    Opcode.FWD: {"dst": Memory.ACT, "a": Memory.ACT, "b": Memory.WGT},
    Opcode.BWD: {"dst": Memory.ERR, "a": Memory.ERR, "b": Memory.WGT},
    Opcode.GRAD: {"dst": Memory.WGT, "a": Memory.ACT, "b": Memory.ERR, "c": Memory.MOM},
    Opcode.LOSS: {"dst": Memory.ERR, "a": Memory.ACT, "b": Memory.VEC},
    Opcode.ADD: {"dst": Memory.ACT, "a": Memory.ACT},
    Opcode.ADDB: {"dst": Memory.ERR, "a": Memory.ERR},
    Opcode.SUM: {"dst": Memory.VEC, "b": Memory.ERR, "c": Memory.MOM},
    Opcode.AVG: {"dst": Memory.ACT, "a": Memory.ACT},
    Opcode.AVGB: {"dst": Memory.ERR, "a": Memory.ERR},
    Opcode.MAX: {"dst": Memory.ACT, "a": Memory.ACT},
    Opcode.MAXB: {"dst": Memory.ERR, "a": Memory.ERR, "b": Memory.ACT},
}
# (operation, flag) -> the operand the flag brings in
_WITH_FLAG = {
    (Opcode.FWD, Flag.BIAS): {"c": Memory.VEC},
    (Opcode.FWD, Flag.SCALAR): {"d": Memory.VEC},
    (Opcode.BWD, Flag.MASK): {"c": Memory.ACT},
    (Opcode.GRAD, Flag.SCALAR): {"d": Memory.VEC},
    (Opcode.ADD, Flag.PAIR): {"b": Memory.ACT},
    (Opcode.ADD, Flag.BIAS): {"c": Memory.VEC},
    (Opcode.ADD, Flag.SCALAR): {"d": Memory.VEC},
    (Opcode.ADDB, Flag.PAIR): {"b": Memory.ERR},
    (Opcode.ADDB, Flag.MASK): {"c": Memory.ACT},
    (Opcode.ADDB, Flag.SCALAR): {"d": Memory.VEC},
    (Opcode.SUM, Flag.PAIR): {"a": Memory.ACT},
    (Opcode.AVGB, Flag.MASK): {"c": Memory.ACT},
}


def OPERANDS(opcode: Opcode, flags: int) -> dict[str, Memory]:  # noqa: N802
    """Operands an instruction uses, in the order they are checked, and the memory each must live in."""
    if opcode == Opcode.GRAD and flags & Flag.ONES:  # SCALAR has no effect: there is no operand a
        return {"dst": Memory.VEC, "b": Memory.ERR, "c": Memory.MOM}
    used = dict(_ALWAYS[opcode])
    for (operation, flag), more in _WITH_FLAG.items():
        if operation == opcode and flags & flag:
            used |= more
    return {name: used[name] for name in OPERAND_NAMES if name in used}


class Status(IntEnum):
    """Why the machine is not running. Codes from ``ILLEGAL_OPCODE`` up are errors: nothing was written."""

    RESET = 0  # has not run since reset
    HALTED = 1  # reached HALT
    ABORTED = 2  # stopped by the host
    ILLEGAL_OPCODE = 3
    ILLEGAL_FLAGS = 4  # a flag the operation does not know
    BAD_TENSOR = 5  # id beyond the table, or the tensor lives in another memory than the operand must
    BAD_SHAPE = 6  # a size of 0, over 65,535 rows, a stride that is not ceil(cols / T), operands that do not fit
    OUT_OF_RANGE = 7  # the tensor ends beyond its memory
    OVERLAP = 8  # the destination overlaps another operand in the same memory
    OVERFLOW = 9  # exponent outside [-60, 60] or learning-rate shift outside [0, 63]
    PC_RANGE = 10  # program counter beyond the program memory


# --- tensor table ---------------------------------------------------------------------------------

HISTORY = 8
EXPONENT_MIN, EXPONENT_MAX = -60, 60
LR_MAX = 63
DESCRIPTOR_WORDS = 8  # 32-bit words from one entry to the next
KERNEL_MAX = 7
TERMS_END = 1 << 17  # terms that may overflow int32: 2^17 * 128^2 = 2^31; unsigned ones are rows, 65,535 at most
SUM_BITS_MAX = 24  # ceil(log2 rows) + ceil(log2 cols) of the longest SUM
DESCRIPTOR: tuple[tuple[Field, ...], ...] = (
    (Field(name="base", low=0, width=20, doc="first memory word"),),
    (
        Field(name="planes", low=0, width=16, doc="images; of weights, input channels. rows = planes * height * width"),
        Field(name="cols", low=16, width=16, doc="columns, from 1; column c is in lane c mod T"),
    ),
    (
        Field(name="memory", low=0, width=3, doc="memory code"),
        Field(name="stride", low=16, width=16, doc="memory words a row, ceil(cols / T)"),
    ),
    (
        Field(name="height", low=0, width=8, doc="lines of an image or kernel, less 1"),
        Field(name="width", low=8, width=8, doc="pixels of a line, less 1"),
        Field(name="pad_y", low=16, width=3, doc="of weights: lines of zeros above and below an image"),
        Field(name="pad_x", low=19, width=3, doc="of weights: zeros left and right of a line"),
        Field(name="step_y", low=22, width=1, doc="of weights: lines from one output to the next, less 1"),
        Field(name="step_x", low=23, width=1, doc="of weights: pixels from one output to the next, less 1"),
    ),
    (
        Field(name="exponent", low=0, width=8, signed=True, doc="value = mantissa * 2^exponent"),
        Field(name="count", low=8, width=4, doc="history entries in use, 0 to 8"),
    ),
    tuple(Field(name=f"history{i}", low=8 * i, width=8, signed=True, doc="own exponent, newest 0") for i in range(4)),
    tuple(Field(name=f"history{i + 4}", low=8 * i, width=8, signed=True, doc="") for i in range(4)),
    (),
)

# --- address map ----------------------------------------------------------------------------------

ADDRESS_BITS = 24


class Region(IntEnum):
    """Byte address bits 23:20. Data memories: word w, lane l at w * pitch + l * lane bytes; unused lanes read 0."""

    REGISTERS = 0
    PROGRAM = 1
    TABLE = 2
    ACT = 4
    ERR = 5
    WGT = 6
    MOM = 7
    VEC = 8

    @property
    def address(self) -> int:
        """First byte address."""
        return int(self) << 20


@dataclass(frozen=True, kw_only=True)
class Register:
    """A 32-bit register at byte ``address``; ``access`` is ro, rw or wo."""

    name: str
    address: int
    access: str
    doc: str


MAGIC = 0x53475231  # "SGR1"
LOADS_WHILE_BUSY, KNOWS_UNSIGNED = 1 << 16, 1 << 17  # in CONFIG
LOADABLE = ("act", "vec")  # memories a host may write while a program runs, where CONFIG says so
_BASIC = (
    Register(name="MAGIC", address=0x00, access="ro", doc="0x53475231"),
    Register(name="CONFIG", address=0x04, access="ro", doc="[7:0] T, [15:8] log2 of the table's entries rounded up, "
             "bit 16: ACT and VEC take writes while a program runs, bit 17: there are unsigned tensors"),
    Register(name="CTRL", address=0x08, access="wo",
             doc="bit 0: start at START_PC; bit 1: abort, whatever bit 0 says (what the instruction was writing is "
                 "then undefined; STATUS is busy, and a start a bus error, until the last unit has stopped); bit 2: "
                 "clear the counters"),
    Register(name="STATUS", address=0x0C, access="ro", doc="bit 0: busy; [15:8] status code"),
    Register(name="PC", address=0x10, access="ro", doc="instruction running, or stopped at"),
    Register(name="START_PC", address=0x14, access="rw", doc="[15:0] where start begins"),
    Register(name="LR_SHIFT", address=0x18, access="rw", doc="[5:0] added to the immediate of every GRAD and SUM"),
    Register(name="RETIRED", address=0x1C, access="ro", doc="instructions completed since start (HALT is not counted)"),
    Register(name="LOSS", address=0x20, access="ro", doc="sum over the last LOSS's samples, 1/256 bit"),
    Register(name="CORRECT", address=0x24, access="ro", doc="samples of the last LOSS classified correctly"),
    Register(name="SAMPLES", address=0x28, access="ro", doc="samples of the last LOSS with a valid label"),
    Register(name="SATURATED", address=0x2C, access="ro", doc="mantissas the last instruction but LOSS saturated"),
)
# 48-bit counters, two registers each (low, high); cleared by CTRL bit 2. Every busy cycle is in exactly one of the
# first five, and in exactly one of the next seven.
COUNTERS = {
    "FWD_CYCLES": "busy cycles in FWD",
    "BWD_CYCLES": "busy cycles in BWD",
    "GRAD_CYCLES": "busy cycles in GRAD",
    "VECTOR_CYCLES": "busy cycles in ADD, ADDB, SUM, AVG, AVGB, MAX and MAXB",
    "OTHER_CYCLES": "busy cycles in LOSS, HALT and illegal instructions, and fetching",
    "FEED_CYCLES": "array fed by a write pass",
    "RANGE_CYCLES": "range passes (scale from the tensor's own maximum): fed or waiting",
    "DRAIN_CYCLES": "write pass waits for the previous tile's drain (reductions shorter than T)",
    "STREAM_CYCLES": "vector unit fed by a write pass",
    "TAIL_CYCLES": "last tile on its way from the array to memory, and exponent bookkeeping",
    "SETUP_CYCLES": "fetch, checks and exponents before the first operand",
    "LOSS_CYCLES": "loss unit",
    "FWD_MACS": "multiply-accumulates of FWD write passes, those of an image's padding included, of unused lanes not",
    "BWD_MACS": "the same for BWD",
    "GRAD_MACS": "the same for GRAD",
}
COUNTER_BASE = 0x40
LFSR_BASE = 0x100
REGISTERS = (
    *_BASIC,
    *(
        Register(name=f"{name}_{half}", address=COUNTER_BASE + 8 * i + 4 * (half == "HI"), access="ro",
                 doc=f"{doc} ({'bits 47:32' if half == 'HI' else 'bits 31:0'})")
        for i, (name, doc) in enumerate(COUNTERS.items())
        for half in ("LO", "HI")
    ),
    *(
        Register(name=f"LFSR{lane}", address=LFSR_BASE + 4 * lane, access="rw",
                 doc=f"generator of lane {lane} (lanes below T only); writing 0 stores 1")
        for lane in range(16)
    ),
)


def encode(opcode: Opcode, *, flags: int = 0, dst: int = 0, a: int = 0, b: int = 0, c: int = 0, d: int = 0,
           imm: int = 0) -> int:
    """One 64-bit instruction word; ``ValueError`` when a field does not fit."""
    operands = {"dst": dst, "a": a, "b": b, "c": c, "d": d}
    return pack(INSTRUCTION, {"opcode": int(opcode), "flags": int(flags), **operands, "imm": imm})


def decode(word: int) -> dict[str, int]:
    """The fields of an instruction word; nothing is checked."""
    return unpack(INSTRUCTION, word)
