"""The sum of a cell in the ECP5's carry chain against the portable one, proved with Yosys's model of the carry cell."""

import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal, signed

from hw import array
from hw.boards import ecp5_accumulator
from shiftgrad.bitstream import PYOSYS

MODEL = "+/ecp5/cells_sim.v"
PROOF = (f"read_rtlil proof.il; read_verilog -lib -ignore_redef {MODEL}; read_verilog -overwrite {MODEL}; "
         "hierarchy -top top; proc; flatten; opt -full; sat -prove wrong 0 -verify top")


def prove(folder: Path, bits: int) -> bool:
    m, total, term = Module(), Signal(32, name="total"), Signal(signed(bits), name="term")
    first, wrong = Signal(name="first"), Signal(name="wrong")
    m.d.comb += wrong.eq(ecp5_accumulator.accumulate(m, total, term, first)
                         != array.portable(m, total, term, first)[:32])
    (folder / "proof.il").write_text(rtlil.convert(m, ports=[total, term, first, wrong]))
    run = subprocess.run([sys.executable, "-c", PYOSYS, PROOF], cwd=folder, capture_output=True, text=True)
    assert "SAT proof finished" in run.stdout, run.stdout[-2000:] + run.stderr[-2000:]
    return run.returncode == 0 and "no model found: SUCCESS" in run.stdout


@pytest.mark.parametrize("bits", [16, 17])
def test_it_is_the_portable_sum(bits: int, tmp_path: Path) -> None:
    """Of products of two int8, and of a uint8 and an int8."""
    assert prove(tmp_path, bits)


@pytest.mark.parametrize("name", ["A_XOR_B_UNLESS_C", "GENERATE"])
def test_the_proof_sees_a_wrong_table(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecp5_accumulator, name, getattr(ecp5_accumulator, name) ^ (1 << 9 if name[0] == "A" else 1))
    assert not prove(tmp_path, 16)
