"""Timing of units alone: the wrapping and the report; no tool runs."""

import gc
import warnings

import pytest
from amaranth.back.rtlil import convert
from amaranth.hdl import Module, UnusedElaboratable
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator

from shiftgrad.config import get_config
from shiftgrad.unit_timing import CONFIG, Wrapped, measure, read_report, table, units


class Adder(Component):
    x: In(4)
    y: In(3)
    sum: Out(5)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.sum.eq(self.x + self.y)
        return m


def wrapped() -> Wrapped:
    top = Wrapped(Adder())
    convert(top, ports=[top.clk, top.i, top.o])
    return top


def test_chain() -> None:
    """Seven bits in, four and three; the sum comes out of the chain, its highest bit first."""
    top, x, y = Wrapped(Adder()), 0b1011, 0b101
    m = Module()
    m.submodules.top = top
    seen = []

    async def bench(ctx) -> None:  # noqa: ANN001
        for bit in reversed([x >> i & 1 for i in range(4)] + [y >> i & 1 for i in range(3)]):
            ctx.set(top.i, bit)
            ctx.set(top.clk, 0)
            await ctx.delay(1e-6)
            ctx.set(top.clk, 1)
            await ctx.delay(1e-6)
        ctx.set(top.i, 0)
        assert (ctx.get(top.unit.x), ctx.get(top.unit.y)) == (x, y)
        assert ctx.get(top.unit.sum) == x + y
        for _ in range(12):
            ctx.set(top.clk, 0)
            await ctx.delay(1e-6)
            ctx.set(top.clk, 1)
            await ctx.delay(1e-6)
            seen.append(ctx.get(top.o))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert (top.inputs, top.outputs) == (7, 5)
    assert any(seen)  # what the unit says reaches the pin


def test_report() -> None:
    step = {"type": "logic", "delay": 0.25, "from": {"cell": "a"}, "to": {"cell": "sum_TRELLIS_FF_Q_3"}}
    route = {"type": "routing", "delay": 1.5, "net": "sum_LUT4_Z_2_A[3]", "from": {"cell": "a"}, "to": {"cell": "b"}}
    report = {
        "fmax": {"clk": {"achieved": 123.45, "constraint": 160.0}},
        "utilization": {"TRELLIS_COMB": {"used": 105}, "TRELLIS_FF": {"used": 117}, "DP16KD": {"used": 2}},
        "critical_paths": [
            {"from": "<async>", "to": "posedge clk", "path": [{**step, "delay": 99.0}]},
            {"from": "posedge clk", "to": "posedge clk", "path": [step, route]},
        ],
    }
    timing = read_report("adder", 8, report, wrapped())
    assert (timing.fmax_mhz, timing.lut, timing.ff, timing.dsp, timing.bram) == (123.5, 100, 100, 0, 2)
    assert timing.path == [("logic", 0.25, "sum ..TRELLIS_FF"), ("routing", 1.5, "sum[3] ..LUT4")]
    assert table([timing]).splitlines()[1].split() == ["adder", "123.5", "100", "100", "0", "2"]


def test_units() -> None:
    config = get_config(CONFIG)
    with warnings.catch_warnings(action="ignore", category=UnusedElaboratable):
        for name, make in units(config).items():
            assert isinstance(make(), Component), name
        gc.collect()
    with pytest.raises(ValueError, match="no unit 'adder'; there are: array,"):
        measure("adder", config)
