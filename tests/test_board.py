"""The ULX3S top at its serial pins: training steps bit for bit, on a clean line and on a bad one."""

import random

import numpy as np
import pytest

from hw.boards import get_board
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.datasets import load
from shiftgrad.device import DeviceError, GoldenDevice
from shiftgrad.host import Host
from shiftgrad.isa import Memory, Opcode, Region, Status, encode
from shiftgrad.models import mlp
from shiftgrad.serial_device import SerialDevice
from sim.board import BoardDevice, BoardSimulation

BOARD, BATCH = "ulx3s_85f", 8
pytestmark = pytest.mark.xdist_group("board")


class BadLine:
    """A transport that damages traffic in both directions, in turn and by chance; ``counts`` says how often."""

    KINDS = ("corrupt", "truncate", "repeat", "garbage", "corrupt reply", "truncate reply")

    def __init__(self, line, seed, rate):
        self.line, self.random, self.rate = line, random.Random(seed), rate
        self.counts = dict.fromkeys(self.KINDS, 0)
        self.reply = None

    def _flip(self, data):
        where = self.random.randrange(len(data))
        return data[:where] + bytes([data[where] ^ 1 << self.random.randrange(8)]) + data[where + 1:]

    def write(self, data):
        kind = self.random.choice(self.KINDS) if self.random.random() < self.rate else None
        if kind:
            self.counts[kind] += 1
        self.reply = kind if kind in ("corrupt reply", "truncate reply") else None
        if kind == "corrupt":
            data = self._flip(data)
        elif kind == "truncate":
            data = data[:self.random.randrange(1, len(data))]
        elif kind == "repeat":
            data = data + data
        elif kind == "garbage":
            data = bytes(self.random.randrange(256) for _ in range(5)) + data
        self.line.write(data)

    def read(self, n, timeout):
        data = self.line.read(n, timeout)
        if data and self.reply:
            data = self._flip(data) if self.reply == "corrupt reply" else data[:self.random.randrange(len(data))]
            self.reply = None
        return data


@pytest.fixture(scope="module")
def board():
    board = BoardSimulation(get_board(BOARD))
    yield board
    board.close()


def same_state(board, golden):
    """Every memory word, table word and generator."""
    for name, values in golden.machine.memories.items():
        np.testing.assert_array_equal(board.state.memory(name), values, err_msg=name)
    for word, column in board.state.table.items():
        np.testing.assert_array_equal(column, golden.machine.table[:, word], err_msg=f"table word {word}")
    np.testing.assert_array_equal([lane[0] for lane in board.state.lfsr], golden.machine.lfsr)


def train(board, transport, seed, steps):
    """Two machines, one program, real digits: equal results and state after every step.

    All but the first batch are loaded while the board runs on the one before.
    """
    digits = load("digits", seed=0)
    device, golden = SerialDevice(board.config, transport), GoldenDevice(board.config)
    device.link.timeout, device.link.retries = 0.02, 8
    plan = compile_network(mlp(64, [16], 10), board.config, batch=BATCH, lr_shift=4)
    hosts = Host(device, plan), Host(golden, plan)

    def batch(step):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        return digits.images[rows], digits.labels[rows]

    for host in hosts:
        assert host.overlaps
        host.load(seed)
        host.load_batch(*batch(0))
    for step in range(steps):
        results = [host.train_step(0, lambda step=step: batch(step + 1)) for host in hosts]
        assert results[0] == results[1]
        same_state(board, golden)
    return device


def test_two_steps_on_a_clean_line(board):
    device = train(board, board.line, seed=1, steps=2)
    assert device.link.repeats == 0 and board.line.framing_errors == 0


def test_two_steps_on_a_bad_line(board):
    seed = 5
    print(f"seed {seed}")
    bad = BadLine(board.line, seed, rate=0.25)
    device = train(board, bad, seed=2, steps=2)
    assert all(bad.counts.values()), f"not every kind of damage happened: {bad.counts}"
    assert device.link.repeats >= bad.counts["truncate"]


def test_words_arrive_while_instructions_are_compared():
    """A request's words reach memory one by one, before it is answered; instructions end in between."""
    board = get_board(BOARD)
    device, config = BoardDevice(board), get_config(board.config)
    size, pitch = config.size, config.pitch("act")
    shapes = [(0, 64, 4, Memory.ACT), (256, 64, 16, Memory.ACT), (0, 16 * size, 4, Memory.WGT)]  # base, rows, words
    table = [[base, rows | words * size << 16, int(memory) | words << 16, *[0] * 5]
             for base, rows, words, memory in shapes]
    program = [encode(Opcode.FWD, dst=0, a=1, b=2)] * 32 + [encode(Opcode.HALT)]
    device.write(Region.TABLE.address, np.array(table, np.uint32).reshape(-1))
    device.write(Region.PROGRAM.address, np.array(program, np.uint64).view(np.uint32))
    last = config.act_words - 2
    place, rng = config.address(Region.ACT) + last * pitch, np.random.default_rng(7)
    device.start()
    for words in rng.integers(1 << 32, size=(4, 2 * pitch // 4), dtype=np.uint32):
        device.write(place, words)
    with pytest.raises(DeviceError, match="refused"):
        device.write(place + 4, words)
    assert device.status()[0], "wanted a program that runs longer"
    assert device.wait() == Status.HALTED
    assert device.compared_instructions == len(program) and device.mismatches == 0
    found = device.read(place, 2 * pitch // 4)
    assert found[0] == words[0] and (found[1:] == words[:-1]).all()
    device.close()


def test_a_refused_access_is_an_error_and_the_link_goes_on(board):
    device = SerialDevice(board.config, board.line)
    with pytest.raises(DeviceError, match="refused"):
        device.write(0xF00000, [1])
    assert device.read_register("MAGIC") == 0x53475231
