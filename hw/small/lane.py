"""The post-processing lane: every four cycles an accumulator becomes a mantissa, in a gradient also a weight."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.generator import default_seeds
from hw.small.assembler import Slot
from hw.small.shifter import Rounder, SharedShifter, saturated

__all__ = ["LANES", "Mode", "SmallLane", "mode_word"]

LANES = 4


class Mode(data.Struct):
    """What a pass does; one register of the controller.

    Members
    -------
    a_err : unsigned(1)         stream A reads ERR, else ACT
    a_turned, b_turned : unsigned(1)   blocks of four words are transposed
    a_ones : unsigned(1)        stream A is ones
    b_err : unsigned(1)         stream B reads ERR, else WGT and MOM
    grad : unsigned(1)          update of a momentum and of what ``wide`` says
    write : unsigned(1)         results are written; else only their maximum is wanted
    add : unsigned(1)           a bias, or a momentum, is added
    mask : unsigned(1)          results without a positive second operand are 0
    relu : unsigned(1)          negative ones are 0
    wide : unsigned(1)          what is updated has 16 bits
    to_err : unsigned(1)        mantissas go to ERR, else ACT (a gradient's to MOM)
    one_bias : unsigned(1)      the bias is one element for all columns
    """

    a_err: unsigned(1)
    a_turned: unsigned(1)
    b_turned: unsigned(1)
    a_ones: unsigned(1)
    b_err: unsigned(1)
    grad: unsigned(1)
    write: unsigned(1)
    add: unsigned(1)
    mask: unsigned(1)
    relu: unsigned(1)
    wide: unsigned(1)
    to_err: unsigned(1)
    one_bias: unsigned(1)


def mode_word(**bits: int) -> int:
    """The controller's MODE with these bits."""
    return int(Mode.const(bits).as_bits())


def xorshift(state: Value) -> Value:
    """The generator's next state."""
    state = state ^ (state << 13)[:32]
    state = state ^ (state >> 17)
    return state ^ (state << 5)[:32]


class SmallLane(wiring.Component):
    """Four values are in flight; the shifter serves each of them four times, in the cycles ``Slot`` names.

    A value begins in a GUARD cycle, t = 0, with its accumulator. Its second operand is taken at t = 1, it is v (see
    docs/numerics.md) at t = 6, its mantissa is the upper byte of ``q_word`` from t = 12, its weight that of
    ``w_word`` from t = 18. Random words are those of lane 0, which moves to the end behind each value.

    Members
    -------
    run : In(1)                a tile is drained; else the shifter is the controller's
    slot : In(2)               see ``Slot``
    mode, shifts : In          as the controller's ports of these names
    col : In(2)                column of the value that began last
    acc : In(signed)           at t = 0
    inside, live : In(1)       at t = 1: the value has an element; a row
    second : In(32)            at t = 1: momenta, or what masks
    vector : In(signed(16))    at t = 1: bias; at t = 16: what a ``wide`` update changes
    old : In(32)               at t = 16: weights; ``col`` is the value's again
    old_inside : In(1)         at t = 17
    x_load, x : In             into the shifter, with the amount of STEP
    whole : Out(signed(32))    of the shifter
    word_load, word : In       into ``q_word``
    q_word, w_word : Out(32)   the last four mantissas and weights
    w_vector : Out(16)         the last weight, when ``wide``
    w_live : Out(1)            at t = 18: the value had a row
    clear : In(1)
    maximum, saturated : Out   largest |v| and saturated mantissas since ``clear``
    seed_load, seed_data, seed : In/Out   see the controller's port SEED
    """

    def __init__(self, *, acc_bits: int) -> None:
        self.acc_bits = acc_bits
        super().__init__({
            "run": In(1), "slot": In(2), "mode": In(Mode), "shifts": In(28), "col": In(2),
            "acc": In(signed(acc_bits)), "inside": In(1), "live": In(1), "second": In(32), "vector": In(signed(16)),
            "old": In(32), "old_inside": In(1),
            "x_load": In(1), "x": In(signed(32)), "whole": Out(signed(32)),
            "word_load": In(1), "word": In(32), "q_word": Out(32), "w_word": Out(32), "w_vector": Out(16),
            "w_live": Out(1),
            "clear": In(1), "maximum": Out(32), "saturated": Out(20),
            "seed_load": In(1), "seed_data": In(32), "seed": Out(32),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.shifter = self.shifter = SharedShifter()
        m.submodules.rounder = self.rounder = Rounder()
        self.limited, self.v = Signal(signed(32)), Signal(signed(32))
        self.alive = [Signal(name=f"alive{i}") for i in range(5)]  # at t = 2, 6, 10, 14, 18
        with m.If(~self.run):
            m.d.sync += [alive.eq(0) for alive in self.alive]
        with m.Elif(self._in(Slot.ALIGN)):
            m.d.sync += [after.eq(before) for before, after in zip([self.live, *self.alive], self.alive, strict=False)]
        self._shift(m)
        self._value(m)
        self._random(m)
        self._update(m)
        self._measure(m)
        return m

    def _in(self, slot: Slot) -> Value:
        return self.slot == slot

    def _shift(self, m: Module) -> None:
        """What enters the shifter, and when."""
        momentum = self.second.word_select(self.col, 8).as_signed()
        sevenfold = Signal(signed(11))
        other = Signal(signed(16))
        x, s = Signal(signed(32)), Signal(signed(7))
        m.d.comb += [
            sevenfold.eq((momentum << 3) - momentum),
            other.eq(Mux(self.mode.add, Mux(self.mode.grad, sevenfold, self.vector), 0)),
            self.shifter.x.eq(x), self.shifter.s.eq(s), self.whole.eq(self.shifter.whole),
        ]
        with m.If(self.run):
            with m.Switch(self.slot):
                for slot, value in ((Slot.REQUANTISE, self.limited), (Slot.STEP, self.rounder.narrow),
                                    (Slot.GUARD, self.acc), (Slot.ALIGN, other)):
                    place = {Slot.STEP: 0, Slot.REQUANTISE: 7, Slot.ALIGN: 14, Slot.GUARD: 21}[slot]
                    with m.Case(slot):
                        m.d.sync += [x.eq(value), s.eq(self.shifts[place:place + 7])]
        with m.Elif(self.x_load):
            m.d.sync += [x.eq(self.x), s.eq(self.shifts[:7])]
        self.positive = ~momentum[-1] & momentum.any()

    def _value(self, m: Module) -> None:
        """v = accumulator + second operand, saturated; then ReLU or mask."""
        shifter = self.shifter
        acc, added, half, keep = Signal(signed(32)), Signal(signed(32)), Signal(), Signal()
        total, zero = Signal(signed(33)), Signal()
        with m.If(self._in(Slot.STEP)):  # t = 3
            m.d.sync += acc.eq(shifter.whole)
        with m.If(self._in(Slot.GUARD)):  # t = 4
            limit = Cat((~shifter.negative).replicate(31), shifter.negative)
            m.d.sync += [added.eq(Mux(shifter.overflow, limit, shifter.whole)), half.eq(shifter.fraction[-1])]
        with m.If(self._in(Slot.ALIGN)):  # t = 1 and t = 5
            m.d.sync += [
                keep.eq(self.inside & (~self.mode.mask | self.positive)), zero.eq(~keep),
                total.eq(acc + added + half),
            ]
        limit = Cat((~total[-1]).replicate(31), total[-1])
        with m.If(~zero & ~(self.mode.relu & total[-1])):  # t = 6
            m.d.comb += self.limited.eq(Mux(total[32] ^ total[31], limit, total[:32]))
        with m.If(self._in(Slot.REQUANTISE)):
            m.d.sync += self.v.eq(self.limited)

    def _random(self, m: Module) -> None:
        """Generators: lane 0 makes a step at t = 8 and one at t = 9, when it moves to the end."""
        lanes = [Signal(32, name=f"seed{i}", init=int(seed)) for i, seed in enumerate(default_seeds(LANES))]
        draws = self.alive[1] & self.mode.grad & self.mode.write
        following = xorshift(lanes[0])
        rotate, last = draws & self._in(Slot.ALIGN), following
        with m.If(draws & self._in(Slot.GUARD)):
            m.d.sync += lanes[0].eq(following)
        with m.If(rotate | self.seed_load):
            m.d.sync += [here.eq(behind) for here, behind in zip(lanes, lanes[1:], strict=False)]
            m.d.sync += lanes[-1].eq(Mux(self.seed_load, self.seed_data, last))
        second = Signal(24)  # word of the value before, needed at t = 14
        with m.If(self._in(Slot.REQUANTISE)):
            m.d.sync += second.eq(lanes[-1][8:])
        m.d.comb += [
            self.seed.eq(lanes[0]),
            self.rounder.random.eq(Mux(self._in(Slot.ALIGN), lanes[0][8:], second)),
            self.rounder.stochastic.eq(self.mode.grad),
        ]

    def _update(self, m: Module) -> None:
        """Mantissas at t = 11, steps at t = 16, weights at t = 17."""
        shifter, rounder, mode = self.shifter, self.rounder, self.mode
        m.d.comb += [
            rounder.whole.eq(shifter.whole), rounder.fraction.eq(shifter.fraction),
            rounder.overflow.eq(shifter.overflow), rounder.negative.eq(shifter.negative),
            self.w_live.eq(self.alive[4]),
        ]
        with m.If(self.run & self._in(Slot.STEP)):
            m.d.sync += self.q_word.eq(Cat(self.q_word[8:], rounder.narrow))
        with m.Elif(self.word_load):
            m.d.sync += self.q_word.eq(self.word)
        step, old, new = Signal(signed(16)), Signal(signed(16)), Signal(signed(17))
        with m.If(self._in(Slot.GUARD)):
            m.d.sync += [
                step.eq(Mux(mode.wide, rounder.wide, rounder.narrow)),
                old.eq(Mux(mode.wide, self.vector, self.old.word_select(self.col, 8).as_signed())),
            ]
        m.d.comb += new.eq(old - step)
        narrow, _ = saturated(new, 8)
        wide, _ = saturated(new, 16)
        with m.If(self._in(Slot.ALIGN)):
            gone = Const(0)
            m.d.sync += [
                self.w_word.eq(Cat(self.w_word[8:], Mux(self.old_inside, narrow, gone))),
                self.w_vector.eq(Mux(self.old_inside, wide, gone)),
            ]

    def _measure(self, m: Module) -> None:
        magnitude = Signal(32)
        m.d.sync += magnitude.eq(Mux(self.v[-1], -self.v, self.v))
        with m.If(self.clear):
            m.d.sync += [self.maximum.eq(0), self.saturated.eq(0)]
        with m.Else():
            with m.If(magnitude > self.maximum):
                m.d.sync += self.maximum.eq(magnitude)
            with m.If(self._in(Slot.STEP) & self.alive[2] & self.mode.write & self.rounder.clipped):
                m.d.sync += self.saturated.eq(self.saturated + 1)
