"""The post-processing lane of one array column: from an int32 accumulator to a mantissa and an updated weight."""

from amaranth.hdl import Assert, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.generator import default_seeds
from hw.lfsr import Lfsr
from hw.logic import delayed, register
from hw.scale import FRACTION, Saturate, Scale, Shifter

__all__ = ["Lane", "LaneControl", "LaneValue"]


class LaneControl(data.Struct):
    """What a lane does; the same for every row of a pass.

    Members
    -------
    grad : unsigned(1)         gradient: guard shift, 7 * op2, stochastic rounding, weight update
    mask : unsigned(1)         rows without ``gate`` give 0
    add : unsigned(1)          op2 is added
    relu : unsigned(1)         negative results become 0
    wide : unsigned(1)         the weight is 16-bit (a bias): saturate to +-32767
    guard : unsigned(5)        g, left shift of a gradient's accumulator, 0 to 16
    align : signed(6)          d, op2 is added times 2^d; -31 to 31
    shift : signed(7)          s of the mantissa, -7 to 32
    step : signed(7)           s of the weight's step, -15 to 32
    range_pass : unsigned(1)   only ``amax`` is wanted: no random words are drawn, no saturation counted
    """

    grad: unsigned(1)
    mask: unsigned(1)
    add: unsigned(1)
    relu: unsigned(1)
    wide: unsigned(1)
    guard: unsigned(5)
    align: signed(6)
    shift: signed(7)
    step: signed(7)
    range_pass: unsigned(1)


class LaneValue(wiring.Component):
    """v of the numerics contract: sat32((acc << g) + align(op2, d)), then ReLU or mask.

    Members
    -------
    ctl : In(LaneControl)   static; set two cycles before the first row
    keep : In(1)            v is 0 when this is 0
    acc : In(signed(32))    accumulator; acc << g must fit int32
    op2 : In(signed(16))    bias, residual or momentum (int8; times 7 in a gradient), with its accumulator
    gate : In(1)            with ``op2``: v is 0 when this is 0 and ``ctl.mask`` is set
    v : Out(signed(32))     result, LATENCY cycles after ``acc``
    """

    LATENCY = 8
    ALIGN_STEPS = ((1, 2), (4, 8), (16, 32))
    GUARD_STEPS = ((16,), (8,), (4,), (2,), (1,))

    ctl: In(LaneControl)
    keep: In(1)
    acc: In(signed(32))
    op2: In(signed(16))
    gate: In(1)
    v: Out(signed(32))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        ctl = self.ctl

        # stages 1 and 2: op2 at rest, then what is added
        op2 = register(m, self.op2, "op2_in")
        keep = register(m, self.keep, "keep_in")
        gate = register(m, self.gate, "gate_in")
        sevenfold = Signal(signed(11))  # of an int8: 7 m = 8 m - m
        m.d.comb += sevenfold.eq((op2[:8].as_signed() << 3) - op2[:8].as_signed())
        added = Signal(signed(16))
        m.d.comb += added.eq(Mux(ctl.add, Mux(ctl.grad, sevenfold, op2), 0))
        zero = ~keep | (ctl.mask & ~gate)

        # stages 3 to 6: align. Shifted left by 32 + d, the integer part starts at bit 32, the half is bit 31
        m.submodules.align = align = Shifter(width=16, steps=self.ALIGN_STEPS, low=31, high=64)
        m.d.sync += align.n.eq(32 + ctl.align)
        m.d.comb += align.x.eq(register(m, added, "added"))
        limit = Signal(signed(32))
        m.d.comb += limit.eq(((1 << 31) - 1) ^ align.negative.replicate(32))
        aligned = register(m, Mux(align.overflow, limit, align.y[1:].as_signed()), "aligned")
        half = register(m, align.y[0], "half")  # 0 when d >= 0

        # stages 1 to 6: guard
        m.submodules.guard = guard = Shifter(width=32, steps=self.GUARD_STEPS, low=0, high=32)
        m.d.sync += guard.n.eq(Mux(ctl.grad, ctl.guard, 0))
        m.d.comb += guard.x.eq(register(m, self.acc, "acc_in"))

        # stage 7: sum; stage 8: saturate, ReLU, mask
        total = register(m, (guard.y + aligned + half)[:33].as_signed(), "total")
        zero = delayed(m, register(m, zero, "zero"), 5, "zero_wait", first=0)[-1] | (ctl.relu & total[-1])
        over = total[32] ^ total[31]
        bound = ((1 << 31) - 1) ^ total[32].replicate(32)
        m.d.comb += self.v.eq(register(m, Mux(zero, 0, Mux(over, bound, total[:32])).as_signed(), "result"))
        return m


class Lane(wiring.Component):
    """Post-processing of one array column; a row enters every cycle.

    Rows of a pass may come with gaps. All latencies count from the cycle a row's ``acc`` is presented.

    Parameters
    ----------
    index : column, named in messages
    uint8 : mantissas may be unsigned

    Members
    -------
    ctl : In(LaneControl)        static from CTL_SETUP cycles before a pass's first row to W_LATENCY after its last
    valid : In(1)                ``keep``, ``acc``, ``op2`` and ``gate`` of a row are here
    keep : In(1)                 the lane is inside the tensor; else its results are 0
    acc, op2, gate : In          as for :class:`LaneValue`
    w : In(signed(16))           old weight or bias, W_DELAY cycles after its row
    q : Out(signed(8))           mantissa, in [-127, 127], after Q_LATENCY cycles; where it may be unsigned, 9 bits
    unsigned : In(1)             static as ``ctl``, where it may be: mantissas go up to 255, and v must not be negative
    w_new : Out(signed(16))      weight - step, after W_LATENCY cycles; +-127, or +-32767 when wide
    largest_in : In(32)          what the lane before says of its rows
    largest : Out(32)            the larger of that, LARGEST_DELAY cycles later, and abs(v), LARGEST_LATENCY after a row
    clips_in, clips : In/Out     with ``q`` and a cycle later: how many mantissas were saturated; none in a range pass
    seed_load, seed_data : In    generator's new state (0 is stored as 1)
    seed_state : Out(32)         generator's state; two steps for each row of a gradient's write pass, whatever ``keep``

    Rounding is to nearest, ties to even; a gradient's mantissas and steps are rounded stochastically with r1 and r2.
    """

    SCALE = {"width": 32, "least": -7, "out_width": 8, "steps": ((1, 2), (4, 8), (16, 32))}
    UINT8_SCALE = SCALE | {"least": -8, "out_width": 9}  # where mantissas may be unsigned
    STEP = {"width": 8, "least": -15, "out_width": 16, "steps": ((1, 2), (4, 8), (16, 32))}
    SCALE_WAIT, STEP_WAIT = len(SCALE["steps"]), len(STEP["steps"])  # from x to the rounding word

    CTL_SETUP = 2
    Q_LATENCY = LaneValue.LATENCY + SCALE_WAIT + 1 + Saturate.LATENCY
    LARGEST_DELAY = 2
    LARGEST_LATENCY = LaneValue.LATENCY + 2 + LARGEST_DELAY
    STEP_LATENCY = Q_LATENCY + STEP_WAIT + 1 + Saturate.LATENCY
    W_DELAY = STEP_LATENCY - 1  # one register before the subtraction
    W_LATENCY = STEP_LATENCY + 1 + Saturate.LATENCY

    def __init__(self, *, index: int, uint8: bool = False) -> None:
        self.index, self.uint8 = index, uint8
        super().__init__({
            **({"unsigned": In(1)} if uint8 else {}),
            "ctl": In(LaneControl),
            "valid": In(1),
            "keep": In(1),
            "acc": In(signed(32)),
            "op2": In(signed(16)),
            "gate": In(1),
            "w": In(signed(16)),
            "q": Out(signed(8 + uint8)),
            "w_new": Out(signed(16)),
            "largest_in": In(32),
            "largest": Out(32),
            "clips_in": In(max(1, index.bit_length())),
            "clips": Out((index + 1).bit_length()),
            "seed_load": In(1),
            "seed_data": In(32),
            "seed_state": Out(32),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ctl = Signal(LaneControl)
        m.d.sync += ctl.eq(self.ctl)

        valid, keep = [self.valid], [self.keep]
        for stage in range(1, self.W_LATENCY):
            keep.append(register(m, keep[-1], f"keep{stage}"))
            valid.append(register(m, valid[-1], f"valid{stage}", resets=True))

        m.submodules.value = value = LaneValue()
        m.d.comb += [
            value.ctl.eq(ctl),
            value.keep.eq(self.keep),
            value.acc.eq(self.acc),
            value.op2.eq(self.op2),
            value.gate.eq(self.gate),
        ]
        m.d.comb += self.largest.eq(self.larger(m, value.v, valid[value.LATENCY], self.largest_in))

        # random words, drawn one cycle before the mantissa is rounded
        drawn = value.LATENCY + self.SCALE_WAIT - 1
        m.submodules.lfsr = lfsr = Lfsr(seed=int(default_seeds(self.index + 1)[-1]))
        m.d.comb += [
            lfsr.advance.eq(valid[drawn] & ctl.grad & ~ctl.range_pass),
            lfsr.load.eq(self.seed_load),
            lfsr.load_data.eq(self.seed_data),
            self.seed_state.eq(lfsr.state),
        ]

        m.submodules.scale = scale = Scale(**self.UINT8_SCALE if self.uint8 else self.SCALE)
        if self.uint8:
            m.d.comb += scale.narrow.eq(register(m, ~self.unsigned, "narrow"))
        m.d.comb += [
            scale.x.eq(value.v),
            scale.s.eq(ctl.shift),
            scale.even.eq(~ctl.grad),
            scale.r.eq(register(m, Mux(ctl.grad, lfsr.r1, 1 << FRACTION - 1), "r1")),
            self.q.eq(scale.q),
        ]
        if platform is None:  # simulation and formal
            proper = self.q != -128
            if self.uint8:  # between instructions, there are others
                proper = ~valid[self.Q_LATENCY] | Mux(self.unsigned, self.q >= 0, proper)
            m.d.comb += Assert(proper, f"lane {self.index}: mantissa -128")
        m.d.sync += self.clips.eq(self.clips_in + (valid[self.Q_LATENCY] & scale.clipped & ~ctl.range_pass))

        m.submodules.step = step = Scale(**self.STEP)
        r2 = delayed(m, lfsr.state[8:], self.Q_LATENCY + self.STEP_WAIT - drawn - 1, "r2_", first=0)  # lfsr.r2 by then
        m.d.comb += [
            step.x.eq(scale.q),
            step.s.eq(ctl.step),
            step.narrow.eq(~ctl.wide),
            step.r.eq(r2[-1]),
        ]
        self.update(m, step.q, ctl.wide, keep[-1])
        return m

    @staticmethod
    def larger(m: Module, v: Value, valid: Value, other: Value) -> Value:
        """The magnitude of ``v``, 0 unless ``valid``, or ``other`` two cycles later when that is larger."""
        folded = register(m, Mux(valid, v ^ v[-1].replicate(32), 0), "folded")
        row = register(m, (folded + register(m, valid & v[-1], "sign"))[:32], "magnitude")
        larger = register(m, row > other, "larger")
        own, other = register(m, row, "own"), register(m, other, "other")
        return register(m, Mux(larger, own, other), "largest_of_both")

    def update(self, m: Module, step: Value, wide: Value, keep: Value) -> None:
        """Subtract and saturate; ``keep`` comes with the difference's saturated value."""
        difference = register(m, register(m, self.w, "old") - step, "difference")
        m.submodules.bound = bound = Saturate(width=len(difference), out_width=16)
        m.d.comb += [
            bound.x.eq(difference), bound.negative.eq(difference[-1]), bound.narrow.eq(~wide), bound.keep.eq(keep),
            self.w_new.eq(bound.y),
        ]
