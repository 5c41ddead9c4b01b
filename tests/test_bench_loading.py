"""The benchmark's part on loading: the arithmetic and the text; its machines are tested elsewhere."""

from __future__ import annotations

import pytest

from shiftgrad import bench, bench_loading
from shiftgrad.config import get_config
from shiftgrad.device import GoldenDevice


class Counting(GoldenDevice):
    """Takes a cycle a word written, and is busy for 100 cycles a program."""

    cycles = 0
    busy = 0

    def write(self, address, words):
        self.cycles += len(words)
        super().write(address, words)

    def start(self, pc=0):
        super().start(pc)
        self.cycles, self.busy = self.cycles + 100, self.busy + 100

    def counters(self):
        return super().counters() | {"FWD_CYCLES": self.busy}


@pytest.mark.parametrize("overlaps", [False, True])
def test_idle_cycles_are_those_not_busy(overlaps: bool) -> None:
    device = Counting(get_config("sim_4x4"))
    found = bench_loading._run(device, device, overlaps, seed=1)
    batch = 32 * 64 // 4 + 32 // 2  # words of inputs and labels
    between = 2 + 2 * overlaps  # START_PC and CTRL, two words of the table
    assert found == {"config": "sim_4x4", "overlaps": overlaps, "cycles": 100 + batch + between, "busy": 100,
                     "idle": batch + between}


def test_text() -> None:
    runs = [{"host": "AXI4-Lite", "config": "sim_4x4", "overlaps": overlaps, "cycles": 100 + idle, "busy": 100.0,
             "idle": idle} for overlaps, idle in ((False, 4000.4), (True, 60.0))]
    found = {"network": "mlp", "batch": 32, "steps": 3, "runs": runs}
    part = bench.PARTS["loading"]
    line, = part.summary(found)
    assert line == "idle between steps of mlp, AXI4-Lite: 4,000 cycles, 60 when the next batch is loaded meanwhile"
    assert "| AXI4-Lite, sim_4x4 | while a step runs | 160 | 100 | 60 | 37.5 % |" in part.markdown(found)
    assert not part.plots(found)
