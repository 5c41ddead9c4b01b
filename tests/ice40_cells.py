"""A design with iCE40 cells as a program: Yosys's own models of the cells, Verilator, a C++ bench."""

import subprocess
import sys
from pathlib import Path

import pyosys
from amaranth.back import rtlil

from hw.boards import get_board
from sim.build import toolchain

CELLS = Path(pyosys.__file__).parent / "share" / "ice40" / "cells_sim.v"
RUN = "import sys; from pyosys import libyosys as y; d = y.Design(); [y.run_pass(p.strip(), d) for p in sys.argv[1].split(';')]"


def run_with_cells(dut, ports, bench: str, folder: Path) -> str:
    """What ``bench``, the body of a main() that has ``Vdut dut``, ``tick()``, prints; it must return 0."""
    text = rtlil.convert(dut, platform=get_board("icebreaker").platform(), name="dut", ports=ports, emit_src=False)
    (folder / "dut.il").write_text(text)
    script = f"read_rtlil dut.il; read_verilog {CELLS}; hierarchy -top dut; proc; flatten; opt_clean; " \
             "write_verilog -noattr dut.v"
    subprocess.run([sys.executable, "-c", RUN, script], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "main.cpp").write_text(
        '#include "Vdut.h"\n#include <cstdio>\n#include <cstdlib>\n#include <random>\n#include <vector>\n'
        "static Vdut dut;\nstatic void tick() { dut.clk = 1; dut.eval(); dut.clk = 0; dut.eval(); }\n"
        f"int main() {{\n{bench}\n}}\n")
    command = ["verilator_bin", "--cc", "--exe", "--build", "-O3", "-Wno-lint", "-Wno-style", "--x-initial", "0",
               "--top-module", "dut", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include", "--Mdir", "obj", "-o", "bench",
               "dut.v", "main.cpp"]
    subprocess.run(command, cwd=folder, check=True, env=toolchain(), stdout=subprocess.DEVNULL)
    return subprocess.run([folder / "obj" / "bench"], check=True, capture_output=True, text=True).stdout
