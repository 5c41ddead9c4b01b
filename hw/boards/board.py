"""What a board has to say about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hw.boards.ecp5_pll import pll_settings
from hw.boards.floorplan import BlockRams
from hw.uart import uart_divisor
from shiftgrad.config import get_config

__all__ = ["Board"]


@dataclass(frozen=True, kw_only=True)
class Board:
    """An ECP5 board with a serial port; ``ValueError`` when its clock or bit rate cannot be made.

    Parameters
    ----------
    name : identifier, the name of its file
    config : named configuration of the machine it carries
    platform : makes its ``amaranth_boards`` platform
    oscillator, oscillator_hz : clock resource and its frequency
    clock_hz : frequency the machine runs at, made by the PLL
    baud : bits a second of the serial link
    uart : resource with pins ``rx`` and ``tx``, seen from the FPGA
    leds : LED numbers of busy and error
    drive_high : (resource, pin) the board wants at 1
    aim_hz : frequency the heap placer works towards, more than it reaches; the static placer, which has none, when None
    family : of its device; others than the ECP5 have a class of their own
    block_rams : of its device, when the banks of the lanes and the array's multipliers are to have fixed places
    """

    name: str
    config: str
    platform: Callable[[], Any]
    oscillator: str
    oscillator_hz: int
    clock_hz: int
    baud: int = 1_000_000
    uart: str = "uart"
    leds: tuple[int, int] = (0, 1)
    drive_high: tuple[tuple[str, str], ...] = ()
    block_rams: BlockRams | None = None
    aim_hz: int | None = None
    family: str = "ECP5"

    def __post_init__(self) -> None:
        get_config(self.config)
        pll_settings(input_hz=self.oscillator_hz, output_hz=self.clock_hz)
        uart_divisor(self.clock_hz, self.baud)
