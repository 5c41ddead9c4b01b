"""The link's RTL pin by pin: the host's side against it, frames damaged, cut, repeated and back to back."""

from collections import deque
from collections.abc import Callable

import pytest
from amaranth.sim import Simulator

from hw.boards.standin import StandIn
from hw.boards.top import LinkedCore
from shiftgrad.isa import MAGIC
from shiftgrad.link import MAX_WORDS, REQUEST_SYNC, VERSION, BusError, Command, Reply, ReplyParser, Request
from tests.link_partners import CONFIG, WORDS, patient, read_request, seeded, write_request


class Pins:
    """The RTL as a transport, at pin level: 8 cycles a bit; a read gives up after 800 cycles.

    ``to_target`` turns bytes into line levels, each for one bit time.
    """

    DIVISOR, PAUSE, PATIENCE = 8, 400, 800

    def __init__(self) -> None:
        self.core = StandIn(config=CONFIG, words=WORDS)
        self.dut = LinkedCore(core=self.core, clock_hz=self.DIVISOR * 1000, baud=1000)
        self.to_target: Callable[[bytes], list[int]] = levels
        self.to_host: Callable[[bytes], bytes] = lambda data: data
        self.line: deque[int] = deque()
        self.received = b""
        self.writes: list[tuple[int, int]] = []
        self.cycles = 0
        self.sim = Simulator(self.dut)
        self.sim.add_clock(1e-6)
        for bench in (self._drive, self._decode, self._watch):
            self.sim.add_testbench(bench, background=True)

    async def _drive(self, ctx):
        while True:
            ctx.set(self.dut.rx, self.line.popleft() if self.line else 1)
            await ctx.delay(self.DIVISOR * 1e-6)

    async def _decode(self, ctx):
        while True:
            await ctx.negedge(self.dut.tx)
            await ctx.delay(self.DIVISOR / 2 * 1e-6)
            bits = 0
            for i in range(10):
                bits |= ctx.get(self.dut.tx) << i
                if i < 9:
                    await ctx.delay(self.DIVISOR * 1e-6)
            assert bits & 1 == 0 and bits >> 9 == 1, "no start or stop bit"
            self.received += bytes([bits >> 1 & 0xFF])

    async def _watch(self, ctx):
        bus = self.core.bus
        while True:
            await ctx.posedge(bus.ready)
            if ctx.get(bus.write) and not ctx.get(bus.error):
                self.writes.append((ctx.get(bus.addr), ctx.get(bus.w_data)))

    def run(self, cycles: int) -> None:
        if cycles:
            self.cycles += cycles
            self.sim.run_until(self.cycles * 1e-6)

    def write(self, data: bytes) -> None:
        self.line += self.to_target(data)

    def read(self, n: int, timeout: float) -> bytes:
        self.run(len(self.line) * self.DIVISOR)
        waited = 0
        while not self.received and waited < self.PATIENCE:
            self.run(10 * self.DIVISOR)
            waited += 10 * self.DIVISOR
        data, self.received = self.received[:n], self.received[n:]
        return self.to_host(data)

    def replies(self, line: list[int]) -> list[Reply]:
        """Put levels on the line and return what comes back until silence."""
        self.line += line
        data = b""
        while got := self.read(1000, 0):
            data += got
        return list(ReplyParser().feed(data))


def levels(data: bytes, stop: int = 1) -> list[int]:
    return [level for byte in data for level in (0, *(byte >> i & 1 for i in range(8)), stop)]


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Pins:
    monkeypatch.setattr("hw.link.PAUSE_SECONDS", Pins.PAUSE / (Pins.DIVISOR * 1000))
    return Pins()


def test_rtl_reads_back_what_was_written(pins: Pins) -> None:
    rng, link = seeded(), patient(pins)
    words = [rng.getrandbits(32) for _ in range(MAX_WORDS + 2)]
    link.write(8, words)
    assert link.read(0, 1) == [MAGIC]
    assert link.read(8, len(words)) == words
    assert pins.writes == [(8 + 4 * i, word) for i, word in enumerate(words)]
    assert link.repeats == 0
    with pytest.raises(BusError, match="0x000400 was refused after 2 words"):
        link.write(0x3F8, [1, 2, 3])
    with pytest.raises(BusError, match="0x000400 was refused after 1 words"):
        link.read(0x3FC, 2)
    assert link.read(0x3F8, 2) == [1, 2]


def test_rtl_drops_every_single_corrupted_byte(pins: Pins) -> None:
    rng, good = seeded(), write_request(1, 8, 0x11111111)
    for i in range(len(good)):
        bad = bytearray(good)
        bad[i] ^= 1 << rng.randrange(8)
        assert pins.replies(levels(bytes(bad))) == [], f"byte {i}"
    assert pins.writes == []
    assert len(pins.replies(levels(good))) == 1 and pins.writes == [(8, 0x11111111)]


def test_rtl_drops_truncated_frames(pins: Pins) -> None:
    good = write_request(1, 8, 5, 6)
    for length in range(1, len(good), 3):
        assert pins.replies(levels(good[:length])) == []
        assert pins.writes == []
    assert pins.replies(levels(good))[0].count == 2
    assert pins.writes == [(8, 5), (12, 6)]


def test_rtl_pause_inside_a_frame(pins: Pins) -> None:
    good = write_request(1, 8, 5)
    bits = Pins.PAUSE // Pins.DIVISOR
    assert pins.replies(levels(good[:9]) + [1] * (bits + 2) + levels(good[9:])) == []
    assert pins.writes == []
    assert len(pins.replies(levels(good[:9]) + [1] * (bits - 12) + levels(good[9:]))) == 1


def test_rtl_answers_a_repeated_frame_without_executing_it(pins: Pins) -> None:
    pins.replies(levels(write_request(1, 8, 5)))
    read = levels(read_request(2, 8, 1))
    assert [reply.words for reply in pins.replies(read)] == [(5,)]
    corrupted = bytearray(write_request(3, 8, 77))
    corrupted[-1] ^= 1
    assert pins.replies(levels(bytes(corrupted))) == []
    assert [reply.words for reply in pins.replies(read)] == [(5,)]
    write = levels(write_request(4, 8, 6))
    first, again = pins.replies(write), pins.replies(write)
    assert first == again and len(again) == 1
    assert pins.writes == [(8, 5), (8, 6)]
    hello = Request(sequence=4, command=Command.HELLO, count=1, address=0xABCDEF).encode()
    assert [reply.words for reply in pins.replies(levels(hello) * 2)] == [(VERSION << 24 | 0xABCDEF,)] * 2
    pins.replies(write)
    assert pins.writes == [(8, 5), (8, 6), (8, 6)]


def test_rtl_finds_frames_in_garbage(pins: Pins) -> None:
    rng = seeded()
    line = []
    for i in range(4):
        line += levels(rng.randbytes(4).replace(REQUEST_SYNC[:1], b"") + b"\xa5" * i) + [1] * i
        line += levels(write_request(i, 8, i))
    line += levels(REQUEST_SYNC + bytes([9, 9, 1])) + [1] * (Pins.PAUSE // Pins.DIVISOR + 2)
    line += levels(REQUEST_SYNC + bytes([9, Command.READ, 65, 0, 0, 0])) + levels(write_request(8, 8, 8))
    line += levels(REQUEST_SYNC + bytes([9, Command.READ, 0, 0, 0, 0])) + levels(write_request(9, 8, 9))
    assert [reply.sequence for reply in pins.replies(line)] == [0, 1, 2, 3, 8, 9]
    assert pins.writes == [(8, i) for i in (0, 1, 2, 3, 8, 9)]


def test_rtl_back_to_back_frames(pins: Pins) -> None:
    frames = [write_request(1, 8, 1), write_request(2, 12, 2), read_request(3, 8, 2), read_request(4, 12, 1)]
    replies = pins.replies(levels(b"".join(frames)))
    assert [reply.sequence for reply in replies] == [1, 2, 3, 4]
    assert [reply.words for reply in replies[2:]] == [(1, 2), (2,)]
    long = [read_request(5, 0, 16), read_request(6, 0, 1), write_request(7, 8, 9)]
    assert [reply.sequence for reply in pins.replies(levels(b"".join(long)))] == [5, 6]
    assert pins.writes == [(8, 1), (12, 2)]


def test_rtl_framing_error_drops_the_frame(pins: Pins) -> None:
    good = write_request(1, 8, 5)
    for i in (1, 4, 9, len(good) - 1):
        line = levels(good[:i]) + levels(good[i : i + 1], stop=0) + [1] + levels(good[i + 1 :])
        assert pins.replies(line) == [], f"byte {i}"
    assert pins.writes == []
    assert pins.replies([0] * 30 + [1] * 2 + levels(good))[0].sequence == 1


def test_rtl_on_a_bad_line(pins: Pins) -> None:
    rng = seeded()

    def damage(data: bytes) -> list[int]:
        line = levels(data)
        if rng.random() < 0.3:
            line[rng.randrange(len(line))] ^= 1
        return line

    pins.to_target = damage
    pins.to_host = lambda data: data[rng.random() < 0.05 :]
    link, wanted = patient(pins, retries=50), []
    for i in range(8):
        link.write(8 + 4 * i, [i, i + 100])
        wanted += [(8 + 4 * i, i), (12 + 4 * i, i + 100)]
        assert link.read(8 + 4 * i, 2) == [i, i + 100]
    assert pins.writes == wanted
    assert link.repeats > 0
