"""The host link: framed, checked, repeatable reads and writes over any byte pipe (see ``docs/link.md``)."""

from __future__ import annotations

import random
import time
from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

__all__ = [
    "CRC_INIT", "MAX_WORDS", "REPLY_SYNC", "REQUEST_SYNC", "VERSION", "BusError", "Command", "Link", "LinkError",
    "Reply", "ReplyParser", "ReplyStatus", "Request", "Transport", "crc16", "frame",
]

VERSION = 1
REQUEST_SYNC = b"\xa5\x5a"
REPLY_SYNC = b"\xa5\xc3"
MAX_WORDS = 64
CRC_INIT = 0xFFFF
_REPLY_HEADER, _CRC_BYTES = 3, 2


class Command(IntEnum):
    """What a request asks for. HELLO forgets the last sequence number; its address field is a nonce."""

    HELLO = 1
    WRITE = 2
    READ = 3


class ReplyStatus(IntEnum):
    """Outcome of an executed request."""

    OK = 0
    BUS_ERROR = 1  # the word after the last one counted was refused


class LinkError(RuntimeError):
    """The other side did not answer as the protocol demands; what was wanted and what was got."""


class BusError(LinkError):
    """The machine refused an access: no such address, or it is busy."""


class Transport(Protocol):
    """A byte pipe that may lose, corrupt or invent bytes, but keeps their order."""

    def write(self, data: bytes, /) -> None:
        """Send ``data``."""

    def read(self, n: int, timeout: float, /) -> bytes:
        """From 1 to ``n`` bytes as soon as there are any; empty when ``timeout`` seconds passed without one."""


def crc16(data: bytes) -> int:
    """CRC-16/CCITT: polynomial 0x1021, initially 0xFFFF, most significant bit first, not inverted."""
    return crc_hqx(data, CRC_INIT)


def frame(sync: bytes, body: bytes) -> bytes:
    """``body`` between ``sync`` and its CRC, high byte first."""
    return sync + body + crc16(body).to_bytes(2, "big")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request; ``words`` only for WRITE, then ``count`` of them."""

    sequence: int
    command: Command
    count: int
    address: int
    words: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """The frame on the wire."""
        payload = b"".join(word.to_bytes(4, "little") for word in self.words)
        head = bytes([self.sequence, self.command, self.count]) + self.address.to_bytes(3, "little")
        return frame(REQUEST_SYNC, head + payload)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One reply; ``count`` words were written or read, ``words`` only for READ and HELLO."""

    sequence: int
    command: Command
    status: ReplyStatus
    count: int
    words: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """The frame on the wire."""
        payload = b"".join(word.to_bytes(4, "little") for word in self.words)
        return frame(REPLY_SYNC, bytes([self.sequence, self.command | self.status << 4, self.count]) + payload)


class ReplyParser:
    """Finds replies in a stream of bytes: what has no valid header or CRC is skipped, one byte at a time.

    Members
    -------
    skipped : bytes that belonged to no valid reply since :meth:`clear`
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped = 0

    def clear(self) -> None:
        """Forget everything received so far."""
        self._buffer.clear()
        self.skipped = 0

    @property
    def pending(self) -> int:
        """Bytes of a frame not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Reply]:
        """Yield the replies ``data`` completes."""
        self._buffer += data
        while self._buffer:
            length = self._length()
            if length > len(self._buffer):
                return
            body = bytes(self._buffer[2:length])
            if length and crc_hqx(body, CRC_INIT) == 0:
                del self._buffer[:length]
                yield self._decode(body)
            else:
                del self._buffer[0]
                self.skipped += 1

    def _length(self) -> int:
        """Bytes the frame at the start of the buffer takes, as far as is known; 0 when no frame starts there."""
        head = bytes(self._buffer[: 2 + _REPLY_HEADER])
        if not REPLY_SYNC.startswith(head[:2]):
            return 0
        if len(head) < 2 + _REPLY_HEADER:
            return 2 + _REPLY_HEADER
        command, status, count = head[3] & 15, head[3] >> 4, head[4]
        if command not in list(Command) or status not in list(ReplyStatus) or count > MAX_WORDS:
            return 0
        return len(head) + (0 if command == Command.WRITE else 4 * count) + _CRC_BYTES

    @staticmethod
    def _decode(body: bytes) -> Reply:
        payload = body[_REPLY_HEADER:-_CRC_BYTES]
        words = tuple(int.from_bytes(payload[i : i + 4], "little") for i in range(0, len(payload), 4))
        return Reply(sequence=body[0], command=Command(body[1] & 15), status=ReplyStatus(body[1] >> 4), count=body[2],
                     words=words)


class Link:
    """Reads and writes 32-bit words of the machine's address map; one request at a time.

    A request without a valid reply within ``timeout`` is sent again with the same sequence number, which the other side
    executes at most once. When all attempts fail the call raises and the next one starts with a new hello.

    Parameters
    ----------
    transport : the byte pipe
    timeout : seconds an attempt waits for its reply; must exceed the parser's inter-byte time-out at the other side
    retries : further attempts after the first
    """

    def __init__(self, transport: Transport, *, timeout: float = 0.25, retries: int = 4) -> None:
        if timeout <= 0 or retries < 0:
            raise ValueError(f"timeout must be positive and retries not negative, got {timeout} and {retries}")
        self.timeout, self.retries = timeout, retries
        self.repeats = 0
        self._transport = transport
        self._parser = ReplyParser()
        self._random = random.SystemRandom()
        self._sequence = 0
        self._connected = False

    def connect(self) -> None:
        """Start a session: agree on the protocol version and forget older sequence numbers."""
        self._connected = False
        self._parser.clear()
        self._sequence, nonce = self._random.randrange(256), self._random.randrange(1 << 24)
        reply = self._exchange(Request(sequence=self._sequence, command=Command.HELLO, count=1, address=nonce))
        version, echo = (reply.words[0] >> 24, reply.words[0] & 0xFFFFFF) if reply.words else (0, 0)
        if version != VERSION:
            raise LinkError(f"wanted link protocol version {VERSION}, got {version}")
        if echo != nonce:
            raise LinkError(f"wanted a hello with nonce 0x{nonce:06x}, got 0x{echo:06x}")
        self._connected = True

    def write(self, address: int, words: Sequence[int]) -> None:
        """Write ``words`` (32-bit, signed or unsigned) from byte ``address`` up.

        Raises
        ------
        BusError : a word was refused; those before it are written
        LinkError : no valid reply; whether the words in question are written is unknown
        """
        values = [int(word) for word in words]
        for i, word in enumerate(values):
            if not -(1 << 31) <= word < 1 << 32:
                raise ValueError(f"word {i} must fit 32 bits, got {word}")
        self._check(address, len(values))
        for first in range(0, len(values), MAX_WORDS):
            chunk = tuple(word & 0xFFFFFFFF for word in values[first : first + MAX_WORDS])
            self._transact(Command.WRITE, address + 4 * first, len(chunk), chunk)

    def read(self, address: int, count: int) -> list[int]:
        """``count`` unsigned 32-bit words from byte ``address`` up; errors as :meth:`write`."""
        self._check(address, count)
        words: list[int] = []
        for first in range(0, count, MAX_WORDS):
            words += self._transact(Command.READ, address + 4 * first, min(MAX_WORDS, count - first)).words
        return words

    @staticmethod
    def _check(address: int, count: int) -> None:
        if address < 0 or address % 4 or count < 0 or address + 4 * count > 1 << 24:
            raise ValueError(f"wanted word addresses of 24 bits, got {count} words at 0x{address:x}")

    def _transact(self, command: Command, address: int, count: int, words: tuple[int, ...] = ()) -> Reply:
        if not self._connected:
            self.connect()
        self._sequence = (self._sequence + 1) % 256
        reply = self._exchange(
            Request(sequence=self._sequence, command=command, count=count, address=address, words=words)
        )
        if reply.status != ReplyStatus.OK:
            refused = address + 4 * reply.count
            raise BusError(f"{command.name} of {count} words at 0x{address:06x}: 0x{refused:06x} was refused after "
                           f"{reply.count} words (no such address, or the machine is busy)")
        if reply.count != count:
            self._connected = False
            raise LinkError(f"{command.name} at 0x{address:06x}: wanted {count} words done, got {reply.count}")
        return reply

    def _exchange(self, request: Request) -> Reply:
        """Send until a reply to this very request arrives."""
        heard = skipped = 0
        for attempt in range(self.retries + 1):
            self.repeats += attempt > 0
            self._transport.write(request.encode())
            deadline = time.monotonic() + self.timeout
            while (left := deadline - time.monotonic()) > 0:
                data = self._transport.read(MAX_WORDS * 4 + 8, left)
                if not data:
                    break
                heard += len(data)
                for reply in self._parser.feed(data):
                    if (reply.sequence, reply.command) == (request.sequence, request.command):
                        return reply
            skipped += self._parser.skipped + self._parser.pending
            self._parser.clear()
        self._connected = False
        got = f"{heard} bytes, {skipped} of them in no valid frame" if heard else "nothing"
        raise LinkError(f"{request.command.name} of {request.count} words at 0x{request.address:06x}: wanted a reply "
                        f"within {self.timeout:g} s, got {got} in {self.retries + 1} attempts")
