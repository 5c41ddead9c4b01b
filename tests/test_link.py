"""The serial link: frames, the host's side against a model, the host's side against the RTL."""

import random
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from amaranth.sim import Simulator

import shiftgrad.link
from hw.boards.standin import StandIn
from hw.boards.top import LinkedCore
from shiftgrad.config import get_config
from shiftgrad.device import Device, DeviceError, GoldenDevice
from shiftgrad.isa import MAGIC, Opcode, Region, Status, encode
from shiftgrad.link import (
    MAX_WORDS,
    REQUEST_SYNC,
    VERSION,
    BusError,
    Command,
    Link,
    LinkError,
    Reply,
    ReplyParser,
    ReplyStatus,
    Request,
    crc16,
    frame,
)
from shiftgrad.serial_device import SerialDevice, open_port

CONFIG = get_config("sim_4x4")
WORDS = 256


def seeded() -> random.Random:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


class Memory:
    """What :class:`StandIn` does, in Python."""

    def __init__(self) -> None:
        self.words = {0: MAGIC, 4: CONFIG.size | (CONFIG.tensors - 1).bit_length() << 8}
        self.writes: list[tuple[int, int]] = []

    def access(self, command: Command, address: int, word: int) -> int | None:
        if address % 4 or address >= 4 * WORDS or (command == Command.WRITE and address < 8):
            return None
        if command == Command.WRITE:
            self.writes.append((address, word))
            self.words[address] = word
        return self.words.get(address, 0)


class Golden:
    """The golden machine's host port."""

    def __init__(self) -> None:
        self.device = GoldenDevice(CONFIG)

    def access(self, command: Command, address: int, word: int) -> int | None:
        try:
            if command == Command.WRITE:
                self.device.write(address, [word])
                return 0
            return int(self.device.read(address)[0])
        except DeviceError:
            return None


class Target:
    """Model of the device side as a transport; a read that finds nothing is a pause longer than the time-out."""

    def __init__(self, bus: Memory | Golden) -> None:
        self.bus, self.inbox, self.outbox = bus, b"", b""
        self.last: Reply | None = None
        self.to_target: Callable[[bytes], bytes] = lambda data: data
        self.to_host: Callable[[bytes], bytes] = lambda data: data

    def write(self, data: bytes) -> None:
        self.inbox += self.to_target(data)
        while (start := self.inbox.find(REQUEST_SYNC)) >= 0 and len(self.inbox) - start >= 10:
            self.inbox = self.inbox[start:]
            _, _, sequence, command, count = self.inbox[:5]
            length = 10 + 4 * count * (command == Command.WRITE)
            if command not in list(Command) or not 1 <= count <= MAX_WORDS:
                self.inbox = self.inbox[5:]
            elif len(self.inbox) < length:
                return
            else:
                body, self.inbox = self.inbox[2:length], self.inbox[length:]
                if crc16(body) == 0:
                    self.execute(sequence, Command(command), count, body)

    def execute(self, sequence: int, command: Command, count: int, body: bytes) -> None:
        address = int.from_bytes(body[3:6], "little")
        if command == Command.HELLO:
            self.last = None
            self.send(Reply(sequence=sequence, command=command, status=ReplyStatus.OK, count=1,
                            words=(VERSION << 24 | address,)))
            return
        if self.last is None or self.last.sequence != sequence:
            words, status = [], ReplyStatus.OK
            for i in range(count):
                word = int.from_bytes(body[6 + 4 * i : 10 + 4 * i], "little")
                got = self.bus.access(command, address + 4 * i, word)
                if got is None:
                    status = ReplyStatus.BUS_ERROR
                    break
                words.append(got)
            self.last = Reply(sequence=sequence, command=command, status=status, count=len(words),
                              words=tuple(words) if command == Command.READ else ())
        self.send(self.last)

    def send(self, reply: Reply) -> None:
        self.outbox += self.to_host(reply.encode())

    def read(self, n: int, timeout: float) -> bytes:
        data, self.outbox = self.outbox[:n], self.outbox[n:]
        if not data:
            self.inbox = b""
        return data


class Canned:
    """A transport that answers every request with the same function of it."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer, self.sent, self.outbox = answer, [], b""

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        self.outbox += self.answer(data)

    def read(self, n: int, timeout: float) -> bytes:
        data, self.outbox = self.outbox[:n], self.outbox[n:]
        return data


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


def patient(transport: Target | Canned | Pins, retries: int = 4) -> Link:
    return Link(transport, timeout=60, retries=retries)


def write_request(sequence: int, address: int, *words: int) -> bytes:
    return Request(sequence=sequence, command=Command.WRITE, count=len(words), address=address, words=words).encode()


def read_request(sequence: int, address: int, count: int) -> bytes:
    return Request(sequence=sequence, command=Command.READ, count=count, address=address).encode()


# --- frames ---------------------------------------------------------------------------------------


def test_crc_check_value() -> None:
    assert crc16(b"123456789") == 0x29B1
    body = b"shiftgrad"
    assert crc16(frame(b"", body)) == 0


def test_frame_bytes_are_those_documented() -> None:
    assert write_request(7, 0x012345, 0x89ABCDEF).hex() == "a55a" "07" "02" "01" "452301" "efcdab89" "7c02"
    reply = Reply(sequence=7, command=Command.WRITE, status=ReplyStatus.BUS_ERROR, count=0)
    assert reply.encode()[:5].hex() == "a5c3" "07" "12" "00"


def test_parser_finds_replies_in_garbage_however_it_is_cut() -> None:
    rng = seeded()
    replies = [Reply(sequence=i, command=Command.READ, status=ReplyStatus.OK, count=2, words=(0xC3A5C3A5, i))
               for i in range(20)]
    noise = [rng.randbytes(rng.randrange(5)) + b"\xa5" * rng.randrange(3) for _ in replies]
    data = b"".join(junk + reply.encode() for junk, reply in zip(noise, replies, strict=True))
    parser, got = ReplyParser(), []
    while data:
        cut = rng.randrange(1, 9)
        got += parser.feed(data[:cut])
        data = data[cut:]
    assert got == replies
    assert parser.skipped == sum(map(len, noise))


# --- the host's side against the model ------------------------------------------------------------


def test_reads_back_what_was_written() -> None:
    rng, target = seeded(), Target(Memory())
    link = patient(target)
    words = [rng.getrandbits(32) for _ in range(MAX_WORDS * 2 + 1)]
    link.write(8, words)
    assert link.read(8, len(words)) == words
    link.write(8, [-1, np.int32(-2)])
    assert link.read(8, 2) == [0xFFFFFFFF, 0xFFFFFFFE]
    link.write(8, [])
    assert link.read(8, 0) == []
    assert link.repeats == 0


def test_survives_a_bad_line_and_executes_everything_once() -> None:
    rng, target, wanted, writes = seeded(), Target(Memory()), {}, []
    damage_rate = 0.02

    def damage(data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            fault = rng.choice(["lose", "flip", "insert"]) if rng.random() < damage_rate else ""
            if fault != "lose":
                out.append(byte ^ (1 << rng.randrange(8) if fault == "flip" else 0))
            if fault == "insert":
                out.append(0xA5)
        return bytes(out)

    target.to_target = target.to_host = damage
    link = patient(target, retries=100)
    for _ in range(200):
        address, count = 4 * rng.randrange(2, 200), rng.randrange(1, 9)
        if rng.random() < 0.5:
            words = [rng.getrandbits(32) for _ in range(count)]
            link.write(address, words)
            wanted |= {address + 4 * i: word for i, word in enumerate(words)}
            writes += [(address + 4 * i, word) for i, word in enumerate(words)]
        else:
            assert link.read(address, count) == [wanted.get(address + 4 * i, 0) for i in range(count)]
    assert link.repeats > 20
    assert target.bus.writes == writes


def test_refusal_says_where() -> None:
    link = patient(Target(Memory()))
    with pytest.raises(BusError, match="WRITE of 3 words at 0x0003f8: 0x000400 was refused after 2 words"):
        link.write(0x3F8, [1, 2, 3])
    with pytest.raises(BusError, match="READ of 1 words at 0x800000: 0x800000 was refused after 0 words"):
        link.read(0x800000, 1)
    assert link.read(0x3F8, 2) == [1, 2]


def test_silence() -> None:
    canned = Canned(lambda _: b"")
    with pytest.raises(LinkError, match="HELLO of 1 words .* wanted a reply within 60 s, got nothing in 3 attempts"):
        patient(canned, retries=2).read(0, 1)
    assert len(canned.sent) == 3 and len(set(canned.sent)) == 1


def test_babble_ends() -> None:
    class Babble(Canned):
        def read(self, n: int, timeout: float) -> bytes:
            return b"\xa5\xc3\x00"

    with pytest.raises(LinkError, match=r"got \d+ bytes, \d+ of them in no valid frame in 2 attempts"):
        Link(Babble(lambda _: b""), timeout=0.05, retries=1).connect()


def test_echo_is_no_answer() -> None:
    with pytest.raises(LinkError, match="in no valid frame"):
        patient(Canned(lambda data: data), retries=1).connect()


@pytest.mark.parametrize(("word", "match"), [
    (lambda nonce: 9 << 24 | nonce, "wanted link protocol version 1, got 9"),
    (lambda nonce: VERSION << 24 | nonce ^ 1, "wanted a hello with nonce"),
])
def test_wrong_hello(word: Callable[[int], int], match: str) -> None:
    def answer(data: bytes) -> bytes:
        return Reply(sequence=data[2], command=Command.HELLO, status=ReplyStatus.OK, count=1,
                     words=(word(int.from_bytes(data[5:8], "little")),)).encode()

    with pytest.raises(LinkError, match=match):
        patient(Canned(answer)).connect()


def test_late_replies_are_ignored() -> None:
    target = Target(Memory())
    link = patient(target)
    link.write(8, [1, 2])
    assert link.read(8, 1) == [1]
    target.outbox += Reply(sequence=target.last.sequence, command=Command.READ, status=ReplyStatus.OK, count=1,
                           words=(99,)).encode()
    assert link.read(12, 1) == [2]


def test_new_session_after_a_failure() -> None:
    target = Target(Memory())
    link = patient(target, retries=1)
    link.write(8, [1])
    target.to_target = lambda _: b""
    with pytest.raises(LinkError):
        link.write(8, [2])
    target.to_target = lambda data: data
    for value in range(300):
        link.write(8, [value])
        assert link.read(8, 1) == [value]


@pytest.mark.parametrize(
    ("address", "words"), [(2, [1]), (-4, [1]), (0xFFFFFC, [1, 2]), (8, [1 << 32]), (8, [-(1 << 31) - 1])]
)
def test_senseless_requests_are_not_sent(address: int, words: list[int]) -> None:
    canned = Canned(lambda _: b"")
    with pytest.raises(ValueError, match="wanted|must fit"):
        patient(canned).write(address, words)
    assert not canned.sent


# --- the host's side against the RTL --------------------------------------------------------------


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


# --- the device -----------------------------------------------------------------------------------


def test_device_runs_a_program_on_the_golden_machine() -> None:
    device = SerialDevice(CONFIG, Target(Golden()))
    assert isinstance(device, Device)
    halt = encode(Opcode.HALT)
    device.write(Region.PROGRAM.address, [halt & 0xFFFFFFFF, halt >> 32])
    assert device.run(0) == Status.HALTED
    device.write(Region.PROGRAM.address + 8, np.zeros(2, np.uint32))
    assert device.run(1) == Status.ILLEGAL_OPCODE
    words = device.read(0, 2)
    assert words.dtype == np.uint32 and words[0] == MAGIC
    with pytest.raises(DeviceError, match="0xf00000 was refused after 0 words"):
        device.read(0xF00000, 1)
    device.close()


def test_device_says_what_is_wrong() -> None:
    with pytest.raises(DeviceError, match="cannot open serial port '/dev/no-such-port' at 1000000 baud"):
        SerialDevice(CONFIG, "/dev/no-such-port")
    with pytest.raises(DeviceError, match="cannot open serial port 'nonsense://' at 9600 baud"):
        open_port("nonsense://", 9600)
    with pytest.raises(DeviceError, match="no machine answers at Canned: HELLO .* got nothing"):
        SerialDevice(CONFIG, Canned(lambda _: b""))
    with pytest.raises(DeviceError, match="wanted sim_8x8 with T = 8 and 2\\^6 tensors, got T = 4 and 2\\^6"):
        SerialDevice(get_config("sim_8x8"), Target(Memory()))
    memory = Memory()
    memory.words[0] = 0xDEADBEEF
    with pytest.raises(DeviceError, match="wanted MAGIC 0x53475231, got 0xdeadbeef"):
        SerialDevice(CONFIG, Target(memory))


def test_pyserial_loopback_is_no_machine() -> None:
    with pytest.raises(DeviceError, match="no machine answers at loop://: .* in no valid frame"):
        SerialDevice(CONFIG, "loop://", baud=3_000_000)


def test_everything_is_exported() -> None:
    assert all(hasattr(shiftgrad.link, name) for name in shiftgrad.link.__all__)
