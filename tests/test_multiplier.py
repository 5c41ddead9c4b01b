"""hw.multiplier: portable, of lookup tables and of the ECP5's cells: every pair of int8, back to back, to the cycle.

Yosys ships MULT18X18D as a black box, so the cell's behaviour is written down here, after its parameters: a register
whose _CLK is NONE is not there, all others take every rising edge while their _CE is 1.
"""

import gc
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pyosys
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Elaboratable, Fragment, Module, Signal, signed
from amaranth.sim import Simulator

from hw.boards import ecp5_multiplier, get_board
from hw.logic import register
from hw.multiplier import LATENCY, Multipliers
from shiftgrad.bitstream import PYOSYS

SEED = 18
COUNT = 16
CELLS = Path(pyosys.__file__).parent / "share" / "ecp5" / "cells_bb.v"


class Cell(Elaboratable):
    """MULT18X18D, with what :mod:`hw.boards.ecp5_multiplier` uses of it."""

    def __init__(self, kind: str, **connections: object) -> None:
        assert kind == "MULT18X18D"
        self.kind, self.connections = kind, connections

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        given = self.connections
        assert given["i_SIGNEDA"].value == given["i_SIGNEDB"].value == given["i_CE0"].value == 1
        assert given["i_SOURCEA"].value == given["i_SOURCEB"].value == given["i_RST0"].value == 0

        def stage(name: str, value: object) -> object:
            if given.get(f"p_REG_{name}_CLK", "NONE") == "NONE":
                return value
            assert [given[f"p_REG_{name}_{pin}"] for pin in ("CLK", "CE", "RST")] == ["CLK0", "CE0", "RST0"]
            return register(m, value, name)

        a, b = (stage(f"INPUT{name}", Cat(given[f"i_{name}{i}"] for i in range(18)).as_signed()) for name in "AB")
        product = stage("OUTPUT", stage("PIPELINE", a * b))
        m.d.comb += Cat(given[f"o_P{i}"] for i in range(36)).eq(product)
        return m


def pairs(rng, a_bits, b_bits):
    """Every pair of int8, otherwise corners and random ones, in random order."""
    if (a_bits, b_bits) == (8, 8):
        found = [(a, b) for a in range(-128, 128) for b in range(-128, 128)]
    else:
        corners = [[-1 << bits - 1, 1 - (1 << bits - 1), -1, 0, 1, (1 << bits - 1) - 1] for bits in (a_bits, b_bits)]
        found = [(a, b) for a in corners[0] for b in corners[1]]
        found += [tuple(rng.randrange(-1 << bits - 1, 1 << bits - 1) for bits in (a_bits, b_bits)) for _ in range(4000)]
    rng.shuffle(found)
    return found


def simulate(dut, platform=None):
    """Zeros first, then a pair a cycle for each multiplier."""
    print("seed", SEED)
    rng = random.Random(SEED)
    given = pairs(rng, dut.a_bits, dut.b_bits)
    rows = [given[i:i + dut.count] for i in range(0, len(given) // dut.count * dut.count, dut.count)]

    async def bench(ctx):
        for cycle in range(len(rows) + LATENCY):
            wanted = [a * b for a, b in rows[cycle - LATENCY]] if cycle >= LATENCY else [0] * dut.count
            assert [ctx.get(dut.p[i]) for i in range(dut.count)] == wanted, cycle
            for i, (a, b) in enumerate(rows[cycle] if cycle < len(rows) else [(0, 0)] * dut.count):
                ctx.set(dut.a[i], a)
                ctx.set(dut.b[i], b)
            await ctx.tick()

    simulator = Simulator(Fragment.get(dut, platform))
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


WIDTHS = pytest.mark.parametrize(("a_bits", "b_bits"), [(8, 8), (8, 16), (9, 8), (9, 16), (18, 18), (3, 17)])


@WIDTHS
@pytest.mark.parametrize("fabric", [False, True])
def test_portable(a_bits, b_bits, fabric):
    simulate(Multipliers(count=COUNT, a_bits=a_bits, b_bits=b_bits, fabric=fabric))


@WIDTHS
def test_ecp5(monkeypatch, a_bits, b_bits):
    monkeypatch.setattr(ecp5_multiplier, "Instance", Cell)
    simulate(Multipliers(count=COUNT, a_bits=a_bits, b_bits=b_bits), get_board("ulx3s_85f").platform())


def test_ecp5_names(monkeypatch):
    """Every port and parameter is one of the cell's."""
    text = CELLS.read_text().split("module MULT18X18D(")[1].split("endmodule")[0]
    known = {f"p_{name}" for name in re.findall(r"parameter (\w+)", text)}
    known |= {f"{kind[0]}_{name}" for kind, name in re.findall(r"(input|output) (\w+);", text)}
    used, m = {}, Module()
    monkeypatch.setattr(ecp5_multiplier, "Instance", lambda kind, **given: used.update(given) or Module())
    ecp5_multiplier.multiply(m, [Signal(signed(8))], [Signal(signed(8))])
    Fragment.get(m, None)  # an unused module is a warning
    assert len(known) > 200 and used and set(used) <= known


@pytest.mark.parametrize(("fabric", "cells"), [(False, 3), (True, 0)])
def test_ecp5_takes_nothing_but_its_cells(tmp_path, fabric, cells):
    """No register of the fabric beside the cells; with ``fabric`` no cell."""
    top, (a, b), p = Module(), (Signal(24, name="a"), Signal(24, name="b")), Signal(48, name="p")
    top.submodules.dut = dut = Multipliers(count=3, fabric=fabric)
    top.d.comb += [dut.a.eq(a), dut.b.eq(b), p.eq(dut.p)]
    platform = get_board("ulx3s_85f").platform()
    (tmp_path / "top.il").write_text(rtlil.convert(top, platform=platform, ports=[a, b, p], emit_src=False))
    script = "read_rtlil top.il; synth_ecp5 -top top; write_json top.json"
    subprocess.run([sys.executable, "-c", PYOSYS, script], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    netlist = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]
    kinds = [cell["type"] for cell in netlist["cells"].values()]
    assert kinds.count("MULT18X18D") == cells
    assert ("TRELLIS_FF" in kinds) == fabric


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("bits", [1, 19])
def test_errors_say_what_was_wanted(bits):
    with pytest.raises(ValueError, match=f"b_bits must be from 2 to 18, got {bits}"):
        Multipliers(count=1, b_bits=bits)
    gc.collect()  # what was refused is unused, here and not in a later test
