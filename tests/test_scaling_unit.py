"""The comparison of batch normalisation with shifts: its sums and its report; no tool runs."""

import json
from pathlib import Path

import pytest
from amaranth.hdl import Module, Value
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator

from experiments.batchnorm import activity, compare, report, stimuli
from experiments.batchnorm.unit import BatchNorm
from shiftgrad.unit_timing import Timing

SIZES = {"shift": (160, 600, 400), "lane": (170, 1200, 800), "batchnorm": (120, 3000, 2400), "adder": (140, 600, 400),
         "multiplier": (130, 270, 430)}


def measured() -> dict[str, list[Timing]]:
    return {name: [Timing(unit=name, size=1, fmax_mhz=mhz + seed, lut=lut, ff=ff, dsp=8 * (name == "batchnorm"), bram=0)
                   for seed in (0, -5)] for name, (mhz, lut, ff) in SIZES.items()}


def test_cycles() -> None:
    scalars = BatchNorm.scalar_cycles(backward=False)
    assert compare.cycles("batchnorm", 1) == 1 + scalars + BatchNorm.FORWARD_LATENCY
    assert compare.cycles("batchnorm", 1000) - compare.cycles("batchnorm", 1) == 2 * 999
    assert compare.cycles("shift", 1000) - compare.cycles("shift", 1) == 999
    assert compare.cycles("shift", 1000, own_range=True) > 2000 + compare.shift_latencies()[0]
    assert compare.cycles("batchnorm", 8, backward=True) < compare.cycles("batchnorm", 8)  # no square root


def test_energy_by_the_table() -> None:
    assert compare.energy("batchnorm", memory=False) == pytest.approx(3 * 3.7 + 4 * 0.9)
    assert compare.energy("shift", memory=False) == pytest.approx(0.43)
    assert compare.energy("batchnorm", memory=True) - compare.energy("batchnorm", memory=False) == pytest.approx(20)
    assert compare.energy("shift", memory=True) - compare.energy("shift", memory=False) == pytest.approx(1.25)


def test_changes_of_a_vcd() -> None:
    """Bits that change after their first value; not the clock's, nor those inside a cell."""
    vcd = """$scope module bench $end
 $var wire 1 % i $end
 $scope module dut $end
  $var wire 1 ! clk $end
  $var wire 1 # n1_ $end
  $var wire 4 $ x [3:0] $end
  $scope module n0_ $end
   $var wire 1 # Q $end
   $var wire 1 & muxce $end
  $upscope $end
 $upscope $end
$upscope $end
$enddefinitions $end
#0
0!
1#
0&
0%
b0101 $
#1
1&
1%
1!
0#
b1001 $
#2
0!
1#
"""
    assert activity.transitions(vcd.splitlines(keepends=True)) == 1 + 2 + 1


@pytest.mark.parametrize("name", ["shift", "batchnorm"])
def test_the_netlists_get_what_the_units_need(name: str) -> None:
    """The same inputs give the units themselves the results that are wanted of their netlists."""
    unit, inputs, wanted = getattr(stimuli, name)(20)
    rows = []

    async def bench(ctx) -> None:  # noqa: ANN001
        for change in inputs:
            for port, value in change.items():
                ctx.set(getattr(unit, port), value)
            rows.append({port: ctx.get(Value.cast(getattr(unit, port))) for port in ("q", "y", "y_valid")
                         if hasattr(unit, port)})
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    got = [word & 0xFF if name == "shift" else word for word in stimuli.results(name, inputs, rows)]
    assert len(wanted) == 20 and got == wanted


def test_ratios_and_report(tmp_path: Path) -> None:
    found = compare.figures(measured(), (0, -5), {"shift": 1000.0, "batchnorm": 15000.0})
    assert found["units"]["shift"]["fmax_mhz"] == 160 and found["units"]["shift"]["all_fmax_mhz"] == [160, 155]
    ratios = found["ratios"]
    assert ratios["lut"] == 5 and ratios["clock"] == pytest.approx(4 / 3)
    assert ratios["speed"] == pytest.approx(8 / 3, rel=0.01)  # two passes at three quarters of the clock
    assert ratios["speed_smallest_tensor"] > ratios["speed"] > ratios["speed_own_range"]
    assert ratios["speed_per_lut"] == pytest.approx(5 * ratios["speed"])
    assert ratios["energy_by_cells"] == pytest.approx(2 * 5400 / 1000, rel=0.01)
    assert ratios["energy_by_changes"] == 15
    paths = report.write(found, tmp_path)
    assert [path.name for path in paths] == ["scaling-unit.json", "scaling-unit.md", "scaling-unit.png"]
    assert json.loads(paths[0].read_text())["ratios"] == ratios
    text = paths[1].read_text()
    assert "| elements a second, one unit, largest tensor | 2.7 | > 18 |" in text
    assert "| energy an element, arithmetic | 34.2 | > 70 |" in text
    assert "| 14.70 | 0.43 |" in text and paths[2].read_bytes().startswith(b"\x89PNG")


class Held(Component):
    """A register."""

    def __init__(self) -> None:
        super().__init__({"x": In(4), "q": Out(4)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.d.sync += self.q.eq(self.x)
        return m


def test_a_netlist_runs_and_its_changes_are_counted(tmp_path: Path) -> None:
    rows = activity.simulate(Held(), [{"x": 5}, {}, {"x": 10}, {}, {}], tmp_path)
    assert [row["q"] for row in rows] == [0, 5, 5, 10, 10]
    with (tmp_path / "nets.vcd").open() as lines:
        assert activity.transitions(lines) == 4 + 2 + 4  # x from 5 to 10; q from 0 to 5 to 10
