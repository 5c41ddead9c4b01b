"""Radiona ULX3S with an ECP5-85F, 8 x 8 with unsigned activations."""

from dataclasses import replace

from hw.boards import ulx3s_85f

__all__ = ["BOARD"]

BOARD = replace(ulx3s_85f.BOARD, name="ulx3s_85f_unsigned", config="ulx3s_85f_8x8_unsigned")
