"""The iCEBreaker: its clock, and steps of the digits network at its serial pins, bit for bit."""

import numpy as np
import pytest

from hw.boards import get_board
from hw.boards.ice40 import Ice40Board
from hw.boards.ice40_pll import pad_pll_settings
from shiftgrad.bitstream import flow_of
from shiftgrad.build_report import Report, read
from shiftgrad.compiler import compile_network
from shiftgrad.datasets import load
from shiftgrad.device import GoldenDevice
from shiftgrad.host import Host
from shiftgrad.models import mlp
from sim.board import BoardDevice
from sim.compare import MismatchError

BATCH, STEPS = 32, 2
BOARD = get_board("icebreaker")
pytestmark = pytest.mark.xdist_group("board")


def test_pll_settings():
    for mhz in (18, 24, 27, 30, 36, 48, 60):
        setting = pad_pll_settings(input_hz=12_000_000, output_hz=mhz * 1_000_000)
        assert 12 * (setting.feedback + 1) == mhz * (setting.reference + 1) << setting.output
        assert 533_000_000 <= setting.vco_hz <= 1_066_000_000 and setting.filter_range == 1
    with pytest.raises(ValueError, match="no PLL setting makes exactly 31000001 Hz from 12000000 Hz"):
        pad_pll_settings(input_hz=12_000_000, output_hz=31_000_001)
    with pytest.raises(ValueError, match="got 12000000 and 8000000 Hz"):
        pad_pll_settings(input_hz=12_000_000, output_hz=8_000_000)


def test_it_wants_a_dense_configuration():
    with pytest.raises(ValueError, match="wrong: wanted a dense configuration, got sim_4x4"):
        Ice40Board(name="wrong", config="sim_4x4", platform=BOARD.platform, oscillator="clk12",
                   oscillator_hz=12_000_000, clock_hz=30_000_000)


def test_what_a_build_leaves(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    (work / "top.bit").write_bytes(b"bits")
    report = Report(board="icebreaker", config="up5k_4x4", design="SmallCore", device="iCE40UP5K-SG48", clock_mhz=30.0,
                    fmax_mhz=31.0, met=True, seed=2, lut=4900, ff=2500, dsp=8, bram=28, seeds={2: 31.0}, tools={},
                    available={"lut": 5280, "dsp": 8, "bram": 30})
    flow_of(BOARD)(BOARD, None, work, out, lambda line: None).publish(report)
    assert sorted(path.name for path in out.iterdir()) == ["icebreaker.bit", "report.json", "report.txt"]
    assert read(out / "report.json").fmax_mhz == report.fmax_mhz


def test_steps_of_digits_at_the_pins():
    """Compared after every instruction by the device, and with a machine of its own after every step."""
    device, digits = BoardDevice(BOARD), load("digits", seed=0)
    board, golden = device.board, GoldenDevice(device.config)
    plan = compile_network(mlp(64, (48,), 10), board.config, batch=BATCH, lr_shift=4)
    hosts = Host(device, plan), Host(golden, plan)
    for host in hosts:
        host.load(1)
    for step in range(STEPS):
        results = []
        for host in hosts:
            rows = slice(step * BATCH, (step + 1) * BATCH)
            host.load_batch(digits.images[rows], digits.labels[rows])
            results.append(host.train_step())
        assert results[0] == results[1]
        for name, values in golden.machine.memories.items():
            np.testing.assert_array_equal(board.state.memory(name), values, err_msg=name)
        for word, column in board.state.table.items():
            np.testing.assert_array_equal(column, golden.machine.table[:, word], err_msg=f"table word {word}")
        np.testing.assert_array_equal([lane[0] for lane in board.state.lfsr], golden.machine.lfsr)
    assert (device.compared_instructions, device.mismatches) == (9 * STEPS, 0)
    device.golden.memories["wgt"][0, 0] ^= 1
    device.golden.mark("wgt", 0, 1)
    with pytest.raises(MismatchError, match="after instruction 0: wgt word 0 lane 0"):
        hosts[0].train_step()
    device.close()
