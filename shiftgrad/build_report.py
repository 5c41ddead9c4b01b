"""What a build for a board came to: clock and cells, as JSON and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["CELLS", "BitstreamError", "Report", "area_title", "read", "table", "to_json"]

CELLS = {"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "dsp": "MULT18X18D", "bram": "DP16KD"}


class BitstreamError(RuntimeError):
    """A build that did not make a bitstream.

    Attributes
    ----------
    report : when it got as far as a routed design
    killed : a signal ended a tool, which says nothing about the design
    """

    def __init__(self, message: str, report: Report | None = None, *, killed: bool = False) -> None:
        super().__init__(message)
        self.report, self.killed = report, killed


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was built.

    Members
    -------
    design : the component on the board
    clock_mhz, fmax_mhz, met : frequency it runs at, most after routing, and whether that is enough
    lut, ff, dsp, bram : TRELLIS_COMB, TRELLIS_FF, MULT18X18D and DP16KD in use; ``available`` says how many there are
    seed, seeds : the placement seed used; fmax of each one tried
    tools, seconds : versions, and how long each step took
    """

    board: str
    config: str
    design: str
    device: str
    clock_mhz: float
    fmax_mhz: float
    met: bool
    seed: int
    lut: int
    ff: int
    dsp: int
    bram: int
    available: dict[str, int]
    seeds: dict[int, float]
    tools: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)


def to_json(report: Report) -> str:
    """The report as JSON text."""
    return json.dumps(asdict(report), indent=2) + "\n"


def read(path: Path) -> Report:
    """The report of a finished build; ``BitstreamError`` when there is none."""
    try:
        found = json.loads(path.read_text())
        return Report(**{**found, "seeds": {int(seed): mhz for seed, mhz in found["seeds"].items()}})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BitstreamError(f"{path}: wanted a build's report.json, got {error}") from error


def table(report: Report) -> str:
    """The report as a text table."""
    rows = [
        ("board", report.board), ("device", report.device), ("configuration", report.config), ("design", report.design),
        ("clock", f"{report.clock_mhz:.2f} MHz"),
        ("fmax", f"{report.fmax_mhz:.2f} MHz ({'met' if report.met else 'NOT MET'})"),
        *((name.upper(), f"{getattr(report, name)} of {total} ({100 * getattr(report, name) / total:.1f} %)")
          for name, total in report.available.items()),
        ("seed", str(report.seed)),
        ("all seeds", ", ".join(f"{seed}: {mhz:.2f}" for seed, mhz in report.seeds.items())),
        *((tool, version) for tool, version in report.tools.items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  {value}\n" for name, value in rows)


def area_title(report: Report) -> str:
    """Heading of the area by unit."""
    return f"{report.board}: {report.config} on {report.device}, seed {report.seed}, {report.fmax_mhz:.1f} MHz"
