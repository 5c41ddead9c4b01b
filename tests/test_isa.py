"""The interface definition: packing, uniqueness, and that docs/isa.md is what it renders to."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from shiftgrad import isa, isadoc
from shiftgrad.config import MEMORIES
from shiftgrad.isa import Field, Flag, Memory, Opcode, Region, Status

SEED = 3
LAYOUTS = {"instruction": isa.INSTRUCTION} | {f"word {i}": fields for i, fields in enumerate(isa.DESCRIPTOR) if fields}


def limits(field: Field) -> tuple[int, int]:
    return (-(1 << field.width - 1), (1 << field.width - 1) - 1) if field.signed else (0, (1 << field.width) - 1)


def test_the_page_is_current() -> None:
    assert isadoc.PATH.read_text(encoding="utf-8") == isadoc.render(), "run python -m shiftgrad.isadoc"


def test_the_page_names_everything() -> None:
    page = isadoc.render()
    for names in (Opcode, Flag, Status, Memory, Region):
        for member in names:
            assert str(member.name) in page
    for name in (*(r.name for r in isa.REGISTERS if not r.name.startswith("LFSR")), *isa.COUNTERS):
        assert name in page
    for fields in LAYOUTS.values():
        assert all(f"`{field.name}`" in page for field in fields)
    assert set(isadoc.ACTION) == set(Opcode)
    assert set(isadoc.FLAG_DOC) == set(Flag)
    assert set(isadoc.STATUS_DOC) == set(Status)


def test_tables_of_the_page_are_well_formed() -> None:
    for block in isadoc.render().split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, block


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pack_and_unpack(layout: str) -> None:
    print("seed", SEED)
    rng, fields = random.Random(SEED), LAYOUTS[layout]
    corners = [{f.name: limits(f)[end] for f in fields} for end in (0, 1)]
    for values in (*corners, *({f.name: rng.randint(*limits(f)) for f in fields} for _ in range(50))):
        word = isa.pack(fields, values)
        assert 0 <= word < 1 << (64 if layout == "instruction" else 32)
        assert isa.unpack(fields, word) == values
    assert isa.unpack(fields, isa.pack(fields, {})) == {f.name: 0 for f in fields}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pack_refuses_what_does_not_fit(layout: str) -> None:
    for field in LAYOUTS[layout]:
        low, high = limits(field)
        for value in (low - 1, high + 1):
            with pytest.raises(ValueError, match=f"{field.name} must be from {low} to {high}, got {value}"):
                isa.pack(LAYOUTS[layout], {field.name: value})
    with pytest.raises(ValueError, match=r"no field 'colour'; there are: "):
        isa.pack(LAYOUTS[layout], {"colour": 1})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fields_do_not_overlap(layout: str) -> None:
    fields = sorted(LAYOUTS[layout], key=lambda f: f.low)
    assert all(a.low + a.width <= b.low for a, b in pairwise(fields))
    assert fields[-1].low + fields[-1].width <= (64 if layout == "instruction" else 32)


def test_encode_and_decode() -> None:
    word = isa.encode(Opcode.GRAD, flags=Flag.ONES | Flag.DELAYED, dst=1, a=2, b=3, c=255, d=7, imm=-5)
    assert word == 0xFB_07_FF_03_02_01_18_12
    assert isa.decode(word) == {"opcode": 0x12, "flags": 0x18, "dst": 1, "a": 2, "b": 3, "c": 255, "d": 7, "imm": -5}
    with pytest.raises(ValueError, match="dst must be from 0 to 255, got 256"):
        isa.encode(Opcode.FWD, dst=256)


def test_registers_are_unique_and_aligned() -> None:
    assert len({r.name for r in isa.REGISTERS}) == len(isa.REGISTERS)
    assert len({r.address for r in isa.REGISTERS}) == len(isa.REGISTERS)
    for register in isa.REGISTERS:
        assert register.address % 4 == 0 and register.access in ("ro", "rw", "wo")
        assert register.address < Region.PROGRAM.address
    assert all(isa.COUNTER_BASE <= r.address < isa.LFSR_BASE for r in isa.REGISTERS if r.name.endswith(("_LO", "_HI")))


def test_regions_and_memories_agree() -> None:
    assert [m.name.lower() for m in Memory] == list(MEMORIES)
    assert all(Region[memory.name] for memory in Memory)
    assert all(region.address < 1 << isa.ADDRESS_BITS for region in Region)


def test_operands_use_known_flags() -> None:
    assert set(isa.LEGAL_FLAGS) == set(Opcode)
    assert isa.OPERANDS(Opcode.HALT, 0) == {}
    assert list(isa.OPERANDS(Opcode.FWD, Flag.BIAS)) == ["dst", "a", "b", "c"]
    assert isa.OPERANDS(Opcode.GRAD, Flag.ONES) == {"dst": Memory.VEC, "b": Memory.ERR, "c": Memory.MOM}
    assert isa.OPERANDS(Opcode.GRAD, Flag.ONES | Flag.SCALAR) == isa.OPERANDS(Opcode.GRAD, Flag.ONES)
    assert len(isa.DESCRIPTOR) == isa.DESCRIPTOR_WORDS


@pytest.mark.parametrize("opcode", Opcode)
def test_flags_bring_operands_in_and_take_none_away(opcode: Opcode) -> None:
    """In the order they are checked; GRAD's ONES is the exception."""
    legal = int(isa.LEGAL_FLAGS[opcode])
    always = isa.OPERANDS(opcode, 0)
    for flags in (flags for flags in range(256) if not flags & ~legal):
        used = isa.OPERANDS(opcode, flags)
        assert list(used) == [name for name in isa.OPERAND_NAMES if name in used]
        if not flags & Flag.ONES:
            assert used.items() >= always.items()
