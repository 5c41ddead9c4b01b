"""The cycle estimate against the RTL's own counters."""

import math
from dataclasses import replace

import numpy as np
import pytest

from shiftgrad.compiler import compile_network
from shiftgrad.estimate import estimate
from shiftgrad.host import Host
from shiftgrad.isa import COUNTERS, Memory
from shiftgrad.models import fixup_resnet, lenet, mlp
from sim.device import VerilatorDevice
from sim.programs import small_config

pytestmark = pytest.mark.xdist_group("campaign")


@pytest.fixture(scope="module")
def device():
    memories = {"act_words": 1024, "err_words": 1024, "wgt_words": 2048, "mom_words": 2048}
    device = VerilatorDevice(replace(small_config(4), program_words=80, tensors=80, **memories))
    yield device
    device.close()


@pytest.mark.parametrize(("network", "batch", "scale"), [
    (mlp(20, (9,), 5), 3, "delayed"), (mlp(16, (12,), 11), 8, "delayed"), (mlp(9, (13, 6), 7), 5, "current"),
    (mlp(3, (), 2), 1, "delayed"),
    (fixup_resnet((6, 6, 1), 3, channels=(5, 8), steps=(2,)), 1, "delayed"),
    (fixup_resnet((4, 6, 3), 4, channels=(4, 4)), 2, "current"),
    (lenet((8, 8, 1), 4, channels=(3, 5)), 1, "delayed"),
], ids=lambda value: getattr(value, "name", value))
def test_within_15_percent(device, network, batch, scale):
    plan = compile_network(network, device.config, batch=batch, lr_shift=4, scale=scale)
    host, rng = Host(device, plan), np.random.default_rng(3)
    host.load(0)
    for tensor in plan.tensors:  # layers that start at zero would leave errors without a history
        if tensor.memory == Memory.WGT:
            host.write_tensor(tensor.name, rng.integers(-40, 41, (tensor.rows, tensor.cols)).astype(np.int8))
    for _ in range(2):  # the second step has exponent histories
        images = rng.integers(0, 128, (batch, math.prod(network.shape))).astype(np.int8)
        host.load_batch(images, rng.integers(0, network.classes, batch))
        device.clear_counters()
        host.train_step()
    counters = device.counters()
    phases = [counters[f"{phase}_CYCLES"] for phase in ("FWD", "BWD", "GRAD", "VECTOR", "OTHER")]
    kinds = [counters[name] for name in list(COUNTERS)[5:12]]
    assert sum(phases) == sum(kinds), "every busy cycle is in one phase and of one kind"
    assert estimate(plan).cycles() == pytest.approx(sum(phases), rel=0.15)
    macs = sum(counters[f"{phase}_MACS"] for phase in ("FWD", "BWD", "GRAD"))
    assert macs == sum(cost.macs for cost in estimate(plan).costs if cost.instruction.program == "train")
