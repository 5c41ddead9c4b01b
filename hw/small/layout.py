"""Where the controller keeps what: the words of its data memory."""

from hw.small.assembler import Assembler
from hw.small.lane import LANES
from shiftgrad.config import Config
from shiftgrad.isa import COUNTER_BASE, COUNTERS, DESCRIPTOR, DESCRIPTOR_WORDS, OPERAND_NAMES

__all__ = [
    "BUFFER", "CURVES", "MASKS", "MOMENTA", "PROGRAM", "REGISTERS", "SLOT", "SLOTS", "TABLE", "VARIABLES",
    "WORDS", "check_small", "max_terms", "names", "register",
]

VARIABLES = (*range(136), *range(220, 224))  # the latter between the registers and the counters
SLOTS = {name: 136 + 8 * i for i, name in enumerate(OPERAND_NAMES[:4])}  # operands
SLOT = ("entry", "base", "rows", "cols", "stride", "exponent", "end", "count")  # words of a slot
MASKS = 168  # defined bits of a tensor table entry's words
BUFFER, CLASSES = 176, 32  # a row of LOSS
REGISTERS = 208  # as the register window has them
CURVES = 256  # EXP2 - 1 and LOG2 << 16
TABLE, TENSORS = 512, 64
PROGRAM, INSTRUCTIONS = 1024, 128
WORDS = 1280
MOMENTA = 8192  # where MOM begins, behind WGT


def register(name: str) -> int:
    """Data address of a register: one of the first, or the low word of a counter."""
    if name in COUNTERS:
        return REGISTERS + COUNTER_BASE // 4 + 2 * list(COUNTERS).index(name)
    basic = ("MAGIC", "CONFIG", "CTRL", "STATUS", "PC", "START_PC", "LR_SHIFT", "RETIRED", "LOSS", "CORRECT", "SAMPLES",
             "SATURATED")
    return REGISTERS + basic.index(name)


def names(code: Assembler) -> None:
    """Give registers and operands their names."""
    for name in ("STATUS", "PC", "START_PC", "LR_SHIFT", "RETIRED", "LOSS", "CORRECT", "SAMPLES", "SATURATED"):
        code.reserve(name, register(name))
    for slot, address in SLOTS.items():
        for i, field in enumerate(SLOT):
            code.reserve(f"{slot}.{field}", address + i)


def masks() -> list[int]:
    """Defined bits of the words of a tensor table entry."""
    return [sum(((1 << field.width) - 1) << field.low for field in word) for word in DESCRIPTOR]


def max_terms(config: Config) -> int:
    """Longest reduction: what the configuration allows, of operands that fit the memories."""
    act, err, wgt = config.act_words, config.err_words, config.wgt_words
    return min(config.terms_end - 1, max(min(wgt, LANES * act), LANES * min(wgt, err), min(err, act)))


def check_small(config: Config) -> None:
    """``ValueError`` when the small machine cannot be ``config``."""
    for what, got, most in (
        ("T", config.size, LANES), ("act_words", config.act_words, 16384), ("wgt_words", config.wgt_words, MOMENTA),
        ("mom_words", config.mom_words, 16384 - MOMENTA), ("tensors", config.tensors, TENSORS),
        ("program_words", config.program_words, INSTRUCTIONS), ("classes", config.classes, CLASSES),
    ):
        if got > most:
            raise ValueError(f"{config.name}: the small machine has {what} up to {most}, got {got}")
    assert DESCRIPTOR_WORDS == len(SLOT)
