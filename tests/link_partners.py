"""What both sides of the link are tested with: models of the device side, a patient host, requests as bytes."""

import random
from collections.abc import Callable

from shiftgrad.config import get_config
from shiftgrad.device import DeviceError, GoldenDevice
from shiftgrad.isa import MAGIC
from shiftgrad.link import (
    MAX_WORDS,
    REQUEST_SYNC,
    VERSION,
    Command,
    Link,
    Reply,
    ReplyStatus,
    Request,
    Transport,
    crc16,
)

CONFIG = get_config("sim_4x4")
WORDS = 256


def seeded() -> random.Random:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


class Memory:
    """What :class:`hw.boards.standin.StandIn` does, in Python."""

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


def patient(transport: Transport, retries: int = 4) -> Link:
    return Link(transport, timeout=60, retries=retries)


def write_request(sequence: int, address: int, *words: int) -> bytes:
    return Request(sequence=sequence, command=Command.WRITE, count=len(words), address=address, words=words).encode()


def read_request(sequence: int, address: int, count: int) -> bytes:
    return Request(sequence=sequence, command=Command.READ, count=count, address=address).encode()
