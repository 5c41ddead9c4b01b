"""A board at its pins: bits in and out of the serial line of everything but PLL and pads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.machine import GoldenMachine
from hw.boards.board import Board
from hw.boards.top import simulated_board
from hw.core import Core
from hw.small.core import SmallCore
from hw.top import to_verilog
from hw.uart import uart_divisor
from shiftgrad.config import MEMORIES, get_config
from shiftgrad.device import ADDRESSES, START, DeviceError
from shiftgrad.isa import LOADABLE, Memory, Region
from shiftgrad.serial_device import SerialDevice
from shiftgrad.tensor_words import pack_tensor
from sim.build import Progress, build
from sim.compare import Comparison, Difference, MismatchError, compare_registers, compare_words
from sim.machine import machine_state, public
from sim.model import Simulation

__all__ = ["BoardDevice", "BoardSimulation", "board_library"]

PATIENCE = 60.0  # seconds for a reply: a simulated second takes longer than one


def board_library(board: Board, progress: Progress | None = None) -> Path:
    """The simulator of ``board``, built when there is none for this Verilog."""
    config = get_config(board.config)
    top = simulated_board(board=board, core=(SmallCore if config.dense else Core)(config=config))
    return build(to_verilog(top, "board"), top="board", public=public(config), ports="uart", progress=progress)


class BoardSimulation:
    """``line`` is a transport for :class:`shiftgrad.serial_device.SerialDevice`; ``state`` looks into the memories."""

    def __init__(self, board: Board, progress: Progress | None = None) -> None:
        self.config = get_config(board.config)
        self.simulation = Simulation(board_library(board, progress))
        self.simulation.reset()
        self.line = self.simulation.serial_line(uart_divisor(board.clock_hz, board.baud), board.clock_hz)
        self.state = machine_state(self.simulation, self.config)

    def close(self) -> None:
        """Free the simulation."""
        self.line.close()
        self.simulation.close()


class BoardDevice(SerialDevice):
    """The machine of a simulated board behind its serial pins, compared with the golden machine.

    In the very cycle in which an instruction has ended, every memory word, the tensor table, the generators and the
    result registers are compared; so is what the host reads. Words of a write that has not been answered then may have
    arrived or not.

    Raises
    ------
    MismatchError : from whatever access time passes in
    """

    def __init__(self, board: Board, progress: Progress | None = None) -> None:
        self.board = BoardSimulation(board, progress)
        super().__init__(self.board.config, self.board.line)
        self.link.timeout = PATIENCE
        self.golden = GoldenMachine(self.config)
        self._running = False
        self._under_way: tuple[int, NDArray[np.uint32]] | None = None  # a write to a memory while a program runs
        self._comparison = Comparison(self.board.simulation, self.board.state, self.golden)
        self.board.line.watch(self._changed)

    def write(self, address: int, words: ArrayLike) -> None:
        """As of the base, and to the golden machine."""
        data = np.atleast_1d(np.asarray(words)).astype(np.uint32)
        if address == ADDRESSES["CTRL"] and int(data[0]) & START:
            self.golden.write(address, data & ~np.uint32(START))
            self.golden.pc, self.golden.retired = self.golden.start_pc, 0
            super().write(address, data)
            return
        loads = self._running and address >> self.config.window_bits in [Region[name.upper()] for name in LOADABLE]
        self._under_way = (address, data) if loads else None
        try:
            super().write(address, data)
        except DeviceError:
            self._land()
            raise
        finally:
            self._under_way = None
        self.golden.write(address, data)

    def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
        """As of the base; what a program cannot be changing is compared."""
        data = super().read(address, count)
        if address >= Region.PROGRAM.address and not self._running:
            wanted = self.golden.read(address, count)
            self._report(f"read of {count} words from 0x{address:06x}", list(compare_words("word", data, wanted)))
        return data

    def close(self) -> None:
        """Free the simulation."""
        self.board.close()

    def _changed(self) -> None:
        """An instruction has ended, or the machine has started or stopped."""
        simulation = self.board.simulation
        busy, retired = simulation.busy, simulation.retired
        if self._running and retired > self.golden.retired:
            self._step(stops=False)
        if self._running and not busy:
            self._step(stops=True)
        self._running = busy

    def _step(self, *, stops: bool) -> None:
        """The golden machine's instruction, and what differs then."""
        self._land()
        golden, pc = self.golden, self.golden.pc
        stopped = golden.step() is not None
        differences = [] if self._comparison.equal() and not stopped else self._comparison.differences()
        if stopped != stops:
            differences.append(Difference(where="stopped", simulated=stops, golden=stopped))
        differences += compare_registers({"RETIRED": (self.board.simulation.retired, golden.retired)})
        self.compared_instructions += 1
        self._report(f"after instruction {pc}", differences)

    def _land(self) -> None:
        """The golden machine takes what has arrived of the write under way, byte by byte."""
        if not self._under_way:
            return
        address, data = self._under_way
        memory = Memory[Region(address >> self.config.window_bits).name]
        name, pitch = MEMORIES[memory], self.config.pitch(MEMORIES[memory])
        start, room = address - self.config.address(Region[name.upper()]), self.config.words(name) * pitch
        data = data[:max(0, room - start) // 4]  # what is beyond is refused
        first, end = start // pitch, start + 4 * len(data)
        lanes = self.board.state.memory(name)[first:-(-end // pitch)]
        found = pack_tensor(lanes, self.config, memory).view(np.uint8)[start - first * pitch:end - first * pitch]
        mine, wanted = self.golden.read(address, len(data)).view(np.uint8), data.view(np.uint8)
        self.golden.write(address, np.where(found == wanted, wanted, mine).view(np.uint32))

    def _report(self, when: str, differences: list[Difference]) -> None:
        if differences:
            self.mismatches += 1
            raise MismatchError(when, differences)
