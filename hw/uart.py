"""Asynchronous serial receiver and transmitter: 8 data bits, no parity, 1 stop bit."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

__all__ = ["UartRx", "UartTx", "uart_divisor"]


def uart_divisor(clock_hz: int, baud: int) -> int:
    """Clock cycles a bit takes; ``ValueError`` below 8 or when the rate would be more than 1.5 % off."""
    divisor = round(clock_hz / baud) if baud > 0 else 0
    if divisor < 8:
        raise ValueError(f"wanted at least 8 clock cycles a bit, got {clock_hz} Hz for {baud} baud")
    if abs(clock_hz / divisor / baud - 1) > 0.015:
        got = clock_hz / divisor
        raise ValueError(f"wanted {baud} baud within 1.5 %, got {got:.0f} from {clock_hz} Hz / {divisor}")
    return divisor


class UartRx(Component):
    """Receiver: each bit is the majority of three samples around its middle.

    Parameters
    ----------
    clock_hz, baud : see :func:`uart_divisor`

    Members
    -------
    rx : In(1)      the line, asynchronous; idles at 1
    data : Out(8)   the byte, with ``valid``
    valid : Out(1)  one cycle for each byte
    error : Out(1)  one cycle: the stop bit was 0 and the byte is dropped; the line must return to 1 before the next

    There is no back-pressure. A sender may be 2 % off, from 13 cycles a bit 3 %. Latency: 5 cycles after the middle of
    the stop bit.
    """

    latency = 5

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self.divisor = uart_divisor(clock_hz, baud)
        super().__init__({"rx": In(1), "data": Out(8), "valid": Out(1), "error": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.sync = FFSynchronizer(self.rx, line, init=1)
        step = max(1, self.divisor // 16)
        history = Signal(2 * step, init=-1)
        m.d.sync += history.eq(Cat(line, history))
        samples = (line, history[step - 1], history[2 * step - 1])
        bit = Signal()
        m.d.comb += bit.eq(sum(samples, Const(0, 2)) >= 2)

        timer = Signal(range(2 * self.divisor))
        shift = Signal(9)
        left = Signal(range(10))
        m.d.sync += [self.valid.eq(0), self.error.eq(0)]
        m.d.sync += timer.eq(timer - 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [timer.eq(self.divisor // 2 + step - 1), left.eq(9)]
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(timer == 0):
                    m.d.sync += timer.eq(self.divisor - 1)
                    m.next = "BITS"
                    with m.If(bit):
                        m.next = "IDLE"
            with m.State("BITS"):
                with m.If(timer == 0):
                    m.d.sync += [timer.eq(self.divisor - 1), shift.eq(Cat(shift[1:], bit)), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.d.sync += [self.data.eq(shift[1:]), self.valid.eq(bit), self.error.eq(~bit)]
                        m.next = "IDLE"
                        with m.If(~bit):
                            m.next = "RELEASE"
            with m.State("RELEASE"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTx(Component):
    """Transmitter.

    Parameters
    ----------
    clock_hz, baud : see :func:`uart_divisor`

    Members
    -------
    i : In(stream of 8)  bytes to send; one is taken every 10 bit times
    tx : Out(1)          the line, from a flip-flop; idles at 1

    Latency: 1 cycle from an accepted byte to the start bit.
    """

    latency = 1

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self.divisor = uart_divisor(clock_hz, baud)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timer = Signal(range(self.divisor))
        shift = Signal(9, init=-1)
        left = Signal(range(11))
        idle = Signal(init=1)  # nothing is left to send
        m.d.comb += self.i.ready.eq(idle)
        with m.If(idle):
            with m.If(self.i.valid):
                m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.i.payload, 1)), left.eq(10), timer.eq(self.divisor - 1)]
                m.d.sync += idle.eq(0)
        with m.Elif(timer == 0):
            m.d.sync += [self.tx.eq(shift[0]), shift.eq(Cat(shift[1:], 1))]
            m.d.sync += [left.eq(left - 1), idle.eq(left == 1), timer.eq(self.divisor - 1)]
        with m.Else():
            m.d.sync += timer.eq(timer - 1)
        return m
