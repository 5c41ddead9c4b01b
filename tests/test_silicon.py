"""Builds of the matrix kept and taken up, their summary, and the speeds beside them; no tool runs."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth_boards.ulx3s import ULX3S_25F_Platform
from click.testing import CliRunner

from hw.boards import board_names, output_registers
from shiftgrad import bench, bench_silicon, bitstream, silicon, silicon_speed
from shiftgrad.build_report import BitstreamError
from shiftgrad.cli import main
from shiftgrad.config import CONFIGS, get_config
from shiftgrad.estimate import resources
from shiftgrad.models import mlp
from shiftgrad.silicon import MATRIX, Build

USED = {"TRELLIS_COMB": 700, "TRELLIS_FF": 500, "MULT18X18D": 26, "DP16KD": 54,
        "ICESTORM_LC": 900, "ICESTORM_DSP": 8, "ICESTORM_RAM": 30}
SMALL = "ulx3s_25f-ulx3s_25f_4x4"
PICTURE = b"\x89PNG of a placed design"


class Faster(ULX3S_25F_Platform):
    """Another speed grade."""

    speed = "8"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace RTL and tools: ``design`` is the netlist, ``mhz`` what a seed reaches (0 fails), ``runs`` what ran."""
    state: dict[str, Any] = {"design": "one", "mhz": {1: 60.0, 2: 50.0, 3: 70.0}, "runs": []}

    def generate(self: bitstream.Flow) -> str:
        (self.work / "top.il").write_text(f"{state['design']} {self.board.config}")
        (self.work / self.CONSTRAINTS).write_text(self.board.name)
        return "Core"

    def run(self: bitstream.Flow, step: str, command: list[str]) -> None:
        state["runs"].append((self.board.name, step))
        self.seconds[step] = 30.0
        if step == "synthesis":
            (self.work / "top.json").write_text(json.dumps({"modules": {"top": {"cells": {}}}}))
        if step.startswith("route"):
            seed = int(step.removeprefix("route-"))
            if not state["mhz"][seed]:
                raise BitstreamError("route failed with exit code 1: no room (see x.log)")
            wanted = (self.board.aim_hz or self.board.clock_hz) / 1e6
            (self.work / f"{seed}.json").write_text(json.dumps({
                "fmax": {"pll": {"achieved": state["mhz"][seed], "constraint": wanted}},
                "utilization": {name: {"used": used, "available": 1000} for name, used in USED.items()}}))

    monkeypatch.setattr(bitstream.Flow, "generate", generate)
    monkeypatch.setattr(bitstream.Flow, "run_process", run)
    monkeypatch.setattr(bitstream.Flow, "area", lambda self, report: (self.work / "area.png").write_bytes(PICTURE))
    return state


def test_the_matrix_is_of_boards_and_configurations_that_fit() -> None:
    for board, config in MATRIX:
        assert board in board_names() and config in CONFIGS
        assert get_config(config).dense or resources(get_config(config)).dsp <= (28 if "25f" in board else 156)
    assert len(silicon.builds((1, 2, 3))) == 3 * len(MATRIX)
    assert [build.seed for build in silicon.builds((1, 2), "evn")] == [1, 2]
    for pair in ("ulx3s_85f-ulx3s_85f_8x8", "ulx3s_85f-ulx3s_85f_8x8_unsigned"):
        assert [build.pair for build in silicon.builds((1,), pair)] == [pair], "though one name begins with the other"


def test_finished_builds_are_kept_and_a_new_design_is_built_again(tmp_path: Path, tools: dict[str, Any]) -> None:
    lines: list[str] = []
    wanted = silicon.builds((1, 2), SMALL)
    silicon.run(wanted[:1], tmp_path, progress=lines.append)
    assert [step for _, step in tools["runs"]] == ["synthesis", "route-1"]
    silicon.run(wanted, tmp_path, progress=lines.append)
    assert [step for _, step in tools["runs"]][2:] == ["route-2"]  # of the same netlist
    assert f"{SMALL}, seed 1: done before" in lines
    assert any(f"{SMALL}, seed 2: build 2 of 2, about 1 min left" in line for line in lines)
    assert [r["fmax_mhz"] for r in silicon.read(tmp_path)] == [60.0, 50.0]

    tools["design"] = "two"
    for path in tmp_path.glob("*.json"):
        os.utime(path, (1, 1))
    silicon.run(wanted[:1], tmp_path, progress=lines.append)
    assert [(r["seed"], r["fmax_mhz"]) for r in silicon.read(tmp_path)] == [(1, 60.0)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".build")]


def test_what_else_a_result_depends_on(tmp_path: Path, tools: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """How a board is placed, on which device, and what is done to its netlist; nothing is taken from before."""
    changed = tmp_path / "output_registers.py"
    changed.write_text("# another rule\n")
    board, original = silicon._board, output_registers.__file__
    for change in (
        lambda: monkeypatch.setattr(silicon, "_board", lambda build: replace(board(build), aim_hz=80_000_000)),
        lambda: monkeypatch.setattr(silicon, "_board", lambda build: replace(board(build), platform=Faster)),
        lambda: monkeypatch.setattr(output_registers, "__file__", str(changed)),
    ):
        before = len(tools["runs"])
        monkeypatch.setattr(silicon, "_board", board)
        monkeypatch.setattr(output_registers, "__file__", original)
        silicon.run(silicon.builds((1,), SMALL), tmp_path, progress=lambda _: None)
        between = len(tools["runs"])
        change()
        silicon.run(silicon.builds((1,), SMALL), tmp_path, progress=lambda _: None)
        assert [step for _, step in tools["runs"][between:]] == ["synthesis", "route-1"]
        assert between == before + 2 * (before == 0), "wanted the first design's result kept"


def test_an_earlier_design_built_before_is_the_one_that_counts(tmp_path: Path, tools: dict[str, Any]) -> None:
    wanted = silicon.builds((1,), SMALL)
    for design, mhz in (("one", 60.0), ("two", 40.0), ("one", 40.0)):
        tools["design"], tools["mhz"] = design, {1: mhz}
        silicon.run(wanted, tmp_path, progress=lambda _: None)
        for path in tmp_path.glob("*.json"):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert len(tools["runs"]) == 4
    assert [r["fmax_mhz"] for r in silicon.read(tmp_path)] == [60.0]


def test_hours_stop_before_the_next_build(tmp_path: Path, tools: dict[str, Any]) -> None:
    lines: list[str] = []
    silicon.run(silicon.builds((1,)), tmp_path, hours=0, progress=lines.append)
    assert not tools["runs"] and "run again to go on" in lines[-1]


def test_what_cannot_be_routed_is_a_result(tmp_path: Path, tools: dict[str, Any]) -> None:
    tools["mhz"] |= {2: 0}
    silicon.run(silicon.builds((1, 2, 3), SMALL), tmp_path, progress=lambda _: None)
    (entry,) = silicon.summary(silicon.read(tmp_path))
    assert (entry["routed"], entry["seeds"]) == (2, [1, 2, 3])
    assert entry["fmax_mhz"] == {"least": 60.0, "most": 70.0, "median": 65.0}
    assert entry["lut"] == 700 and "no room" in entry["errors"][0]


def test_a_tool_that_was_killed_is_no_result(tmp_path: Path, tools: dict[str, Any],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: bitstream.Flow, step: str, command: list[str]) -> None:
        raise BitstreamError(f"{step} failed with exit code -9: Killed", killed=True)

    monkeypatch.setattr(bitstream.Flow, "run_process", killed)
    with pytest.raises(BitstreamError, match="exit code -9"):
        silicon.run(silicon.builds((1,), SMALL), tmp_path, progress=lambda _: None)
    assert not silicon.read(tmp_path)


def test_machine_speed() -> None:
    small, large = mlp(64, (48,), 10), mlp(784, (128,), 10)
    found = silicon_speed.machine("ulx3s_25f_4x4", small, 16, 50.0, 1_000_000)
    assert found["images_a_second"] == pytest.approx(50e6 * 16 / found["cycles"])
    assert found["link_images_a_second"] == pytest.approx(100_000 / 66)  # a label takes a lane of 2 bytes
    convolution = silicon_speed.machine("ulx3s_85f_8x8", *silicon_speed.WORKLOADS[-1], 50.0, 1_000_000)
    assert convolution["link_images_a_second"] == pytest.approx(100_000 / (64 * 2 * 8 + 4))  # 9 channels, 2 words of 8
    assert silicon_speed.machine("ulx3s_25f_4x4", large, 32, 50.0, 1_000_000) == {"reason": "does not fit"}
    assert "no cycle model" in silicon_speed.machine("up5k_4x4", small, 16, 30.0, 1_000_000)["reason"]
    for network, batch in silicon_speed.WORKLOADS:
        assert silicon_speed.machine("ulx3s_85f_8x8", network, batch, 50.0, 1_000_000)["cycles"]


def test_torch_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(silicon_speed, "WINDOW", 0.05)
    before = torch.get_num_threads()
    found = silicon_speed.torch_rate(mlp(64, (48,), 10), 16, 1)
    assert found and found["threads"] == 1 and found["images_a_second"] == max(found["windows"]) > 100
    assert len(found["windows"]) == silicon_speed.WINDOWS and torch.get_num_threads() == before


def test_the_benchmark_has_what_was_built(tmp_path: Path, tools: dict[str, Any],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_silicon.silicon_speed, "torch_rate", lambda *_: None)
    builds, out = tmp_path / "builds", tmp_path / "bench"
    tools["mhz"] |= {1: 0}
    silicon.run(silicon.builds((1,), SMALL), builds, progress=lambda _: None)
    tools["mhz"] |= {1: 62.5}
    silicon.run([Build(board="ulx3s_85f", config="ulx3s_85f_8x8", seed=1)], builds, progress=lambda _: None)
    arguments = ("bench", "--part", "silicon", "--builds", str(builds), "--out", str(out))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "ulx3s_85f, ulx3s_85f_8x8: 62.5 MHz, median of 1 seeds; 700 LUT, 500 FF, 26 DSP, 54 BRAM" in result.output
    text = (out / "bench.md").read_text()
    assert "not routed: route failed with exit code 1: no room |" in text
    assert "| 62.5 (62.5 to 62.5) | 700 (70 %) | 500 (50 %) |" in text
    for name in ("clocks.svg", "rates.svg", "placed-ulx3s_85f-ulx3s_85f_8x8.png"):
        assert f"({name})" in text and (out / name).exists()
    assert (out / "placed-ulx3s_85f-ulx3s_85f_8x8.png").read_bytes() == PICTURE
    found = json.loads((out / "bench.json").read_text())["silicon"]
    assert found["networks"][2]["machines"]["ulx3s_85f-ulx3s_85f_8x8"]["mhz"] == 62.5


def test_the_benchmark_has_a_board_without_a_count_of_registers(tmp_path: Path, tools: dict[str, Any]) -> None:
    """An iCE40's logic cell is a LUT, a flip-flop or both: how many flip-flops it has is not said."""
    silicon.run(silicon.builds((1,), "icebreaker"), tmp_path, progress=lambda _: None)
    (pair,) = silicon.summary(silicon.read(tmp_path))
    found = {"pairs": [pair], "networks": [], "processor": {"name": "none", "cores": 1, "load": 0.0}}
    assert "| 900 (90 %) | 0 | 8 (1 %) | 30 (3 %) |" in bench_silicon.markdown(found)
    assert "icebreaker, up5k_4x4: 60.0 MHz" in bench_silicon.summary(found)[0]


def test_a_benchmark_without_builds_says_how_to_make_them(tmp_path: Path) -> None:
    found = bench.run(tmp_path, ("silicon",), bench.Settings(progress=lambda _: None, builds=tmp_path / "none"))
    assert found["silicon"]["pairs"] == []
    assert "`make silicon`" in (tmp_path / "bench.md").read_text()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"board": 1}'])
def test_a_damaged_result_is_named(tmp_path: Path, tools: dict[str, Any], text: str) -> None:
    silicon.run(silicon.builds((1,), SMALL), tmp_path, progress=lambda _: None)
    (path,) = tmp_path.glob("*-seed1.json")
    path.write_text(text)
    for command in (("silicon", "--seeds", "1", "--only", SMALL, "--out", str(tmp_path), "--json"),
                    ("bench", "--part", "silicon", "--builds", str(tmp_path), "--out", str(tmp_path / "bench"))):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1 and f"{path}: wanted a build's result, got" in result.output


def test_the_command_prints_an_object(tmp_path: Path, tools: dict[str, Any]) -> None:
    result = CliRunner().invoke(main, ("silicon", "--seeds", "1", "--only", SMALL, "--out", str(tmp_path), "--json"))
    assert result.exit_code == 0
    assert [pair["fmax_mhz"]["median"] for pair in json.loads(result.stdout)["pairs"]] == [tools["mhz"][1]]
    result = CliRunner().invoke(main, ("silicon", "--hours", "nan", "--out", str(tmp_path)))
    assert result.exit_code == 2 and "--hours: wanted a number, got nan" in result.output


def test_builds_that_do_not_exist() -> None:
    result = CliRunner().invoke(main, ("silicon", "--only", "zynq"))
    assert result.exit_code == 2 and "wanted at least one build, got none" in result.output
