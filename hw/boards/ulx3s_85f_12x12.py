"""Radiona ULX3S with an ECP5-85F, 12 x 12."""

from dataclasses import replace

from hw.boards import ulx3s_85f

__all__ = ["BOARD"]

BOARD = replace(ulx3s_85f.BOARD, name="ulx3s_85f_12x12", config="ulx3s_85f_12x12", clock_hz=110_000_000,
                aim_hz=140_000_000)
