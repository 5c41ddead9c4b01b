"""Boards with an iCE40 UP5K."""

from dataclasses import dataclass

from amaranth.hdl import ClockDomain, ClockSignal, Module

from hw.boards.board import Board
from hw.boards.ice40_pll import PadPLL, pad_pll_settings
from hw.boards.top import BoardTop
from hw.uart import uart_divisor
from shiftgrad.config import get_config

__all__ = ["Ice40Board", "Ice40Top"]


@dataclass(frozen=True, kw_only=True)
class Ice40Board(Board):
    """A board whose oscillator is on the pad of the UP5K's PLL; parameters as those of :class:`Board`."""

    family: str = "iCE40"

    def __post_init__(self) -> None:
        if not get_config(self.config).dense:
            raise ValueError(f"{self.name}: wanted a dense configuration, got {self.config}")
        pad_pll_settings(input_hz=self.oscillator_hz, output_hz=self.clock_hz)
        uart_divisor(self.clock_hz, self.baud)


class Ice40Top(BoardTop):
    """The same as :class:`BoardTop` on a UP5K.

    Registers start from the bitstream. The clock is not gated: the controller waits until it is right.
    """

    def clocks(self, m: Module, platform) -> None:  # noqa: ANN001
        board = self.board
        pin = platform.request(board.oscillator, dir="-").io
        m.submodules.pll = pll = PadPLL(pin=pin, input_hz=board.oscillator_hz, output_hz=board.clock_hz)
        m.domains.sync = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal("sync").eq(pll.clock)
