"""The cycle estimate against the RTL's own counters."""

import numpy as np
import pytest

from shiftgrad.compiler import compile_network
from shiftgrad.estimate import estimate
from shiftgrad.host import Host
from shiftgrad.isa import COUNTERS
from shiftgrad.models import mlp
from sim.device import VerilatorDevice
from sim.programs import small_config

pytestmark = pytest.mark.xdist_group("campaign")


@pytest.fixture(scope="module")
def device():
    device = VerilatorDevice(small_config(4))
    yield device
    device.close()


@pytest.mark.parametrize(("inputs", "hidden", "classes", "batch", "scale"), [
    (20, (9,), 5, 3, "delayed"), (16, (12,), 11, 8, "delayed"), (9, (13, 6), 7, 5, "current"), (3, (), 2, 1, "delayed"),
])
def test_within_15_percent(device, inputs, hidden, classes, batch, scale):
    plan = compile_network(mlp(inputs, hidden, classes), device.config, batch=batch, lr_shift=4, scale=scale)
    host, rng = Host(device, plan), np.random.default_rng(3)
    host.load(0)
    for _ in range(2):  # the second step has exponent histories
        host.load_batch(rng.integers(0, 256, (batch, inputs)).astype(np.uint8), rng.integers(0, classes, batch))
        device.clear_counters()
        host.train_step()
    counters = device.counters()
    phases = [counters[f"{phase}_CYCLES"] for phase in ("FWD", "BWD", "GRAD", "VECTOR", "OTHER")]
    kinds = [counters[name] for name in list(COUNTERS)[5:12]]
    assert sum(phases) == sum(kinds), "every busy cycle is in one phase and of one kind"
    assert estimate(plan).cycles() == pytest.approx(sum(phases), rel=0.15)
    macs = sum(counters[f"{phase}_MACS"] for phase in ("FWD", "BWD", "GRAD"))
    assert macs == sum(cost.macs for cost in estimate(plan).costs if cost.instruction.program == "train")
