"""Multipliers in the ECP5's DSP slices, with the slices' own registers, which synthesis does not use by itself."""

from collections.abc import Sequence

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value, signed

__all__ = ["multiply"]

WIDTH = 18
ZERO = Const(0)


def multiply(m: Module, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
    """See :data:`hw.multiplier.VENDORS`; a cell a product."""
    return [_cell(m, f"mult{i}", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]


def _cell(m: Module, name: str, a: Value, b: Value) -> Value:
    """A MULT18X18D clocked by the domain ``sync``, its three registers always enabled and never reset.

    CLKn_DIV stays ENABLED: its registers then take every rising edge.
    """
    bits = len(a) + len(b)
    wide_a, wide_b = Signal(signed(WIDTH), name=f"{name}_a"), Signal(signed(WIDTH), name=f"{name}_b")
    product = Signal(2 * WIDTH, name=f"{name}_p")
    m.d.comb += [wide_a.eq(a), wide_b.eq(b)]
    stages = ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT")
    m.submodules[name] = Instance(
        "MULT18X18D",
        **{f"p_REG_{stage}_CLK": "CLK0" for stage in stages},
        **{f"p_REG_{stage}_CE": "CE0" for stage in stages},
        **{f"p_REG_{stage}_RST": "RST0" for stage in stages},
        i_CLK0=ClockSignal("sync"), i_CE0=Const(1), i_RST0=ZERO,
        i_SIGNEDA=Const(1), i_SIGNEDB=Const(1), i_SOURCEA=ZERO, i_SOURCEB=ZERO,
        **{f"i_A{i}": wide_a[i] for i in range(WIDTH)},
        **{f"i_B{i}": wide_b[i] for i in range(WIDTH)},
        **{f"o_P{i}": product[i] for i in range(2 * WIDTH)},
    )
    return Cat(product[:bits]).as_signed()
