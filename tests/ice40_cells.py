"""A design with iCE40 cells as a program: Yosys's own models of the cells, Verilator, a C++ bench."""

import subprocess
from pathlib import Path

import pyosys
from amaranth.back import verilog

from hw.boards import get_board
from sim.build import toolchain

CELLS = Path(pyosys.__file__).parent / "share" / "ice40" / "cells_sim.v"


def run_with_cells(dut, ports, bench: str, folder: Path) -> str:
    """What ``bench``, the body of a main() that has ``Vdut dut``, ``tick()``, prints; it must return 0."""
    platform = get_board("icebreaker").platform()
    text = verilog.convert(dut, platform=platform, name="dut", ports=ports, emit_src=False, strip_internal_attrs=True)
    (folder / "dut.v").write_text(text)
    (folder / "main.cpp").write_text(
        '#include "Vdut.h"\n#include <cstdio>\n#include <cstdlib>\n#include <random>\n#include <vector>\n'
        "static Vdut dut;\nstatic void tick() { dut.clk = 1; dut.eval(); dut.clk = 0; dut.eval(); }\n"
        f"int main() {{\ndut.eval();\n{bench}\n}}\n")
    command = ["verilator_bin", "--cc", "--exe", "--build", "-O3", "-Wno-fatal", "--x-initial", "0",
               "--top-module", "dut", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include", "--Mdir", "obj", "-o", "bench",
               "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "dut.v", "-v", CELLS, "main.cpp"]
    subprocess.run(command, cwd=folder, check=True, env=toolchain(), stdout=subprocess.DEVNULL)
    return subprocess.run([folder / "obj" / "bench"], check=True, capture_output=True, text=True).stdout
