"""docs/results/experiments.md, its numbers as JSON, and the charts: whatever is measured so far."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments import plots
from experiments.grid import CONFIG, STUDIES, TITLES, UNSIGNED, VARIANTS, Study, jobs, taken
from experiments.store import Store
from shiftgrad.files import write_text

__all__ = ["write"]

INTRODUCTION = """# Accuracy over batch sizes: int8 beside float

Measured by

    make experiments MNIST=DIR CIFAR10=DIR

(`TAKE=docs/results/experiments.json` goes on from the runs below instead of repeating them.)

`int8, Fixup` is the golden machine ({config}), which the RTL equals bit for bit: weights, activations, errors and
momentum int8, no float in the loop. Its exponents come from the last eight steps (scale mode `delayed`); `current` is
the other mode, each tensor's own maximum, which `shiftgrad train` takes for residual networks at batch 1 and 2: there
one sample's errors outrun the history. `FP32, Fixup` is the same network with the same initial weights in PyTorch,
float32 throughout; `FP32, batch norm` has the same convolutions, He's initial weights and batch normalisation instead
of Fixup's scalars. All see the same samples in the same order, train by momentum 7/8 without weight decay, and divide
the learning rate by four for the last 30 % of the steps. Epochs are twice as many at batch 32 and four times as many at
128: a Fixup network needs some hundred steps before it starts to learn.

Learning rates are powers of two: 2^-4 from batch 8 up, below that in proportion to the batch size, the same for every
variant; networks of more than three blocks take half of that. On digits with 3 blocks and 15 epochs each variant takes
the best of three around that by one seed's accuracy, on an eighth of the training images kept apart, in shorter runs;
at batch 128, where those would end before a Fixup network learns, in runs of full length. On MNIST shorter runs chose
badly: they prefer the largest rate, with which FP32 Fixup then diverges, so no other study chooses. Held-out images
choose no learning rate, but the range of rates was set in four rounds of looking at runs on digits, their held-out
figures included: FP32 Fixup diverges at twice the largest rate of batch 1, 32 and 128.

In deep networks and for CIFAR-10 int8 tensors that start at zero have He's range instead of a quarter (`zero_range`).
Two changes were made after looking at runs, which were thrown away: on digits with 9 blocks 3 of 13 runs of FP32 Fixup
at the full rate diverged, and 5 of 13 of int8 diverged or learned late; at the half rate, with a quarter of the range,
1 of 13 int8 runs diverged and 1 learned late, none of FP32's 13. On CIFAR-10 eight int8 runs with a quarter of the
range were up to six points behind FP32 Fixup (docs/numerics.md has them). A third change threw nothing away: `current`
was added at batch 1 and 2 when MNIST with 9 blocks was seen to be points behind at batch 1. A fourth added runs, too:
`unsigned ReLU` is the machine {config}_unsigned, on which results of ReLU are 0 to 255 instead of 0 to 127, in the
scale mode that training takes, on CIFAR-10, where int8 was behind and that bit found missing (docs/numerics.md).

int8 at batch 128 is missing for CIFAR-10: the machine counts up to 65,535 pixels in a batch. Figures are held-out
accuracies after the last epoch, in per cent: median over the seeds (lowest to highest). Bold: the best median of a row.
int8 less FP32 Fixup is of the scale mode that `shiftgrad train` takes, and of the seeds run with both. Learning rates
are in the order of the columns.
"""
TITLE = {"digits": "scikit-learn's digits", "mnist14": "MNIST at 14 x 14", "cifar10": "CIFAR-10"}


def write(store: Store, docs: Path) -> list[Path]:
    """Write everything into ``docs``; the paths."""
    written, text, kept = [], "", []
    for study in STUDIES:
        everything = _results(store, study)
        if all(result["tunes"] for result in everything):
            continue
        kept += everything
        results = [result for result in everything if not result["tunes"]]
        text += f"\n## {_title(study)}\n\n" + _facts(store, study, results) + "\n" + "\n".join(_table(results)) + "\n"
        for name, plot in (("batch", plots.batch_sizes), ("curves", plots.curves)):
            written.append(plot(docs / f"experiments-{study.name}-{name}.png", results, _title(study)))
            text += f"\n![{_title(study)}]({written[-1].name})\n"
    head = INTRODUCTION.format(config=CONFIG)
    entries = [{k: v for k, v in r.items() if k != "last_session_seconds"} for r in kept]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    return [write_text(docs / "experiments.md", head + text), write_text(docs / "experiments.json", f"[{lines}]\n"),
            *written]


def _results(store: Store, study: Study) -> list[dict[str, Any]]:
    found = (store.result(job) for job in jobs(study))
    return [result for result in found if result]


def _title(study: Study) -> str:
    return f"{TITLE[study.dataset]}, {study.blocks} blocks, {study.epochs} epochs"


def _facts(store: Store, study: Study, results: list[dict[str, Any]]) -> str:
    wanted = sum(not job.tunes for job in jobs(study))
    widths = "-".join(map(str, dict.fromkeys(study.channels)))
    first = results[0]
    text = (f"{study.blocks} residual blocks of {widths} channels, {study.network.parameters:,} parameters; "
            f"{first['train_samples']:,} images to train, {first['test_samples']:,} held out. ")
    text += f"{len(results)} of {wanted} runs are done.\n" if len(results) < wanted else f"{wanted} runs.\n"
    return text


def _table(results: list[dict[str, Any]]) -> Iterator[str]:
    run = {r["variant"] for r in results}
    variants = [v for v in VARIANTS if v in run]
    yield "| batch | " + " | ".join(TITLES[v] for v in variants) + " | int8 less FP32 Fixup | " + (
        "unsigned less FP32 Fixup | " if UNSIGNED in run else "") + "learning rates |"
    yield "|" + "---|" * (len(variants) + 3 + (UNSIGNED in run))
    for batch in sorted({r["batch"] for r in results}):
        of = {v: [r for r in results if (r["variant"], r["batch"]) == (v, batch)] for v in variants}
        median = {v: 100 * float(np.median([r["accuracy"] for r in runs])) for v, runs in of.items() if runs}
        cells = [_cell(of[v], median.get(v), best=median.get(v) == max(median.values())) for v in variants]
        for int8 in (taken(batch), *[UNSIGNED] * (UNSIGNED in run)):
            cells.append(_less(of.get(int8, []), of.get("fp32_fixup", [])))
        rates = ", ".join(f"2^-{of[v][0]['lr_shift']}" for v in variants if of[v])
        yield f"| {batch} | " + " | ".join([*cells, rates]) + " |"


def _less(runs: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    """How far apart the medians over the seeds of both are."""
    seeds = {r["seed"] for r in runs} & {r["seed"] for r in others}
    if not seeds:
        return ""
    one, other = (np.median([100 * r["accuracy"] for r in found if r["seed"] in seeds]) for found in (runs, others))
    return f"{one - other:+.2f}"


def _cell(runs: list[dict[str, Any]], median: float | None, *, best: bool) -> str:
    if median is None:
        return ""
    values = [100 * r["accuracy"] for r in runs]
    shown = f"**{median:.2f}**" if best else f"{median:.2f}"
    return f"{shown} ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else f"{shown} (one seed)"
