"""Boards and the way to a bitstream; place and route itself runs when SHIFTGRAD_PLACE is set (about a minute)."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.back import verilog

from hw.boards import board_names, get_board
from hw.boards.ecp5_pll import PLLSettings, pll_settings
from hw.boards.standin import StandIn
from hw.boards.top import simulated_board
from shiftgrad import bitstream, tool
from shiftgrad.bitstream import build
from shiftgrad.build_report import BitstreamError, read, table, to_json
from shiftgrad.config import get_config
from shiftgrad.estimate import resources
from shiftgrad.route_progress import PATIENCE

BOARD = replace(get_board("ulx3s_85f"), clock_hz=50_000_000, aim_hz=None)


def standin() -> StandIn:
    return StandIn(config=get_config(BOARD.config))


def routed(fmax: dict[str, tuple[float, float]]) -> str:
    """A place-and-route report: clock -> (reached, wanted) MHz."""
    cells = {"TRELLIS_COMB": 700, "TRELLIS_FF": 500, "MULT18X18D": 64, "DP16KD": 150}
    return json.dumps({
        "fmax": {name: {"achieved": got, "constraint": wanted} for name, (got, wanted) in fmax.items()},
        "utilization": {name: {"used": used, "available": 1000} for name, used in cells.items()},
    })


def placed() -> str:
    """Cells that add up to what :func:`routed` says is in use, all in one tile."""
    cells = {f"{unit}_{kind}_{i}": {"type": kind, "attributes": {"NEXTPNR_BEL": "X1/Y2/Z"}}
             for unit, kind, number in (("machine.core.array.a", "TRELLIS_COMB", 700), ("led", "TRELLIS_FF", 500),
                                        ("machine.link.b", "MULT18X18D", 64), ("machine.core.wgt.c", "DP16KD", 150))
             for i in range(number)}
    return json.dumps({"modules": {"top": {"cells": cells}}})


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Replace the tools; a seed reaches the frequency given for it, 0 fails."""
    reached: dict[int, float] = {}

    def run(self: bitstream.Flow, step: str, command: list[str]) -> None:
        if step.startswith("route"):
            seed = int(step.removeprefix("route-"))
            if not reached[seed]:
                raise BitstreamError(f"{step} failed")
            fmax = {"oscillator": (300.0, 25.0), "pll": (reached[seed], 50.0)}
            (self.work / f"{seed}.json").write_text(routed(fmax))
            (self.work / f"{seed}.placed.json").write_text(placed())
        if step == "synthesis":
            (self.work / "top.json").write_text(json.dumps({"modules": {"top": {"cells": {}}}}))
        if step == "pack":
            (self.work / "top.bit").write_bytes(command[-3].encode())

    monkeypatch.setattr(bitstream.Flow, "run_process", run)
    return reached


def test_boards() -> None:
    assert "ulx3s_85f" in board_names()
    for name in board_names():
        board = get_board(name)
        assert board.name == name
    for change in ({"clock_hz": 33_333_333}, {"baud": 7_000_000}, {"config": "none"}):
        with pytest.raises(ValueError, match="no PLL setting|clock cycles a bit|no configuration"):
            replace(BOARD, **change)
    with pytest.raises(ValueError, match="no board 'nexys'; there are: .*ulx3s_85f"):
        get_board("nexys")


DEVICES = {"LFE5U-25F": (28, 56), "LFE5U-85F": (156, 208), "LFE5UM5G-85F": (156, 208)}  # multipliers, block RAMs


@pytest.mark.parametrize("name", [name for name in board_names() if get_board(name).family == "ECP5"])
def test_every_board_has_its_pins_and_room_for_its_configuration(name: str, tmp_path: Path) -> None:
    board = get_board(name)
    flow = bitstream.Flow(board, StandIn(config=get_config(board.config)), tmp_path, tmp_path, print)
    flow.generate()
    pins = (tmp_path / "top.lpf").read_text()
    assert len(set(re.findall(r'SITE "(\w+)"', pins))) == 5 + len(board.drive_high), pins
    assert re.search(rf'FREQUENCY PORT "\w+" {board.oscillator_hz}(\.0)? HZ', pins)
    multipliers, blocks = DEVICES[flow.platform.device]
    wanted = resources(get_config(board.config))
    assert wanted.dsp <= multipliers and wanted.blocks <= blocks


def test_pll_settings() -> None:
    assert pll_settings(input_hz=25_000_000, output_hz=50_000_000) == PLLSettings(
        reference=1, feedback=2, output=12, vco_hz=600_000_000)
    for mhz in range(10, 201, 5):
        setting = pll_settings(input_hz=25_000_000, output_hz=mhz * 1_000_000)
        assert 25_000_000 * setting.feedback == mhz * 1_000_000 * setting.reference
        assert 400_000_000 <= setting.vco_hz <= 800_000_000
    with pytest.raises(ValueError, match="no PLL setting makes exactly 33333333 Hz from 25000000 Hz"):
        pll_settings(input_hz=25_000_000, output_hz=33_333_333)
    with pytest.raises(ValueError, match="from 10 to 400 MHz, got 25000000 and 500000000 Hz"):
        pll_settings(input_hz=25_000_000, output_hz=500_000_000)


def test_simulated_board_has_the_pins() -> None:
    machine = simulated_board(board=BOARD, core=standin())
    assert (machine.clock_hz, machine.baud) == (BOARD.clock_hz, BOARD.baud)
    text = verilog.convert(machine, name="board", emit_src=False, strip_internal_attrs=True)
    ports = re.search(r"module board\((.*?)\);", text)
    assert ports and set(ports[1].split(", ")) == {"clk", "rst", "rx", "tx", "busy", "error", "retired"}


def test_generated_files(tmp_path: Path) -> None:
    flow = bitstream.Flow(BOARD, standin(), tmp_path, tmp_path, print)
    assert flow.generate() == "StandIn"
    netlist, pins = (tmp_path / "top.il").read_text(), (tmp_path / "top.lpf").read_text()
    assert netlist.count("cell \\EHXPLLL") == 1
    assert re.search(r"parameter \\CLKFB_DIV (2|32'0*10)\b", netlist)
    for port, site in (("clk25_0__io", "G2"), ("uart_0__rx__io", "M1"), ("uart_0__tx__io", "L4"), ("led_0__io", "B2"),
                       ("led_1__io", "C2"), ("esp32_0__gpio0__io", "L2")):
        assert re.search(rf'LOCATE COMP "{port}(\[0\])?" SITE "{site}"', pins), f"{port} in {pins}"
    assert len(re.findall("LOCATE", pins)) == 6
    assert re.search(r'FREQUENCY PORT "clk25_0__io" 25000000(\.0)? HZ', pins)


def test_the_heap_placer_works_towards_more_than_the_clock(tmp_path: Path) -> None:
    flow = bitstream.Flow(replace(BOARD, aim_hz=125_000_000), standin(), tmp_path, tmp_path, print)
    flow.generate()
    assert 'FREQUENCY NET "clk" 125000000 HZ;' in (tmp_path / "top.lpf").read_text().splitlines()
    assert flow.options == bitstream.HEAP
    flow = bitstream.Flow(BOARD, standin(), tmp_path, tmp_path, print)
    flow.generate()
    assert "NET" not in (tmp_path / "top.lpf").read_text()
    assert flow.options == bitstream.STATIC


def test_first_seed_that_meets_timing(tmp_path: Path, tools: dict[int, float]) -> None:
    tools |= {1: 49.99, 2: 61.0, 3: 70.0}
    lines: list[str] = []
    report = build(BOARD, tmp_path, core=standin(), seeds=(1, 2, 3), progress=lines.append)
    assert (report.seed, report.fmax_mhz, report.met) == (2, 61.0, True)
    assert report.seeds == {1: 49.99, 2: 61.0}
    assert (report.lut, report.ff, report.dsp, report.bram) == (700, 500, 64, 150)
    assert (tmp_path / "ulx3s_85f.bit").read_text() == "2.config"
    assert (tmp_path / "report.json").read_text() == to_json(report)
    assert (tmp_path / "report.txt").read_text() == table(report)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "area.json", "area.md", "area.png", "cells.csv.gz", "logs", "report.json", "report.txt", "ulx3s_85f.bit"]
    assert read(tmp_path / "report.json") == report
    with pytest.raises(BitstreamError, match="wanted a build's report.json, got"):
        read(tmp_path / "area.json")
    assert any("seed 1: 49.99 MHz, wanted 50.00 MHz" in line for line in lines)


def test_best_of_all_seeds(tmp_path: Path, tools: dict[int, float]) -> None:
    tools |= {1: 61.0, 2: 80.0, 3: 70.0}
    report = build(BOARD, tmp_path, core=standin(), seeds=(1, 2, 3), best=True, progress=lambda _: None)
    assert (report.seed, report.seeds) == (2, {1: 61.0, 2: 80.0, 3: 70.0})


def test_a_seed_that_cannot_be_routed_is_passed_over(tmp_path: Path, tools: dict[int, float]) -> None:
    tools |= {1: 0, 2: 61.0}
    lines: list[str] = []
    report = build(BOARD, tmp_path, core=standin(), seeds=(1, 2), progress=lines.append)
    assert (report.seed, report.seeds) == (2, {2: 61.0})
    assert any("seed 1: route-1 failed" in line for line in lines)


def test_failures_leave_older_outputs(tmp_path: Path, tools: dict[int, float]) -> None:
    tools |= {1: 60.0, 2: 30.0, 3: 40.0, 4: 0}
    build(BOARD, tmp_path, core=standin(), progress=lambda _: None)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(BitstreamError, match="wanted 50.00 MHz, got 40.00 MHz at best with seeds") as caught:
        build(BOARD, tmp_path, core=standin(), seeds=(2, 3), progress=lambda _: None)
    assert caught.value.report is not None and not caught.value.report.met
    assert "NOT MET" in table(caught.value.report)
    with pytest.raises(BitstreamError, match="route-4 failed"):
        build(BOARD, tmp_path, core=standin(), seeds=(4,), progress=lambda _: None)
    with pytest.raises(BitstreamError, match="wanted a clock constrained to 75.00 MHz, got .*50.0"):
        build(replace(BOARD, clock_hz=75_000_000), tmp_path, core=standin(), progress=lambda _: None)
    with pytest.raises(ValueError, match="at least one seed"):
        build(BOARD, tmp_path, seeds=())
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_failing_tool_names_its_log(tmp_path: Path) -> None:
    flow = bitstream.Flow(BOARD, None, tmp_path, tmp_path, print)
    (tmp_path / "logs").mkdir()
    (tmp_path / "top.il").write_text("nothing\n")
    with pytest.raises(BitstreamError, match=r"synthesis failed with exit code \d+: .*line 1.* \(see .*\.log\)"):
        flow.synthesise()
    assert flow.seconds["synthesis"] > 0, "how long it took counts all the same"


def test_units_are_mapped_on_their_own(tmp_path: Path) -> None:
    flow = bitstream.Flow(BOARD, None, tmp_path, tmp_path, print)
    names = ("top", "top.machine", "top.machine.core", "top.machine.core.act", "top.machine.core.loss$3",
             "top.machine.core.array.pe0", "top.machine.core.post.lane0", "top.machine.core.post.lane0.value",
             "top.machine.link", "top.machine.link.parser")
    (tmp_path / "top.il").write_text("".join(f"attribute \\top 1\nmodule \\{name}\nend\n" for name in names))
    kept = [flow.script.split(f"{step} keep_hierarchy ")[1].split(";")[0] for step in ("-set", "-unset")]
    units = ["top.machine.core", "top.machine.core.act", "top.machine.core.loss$3", "top.machine.core.post.lane0",
             "top.machine.link"]
    assert kept == [" ".join(["1", *units]), " ".join(units)]
    (tmp_path / "top.il").write_text("module \\top\nend\n")
    assert "keep_hierarchy" not in flow.script and "flatten" not in flow.script


@pytest.mark.skipif(not os.environ.get("SHIFTGRAD_PLACE"), reason="SHIFTGRAD_PLACE is not set")
def test_real_bitstream(tmp_path: Path) -> None:
    report = build(BOARD, tmp_path, core=standin())
    print(table(report))
    assert report.met and 100 < report.lut < 2000 and report.bram < 10
    assert (tmp_path / "ulx3s_85f.bit").stat().st_size > 100_000


def test_a_router_that_gets_nowhere_is_stopped(tmp_path: Path) -> None:
    flow = bitstream.Flow(BOARD, None, tmp_path, tmp_path, lambda _: None)
    (tmp_path / "logs").mkdir()
    lines = "".join(f"Info: {1000 * i:10} |  22  77 |  22   77 |  700|  2.69  2.69|\n" for i in range(1, 200))
    (tmp_path / "lines").write_text(lines)
    stopped = f"route-1 stopped: 700 arcs left at best after {PATIENCE + 1000} iterations"
    with pytest.raises(BitstreamError, match=stopped):
        flow.run_process("route-1", [sys.executable, "-c", "import time; print(open('lines').read(), flush=True); "
                                                           "time.sleep(600)"])


def test_a_placer_that_gets_nowhere_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "SILENCE", 3)
    flow = bitstream.Flow(BOARD, None, tmp_path, tmp_path, lambda _: None)
    (tmp_path / "logs").mkdir()
    quiet = "import time; print('Info: Strict legalising 9 cells...', flush=True); time.sleep(600)"
    stopped = "route-1 stopped: nothing for 3 s after 'Info: Strict legalising 9 cells"
    with pytest.raises(BitstreamError, match=stopped) as failed:
        flow.run_process("route-1", [sys.executable, "-c", quiet])
    assert not failed.value.killed  # so the next seed is tried
    flow.run_process("synthesis", [sys.executable, "-c", "import time; time.sleep(4)"])  # Yosys is quiet at times
