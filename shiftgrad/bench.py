"""The benchmark: parts that measure something each, and one folder with what they found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftgrad import bench_loading, bench_network, bench_products, bench_scaling, bench_silicon, bench_speed
from shiftgrad.config import get_config
from shiftgrad.files import check_writable, write_bytes, write_text

__all__ = ["PARTS", "Part", "Settings", "run"]

SCALING = ("sim_4x4_large", "sim_8x8_large", "sim_16x16_large")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What was asked for.

    Parameters
    ----------
    progress : called with one line at a time
    config : machine of the products, the network or the simulation's speed; None: the part's own
    device : as of ``shiftgrad train``
    sizes, depths : of single products: m and n, and k
    seed : of the random data
    builds : folder of the finished builds of boards
    """

    progress: Callable[[str], None]
    config: str | None = None
    device: str = "verilator"
    sizes: tuple[int, ...] = (64, 128)
    depths: tuple[int, ...] = (64, 128, 256)
    seed: int = 0
    builds: Path = bench_silicon.BUILDS


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing to measure.

    Parameters
    ----------
    title : heading in ``bench.md``
    measure : figures in plain types, ready for ``json.dumps``
    summary, markdown, plots : of those figures: lines, text below the heading, pictures by name (SVG text or PNG bytes)
    """

    title: str
    measure: Callable[[Settings], dict[str, Any]]
    summary: Callable[[dict[str, Any]], list[str]]
    markdown: Callable[[dict[str, Any]], str]
    plots: Callable[[dict[str, Any]], Mapping[str, str | bytes]]


def _products(s: Settings) -> dict[str, Any]:
    return bench_products.measure(get_config(s.config or "sim_8x8_large"), device=s.device, sizes=s.sizes,
                                  depths=s.depths, seed=s.seed, progress=s.progress)


def _network(s: Settings) -> dict[str, Any]:
    return bench_network.measure(get_config(s.config or "sim_8x8_large"), device=s.device, seed=s.seed,
                                 progress=s.progress)


def _scaling(s: Settings) -> dict[str, Any]:
    return bench_scaling.measure([get_config(name) for name in SCALING], device=s.device, seed=s.seed,
                                 progress=s.progress)


def _speed(s: Settings) -> dict[str, Any]:
    return bench_speed.measure(get_config(s.config or "sim_12x12"), get_config("sim_8x8_large"), seed=s.seed,
                               progress=s.progress)


def _loading(s: Settings) -> dict[str, Any]:
    return bench_loading.measure(s.config or "sim_4x4", "ulx3s_25f", seed=s.seed, progress=s.progress)


def _silicon(s: Settings) -> dict[str, Any]:
    return bench_silicon.measure(s.builds, s.progress)


PARTS = {
    "products": Part(title="Products and a dense step", measure=_products, summary=bench_products.summary,
                     markdown=bench_products.markdown, plots=bench_products.plots),
    "network": Part(title="A residual network's step", measure=_network, summary=bench_network.summary,
                    markdown=bench_network.markdown, plots=bench_network.plots),
    "scaling": Part(title="The same step on larger arrays", measure=_scaling, summary=bench_scaling.summary,
                    markdown=bench_scaling.markdown, plots=bench_scaling.plots),
    "speed": Part(title="Speed of the simulation", measure=_speed, summary=bench_speed.summary,
                  markdown=bench_speed.markdown, plots=bench_speed.plots),
    "loading": Part(title="The next mini-batch", measure=_loading, summary=bench_loading.summary,
                    markdown=bench_loading.markdown, plots=bench_loading.plots),
    "silicon": Part(title="On silicon", measure=_silicon, summary=bench_silicon.summary,
                    markdown=bench_silicon.markdown, plots=bench_silicon.plots),
}


def run(out: Path, parts: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Measure ``parts`` one after the other; ``bench.json``, ``bench.md`` and charts in ``out``.

    Parts measured before, and not now, stay in the files. They are written after every part.

    Returns
    -------
    dict
        the figures of the parts measured now, by part
    """
    path = out / "bench.json"
    check_writable(path)
    known = json.loads(path.read_text()) if path.exists() else {}
    for name in parts:
        known[name] = PARTS[name].measure(settings)
        _write(out, {part: known[part] for part in PARTS if part in known})
        for line in PARTS[name].summary(known[name]):
            settings.progress(line)
    return {name: known[name] for name in parts}


def _write(out: Path, found: dict[str, dict[str, Any]]) -> None:
    sections = ["# Measured"]
    for name, figures in found.items():
        part, images = PARTS[name], []
        for chart, picture in part.plots(figures).items():
            path = (write_bytes(out / f"{chart}.png", picture) if isinstance(picture, bytes)
                    else write_text(out / f"{chart}.svg", picture))
            images.append(f"![{chart}]({path.name})")
        lines = "\n".join(f"- {line}" for line in part.summary(figures))
        sections += [f"## {part.title}", lines, part.markdown(figures), *images]
    write_text(out / "bench.json", json.dumps(found, indent=1) + "\n")
    write_text(out / "bench.md", "\n\n".join(sections) + "\n")
