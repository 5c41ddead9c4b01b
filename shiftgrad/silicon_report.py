"""The report of the machine on silicon: clocks and cells by board, images a second beside PyTorch."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shiftgrad import silicon_speed
from shiftgrad.bitstream import CELLS
from shiftgrad.files import write_bytes, write_text
from shiftgrad.plots import COLORS, STYLE
from shiftgrad.silicon import Progress, summary

__all__ = ["figures", "write"]

HEAD = """# The machine on silicon

Placed and routed with the open tools; clocks are what nextpnr's timing analysis reaches after routing, LUTs and the
like are those of the fastest seed. No board was tried. Regenerate with `make silicon` (hours; finished builds are
kept).
"""
SPEED = """Images a second in training. Cycles of a step come from the cycle model, which a test holds to the RTL's own
counters; they are taken at the median clock of the seeds, and the host's transfers are not in them. The serial link of
a board is slower than the machine: its limit is bits a second / 10 / bytes an image. PyTorch trains the same network,
with the same batch, in FP32 by SGD with momentum on random data; of {windows} windows of {window:g} s the fastest
counts, but measure on a computer that does nothing else: threads that wait for each other suffer most.

Processor: {name}, {cores} cores; load before the measurement {load}.
"""


def figures(results: Sequence[dict[str, Any]], progress: Progress) -> dict[str, Any]:
    """Pairs of board and configuration, and what the networks of ``WORKLOADS`` reach on each and on this processor."""
    from hw.boards import get_board

    pairs = list(summary(results))
    processor, networks = silicon_speed.processor(), []
    for network, batch in silicon_speed.WORKLOADS:
        progress(f"{network.name}, batch {batch}: PyTorch")
        threads = sorted({1, os.cpu_count() or 1})
        machines = {f"{p['board']}-{p['config']}": silicon_speed.machine(
            p["config"], network, batch, p["fmax_mhz"]["median"], get_board(p["board"]).baud)
            for p in pairs if p["fmax_mhz"]}
        networks.append({"network": network.name, "batch": batch, "machines": machines,
                         "torch": [silicon_speed.torch_rate(network, batch, count) for count in threads]})
    return {"pairs": pairs, "processor": processor, "networks": networks}


def text(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [HEAD, "| board | device | configuration | seeds | MHz: median (least to most) | LUT | FF | DSP | RAM |",
             "|---|---|---|--:|---|--:|--:|--:|--:|"]
    for pair in found["pairs"]:
        start = f"| `{pair['board']}` | {pair.get('device', '')} | `{pair['config']}` | {len(pair['seeds'])} |"
        if not pair["fmax_mhz"]:
            lines.append(f"{start} not routed: {pair['errors'][0].split(' (see ')[0]} | | | | |")
            continue
        mhz = pair["fmax_mhz"]
        cells = " | ".join(f"{pair[k]:,} ({100 * pair[k] / pair['available'][k]:.0f} %)" for k in CELLS)
        missing = f"; {pair['routed']} of {len(pair['seeds'])} routed" if pair["errors"] else ""
        lines.append(f"{start} {mhz['median']:.1f} ({mhz['least']:.1f} to {mhz['most']:.1f}{missing}) | {cells} |")
    lines += ["", "![clocks and images a second](silicon.png)", "", "## Speed", "", SPEED.format(
        windows=silicon_speed.WINDOWS, window=silicon_speed.WINDOW, **found["processor"]),
        "| network, batch | on | MHz | cycles a step | array busy | images a second | over the serial link | "
        "of PyTorch, fastest |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    for entry in found["networks"]:
        lines += _network(entry)
    return "\n".join(lines) + "\n"


def _network(entry: dict[str, Any]) -> list[str]:
    name, lines = f"{entry['network']}, {entry['batch']}", []
    torch = [t for t in entry["torch"] if t]
    most = max((t["images_a_second"] for t in torch), default=None)
    for pair, m in entry["machines"].items():
        if m is None:
            lines.append(f"| {name} | `{pair}` | | does not fit | | | | |")
            continue
        times = f"{m['images_a_second'] / most:.2f} x" if most else ""
        lines.append(f"| {name} | `{pair}` | {m['mhz']:.1f} | {m['cycles']:,} | {100 * m['utilisation']:.1f} % | "
                     f"{m['images_a_second']:,.0f} | {m['link_images_a_second']:,.0f} | {times} |")
    return lines + [f"| {name} | PyTorch {t['torch']}, {t['threads']} thread{'s' * (t['threads'] > 1)} | | | | "
                    f"{t['images_a_second']:,.0f} | | |" for t in torch]


def chart(found: dict[str, Any]) -> bytes:
    """Clocks by pair, every seed's range; images a second by network."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _clocks(left, [p for p in found["pairs"] if p["fmax_mhz"]])
        _rates(right, found["networks"])
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=120, metadata={"Software": None})
    return png.getvalue()


def _clocks(axes: Axes, pairs: Sequence[dict[str, Any]]) -> None:
    middle = [p["fmax_mhz"]["median"] for p in pairs]
    below = [p["fmax_mhz"]["median"] - p["fmax_mhz"]["least"] for p in pairs]
    above = [p["fmax_mhz"]["most"] - p["fmax_mhz"]["median"] for p in pairs]
    axes.barh([f"{p['board']}\n{p['config']}" for p in pairs], middle, xerr=[below, above], color=COLORS[0], height=0.6)
    axes.set(title="clock after routing, MHz: median and range of the seeds")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def _rates(axes: Axes, networks: Sequence[dict[str, Any]]) -> None:
    series: dict[str, list[float]] = {}
    for i, entry in enumerate(networks):
        values = {pair: m["images_a_second"] for pair, m in entry["machines"].items() if m}
        values |= {f"PyTorch, {t['threads']} thread{'s' * (t['threads'] > 1)}": t["images_a_second"]
                   for t in entry["torch"] if t}
        for name, value in values.items():
            series.setdefault(name, [0.0] * len(networks))[i] = value
    width = 0.8 / max(1, len(series))
    for i, (name, heights) in enumerate(series.items()):
        axes.bar([n + (i - (len(series) - 1) / 2) * width for n in range(len(networks))], heights, width, label=name,
                 color=COLORS[i % len(COLORS)])
    axes.set(title="images a second in training", xticks=range(len(networks)),
             xticklabels=[entry["network"] for entry in networks])
    axes.grid(axis="x", visible=False)
    axes.legend()


def write(found: dict[str, Any], docs: Path) -> list[Path]:
    """``silicon.json``, ``.md`` and ``.png`` in ``docs``."""
    return [write_text(docs / "silicon.json", json.dumps(found, indent=1) + "\n"),
            write_text(docs / "silicon.md", text(found)), write_bytes(docs / "silicon.png", chart(found))]
