"""A simulated design: clock, AXI4-Lite accesses in C++, and NumPy views of its memories."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["AccessError", "SerialLine", "Simulation", "SimulationError"]

Blocks = NDArray[np.uint64]  # [pairs, 3]: two addresses and a size

TYPES: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class SimulationError(RuntimeError):
    """The design did not answer, or has no such variable."""


class AccessError(SimulationError):
    """The design refused an access, at byte ``address``."""

    def __init__(self, kind: str, address: int) -> None:
        super().__init__(f"{kind} at 0x{address:06x} was refused (SLVERR)")
        self.address = address


@dataclass(frozen=True, slots=True)
class Variable:
    """A public signal or memory: its address and the size of an element."""

    data: int
    bytes: int
    bits: int
    depth: int


class Simulation:
    """One instance of a library that :func:`sim.build.build` made, in reset until :meth:`reset`.

    Close it (or use it in a ``with``) when done; views must not be used after that.
    """

    def __init__(self, library: Path) -> None:
        self._library = _load(library)
        self._handle: int | None = self._library.sim_create()
        self.variables = self._list()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the design; again is harmless."""
        if self._handle is not None:
            self._library.sim_destroy(self._handle)
            self._handle = None

    @property
    def handle(self) -> int:
        """The C++ object; ``SimulationError`` when closed."""
        if self._handle is None:
            raise SimulationError("the simulation is closed")
        return self._handle

    @property
    def cycles(self) -> int:
        """Clock cycles since the start, those of resets included."""
        return int(self._library.sim_cycles(self.handle))

    @property
    def busy(self) -> bool:
        """The output of that name."""
        return bool(self._library.sim_busy(self.handle))

    @property
    def retired(self) -> int:
        """The output of that name."""
        return int(self._library.sim_retired(self.handle))

    def reset(self, cycles: int = 4) -> None:
        """Hold reset for ``cycles``."""
        self._library.sim_reset(self.handle, cycles)

    def tick(self, cycles: int = 1) -> None:
        """Let ``cycles`` pass."""
        self._library.sim_tick(self.handle, cycles)
        self.check_assertions()

    def run(self, limit: int) -> int:
        """Run until ``retired`` changes or ``busy`` is 0; cycles taken. ``SimulationError`` after ``limit`` cycles."""
        cycles = int(self._library.sim_run(self.handle, limit))
        self.check_assertions()
        if cycles < 0:
            raise SimulationError(f"wanted an instruction to end within {limit} cycles, "
                                  f"got none (retired {self.retired})")
        return cycles

    def write(self, address: int, words: ArrayLike, strobe: int = 0xF) -> None:
        """Write 32-bit ``words`` from byte ``address`` up; ``AccessError`` at the first one refused."""
        data = np.ascontiguousarray(np.atleast_1d(np.asarray(words)).astype(np.uint32))
        taken = self._library.sim_write(self.handle, address, data.ctypes.data, len(data), strobe)
        self._check("write", address, len(data), taken)

    def load(self, address: int, words: ArrayLike, gaps: ArrayLike = 0, grace: int = 0) -> int:
        """Write 32-bit ``words`` while a program runs, until one of its instructions has retired; words taken.

        Parameters
        ----------
        gaps : cycles of rest before each word
        grace : cycles after that instruction in which further words may begin
        """
        data = np.ascontiguousarray(np.atleast_1d(np.asarray(words)).astype(np.uint32))
        rests = np.ascontiguousarray(np.broadcast_to(np.asarray(gaps, np.uint32), data.shape))
        taken = ctypes.c_int64()
        result = self._library.sim_load(self.handle, address, data.ctypes.data, rests.ctypes.data, len(data), grace,
                                        ctypes.byref(taken))
        if result in (-1, 2):
            self._check("write", address, len(data), taken.value if result == 2 else -1)
        self.check_assertions()
        return taken.value

    def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
        """``count`` words from byte ``address`` up; ``AccessError`` at the first one refused."""
        data = np.zeros(count, np.uint32)
        taken = self._library.sim_read(self.handle, address, data.ctypes.data, count)
        self._check("read", address, count, taken)
        return data

    def serial_line(self, divisor: int, clock_hz: int) -> SerialLine:
        """The pins ``rx`` and ``tx`` of a design built with ``ports="uart"``, ``divisor`` cycles a bit."""
        return SerialLine(self, self._library, divisor, clock_hz)

    def find(self, pattern: str) -> list[str]:
        """Names of the public variables that match, sorted; ``*`` and ``?`` match anything, dots too."""
        return sorted(name for name in self.variables if fnmatchcase(name, pattern))

    def view(self, pattern: str) -> NDArray[Any]:
        """The one variable that matches: a live, read-only view [depth] of unsigned elements ([1] for a signal)."""
        names = self.find(pattern)
        if len(names) != 1:
            raise SimulationError(f"wanted one variable like {pattern}, got {names or 'none'}")
        variable = self.variables[names[0]]
        if variable.bytes not in TYPES:
            raise SimulationError(f"wanted a variable of at most 64 bits, {names[0]} has {variable.bits}")
        buffer = (ctypes.c_uint8 * (variable.bytes * variable.depth)).from_address(variable.data)
        view = np.frombuffer(memoryview(buffer), TYPES[variable.bytes])
        view.flags.writeable = False
        return view

    def blocks(self, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Blocks:
        """Pairs of contiguous arrays for :meth:`equal`, which must outlive it; each two are alike."""
        for one, other in pairs:
            if one.nbytes != other.nbytes or not (one.flags.c_contiguous and other.flags.c_contiguous):
                raise ValueError(f"wanted contiguous arrays alike, got {one.dtype}{one.shape} and "
                                 f"{other.dtype}{other.shape}")
        return np.array([(one.ctypes.data, other.ctypes.data, one.nbytes) for one, other in pairs], np.uint64)

    def equal(self, blocks: Blocks) -> bool:
        """Whether every two arrays have the same bytes now."""
        return bool(self._library.sim_equal(blocks.ctypes.data, len(blocks)))

    def check_assertions(self) -> None:
        """``SimulationError`` when an assertion of the design failed since this was last called."""
        if failure := self._library.sim_failure(self.handle).decode().strip():
            raise SimulationError(f"the design broke an assertion in {failure}")

    def _check(self, kind: str, address: int, count: int, taken: int) -> None:
        self.check_assertions()
        if taken < 0:
            raise SimulationError(f"{kind} of {count} words from 0x{address:06x}: the design does not answer")
        if taken < count:
            raise AccessError(kind, address + 4 * taken)

    def _list(self) -> dict[str, Variable]:
        data = ctypes.c_void_p()
        sizes = [ctypes.c_uint32() for _ in range(3)]
        found = {}
        for index in range(self._library.sim_variables(self.handle)):
            name = self._library.sim_variable(self.handle, index, ctypes.byref(data), *map(ctypes.byref, sizes))
            found[name.decode()] = Variable(data.value or 0, *(size.value for size in sizes))
        return found


class SerialLine:
    """Bytes in and out at the pins, as a :class:`shiftgrad.link.Transport`; time passes while it is read.

    Parameters
    ----------
    divisor : clock cycles a bit
    clock_hz : clock cycles a second of a timeout
    """

    def __init__(self, simulation: Simulation, library: Any, divisor: int, clock_hz: int) -> None:
        self._simulation, self._library, self.clock_hz = simulation, library, clock_hz
        self._line: int | None = library.uart_create(simulation.handle, divisor)
        self._watcher: Callable[[], None] | None = None

    @property
    def framing_errors(self) -> int:
        """Bytes from the design without a stop bit."""
        return int(self._library.uart_framing_errors(self._line))

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever the design's ``busy`` or ``retired`` has changed, in that very cycle."""
        self._watcher = watcher
        self._library.uart_watch(self._line)

    def write(self, data: bytes, /) -> None:
        """Queue bytes for the design."""
        self._library.uart_write(self._line, data, len(data))

    def read(self, n: int, timeout: float, /) -> bytes:
        """Up to ``n`` bytes: fewer when ``timeout`` simulated seconds pass after all was sent."""
        buffer = ctypes.create_string_buffer(n)
        limit, taken = max(1, round(timeout * self.clock_hz)), -1
        while taken < 0 or self._library.uart_event(self._line):
            if taken == 0 and self._watcher:
                self._watcher()
            taken = self._library.uart_read(self._line, buffer, n, limit)
            self._simulation.check_assertions()
        return buffer.raw[:taken]

    def close(self) -> None:
        """Free the line; the simulation stays."""
        if self._line is not None:
            self._library.uart_destroy(self._line)
            self._line = None


def _load(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    handle, u32, u64, i64, pointer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p
    for name, result, arguments in (
        ("create", handle, []),
        ("destroy", None, [handle]),
        ("cycles", u64, [handle]),
        ("tick", None, [handle, u64]),
        ("failure", ctypes.c_char_p, [handle]),
        ("reset", None, [handle, u64]),
        ("busy", ctypes.c_int, [handle]),
        ("retired", u32, [handle]),
        ("run", i64, [handle, u64]),
        ("equal", ctypes.c_int, [pointer, u64]),
        ("variables", u32, [handle]),
        ("variable", ctypes.c_char_p, [handle, u32, *[pointer] * 4]),
    ):
        _declare(library, f"sim_{name}", result, arguments)
    if hasattr(library, "sim_write"):  # behind AXI4-Lite
        _declare(library, "sim_write", i64, [handle, u32, pointer, i64, u32])
        _declare(library, "sim_load", i64, [handle, u32, pointer, pointer, i64, u64, pointer])
        _declare(library, "sim_read", i64, [handle, u32, pointer, i64])
    else:
        _declare(library, "uart_create", handle, [handle, u32])
        _declare(library, "uart_destroy", None, [handle])
        _declare(library, "uart_write", None, [handle, pointer, i64])
        _declare(library, "uart_read", i64, [handle, pointer, i64, u64])
        _declare(library, "uart_watch", None, [handle])
        _declare(library, "uart_event", ctypes.c_int, [handle])
        _declare(library, "uart_framing_errors", u64, [handle])
    return library


def _declare(library: Any, name: str, result: Any, arguments: list[Any]) -> None:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
