"""The machine on silicon: clocks and cells of every board's builds, images a second beside PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shiftgrad import bench_plots, silicon, silicon_speed
from shiftgrad.bench_text import rows
from shiftgrad.build_report import CELLS

__all__ = ["BUILDS", "markdown", "measure", "plots", "summary"]

BUILDS = Path("build/silicon")
NONE = "No board has been placed and routed yet: `make silicon` does it, in hours."
HEAD = """Placed and routed with the open tools (`make silicon`); clocks are what nextpnr's timing analysis reaches
after routing, LUTs and the like are those of the fastest seed. No board was tried."""
SPEED = """Images a second in training. Cycles of a step come from the cycle model, which a test holds to the RTL's own
counters; they are taken at the median clock of the seeds, and the host's transfers are not in them. The serial link of
a board is slower than the machine: its limit is bits a second / 10 / bytes that the host writes for an image, pixels
packed for the first kernel and unused lanes included. PyTorch trains the same network, with the same batch, in FP32 by
SGD with momentum on random data; of {windows} windows of {window:g} s the fastest counts, but measure
on a computer that does nothing else: threads that wait for each other suffer most.

Processor: {name}, {cores} cores; load before the measurement {load}."""


def measure(builds: Path = BUILDS, progress: Callable[[str], None] = print) -> dict[str, Any]:
    """``pairs`` of board and configuration in the folder ``builds``; ``networks``: what each reaches, and PyTorch."""
    from hw.boards import get_board

    pairs = list(silicon.summary(silicon.read(builds)))
    routed, networks = [pair for pair in pairs if pair["fmax_mhz"]], []
    for network, batch in silicon_speed.WORKLOADS if routed else ():
        progress(f"{network.name}, batch {batch}: PyTorch")
        machines = {_name(pair): silicon_speed.machine(pair["config"], network, batch, pair["fmax_mhz"]["median"],
                                                       get_board(pair["board"]).baud) for pair in routed}
        networks.append({"network": network.name, "batch": batch, "machines": machines,
                         "torch": [silicon_speed.torch_rate(network, batch, count)
                                   for count in sorted({1, os.cpu_count() or 1})]})
    return {"pairs": pairs, "processor": silicon_speed.processor(), "networks": networks}


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that count, a line each."""
    lines = []
    for pair in found["pairs"]:
        if mhz := pair["fmax_mhz"]:
            cells = ", ".join(f"{pair[kind]:,} {kind.upper()}" for kind in CELLS)
            lines.append(f"{pair['board']}, {pair['config']}: {mhz['median']:.1f} MHz, median of {pair['routed']} seeds"
                         f"; {cells}")
        else:
            lines.append(f"{pair['board']}, {pair['config']}: not routed")
    return lines or [NONE]


def markdown(found: dict[str, Any]) -> str:
    """The figures as tables."""
    if not found["pairs"]:
        return NONE
    head = ["board", "device", "configuration", "seeds", "MHz: median (least to most)", "LUT", "FF", "DSP", "RAM"]
    speeds = ["network, batch", "on", "MHz", "cycles a step", "array busy", "images a second", "over the serial link",
              "of PyTorch, fastest"]
    text = SPEED.format(windows=silicon_speed.WINDOWS, window=silicon_speed.WINDOW, **found["processor"])
    return "\n\n".join((HEAD, rows(head, [_pair(pair) for pair in found["pairs"]]), text,
                        rows(speeds, [line for entry in found["networks"] for line in _network(entry)])))


def plots(found: dict[str, Any]) -> dict[str, str | bytes]:
    """Clocks and images a second, SVG; the placed design of every pair's fastest seed, PNG."""
    routed = [pair for pair in found["pairs"] if pair["fmax_mhz"]]
    if not routed:
        return {}
    placed = {f"placed-{_name(pair)}": Path(pair["picture"]) for pair in routed}
    return {"clocks": bench_plots.clocks([(_name(pair), pair["fmax_mhz"]) for pair in routed]),
            "rates": bench_plots.rates([entry["network"] for entry in found["networks"]], _series(found["networks"])),
            **{name: path.read_bytes() for name, path in placed.items() if path.exists()}}


def _name(pair: dict[str, Any]) -> str:
    return f"{pair['board']}-{pair['config']}"


def _threads(rate: dict[str, Any]) -> str:
    return f"{rate['threads']} thread{'s' * (rate['threads'] > 1)}"


def _pair(pair: dict[str, Any]) -> list[str]:
    start = [f"`{pair['board']}`", pair.get("device", ""), f"`{pair['config']}`", str(len(pair["seeds"]))]
    if not pair["fmax_mhz"]:
        return [*start, f"not routed: {pair['errors'][0].split(' (see ')[0]}", "", "", "", ""]
    mhz = pair["fmax_mhz"]
    missing = f"; {pair['routed']} of {len(pair['seeds'])} routed" if pair["errors"] else ""
    return [*start, f"{mhz['median']:.1f} ({mhz['least']:.1f} to {mhz['most']:.1f}{missing})",
            *(_cells(pair[kind], pair["available"].get(kind)) for kind in CELLS)]


def _cells(used: int, available: int | None) -> str:
    """Cells in use, and of how many where those are counted apart."""
    return f"{used:,} ({100 * used / available:.0f} %)" if available else f"{used:,}"


def _network(entry: dict[str, Any]) -> list[list[str]]:
    name, lines = f"{entry['network']}, {entry['batch']}", []
    torch = [t for t in entry["torch"] if t]
    most = max((t["images_a_second"] for t in torch), default=None)
    for pair, m in entry["machines"].items():
        if "reason" in m:
            lines.append([name, f"`{pair}`", "", m["reason"], "", "", "", ""])
            continue
        lines.append([name, f"`{pair}`", f"{m['mhz']:.1f}", f"{m['cycles']:,}", f"{100 * m['utilisation']:.1f} %",
                      f"{m['images_a_second']:,.0f}", f"{m['link_images_a_second']:,.0f}",
                      f"{m['images_a_second'] / most:.2f} x" if most else ""])
    return lines + [[name, f"PyTorch {t['torch']}, {_threads(t)}", "", "", "",
                     f"{t['images_a_second']:,.0f}", "", ""] for t in torch]


def _series(networks: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Images a second of each machine and of PyTorch, by network; 0 where there is none."""
    series: dict[str, list[float]] = {}
    for i, entry in enumerate(networks):
        values = {pair: m["images_a_second"] for pair, m in entry["machines"].items() if "reason" not in m}
        values |= {f"PyTorch, {_threads(t)}": t["images_a_second"]
                   for t in entry["torch"] if t}
        for name, value in values.items():
            series.setdefault(name, [0.0] * len(networks))[i] = value
    return series
