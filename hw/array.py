"""T x T output-stationary systolic array with drains overlapped."""

from collections.abc import Callable

from amaranth.hdl import Assert, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw import multiplier
from hw.logic import delayed, register
from hw.multiplier import Multipliers, vendor_module

__all__ = ["ACCUMULATORS", "ProcessingElement", "SystolicArray"]

Accumulate = Callable[[Module, Value, Value, Value], Value]

# family of an Amaranth platform: the module whose function ``accumulate(m, total, term, first)`` gives the signed
# ``term`` plus ``total``, or ``term`` alone when ``first``, modulo the width of ``total``; a test proves it
ACCUMULATORS = {"ecp5": "hw.boards.ecp5_accumulator"}


def portable(_m: Module, total: Value, term: Value, first: Value) -> Value:
    """For simulation, and for synthesis that finds its own cells."""
    return Mux(first, 0, total) + term


def accumulator(platform: object) -> Accumulate:
    """What adds up in cells of the platform's own, or the portable one."""
    module = vendor_module(ACCUMULATORS, platform)
    return module.accumulate if module else portable


class ProcessingElement(wiring.Component):
    """One multiply-accumulate cell around a multiplier; sums exactly in int32 (the ISA bounds the reduction).

    Parameters
    ----------
    a_bits : of operand a

    Members
    -------
    a, first : In        operand moving right; ``first`` marks the first term of a tile
    b : In               operand moving down
    a_next, first_next, b_next : Out   the same, one cycle later
    product : In         of ``a`` and ``b``, ``multiplier.LATENCY`` cycles after them
    shift, drain_next : In/Out         ``drain_next`` takes ``drain`` (from the cell above) while ``shift``;
                                       a finished sum enters it LATENCY cycles after the next tile's ``first``
    """

    LATENCY = multiplier.LATENCY + 2  # the product on its way from the multiplier, sum

    def __init__(self, *, a_bits: int = 8) -> None:
        super().__init__({
            "a": In(signed(a_bits)),
            "first": In(1),
            "b": In(signed(8)),
            "a_next": Out(signed(a_bits)),
            "first_next": Out(1),
            "b_next": Out(signed(8)),
            "product": In(signed(a_bits + 8)),
            "shift": In(1),
            "drain": In(signed(32)),
            "drain_next": Out(signed(32)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        acc = Signal(signed(32))
        first = delayed(m, self.first_next, self.LATENCY - 2, "first", first=2)[-1]
        product = register(m, self.product, "product_in")  # multipliers stand in rows of their own, far from most cells
        m.d.sync += [
            self.a_next.eq(self.a),
            self.b_next.eq(self.b),
            self.first_next.eq(self.first),
            acc.eq(accumulator(platform)(m, acc, product, first)),
        ]
        with m.If(first):
            m.d.sync += self.drain_next.eq(acc)
        with m.Elif(self.shift):
            m.d.sync += self.drain_next.eq(self.drain)
        if platform is None:  # simulation and formal
            m.d.sync += Assert(~(first & self.shift), "cell: a sum takes the place of one on its way out")
        return m


class SystolicArray(wiring.Component):
    """T x T cells: ``a`` enters row m at the left, ``b`` column n at the top, both skewed by their lane.

    Parameters
    ----------
    size : T
    a_bits : of operand a

    Members
    -------
    a, first : In    lane m's operand and tile start; element (m, k) of a tile enters m cycles after (0, k)
    b : In           lane n's operand, skewed alike
    shift : In(T)    bit m: row m of column 0 takes the drain value above it; column n does so n cycles later
    acc : Out        bottom of each column's drain, signed 32

    Let ``first`` of the next tile enter lane 0 in cycle t. Row T-1 of the finished tile is on ``acc[n]`` in cycle
    t + n + drain_delay; row T-1-i follows i cycles later when shift bit m is high in the m cycles from t + drain_delay
    (no longer: from then on the cell may hold the next tile's sum). Tiles must be at least T cycles apart.
    """

    def __init__(self, *, size: int, a_bits: int = 8) -> None:
        self.size, self.a_bits = size, a_bits
        super().__init__({
            "a": In(data.ArrayLayout(signed(a_bits), size)),
            "first": In(size),
            "b": In(data.ArrayLayout(signed(8), size)),
            "shift": In(size),
            "acc": Out(data.ArrayLayout(signed(32), size)),
        })

    @property
    def drain_delay(self) -> int:
        """Cycles from the next tile's ``first`` at lane 0 to row T-1 on ``acc[0]``."""
        return self.size - 1 + ProcessingElement.LATENCY

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        size = self.size
        cells = [[ProcessingElement(a_bits=self.a_bits) for _ in range(size)] for _ in range(size)]
        shift = self.shift
        for col in range(size):
            m.submodules[f"multipliers{col}"] = multipliers = Multipliers(count=size, a_bits=self.a_bits)
            for row in range(size):
                cell = m.submodules[f"pe_{row}_{col}"] = cells[row][col]
                left = cells[row][col - 1]
                above = cells[row - 1][col]
                m.d.comb += [
                    cell.a.eq(left.a_next if col else self.a[row]),
                    cell.first.eq(left.first_next if col else self.first[row]),
                    cell.b.eq(above.b_next if row else self.b[col]),
                    cell.drain.eq(above.drain_next if row else 0),
                    cell.shift.eq(shift[row]),
                    multipliers.a[row].eq(cell.a), multipliers.b[row].eq(cell.b),
                    cell.product.eq(multipliers.p[row]),
                ]
            m.d.comb += self.acc[col].eq(cells[size - 1][col].drain_next)
            if col + 1 < size:
                next_shift = Signal(size, name=f"shift{col + 1}")
                m.d.sync += next_shift.eq(shift)
                shift = next_shift
        return m
