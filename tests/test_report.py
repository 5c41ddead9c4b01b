"""The report: one file, whole, and honest about what a device cannot count."""

import base64
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from shiftgrad import plots, report
from shiftgrad.record import PHASES, Epoch, History, Totals

FINAL = "held-out accuracy 97.50 %, 600 steps, 4,800 instructions compared, 0 mismatches"


class Page(HTMLParser):
    """Checks that tags balance and collects what refers elsewhere."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def history(steps: int = 600, seed: int = 5) -> History:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    loss = (2 * np.exp(-np.arange(steps) / 90) + rng.uniform(0, 0.1, steps)).tolist()
    made = History(lr_extra=[0] * (steps // 2) + [1] * (steps - steps // 2))
    for step in range(steps):
        made.loss.append(loss[step])
        made.accuracy.append(1 - loss[step] / 3)
        if step % 20 == 0:
            made.sample({"fc1.out": -5, "fc1.error": -7, "fc1.momentum": -6 - step // 200, "fc1.bias_momentum": -6},
                        {"forward": 0.01, "backward": 0.0, "gradient": 0.002})
    made.epochs += [Epoch(epoch=e, step=100 * e, train_loss=1 / e, train_accuracy=1 - 0.3 / e, loss=1.1 / e,
                          accuracy=1 - 0.35 / e) for e in range(1, steps // 100 + 1)]
    return made


def result(counted: bool = True, **changes: Any) -> dict[str, Any]:
    causes = {"FEED": 400, "RANGE": 1, "DRAIN": 9, "TAIL": 60, "SETUP": 30, "LOSS": 50}
    counters = {f"{p}_MACS": 6400 for p in PHASES.values()}
    if counted:
        counters |= {f"{p}_CYCLES": 150 for p in PHASES.values()} | {"OTHER_CYCLES": 100}
        counters |= {f"{cause}_CYCLES": value for cause, value in causes.items()}
    totals = Totals(counters=counters, metered=1, compared_instructions=4800, seconds=2.0)
    return {
        "accuracy": 0.975, "loss": 0.081, "steps": 600, "compared_instructions": 4800, "mismatches": 0,
        "cycles": totals.cycles or None, "macs": totals.macs, "metered_steps": 1, "utilization": totals.utilisation(64),
        "counters": counters, "seconds": 2.0, "device": "verilator", "network": "mlp-64-48-10", "parameters": 3610,
        "config": "sim_8x8", "dataset": "digits", "train_samples": 1437, "test_samples": 360, "batch": 16, "epochs": 6,
        "lr_shift": 4, "drops": [0.5], "scale": "delayed", "seed": 0, "sample_every": 20, "resumed_from_step": 0,
        "flip": False, "shift": 0,
        **changes,
    }


def images(page: str) -> list[ElementTree.Element]:
    coded = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [ElementTree.fromstring(base64.b64decode(data)) for data in coded]


def test_one_whole_file() -> None:
    page = report.render(result(), history(), FINAL)
    assert all(source.startswith("data:") for source in Page(page).sources)
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert len(images(page)) == 6
    for text in (FINAL, "97.50 %", "4,800", "mlp-64-48-10 on sim_8x8", "2^-4, halved after 50 %"):
        assert text in page


@pytest.mark.parametrize(
    ("flip", "shift", "words"),
    [(False, 0, "-"), (True, 0, "flips"), (False, 2, "shifts to 2 pixels"), (True, 3, "flips and shifts to 3 pixels")])
def test_augmentation(flip: bool, shift: int, words: str) -> None:
    page = report.render(result(flip=flip, shift=shift), History(), FINAL)
    assert f"<dt>augmentation</dt><dd>{words}</dd>" in page


def test_charts_say_what_they_show() -> None:
    page = report.render(result(), history(), FINAL)
    texts = ["".join(svg.itertext()) for svg in images(page)]
    for svg, words in zip(texts, (
        ("cross-entropy", "held out", "learning rate halved"), ("accuracy, %", "training"),
        ("activations", "errors", "momentum of weights", "fc1"), ("saturated mantissas", "backward"),
        ("66.7 %", "54.5 %"), ("array fed 72.7 %", "loss unit 9.1 %"),
    ), strict=True):
        assert all(word in svg for word in words), words


def test_a_device_without_cycles() -> None:
    page = report.render(result(counted=False, device="golden"), history(), FINAL)
    Page(page)
    assert len(images(page)) == 4 and "device does not" in page
    assert "<b>-</b>" in page and "6,400" in page


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_short_runs(steps: int) -> None:
    Page(report.render(result(seconds=0.0), history(steps), FINAL))


def test_mismatches_are_marked() -> None:
    none = History()
    assert 'class="tile bad"><b>3</b>' in report.render(result(mismatches=3), none, FINAL)
    assert 'class="tile good"><b>0</b>' in report.render(result(), none, FINAL)
    unmarked = report.render(result(compared_instructions=0), none, FINAL)
    assert 'class="tile "><b>0</b><span>mismatches' in unmarked


def test_markup_is_escaped() -> None:
    page = report.render(result(network="<script>&", device="serial:<x>"), history(), "a < b")
    Page(page)
    assert "<script>" not in page and "&lt;script&gt;&amp;" in page and "a &lt; b" in page


def test_equal_runs_give_equal_pages() -> None:
    assert report.render(result(), history(), FINAL) == report.render(result(), history(), FINAL)


def test_long_curves_stay_small() -> None:
    made = history(40_000)
    assert len(plots.loss(made)) < 100_000
    steps, means = plots._thin([0.0, 1.0, 2.0, 3.0])
    assert list(steps) == [1, 2, 3, 4] and list(means) == [0, 1, 2, 3]
    steps, means = plots._thin([1.0] * 1001)
    assert len(steps) <= plots.POINTS and set(means) == {1.0} and steps[-1] <= 1001
