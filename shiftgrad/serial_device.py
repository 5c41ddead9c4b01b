"""The machine on a board, at the other end of a serial port."""

from __future__ import annotations

from typing import Any

import numpy as np
import serial
from numpy.typing import ArrayLike, NDArray

from shiftgrad.config import Config
from shiftgrad.device import DeviceError, RegisterAccess
from shiftgrad.isa import KNOWS_UNSIGNED, MAGIC
from shiftgrad.link import MAX_WORDS, Link, LinkError, Transport

__all__ = ["BAUD", "SerialDevice", "SerialTransport", "open_port"]

BAUD = 1_000_000


class SerialTransport:
    """A pyserial port as a :class:`~shiftgrad.link.Transport`."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def write(self, data: bytes, /) -> None:
        """Send ``data``; ``LinkError`` when the port is gone or does not take it."""
        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as error:
            raise LinkError(f"serial port {self._port.name}: wanted to send {len(data)} bytes, got {error}") from error

    def read(self, n: int, timeout: float, /) -> bytes:
        """Up to ``n`` bytes as soon as there are any; ``LinkError`` when the port is gone."""
        try:
            self._port.timeout = timeout
            data = bytes(self._port.read(1))
            if data and n > 1:
                data += bytes(self._port.read(min(n - 1, self._port.in_waiting)))
        except (serial.SerialException, OSError) as error:
            raise LinkError(f"serial port {self._port.name}: wanted to receive, got {error}") from error
        return data

    def close(self) -> None:
        """Close the port."""
        self._port.close()


def open_port(port: str, baud: int = BAUD) -> SerialTransport:
    """Open serial port or pyserial URL ``port``; ``DeviceError`` when that fails."""
    try:
        opened = serial.serial_for_url(port, baudrate=baud, write_timeout=2.0, timeout=0)
        opened.reset_input_buffer()
    except (serial.SerialException, OSError, ValueError) as error:
        raise DeviceError(f"cannot open serial port {port!r} at {baud} baud: {error}") from error
    return SerialTransport(opened)


class SerialDevice(RegisterAccess):
    """A machine over :class:`~shiftgrad.link.Link`.

    Parameters
    ----------
    config : configuration the board must carry
    port : serial port such as ``/dev/ttyUSB0``, or a transport
    baud : bits a second
    timeout : seconds a run may take

    Raises
    ------
    DeviceError : the port cannot be opened, nobody answers, or what answers is another machine
    """

    def __init__(self, config: Config, port: str | Transport, *, baud: int = BAUD, timeout: float = 600.0) -> None:
        self.config = config
        self.timeout = timeout
        self.compared_instructions = 0
        self.mismatches = 0
        self._transport = open_port(port, baud) if isinstance(port, str) else port
        self._name = port if isinstance(port, str) else type(port).__name__
        longest = 2 * 10 * (4 * MAX_WORDS + 10) / baud
        self.link = Link(self._transport, timeout=0.1 + longest)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        try:
            self.link.connect()
            magic, found = self.link.read(0, 2)
        except LinkError as error:
            raise DeviceError(f"no machine answers at {self._name}: {error}") from error
        if magic != MAGIC:
            raise DeviceError(f"{self._name}: wanted MAGIC 0x{MAGIC:08x}, got 0x{magic:08x}")
        size, entries = found & 0xFF, found >> 8 & 0xFF
        wanted = (self.config.size, (self.config.tensors - 1).bit_length())
        if (size, entries) != wanted:
            raise DeviceError(f"{self._name}: wanted {self.config.name} with T = {wanted[0]} and 2^{wanted[1]} tensors,"
                              f" got T = {size} and 2^{entries}")
        if self.config.unsigned and not found & KNOWS_UNSIGNED:
            raise DeviceError(f"{self._name}: wanted {self.config.name}, got a machine without unsigned activations")

    def write(self, address: int, words: ArrayLike) -> None:
        """Write 32-bit ``words`` from byte ``address`` up; ``DeviceError`` when refused or not answered."""
        values = np.atleast_1d(np.asarray(words)).ravel().tolist()
        try:
            self.link.write(address, values)
        except (LinkError, ValueError) as error:
            raise DeviceError(str(error)) from error

    def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
        """``count`` 32-bit words from byte ``address`` up; ``DeviceError`` when refused or not answered."""
        try:
            return np.array(self.link.read(address, count), np.uint32)
        except (LinkError, ValueError) as error:
            raise DeviceError(str(error)) from error

    def close(self) -> None:
        """Close the port."""
        close = getattr(self._transport, "close", None)
        if close is not None:
            close()
