"""The machine on silicon: every board and configuration placed and routed with several seeds, kept as they finish."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftgrad.bitstream import Flow, flow_of
from shiftgrad.build_report import CELLS, BitstreamError
from shiftgrad.files import write_text

if TYPE_CHECKING:
    from hw.boards import Board

__all__ = ["MATRIX", "Build", "builds", "read", "run", "summary"]

MATRIX = (("ulx3s_85f", "ulx3s_85f_8x8"), ("icebreaker", "up5k_4x4"), ("ulx3s_25f", "ulx3s_25f_4x4"),
          ("ulx3s_85f", "ulx3s_25f_4x4"), ("ulx3s_85f_12x12", "ulx3s_85f_12x12"), ("ecp5_5g_evn", "ulx3s_85f_8x8"),
          ("ulx3s_85f", "ulx3s_85f_8x8_unsigned"))
GUESS = {4: 300.0, 8: 600.0, 12: 1200.0}  # seconds of a build of a T x T machine, until one has been timed
NETLISTS, PICTURES = "netlists", ".png"  # folder of synthesised designs; the placed design, beside a result
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build of the matrix: a board, the configuration it carries, a placement seed."""

    board: str
    config: str
    seed: int

    @property
    def pair(self) -> str:
        """Board and configuration."""
        return f"{self.board}-{self.config}"


def builds(seeds: Sequence[int], only: str = "") -> list[Build]:
    """All builds whose board or configuration contains ``only``, or of the pair ``only``: first all with one seed."""
    pairs = [pair for pair in MATRIX if only == "-".join(pair)] or [pair for pair in MATRIX if only in "-".join(pair)]
    return [Build(board=board, config=config, seed=seed) for seed in seeds for board, config in pairs]


def run(wanted: Sequence[Build], out: Path, *, hours: float | None = None, progress: Progress = print) -> None:
    """Do the builds of ``wanted`` that ``out`` does not hold; each is kept as it finishes, so the same call goes on.

    A result belongs to its design: the netlist before synthesis, the pins, the device, the tools with their options,
    what rewrites the netlist, and the seed.

    Parameters
    ----------
    hours : start no build after so long
    """
    began = time.monotonic()
    designs: dict[str, str] = {}
    for number, build in enumerate(wanted):
        if hours is not None and time.monotonic() - began > 3600 * hours:
            progress(f"stopped after {hours:g} hours with {len(wanted) - number} builds to look at; run again to go on")
            return
        with tempfile.TemporaryDirectory(prefix=".build-", dir=_folder(out)) as work:
            board = _board(build)
            flow = flow_of(board)(board, None, Path(work), out, progress)
            design = flow.generate()
            designs[build.pair] = fingerprint(flow)
            path = _path(out, build, designs[build.pair])
            if path.exists():
                os.utime(path)  # the design that counts now
                progress(f"{build.pair}, seed {build.seed}: done before")
                continue
            left = sum(_seconds(out, b) for b in wanted[number:] if not _done(out, b, designs))
            progress(f"{build.pair}, seed {build.seed}: build {number + 1} of {len(wanted)}, "
                     f"about {left / 60:.0f} min left")
            result = _result(flow, build, design, out / NETLISTS / f"{build.pair}-{designs[build.pair]}.json")
            if (picture := Path(work) / "area.png").exists():
                os.replace(picture, path.with_suffix(PICTURES))
            write_text(path, json.dumps(result, indent=1) + "\n")


def _result(flow: Flow, build: Build, design: str, netlist: Path) -> dict[str, Any]:
    """Synthesis unless ``netlist`` is its result, placement, routing; what the tools cannot route is a result too."""
    try:
        if netlist.exists():
            shutil.copy(netlist, flow.work / "top.json")
        else:
            flow.synthesise()
            flow.floorplan()
            os.replace(shutil.copy(flow.work / "top.json", flow.work / "kept.json"), netlist)
        report = flow.place(build.seed, design)
        flow.area(report)
        kept, error = asdict(report), ""
    except BitstreamError as failure:
        if failure.killed:
            raise
        kept, error = {}, str(failure)
    return {**asdict(build), "error": error, **kept, "config": build.config,
            "seconds": {name: round(spent, 1) for name, spent in flow.seconds.items()}}


def fingerprint(flow: Flow) -> str:
    """Of a generated design and the tools that will build it, with what comes between them."""
    from hw.boards import floorplan, output_registers

    tools = f"{metadata.version('amaranth')} {flow.synthesiser} {metadata.version(flow.NEXTPNR)}"
    how = f"{flow.script} {flow.board.block_rams} {flow.device} {flow.options}"
    digest = hashlib.sha256(f"{tools} {how}".encode())
    rewriting = (Path(str(module.__file__)) for module in (floorplan, output_registers))
    for path in (flow.work / "top.il", flow.work / flow.CONSTRAINTS, *rewriting):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read(out: Path) -> list[dict[str, Any]]:
    """The results there are: of every pair those of the design that was built, or found to be built, last."""
    found = []
    for board, config in MATRIX:
        paths = sorted(out.glob(f"{board}-{config}-*-seed*.json"), key=lambda path: path.stat().st_mtime)
        key = paths[-1].stem.rsplit("-", 2)[1] if paths else ""
        found += [_read(path) | {"picture": str(path.with_suffix(PICTURES))}
                  for path in paths if path.stem.rsplit("-", 2)[1] == key]
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        if not {"board", "config", "seed", "error", "seconds"} <= result.keys():
            raise ValueError(f"an object with {sorted(result)}")
    except (OSError, ValueError, AttributeError) as error:
        raise BitstreamError(f"{path}: wanted a build's result, got {error}; remove it and build again") from error
    return result


def summary(results: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One entry a pair: clocks of its seeds, cells of its fastest one; ``fmax_mhz`` is None when nothing was routed."""
    for board, config in MATRIX:
        mine = [r for r in results if (r["board"], r["config"]) == (board, config)]
        routed = sorted((r for r in mine if not r["error"]), key=lambda r: -r["fmax_mhz"])
        if not mine:
            continue
        clocks = [r["fmax_mhz"] for r in routed]
        entry = {"board": board, "config": config, "seeds": sorted(r["seed"] for r in mine), "routed": len(routed),
                 "errors": [r["error"] for r in mine if r["error"]], "fmax_mhz": None}
        if routed:
            best = routed[0]
            entry |= {"device": best["device"], "fmax_mhz": {"least": clocks[-1], "most": clocks[0],
                                                            "median": statistics.median(clocks)},
                      **{kind: best[kind] for kind in (*CELLS, "available", "picture")}}
        yield entry


def _folder(out: Path) -> Path:
    for name in ("logs", NETLISTS):
        (out / name).mkdir(parents=True, exist_ok=True)
    return out


def _board(build: Build) -> Board:
    from hw.boards import get_board

    return replace(get_board(build.board), config=build.config)


def _path(out: Path, build: Build, key: str) -> Path:
    return out / f"{build.pair}-{key}-seed{build.seed}.json"


def _done(out: Path, build: Build, designs: dict[str, str]) -> bool:
    key = designs.get(build.pair)
    return key is not None and _path(out, build, key).exists()


def _seconds(out: Path, build: Build) -> float:
    """How long ``build`` may take: as long as one of that pair did."""
    from shiftgrad.config import get_config

    times = [sum(_read(path)["seconds"].values()) for path in out.glob(f"{build.pair}-*-seed*.json")]
    return statistics.mean(times) if times else GUESS[get_config(build.config).size]
