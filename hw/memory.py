"""Banked memory whose lanes work one cycle after each other."""

from amaranth.hdl import Assert, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.logic import register
from shiftgrad.config import WORD_BITS

__all__ = ["READ_LATENCY", "WRITE_DELAY", "HostWord", "SkewedMemory"]

READ_LATENCY = 3  # a register at the root, block RAM, its output register
WRITE_DELAY = 1  # a register at the root


class HostWord(data.Struct):
    """A host write as it ripples past the lanes.

    ``data`` and ``strobe`` are the 32-bit bus word, ``select`` its index inside the memory word.
    """

    data: unsigned(32)
    strobe: unsigned(4)
    select: unsigned(4)


class SkewedMemory(wiring.Component):
    """``lanes`` banks, one read and one write a cycle; lane n does in cycle t + 1 + n what the root asked in cycle t.

    Parameters
    ----------
    lanes, depth, width : banks, words a bank, bits a lane (8 or 16)
    every_read_counts : no read is for nothing, as those of padding are

    Members
    -------
    r_en, r_addr : In     read root; lane n's value is on ``r_data[n]`` READ_LATENCY + n cycles later, until the next
    r_data : Out          signed lanes
    w_en, w_addr : In     write root; lane n stores ``w_data[n]`` as it is WRITE_DELAY + n cycles later
    w_data : In           signed lanes
    h_en : In(1)          with ``w_en``: store the bytes of the host word instead of ``w_data``
    h_word : In           host word at lane n, WRITE_DELAY + n cycles after the root (rippled by its owner, shared by
                          all memories)

    A read whose root comes in the cycle of a write's gives the old value, and one two cycles later the new one; in
    between the word must not be read, for block RAMs do not say what they give. Addresses beyond ``depth`` must not be
    written.
    """

    def __init__(self, *, lanes: int, depth: int, width: int, every_read_counts: bool = True) -> None:
        self.lanes, self.depth, self.width, self.every_read_counts = lanes, depth, width, every_read_counts
        layout = data.ArrayLayout(signed(width), lanes)
        super().__init__({
            "r_en": In(1),
            "r_addr": In(WORD_BITS),
            "r_data": Out(layout),
            "w_en": In(1),
            "w_addr": In(WORD_BITS),
            "w_data": In(layout),
            "h_en": In(1),
            "h_word": In(data.ArrayLayout(HostWord, lanes)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane_bytes = self.width // 8
        per_word = 4 // lane_bytes
        bits = (self.depth - 1).bit_length()
        if platform is None:  # simulation and formal
            m.d.sync += Assert(~self.w_en | (self.w_addr < self.depth), f"write beyond {self.depth} words")
            landing = register(m, Cat(self.w_en, self.w_addr), "landing")
            clash = self.r_en & landing[0] & (self.r_addr == landing[1:])
            if self.every_read_counts:
                m.d.sync += Assert(~clash, "a word is read in the cycle after its write")
        read = register(m, Cat(self.r_en, self.r_addr[:bits]), "read0")
        write = register(m, Cat(self.w_en, self.h_en, self.w_addr[:bits]), "write0", resets=True)
        for lane in range(self.lanes):
            bank = Memory(shape=unsigned(self.width), depth=self.depth, init=[])
            m.submodules[f"bank{lane}"] = bank
            rd, wr = bank.read_port(), bank.write_port()
            low = lane % per_word
            word = self.h_word[lane]
            selected = (word.select == lane // per_word) & word.strobe.bit_select(low * lane_bytes, 1)
            m.d.comb += [
                rd.en.eq(read[0]),
                rd.addr.eq(read[1:]),
            ]
            m.d.sync += [
                wr.en.eq(write[0] & (~write[1] | selected)),
                wr.addr.eq(write[2:]),
                wr.data.eq(Mux(write[1], word.data.word_select(low, self.width), self.w_data[lane])),
            ]
            m.d.sync += self.r_data[lane].eq(rd.data)
            if lane + 1 < self.lanes:
                next_read = Signal(len(read), name=f"read{lane + 1}")
                next_write = Signal(len(write), name=f"write{lane + 1}")
                m.d.sync += [next_read.eq(read), next_write.eq(write)]
                read, write = next_read, next_write
        return m
