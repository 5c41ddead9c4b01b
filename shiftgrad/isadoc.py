"""Renders ``docs/isa.md`` from :mod:`shiftgrad.isa`: ``python -m shiftgrad.isadoc`` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shiftgrad.config import CONFIGS, MEMORIES
from shiftgrad.isa import (
    ADDRESS_BITS,
    COUNTER_BASE,
    COUNTERS,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    EXPONENT_MAX,
    EXPONENT_MIN,
    HISTORY,
    INSTRUCTION,
    INSTRUCTION_BITS,
    KERNEL_MAX,
    LEGAL_FLAGS,
    LFSR_BASE,
    LOADABLE,
    LR_MAX,
    OPERANDS,
    REGISTERS,
    UNSIGNED,
    Field,
    Flag,
    Memory,
    Opcode,
    Region,
    Status,
)
from shiftgrad.isaactions import ACTION

__all__ = ["PATH", "main", "render"]

PATH = Path(__file__).resolve().parent.parent / "docs" / "isa.md"

FLAG_DOC = {
    Flag.RELU: "negative results become 0",
    Flag.BIAS: "add tensor `c` to every row, or its only element to every element",
    Flag.MASK: "keep results only where tensor `c` (MAXB: `b`) > 0",
    Flag.ONES: "operand `a` is one row of ones, exponent 0; `dst` is a bias",
    Flag.DELAYED: "scale from the exponent history when there is one",
    Flag.FREEZE: "leave the exponent history as it is (evaluation)",
    Flag.SCALAR: "add scalar `d` to operand `a` (FWD, GRAD), or multiply that by it (ADD, ADDB)",
    Flag.PAIR: "operand `b` is added (ADD, ADDB), or operand `a` multiplied (SUM)",
}
STATUS_DOC = {
    Status.RESET: "has not run since reset",
    Status.HALTED: "reached HALT",
    Status.ABORTED: "stopped by the host",
    Status.ILLEGAL_OPCODE: "no such operation",
    Status.ILLEGAL_FLAGS: "a flag the operation does not know",
    Status.BAD_TENSOR: "id beyond the table, or the tensor lives in another memory than the operand must",
    Status.BAD_SHAPE: "a size of 0, over 65,535 rows, a stride that is not ceil(cols / T), or operands that do not fit "
                      "together",
    Status.OUT_OF_RANGE: "the tensor ends beyond its memory",
    Status.OVERLAP: "the destination overlaps another operand in the same memory",
    Status.OVERFLOW: f"exponent outside [{EXPONENT_MIN}, {EXPONENT_MAX}], more than {HISTORY} history entries, or "
                     f"learning-rate shift outside [0, {LR_MAX}]",
    Status.PC_RANGE: "program counter beyond the program memory",
}

def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A markdown table; bars in cells are escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def bits(field: Field) -> str:
    """Bit range of a field, as [high:low]."""
    return f"[{field.low + field.width - 1}:{field.low}]"


def instruction_format() -> str:
    """Fields, flags and status codes."""
    fields = [(bits(f), f"`{f.name}`", f"{f.doc}{', signed' if f.signed else ''}") for f in INSTRUCTION]
    flags = [(f"0x{flag.value:02x}", str(flag.name), ", ".join(op.name for op in Opcode if flag in LEGAL_FLAGS[op]),
              FLAG_DOC[flag]) for flag in Flag]
    codes = [(str(int(status)), status.name, STATUS_DOC[status]) for status in Status]
    return "\n".join((
        "## Instruction format\n",
        f"An instruction is one {INSTRUCTION_BITS}-bit word, two host words, the low one first. Operands are tensor "
        "table entries.\n",
        table(("bits", "field", "meaning"), fields),
        table(("flag", "name", "operations", "meaning"), flags),
        "## Status codes\n",
        f"Codes from {int(Status.ILLEGAL_OPCODE)} up are errors: the instruction wrote nothing, PC points at it and "
        "the machine has stopped.\n",
        table(("code", "name", "meaning"), codes),
        "Checks run in this order; the first that fails gives the status.\n",
        "1. PC within the program memory (PC_RANGE), operation (ILLEGAL_OPCODE), flags (ILLEGAL_FLAGS).\n"
        "2. Each operand used, in the order its instruction lists them: id and memory (BAD_TENSOR); planes, rows, cols "
        "and stride (BAD_SHAPE); end (OUT_OF_RANGE); exponent and history count (OVERFLOW).\n"
        "3. The operands together (BAD_SHAPE); `dst` and any other operand in the same memory (OVERLAP); learning rate "
        "(OVERFLOW).\n",
    ))


def instruction(opcode: Opcode) -> str:
    """Action, operands and checks of one instruction."""
    summary, action, checks = ACTION[opcode]
    legal = [str(flag.name) for flag in Flag if flag in LEGAL_FLAGS[opcode]]
    plain, all_flags = OPERANDS(opcode, 0), OPERANDS(opcode, int(LEGAL_FLAGS[opcode] & ~Flag.ONES))
    names = [f"`{name}` in {memory.name}" + ("" if name in plain else " (with its flag)")
             for name, memory in all_flags.items()]
    if Flag.ONES in LEGAL_FLAGS[opcode]:
        ones = OPERANDS(opcode, Flag.ONES)
        names.append("with ONES: " + ", ".join(f"`{name}` in {memory.name}" for name, memory in ones.items()))
    return "\n".join((
        f"### {opcode.name} (0x{opcode.value:02x})\n",
        f"{summary}\n",
        f"```\n{action}\n```\n",
        f"- operands: {'; '.join(names) or 'none'}",
        f"- flags: {', '.join(legal) or 'none'}",
        f"- checks of the operands together: {checks}\n",
    ))


def tensor_table() -> str:
    """Layout of an entry."""
    rows = [(f"+0x{4 * i:02x}", bits(f), f"`{f.name}`", f"{f.doc}{', signed' if f.signed else ''}".lstrip(", "))
            for i, word in enumerate(DESCRIPTOR) for f in word]
    codes = ", ".join(f"{int(memory)} {memory.name}" for memory in Memory)
    return "\n".join((
        "## Tensor table\n",
        f"Entry i starts {4 * DESCRIPTOR_WORDS} * i bytes into the window. Bits that are not listed read 0. Memory "
        f"codes: {codes}. {UNSIGNED} is an unsigned tensor in ACT, where CONFIG says that there are some: mantissas "
        "from 0 to 255. It may be any operand in ACT but that of LOSS (BAD_TENSOR). Written, it is as with RELU, "
        "whatever the flags.\n",
        table(("address", "bits", "field", "meaning"), rows),
        "A tensor is a matrix of planes * (height + 1) * (width + 1) rows. Of images, a row is a pixel: planes outer, "
        "lines, then pixels of a line; columns are channels. Of weights, planes are the input channels, and row "
        "(y * kernel width + x) * planes + c belongs to tap (y, x) and channel c; columns are output channels. A "
        f"kernel is at most {KERNEL_MAX} x {KERNEL_MAX} and its padding smaller than it. With all of the form 0, a "
        "tensor is a plain matrix, images of one pixel, or a dense layer's weights.\n",
    ))


def registers() -> str:
    """Basic registers, counters and generators."""
    listed = [(f"0x{r.address:03x}", r.name, r.access, r.doc) for r in REGISTERS if r.address < COUNTER_BASE]
    counters = [(f"0x{COUNTER_BASE + 8 * i:03x}", f"{name}_LO, {name}_HI", doc)
                for i, (name, doc) in enumerate(COUNTERS.items())]
    return "\n".join((
        "## Registers\n",
        "32-bit words, read at any time. Writing a read-only register, or reading a write-only one, is a bus error; so "
        "is, while a program runs, a write to CTRL with bit 0 and without bit 1. Every instruction takes LR_SHIFT "
        "once, when it is fetched.\n",
        table(("address", "name", "access", "meaning"), listed),
        "Counters have 48 bits, in two read-only registers: bits 31:0, and bits 47:32 four bytes later.\n",
        table(("address", "names", "counts"), counters),
        f"The generator of lane n is the read-write register LFSRn at 0x{LFSR_BASE:03x} + 4 n, n below T; writing 0 "
        "stores 1. While a program runs it is a bus error.\n",
    ))


def address_map() -> str:
    """Regions of the host bus."""
    size = {
        Region.REGISTERS: "see above",
        Region.PROGRAM: "8 bytes an instruction",
        Region.TABLE: f"{4 * DESCRIPTOR_WORDS} bytes an entry",
    }
    rows = [(f"0x{region.address:06x}", region.name,
             size.get(region, f"pitch bytes a word, lanes of {2 if region == Region.VEC else 1} byte"
                              f"{'s' if region == Region.VEC else ''}")) for region in Region]
    configs = [(config.name, str(config.size), *(str(config.words(m)) for m in MEMORIES), str(config.program_words),
                str(config.tensors), str(config.pitch("act")), str(config.pitch("vec")))
               for config in CONFIGS.values() if not config.virtual]
    loadable = " and ".join(name.upper() for name in LOADABLE)
    head = ("configuration", "T", *(f"{memory.upper()} words" for memory in MEMORIES), "program", "tensors", "pitch",
            "VEC pitch")
    return "\n".join((
        "## Address map\n",
        f"Byte addresses of {ADDRESS_BITS} bits, multiples of 4 (AXI4-Lite ignores the two low bits), little-endian. "
        f"Anything else is a bus error, and so is any window while a program runs, but for writes to {loadable} where "
        "CONFIG says so. Writes are of whole words; a data memory takes single lanes too. The [small "
        "machine](small.md) has fewer counters and takes whole words only.\n",
        table(("address", "window", "layout"), rows),
        "In a data memory, lane l of word w is at w * pitch + l * lane bytes; the pitch is T lanes rounded up to a "
        "power of two, and lanes beyond T read 0.\n",
        table(head, configs),
        "## Loading while a program runs\n",
        f"A host may write {loadable} at words that the program neither reads nor writes, such as the place of the "
        "next mini-batch: no result and no cycle of the program changes. (What comes of a word that it uses is "
        "undefined; nothing else suffers.) The machine's own writes go first. A write of the host waits for a "
        "cycle without one in that memory, for as many cycles as a pass has words at most, because between two "
        "instructions there are always free ones; until then no other access is answered, an abort neither. A "
        "write that was answered is in the memory before the next start takes effect, and an abort does not undo "
        "it. Everything else stays a bus error until the program has stopped: reads of windows, and writes to "
        "PROGRAM, TABLE, ERR, WGT, MOM and the generators. LOSS, CORRECT and SAMPLES are those of the next program "
        "as soon as its LOSS begins: read them before it is started.\n",
    ))


def render() -> str:
    """The whole page."""
    return "\n".join((
        "# Instruction set and host interface\n",
        "Generated from `shiftgrad/isa.py`, `isaactions.py` and `isadoc.py` by `python -m shiftgrad.isadoc`; edit "
        "those instead. The functions named in the actions are those of [numerics](numerics.md); `x.e` is the exponent "
        "of tensor x. A tensor like another has the same rows and columns.\n",
        instruction_format(),
        "## Instructions\n",
        *(instruction(opcode) for opcode in Opcode),
        tensor_table(),
        registers(),
        address_map(),
    )).rstrip() + "\n"


def main() -> None:
    """Write ``docs/isa.md``."""
    PATH.write_text(render(), encoding="utf-8")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
