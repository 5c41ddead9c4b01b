"""The vector unit: sums, products with a scalar, pooling and their backward sides, one memory word after the other."""

from amaranth.hdl import Assert, Module, Mux, ResetInserter, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.logic import delayed, register
from hw.memory import READ_LATENCY
from hw.post import PostProcessor
from hw.vector_address import VectorOperand
from hw.vector_lane import TotalScan, VectorControl, VectorLane
from hw.vector_walk import VectorWalk
from shiftgrad.config import WORD_BITS

__all__ = ["VectorControl", "VectorOperand", "VectorUnit"]


class VectorUnit(wiring.Component):
    """Streams operands word by word and presents accumulators and tokens to the post-processor as a drain would.

    A token in cycle x belongs to ``acc`` and ``op2`` of lane n in cycle x + ACC_DELAY + n.

    Parameters
    ----------
    size : T
    lut_products : the lanes multiply in lookup tables
    bits : of a word of a stream; 9 where it may be unsigned

    Members
    -------
    control, dst, a, b : In       static from three cycles before ``start`` (factor and term: from two cycles after it)
                                  to ACC_DELAY + T - 1 cycles after ``done``
    start : In(1)                 a pass begins; not before ``done`` of the pass before
    abort : In(1)                 stop reading, forget all tokens
    any_en : Out(1)               either root reads
    x_en, x_addr : Out            read root of the first stream: a; SUM and MAXB: b
    y_en, y_addr : Out            read root of the second: b of ADD and ADDB, a of SUM and MAXB. ADD and ADDB never read
                                  both streams in the same cycle
    x, y : In                     signed(bits) lanes of the memories read, as skewed memories give them
    token, offset, lanes : Out    as a DrainController's
    acc : Out                     signed(32) lanes
    op2 : Out                     signed(bits) lanes: b of ADD and ADDB, 0 where b has no element; 0 without ``pair``
    busy : Out(1)                 words are being read
    done : Out(1)                 pulse with the pass's last token

    Latency: a pass is ``busy`` from the cycle after ``start`` for as many cycles as words of the first stream, or
    with ``pair`` in ADD and ADDB twice as many less 1. The token of a word (AVG, MAX: of its last) comes TOKEN_DELAY
    cycles after the cycle the word takes, that of MAXB ROUTE_DELAY; SUM's only one T + drop + TOTAL_DELAY cycles after
    its last word's.
    """

    ACC_DELAY = PostProcessor.ACC_DELAY
    # cycles from a word's step to:
    X_STAGE = 2 + READ_LATENCY  # its data behind ``x``, in a register
    ACC_STAGE = X_STAGE + VectorLane.LATENCY  # its ``acc`` and ``op2``
    ROUTE_STAGE = X_STAGE + VectorLane.ROUTE_LATENCY  # the same, MAXB
    # and as its step comes a cycle later
    TOKEN_DELAY, ROUTE_DELAY = ACC_STAGE - ACC_DELAY + 1, ROUTE_STAGE - ACC_DELAY + 1
    TOTAL_DELAY = ACC_STAGE + 5

    def __init__(self, *, size: int, lut_products: bool = False, bits: int = 8) -> None:
        self.size, self.lut_products, self.bits = size, lut_products, bits

        def lanes(bits: int) -> data.ArrayLayout:
            return data.ArrayLayout(signed(bits), size)

        super().__init__({
            "control": In(VectorControl),
            "dst": In(VectorOperand),
            "a": In(VectorOperand),
            "b": In(VectorOperand),
            "start": In(1),
            "abort": In(1),
            "any_en": Out(1),
            "x_en": Out(1),
            "x_addr": Out(WORD_BITS),
            "y_en": Out(1),
            "y_addr": Out(WORD_BITS),
            "x": In(lanes(bits)),
            "y": In(lanes(bits)),
            "token": Out(1),
            "offset": Out(WORD_BITS),
            "lanes": Out(unsigned(size.bit_length())),
            "acc": Out(lanes(32)),
            "op2": Out(lanes(bits)),
            "busy": Out(1),
            "done": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = VectorWalk(size=self.size)
        m.d.comb += [
            *(getattr(walk, name).eq(getattr(self, name)) for name in ("control", "dst", "a", "b", "start", "abort")),
            self.busy.eq(walk.busy),
        ]
        self._roots(m, walk.step)
        sums = self._lanes(m, walk.step)
        self._tokens(m, walk.step, sums)
        if platform is None:  # simulation and formal
            m.d.sync += [
                Assert(~(self.x_en & self.y_en & self.control.add), "vector: both streams read the same memory"),
            ]
        return m

    def _roots(self, m: Module, step: data.View) -> None:
        """Read roots; the second operand of ADD, ADDB and MAXB is wanted later than the first."""
        wait = self.ACC_STAGE - READ_LATENCY - 2
        enable = delayed(m, step.y_read, wait, "y_read", clear=self.abort)
        addr = delayed(m, step.y_addr, wait, "y_addr")
        first, second = step.read & ~self.abort, Mux(self.control.total, enable[0], enable[-1]) & ~self.abort
        m.d.sync += [
            self.any_en.eq(first | second),
            self.x_en.eq(first),
            self.x_addr.eq(step.x_addr),
            self.y_en.eq(second),
            self.y_addr.eq(Mux(self.control.total, addr[0], addr[-1])),
        ]

    def _lanes(self, m: Module, step: data.View) -> list[Value]:
        """Lanes, each a cycle behind the one before; returns their sums."""
        control, sums = self.control, []
        stages = self.X_STAGE + VectorLane.EMIT_DELAY + self.size  # index has the longest way
        fresh, index, count, y_count = (
            delayed(m, step[name], stages, f"{name}_") for name in ("fresh", "index", "lanes", "y_lanes"))
        for n in range(self.size):
            m.submodules[f"lane{n}"] = lane = VectorLane(lut_products=self.lut_products, bits=self.bits)
            keep = Signal(name=f"keep{n}")
            control = register(m, control, f"control{n}")
            x, y = register(m, self.x[n], f"x{n}"), register(m, self.y[n], f"y{n}")
            rank, take, emit = (self.X_STAGE + n + wait for wait in (lane.RANK_DELAY, lane.TAKE_DELAY, lane.EMIT_DELAY))
            m.d.sync += [
                lane.use.eq(~control.total | (count[take - 1] > n)),
                keep.eq(y_count[self.ACC_STAGE + n - 1] > n),
            ]
            m.d.comb += [
                lane.control.eq(control),
                lane.x.eq(x),
                lane.y.eq(y),
                lane.begin.eq(index[rank] == 0),
                lane.index.eq(index[rank]),
                lane.take.eq(index[take] == 3),
                lane.emit.eq(index[emit]),
                lane.first.eq(fresh[take]),
                self.acc[n].eq(lane.sum),
                self.op2[n].eq(Mux(keep, y, 0)),
            ]
            sums.append(lane.sum)
        return sums

    def _tokens(self, m: Module, step: data.View, sums: list[Value]) -> None:
        """One cycle before a token is due it goes to the outputs, from where this operation's are."""
        control = self.control
        offset = Signal.like(self.offset)
        m.d.sync += offset.eq(Mux(control.route, step.x_addr - self.b.base, step.offset))
        late = self.ROUTE_STAGE - self.ACC_DELAY - 1
        early = self.ACC_STAGE - self.ACC_DELAY - 1
        longest = max(late, self.ACC_STAGE)
        token, end = (delayed(m, step[name], longest, name, clear=self.abort) for name in ("token", "end"))
        count = delayed(m, step.lanes, late, "count")
        offset = [step.offset, *delayed(m, offset, late - 1, "offset")]

        # SUM: lane n's is final ACC_STAGE + n cycles after the last word
        scan = TotalScan(lanes=self.size)
        m.submodules.scan = ResetInserter(self.abort)(scan)
        m.d.comb += [
            scan.start.eq(register(m, control.total & end[self.ACC_STAGE - 1] & ~self.abort, "scan_start",
                                  resets=True)),
            scan.drop.eq(control.drop),
            *(scan.sums[n].eq(lane_sum) for n, lane_sum in enumerate(sums)),
        ]
        with m.If(control.total):
            m.d.comb += self.acc[0].eq(scan.total)

        token, end, count, offset = (
            Mux(control.route, pipe[late], pipe[early]) for pipe in (token, end, count, offset))
        m.d.sync += [
            self.token.eq(Mux(control.total, scan.done, token) & ~self.abort),
            self.done.eq(Mux(control.total, scan.done, end) & ~self.abort),
            self.lanes.eq(Mux(control.total, 1, count)),
            self.offset.eq(Mux(control.total, 0, offset)),
        ]
