"""The report of the comparison: Markdown, chart, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from experiments.plots import draw
from shiftgrad.files import write_text
from shiftgrad.plots import COLORS

__all__ = ["write"]

HEAD = """Both units are placed and routed alone on the same device ({device}) by the same tools, with a register at
every pin, seeds {seeds}; the fastest seed counts. Regenerate with `make scaling-unit`.

`batchnorm` (`experiments/batchnorm/unit.py`) is one channel's stream, one element a cycle in each of two passes: sums
of x and x * x, then y = gamma * x_hat + beta; on the way back sums of dy and dy * x_hat, then dx. It has two FP32
adders and two multipliers; mean, variance and 1 / sqrt (three Newton steps) are worked out on the same ones in
between. Round to nearest even; subnormal numbers are zero. Adder, multiplier and the whole unit equal NumPy's float32
operations bit for bit (`tests/test_fp32.py`, `tests/test_batchnorm.py`). No maintained FP32 library in Amaranth or
Verilog was found on PyPI, so these are our own.

`shift` (`experiments/batchnorm/shift.py`) is what the machine does instead, made of the machine's own units: an int32
result is shifted, rounded to nearest even and saturated to int8 while its tensor's largest magnitude is kept; the
exponent follows from its logarithm. `lane` is all of the machine's lane, which also adds bias and residual, applies
ReLU and its mask, and updates momentum and weights with stochastic rounding."""
SPEED = """A tensor of one channel, from its first element to its last result. `shift` takes its shift from the
tensor's history (scale mode `delayed`), so one pass is enough; `own range` (scale mode `current`) needs a pass before
it, as batch normalisation does. Million elements a second are at each unit's own fastest clock."""
POWER = """Nothing was measured in watts. The first two lines count operations by the table of M. Horowitz,
"Computing's energy problem", ISSCC 2014 (45 nm, 0.9 V): FP32 addition 0.9 pJ, FP32 multiplication 3.7, int32 addition
0.1, int8 addition 0.03. Batch normalisation has 3 multiplications and 4 additions an element, the scalars not
counted; a shift, a comparison, a magnitude and a rounding count as an int32 addition each, the saturation as an int8
one. With memory, a bit costs 10/64 pJ (64 bits of 8 KiB): batch normalisation writes x, reads it twice and writes y,
32 bits each; the shifts take their operand from the array and write 8 bits. The third line counts how often
bits of nets change in the synthesised netlists (LUTs, carries, flip-flops; multipliers as LUTs; no glitches) while a
tensor of 1,024 normal numbers goes through forward, everything from the first pass to the last result included; the
results are checked to be the model's. Were all nets alike, energy would be in proportion. The fourth line assumes
that every LUT and flip-flop of a unit costs the same in every cycle it runs; multipliers are left out of it, which
favours batch normalisation."""
ROWS = (
    ("speed", "elements a second, one unit, largest tensor", "> 18"),
    ("speed_own_range", "the same, shifts by the tensor's own range", ""),
    ("speed_smallest_tensor", "the same, smallest tensor", ""),
    ("speed_per_lut", "elements a second for each LUT", ""),
    ("energy_arithmetic", "energy an element, arithmetic", "> 70"),
    ("energy_with_memory", "energy an element, with memory", ""),
    ("energy_by_changes", "energy an element, by changes of nets", ""),
    ("energy_by_cells", "energy an element, by cells and cycles", ""),
    ("lut", "LUTs", ""), ("ff", "flip-flops", ""), ("clock", "clock", ""),
)
DIFFERENCES = """The paper (EOQ, arXiv 2105.13890) gives its factors against "the traditional 32-bit floating-point BN
inference process"; only its abstract's factors are used here, and what its units look like is not known to us.
Neither factor is reached here. Both units of this comparison are pipelined to one element a cycle, so batch
normalisation falls behind by its second pass, its lower clock, and the wait for the scalars, which small tensors feel
most; its square root is worked out once a tensor and costs large ones nothing. Power is energy an element times
elements a second: at equal rates the ratio of the energies is that of the power."""


def text(found: dict[str, Any]) -> str:
    """The report in Markdown."""
    r, e = found["ratios"], found["energy"]["pj_per_element"]
    lines = ["# FP32 batch normalisation beside scaling by shifts", "", HEAD.format(**found), "",
             "| unit alone | LUT | FF | DSP | RAM | MHz | all seeds |", "|---|--:|--:|--:|--:|--:|---|"]
    lines += [f"| `{name}`: {u['what']} | {u['lut']:,} | {u['ff']:,} | {u['dsp']} | {u['bram']} | "
              f"{u['fmax_mhz']:.1f} | {', '.join(f'{mhz:.1f}' for mhz in u['all_fmax_mhz'])} |"
              for name, u in found["units"].items()]
    lines += ["", "![sizes, speeds and energies](scaling-unit.png)", "", "## Speed", "", SPEED, "",
              "| elements | shift | shift, own range | batch norm forward | backward | shift | batch norm forward |",
              "|--:|--:|--:|--:|--:|--:|--:|", "| | cycles | cycles | cycles | cycles | million/s | million/s |"]
    for t in found["tensors"]:
        rate = t["million_elements_per_second"]
        lines.append(f"| {t['elements']:,} | " + " | ".join(f"{count:,}" for count in t["cycles"].values())
                     + f" | {rate['shift']:.1f} | {rate['batchnorm']:.1f} |")
    lines += ["", "## Energy", "", POWER, "", "| pJ an element | batch norm | shift | ratio |", "|---|--:|--:|--:|"]
    for name, what in (("arithmetic", "arithmetic"), ("with_memory", "with memory")):
        lines.append(f"| {what} | {e['batchnorm'][name]:.2f} | {e['shift'][name]:.2f} | {r['energy_' + name]:.1f} |")
    changes = found["energy"]["net_changes_per_element"]
    lines += [f"| changes of nets an element (no pJ) | {changes['batchnorm']:,.0f} | {changes['shift']:,.0f} | "
              f"{r['energy_by_changes']:.1f} |",
              f"| LUTs and flip-flops times cycles, relative (no pJ) | {r['energy_by_cells']:.1f} | 1.0 | "
              f"{r['energy_by_cells']:.1f} |", "", "## Against the paper", "",
              "| how many times the shifts are better | here | paper |", "|---|--:|--:|"]
    lines += [f"| {what} | {r[name]:.1f} | {paper} |" for name, what, paper in ROWS]
    return "\n".join(lines) + "\n\n" + DIFFERENCES + "\n"


def chart(path: Path, found: dict[str, Any]) -> Path:
    """Bars: size, speed, energy."""
    units, rates = found["units"], found["tensors"][-1]["million_elements_per_second"]
    pj = found["energy"]["pj_per_element"]
    groups = (
        ("LUTs and flip-flops", [(n, units[n]["lut"], units[n]["ff"]) for n in ("shift", "lane", "batchnorm")],
         ("LUT", "FF")),
        ("million elements a second", [(n, rates[n], 0) for n in ("shift", "shift_own_range", "batchnorm")], None),
        ("pJ an element (table, 45 nm)", [(n, pj[n]["arithmetic"], pj[n]["with_memory"] - pj[n]["arithmetic"])
                                         for n in ("shift", "batchnorm")], ("arithmetic", "memory")),
    )

    def paint(axes: list[Axes]) -> None:
        for axis, (title, bars, labels) in zip(axes, groups, strict=True):
            names = [name.replace("_", "\n") for name, _, _ in bars]
            first = [value for _, value, _ in bars]
            axis.bar(names, first, color=COLORS[0], width=0.6, label=labels[0] if labels else None)
            if labels:
                axis.bar(names, [value for *_, value in bars], bottom=first, color=COLORS[6], width=0.6,
                         label=labels[1])
                axis.legend()
            axis.set_title(title)
            axis.grid(axis="x", visible=False)

    return draw(path, paint, columns=3, width=11, height=3.6)


def write(found: dict[str, Any], docs: Path) -> list[Path]:
    """``scaling-unit.json``, ``.md`` and ``.png`` in ``docs``."""
    return [write_text(docs / "scaling-unit.json", json.dumps(found, indent=1) + "\n"),
            write_text(docs / "scaling-unit.md", text(found)), chart(docs / "scaling-unit.png", found)]
