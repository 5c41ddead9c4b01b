"""The random generator of a lane: xorshift32, two steps for each element."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Lfsr", "after"]


def xorshift_step(x: int) -> int:
    """The 32-bit state after ``x`` (shifts 13, 17, 5)."""
    x ^= x << 13 & 0xFFFFFFFF
    x ^= x >> 17
    return x ^ (x << 5 & 0xFFFFFFFF)


def after(x: Value, steps: int) -> Value:
    """The 32-bit state ``steps`` after ``x``, every bit as one sum of bits of ``x``: shallow, where a chain is deep."""
    columns = []
    for bit in range(32):
        column = 1 << bit
        for _ in range(steps):
            column = xorshift_step(column)
        columns.append(column)
    return Cat(Cat(x[bit] for bit in range(32) if columns[bit] >> row & 1).xor() for row in range(32))


class Lfsr(wiring.Component):
    """xorshift32 generator (13, 17, 5), period 2^32 - 1, two steps an advance.

    Parameters
    ----------
    seed : state after reset, not 0

    Members
    -------
    advance : In(1)      the state moves two steps at the end of this cycle
    r1, r2 : Out(24)     state >> 8 one and two steps from now, in the same cycle as ``advance``
    load : In(1)         the state becomes ``load_data`` (1 when that is 0); wins over ``advance``
    load_data : In(32)   new state
    state : Out(32)      present state, never 0
    """

    def __init__(self, *, seed: int = 1) -> None:
        super().__init__({
            "advance": In(1),
            "r1": Out(24),
            "r2": Out(24),
            "load": In(1),
            "load_data": In(32),
            "state": Out(32, init=seed),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        first, second = Signal(32), Signal(32)
        m.d.comb += [
            first.eq(after(self.state, 1)),
            second.eq(after(self.state, 2)),
            self.r1.eq(first[8:]),
            self.r2.eq(second[8:]),
        ]
        with m.If(self.load):
            m.d.sync += self.state.eq(Mux(self.load_data == 0, 1, self.load_data))
        with m.Elif(self.advance):
            m.d.sync += self.state.eq(second)
        return m
