"""What there is to choose from, for ``shiftgrad info``."""

from __future__ import annotations

import math
from typing import Any

from shiftgrad.config import CONFIGS, MEMORIES, get_config
from shiftgrad.datasets import DATASETS
from shiftgrad.recipes import CLASSES, HIDDEN, MODELS, SHAPES, hyper_of

__all__ = ["everything", "machine", "text"]


def machine(name: str) -> dict[str, Any]:
    """The numbers of configuration ``name``: T, peak, and each memory's words and bytes."""
    config = get_config(name)
    memories = {m: {"words": config.words(m), "bytes": config.words(m) * config.size * config.lane_bytes(m)}
                for m in MEMORIES}
    return {"config": name, "size": config.size, "macs_per_cycle": config.macs_per_cycle, "bytes": config.bytes_total,
            "memories": memories, "program_words": config.program_words, "tensors": config.tensors,
            "classes": config.classes, "unsigned": config.unsigned, "virtual": config.virtual}


def everything() -> dict[str, Any]:
    """Configurations, data sets with their defaults, models, devices and boards."""
    from hw.boards import board_names, get_board

    data = {name: {"shape": list(SHAPES[name]), "inputs": math.prod(SHAPES[name]), "classes": CLASSES, "flip": False,
                   "shift": 0, **hyper_of(name, "mlp"), "hidden": list(HIDDEN[name])} for name in DATASETS}
    boards = {board.name: {"config": board.config, "clock_mhz": board.clock_hz / 1e6}
              for board in map(get_board, board_names())}
    return {"configs": {name: machine(name) for name in CONFIGS}, "datasets": data, "models": list(MODELS),
            "devices": ["golden", "verilator", "board:NAME", "serial:PORT"], "boards": boards}


def text(facts: dict[str, Any]) -> str:
    """:func:`machine` or :func:`everything` as text tables."""
    if "configs" not in facts:
        return _machine_text(facts)
    lines = [f"{'configuration':24}{'array':>8}{'MAC/cycle':>11}" + "".join(f"{m + ' KiB':>9}" for m in MEMORIES)]
    for name, entry in facts["configs"].items():
        kib = "".join(f"{entry['memories'][m]['bytes'] / 1024:9.0f}" for m in MEMORIES)
        note = "  unsigned ReLU" * entry["unsigned"] + "  golden machine only" * entry["virtual"]
        lines.append(f"{name:24}{entry['size']:>5}x{entry['size']:<2}{entry['macs_per_cycle']:11}{kib}{note}")
    lines += ["", f"{'data set':16}{'inputs':>8}{'classes':>9}  defaults"]
    for name, entry in facts["datasets"].items():
        hidden = ",".join(map(str, entry["hidden"]))
        lines.append(f"{name:16}{entry['inputs']:8}{entry['classes']:9}  --hidden {hidden} --batch {entry['batch']} "
                     f"--epochs {entry['epochs']}{' --flip' * entry['flip']}")
    lines += ["", f"{'board':16}{'clock':>11}  configuration"]
    lines += [f"{name:16}{entry['clock_mhz']:7.1f} MHz  {entry['config']}" for name, entry in facts["boards"].items()]
    lines += ["", f"models: {', '.join(facts['models'])}", f"devices: {', '.join(facts['devices'])}"]
    return "\n".join(lines)


def _machine_text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['config']}: {facts['size']} x {facts['size']} array, {facts['macs_per_cycle']} MAC a cycle, "
             f"{facts['bytes'] / 1024:.0f} KiB", "", f"{'memory':10}{'words':>8}{'bytes':>10}"]
    lines += [f"{name:10}{entry['words']:8}{entry['bytes']:10}" for name, entry in facts["memories"].items()]
    lines += ["", *(f"{key.replace('_', ' '):16}{facts[key]}" for key in ("program_words", "tensors", "classes"))]
    return "\n".join(lines)
