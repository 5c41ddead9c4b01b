"""A device: something that answers the host bus. The golden machine is one; a simulation, a serial port are others."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.machine import BusError, GoldenMachine
from shiftgrad.config import Config
from shiftgrad.isa import COUNTERS, LFSR_BASE, LOADS_WHILE_BUSY, REGISTERS, Status

__all__ = ["Device", "DeviceError", "GoldenDevice", "RegisterAccess"]

ADDRESSES = {register.name: register.address for register in REGISTERS}
BASIC_REGISTERS, COUNTER_REGISTERS = 0x30 // 4, 2 * len(COUNTERS)
START, ABORT, CLEAR = 1, 2, 4


class DeviceError(RuntimeError):
    """A device that refused an access, or did not answer."""


@runtime_checkable
class Device(Protocol):
    """What runs programs.

    Members
    -------
    config : the machine's configuration
    compared_instructions : instructions compared with the golden machine so far (0 when the device does not compare)
    mismatches : how many of them differed
    """

    config: Config
    compared_instructions: int
    mismatches: int

    def write(self, address: int, words: ArrayLike) -> None:
        """Write 32-bit ``words`` from byte ``address`` up; ``DeviceError`` when refused."""

    def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
        """``count`` 32-bit words from byte ``address`` up; ``DeviceError`` when refused."""
        ...

    @property
    def loads_while_busy(self) -> bool:
        """Whether the memories ``isa.LOADABLE`` may be written between :meth:`start` and :meth:`wait`."""
        ...

    def start(self, pc: int = 0) -> None:
        """Start at ``pc``."""

    def wait(self) -> Status:
        """Wait until the machine stops, and say why it did."""
        ...

    def run(self, pc: int = 0) -> Status:
        """:meth:`start` and :meth:`wait`."""
        ...

    def counters(self) -> dict[str, int]:
        """The 48-bit counters by name, and the registers RETIRED, LOSS, CORRECT, SAMPLES and SATURATED."""
        ...

    def clear_counters(self) -> None:
        """Zero the 48-bit counters."""

    def close(self) -> None:
        """Release what the device holds."""


class RegisterAccess:
    """Registers by name, and :meth:`run`, for a class with ``read`` and ``write``; ``timeout`` of a run in seconds."""

    timeout: float = 600.0

    def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
        """``count`` 32-bit words from byte ``address`` up."""
        raise NotImplementedError

    def write(self, address: int, words: ArrayLike) -> None:
        """Write 32-bit ``words`` from byte ``address`` up."""
        raise NotImplementedError

    def read_register(self, name: str) -> int:
        """Value of register ``name``."""
        return int(self.read(_address(name), 1)[0])

    def write_register(self, name: str, value: int) -> None:
        """Set register ``name``."""
        if not 0 <= value < 1 << 32:
            raise DeviceError(f"register {name} takes 0 to 2^32 - 1, got {value}")
        self.write(_address(name), np.array([value], np.uint32))

    def counters(self) -> dict[str, int]:
        """The 48-bit counters by name, and the registers RETIRED, LOSS, CORRECT, SAMPLES and SATURATED."""
        words = self.read(ADDRESSES[f"{next(iter(COUNTERS))}_LO"], COUNTER_REGISTERS).tolist()
        values = {name: words[2 * i] | words[2 * i + 1] << 32 for i, name in enumerate(COUNTERS)}
        names = ("RETIRED", "LOSS", "CORRECT", "SAMPLES", "SATURATED")
        return values | dict(zip(names, self.read(ADDRESSES["RETIRED"], len(names)).tolist(), strict=True))

    def clear_counters(self) -> None:
        """Zero the 48-bit counters."""
        self.write_register("CTRL", CLEAR)

    def seed(self, states: ArrayLike) -> None:
        """Set every lane's generator, T 32-bit states; 0 is stored as 1."""
        self.write(LFSR_BASE, states)

    def status(self) -> tuple[bool, Status]:
        """Whether the machine is busy, and its status code."""
        word = self.read_register("STATUS")
        return bool(word & 1), Status(word >> 8 & 0xFF)

    @cached_property
    def loads_while_busy(self) -> bool:
        """Whether the memories ``isa.LOADABLE`` may be written between :meth:`start` and :meth:`wait`."""
        return bool(self.read_register("CONFIG") & LOADS_WHILE_BUSY)

    def start(self, pc: int = 0) -> None:
        """Start at ``pc``."""
        self.write_register("START_PC", pc)
        self.write_register("CTRL", START)

    def run(self, pc: int = 0) -> Status:
        """:meth:`start` and :meth:`wait`."""
        self.start(pc)
        return self.wait()

    def wait(self) -> Status:
        """Wait until the machine stops, and say why it did."""
        deadline = time.monotonic() + self.timeout
        while (state := self.status())[0]:
            if time.monotonic() > deadline:
                raise DeviceError(f"busy for {self.timeout} s at instruction {self.read_register('PC')}")
        return state[1]


class GoldenDevice(RegisterAccess):
    """The golden machine as a device, whose programs end in the access that starts them; ``machine`` is open."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.machine = GoldenMachine(config)
        self.compared_instructions = 0
        self.mismatches = 0

    def write(self, address: int, words: ArrayLike) -> None:
        try:
            self.machine.write(address, words)
        except BusError as error:
            raise DeviceError(str(error)) from error

    def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
        try:
            return self.machine.read(address, count)
        except BusError as error:
            raise DeviceError(str(error)) from error

    def close(self) -> None:
        """Nothing to release."""


def _address(name: str) -> int:
    try:
        return ADDRESSES[name]
    except KeyError:
        raise DeviceError(f"no register {name!r}; there are: {', '.join(ADDRESSES)}") from None
