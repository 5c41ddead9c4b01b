"""The large memories: 16,384 words of 32 bits behind one port, as two single-port RAMs of the UP5K hold them."""

from amaranth.hdl import ClockSignal, Const, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["SPRAM_WORDS", "WordMemory"]

SPRAM_WORDS, SPRAM_BITS = 16384, 16


class WordMemory(wiring.Component):
    """One word is read or written a cycle; both devices' cells and the portable form keep ``r_data`` while writing.

    Members
    -------
    address : In(14)
    write : In(1)
    w_data : In(32)
    r_data : Out(32)   word at the last address that was not written to, a cycle later
    """

    address: In(range(SPRAM_WORDS))
    write: In(1)
    w_data: In(2 * SPRAM_BITS)
    r_data: Out(2 * SPRAM_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if getattr(platform, "family", None) == "iCE40":
            self._cells(m)
        else:
            m.submodules.words = words = Memory(shape=2 * SPRAM_BITS, depth=SPRAM_WORDS, init=[])
            read, write = words.read_port(), words.write_port()
            m.d.comb += [
                read.addr.eq(self.address), read.en.eq(~self.write), self.r_data.eq(read.data),
                write.addr.eq(self.address), write.en.eq(self.write), write.data.eq(self.w_data),
            ]
        return m

    def _cells(self, m: Module) -> None:
        """Two SB_SPRAM256KA; their outputs mean nothing after a write, which nobody looks at."""
        for half in range(2):
            part = slice(SPRAM_BITS * half, SPRAM_BITS * (half + 1))
            m.submodules[f"half{half}"] = Instance(
                "SB_SPRAM256KA",
                i_ADDRESS=self.address, i_DATAIN=self.w_data[part], o_DATAOUT=self.r_data[part],
                i_MASKWREN=Const(-1, 4), i_WREN=self.write, i_CHIPSELECT=Const(1), i_CLOCK=ClockSignal("sync"),
                i_STANDBY=Const(0), i_SLEEP=Const(0), i_POWEROFF=Const(1),
            )
