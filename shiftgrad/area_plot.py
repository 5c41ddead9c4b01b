"""A picture of a placed design: every tile of the device in the colours of the units in it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from shiftgrad.area import TITLES, Area, Cell
from shiftgrad.plots import STYLE

__all__ = ["draw"]

FULL = 16  # LUTs and flip-flops of a tile
MARKS = {"bram": ("s", 4.0, "block RAM"), "dsp": ("D", 3.2, "multiplier")}
PALETTE = ("#2563b0", "#d9622b", "#2f8f5b", "#8a4fbf", "#b08a1e", "#c2386b", "#3aa6b9", "#6b4a2f", "#9bb0d3", "#f0a884",
           "#93c9a7", "#c3a3e0", "#ddc878", "#e29ab6", "#a3d8e1", "#b59f8c")
OTHER = "#7a7f87"  # beyond the palette


def draw(cells: Sequence[Cell], area: Area) -> bytes:
    """A PNG: logic as coloured tiles, the fuller the stronger; block RAMs and multipliers as marks; units by size."""
    order = sorted(area.units, key=lambda unit: -sum(area.units[unit].values()))
    colours = {unit: PALETTE[i] if i < len(PALETTE) else OTHER for i, unit in enumerate(order)}
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(11, 6.4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(_tiles(cells, colours), interpolation="nearest", aspect="equal")
        for kind, (mark, size, _) in MARKS.items():
            _marks(axes, [cell for cell in cells if cell.kind == kind], colours, mark, size)
        axes.set(title=area.title, xticks=[], yticks=[])
        figure.legend(handles=_legend(area, order, colours), loc="outside right upper", handlelength=1)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=130, metadata={"Software": None})
    return png.getvalue()


def _tiles(cells: Sequence[Cell], colours: dict[str, str]) -> NDArray[np.float64]:
    """Red, green, blue of every tile: the mean of its cells' colours, paler when it has few."""
    size = max(cell.y for cell in cells) + 1, max(cell.x for cell in cells) + 1
    total, number = np.zeros((*size, 3)), np.zeros((*size, 1))
    for cell in cells:
        if cell.kind not in MARKS:
            total[cell.y, cell.x] += to_rgb(colours[cell.unit])
            number[cell.y, cell.x] += 1
    strength = np.where(number > 0, 0.25 + 0.75 * np.minimum(1, number / FULL), 0)
    return np.clip(1 - strength + strength * total / np.maximum(1, number), 0, 1)


def _marks(axes: Axes, cells: Sequence[Cell], colours: dict[str, str], mark: str, size: float) -> None:
    axes.scatter([c.x for c in cells], [c.y for c in cells], s=size**2, marker=mark, linewidths=0.7,
                 edgecolors="#1f2733", c=[colours[c.unit] for c in cells])


def _legend(area: Area, order: Sequence[str], colours: dict[str, str]) -> list[Any]:
    handles = [Line2D([], [], color=colours[unit], marker="s", linestyle="", markersize=7,
                      label=f"{TITLES.get(unit, unit)}: {area.units[unit]['lut']:,} LUT, {area.units[unit]['ff']:,} FF")
               for unit in order]
    return handles + [Line2D([], [], color="white", marker=mark, markeredgecolor="#1f2733", linestyle="",
                             markersize=size, label=f"{name}: {area.total[kind]}")
                      for kind, (mark, size, name) in MARKS.items()]
