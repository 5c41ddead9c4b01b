"""Which paths of a routed design are too slow: every end over a limit, by units and signals, logic apart from wire."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Delays", "Group", "SlowPath", "grouped", "main", "read_sdf", "signal", "slow_paths", "table", "trace",
           "unit"]

CELL = re.compile(r"\(INSTANCE (.*)\)")
WIRE = re.compile(r"\(INTERCONNECT (\S+) (\S+) \(.*?:.*?:(\d+)\)")
ARC = re.compile(r"\(IOPATH (\S+) (\S+) \(.*?:.*?:(\d+)\)")
CHECK = re.compile(r"\(SETUPHOLD \((?:pos|neg)edge (\S+)\) \((?:pos|neg)edge \S+\) \(.*?:.*?:(-?\d+)\)")
CLOCK = re.compile(r"CLK[A-Z0-9]*|WCK")
SUFFIX = re.compile(r"_(TRELLIS_FF|CCU2C|LUT4|MULT18X18D|DP16KD|TRELLIS_DPR16X4|PFUMX|L6MUX21)_.*")

Pin = tuple[str, str]  # cell and port


@dataclass(kw_only=True)
class Delays:
    """What nextpnr's SDF says of a routed design, in ns, the slowest corner.

    Members
    -------
    wires : sink -> its driver and the delay from there
    arcs : output of a cell -> its inputs and the delays from them
    launches : output of a register or memory -> delay from its clock
    ends : input that a clock takes -> its setup time
    """

    wires: dict[Pin, tuple[Pin, float]] = field(default_factory=dict)
    arcs: dict[Pin, list[tuple[Pin, float]]] = field(default_factory=lambda: defaultdict(list))
    launches: dict[Pin, float] = field(default_factory=dict)
    ends: dict[Pin, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SlowPath:
    """Slowest path to an end: ``pins`` from the output it starts at to the end; ns in all, and of it in wires."""

    pins: tuple[Pin, ...]
    total: float
    wire: float

    @property
    def start(self) -> str:
        """The cell it starts at."""
        return self.pins[0][0]

    @property
    def end(self) -> str:
        """The cell it ends at."""
        return self.pins[-1][0]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Slow paths with something in common: how many, the slowest, and the mean share of wire."""

    name: tuple[str, ...]
    count: int
    worst: SlowPath
    wire_share: float


def read_sdf(lines: Iterable[str]) -> Delays:
    """The delays of an SDF as nextpnr writes it, one statement a line."""
    delays, cell = Delays(), ""
    for line in lines:
        if found := WIRE.search(line):
            delays.wires[_pin(found[2])] = _pin(found[1]), int(found[3]) / 1000
        elif found := ARC.search(line):
            output, delay = (cell, found[2]), int(found[3]) / 1000
            if CLOCK.fullmatch(found[1]):
                delays.launches[output] = delay
            else:
                delays.arcs[output].append(((cell, found[1]), delay))
        elif found := CHECK.search(line):
            delays.ends[cell, found[1]] = int(found[2]) / 1000
        elif found := CELL.search(line):
            cell = found[1].replace("\\", "")
    return delays


def _pin(text: str) -> Pin:
    cell, port = text.replace("\\", "").rsplit("/", 1)
    return cell, port


class _Arrivals:
    """When signals are there, each worked out once: time, of it in wires, and the pin before."""

    def __init__(self, delays: Delays) -> None:
        self.delays = delays
        self.at: dict[Pin, tuple[float, float, Pin | None] | None] = {}

    def of(self, pin: Pin) -> tuple[float, float, Pin | None] | None:
        """Of ``pin``; None when no clock leads there. What goes round in a loop of logic counts for nothing."""
        todo, begun = [pin], set()
        while todo:
            here = todo[-1]
            if here in self.at:
                todo.pop()
                continue
            before = list(self._before(here))
            begun.add(here)  # and not in ``at``: on the way to ``pin`` from what is looked at next
            if missing := [other for other, _, _ in before if other not in self.at and other not in begun]:
                todo += missing
                continue
            launch = self.delays.launches.get(here)
            found: list[tuple[float, float, Pin | None]] = [] if launch is None else [(launch, 0.0, None)]
            for other, delay, wire in before:
                if arrived := self.at.get(other):
                    found.append((arrived[0] + delay, arrived[1] + wire, other))
            self.at[here] = max(found, key=lambda one: one[0]) if found else None
            todo.pop()
        return self.at[pin]

    def _before(self, pin: Pin) -> Iterator[tuple[Pin, float, float]]:
        if pin in self.delays.wires:
            driver, delay = self.delays.wires[pin]
            yield driver, delay, delay
        for other, delay in self.delays.arcs.get(pin, ()):
            yield other, delay, 0.0

    def path(self, end: Pin, setup: float) -> SlowPath | None:
        """Slowest path to ``end``."""
        if not (arrived := self.of(end)):
            return None
        pins, pin = [end], arrived[2]
        while pin is not None:
            pins.append(pin)
            before = self.at[pin]
            assert before is not None
            pin = before[2]
        return SlowPath(pins=tuple(reversed(pins)), total=arrived[0] + setup, wire=arrived[1])


def slow_paths(delays: Delays, limit_ns: float) -> list[SlowPath]:
    """The slowest path to every end that takes longer than ``limit_ns``, the slowest first."""
    arrivals = _Arrivals(delays)
    every = (arrivals.path(end, setup) for end, setup in delays.ends.items() if not CLOCK.fullmatch(end[1]))
    return sorted((path for path in every if path and path.total > limit_ns), key=lambda path: -path.total)


def unit(cell: str, depth: int = 1) -> str:
    """The unit of the machine a cell is in, ``depth`` levels deep; of others, what is around it."""
    parts = SUFFIX.sub("", re.sub(r"\$nextpnr_\w+\$|^\$.*?\$(?=machine)", "", cell)).split(".")[:-1]
    parts = parts[2:] or ["core"] if parts[:2] == ["machine", "core"] else parts[1:] or parts[:1]
    parts = parts if cell.startswith(("machine", "$")) else ["board"]
    return ".".join(parts[:depth])


def signal(cell: str) -> str:
    """The signal a cell was named after, numbers of lanes and bits left out."""
    name = SUFFIX.sub("", cell).removeprefix("machine.core.")
    return re.sub(r"\d+", "#", re.sub(r"\[\d+\]$", "", name))


def grouped(paths: Iterable[SlowPath], key: Callable[[SlowPath], tuple[str, ...]]) -> list[Group]:
    """Paths by ``key``, the largest group first."""
    groups: dict[tuple[str, ...], list[SlowPath]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return sorted((Group(name=name, count=len(found), worst=max(found, key=lambda path: path.total),
                         wire_share=sum(path.wire / path.total for path in found) / len(found))
                   for name, found in groups.items()), key=lambda group: -group.count)


def table(groups: Iterable[Group]) -> str:
    """One line a group: ends, the slowest in ns, stages of logic on it, mean share of wire, name."""
    return "".join(
        f"{group.count:6} {group.worst.total:6.2f} ns {len(group.worst.pins) // 2 - 1:3} {group.wire_share:5.0%}  "
        f"{' -> '.join(group.name)}\n" for group in groups)


def trace(path: SlowPath, delays: Delays) -> str:
    """A path, one line a wire: its delay and its driver."""
    lines = [f"{path.total:.2f} ns, {path.wire:.2f} of it wire\n"]
    for pin in path.pins[1::2]:
        driver, delay = delays.wires[pin]
        lines.append(f"  {delay:5.2f}  {SUFFIX.sub('', driver[0])}/{driver[1]}\n")
    return "".join((*lines, f"         {SUFFIX.sub('', path.end)}/{path.pins[-1][1]}\n"))


def main() -> None:
    """``python -m shiftgrad.paths FILE.sdf [--limit NS] [--depth N] [--trace N]``; nextpnr writes it with ``--sdf``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sdf", type=Path)
    parser.add_argument("--limit", type=float, default=8.0, metavar="NS", help="period wanted")
    parser.add_argument("--depth", type=int, default=1, help="levels of instances that make a unit")
    parser.add_argument("--rows", type=int, default=40, help="largest groups shown")
    parser.add_argument("--trace", type=int, default=3, metavar="N", help="slowest paths shown in full")
    wanted = parser.parse_args()
    with wanted.sdf.open() as lines:
        delays = read_sdf(lines)
    paths = slow_paths(delays, wanted.limit)
    print(f"{len(paths)} of {len(delays.ends)} ends take longer than {wanted.limit} ns")
    by_unit = grouped(paths, lambda path: (unit(path.start, wanted.depth), unit(path.end, wanted.depth)))
    by_signal = grouped(paths, lambda path: (signal(path.start), signal(path.end)))
    print("\nby unit\n" + table(by_unit[:wanted.rows]), "\nby signal\n" + table(by_signal[:wanted.rows]), sep="")
    print("\nby start\n" + table(grouped(paths, lambda path: (signal(path.start),))[:wanted.rows]))
    for path in paths[:wanted.trace]:
        print(trace(path, delays))


if __name__ == "__main__":
    main()
