"""Looking into int8 training: the books of the observed machine, the logs, the norms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import exponents
from experiments.grid import Job, Study
from experiments.observe import observed_device
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.datasets import load
from shiftgrad.device import GoldenDevice
from shiftgrad.host import Host
from shiftgrad.images import mantissas
from shiftgrad.models import fixup_resnet
from shiftgrad.train import Stop

CONFIG = get_config("sim_8x8_large")
NETWORK = fixup_resnet((8, 8, 1), 10, channels=(4, 4, 8))
STUDY = Study(dataset="digits", channels=(4, 4, 8), epochs=1, tune_epochs=1)


def hosts(scale: str) -> tuple[Host, Host]:
    plan = compile_network(NETWORK, CONFIG, batch=16, lr_shift=4, scale=scale)
    both = Host(GoldenDevice(CONFIG), plan), Host(observed_device(CONFIG)[0], plan)
    for host in both:
        host.load(2)
    return both


@pytest.mark.parametrize("scale", ("delayed", "current"))
def test_observing_changes_nothing_and_counts_what_the_machine_counts(scale: str) -> None:
    data, (plain, seen) = load("digits"), hosts(scale)
    machine = seen.device.machine
    for step in range(12):
        machine.observing = step % 3 == 0
        part = slice(16 * step, 16 * step + 16)
        for host in (plain, seen):
            host.load_batch(mantissas(data.images[part], False), data.labels[part])
            host.train_step()
    assert plain.device.machine.compare(seen.device.machine.state()) == []
    entries = machine.by_name(seen.plan)
    assert {"stem.out", "block1.z", "block2.e_u", "fc.momentum", "block1.m_momentum"} <= set(entries)
    assert "fc.error" not in entries and "labels" not in entries
    assert all(0 <= e.saturated <= 1 and 0 <= e.lost <= 1 for e in entries.values())
    assert {"fc.weight", "block1.m"} <= {t.name for t in seen.plan.tensors if t.id in machine.moved}


def test_shares_are_those_of_the_rule() -> None:
    _, machine = observed_device(CONFIG)
    plan = compile_network(NETWORK, CONFIG, batch=1, lr_shift=4)
    host = Host(GoldenDevice(CONFIG), plan)
    host.device.machine = machine
    host.load(0)
    tensor = machine.tensor(plan.tensor("fc.out").id)
    machine.observing = True
    v = np.array([[180, 182, 1, 0, -1, -180, 2, -2, 3, 0]], np.int64)  # 182 is above 2^7.5, so a step is 2
    assert machine._scale(0, tensor, v, 0) == 1
    entry = machine.entries[tensor.id]
    assert (entry.exponent, entry.saturated, entry.lost) == (1, 0.0, 2 / 8)  # ties to even: 1 / 2 and -1 / 2 become 0
    machine._scale(0, tensor, np.array([[1000, 1400, 0, 3]], np.int64), 0)
    assert machine.entries[tensor.id].saturated == 1 / 4 and machine.entries[tensor.id].lost == 1 / 3


def test_norms_are_those_of_what_was_written() -> None:
    data, (_, seen) = load("digits"), hosts("current")
    seen.device.machine.observing = True
    seen.load_batch(mantissas(data.images[:16], False), data.labels[:16])
    seen.train_step()
    values = np.ldexp(seen.read_tensor("stem.out").astype(float), seen.exponents()["stem.out"])
    found = seen.device.machine.rms[seen.plan.tensor("stem.out").id]
    assert found == pytest.approx(np.sqrt(np.mean(values**2)))


def test_the_log_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exponents, "SAMPLES", 4)
    hyper = Job(study=STUDY, variant="int8", batch=128, seed=0).hyper(4)
    found = exponents.record(STUDY, load("digits"), replace(hyper, epochs=1), Stop())
    assert found["steps"] == [1, 3, 5, 7, 9, 11]
    assert all(len(series) == 6 for log in found["tensors"].values() for series in log.values())
    assert found["phases"]["block1.out"] == "forward" and found["phases"]["fc.momentum"] == "gradient"
    json_path, text_path, picture = exponents.write(found, tmp_path)
    assert json.loads(json_path.read_text()) == found
    text = text_path.read_text()
    assert f"({picture.name})" in text and "| `block2.conv1.momentum` | gradient | -14 |" in text
    assert picture.read_bytes()[1:4] == b"PNG"


def test_fixup_keeps_norms_at_the_start_in_int8_and_in_float(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from experiments import isometry

    network = fixup_resnet((8, 8, 1), 10, channels=(8, 8, 8, 8, 8))
    found = isometry.measure(network, load("digits"), batch=32, seed=1)
    assert found["stages"] == ["stem", "block1", "block2", "block3", "block4"]
    for kind in ("signal", "error"):
        device, fixup, he = (np.array(found["variants"][v][kind]) for v in ("int8", "fp32_fixup", "fp32_he"))
        np.testing.assert_allclose(device, fixup, rtol=0.08)
        np.testing.assert_allclose(device, device[0], rtol=1e-9)
        assert max(he[0] / he[-1], he[-1] / he[0]) > 2
    assert [path.exists() for path in isometry.write(found, tmp_path)] == [True, True]
