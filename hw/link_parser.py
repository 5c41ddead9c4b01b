"""Request frames out of a stream of bytes; only those whose CRC matches come out."""

from binascii import crc_hqx

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from shiftgrad.link import CRC_INIT, MAX_WORDS, REQUEST_SYNC, Command

__all__ = ["FrameParser", "crc_next"]


def crc_next(crc: Value, byte: Value) -> Value:
    """CRC-16/CCITT of one more byte (16 bits): a XOR of those inputs whose own CRC sets the bit."""
    columns = [crc_hqx(bytes([1 << i]), 0) for i in range(8)] + [crc_hqx(b"\0", 1 << i) for i in range(16)]
    inputs = Cat(byte, crc)
    masks = [sum(1 << i for i, column in enumerate(columns) if column >> bit & 1) for bit in range(16)]
    return Cat((inputs & mask).xor() for mask in masks)


class FrameParser(Component):
    """Finds request frames; see ``docs/link.md``.

    A frame with an impossible header, a wrong CRC, a framing error inside or a pause of ``timeout`` cycles between two
    bytes is dropped and the parser hunts for the next sync bytes. While a frame waits to be taken, bytes are dropped.

    Parameters
    ----------
    timeout : cycles

    Members
    -------
    byte, byte_valid, byte_error : In(8), In(1), In(1)   from the receiver; at least 3 cycles apart
    valid : Out(1)                                       a checked frame waits; header and payload hold until ``take``
    take : In(1)                                         frame done
    sequence, command, count, address : Out              its header
    w_en, w_addr, w_data : Out(1), Out(6), Out(32)       payload words, written as they arrive
    dropped : Out(1)                                     one cycle for each frame dropped after its sync bytes

    Latency: ``valid`` rises 2 cycles after the last byte.
    """

    latency = 2

    def __init__(self, *, timeout: int) -> None:
        if timeout < 2:
            raise ValueError(f"timeout must be at least 2 cycles, got {timeout}")
        self.timeout = timeout
        super().__init__({
            "byte": In(8), "byte_valid": In(1), "byte_error": In(1),
            "valid": Out(1), "take": In(1),
            "sequence": Out(8), "command": Out(8), "count": Out(8), "address": Out(24),
            "w_en": Out(1), "w_addr": Out(range(MAX_WORDS)), "w_data": Out(32),
            "dropped": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        header = Signal(48)
        m.d.comb += Cat(self.sequence, self.command, self.count, self.address).eq(header)
        crc = Signal(16)
        position = Signal(range(4 * MAX_WORDS))
        quiet = Signal(range(self.timeout))
        pause, fail = Signal(), Signal()
        last_word = Signal()  # the payload's; bytes are far enough apart for a register
        m.d.comb += fail.eq(self.byte_error | pause)
        m.d.sync += [
            quiet.eq(Mux(self.byte_valid | pause, 0, quiet + 1)),
            pause.eq((quiet == self.timeout - 2) & ~self.byte_valid & ~pause),
        ]
        m.d.sync += [self.w_en.eq(0), last_word.eq(position[2:] == self.count - 1)]
        with m.If(self.byte_valid):
            m.d.sync += [crc.eq(crc_next(crc, self.byte)), position.eq(position + 1)]

        with m.FSM():
            with m.State("HUNT"):
                with m.If(self.byte_valid & (self.byte == REQUEST_SYNC[0])):
                    m.next = "SYNC"
            with m.State("SYNC"):
                m.d.sync += [crc.eq(CRC_INIT), position.eq(0)]
                with m.If(fail):
                    m.next = "HUNT"
                with m.Elif(self.byte_valid & (self.byte == REQUEST_SYNC[1])):
                    m.next = "HEADER"
                with m.Elif(self.byte_valid & (self.byte != REQUEST_SYNC[0])):
                    m.next = "HUNT"
            with m.State("HEADER"):
                with m.If(self.byte_valid):
                    m.d.sync += header.eq(Cat(header[8:], self.byte))
                    with m.If(position == 5):
                        m.next = "CHECK"
                with m.If(fail):
                    m.d.comb += self.dropped.eq(1)
                    m.next = "HUNT"
            with m.State("CHECK"):
                known = (self.command >= min(Command)) & (self.command <= max(Command))
                m.d.sync += position.eq(0)
                m.next = "CRC"
                with m.If(self.command == Command.WRITE):
                    m.next = "PAYLOAD"
                with m.If(~known | (self.count == 0) | (self.count > MAX_WORDS)):
                    m.d.comb += self.dropped.eq(1)
                    m.next = "HUNT"
            with m.State("PAYLOAD"):
                with m.If(self.byte_valid):
                    m.d.sync += self.w_data.eq(Cat(self.w_data[8:], self.byte))
                    with m.If(position[:2] == 3):
                        m.d.sync += [self.w_en.eq(1), self.w_addr.eq(position[2:])]
                        with m.If(last_word):
                            m.d.sync += position.eq(0)
                            m.next = "CRC"
                with m.If(fail):
                    m.d.comb += self.dropped.eq(1)
                    m.next = "HUNT"
            with m.State("CRC"):
                with m.If(self.byte_valid & (position == 1)):
                    m.next = "RESULT"
                with m.If(fail):
                    m.d.comb += self.dropped.eq(1)
                    m.next = "HUNT"
            with m.State("RESULT"):
                m.next = "HOLD"
                with m.If(crc != 0):
                    m.d.comb += self.dropped.eq(1)
                    m.next = "HUNT"
            with m.State("HOLD"):
                m.d.comb += self.valid.eq(1)
                with m.If(self.take):
                    m.next = "HUNT"
        return m
