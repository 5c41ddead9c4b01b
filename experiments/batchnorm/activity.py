"""How often the nets of a synthesised unit change while it works: a measure of energy that needs no table."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyosys
from amaranth.back import rtlil
from amaranth.lib.wiring import Component, Flow

from shiftgrad.bitstream import PYOSYS
from sim.build import toolchain

__all__ = ["Stimulus", "simulate", "transitions"]

# multipliers as LUTs: what is inside a block cannot be seen; aliases of a net are dropped
SYNTHESIS = ("read_rtlil top.il; synth_ecp5 -nodsp -nobram -nowidelut -noiopad -top top; splitnets; opt_clean -purge; "
             "rename -hide; rename -enumerate -pattern n%_; write_verilog -noattr top.v")
CELLS = Path(pyosys.__file__).parent / "share" / "lattice"
Stimulus = Sequence[dict[str, int]]  # values of inputs by cycle; they keep what they had

BENCH = """`timescale 1ns/1ns
module bench;
  reg clk = 0;
  reg [{width}:0] all [0:{last}];
  reg [{width}:0] now;
  wire [{out}:0] result;
  integer i, file;
  top dut(.clk(clk), {ports});
  initial begin
    $readmemh("in.hex", all);
    file = $fopen("out.hex", "w");
    $dumpfile("nets.vcd");
    for (i = 0; i <= {last}; i = i + 1) begin
      now = all[i];
      if (i == {reset}) $dumpvars(0, dut);
      #1 $fwrite(file, "%h\\n", result);
      clk = 1;
      #1 clk = 0;
    end
    $fclose(file);
    $finish;
  end
endmodule
"""
RESET = 4  # cycles


def simulate(unit: Component, stimulus: Stimulus, work: Path) -> list[dict[str, int]]:
    """Synthesise ``unit`` for the ECP5 and run the netlist; outputs of every cycle. ``work`` then has ``nets.vcd``."""
    inputs, outputs = _ports(unit, Flow.In), _ports(unit, Flow.Out)
    (work / "top.il").write_text(rtlil.convert(unit, name="top"))
    _run([sys.executable, "-c", PYOSYS, SYNTHESIS], work)
    _write_bench(inputs, outputs, stimulus, work)
    _run(["verilator_bin", "--binary", "--timing", "--trace-vcd", "-Wno-fatal", "-Wno-lint", "-Wno-style",
          "--top-module", "bench", f"-I{CELLS}", "-O3", "-CFLAGS", "-std=c++20", "-MAKEFLAGS",
          "CFG_CXXFLAGS_PCH_I=-include", "bench.v", "top.v", str(CELLS / "cells_sim_ecp5.v")], work)
    _run([str(work / "obj_dir" / "Vbench")], work)
    rows = (int(line, 16) for line in (work / "out.hex").read_text().split()[RESET:])
    return [_split(row, outputs) for row in rows]


def _ports(unit: Component, flow: Flow) -> dict[str, int]:
    """Widths by name, in one order."""
    return {"__".join(map(str, path)): len(port) for path, member, port in unit.signature.flatten(unit)
            if member.flow == flow}


def _split(row: int, widths: dict[str, int]) -> dict[str, int]:
    found = {}
    for name, width in widths.items():
        found[name], row = row & (1 << width) - 1, row >> width
    return found


def _write_bench(inputs: dict[str, int], outputs: dict[str, int], stimulus: Stimulus, work: Path) -> None:
    lines, state = [], dict.fromkeys(inputs, 0)
    for cycle, change in enumerate([{}] * RESET + list(stimulus)):
        state |= change
        row, place = int(cycle < RESET), 1
        for name, width in inputs.items():
            row, place = row | (state[name] & (1 << width) - 1) << place, place + width
        lines.append(f"{row:x}")
    ports, place = [".rst(now[0])"], 1
    for name, width in inputs.items():
        ports.append(f".{name}(now[{place + width - 1}:{place}])")
        place += width
    total = 0
    for name, width in outputs.items():
        ports.append(f".{name}(result[{total + width - 1}:{total}])")
        total += width
    (work / "in.hex").write_text("\n".join(lines) + "\n")
    (work / "bench.v").write_text(BENCH.format(width=place - 1, last=len(lines) - 1, out=total - 1, reset=RESET,
                                               ports=", ".join(ports)))


def _run(command: list[str], work: Path) -> None:
    done = subprocess.run(command, cwd=work, env=toolchain(), capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr + done.stdout)[-2000:]
        raise RuntimeError(f"{command[0]} failed with exit code {done.returncode}: {said}")


def transitions(lines: Iterable[str]) -> int:
    """Changes of bits of the nets in scope ``dut`` of a VCD, but for its ``clk`` and the first values."""
    scopes: list[str] = []
    nets: set[str] = set()
    last: dict[str, int] = {}
    changed = 0
    for line in lines:
        if line[:1] in ("0", "1", "b"):
            value, _, code = line[1:].partition(" ") if line[0] == "b" else (line[0], "", line[1:])
            code, new = code.strip(), int(value, 2)
            if code in nets:
                changed += (new ^ last.get(code, new)).bit_count()
                last[code] = new
        elif found := re.match(r"\s*\$scope \w+ (\S+)", line):
            scopes.append(found[1])
        elif "$upscope" in line:
            scopes.pop()
        elif (found := re.match(r"\s*\$var \w+ +\d+ +(\S+) +(\S+)", line)) and scopes[-1] == "dut":
            nets |= {found[1]} if found[2] != "clk" else set()
    return changed
