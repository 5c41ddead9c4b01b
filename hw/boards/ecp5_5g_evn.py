"""Lattice ECP5 Evaluation Board (LFE5UM5G-85F); its UART needs two resistors moved, see the board's user manual."""

from amaranth_boards.ecp5_5g_evn import ECP55GEVNPlatform

from hw.boards.board import Board
from hw.boards.floorplan import LFE5U_85F

__all__ = ["BOARD"]

BOARD = Board(
    name="ecp5_5g_evn",
    config="ulx3s_85f_8x8",
    platform=ECP55GEVNPlatform,
    oscillator="clk12",
    oscillator_hz=12_000_000,
    clock_hz=144_000_000,
    block_rams=LFE5U_85F,
)
