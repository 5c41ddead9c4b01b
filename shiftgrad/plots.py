"""The report's charts, each an SVG string."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from shiftgrad.record import History

__all__ = ["CAUSES", "CAUSE_COLORS", "INK", "MUTED", "PHASE_COLORS", "accuracy", "cycles_by_cause", "exponents",
           "figure", "loss", "saturation", "utilisation"]

INK, MUTED, GRID = "#1f2733", "#6b7686", "#e6e9ee"
COLORS = ("#2563b0", "#d9622b", "#2f8f5b", "#8a4fbf", "#b08a1e", "#c2386b", "#3aa6b9", "#7a7f87")
PHASE_COLORS = {"forward": COLORS[0], "backward": COLORS[1], "gradient": COLORS[2], "step": INK}
CAUSES = {"FEED": "array fed", "RANGE": "range passes", "DRAIN": "waiting for drains",
          "STREAM": "vector unit fed", "TAIL": "tail", "SETUP": "set-up", "LOSS": "loss unit"}
CAUSE_COLORS = (COLORS[0], COLORS[3], COLORS[5], COLORS[6], COLORS[1], COLORS[4], COLORS[2])
POINTS = 500  # a curve has no more
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "shiftgrad", "font.family": "sans-serif", "font.size": 10,
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"], "text.color": INK,
    "axes.edgecolor": "#c3c9d2", "axes.labelcolor": MUTED, "axes.grid": True, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": GRID, "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.frameon": False, "legend.fontsize": 9,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
}


@contextmanager
def figure(width: float, height: float, columns: int = 1, **extra: Any) -> Iterator[tuple[list[Axes], list[str]]]:
    """Axes to draw on, and a list that holds the SVG afterwards."""
    svg: list[str] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield list(figure.subplots(1, columns, squeeze=False, **extra)[0]), svg
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        svg.append(text.getvalue())


def _thin(values: Sequence[float], first: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps and block means of ``values``, at most ``POINTS`` of them."""
    block = max(1, -(-len(values) // POINTS))
    cuts = np.arange(0, len(values), block)
    sums = np.add.reduceat(np.asarray(values, float), cuts)
    sizes = np.diff(np.append(cuts, len(values)))
    return first + cuts + (sizes - 1) / 2, sums / sizes


def _smooth(values: Sequence[float], window: int) -> NDArray[Any]:
    """Running mean over the last ``window`` values, fewer at the start."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, float))])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def _drops(axes: Axes, history: History, label: bool = False) -> None:
    """A dotted line where the learning rate was halved."""
    for i, step in enumerate(np.flatnonzero(np.diff(history.lr_extra)) + 1):
        axes.axvline(float(step), color="#aab2bf", linestyle=":", linewidth=1,
                     label="learning rate halved" if label and not i else None)


def loss(history: History) -> str:
    """Mini-batch loss and held-out loss over steps, logarithmic."""
    with figure(6.2, 3.1) as ((axes,), svg):
        axes.plot(*_thin(history.loss), color=COLORS[0], alpha=0.25, linewidth=0.8)
        steps, smooth = _thin(_smooth(history.loss, max(1, len(history.loss) // 60)).tolist())
        axes.plot(steps, smooth, color=COLORS[0], linewidth=1.8, label="training, running mean")
        if history.epochs:
            axes.plot([e.step for e in history.epochs], [e.loss for e in history.epochs], "o-", color=COLORS[1],
                      markersize=4, linewidth=1.4, label="held out")
        _drops(axes, history, label=True)
        if len(smooth) and smooth.min() > 0:
            axes.set_yscale("log", nonpositive="clip")
            axes.set_ylim(bottom=0.4 * smooth.min())
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="step", ylabel="cross-entropy, nats")
        axes.legend(loc="upper right")
    return svg[0]


def accuracy(history: History) -> str:
    """Training and held-out accuracy by epoch."""
    with figure(6.2, 3.1) as ((axes,), svg):
        steps = [e.step for e in history.epochs]
        for name, color, values in (
            ("training, mean of the epoch", COLORS[0], [e.train_accuracy for e in history.epochs]),
            ("held out", COLORS[1], [e.accuracy for e in history.epochs]),
        ):
            axes.plot(steps, 100 * np.array(values), "o-", color=color, markersize=4, linewidth=1.6, label=name)
        if history.epochs:
            best = 100 * history.epochs[-1].accuracy
            axes.annotate(f"{best:.2f} %", (steps[-1], best), xytext=(0, -16), textcoords="offset points", ha="right",
                          color=COLORS[1], weight="bold")
        _drops(axes, history)
        axes.set(xlabel="step", ylabel="accuracy, %")
        axes.legend(loc="lower right")
    return svg[0]


def exponents(history: History) -> str:
    """The exponent of every tensor that training changes, over steps, by role."""
    roles = {"activations": ".out", "errors": ".error", "momentum of weights": ".momentum",
             "momentum of biases": ".bias_momentum"}
    with figure(12.6, 2.9, len(roles)) as (panels, svg):
        for axes, (title, suffix) in zip(panels, roles.items(), strict=True):
            names = [name for name in history.exponents if name.endswith(suffix)]
            for i, name in enumerate(names):
                axes.step(history.sampled, history.exponents[name], where="post", linewidth=1.6,
                          color=COLORS[i % len(COLORS)], label=name.removesuffix(suffix))
            axes.set(title=title, xlabel="step")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=3))
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.margins(y=0.25)
            if names:
                axes.legend(loc="best", ncols=2)
        panels[0].set_ylabel("exponent e, value = q 2^e")
    return svg[0]


def saturation(history: History) -> str:
    """Share of the mantissas that saturated, by phase."""
    with figure(6.2, 4.1) as ((axes,), svg):
        for phase, values in history.saturation.items():
            share = 100 * np.array(values)
            axes.plot(history.sampled, share, ".", color=PHASE_COLORS[phase], markersize=3, alpha=0.35)
            axes.plot(history.sampled, _smooth(share.tolist(), max(1, len(share) // 12)), color=PHASE_COLORS[phase],
                      linewidth=1.8, label=phase)
        axes.set(xlabel="step", ylabel="saturated mantissas, %")
        axes.set_ylim(bottom=0)
        if history.saturation:
            axes.legend(loc="upper right")
    return svg[0]


def utilisation(shares: dict[str, float | None]) -> str:
    """Useful multiply-accumulates over the array's peak, as bars."""
    with figure(6.2, 2.5) as ((axes,), svg):
        names = list(shares)
        values = [100 * (shares[name] or 0) for name in names]
        bars = axes.barh(names, values, color=[PHASE_COLORS[name] for name in names], height=0.62)
        axes.bar_label(bars, [f"{v:.1f} %" for v in values], padding=4, color=INK, weight="bold")
        axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="useful multiply-accumulates, % of the array's peak")
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=10)
    return svg[0]


def cycles_by_cause(counters: dict[str, int]) -> str:
    """Where the busy cycles went, one stacked bar."""
    total = sum(counters.get(f"{cause}_CYCLES", 0) for cause in CAUSES)
    with figure(6.2, 1.9) as ((axes,), svg):
        left = 0.0
        for (cause, title), color in zip(CAUSES.items(), CAUSE_COLORS, strict=True):
            share = 100 * counters.get(f"{cause}_CYCLES", 0) / max(1, total)
            axes.barh([""], [share], left=left, color=color, height=0.5, label=f"{title} {share:.1f} %")
            left += share
        axes.set(xlim=(0, 100), xlabel="busy cycles, %")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=1, columnspacing=1.2)
    return svg[0]
