"""The post-processor: one lane a column, and the addresses that go with its rows."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.lane import Lane, LaneControl
from hw.logic import register
from hw.memory import READ_LATENCY, WRITE_DELAY
from shiftgrad.config import WORD_BITS

__all__ = ["Gate", "PostProcessor"]


class Gate(data.Struct):
    """What tells whether an int8 is positive, a lookup table for each: any of its low bits, its high bits, its sign."""

    low: 1
    high: 1
    negative: 1

    @staticmethod
    def of(value: Value, unsigned: Value | None = None) -> Value:
        """The gate of an int8, or of a uint8 when there is ``unsigned`` and it is set."""
        if unsigned is None:
            return Cat(value[:4].any(), value[4:7].any(), value[7])
        return Cat(value[:4].any(), value[4:8].any(), value[7] & ~unsigned)

    @property
    def positive(self) -> Value:
        """Whether it is."""
        return ~self.negative & (self.low | self.high)


class PostProcessor(wiring.Component):
    """Lanes plus the address pipeline from a drain token to its last write.

    A token in cycle x belongs to the accumulators that reach lane n in cycle x + ACC_DELAY + n; it comes from far away,
    so the first cycle goes to a register. So does the first one of ``acc``, ``aux``, ``gate`` and ``old``.

    Parameters
    ----------
    size : T
    uint8 : mantissas may be unsigned

    Members
    -------
    control : In                       what the lanes do, lane n n cycles later; static during a pass
    unsigned : In(1)                   likewise, where mantissas may be: they are
    token, offset, tile, lanes : In    from the drain controller or the vector unit
    aux_base, aux_by_tile : In         what is read with a row (bias, mask, momentum): at base + offset, or base + tile
    scalar_bias, scalar : In           static; with the first, the second operand of every lane is ``scalar``
    dst_base, q_base : In              old and new weights; requantised mantissas
    aux_en, aux_addr : Out             its read root: in cycle x + 2, when control has ``add`` or ``mask`` and the
                                       operand is not ``scalar``
    old_en, old_addr : Out             read root of the old weights
    q_en, q_addr, w_en, w_addr : Out   write roots of ``q`` and ``w_new``; silent in a range pass
    q_soon, w_soon : Out(1)            without it, ``q_en`` or ``w_en`` is 0 in the next cycle
    acc, aux, old : In                 lane data, as the array (or vector unit) and the skewed memories give them
    gate : In(ArrayLayout(Gate))       with ``aux``: with control's ``mask``, results are 0 where it is not positive
    q, w_new : Out                     lane data for the write roots
    largest : Out(32)                  every row's abs(v), or a larger one; lane 0's come last, LARGEST_DELAY cycles
                                       after its token and Lane.LARGEST_DELAY for each further lane
    clips : Out                        how many mantissas were saturated; each counts once, not after its magnitude
    seed_load, seed_data, seed_state   generators: load lane n's when bit n is set; their states
    """

    ACC_DELAY = 2 + READ_LATENCY
    Q_DELAY = ACC_DELAY + 1 + Lane.Q_LATENCY - WRITE_DELAY
    W_DELAY = ACC_DELAY + 1 + Lane.W_LATENCY - WRITE_DELAY
    OLD_DELAY = ACC_DELAY + Lane.W_DELAY - READ_LATENCY
    LARGEST_DELAY = ACC_DELAY + 1 + Lane.LARGEST_LATENCY

    def __init__(self, *, size: int, uint8: bool = False) -> None:
        self.size, self.uint8 = size, uint8

        def lanes(shape: object) -> data.ArrayLayout:
            return data.ArrayLayout(shape, size)

        super().__init__({
            **({"unsigned": In(1)} if uint8 else {}),
            "control": In(LaneControl),
            "token": In(1),
            "offset": In(WORD_BITS),
            "tile": In(16),
            "lanes": In(unsigned(size.bit_length())),
            "aux_base": In(WORD_BITS),
            "aux_by_tile": In(1),
            "scalar_bias": In(1),
            "scalar": In(signed(16)),
            "dst_base": In(WORD_BITS),
            "q_base": In(WORD_BITS),
            "aux_en": Out(1),
            "aux_addr": Out(WORD_BITS),
            "old_en": Out(1),
            "old_addr": Out(WORD_BITS),
            "q_en": Out(1),
            "q_addr": Out(WORD_BITS),
            "q_soon": Out(1),
            "w_soon": Out(1),
            "w_en": Out(1),
            "w_addr": Out(WORD_BITS),
            "acc": In(lanes(signed(32))),
            "aux": In(lanes(signed(16))),
            "gate": In(data.ArrayLayout(Gate, size)),
            "old": In(lanes(signed(16))),
            "q": Out(lanes(signed(8 + uint8))),
            "w_new": Out(lanes(signed(16))),
            "largest": Out(32),
            "clips": Out(unsigned(size.bit_length())),
            "seed_load": In(size),
            "seed_data": In(lanes(unsigned(32))),
            "seed_state": Out(lanes(unsigned(32))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid, offset, count = [self.token], [self.offset], [self.lanes]
        for stage in range(1, max(self.W_DELAY, self.ACC_DELAY + self.size + 1) + 1):
            for pipe, name in ((valid, "valid"), (offset, "offset"), (count, "count")):
                pipe.append(register(m, pipe[-1], f"{name}{stage}", resets=True))

        write = ~self.control.range_pass
        m.d.comb += [
            self.aux_en.eq(valid[2] & (self.control.add | self.control.mask) & ~self.scalar_bias),
            self.old_en.eq(valid[self.OLD_DELAY] & self.control.grad),
            self.q_en.eq(valid[self.Q_DELAY] & write),
            self.w_en.eq(valid[self.W_DELAY] & write & self.control.grad),
            self.q_soon.eq(valid[self.Q_DELAY - 1]), self.w_soon.eq(valid[self.W_DELAY - 1]),
        ]
        m.d.sync += [
            self.aux_addr.eq(self.aux_base + offset[1]),
            self.old_addr.eq(self.dst_base + offset[self.OLD_DELAY - 1]),
            self.q_addr.eq(self.q_base + offset[self.Q_DELAY - 1]),
            self.w_addr.eq(self.dst_base + offset[self.W_DELAY - 1]),
        ]
        with m.If(self.aux_by_tile):
            m.d.sync += self.aux_addr.eq(self.aux_base + register(m, self.tile, "tile1"))

        control, largest, clips = self.control, Const(0, 32), Const(0, 1)
        scalar = Cat(self.scalar_bias, self.scalar)  # static, and there long before
        uint8_here = self.unsigned if self.uint8 else Const(0)
        for n in range(self.size):
            lane = m.submodules[f"lane{n}"] = Lane(index=n, uint8=self.uint8)
            if self.uint8:
                uint8_here = register(m, uint8_here, f"unsigned{n}")
                m.d.comb += lane.unsigned.eq(uint8_here)
            scalar = register(m, scalar, f"scalar{n}")
            m.d.comb += [
                lane.ctl.eq(control),
                lane.valid.eq(valid[self.ACC_DELAY + 1 + n]),
                lane.keep.eq(count[self.ACC_DELAY + 1 + n] > n),
                lane.acc.eq(register(m, self.acc[n], f"acc{n}")),
                lane.op2.eq(Mux(scalar[0], scalar[1:].as_signed(), register(m, self.aux[n], f"aux{n}"))),
                lane.gate.eq(Gate(register(m, self.gate[n].as_value(), f"gate{n}")).positive),
                lane.w.eq(register(m, self.old[n], f"old{n}")),
                lane.largest_in.eq(largest), lane.clips_in.eq(clips),
                lane.seed_load.eq(self.seed_load[n]),
                lane.seed_data.eq(self.seed_data[n]),
                self.q[n].eq(lane.q),
                self.w_new[n].eq(lane.w_new),
                self.seed_state[n].eq(lane.seed_state),
            ]
            # registers of different lanes must never be equal: synthesis would share them, and tie the lanes together
            control, largest, clips = register(m, control, f"control{n + 1}"), lane.largest, lane.clips
        m.d.comb += [self.largest.eq(largest), self.clips.eq(clips)]
        if platform is None:  # simulation and formal
            some = (self.lanes != 0) & (self.lanes <= self.size)
            m.d.sync += Assert(~self.token | some, "post: no or too many lanes")
        return m
