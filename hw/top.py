"""Verilog top level: the core behind AXI4-Lite."""

import re

from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from hw.axi import AxiLite
from hw.core import Core
from shiftgrad.config import Config

__all__ = ["Top", "generate", "without_zero_fill"]


class Top(wiring.Component):
    """AXI4-Lite subordinate (24-bit byte address, 32-bit data) around a core.

    Members
    -------
    s_axi_* : AXI4-Lite channels, as ``hw.axi.AxiLite``
    busy : Out(1)       a program runs
    retired : Out(32)   instructions completed since start
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        self.axi = AxiLite()
        ports = {name: member for name, member in self.axi.signature.members.items() if name.startswith("s_axi_")}
        super().__init__({**ports, "busy": Out(1), "retired": Out(32)})
        self._ports = ports

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.axi = axi = self.axi
        m.submodules.core = core = Core(config=self.config)
        connect(m, axi.bus, core.bus)
        for name, member in self._ports.items():
            inner, outer = getattr(axi, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        m.d.comb += [self.busy.eq(core.busy), self.retired.eq(core.retired)]
        return m


def without_zero_fill(text: str) -> str:
    """Verilog without the line per word that sets a memory to zero: a host writes what a program reads."""
    return re.sub(r"  initial begin\n(?:    \S+\[\d+\] = \d+'h0+;\n)+  end\n", "", text)


def generate(config: Config) -> str:
    """Verilog of module ``shiftgrad``; the same text for the same configuration, every time."""
    text = verilog.convert(Top(config=config), name="shiftgrad", emit_src=False, strip_internal_attrs=True)
    return without_zero_fill(text)
