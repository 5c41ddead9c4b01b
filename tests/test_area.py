"""Cells of a placed design by unit."""

import gzip
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shiftgrad import area
from shiftgrad.area import AreaError, Cell
from shiftgrad.build_report import Report, to_json
from shiftgrad.cli import main

SCOPES = ("machine", "machine.core", "machine.core.post", "machine.core.post.lane0", "machine.core.post.lane1",
          "machine.core.post.lane1.scale", "machine.core.loss$290", "machine.core.array", "machine.core.array.pe_0_1",
          "machine.link", "machine.link.parser", "pll")
CELLS = {
    "machine.core.post.lane0.q_LUT4_Z": ("TRELLIS_COMB", "X3/Y4/SLICEA.LUT0"),
    "machine.core.post.lane1.scale.y_CCU2C_S0$ccu2_comb0$": ("TRELLIS_COMB", "X3/Y4/SLICEA.LUT1"),
    "machine.core.post.lane1.scale.y_TRELLIS_FF_Q_3": ("TRELLIS_FF", "X3/Y4/SLICEA.FF0"),
    "machine.core.post.lanes_TRELLIS_FF_Q": ("TRELLIS_FF", "X3/Y5/SLICEA.FF0"),
    "machine.core.loss$290.d_LUT4_Z": ("TRELLIS_COMB", "X9/Y5/SLICEA.LUT0"),
    "machine.core.array.pe_0_1.p_MULT18X18D_P1": ("MULT18X18D", "X7/Y9/MULT18_0"),
    "machine.core.operation_LUT4_Z": ("TRELLIS_COMB", "X9/Y5/SLICEA.LUT1"),
    "machine.link.parser.crc.0.0": ("DP16KD", "X4/Y46/EBR0"),
    "$PACKER_VCC": ("TRELLIS_COMB", "X0/Y1/SLICEA.LUT1"),
    "pll.pll": ("EHXPLLL", "X0/Y0/EHXPLL_UL"),
}


def placed(**more: tuple[str, str]) -> dict[str, Any]:
    cells = {name: {"type": kind, "attributes": {"NEXTPNR_BEL": bel}} for name, (kind, bel) in (CELLS | more).items()}
    return {"modules": {"top": {"cells": cells}}}


def test_scopes_are_the_instances_of_the_netlist() -> None:
    cells = {name: {"type": "$scopeinfo"} for name in SCOPES} | {"machine.core.x": {"type": "LUT4"}}
    assert area.scopes_of({"modules": {"top": {"cells": cells}}}) == set(SCOPES)


def test_every_cell_has_one_unit_and_the_sums_are_the_design() -> None:
    cells = area.cells_of(placed(), SCOPES)
    assert len(cells) == 9  # all but the PLL
    assert Cell(scope=("machine", "core", "post", "lane1", "scale"), kind="ff", x=3, y=4) in cells
    found = area.count(cells, "title", {"lut": 5, "ff": 2, "dsp": 1, "bram": 1})
    assert found.units == {
        "post": {"lut": 2, "ff": 2, "dsp": 0, "bram": 0}, "board": {"lut": 1, "ff": 0, "dsp": 0, "bram": 0},
        "core": {"lut": 1, "ff": 0, "dsp": 0, "bram": 0}, "loss": {"lut": 1, "ff": 0, "dsp": 0, "bram": 0},
        "array": {"lut": 0, "ff": 0, "dsp": 1, "bram": 0}, "link": {"lut": 0, "ff": 0, "dsp": 0, "bram": 1},
    }
    luts = {part: counts["lut"] for part, counts in found.parts["post"].items()}
    assert luts == {"": 0, "lane*": 1, "lane*.scale": 1}
    assert list(found.parts["array"]) == ["pe_*"] and list(found.parts["link"]) == ["parser"]
    for unit, parts in found.parts.items():
        for kind, number in found.units[unit].items():
            assert sum(counts[kind] for counts in parts.values()) == number


def test_the_ends_of_a_carry_chain_are_its_units() -> None:
    design = placed(**{name: ("TRELLIS_COMB", "X1/Y1/SLICEA.LUT0") for name in (
        "machine.core.array.pe_0_1.sum_CCU2C_S0", "$nextpnr_CCU2C_1$CCU2_COMB0", "$nextpnr_CCU2C_1$CCU2_COMB1",
        "$nextpnr_CCU2C_2$CCU2_COMB0")})
    for name, carry in (("machine.core.array.pe_0_1.sum_CCU2C_S0", {"FCI": [5], "FCO": []}),
                        ("$nextpnr_CCU2C_1$CCU2_COMB0", {"FCI": [], "FCO": [4]}),
                        ("$nextpnr_CCU2C_1$CCU2_COMB1", {"FCI": [4], "FCO": [5]}),
                        ("$nextpnr_CCU2C_2$CCU2_COMB0", {"FCI": [6], "A": [5]})):
        design["modules"]["top"]["cells"][name]["connections"] = carry
    found = area.count(area.cells_of(design, SCOPES), "title")
    assert found.units["array"]["lut"] == 3 and found.units["board"]["lut"] == 1 + 1


def test_cells_that_do_not_add_up_or_have_no_place_are_errors() -> None:
    cells = area.cells_of(placed(), SCOPES)
    with pytest.raises(AreaError, match=r"wanted cells that add up to .*'lut': 6.*, got .*'lut': 5"):
        area.count(cells, "title", {"lut": 6, "ff": 2, "dsp": 1, "bram": 1})
    with pytest.raises(AreaError, match="lost: wanted a place such as X4/Y25/EBR0"):
        area.cells_of(placed(lost=("TRELLIS_FF", "")), SCOPES)


def test_cells_survive_their_file(tmp_path: Path) -> None:
    cells = area.cells_of(placed(), SCOPES)
    assert area.load(area.save(tmp_path / "cells.csv.gz", cells)) == cells
    for name, text in (("none", None), ("wrong", b"no gzip")):
        if text:
            (tmp_path / name).write_bytes(text)
        with pytest.raises(AreaError, match="wanted the cells of a placed design, as make bitstream writes them"):
            area.load(tmp_path / name)


def test_command(tmp_path: Path) -> None:
    cells = area.cells_of(placed(), SCOPES)
    area.save(tmp_path / "cells.csv.gz", cells)
    report = Report(board="icepi_zero", config="c", design="Core", device="d", clock_mhz=50, fmax_mhz=60.5, met=True,
                    seed=2, lut=5, ff=2, dsp=1, bram=1, available={}, seeds={}, tools={})
    (tmp_path / "report.json").write_text(to_json(report))
    command = ("area", "--board", "icepi_zero", "--build", str(tmp_path), "--docs", str(tmp_path / "docs"))
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    written = [Path(line) for line in result.stdout.splitlines()]
    assert [path.name for path in written] == [f"area-icepi_zero.{kind}" for kind in ("json", "md", "png")]
    found = json.loads(written[0].read_text())
    assert found["total"] == {kind: asdict(report)[kind] for kind in ("lut", "ff", "dsp", "bram")}
    text = written[1].read_text()
    assert text.startswith("# icepi_zero: c on d, seed 2, 60.5 MHz\n")
    assert re.search(r"^\| `post` \| .* \| 2 \| 40.0 % \| 2 \| 100.0 % \|  \|  \|$", text, re.M)
    assert re.search(r"^\| \*\*all\*\* \|.* \| 5 \| 100.0 % \| 2 \| 100.0 % \| 1 \| 1 \|$", text, re.M)
    assert written[2].read_bytes().startswith(b"\x89PNG")

    for options, wanted in (((), "no board 'b'"), (("--build", str(tmp_path)), "wanted a build of b, got one of ice")):
        result = CliRunner().invoke(main, ("area", "--board", "b", *options))
        assert result.exit_code == 2 and wanted in result.output

    whole = (tmp_path / "cells.csv.gz").read_bytes()
    for damaged in (whole[:len(whole) // 2], gzip.compress(b"a,b,1\n"), gzip.compress(b"a,lut,x,1\n")):
        (tmp_path / "cells.csv.gz").write_bytes(damaged)
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1 and "cells.csv.gz: wanted the cells of a placed design" in result.output
    (tmp_path / "cells.csv.gz").unlink()
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and "cells.csv.gz: wanted the cells of a placed design" in result.output
