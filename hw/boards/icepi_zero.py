"""Icepi Zero 1.3, with an ECP5-25F."""

from amaranth_boards.icepi_zero import IcepiZero1_3Platform

from hw.boards.board import Board
from hw.boards.floorplan import LFE5U_25F

__all__ = ["BOARD"]

BOARD = Board(
    name="icepi_zero",
    config="ulx3s_25f_4x4",
    platform=IcepiZero1_3Platform,
    oscillator="clk50",
    oscillator_hz=50_000_000,
    clock_hz=100_000_000,
    block_rams=LFE5U_25F,
)
