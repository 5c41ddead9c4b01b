"""The serial link: frames, the host's side against a model, and the device behind it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import shiftgrad.link
from shiftgrad.config import get_config
from shiftgrad.device import Device, DeviceError
from shiftgrad.isa import KNOWS_UNSIGNED, MAGIC, Opcode, Region, Status, encode
from shiftgrad.link import (
    MAX_WORDS,
    VERSION,
    BusError,
    Command,
    Link,
    LinkError,
    Reply,
    ReplyParser,
    ReplyStatus,
    crc16,
    frame,
)
from shiftgrad.serial_device import SerialDevice, open_port
from tests.link_partners import CONFIG, Canned, Golden, Memory, Target, patient, seeded, write_request

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
    memory, unsigned = Memory(), replace(CONFIG, unsigned=True)
    with pytest.raises(DeviceError, match="wanted sim_4x4, got a machine without unsigned activations"):
        SerialDevice(unsigned, Target(memory))
    memory.words[4] |= KNOWS_UNSIGNED
    SerialDevice(unsigned, Target(memory)).close()
    memory.words[0] = 0xDEADBEEF
    with pytest.raises(DeviceError, match="wanted MAGIC 0x53475231, got 0xdeadbeef"):
        SerialDevice(CONFIG, Target(memory))


def test_pyserial_loopback_is_no_machine() -> None:
    with pytest.raises(DeviceError, match="no machine answers at loop://: .* in no valid frame"):
        SerialDevice(CONFIG, "loop://", baud=3_000_000)


def test_everything_is_exported() -> None:
    assert all(hasattr(shiftgrad.link, name) for name in shiftgrad.link.__all__)
