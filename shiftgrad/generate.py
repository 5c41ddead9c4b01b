"""Files for people who integrate the machine: Verilog, a C header, and the same numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shiftgrad import isa
from shiftgrad.config import MEMORIES, Config
from shiftgrad.files import check_writable, write_text

__all__ = ["c_header", "description", "generate", "waivers"]


def _numbers(config: Config) -> dict[str, int]:
    """Configuration numbers by upper-case name."""
    numbers = {key.upper(): int(value) for key, value in asdict(config).items() if key != "name"}
    for memory in MEMORIES:
        numbers[f"{memory.upper()}_PITCH"] = config.pitch(memory)
    return numbers | {
        "MACS_PER_CYCLE": config.macs_per_cycle,
        "BYTES_TOTAL": config.bytes_total,
        "ADDRESS_BITS": isa.ADDRESS_BITS,
        "DESCRIPTOR_WORDS": isa.DESCRIPTOR_WORDS,
        "HISTORY": isa.HISTORY,
        "LR_MAX": isa.LR_MAX,
        "MAGIC_VALUE": isa.MAGIC,
        "MEMORY_CODE_UNSIGNED": isa.UNSIGNED,
        "LOADS_WHILE_BUSY": isa.LOADS_WHILE_BUSY,
        "KNOWS_UNSIGNED": isa.KNOWS_UNSIGNED,
    }


def _registers(config: Config) -> list[isa.Register]:
    """The registers this configuration has: generators of lanes below T only."""
    end = isa.LFSR_BASE + 4 * config.size
    return [register for register in isa.REGISTERS if register.address < end]


def _fields(fields: Iterable[isa.Field], word: int) -> list[dict[str, Any]]:
    return [{"word": word, **asdict(field)} for field in fields]


def description(config: Config) -> dict[str, Any]:
    """Everything a driver needs, in plain types.

    Keys: ``config``, ``numbers``, ``registers``, ``regions``, ``opcodes``, ``flags``, ``legal_flags``, ``status``,
    ``memories``, ``instruction`` and ``descriptor`` (fields with word, low, width, signed).
    """
    return {
        "config": config.name,
        "numbers": _numbers(config) | {"EXPONENT_MIN": isa.EXPONENT_MIN, "EXPONENT_MAX": isa.EXPONENT_MAX},
        "registers": [asdict(register) for register in _registers(config)],
        "regions": {region.name: region.address for region in isa.Region},
        "opcodes": {op.name: int(op) for op in isa.Opcode},
        "flags": {flag.name: int(flag) for flag in isa.Flag},
        "legal_flags": {op.name: int(flags) for op, flags in isa.LEGAL_FLAGS.items()},
        "status": {status.name: int(status) for status in isa.Status},
        "memories": {memory.name: int(memory) for memory in isa.Memory},
        "instruction": _fields(isa.INSTRUCTION, 0),
        "descriptor": [entry for word, fields in enumerate(isa.DESCRIPTOR) for entry in _fields(fields, word)],
    }


def _define(name: str, value: str, doc: str = "") -> str:
    if "*/" in doc:
        raise ValueError(f"{name}: a comment must not contain '*/', got {doc!r}")
    line = f"#define SG_{name:<24} {value}"
    if not doc:
        return line
    beside = f"{line:<52} /* {doc} */"
    return beside if len(beside) <= 120 else f"/* {doc} */\n{line}"


def _field_lines(prefix: str, entries: list[dict[str, Any]], *, words: bool) -> Iterator[str]:
    for entry in entries:
        name = f"{prefix}_{entry['name'].upper()}"
        if words:
            yield _define(f"{name}_WORD", f"{entry['word']}u", entry["doc"])
        yield _define(f"{name}_LOW", f"{entry['low']}u", "" if words else entry["doc"])
        yield _define(f"{name}_WIDTH", f"{entry['width']}u", "two's complement" if entry["signed"] else "")


def _sections(about: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Title and lines of each section of the header."""
    numbers = about["numbers"]
    plain = [_define(name, f"({value})" if value < 0 else f"{value}u") for name, value in numbers.items()]
    yield f"configuration {about['config']}", [_define("CONFIG_NAME", f'"{about["config"]}"'), *plain]
    yield "regions: first byte address", [
        _define(f"REGION_{name}", f"0x{address:06x}u") for name, address in about["regions"].items()]
    yield "registers: byte address; ro read-only, rw read and write, wo write-only", [
        _define(f"REG_{r['name']}", f"0x{r['address']:06x}u", f"{r['access']}: {r['doc']}") for r in about["registers"]]
    yield "CTRL and STATUS", [
        _define("CTRL_START", "0x1u"), _define("CTRL_ABORT", "0x2u"), _define("CTRL_CLEAR", "0x4u"),
        _define("STATUS_BUSY", "0x1u"), _define("STATUS_CODE_LOW", "8u"), _define("STATUS_CODE_WIDTH", "8u")]
    for title, prefix, key in (
        ("operations", "OP", "opcodes"), ("flags", "FLAG", "flags"),
        ("flags an operation knows", "LEGAL", "legal_flags"), ("status codes", "STATUS", "status"),
        ("memory codes of the tensor table", "MEMORY", "memories"),
    ):
        yield title, [_define(f"{prefix}_{name}", f"0x{value:02x}u") for name, value in about[key].items()]
    instruction, descriptor = about["instruction"], about["descriptor"]
    yield "instruction fields (one 64-bit word, low half first)", [*_field_lines("INSTR", instruction, words=False)]
    yield "tensor descriptor fields", [*_field_lines("DESC", descriptor, words=True)]


_FUNCTIONS = """\
/* Place the low `width` bits of `value` at bit `low`. */
static inline uint64_t sg_field(int64_t value, unsigned low, unsigned width)
{
    return ((uint64_t)value & ((UINT64_C(1) << width) - 1u)) << low;
}

/* One instruction word. */
static inline uint64_t sg_instruction(unsigned opcode, unsigned flags, unsigned dst, unsigned a, unsigned b, unsigned c,
                                      unsigned d, int imm)
{
    return sg_field(opcode, SG_INSTR_OPCODE_LOW, SG_INSTR_OPCODE_WIDTH)
        | sg_field(flags, SG_INSTR_FLAGS_LOW, SG_INSTR_FLAGS_WIDTH)
        | sg_field(dst, SG_INSTR_DST_LOW, SG_INSTR_DST_WIDTH) | sg_field(a, SG_INSTR_A_LOW, SG_INSTR_A_WIDTH)
        | sg_field(b, SG_INSTR_B_LOW, SG_INSTR_B_WIDTH) | sg_field(c, SG_INSTR_C_LOW, SG_INSTR_C_WIDTH)
        | sg_field(d, SG_INSTR_D_LOW, SG_INSTR_D_WIDTH) | sg_field(imm, SG_INSTR_IMM_LOW, SG_INSTR_IMM_WIDTH);
}

/* Byte address of 32-bit word `word` of tensor `id`'s descriptor. */
static inline uint32_t sg_descriptor_address(unsigned id, unsigned word)
{
    return SG_REGION_TABLE + 4u * (SG_DESCRIPTOR_WORDS * id + word);
}

/* Byte address of the low half of program word `pc`; the high half follows at + 4. */
static inline uint32_t sg_program_address(unsigned pc)
{
    return SG_REGION_PROGRAM + 8u * pc;
}
"""


def c_header(config: Config) -> str:
    """The C99 header of ``config``: registers, regions, operations, flags, status, field positions, numbers."""
    about = description(config)
    body = "\n\n".join(f"/* --- {title} --- */\n" + "\n".join(lines) for title, lines in _sections(about))
    return (
        "/* shiftgrad host interface. Generated by `shiftgrad generate`; do not edit. */\n"
        "#ifndef SHIFTGRAD_H\n#define SHIFTGRAD_H\n\n#include <stdint.h>\n\n"
        f"{body}\n\n{_FUNCTIONS}\n#endif\n"
    )


def waivers() -> str:
    """Verilator configuration: the warnings of ``-Wall`` the Verilog is allowed, each with its reason."""
    from hw.top import WAIVERS

    rules = "".join(f"// {reason}\nlint_off -rule {rule}\n" for rule, reason in WAIVERS.items())
    return f"`verilator_config\n{rules}"


def generate(config: Config, out: Path) -> list[Path]:
    """Write ``shiftgrad.v``, ``.vlt`` (lint waivers), ``.h`` and ``.json`` to ``out/<config>/``.

    Returns the paths written, in that order. Equal sources give equal bytes.
    """
    from hw.top import generate as verilog

    config.check_buildable()
    paths = [out / config.name / f"shiftgrad.{kind}" for kind in ("v", "vlt", "h", "json")]
    for path in paths:
        check_writable(path)
    texts = verilog(config), waivers(), c_header(config), json.dumps(description(config), indent=1) + "\n"
    return [write_text(path, text) for path, text in zip(paths, texts, strict=True)]
