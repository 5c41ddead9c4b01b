"""Verilog top level: the core behind AXI4-Lite."""

import re

from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from hw.axi import AxiLite
from hw.core import Core
from hw.small.core import SmallCore
from shiftgrad.config import Config

__all__ = ["WAIVERS", "Top", "generate", "to_verilog"]

# what verilator -Wall says of the Verilog, and why it is left
WAIVERS = {
    "ALWNEVER": "a block that only holds an assertion is empty when assertions are off",
    "CASEINCOMPLETE": "a case that does not list every value keeps the default assigned before it",
    "CMPCONST": "a comparison of a small configuration's index with its largest value",
    "DECLFILENAME": "one file holds all modules",
    "PROCASSINIT": "registers have their reset value as initial value too",
    "UNUSEDSIGNAL": "every field of an interface has a wire, used or not",
    "VARHIDDEN": "a unit and its output may have the same name",
    "WIDTHEXPAND": "operands are extended as the operator says",
    "WIDTHTRUNC": "logical not of a vector means equal to zero",
}


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
        m.submodules.core = core = (SmallCore if self.config.dense else Core)(config=self.config)
        connect(m, axi.bus, core.bus)
        for name, member in self._ports.items():
            inner, outer = getattr(axi, name), getattr(self, name)
            m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        m.d.comb += [self.busy.eq(core.busy), self.retired.eq(core.retired)]
        return m


def to_verilog(top: wiring.Component, name: str) -> str:
    """Plain Verilog of ``top`` as module ``name``; the same text for the same design, every time.

    Assertions are there when SHIFTGRAD_ASSERT is defined. Memories have no line per word that sets it to zero: a host
    writes what a program reads.
    """
    text = verilog.convert(top, name=name, emit_src=False, strip_internal_attrs=True)
    text = re.sub(r"  initial begin\n(?:    \S+\[\d+\] = \d+'[hd]0+;\n)+  end\n", "", text)
    checked = re.compile(r"( +if \(!.*\)\n +\$write\(.*\);\n)?( +assert \(.*\);\n)")
    return checked.sub(lambda match: f"`ifdef SHIFTGRAD_ASSERT\n{match.group()}`endif\n", text)


def generate(config: Config) -> str:
    """Verilog of module ``shiftgrad``, for any simulator and synthesiser."""
    return to_verilog(Top(config=config), "shiftgrad")
