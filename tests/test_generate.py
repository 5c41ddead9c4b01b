"""Generated files: they compile, they agree with the ISA, and they are the same every time."""

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from shiftgrad import isa
from shiftgrad.cli import main
from shiftgrad.config import CONFIGS, get_config
from shiftgrad.generate import c_header, description

BUILDABLE = [name for name, config in CONFIGS.items() if not config.virtual]
PROGRAM = """
#include "shiftgrad.h"
#include <stdio.h>
int main(void)
{
    printf("%llx\\n", (unsigned long long)sg_instruction(SG_OP_GRAD, SG_FLAG_DELAYED, 1, 2, 3, 4, 6, -5));
    printf("%llx\\n", (unsigned long long)sg_field(-60, SG_DESC_EXPONENT_LOW, SG_DESC_EXPONENT_WIDTH));
    printf("%x %x %x\\n", sg_descriptor_address(3, SG_DESC_EXPONENT_WORD), sg_program_address(2), SG_REG_GRAD_MACS_HI);
    return SG_EXPONENT_MIN != -60;
}
"""


@pytest.mark.parametrize("name", BUILDABLE)
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_the_header_compiles_and_agrees(tmp_path: Path, name: str) -> None:
    (tmp_path / "shiftgrad.h").write_text(c_header(get_config(name)))
    (tmp_path / "main.c").write_text(PROGRAM)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    subprocess.run(["cc", *strict, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    out = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout.split()
    word = isa.encode(isa.Opcode.GRAD, flags=isa.Flag.DELAYED, dst=1, a=2, b=3, c=4, d=6, imm=-5)
    grad_macs = next(r.address for r in isa.REGISTERS if r.name == "GRAD_MACS_HI")
    assert out == [f"{word:x}", f"{-60 & 0xFF:x}", f"{isa.Region.TABLE.address + 4 * (8 * 3 + 4):x}",
                   f"{isa.Region.PROGRAM.address + 16:x}", f"{grad_macs:x}"]


@pytest.mark.parametrize("name", BUILDABLE)
def test_description(name: str) -> None:
    config, about = get_config(name), json.loads(json.dumps(description(get_config(name))))
    assert about["numbers"]["SIZE"] == config.size and about["numbers"]["ACT_WORDS"] == config.act_words
    assert about["opcodes"] == {op.name: int(op) for op in isa.Opcode}
    assert sum(r["name"].startswith("LFSR") for r in about["registers"]) == config.size
    assert [f["name"] for f in about["instruction"]] == [f.name for f in isa.INSTRUCTION]
    header = c_header(config)
    assert all(f"SG_REG_{r['name']} " in header for r in about["registers"])
    assert all(len(line) <= 120 or line.startswith("/*") for line in header.splitlines())


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("hw.top")
    fake.generate = lambda config: f"module shiftgrad; // {config.name}\nendmodule\n"
    fake.WAIVERS = {"UNUSEDSIGNAL": "a reason"}
    monkeypatch.setitem(sys.modules, "hw.top", fake)
    names = ["sim_4x4", "sim_8x8"]
    for out in ("one", "two"):
        options = [part for name in names for part in ("--config", name)]
        result = CliRunner().invoke(main, ["generate", *options, "--out", str(tmp_path / out), "--json"])
        assert result.exit_code == 0 and list(json.loads(result.stdout)) == names
    for name in names:
        one, two = (tmp_path / out / name for out in ("one", "two"))
        files = sorted(p.name for p in one.iterdir())
        assert files == ["shiftgrad.h", "shiftgrad.json", "shiftgrad.v", "shiftgrad.vlt"]
        assert all(p.read_bytes() == (two / p.name).read_bytes() for p in one.iterdir())
        assert name in (one / "shiftgrad.v").read_text()
    for arguments, status, wrong in (  # known before anything is written
        (("--config", "sim_4x4", "--config", "golden_16x16", "--out", str(tmp_path / "three")), 2, "golden_16x16"),
        (("--config", "sim_4x4", "--out", str(tmp_path / "one" / "sim_4x4" / "shiftgrad.v")), 1, "Not a directory"),
    ):
        result = CliRunner().invoke(main, ["generate", *arguments])
        assert result.exit_code == status and wrong in result.output and not (tmp_path / "three").exists()
    result = CliRunner().invoke(main, ["generate", "--out", str(tmp_path / "all")])
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == sorted(BUILDABLE) and result.exit_code == 0
