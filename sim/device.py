"""The simulated machine as a device, compared with the golden machine after every instruction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.machine import GoldenMachine
from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import ABORT, ADDRESSES, START, DeviceError, RegisterAccess
from shiftgrad.isa import COUNTERS, LEGAL_FLAGS, Opcode, Region, Status, decode
from sim.build import Progress
from sim.compare import Comparison, Difference, MismatchError, compare_registers, compare_words
from sim.machine import library, machine_state
from sim.model import AccessError, Simulation, SimulationError

__all__ = ["VerilatorDevice"]

CYCLE_LIMIT = 20_000_000  # more than the longest instruction that fits the memories takes
CTRL = ADDRESSES["CTRL"]
LANDING = 8  # cycles, and T, from the answer to a write until it is in the memory of the last lane


class VerilatorDevice(RegisterAccess):
    """The RTL of ``config`` in Verilator, behind its AXI4-Lite port.

    Parameters
    ----------
    compare : keep a golden machine in lock-step and compare every memory word, the tensor table, the generators and
        the result registers after each instruction, and every window read. A program that a write to CTRL starts then
        runs to its end inside that access; one that is aborted leaves its last instruction uncompared, and the
        golden machine takes over what it left
    stop : raise :class:`MismatchError` at the first mismatch; otherwise only count them
    cycle_limit : cycles after which an instruction is given up, with a ``DeviceError``
    progress : called with lines about the build; stderr when None

    Attributes
    ----------
    opcodes : compared instructions by operation
    """

    def __init__(self, config: Config, *, compare: bool = True, stop: bool = True, cycle_limit: int = CYCLE_LIMIT,
                 progress: Progress | None = None) -> None:
        self.config = config
        self.stop, self.cycle_limit = stop, cycle_limit
        self.simulation = Simulation(library(config, progress))
        self.state = machine_state(self.simulation, config)
        self.golden = GoldenMachine(config) if compare else None
        self._comparison: Comparison | None = None
        self.opcodes: Counter[str] = Counter()
        self._following = False  # a program that is compared has not been compared to its end
        self.compared_instructions = self.mismatches = 0
        self._run_cycles, self._run_seconds = 0, 0.0
        self.simulation.reset()

    def close(self) -> None:
        """Free the simulation."""
        self.simulation.close()

    def reset(self) -> None:
        """Pulse the reset input: a program in progress is lost, memories keep what they have."""
        self.simulation.reset()
        self._following = False
        if self.golden:
            golden, state = GoldenMachine(self.config), self.state
            for name in MEMORIES:
                golden.memories[name][:] = state.memory(name)
            for word, column in state.table.items():
                golden.table[:, word] = column
            golden.program[:] = state.program
            self.golden = golden

    @property
    def cycles(self) -> int:
        """Clock cycles simulated so far."""
        return self.simulation.cycles

    @property
    def cycles_per_second(self) -> float:
        """Speed of the simulation while programs ran; 0 before the first."""
        return self._run_cycles / self._run_seconds if self._run_seconds else 0.0

    # --- the bus ----------------------------------------------------------------------------------

    def write(self, address: int, words: ArrayLike) -> None:
        """Write 32-bit ``words`` from byte ``address`` up; those before a refused one are written."""
        _check_aligned(address)
        data = np.atleast_1d(np.asarray(words)).astype(np.uint32)
        if self._following and address >= Region.PROGRAM.address:
            self.load(address, data)
            return
        try:
            self.simulation.write(address, data)
        except AccessError as error:
            self._mirror(address, data[: (error.address - address) // 4])
            raise DeviceError(str(error)) from error
        except SimulationError as error:
            raise DeviceError(str(error)) from error
        self._mirror(address, data)

    def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
        """``count`` 32-bit words from byte ``address`` up."""
        _check_aligned(address)
        try:
            if self._following:  # an instruction may end at every word
                data = np.concatenate([self._read_between(address + 4 * i) for i in range(count)])
            else:
                data = self.simulation.read(address, count)
        except SimulationError as error:
            raise DeviceError(str(error)) from error
        if self.golden and address >= Region.PROGRAM.address and not self.simulation.busy:
            wanted = self.golden.read(address, count)
            self._report(f"read of {count} words from 0x{address:06x}", list(compare_words("word", data, wanted)))
        return data

    def _mirror(self, address: int, data: NDArray[np.uint32]) -> None:
        """Do to the golden machine what was done to the simulation."""
        if not self.golden or not len(data):
            return
        control = (CTRL - address) // 4
        if 0 <= control < len(data):
            if self._following and int(data[control]) & ABORT:
                self._stopped()
            start = int(data[control]) & (START | ABORT) == START  # an abort wins
            data = data.copy()
            data[control] &= ~np.uint32(START)
            self.golden.write(address, data)
            if start:
                self._lock_step()
        else:
            self.golden.write(address, data)

    def adopt(self) -> None:
        """Give the golden machine what the simulation has: an instruction in progress was stopped."""
        golden, state = self.golden, self.state
        assert golden
        for name in MEMORIES:
            golden.memories[name][:] = state.memory(name)
            golden.mark(name, 0, self.config.words(name))
        for word, column in state.table.items():
            golden.table[:, word] = column
        golden.program[:] = state.program
        golden.lfsr[:] = np.concatenate(state.lfsr)
        for name, view in state.results.items():
            setattr(golden, name, int(view[0]))
        counters = self.counters()
        golden.counters |= {name: counters[name] for name in COUNTERS if name.endswith("_MACS")}

    def _stopped(self) -> None:
        """An abort has ended the program that was compared."""
        self._following = False
        while self.simulation.busy:
            self._advance()
        self.simulation.tick(self.config.size + LANDING)
        self.adopt()

    # --- running ----------------------------------------------------------------------------------

    def start(self, pc: int = 0) -> None:
        """Start at ``pc``."""
        self.write(ADDRESSES["START_PC"], [pc])
        if not self.golden:
            self.write(CTRL, [START])
            return
        try:
            self.simulation.write(CTRL, [START])
        except SimulationError as error:
            raise DeviceError(str(error)) from error
        self._follow()

    def wait(self) -> Status:
        """Wait until the machine stops, and say why it did."""
        while self._following:
            self._compare_next()
        while self.simulation.busy:
            self._advance()
        return self.status()[1]

    def load(self, address: int, data: NDArray[np.uint32], *, rest: ArrayLike = 0, grace: int = 0) -> None:
        """Write uint32 ``data`` while a program runs that is compared: each instruction a little after its end.

        Parameters
        ----------
        rest : cycles before each word
        grace : cycles after an instruction in which further words may begin before it is compared; not enough for the
            next instruction to write anything
        """
        golden, simulation, done = self.golden, self.simulation, 0
        assert golden
        rests = np.broadcast_to(np.asarray(rest, np.uint32), data.shape)
        while done < len(data):
            here = address + 4 * done
            try:
                taken = simulation.load(here, data[done:], rests[done:], grace)
            except AccessError as error:
                self._mirror(here, data[done:done + (error.address - here) // 4])
                raise DeviceError(str(error)) from error
            except SimulationError as error:
                raise DeviceError(str(error)) from error
            self._mirror(here, data[done:done + taken])
            done += taken
            self._catch_up()

    def _read_between(self, address: int) -> NDArray[np.uint32]:
        """One word, while a program runs that is compared."""
        data = self.simulation.read(address)
        self._catch_up()
        return data

    def _catch_up(self) -> None:
        """Compare what has just ended; the next instruction has written nothing yet."""
        assert self.golden
        while self._following and (self.simulation.retired != self.golden.retired or not self.simulation.busy):
            self.simulation.tick(self.config.size + LANDING)
            self._compare_next()

    def _advance(self) -> None:
        """Let the instruction in progress end."""
        began = time.perf_counter()
        try:
            self._run_cycles += self.simulation.run(self.cycle_limit)
        except SimulationError as error:
            pc = self.read_register("PC")
            raise DeviceError(f"instruction {pc} does not end: {error}") from error
        finally:
            self._run_seconds += time.perf_counter() - began

    def _follow(self) -> None:
        """The golden machine starts, too."""
        assert self.golden
        self.golden.pc, self.golden.retired = self.golden.start_pc, 0
        self._following = True

    def _lock_step(self) -> None:
        """Run a started program to its end on both machines."""
        self._follow()
        while self._following:
            self._compare_next()
        while self.simulation.busy:
            self._advance()

    def _compare_next(self) -> None:
        """Let both machines end the instruction in progress, and compare them."""
        golden, simulation = self.golden, self.simulation
        assert golden
        if simulation.busy and simulation.retired == golden.retired:
            self._advance()
        retired = simulation.retired != golden.retired
        pc, status = golden.pc, golden.step()
        self._following = status is None
        differences = self._differences(status is not None)
        if retired != (status is None):
            differences.insert(0, Difference(where="instructions retired", simulated=simulation.retired,
                                             golden=golden.retired))
        elif status is not None:
            differences += self._final_differences(status)
        self.compared_instructions += 1
        self.opcodes[name := self._name(pc)] += 1
        self._report(f"after instruction {pc} ({name})", differences)

    def _name(self, pc: int) -> str:
        if pc >= self.config.program_words:
            return "beyond the program"
        opcode = decode(int(self.state.program[pc]))["opcode"]
        return Opcode(opcode).name if opcode in LEGAL_FLAGS else f"opcode 0x{opcode:02x}"

    # --- comparing --------------------------------------------------------------------------------

    def _report(self, when: str, differences: list[Difference]) -> None:
        if differences:
            self.mismatches += 1
            if self.stop:
                raise MismatchError(when, differences)

    def _differences(self, stopped: bool) -> list[Difference]:
        """What differs now; a program's end is compared without relying on what the golden machine marks as written."""
        if not self._comparison or self._comparison.golden is not self.golden:
            assert self.golden
            self._comparison = Comparison(self.simulation, self.state, self.golden)
        equal = self._comparison.equal() and not stopped
        return [] if equal else self._comparison.differences()

    def _final_differences(self, status: Status) -> Iterator[Difference]:
        """Registers that only settle when the machine stops: status, PC and the multiply-accumulate counters."""
        golden = self.golden
        assert golden
        counters = self.counters()
        pairs = {"STATUS": (int(self.status()[1]), int(status)), "PC": (self.read_register("PC"), golden.pc)}
        pairs |= {name: (counters[name], golden.counters[name]) for name in COUNTERS if name.endswith("_MACS")}
        yield from compare_registers(pairs)


def _check_aligned(address: int) -> None:
    if address % 4:
        raise DeviceError(f"access at 0x{address:06x} was refused: the address must be a multiple of 4")
