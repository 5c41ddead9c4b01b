"""From memory lanes to array lanes: padding, an added scalar, rotation and gating."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.memory import READ_LATENCY
from hw.scale import symmetric

__all__ = ["Feeder", "Slot"]


class Slot(data.StructLayout):
    """One reduction step k of one tile, as it leaves the issuer.

    ``index`` is k mod T, ``valid`` says k < K, ``first`` starts a tile, ``rows`` and ``cols`` are its sizes, 1 to T.
    """

    def __init__(self, size: int) -> None:
        count = unsigned(size.bit_length())
        super().__init__({
            "valid": 1,
            "first": 1,
            "index": unsigned((size - 1).bit_length()),
            "rows": count,
            "cols": count,
        })


class Feeder(wiring.Component):
    """Brings one operand's memory lanes onto the array's lanes.

    Parameters
    ----------
    size : T
    rows : True for operand a (lanes are tile rows; it carries ``first`` and is zero for k >= K), False for operand b

    Members
    -------
    slot : In           step whose addresses are at the memory's read root in this cycle
    rotated : In        lane m takes bank (k mod T) of its own time, else bank m; static during a pass
    pad : In            with ``slot``: every bank's value is zero (operand a only)
    scalar : In         added to every value that is no padding, which saturates to +-127 (operand a only); static
    add : In(1)         do so
    ones : In           the operand is constant one (operand a only); static
    banks : In          memory lanes; bank n's value for ``slot`` comes READ_LATENCY + n cycles after it
    lanes : Out         operand of lane m, ``latency`` + m cycles after its slot; zero outside the tensor
    first : Out         tile start of lane m, aligned with ``lanes``
    """

    latency = READ_LATENCY + 2

    def __init__(self, *, size: int, rows: bool) -> None:
        self.size, self.rows = size, rows
        layout = data.ArrayLayout(signed(8), size)
        super().__init__({
            "slot": In(Slot(size)),
            "rotated": In(1),
            "pad": In(1),
            "scalar": In(signed(8)),
            "add": In(1),
            "ones": In(1),
            "banks": In(layout),
            "lanes": Out(layout),
            "first": Out(size),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = self._values(m)
        slot = self.slot
        for stage in range(self.latency - 1):
            delayed = Signal(Slot(self.size), name=f"slot_read{stage}")
            m.d.sync += delayed.eq(slot)
            slot = delayed
        first = []
        for lane in range(self.size):
            bank = Signal(range(self.size), name=f"bank{lane}")
            inside = Signal(name=f"inside{lane}")
            first_q = Signal(name=f"first{lane}")
            count = slot.rows if self.rows else slot.cols
            m.d.comb += [
                bank.eq(Mux(self.rotated, slot.index, lane)),
                inside.eq((count > lane) & (slot.valid if self.rows else 1)),
            ]
            value = Signal(signed(8), name=f"value{lane}")
            m.d.comb += value.eq(values[bank])
            if self.rows:
                m.d.comb += value.eq(Mux(self.ones, Const(1, signed(8)), values[bank]))
            m.d.sync += [self.lanes[lane].eq(Mux(inside, value, 0)), first_q.eq(slot.first)]
            first.append(first_q)
            if lane + 1 < self.size:
                rippled = Signal(Slot(self.size), name=f"slot{lane + 1}")
                m.d.sync += rippled.eq(slot)
                slot = rippled
        m.d.comb += self.first.eq(Cat(first))
        if platform is None:  # simulation and formal
            count = self.slot.rows if self.rows else self.slot.cols
            m.d.sync += [
                Assert(~self.slot.valid | ((count != 0) & (count <= self.size)), "feeder: no or too many lanes"),
                Assert(~self.slot.valid | (self.slot.index < self.size), "feeder: index beyond the lanes"),
            ]
        return m

    def _values(self, m: Module) -> data.View:
        """The banks a cycle later, for operand a with padding and the scalar in place."""
        values = Signal(data.ArrayLayout(signed(8), self.size))
        if not self.rows:
            m.d.sync += values.eq(self.banks)
            return values
        pad = self.pad
        for stage in range(READ_LATENCY):
            delayed = Signal(name=f"pad_read{stage}")
            m.d.sync += delayed.eq(pad)
            pad = delayed
        scalar = Signal(signed(8))
        m.d.sync += scalar.eq(self.scalar)
        for bank in range(self.size):
            total = Signal(signed(9), name=f"total{bank}")
            m.d.comb += total.eq(self.banks[bank] + scalar)
            outside, bound = symmetric(total, 8)
            bounded = Mux(outside, bound ^ total[-1].replicate(8) | 1, total[:8])
            m.d.sync += values[bank].eq(Mux(pad, 0, Mux(self.add, bounded, self.banks[bank])))
            if bank + 1 < self.size:
                rippled = Signal(name=f"pad{bank + 1}")
                m.d.sync += rippled.eq(pad)
                pad = rippled
        return values
