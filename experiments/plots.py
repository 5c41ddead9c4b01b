"""The charts of docs/results, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.grid import TITLES, UNSIGNED, VARIANTS
from shiftgrad.files import write_bytes
from shiftgrad.plots import COLORS, STYLE

__all__ = ["batch_sizes", "curves", "draw"]

SHADES = {"fp32_bn": COLORS[1], "fp32_fixup": COLORS[7], "int8": COLORS[0], "int8_current": COLORS[2],
          UNSIGNED: COLORS[3]}
MARKS = {"fp32_bn": "s", "fp32_fixup": "o", "int8": "D", "int8_current": "^", UNSIGNED: "v"}
Results = Sequence[dict[str, Any]]


def draw(path: Path, paint: Callable[[list[Axes]], None], *, columns: int = 1, rows: int = 1, width: float = 6.2,
         height: float = 3.6, **extra: Any) -> Path:
    """A figure that ``paint`` fills, written to ``path``; returned."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(list(figure.subplots(rows, columns, squeeze=False, **extra).flat))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return write_bytes(path, buffer.getvalue())


def _chosen(results: Results, **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in results if all(r[name] == value for name, value in wanted.items())]


def batch_sizes(path: Path, results: Results, title: str) -> Path:
    """Held-out accuracy over batch size: the median, and every seed as a dot."""

    def paint(axes: list[Axes]) -> None:
        for variant in VARIANTS:
            runs = _chosen(results, variant=variant)
            if not runs:
                continue
            batches = sorted({r["batch"] for r in runs})
            medians = [100 * np.median([r["accuracy"] for r in runs if r["batch"] == b]) for b in batches]
            axes[0].plot(batches, medians, MARKS[variant] + "-", color=SHADES[variant], linewidth=1.8, markersize=5,
                         label=TITLES[variant])
            axes[0].plot([r["batch"] for r in runs], [100 * r["accuracy"] for r in runs], ".", color=SHADES[variant],
                         alpha=0.5, markersize=4)
        axes[0].set_xscale("log", base=2)
        ticks = sorted({r["batch"] for r in results})
        axes[0].set_xticks(ticks, [str(b) for b in ticks])
        axes[0].set(xlabel="batch size", ylabel="held-out accuracy, %", title=title)
        axes[0].legend(loc="best")

    return draw(path, paint)


def curves(path: Path, results: Results, title: str) -> Path:
    """Held-out accuracy by epoch, a panel a batch size; every seed a line."""
    batches = sorted({r["batch"] for r in results})
    columns = min(3, len(batches))
    rows = -(-len(batches) // columns)

    def paint(axes: list[Axes]) -> None:
        for panel, batch in zip(axes, batches, strict=False):
            for variant in VARIANTS:
                for i, run in enumerate(_chosen(results, variant=variant, batch=batch)):
                    panel.plot([e["epoch"] for e in run["epochs"]], [100 * e["accuracy"] for e in run["epochs"]],
                               color=SHADES[variant], linewidth=1.3, alpha=0.85,
                               label=TITLES[variant] if not i else None)
            panel.set(title=f"batch {batch}", xlabel="epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        for panel in axes[len(batches):]:
            panel.set_visible(False)
        figure = axes[0].get_figure()
        assert figure
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        axes[0].set_ylabel("held-out accuracy, %")
        lines = {line.get_label(): line for panel in axes for line in panel.get_legend_handles_labels()[0]}
        figure.legend(handles=list(lines.values()), loc="outside lower left", ncols=len(lines))

    return draw(path, paint, columns=columns, rows=rows, width=3.9 * columns, height=2.9 * rows)
