"""UP5K PLL: a clock from its pad in, one out."""

from dataclasses import dataclass

from amaranth.hdl import Const, Instance, IOValue, Module
from amaranth.lib.wiring import Component, Out

__all__ = ["PadPLL", "PadPLLSettings", "pad_pll_settings"]

VCO_MIN, VCO_MAX = 533_000_000, 1_066_000_000
INPUT_MIN, INPUT_MAX = 10_000_000, 133_000_000
OUTPUT_MIN, OUTPUT_MAX = 16_000_000, 275_000_000
FILTERS = (17, 26, 44, 66, 101, 133)  # MHz at the phase detector up to which FILTER_RANGE is 1, 2, 3 ...


@dataclass(frozen=True, kw_only=True)
class PadPLLSettings:
    """SB_PLL40 dividers as its parameters: output = input (feedback + 1) / (reference + 1) / 2^output."""

    reference: int
    feedback: int
    output: int
    filter_range: int
    vco_hz: int


def pad_pll_settings(*, input_hz: int, output_hz: int) -> PadPLLSettings:
    """Dividers that give exactly ``output_hz``; ``ValueError`` when there are none."""
    if not (INPUT_MIN <= input_hz <= INPUT_MAX and OUTPUT_MIN <= output_hz <= OUTPUT_MAX):
        raise ValueError(f"PLL input must be from 10 to 133 MHz and output from 16 to 275 MHz, "
                         f"got {input_hz} and {output_hz} Hz")
    for reference in range(16):
        compared = input_hz // (reference + 1)
        for output in range(1, 7):
            vco = output_hz << output
            if (compared >= INPUT_MIN and VCO_MIN <= vco <= VCO_MAX and vco * (reference + 1) % input_hz == 0
                    and vco * (reference + 1) // input_hz <= 128):
                limits = [limit for limit in FILTERS if compared / 1e6 > limit]
                return PadPLLSettings(reference=reference, feedback=vco * (reference + 1) // input_hz - 1,
                                      output=output, filter_range=len(limits) + 1, vco_hz=vco)
    raise ValueError(f"no PLL setting makes exactly {output_hz} Hz from {input_hz} Hz")


class PadPLL(Component):
    """SB_PLL40_PAD with simple feedback.

    Parameters
    ----------
    pin : the oscillator's pin, which must be the PLL's own
    input_hz, output_hz : see :func:`pad_pll_settings`

    Members
    -------
    clock : Out(1)    ``output_hz``, on a global net, right while ``locked``
    locked : Out(1)   asynchronous
    """

    def __init__(self, *, pin: IOValue, input_hz: int, output_hz: int) -> None:
        self.pin = pin
        self.settings = pad_pll_settings(input_hz=input_hz, output_hz=output_hz)
        super().__init__({"clock": Out(1), "locked": Out(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        settings = self.settings
        m.submodules.pll = Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE", p_DIVR=Const(settings.reference, 4), p_DIVF=Const(settings.feedback, 7),
            p_DIVQ=Const(settings.output, 3), p_FILTER_RANGE=Const(settings.filter_range, 3),
            i_PACKAGEPIN=self.pin, i_RESETB=Const(1), i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=self.clock, o_LOCK=self.locked,
        )
        return m
