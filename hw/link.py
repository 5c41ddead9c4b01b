"""Serial link target: request frames in, host bus accesses, reply frames out."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from hw.bus import HostBus
from hw.link_parser import FrameParser, crc_next
from hw.uart import UartRx, UartTx
from shiftgrad.link import CRC_INIT, MAX_WORDS, REPLY_SYNC, VERSION, Command, ReplyStatus

__all__ = ["PAUSE_SECONDS", "LinkTarget"]

PAUSE_SECONDS = 0.005  # a frame with a longer gap between two bytes is dropped


class LinkTarget(Component):
    """The device side of the protocol in ``docs/link.md``.

    A request is executed only when it is whole and its CRC matches. A request with the sequence number of the last one
    executed is answered from the kept reply. A second request may arrive while a reply is sent; a third is dropped.

    Parameters
    ----------
    clock_hz, baud : see :func:`hw.uart.uart_divisor`
    pause : cycles between two bytes of a frame that drop it; ``PAUSE_SECONDS`` when None

    Members
    -------
    rx : In(1)         serial line in, asynchronous
    tx : Out(1)        serial line out
    bus : Out(HostBus) accesses of whole words
    dropped : Out(1)   one cycle for each frame dropped or byte with a framing error

    Latency: the first bus access starts 6 cycles after the last byte is received; each access costs 3 cycles more than
    there are from ``valid`` to ``ready``.
    """

    latency = 6

    def __init__(self, *, clock_hz: int, baud: int, pause: int | None = None) -> None:
        self.clock_hz, self.baud = clock_hz, baud
        self.pause = round(clock_hz * PAUSE_SECONDS) if pause is None else pause
        super().__init__({"rx": In(1), "tx": Out(1, init=1), "bus": Out(HostBus()), "dropped": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.uart_rx = rx = UartRx(clock_hz=self.clock_hz, baud=self.baud)
        m.submodules.uart_tx = tx = UartTx(clock_hz=self.clock_hz, baud=self.baud)
        m.submodules.parser = parser = FrameParser(timeout=self.pause)
        m.submodules.requests = requests = Memory(shape=32, depth=MAX_WORDS, init=[])
        m.submodules.replies = replies = Memory(shape=32, depth=MAX_WORDS, init=[])
        payload, payload_in = requests.read_port(), requests.write_port()
        result, result_in = replies.read_port(), replies.write_port()
        word = Signal(32, reset_less=True)  # of the payload; block RAMs have this register
        result_now, result_value = Signal(), Signal(32)  # stored a cycle later
        m.d.comb += [
            rx.rx.eq(self.rx), self.tx.eq(tx.tx), self.dropped.eq(parser.dropped | rx.error),
            parser.byte.eq(rx.data), parser.byte_valid.eq(rx.valid), parser.byte_error.eq(rx.error),
            payload_in.en.eq(parser.w_en), payload_in.addr.eq(parser.w_addr), payload_in.data.eq(parser.w_data),
        ]

        executed, sequence = Signal(), Signal(8)  # the last request executed, if any since hello
        waiting = Signal()  # a frame does, a cycle late: long after it is taken the next one may be looked at
        again = Signal()  # it is that request
        m.d.sync += waiting.eq(parser.valid)
        m.d.sync += again.eq(executed & (parser.sequence == sequence) & (parser.command != Command.HELLO))
        address = Signal(24)
        command, status, done = Signal(4), Signal(4), Signal(range(MAX_WORDS + 1))  # its reply
        m.d.comb += [
            self.bus.write.eq(command == Command.WRITE), self.bus.strobe.eq(0xF), self.bus.w_data.eq(word),
            self.bus.addr.eq(address),
            payload.addr.eq(done), payload.en.eq(1), result_value.eq(self.bus.r_data),
        ]

        m.d.sync += word.eq(payload.data)
        m.d.sync += [result_in.en.eq(result_now), result_in.addr.eq(done), result_in.data.eq(result_value)]

        reply, last = Signal(32, reset_less=True), Signal()  # the next word to send; this access is the last one
        before_last, more = Signal(8), Signal()  # more: words of the reply are left
        take = Signal()  # a cycle before ``parser.take``, which much depends on
        m.d.sync += [reply.eq(result.data), parser.take.eq(take)]
        part, words, shift, left = Signal(3), Signal(range(MAX_WORDS + 1)), Signal(32), Signal(3)
        crc = Signal(16)
        sent = Signal()  # the byte was taken in the cycle before; the next is not for many cycles
        m.d.sync += sent.eq(tx.i.valid & tx.i.ready)
        m.d.sync += [before_last.eq(parser.count - 1), last.eq(done == before_last), more.eq(words != done)]
        m.d.comb += [result.addr.eq(words), result.en.eq(1), tx.i.payload.eq(shift)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += part.eq(0)
                m.d.sync += address.eq(parser.address)
                with m.If(waiting & again):
                    m.d.comb += take.eq(1)
                    m.next = "PART"
                with m.Elif(waiting):
                    m.d.sync += [sequence.eq(parser.sequence), command.eq(parser.command), status.eq(ReplyStatus.OK)]
                    m.d.sync += [done.eq(0), executed.eq(parser.command != Command.HELLO)]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "WORD"
                with m.If(command == Command.HELLO):
                    m.d.comb += [result_now.eq(1), result_value.eq(Cat(parser.address, VERSION)), take.eq(1)]
                    m.d.sync += done.eq(1)
                    m.next = "PART"
            with m.State("WORD"):
                m.d.sync += self.bus.valid.eq(1)  # in ACCESS; the host is far away
                m.next = "ACCESS"
            with m.State("ACCESS"):
                with m.If(self.bus.ready):
                    m.d.sync += self.bus.valid.eq(0)
                    m.d.comb += result_now.eq(~self.bus.error)
                    m.next = "FETCH"
                    with m.If(self.bus.error):
                        m.d.sync += status.eq(ReplyStatus.BUS_ERROR)
                    with m.Else():
                        m.d.sync += [done.eq(done + 1), address.eq(address + 4)]
                    with m.If(self.bus.error | last):
                        m.d.comb += take.eq(1)
                        m.next = "PART"
            with m.State("PART"):  # sync, header, words, CRC
                m.d.sync += [words.eq(0), part.eq(part + 1)]
                m.next = "SEND"
                with m.If(part == 0):
                    m.d.sync += [shift.eq(int.from_bytes(REPLY_SYNC, "little")), left.eq(2)]
                with m.Elif(part == 1):
                    m.d.sync += [shift.eq(Cat(sequence, command, status, done)), left.eq(3), crc.eq(CRC_INIT)]
                with m.Elif((part == 2) & (command != Command.WRITE) & more):
                    m.d.sync += [shift.eq(reply), left.eq(4), words.eq(words + 1), part.eq(2)]
                with m.Elif(part <= 3):
                    m.d.sync += [shift.eq(Cat(crc[8:], crc[:8])), left.eq(2), part.eq(4)]
                with m.Else():
                    m.next = "IDLE"
            with m.State("SEND"):
                m.d.comb += tx.i.valid.eq(1)
                with m.If(sent):
                    m.d.sync += [shift.eq(shift[8:]), left.eq(left - 1), crc.eq(crc_next(crc, shift[:8]))]
                    with m.If(left == 1):
                        m.next = "PART"
        return m
