"""A training run as one self-contained HTML page."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources
from string import Template
from typing import Any

from shiftgrad import plots
from shiftgrad.record import PHASES, History

__all__ = ["render"]


def render(result: dict[str, Any], history: History, final_line: str) -> str:
    """The page.

    Parameters
    ----------
    result : the figures of ``shiftgrad train --json``
    history : figures by step, sample and epoch
    final_line : what the command said last
    """
    template = Template((resources.files("shiftgrad") / "report_template.html").read_text("utf-8"))
    return template.substitute(
        title=escape(f"{result['network']} on {result['config']}"),
        subtitle=escape(f"{result['dataset']}, {result['train_samples']:,} samples to train and "
                        f"{result['test_samples']:,} held out; every tensor int8, on the {_device(result)}"),
        tiles="".join(_tile(*tile) for tile in _tiles(result)),
        sections="\n".join(_sections(result, history)),
        final_line=escape(final_line),
    )


def _device(result: dict[str, Any]) -> str:
    kind = result["device"].partition(":")[0]
    return {"golden": "golden machine (NumPy)", "verilator": "RTL in Verilator"}.get(kind, "board")


def _tile(value: str, label: str, mood: str = "") -> str:
    return f'<div class="tile {mood}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _tiles(result: dict[str, Any]) -> list[tuple[str, ...]]:
    compared, mismatches = result["compared_instructions"], result["mismatches"]
    busy = result["utilization"]["step"]
    return [
        (f"{100 * result['accuracy']:.2f} %", "held-out accuracy"),
        (f"{result['steps']:,}", "training steps"),
        (f"{compared:,}", "instructions compared with the golden machine"),
        (f"{mismatches:,}", "mismatches", "bad" if mismatches else "good" if compared else ""),
        (f"{100 * busy:.1f} %" if busy is not None else "-", "of the array's peak, whole step"),
    ]


def _image(svg: str, alt: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def _section(title: str, note: str, body: str, wide: bool = False) -> str:
    css = ' class="wide"' if wide else ""
    return f'<section{css}><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{body}</section>'


def _sections(result: dict[str, Any], history: History) -> list[str]:
    parts = []
    if history.loss:
        parts.append(_section("Loss", "Integer softmax cross-entropy, as the machine reports it.",
                              _image(plots.loss(history), "loss over steps")))
    if history.epochs:
        parts.append(_section("Accuracy", "Held-out samples never reach the training program.",
                              _image(plots.accuracy(history), "accuracy over steps")))
    if history.sampled:
        note = f"Chosen by the machine; sampled every {result['sample_every']} steps. Weights and biases keep theirs."
        parts.append(_section("Exponents", note, _image(plots.exponents(history), "exponents over steps"), wide=True))
    if history.saturation:
        parts.append(_section("Saturation", "Mantissas beyond 127 when requantised; a few are by design.",
                              _image(plots.saturation(history), "saturated mantissas by phase")))
    if result["cycles"]:
        bars = _image(plots.utilisation(result["utilization"]), "utilisation by phase")
        bars += _image(plots.cycles_by_cause(result["counters"]), "busy cycles by cause")
        parts.append(_section("Utilisation", "Useful multiply-accumulates over the peak, and where cycles went.", bars))
        note = f"The machine's own counters over {result['metered_steps']:,} training steps; host transfers apart."
    else:
        note = "Only hardware and the simulated RTL count cycles; this run's device does not."
    parts.append(_section("Work", note, _work_table(result), wide=bool(result["cycles"] or not history.saturation)))
    parts.append(_section("Run", "What reproduces it.", _facts(result), wide=True))
    return parts


def _work_table(result: dict[str, Any]) -> str:
    counters, cycles = result["counters"], result["cycles"]
    steps = max(1, result["metered_steps"])
    rows = [(name, counters.get(f"{prefix}_CYCLES", 0), counters.get(f"{prefix}_MACS", 0))
            for name, prefix in PHASES.items()]
    rows += [("vector unit", counters.get("VECTOR_CYCLES", 0), 0)] * bool(counters.get("VECTOR_CYCLES"))
    rows += [("loss and control", counters.get("OTHER_CYCLES", 0), 0), ("step", cycles or 0, result["macs"])]
    head = "<tr><th>phase</th><th>cycles a step</th><th>MACs a step</th><th>of peak</th></tr>"
    return f"<table>{head}{''.join(_row(name, c / steps, m / steps, result) for name, c, m in rows)}</table>"


def _row(name: str, cycles: float, macs: float, result: dict[str, Any]) -> str:
    share = result["utilization"].get(name)
    cells = (f"{cycles:,.0f}" if result["cycles"] else "-", f"{macs:,.0f}" if macs else "-",
             f"{100 * share:.1f} %" if share is not None else "-")
    return f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _facts(result: dict[str, Any]) -> str:
    rate = f"2^-{result['lr_shift']}, halved after {', '.join(f'{100 * d:g} %' for d in result['drops']) or 'never'}"
    facts = {
        "network": result["network"], "parameters": f"{result['parameters']:,}", "configuration": result["config"],
        "device": result["device"], "data set": result["dataset"], "batch": result["batch"], "epochs": result["epochs"],
        "learning rate": rate, "momentum": "7/8", "scale": result["scale"], "seed": result["seed"],
        "held-out loss": f"{result['loss']:.4f} nats", "time": f"{result['seconds']:.1f} s",
        "steps a second": f"{result['steps'] / result['seconds']:.1f}" if result["seconds"] else "-",
        "augmentation": _augmentation(result),
        "resumed from step": result["resumed_from_step"] or "-", "multiply-accumulates": f"{result['macs']:,}",
    }
    entries = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{entries}</dl>'


def _augmentation(result: dict[str, Any]) -> str:
    parts = ["flips"] * result["flip"] + [f"shifts to {result['shift']} pixels"] * bool(result["shift"])
    return " and ".join(parts) or "-"
