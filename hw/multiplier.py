"""Signed multipliers with registers: portable, or the cells of the device they are built for."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from importlib import import_module
from operator import add
from typing import Any

from amaranth.hdl import Module, Mux, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.logic import register

__all__ = ["LATENCY", "VENDORS", "Multipliers", "vendor_cells", "vendor_module"]

LATENCY = 3  # operand registers, pipeline register, product register

Cells = Callable[[Module, Sequence[Value], Sequence[Value]], list[Value]]

# family of an Amaranth platform: the module whose function ``multiply(m, a, b)`` adds its cells to ``m`` and returns
# the products; all operands a are as wide as each other, and so are all b. It answers LATENCY cycles later, as the
# portable one does, from the first cycle on; a test proves that for each of them.
VENDORS = {"ecp5": "hw.boards.ecp5_multiplier", "iCE40": "hw.boards.ice40_multiplier"}


def vendor_module(modules: Mapping[str, str], platform: object) -> Any:
    """That of ``modules``, by family, which knows the platform's own cells; None where there is none."""
    name = modules.get(getattr(platform, "family", ""))
    return import_module(name) if name else None


def vendor_cells(platform: object) -> Cells | None:
    """What makes multipliers of the platform's own cells; None where there is no such thing."""
    module = vendor_module(VENDORS, platform)
    return module.multiply if module else None


class Multipliers(wiring.Component):
    """Independent signed multipliers; each takes a pair of operands every cycle.

    Parameters
    ----------
    count : how many; cells that hold two products take neighbours, in order
    a_bits, b_bits : widths of the operands, 2 to 18
    fabric : make them of lookup tables, where all cells are needed elsewhere

    Members
    -------
    a, b : In(ArrayLayout)   signed operands
    p : Out(ArrayLayout)     exact products, LATENCY cycles after their operands; 0 before the first

    No reset and no enable: registers start at 0 with the configuration.
    """

    def __init__(self, *, count: int, a_bits: int = 8, b_bits: int = 8, fabric: bool = False) -> None:
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if not 2 <= bits <= 18:
                raise ValueError(f"{name} must be from 2 to 18, got {bits}")
        self.count, self.a_bits, self.b_bits, self.fabric = count, a_bits, b_bits, fabric
        super().__init__({
            "a": In(data.ArrayLayout(signed(a_bits), count)),
            "b": In(data.ArrayLayout(signed(b_bits), count)),
            "p": Out(data.ArrayLayout(signed(a_bits + b_bits), count)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        multiply = in_fabric if self.fabric else vendor_cells(platform) or portable
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


def in_fabric(m: Module, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
    """Rows of bits added up: synthesis has no way to tell a multiplication that it is to be made of lookup tables."""
    products = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        wide, narrow = (x, y) if len(x) >= len(y) else (y, x)
        wide, narrow = register(m, wide, f"wide{i}"), register(m, narrow, f"narrow{i}")
        rows = [Mux(bit, wide << place, 0) for place, bit in enumerate(narrow)]
        rows[-1] = -rows[-1]  # the sign's
        sums = [reduce(add, rows[start:start + 2]) for start in range(0, len(rows), 2)]
        sums = [register(m, pair, f"pair{i}_{place}") for place, pair in enumerate(sums)]
        while len(sums) > 1:
            sums = [reduce(add, sums[start:start + 2]) for start in range(0, len(sums), 2)]
        products.append(register(m, sums[0][:len(x) + len(y)].as_signed(), f"product{i}"))
    return products
