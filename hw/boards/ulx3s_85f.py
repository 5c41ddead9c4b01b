"""Radiona ULX3S with an ECP5-85F, 8 x 8."""

from amaranth_boards.ulx3s import ULX3S_85F_Platform

from hw.boards.board import Board
from hw.boards.floorplan import LFE5U_85F

__all__ = ["BOARD"]

BOARD = Board(
    name="ulx3s_85f",
    config="ulx3s_85f_8x8",
    platform=ULX3S_85F_Platform,
    oscillator="clk25",
    oscillator_hz=25_000_000,
    clock_hz=125_000_000,
    aim_hz=150_000_000,
    drive_high=(("esp32", "gpio0"),),  # low would let the ESP32 reload the FPGA
    block_rams=LFE5U_85F,
)
