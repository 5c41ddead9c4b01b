"""From memory lanes to array lanes: operand addresses, rotation and gating."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.memory import READ_LATENCY

__all__ = ["AddressGenerator", "Feeder", "Slot"]


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


class AddressGenerator(wiring.Component):
    """Word addresses of one operand, tile after tile.

    Plain operands walk ``base + k * stride + tile``; rotated ones ``base + (tile * T + k mod T) * stride + k div T``.

    Members
    -------
    base, stride, rotated : In    static during a pass
    load : In(1)                  back to tile 0, k = 0
    step : In(1)                  next k; ``wrap`` with it says k mod T starts again
    end : In(1)                   with ``step``: next tile instead of next k, selected by
    repeat, home : In(1)          the same tile again; tile 0
    addr : Out(16)                address of the current k
    """

    def __init__(self, *, size: int) -> None:
        self.size = size
        super().__init__({
            "base": In(16),
            "stride": In(16),
            "rotated": In(1),
            "load": In(1),
            "step": In(1),
            "wrap": In(1),
            "end": In(1),
            "repeat": In(1),
            "home": In(1),
            "addr": Out(16),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        tile, block, tile_step = Signal(16), Signal(16), Signal(16)
        start = Signal(16)
        m.d.sync += tile_step.eq(Mux(self.rotated, self.stride * self.size, 1))
        m.d.comb += start.eq(Mux(self.home, self.base, Mux(self.repeat, tile, tile + tile_step)))
        with m.If(self.load):
            m.d.sync += [tile.eq(self.base), block.eq(self.base + 1), self.addr.eq(self.base)]
        with m.Elif(self.step & self.end):
            m.d.sync += [tile.eq(start), block.eq(start + 1), self.addr.eq(start)]
        with m.Elif(self.step & self.wrap & self.rotated):
            m.d.sync += [block.eq(block + 1), self.addr.eq(block)]
        with m.Elif(self.step):
            m.d.sync += self.addr.eq(self.addr + self.stride)
        return m


class Feeder(wiring.Component):
    """Brings one operand's memory lanes onto the array's lanes.

    Parameters
    ----------
    size : T
    rows : True for operand a (lanes are tile rows; it carries ``first`` and is zero for k >= K), False for operand b

    Members
    -------
    slot : In      step whose addresses are at the memory's read root in this cycle
    rotated : In   lane m takes bank (k mod T) of its own time, else bank m; static during a pass
    ones : In      the operand is constant one (operand a only); static
    banks : In     memory lanes; bank n's value for ``slot`` comes READ_LATENCY + n cycles after it
    lanes : Out    operand of lane m, ``latency`` + m cycles after its slot; zero outside the tensor
    first : Out    tile start of lane m, aligned with ``lanes``
    """

    latency = READ_LATENCY + 1

    def __init__(self, *, size: int, rows: bool) -> None:
        self.size, self.rows = size, rows
        layout = data.ArrayLayout(signed(8), size)
        super().__init__({
            "slot": In(Slot(size)),
            "rotated": In(1),
            "ones": In(1),
            "banks": In(layout),
            "lanes": Out(layout),
            "first": Out(size),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slot = self.slot
        for stage in range(READ_LATENCY):
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
            m.d.comb += value.eq(self.banks[bank])
            if self.rows:
                m.d.comb += value.eq(Mux(self.ones, Const(1, signed(8)), self.banks[bank]))
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
