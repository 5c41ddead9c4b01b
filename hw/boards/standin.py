"""A small memory with the machine's bus: brings up a board's clock, pins and link without the machine."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from hw.bus import HostBus
from shiftgrad.config import Config
from shiftgrad.isa import MAGIC

__all__ = ["StandIn"]


class StandIn(Component):
    """``words`` of memory from byte address 0 up; MAGIC and CONFIG hold what the machine's would; the rest refuses.

    Parameters
    ----------
    config : the configuration it claims to be
    words : depth, a power of two

    Members
    -------
    bus : In(HostBus)
    busy : Out(1)    the lowest bit of the last word written
    status : Out(8)  bits 15:8 of it
    retired : Out(32)  words written

    Latency: ready 1 cycle after valid.
    """

    latency = 1

    def __init__(self, *, config: Config, words: int = 256) -> None:
        if words < 4 or words & words - 1:
            raise ValueError(f"words must be a power of two from 4, got {words}")
        self.config, self.words = config, words
        super().__init__({"bus": In(HostBus()), "busy": Out(1), "status": Out(8), "retired": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = (self.config.tensors - 1).bit_length()
        m.submodules.memory = memory = Memory(
            shape=32, depth=self.words, init=[MAGIC, self.config.size | entries << 8]
        )
        read, write = memory.read_port(), memory.write_port(granularity=8)
        index = self.bus.addr[2 : 2 + (self.words - 1).bit_length()]
        legal, go = Signal(), Signal()
        m.d.comb += [
            legal.eq((self.bus.addr < 4 * self.words) & (self.bus.addr[:2] == 0) & ~(self.bus.write & (index < 2))),
            go.eq(self.bus.valid & ~self.bus.ready),
            read.addr.eq(index), read.en.eq(go), self.bus.r_data.eq(read.data),
            write.addr.eq(index), write.data.eq(self.bus.w_data),
            write.en.eq(Mux(go & legal & self.bus.write, self.bus.strobe, 0)),
        ]
        m.d.sync += [self.bus.ready.eq(go), self.bus.error.eq(go & ~legal)]
        with m.If(go & legal & self.bus.write):
            m.d.sync += [self.busy.eq(self.bus.w_data[0]), self.status.eq(self.bus.w_data[8:16])]
            m.d.sync += self.retired.eq(self.retired + 1)
        return m
