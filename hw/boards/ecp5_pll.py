"""ECP5 PLL: one clock in, one out."""

from dataclasses import dataclass

from amaranth.hdl import Const, Instance, Module, Signal
from amaranth.lib.wiring import Component, In, Out

__all__ = ["PLL", "PLLSettings", "pll_settings"]

VCO_MIN, VCO_MAX = 400_000_000, 800_000_000
COMPARE_MIN, COMPARE_MAX = 3_125_000, 400_000_000


@dataclass(frozen=True, kw_only=True)
class PLLSettings:
    """EHXPLLL dividers; CLKOP, fed back, is input * feedback / reference, the VCO's ``output`` times that."""

    reference: int
    feedback: int
    output: int
    vco_hz: int


def pll_settings(*, input_hz: int, output_hz: int) -> PLLSettings:
    """Dividers that give exactly ``output_hz``, the VCO nearest 600 MHz; ``ValueError`` when there are none."""
    if not (10_000_000 <= input_hz <= 400_000_000 and 10_000_000 <= output_hz <= 400_000_000):
        raise ValueError(f"PLL input and output must be from 10 to 400 MHz, got {input_hz} and {output_hz} Hz")
    found = [
        PLLSettings(reference=reference, feedback=output_hz * reference // input_hz, output=output,
                    vco_hz=output_hz * output)
        for reference in range(1, 129)
        if output_hz * reference % input_hz == 0 and output_hz * reference // input_hz <= 80
        and COMPARE_MIN <= input_hz / reference <= COMPARE_MAX
        for output in range(1, 129)
        if VCO_MIN <= output_hz * output <= VCO_MAX
    ]
    if not found:
        raise ValueError(f"no PLL setting makes exactly {output_hz} Hz from {input_hz} Hz")
    return min(found, key=lambda s: (s.reference, abs(s.vco_hz - 600_000_000)))


class PLL(Component):
    """EHXPLLL with its output as feedback.

    Parameters
    ----------
    input_hz, output_hz : see :func:`pll_settings`

    Members
    -------
    clock_in : In(1)   from the oscillator
    clock : Out(1)     ``output_hz``, valid while ``locked``
    locked : Out(1)    asynchronous
    """

    def __init__(self, *, input_hz: int, output_hz: int) -> None:
        self.settings = pll_settings(input_hz=input_hz, output_hz=output_hz)
        self.input_hz, self.output_hz = input_hz, output_hz
        super().__init__({"clock_in": In(1), "clock": Out(1), "locked": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clock = Signal(attrs={"keep": "true"})
        m.d.comb += self.clock.eq(clock)
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=f"{self.input_hz / 1e6:g}",
            a_FREQUENCY_PIN_CLKOP=f"{self.output_hz / 1e6:g}",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA", p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_CPHASE=self.settings.output // 2 - 1 if self.settings.output > 1 else 0,
            p_CLKOP_FPHASE=0, p_CLKOP_DIV=self.settings.output,
            p_CLKI_DIV=self.settings.reference, p_CLKFB_DIV=self.settings.feedback,
            i_RST=Const(0), i_STDBY=Const(0), i_CLKI=self.clock_in, i_CLKFB=clock,
            i_PHASESEL0=Const(0), i_PHASESEL1=Const(0), i_PHASEDIR=Const(0), i_PHASESTEP=Const(0),
            i_PHASELOADREG=Const(0), i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(0),
            o_CLKOP=clock, o_LOCK=self.locked,
        )
        return m
