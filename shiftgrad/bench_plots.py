"""Charts of the benchmark: utilisation, and where cycles went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shiftgrad.plots import CAUSE_COLORS, CAUSES, COLORS, INK, MUTED, PHASE_COLORS, figure

__all__ = ["causes", "clocks", "rates", "shares", "speedup"]

ROW, FRAME = 0.24, 0.9  # inches


def shares(entries: Sequence[tuple[str, str, float]]) -> str:
    """Bars of (label, phase, useful share of the array's peak, 0 to 1)."""
    with figure(6.6, ROW * len(entries) + FRAME) as ((axes,), svg):
        labels = [label for label, _, _ in entries]
        colors = [PHASE_COLORS.get(phase, MUTED) for _, phase, _ in entries]
        bars = axes.barh(range(len(entries)), [100 * value for _, _, value in entries], color=colors, height=0.7)
        axes.bar_label(bars, [f"{100 * value:.1f} %" for _, _, value in entries], padding=4, color=INK, fontsize=8)
        axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="useful multiply-accumulates, % of the array's peak")
        axes.set_yticks(range(len(entries)), labels)
        axes.set_ylim(len(entries) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8)
    return svg[0]


def causes(entries: Sequence[tuple[str, dict[str, int]]]) -> str:
    """Stacked bars of (label, busy cycles by cause)."""
    with figure(6.6, 1.4 * ROW * len(entries) + FRAME + 0.6) as ((axes,), svg):
        labels = [label for label, _ in entries]
        left = [0.0] * len(entries)
        for (cause, title), color in zip(CAUSES.items(), CAUSE_COLORS, strict=True):
            cycles = [entry[cause.lower()] for _, entry in entries]
            axes.barh(range(len(entries)), cycles, left=left, color=color, height=0.6, label=title)
            left = [start + width for start, width in zip(left, cycles, strict=True)]
        axes.set(xlabel="busy cycles")
        axes.set_yticks(range(len(entries)), labels)
        axes.set_ylim(len(entries) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, handlelength=1, columnspacing=1.2)
    return svg[0]


def speedup(sizes: Sequence[int], cycles: Sequence[int]) -> str:
    """Cycles of the same work by size of the array, and what a perfect array of that size would take."""
    with figure(4.2, 3.1) as ((axes,), svg):
        axes.loglog(sizes, cycles, "o-", color=PHASE_COLORS["forward"], label="measured", linewidth=1.8)
        axes.loglog(sizes, [cycles[0] * (sizes[0] / size) ** 2 for size in sizes], ":", color=MUTED,
                    label="in proportion to T x T")
        axes.set(xlabel="T", ylabel="cycles a step")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_yticks(cycles, [f"{count:,}" for count in cycles])
        axes.minorticks_off()
        axes.legend(loc="upper right")
    return svg[0]


def clocks(entries: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Bars of (label, MHz ``least``, ``median`` and ``most`` of the seeds)."""
    with figure(6.6, 1.4 * ROW * len(entries) + FRAME) as ((axes,), svg):
        middle = [mhz["median"] for _, mhz in entries]
        ranges = [[mhz["median"] - mhz["least"] for _, mhz in entries],
                  [mhz["most"] - mhz["median"] for _, mhz in entries]]
        axes.barh(range(len(entries)), middle, xerr=ranges, color=COLORS[0], ecolor=INK, height=0.6)
        axes.set(xlabel="clock after routing, MHz: median and range of the seeds")
        axes.set_yticks(range(len(entries)), [label for label, _ in entries])
        axes.set_ylim(len(entries) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
    return svg[0]


def rates(networks: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Groups of bars: images a second in training of every ``series``, by network; logarithmic, 0 is no bar."""
    with figure(7.6, 3.6) as ((axes,), svg):
        width = 0.8 / max(1, len(series))
        for i, (name, heights) in enumerate(series.items()):
            bars = [(n + (i - (len(series) - 1) / 2) * width, height) for n, height in enumerate(heights) if height]
            axes.bar([x for x, _ in bars], [height for _, height in bars], width, label=name,
                     color=COLORS[i % len(COLORS)])
        axes.set(yscale="log", ylabel="images a second in training")
        axes.set_xticks(range(len(networks)), networks)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handlelength=1, columnspacing=1.2)
    return svg[0]
