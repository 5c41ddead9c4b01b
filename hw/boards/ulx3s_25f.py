"""Radiona ULX3S with an ECP5-25F."""

from amaranth_boards.ulx3s import ULX3S_25F_Platform

from hw.boards.board import Board
from hw.boards.floorplan import LFE5U_25F

__all__ = ["BOARD"]

BOARD = Board(
    name="ulx3s_25f",
    config="ulx3s_25f_4x4",
    platform=ULX3S_25F_Platform,
    oscillator="clk25",
    oscillator_hz=25_000_000,
    clock_hz=100_000_000,
    drive_high=(("esp32", "gpio0"),),  # low would let the ESP32 reload the FPGA
    block_rams=LFE5U_25F,
)
