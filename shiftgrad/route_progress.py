"""How far a run of nextpnr is, from the lines it prints."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

__all__ = ["RouteProgress"]

MILESTONE = re.compile(r"Info: (Packing|Running|Placed|Routing|Routed|Generating|Max frequency)")
SPREADING = re.compile(r"Info: iter=(\d+) steplen")
HEAP = re.compile(r"Info:\s+at iteration #(\d+), type ")
REFINE = re.compile(r"Info:\s+at iteration #(\d+): temp")
ROUTE = re.compile(r"Info:\s+(\d+) \|\s+\d+\s+\d+ \|\s+\d+\s+\d+ \|\s+(\d+)\|")
# shares of the time at which placement, refinement and routing end, and how many iterations the first two may take:
# by the static placer, measured on the 8 x 8 machine, and the heap placer, on the 12 x 12
BEGUN, ROUTED = 0.05, 0.97
STATIC = ((0.35, 550), (0.67, 20))
ANALYTIC = ((0.13, 15), (0.57, 22))
# iterations of the router without fewer arcs left than ever before, when there are so many: the last few may take long
PATIENCE, MANY = 90_000, 100


class RouteProgress:
    """Turns log lines into a few lines with a percentage and the time left.

    Parameters
    ----------
    interval : seconds between lines, milestones apart
    clock : gives the time in seconds
    """

    def __init__(self, *, interval: float = 15.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = interval, clock
        self._began = self._spoke = clock()
        self._share, self._detail, self._most = 0.0, "", 1
        (self._spread, self._spreadings), (self._refined, self._refinements) = STATIC
        self._fewest, self._iteration, self._of_fewest = math.inf, 0, 0

    @property
    def stuck(self) -> str | None:
        """Why the router will hardly finish; None while it gets on."""
        if self._fewest < MANY or self._iteration - self._of_fewest < PATIENCE:
            return None
        return (f"{self._fewest:.0f} arcs left at best after {self._iteration} iterations, no fewer in the last "
                f"{PATIENCE}; the design is too dense for the device, or try another seed")

    def feed(self, line: str) -> str | None:
        """What to say about ``line``, if anything."""
        if found := SPREADING.match(line) or HEAP.match(line):
            if found.re is HEAP:
                (self._spread, self._spreadings), (self._refined, self._refinements) = ANALYTIC
            part = min(1.0, int(found[1]) / self._spreadings)
            self._at(BEGUN + (self._spread - BEGUN) * part, f"placement {found[1]}")
        elif found := REFINE.match(line):
            part = min(1.0, int(found[1]) / self._refinements)
            self._at(self._spread + (self._refined - self._spread) * part, f"refinement {found[1]}")
        elif found := ROUTE.match(line):
            self._iteration, arcs = int(found[1]), int(found[2])
            if arcs < self._fewest:
                self._fewest, self._of_fewest = arcs, self._iteration
            self._most = max(self._most, arcs)
            self._at(self._refined + (ROUTED - self._refined) * (1 - arcs / self._most), f"routing, {arcs} arcs left")
        elif MILESTONE.match(line):
            return line.removeprefix("Info:").strip()
        else:
            return None
        if self._clock() - self._spoke < self._interval:
            return None
        self._spoke = self._clock()
        left = (self._spoke - self._began) * (1 - self._share) / self._share
        return f"{100 * self._share:3.0f} %, about {left / 60:.0f} min left ({self._detail})"

    def _at(self, share: float, detail: str) -> None:
        self._share, self._detail = max(self._share, min(share, ROUTED)), detail
