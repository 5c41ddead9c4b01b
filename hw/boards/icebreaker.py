"""1BitSquared iCEBreaker with an iCE40 UP5K."""

from amaranth_boards.icebreaker import ICEBreakerPlatform

from hw.boards.ice40 import Ice40Board

__all__ = ["BOARD"]

BOARD = Ice40Board(
    name="icebreaker",
    config="up5k_4x4",
    platform=ICEBreakerPlatform,
    oscillator="clk12",
    oscillator_hz=12_000_000,
    clock_hz=31_875_000,
)
