"""From memory lanes to array lanes: padding, an added scalar, rotation and gating."""

from amaranth.hdl import Array, Assert, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.logic import delayed, register
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
    bits : of a value; 9 where operand a may be unsigned

    Members
    -------
    slot : In           step whose addresses are at the memory's read root in this cycle
    rotated : In        lane m takes bank (k mod T) of its own time, else bank m; static during a pass, and T before
    pad : In            with ``slot``: every bank's value is zero (operand a only)
    scalar : In         added to every value that is no padding, which saturates to +-127 (operand a only); static
    add : In(1)         do so
    unsigned : In(1)    the values are unsigned, and saturate to +-255; static, only where they may be
    ones : In           the operand is constant one (operand a only); static as ``rotated``, and so are the two above
    banks : In          memory lanes; bank n's value for ``slot`` comes READ_LATENCY + n cycles after it
    lanes : Out         operand of lane m, ``latency`` + m cycles after its slot; zero outside the tensor
    first : Out         tile start of lane m, aligned with ``lanes``
    """

    GROUP = 4  # banks a lane chooses from at a time
    latency = READ_LATENCY + 5  # a register, the value in two steps, the choice among banks in two

    def __init__(self, *, size: int, rows: bool, bits: int = 8) -> None:
        self.size, self.rows, self.bits = size, rows, bits
        layout = data.ArrayLayout(signed(bits), size)
        super().__init__({
            "slot": In(Slot(size)),
            "rotated": In(1),
            "pad": In(1),
            "scalar": In(signed(bits)),
            "add": In(1),
            **({"unsigned": In(1)} if bits > 8 else {}),
            "ones": In(1),
            "banks": In(layout),
            "lanes": Out(layout),
            "first": Out(size),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks = self._values(m) if self.rows else self._copies(m)
        slot = delayed(m, self.slot, self.latency - 3, "slot_read", resets=True, first=0)[-1]
        rotated, ones = register(m, self.rotated, "rotated0"), register(m, self.ones, "ones0")
        first = []
        for lane in range(self.size):
            bank = Signal(range(self.size), name=f"bank{lane}", reset_less=True)
            m.d.sync += bank.eq(Mux(rotated, slot.index, lane))
            count = slot.rows if self.rows else slot.cols
            inside = register(m, (count > lane) & (slot.valid if self.rows else 1), f"inside{lane}_in")
            inside = register(m, inside, f"inside{lane}")
            self._choose(m, lane, bank, inside, ones if self.rows else Const(0), banks)
            # another start than that of any register with the same input: else synthesis makes one of all that are
            # equal, across lanes, and the array's whole diagonals hang on one
            first.append(Signal(name=f"first{lane}", init=1))
            m.d.sync += first[-1].eq(register(m, register(m, slot.first, f"first_in{lane}"), f"first_on{lane}"))
            if lane + 1 < self.size:
                rippled = Signal(Slot(self.size), name=f"slot{lane + 1}")
                m.d.sync += rippled.eq(slot)
                slot = rippled
                rotated = register(m, rotated, f"rotated{lane + 1}")
                ones = register(m, ones, f"ones{lane + 1}")
        m.d.comb += self.first.eq(Cat(first))
        if platform is None:  # simulation and formal
            count = self.slot.rows if self.rows else self.slot.cols
            m.d.sync += [
                Assert(~self.slot.valid | ((count != 0) & (count <= self.size)), "feeder: no or too many lanes"),
                Assert(~self.slot.valid | (self.slot.index < self.size), "feeder: index beyond the lanes"),
            ]
        return m

    def _choose(self, m: Module, lane: int, bank: Value, inside: Value, ones: Value, banks: list[Value]) -> None:
        """One of a group of banks, then one of the groups."""
        low, high = bank[:2], bank[2:]
        groups = [register(m, Array(banks[start:start + self.GROUP])[low], f"group{lane}_{start}")
                  for start in range(0, self.size, self.GROUP)]
        chosen = Array(groups)[register(m, high, f"high{lane}")] if len(groups) > 1 else groups[0]
        value = Mux(ones, Const(1, signed(self.bits)), chosen) if self.rows else chosen
        m.d.sync += self.lanes[lane].eq(Mux(inside, value, 0))

    def _copies(self, m: Module) -> list[Value]:
        """The banks three cycles later."""
        values = [self.banks[bank] for bank in range(self.size)]
        for name in ("read", "bank_in", "value"):
            values = [register(m, value, f"{name}{bank}") for bank, value in enumerate(values)]
        return values

    def _values(self, m: Module) -> list[Value]:
        """The banks three cycles later, with padding and the scalar in place."""
        pad, add = delayed(m, self.pad, READ_LATENCY + 1, "pad_read", first=0)[-1], self.add
        scalar = Mux(add, self.scalar, 0)
        values = []
        for bank in range(self.size):
            scalar, add = register(m, scalar, f"scalar{bank}"), register(m, add, f"add{bank}")
            total = register(m, Mux(pad, 0, register(m, self.banks[bank], f"read{bank}") + scalar), f"total{bank}")
            values.append(register(m, self._limited(total, add), f"value{bank}"))
            pad = register(m, pad, f"pad{bank + 1}")
        return values

    def _limited(self, total: Value, add: Value) -> Value:
        """A sum, one bit wider than the values, saturated; -128 stays where no scalar is added."""
        if self.bits > 8:
            (outside8, bound8), (outside, bound) = symmetric(total, 8), symmetric(total, self.bits)
            over = Mux(self.unsigned, outside, outside8 & add)
            limit = Mux(self.unsigned, bound, bound8) ^ total[-1].replicate(self.bits) | 1
            return Mux(over, limit, total[:self.bits]).as_signed()
        over = total[8] ^ total[7]
        lowest = add & total[8] & (total[:7] == 0)
        return Cat(total[0] | over | lowest, Mux(over, ~total[8].replicate(6), total[1:7]), total[8]).as_signed()
