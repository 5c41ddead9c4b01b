"""What a placed design takes, unit by unit: every cell of nextpnr's netlist, by the hierarchy in its name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftgrad.build_report import CELLS
from shiftgrad.files import write_bytes, write_text

__all__ = ["CELL_FILE", "TITLES", "Area", "AreaError", "Cell", "cells_of", "count", "load", "save", "table", "write"]

CELL_FILE = "cells.csv.gz"
KINDS = {cell: kind for kind, cell in CELLS.items()}
BEL = re.compile(r"X(\d+)/Y(\d+)/")
CARRY = ("FCI", "FCO")
CORE = ("machine", "core")
TITLES = {
    "array": "systolic array", "post": "lanes: value, range, scale, update", "vector": "vector unit",
    "sequencer": "sequencer: fetch, checks, exponents", "host": "host registers and windows",
    "issuer": "issuer: loops of a product", "loss": "loss unit", "table": "tensor table", "range": "range of a tensor",
    "feed_a": "feeder of rows", "feed_b": "feeder of columns", "drain": "drain controller", "counters": "counters",
    "act": "memory ACT", "err": "memory ERR", "wgt": "memory WGT", "mom": "memory MOM", "vec": "memory VEC",
    "core": "between the units", "link": "serial link", "board": "clock, pins, constants",
}


class AreaError(ValueError):
    """Cells that cannot be read or do not add up to the design."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One placed cell: ``kind`` is lut, ff, dsp or bram; ``scope`` the instance it is in, outermost first."""

    scope: tuple[str, ...]
    kind: str
    x: int
    y: int

    @property
    def unit(self) -> str:
        """Unit of the machine, ``core`` between its units, ``link``, or ``board`` for what is around them."""
        if self.scope[:2] == CORE:
            return self.scope[2] if len(self.scope) > 2 else "core"
        return "link" if self.scope[:2] == ("machine", "link") else "board"

    @property
    def part(self) -> str:
        """Where it is in its unit, two levels deep, numbers of instances left out; empty at its top."""
        inside = self.scope[3:] if self.scope[:2] == CORE else self.scope[2:]
        return ".".join(re.sub(r"\d+(_\d+)*$", "*", name) for name in inside[:2])


@dataclass(frozen=True, kw_only=True)
class Area:
    """Cells by unit, and by unit and part; each a count by kind."""

    title: str
    total: dict[str, int]
    units: dict[str, dict[str, int]]
    parts: dict[str, dict[str, dict[str, int]]]

    def to_json(self) -> dict[str, Any]:
        """The same in plain types."""
        return {"title": self.title, "total": self.total, "units": self.units, "parts": self.parts}


def scopes_of(netlist: Mapping[str, Any]) -> frozenset[str]:
    """Instances of the synthesised design, flattened names."""
    return frozenset(name for name, cell in netlist["modules"]["top"]["cells"].items() if cell["type"] == "$scopeinfo")


def cells_of(placed: Mapping[str, Any], scopes: Iterable[str]) -> list[Cell]:
    """LUTs, flip-flops, multipliers and block RAMs of nextpnr's written netlist.

    A cell belongs to the innermost of ``scopes`` that its name begins with, one that nextpnr adds to the end of a
    carry chain to the chain's. Synthesis names a cell after a signal it drives or feeds, so logic between two units
    counts for one of them.
    """
    every = placed["modules"]["top"]["cells"]
    scope_of, found = _scopes(every, frozenset(scopes)), []
    for name, cell in every.items():
        if kind := KINDS.get(cell["type"]):
            place = BEL.match(cell["attributes"].get("NEXTPNR_BEL", ""))
            if not place:
                raise AreaError(f"{name}: wanted a place such as X4/Y25/EBR0, got {cell['attributes']}")
            found.append(Cell(scope=scope_of[name], kind=kind, x=int(place[1]), y=int(place[2])))
    return found


def _scopes(cells: Mapping[str, Any], known: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Scope of every cell; those without one take that of their neighbours in a carry chain."""
    scopes = {name: _scope(name, known) for name in cells}
    at = {name: [net for port in CARRY for net in cell.get("connections", {}).get(port, ())]
          for name, cell in cells.items()}
    carries: dict[int, list[str]] = {}
    for name, nets in at.items():
        for net in nets:
            carries.setdefault(net, []).append(name)
    todo = [name for name in cells if scopes[name]]
    while todo:
        name = todo.pop()
        for neighbour in (other for net in at[name] for other in carries[net] if not scopes[other]):
            scopes[neighbour] = scopes[name]
            todo.append(neighbour)
    return scopes


def _scope(name: str, known: frozenset[str]) -> tuple[str, ...]:
    """Innermost instance ``name`` is in; Amaranth's ``$number`` for equal names is left out."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in known:
            return tuple(re.sub(r"\$\d+$", "", part) for part in parts[:length])
    return ()


def save(path: Path, cells: Sequence[Cell]) -> Path:
    """Cells as compressed CSV: scope, kind, x, y."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((".".join(c.scope), c.kind, c.x, c.y) for c in cells)
    return write_bytes(path, gzip.compress(text.getvalue().encode(), mtime=0))


def load(path: Path) -> list[Cell]:
    """What :func:`save` wrote."""
    try:
        rows = csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode()))
        return [Cell(scope=tuple(filter(None, scope.split("."))), kind=kind, x=int(x), y=int(y))
                for scope, kind, x, y in rows]
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise AreaError(f"{path}: wanted the cells of a placed design, as make bitstream writes them, got "
                        f"{getattr(error, 'strerror', None) or error}") from error


def count(cells: Sequence[Cell], title: str, used: Mapping[str, int] | None = None) -> Area:
    """Add up; ``AreaError`` when the sums are not what the tools said is in use."""
    units: dict[str, Counter[str]] = {}
    parts: dict[str, dict[str, Counter[str]]] = {}
    for cell in cells:
        units.setdefault(cell.unit, Counter())[cell.kind] += 1
        parts.setdefault(cell.unit, {}).setdefault(cell.part, Counter())[cell.kind] += 1
    total = _plain(sum(units.values(), Counter()))
    if used is not None and total != {kind: used[kind] for kind in CELLS}:
        raise AreaError(f"wanted cells that add up to { {kind: used[kind] for kind in CELLS} }, got {total}")
    largest = sorted(units, key=lambda unit: (-units[unit]["lut"], unit))
    return Area(title=title, total=total, units={unit: _plain(units[unit]) for unit in largest},
                parts={unit: {part: _plain(parts[unit][part]) for part in sorted(parts[unit])} for unit in largest})


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return {kind: counts.get(kind, 0) for kind in CELLS}


def table(area: Area) -> str:
    """Markdown: units, largest first, then the parts of at least 1 % of all LUTs or with multipliers or block RAMs."""
    lines = [f"# {area.title}", "", "| unit | | LUT | | FF | | DSP | RAM |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    lines += [_row(f"`{unit}` | {TITLES.get(unit, '')}", counts, area.total) for unit, counts in area.units.items()]
    lines += [_row("**all** |", area.total, area.total), "", "Parts of units; `*` stands for the numbers of instances.",
              "", "| part | LUT | | FF | | DSP | RAM |", "|---|--:|--:|--:|--:|--:|--:|"]
    for unit, parts in area.parts.items():
        lines += [_row(f"`{unit}{'.' + part if part else ''}`", counts, area.total) for part, counts in parts.items()
                  if len(parts) > 1 and (100 * counts["lut"] >= area.total["lut"] or counts["dsp"] or counts["bram"])]
    return "\n".join(lines) + "\n"


def _row(head: str, counts: Mapping[str, int], total: Mapping[str, int]) -> str:
    cells = []
    for kind in ("lut", "ff"):
        cells += [f"{counts[kind]:,}", f"{100 * counts[kind] / max(1, total[kind]):.1f} %"]
    return f"| {head} | {' | '.join(cells)} | {counts['dsp'] or ''} | {counts['bram'] or ''} |"


def write(cells: Sequence[Cell], folder: Path, name: str, title: str,
          used: Mapping[str, int] | None = None) -> list[Path]:
    """``<name>.json``, ``.md`` and ``.png`` (the placed design, coloured by unit) in ``folder``."""
    from shiftgrad.area_plot import draw

    area = count(cells, title, used)
    text = table(area) + f"\n![every tile of the device in the colour of its unit]({name}.png)\n"
    return [write_text(folder / f"{name}.json", json.dumps(area.to_json(), indent=1) + "\n"),
            write_text(folder / f"{name}.md", text), write_bytes(folder / f"{name}.png", draw(cells, area))]
