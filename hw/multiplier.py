"""Signed multipliers with registers: portable, or the cells of the device they are built for."""

from collections.abc import Callable, Sequence
from importlib import import_module

from amaranth.hdl import Module, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.scale import register

__all__ = ["LATENCY", "VENDORS", "Multipliers", "vendor_cells"]

LATENCY = 3  # operand registers, pipeline register, product register

Cells = Callable[[Module, Sequence[Value], Sequence[Value]], list[Value]]

# family of an Amaranth platform: the module whose function ``multiply(m, a, b)`` adds its cells to ``m`` and returns
# the products; all operands a are as wide as each other, and so are all b. It answers LATENCY cycles later, as the
# portable one does, from the first cycle on; a test proves that for each of them.
VENDORS = {"ecp5": "hw.boards.ecp5_multiplier", "iCE40": "hw.boards.ice40_multiplier"}


def vendor_cells(platform: object) -> Cells | None:
    """What makes multipliers of the platform's own cells; None where there is no such thing."""
    name = VENDORS.get(getattr(platform, "family", None))
    return import_module(name).multiply if name else None


class Multipliers(wiring.Component):
    """Independent signed multipliers; each takes a pair of operands every cycle.

    Parameters
    ----------
    count : how many; cells that hold two products take neighbours, in order
    a_bits, b_bits : widths of the operands, 2 to 18

    Members
    -------
    a, b : In(ArrayLayout)   signed operands
    p : Out(ArrayLayout)     exact products, LATENCY cycles after their operands; 0 before the first

    No reset and no enable: registers start at 0 with the configuration.
    """

    def __init__(self, *, count: int, a_bits: int = 8, b_bits: int = 8) -> None:
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if not 2 <= bits <= 18:
                raise ValueError(f"{name} must be from 2 to 18, got {bits}")
        self.count, self.a_bits, self.b_bits = count, a_bits, b_bits
        super().__init__({
            "a": In(data.ArrayLayout(signed(a_bits), count)),
            "b": In(data.ArrayLayout(signed(b_bits), count)),
            "p": Out(data.ArrayLayout(signed(a_bits + b_bits), count)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        multiply = vendor_cells(platform) or portable
        products = multiply(m, [self.a[i] for i in range(self.count)], [self.b[i] for i in range(self.count)])
        m.d.comb += [self.p[i].eq(product) for i, product in enumerate(products)]
        return m


def portable(m: Module, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
    """For simulation, and for synthesis that finds its own cells."""
    products = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        product = register(m, x, f"a{i}") * register(m, y, f"b{i}")
        products.append(register(m, register(m, product, f"pipeline{i}"), f"product{i}"))
    return products
