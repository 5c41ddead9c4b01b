"""``shiftgrad train``: what it prints, what it writes, and how it goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shiftgrad import checkpoint as checkpoints
from shiftgrad import progress, recipes, session
from shiftgrad.datasets import DATASETS
from shiftgrad.device import GoldenDevice
from shiftgrad.models import Block
from shiftgrad.recipes import Options, network_of
from shiftgrad.record import Hyper
from tests.command_line import SMALL, refused, shiftgrad


def test_json_is_one_object_and_nothing_else() -> None:
    result = shiftgrad(*SMALL, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {"accuracy", "loss", "steps", "compared_instructions", "mismatches", "cycles", "macs"} <= set(found)
    assert set(found["utilization"]) == {"forward", "backward", "gradient", "step"}
    assert found["steps"] == 1437 // 32 and found["network"] == "mlp-64-12-10" and found["batch"] == 32
    assert found["cycles"] is None and found["macs"] > 0 and found["mismatches"] == 0
    assert result.stderr == ""


def test_text_ends_with_one_line() -> None:
    result = shiftgrad(*SMALL, "--quiet")
    assert result.stderr == "" and result.exit_code == 0
    line = r"held-out accuracy \d+\.\d\d %, 44 steps, 0 instructions compared, 0 mismatches"
    assert re.fullmatch(line, result.stdout.splitlines()[-1])


def test_a_log_gets_a_line_an_evaluation() -> None:
    assert re.search(r"^epoch   1 of 1  step     44 .* held-out loss", shiftgrad(*SMALL).stderr, re.MULTILINE)


def test_a_long_run_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    lines = shiftgrad(*SMALL).stderr.splitlines()
    assert re.fullmatch(r"step      1 of 44, mini-batch loss \d\.\d{4}", lines[0])
    assert "evaluated 360 of 360 held-out samples" in lines
    assert shiftgrad(*SMALL, "--quiet").stderr == ""


def test_digits_on_the_golden_machine_reach_97_percent() -> None:
    found = json.loads(shiftgrad("train", "--epochs", "6", "--json").stdout)
    assert found["accuracy"] >= 0.97


def test_fewer_held_out_samples() -> None:
    """They change what is measured and nothing of the training."""
    some, full = (json.loads(shiftgrad(*SMALL, *given, "--json").stdout) for given in (("--test-samples", 7), ()))
    assert (some["test_samples"], full["test_samples"]) == (7, 360)
    assert some["accuracy"] * 7 == pytest.approx(round(some["accuracy"] * 7))
    assert [e["train_loss"] for e in some["history"]] == [e["train_loss"] for e in full["history"]]
    assert some["loss"] != full["loss"]


def test_several_hidden_layers() -> None:
    for given in (("--hidden", "12,8"), ("--hidden", "12", "--hidden", "8")):
        found = json.loads(shiftgrad("train", *given, "--max-steps", 1, "--json").stdout)
        assert found["network"] == "mlp-64-12-8-10"
    found = json.loads(shiftgrad("train", "--hidden", "none", "--max-steps", 1, "--json").stdout)
    assert found["network"] == "mlp-64-10"


@pytest.fixture
def cifar10(tmp_path: Path) -> tuple[str, ...]:
    """Options for a small run on 40 made images."""
    print("seed 2")
    rng = np.random.default_rng(2)
    records = rng.integers(0, 256, (40, 3073)).astype(np.uint8)
    records[:, 0] %= 10
    (tmp_path / "data_batch_1.bin").write_bytes(records.tobytes())
    return ("train", "--dataset", "cifar10", "--data-dir", str(tmp_path), "--hidden", "4", "--batch", "4", "--json")


def test_cifar10(cifar10: tuple[str, ...]) -> None:
    found = json.loads(shiftgrad(*cifar10).stdout)
    assert (found["network"], found["dataset"], found["steps"]) == ("mlp-3072-4-10", "cifar10", 8 * 9)
    assert (found["train_samples"], found["test_samples"], found["lr_shift"]) == (36, 4, 4)


@pytest.mark.parametrize(("given", "wanted"), [
    ((), "delayed"), (("--batch", 3), "delayed"), (("--batch", 2), "current"), (("--batch", 1), "current"),
    (("--batch", 1, "--scale", "delayed"), "delayed"), (("--batch", 3, "--scale", "current"), "current"),
    (("--batch", 1, "--model", "mlp"), "delayed"),
])
def test_the_scale_mode_goes_by_the_batch(tmp_path: Path, given: tuple[object, ...], wanted: str) -> None:
    """Training, what it goes on with when it is resumed, and the estimate."""
    path, given = tmp_path / "c.npz", ("--model", "fixup_resnet", *given)
    assert json.loads(shiftgrad("train", *given, "--max-steps", 1, "--json", "--save", path).stdout)["scale"] == wanted
    assert json.loads(shiftgrad("train", "--resume", path, "--max-steps", 2, "--json").stdout)["scale"] == wanted
    assert json.loads(shiftgrad("estimate", *given, "--json").stdout)["scale"] == wanted


def test_augmentation_options(tmp_path: Path, cifar10: tuple[str, ...]) -> None:
    losses = {}
    for given, wanted in (((), (True, 0)), (("--no-flip",), (False, 0)), (("--shift", 3), (True, 3)),
                          (("--no-flip", "--shift", 3), (False, 3))):
        found = json.loads(shiftgrad(*cifar10, *given, "--max-steps", 5).stdout)
        assert (found["flip"], found["shift"]) == wanted
        losses[wanted] = found["loss"]
    assert len(set(losses.values())) == 4
    found = json.loads(shiftgrad("train", "--max-steps", 1, "--json").stdout)
    assert (found["flip"], found["shift"]) == (False, 0)
    path = tmp_path / "c.npz"
    shiftgrad(*cifar10, "--save", path, "--max-steps", 1)
    again = ("train", "--data-dir", tmp_path, "--resume", path, "--json")
    refused(shiftgrad(*again, "--no-flip"), 2, "another flip: wanted False, got True")
    refused(shiftgrad(*again, "--shift", 1), 2, "another shift: wanted 1, got 0")
    assert json.loads(shiftgrad(*again, "--max-steps", 2).stdout)["flip"] is True


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_data_sets_defaults_fit_together(name: str) -> None:
    height, width, channels = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "mnist14": (14, 14, 1),
                               "cifar10": (32, 32, 3)}[name]
    assert recipes.SHAPES[name] == (height, width, channels)
    for model in recipes.MODELS:
        Hyper(**recipes.hyper_of(name, model))
        found = shiftgrad("estimate", "--dataset", name, "--model", model, "--json")
        assert found.exit_code == 0, found.stderr
        assert json.loads(found.stdout)["network"].startswith(model)
    found = shiftgrad("estimate", "--dataset", name, "--config", "sim_16x16", "--json")
    assert found.exit_code == 0, found.stderr


def test_models(tmp_path: Path) -> None:
    """Options that describe a network, and those of another kind; resuming knows the network without them."""
    path = tmp_path / "run.npz"
    options = ("train", "--model", "fixup_resnet", "--channels", "4,4,8", "--epochs", 1, "--save", path, "--json")
    found = json.loads(shiftgrad(*options, "--max-steps", 3).stdout)
    assert (found["network"], found["model"], found["steps"]) == ("fixup_resnet-2x4-8", "fixup_resnet", 3)
    again = json.loads(shiftgrad("train", "--resume", path, "--json").stdout)
    assert (again["model"], again["steps"], again["resumed_from_step"]) == ("fixup_resnet", 1437 // 16, 3)
    resume = ("train", "--resume", path, "--quiet")
    for options, wrong in ((("--model", "lenet"), "another model: wanted lenet, got fixup_resnet"),
                           (("--channels", "4,8,8"), "another network: wanted fixup_resnet-2x4-8 "),
                           (("--depth", 3), "another network: wanted fixup_resnet-3x4-8-16 "),
                           (("--hidden", "8"), "fixup_resnet has no hidden"),
                           (("--max-steps", 3), "is at step 89, wanted to stop at 3")):
        refused(shiftgrad(*resume, *options), 2, wrong)
    for same in (("--channels", "4,4,8"), ("--shortcut", "subsample", "--zero-range", 0.25),
                 ("--model", "fixup_resnet")):
        assert shiftgrad(*resume, *same).exit_code == 0
    refused(shiftgrad("train", "--model", "lenet", "--depth", 3), 2, "lenet has no depth; it takes channels")
    refused(shiftgrad("train", "--model", "lenet", "--channels", "8"), 2, "channels must be two")
    refused(shiftgrad("train", "--model", "fixup_resnet", "--hidden", "8"), 2, "fixup_resnet has no hidden")
    refused(shiftgrad("train", "--model", "fixup_resnet", "--depth", 2, "--channels", "8,8"), 2, "one or the other")
    assert Options(model="fixup_resnet", shortcut="conv").given == {"shortcut": "conv"}
    for more in ({}, {"channels": (4, 4, 8)}):
        net = network_of("digits", (8, 8, 1), 10, Options(model="fixup_resnet", shortcut="conv", **more))
        assert {b.shortcut for b in net.layers if isinstance(b, Block)} == {"identity", "conv"}
    net = network_of("digits", (8, 8, 1), 10, Options(model="fixup_resnet", zero_range=1.0))
    assert {getattr(each, "zero_range", 1.0) for each in net.layers[1:]} == {1.0}
    assert net.name == network_of("digits", (8, 8, 1), 10, Options(model="fixup_resnet")).name  # the same channels
    refused(shiftgrad("estimate", "--clock-mhz", "1e308", "--json"), 2, "wanted a frequency, got 1e.308")
    refused(shiftgrad("estimate", "--config", "up5k_4x4"), 2, "wanted a machine with a model of its cycles")
    refused(shiftgrad("train", "--device", "verilator", "--config", "golden_16x16", "--quiet"), 2,
            "golden_16x16 runs on the golden machine only")


def test_report_and_checkpoint(tmp_path: Path) -> None:
    result = shiftgrad(*SMALL, "--report", tmp_path / "run", "--save", tmp_path / "run" / "c.npz", "--json")
    found = json.loads(result.stdout)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == found
    assert "held-out accuracy" in (tmp_path / "run" / "report.html").read_text()
    assert checkpoints.load(tmp_path / "run" / "c.npz").finished
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["c.npz", "report.html", "result.json"]


def test_resume_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    straight, parts = tmp_path / "straight.npz", tmp_path / "parts.npz"
    shiftgrad(*SMALL, "--save", straight, "--json")
    shiftgrad(*SMALL, "--save", parts, "--max-steps", 17, "--json")
    found = json.loads(shiftgrad("train", "--resume", parts, "--json").stdout)
    assert (found["resumed_from_step"], found["steps"]) == (17, 44)
    one, other = checkpoints.load(straight), checkpoints.load(parts)
    for name in one.state:
        np.testing.assert_array_equal(one.state[name], other.state[name], err_msg=name)


def test_resume_if_present(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    again = (*SMALL, "--save", path, "--resume-if-present", "--json")
    assert json.loads(shiftgrad(*again, "--max-steps", 5).stdout)["resumed_from_step"] == 0
    assert json.loads(shiftgrad(*again, "--max-steps", 9).stdout)["resumed_from_step"] == 5
    assert json.loads(shiftgrad(*again).stdout)["resumed_from_step"] == 9
    assert json.loads(shiftgrad(*again).stdout)["resumed_from_step"] == 0, "a finished run starts anew"
    assert json.loads(shiftgrad(*again, "--epochs", 2).stdout)["resumed_from_step"] == 44, "unless it is to be longer"
    started = shiftgrad(*again[:-1])
    shiftgrad(*SMALL, "--epochs", 3, "--save", path, "--max-steps", 60, "--quiet")
    kept = path.read_bytes()
    refused(shiftgrad(*again), 2, "is at step 60, wanted to stop at 44")
    refused(shiftgrad(*again, "--epochs", -1), 2, "epochs must be an integer from 1, got -1")
    assert path.read_bytes() == kept
    assert f"{path}: holds a run that is finished, so another one starts" in started.stderr


def test_files_that_would_be_one(tmp_path: Path) -> None:
    run = (*SMALL, "--max-steps", 1, "--quiet")
    shiftgrad(*run, "--save", tmp_path / "c.npz")
    shiftgrad("export", tmp_path / "c.npz", "--out", tmp_path / "w.npz")
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, wrong in (
        (("export", tmp_path / "c.npz", "--out", tmp_path / "c.npz"), "for --out, got that of CHECKPOINT"),
        ((*run, "--init", tmp_path / "w.npz", "--save", tmp_path / "w.npz"), "for --save, got that of --init"),
        ((*run, "--save", tmp_path / "r" / "report.html", "--report", tmp_path / "r"), "got that of --save"),
        ((*run, "--save", tmp_path / "r" / "result.json", "--report", tmp_path / "r"), "got that of --save"),
        ((*run, "--save", tmp_path / "r", "--report", tmp_path / "r"), "for --save, got that of --report"),
        ((*run, "--init", tmp_path / "c.npz"), "wanted weights, got a checkpoint: make them with shiftgrad export"),
        ((*run, "--save", tmp_path / "new" / "c.npz", "--shift", 20), "shift must be less"),
    ):
        refused(shiftgrad(*arguments), 2, wrong)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_resume_refuses_another_run(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    shiftgrad(*SMALL, "--save", path, "--max-steps", 1, "--json")
    for options, pattern in (
        (("--config", "sim_4x4"), "another config: wanted sim_4x4 .*got sim_8x8"),
        (("--hidden", "13"), "another network: wanted mlp-64-13-10 .*got mlp-64-12-10"),
        (("--batch", "16"), "another batch: wanted 16, got 32"),
        (("--lr-shift", "5"), "another lr_shift: wanted 5, got 4"),
        (("--seed", "1"), "another seed: wanted 1, got 0"),
        (("--scale", "current"), "another scale: wanted current, got delayed"),
        (("--dataset", "mnist"), "another dataset: wanted mnist, got digits"),
    ):
        refused(shiftgrad("train", "--resume", path, *options, "--json"), 2, pattern)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "my run" / "c.npz"
    command = [sys.executable, "-m", "shiftgrad", "train", "--epochs", "500", "--save", str(path)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.returncode == 130 and out == ""
    last = err.splitlines()[-1]
    step = checkpoints.load(path).step
    assert step > 0
    assert last == (f"shiftgrad: stopped after step {step} of 44500; "
                    f"go on with: shiftgrad train --resume '{path}'")


def test_mismatches_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(GoldenDevice):
        def wait(self):
            self.compared_instructions += 2
            self.mismatches += 1
            return super().wait()

    monkeypatch.setattr(session, "GoldenDevice", Wrong)
    result = shiftgrad("train", "--max-steps", 2, "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["mismatches"] > 0
    assert re.search(r"got \d+ of \d+ that differ", result.stderr)


def test_serial_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import shiftgrad.serial_device as serial_device

    opened = []
    monkeypatch.setattr(serial_device, "SerialDevice",
                        lambda config, port, baud: opened.append((port, baud)) or GoldenDevice(config))
    for port in ("/dev/ttyX", "/dev/ttyX@115200"):
        assert shiftgrad("train", "--device", f"serial:{port}", "--max-steps", 1, "--json").exit_code == 0
    assert opened == [("/dev/ttyX", 1_000_000), ("/dev/ttyX", 115_200)]
