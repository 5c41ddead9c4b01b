"""Multipliers in the UP5K's SB_MAC16, two 8 x 8 products in each, which synthesis does not find by itself."""

from collections.abc import Sequence

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value, signed

__all__ = ["multiply"]

WIDTH = 8
ADD_PRODUCT, ADD_INPUT, REGISTERED = 1, 1, 1  # the output adder adds input C or D, which is 0, to the 8 x 8 product
ZEROS = ("CI", "ACCUMCI", "SIGNEXTIN", *(f"{name}{half}" for half in ("TOP", "BOT")
                                         for name in ("IRST", "ORST", "OLOAD", "ADDSUB", "OHOLD")),
         *(f"{name}HOLD" for name in "ABCD"))


def multiply(m: Module, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
    """See :data:`hw.multiplier.VENDORS`; a cell two products. ``ValueError`` for operands of more than 8 bits."""
    for name, values in (("a", a), ("b", b)):
        if values and len(values[0]) > WIDTH:
            raise ValueError(f"operand {name} must have at most {WIDTH} bits here, got {len(values[0])}")
    products = []
    for i in range(0, len(a), 2):
        products += _cell(m, f"mac{i // 2}", a[i:i + 2], b[i:i + 2])
    return products


def _cell(m: Module, name: str, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
    """A SB_MAC16 clocked by the domain ``sync``: operand registers, product registers, output registers."""
    operands = {}
    for port, values in (("A", a), ("B", b)):
        operands[port] = Signal(2 * WIDTH, name=f"{name}_{port.lower()}")
        for i, value in enumerate(values):
            half = Signal(signed(WIDTH), name=f"{name}_{port.lower()}{i}")
            m.d.comb += [half.eq(value), operands[port][WIDTH * i:WIDTH * (i + 1)].eq(half)]
    product = Signal(4 * WIDTH, name=f"{name}_p")
    halves = {f"p_{half}{name}": value for half in ("TOP", "BOT") for name, value in (
        ("_8x8_MULT_REG", 1), ("OUTPUT_SELECT", Const(REGISTERED, 2)), ("ADDSUB_LOWERINPUT", Const(ADD_PRODUCT, 2)),
        ("ADDSUB_UPPERINPUT", ADD_INPUT), ("ADDSUB_CARRYSELECT", Const(0, 2)))}
    m.submodules[name] = Instance(
        "SB_MAC16",
        p_MODE_8x8=1, p_A_SIGNED=1, p_B_SIGNED=1, p_A_REG=1, p_B_REG=1, p_C_REG=0, p_D_REG=0, p_NEG_TRIGGER=0,
        p_PIPELINE_16x16_MULT_REG1=0, p_PIPELINE_16x16_MULT_REG2=0, **halves,
        i_CLK=ClockSignal("sync"), i_CE=Const(1), i_A=operands["A"], i_B=operands["B"],
        i_C=Const(0, 2 * WIDTH), i_D=Const(0, 2 * WIDTH), **{f"i_{port}": Const(0, 1) for port in ZEROS},
        o_O=product,
    )
    bits = [len(x) + len(y) for x, y in zip(a, b, strict=True)]
    return [Cat(product[2 * WIDTH * i:2 * WIDTH * i + n]).as_signed() for i, n in enumerate(bits)]
