"""A board at its pins: bits in and out of the serial line of everything but PLL and pads."""

from __future__ import annotations

from pathlib import Path

from hw.boards.board import Board
from hw.boards.top import simulated_board
from hw.core import Core
from hw.small.core import SmallCore
from hw.top import to_verilog
from hw.uart import uart_divisor
from shiftgrad.config import get_config
from sim.build import Progress, build
from sim.machine import machine_state, public
from sim.model import Simulation

__all__ = ["BoardSimulation", "board_library"]


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
