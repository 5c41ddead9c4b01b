"""The loss unit: softmax cross-entropy error, loss and accuracy of a batch, in integers."""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory, ReadPort, WritePort
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.logic import delayed
from hw.loss_error import ErrorStream, Reciprocal
from hw.loss_exp import Exp2
from hw.loss_scan import LogitScan
from shiftgrad.config import WORD_BITS

__all__ = ["LossUnit"]

_LOG_STEP = 10  # of the division: log2 is normalised at 8 and looked up 2 later
_ROW = data.StructLayout({
    "pending": 1,  # complete, and the division has not taken it yet
    "counted": 1,  # its label is valid
    "correct": 1,  # its first maximum is the label
    "total": 25,  # S
    "w": 16,  # of the label
})


class LossUnit(wiring.Component):
    """Softmax cross-entropy of ``rows`` x ``cols`` logits (docs/numerics.md, "Loss"), bit for bit.

    A row takes four steps: maximum, exponentials and their sum S, division, errors. The first two (``LogitScan``) of
    the next row run during the last two of this one; exponentials wait in two buffers of ``classes`` words.

    Parameters
    ----------
    lanes : T, lanes of the memories, at least 4
    classes : most columns, 2 to 256
    read_latency : cycles from a read at the root to lane 0's data, 1 to 2 T - 2

    Members
    -------
    start : In(1)         pulse; ignored until ``done``
    abort : In(1)         stop at once; the results stay as they are
    done : Out(1)         pulse, the cycle after the last lane's error was on ``e_data``
    rows, cols : In(17)   samples, 1 or more; logits a sample, 1 to ``classes``
    exponent : In(signed(8))            of the logits
    z_base, z_stride : In(17)           first word and words a row of the logits (ACT)
    y_base : In(17)                     first word of the labels (VEC), one a sample, unsigned
    e_base, e_stride : In(17)           first word and words a row of the errors (ERR)
    z_en, z_addr, z_data                read root: lane n's data ``read_latency`` + n cycles after the address
    y_en, y_addr, y_data                the same for labels; a lane's data must hold until its next read
    e_en, e_addr, e_data                write root: lane n stores ``e_data`` as it is WRITE_DELAY + n cycles
                                        after ``e_en``
    loss : Out(32)        sum over valid samples in 1/256 bit, wraps
    correct, samples : Out(16)          valid samples whose first maximum is the label; valid samples

    All inputs from ``rows`` to ``e_stride`` are static from start to done; both strides are ceil(cols / T). Results are
    cleared by start and final at done. Time: max(2 P, P + 19) cycles a row with P = stride * T, plus P + 50 at most,
    with a read latency up to 4.
    No back-pressure: the memories must serve every access.
    """

    def __init__(self, *, lanes: int, classes: int = 256, read_latency: int = 2) -> None:
        if lanes < 4:
            raise ValueError(f"lanes must be at least 4, got {lanes!r}")
        if not 2 <= classes <= 256:
            raise ValueError(f"classes must be from 2 to 256, got {classes!r}")
        if not 1 <= read_latency <= 2 * lanes - 2:
            raise ValueError(f"read_latency must be from 1 to {2 * lanes - 2}, got {read_latency!r}")
        self.lanes, self.classes, self.read_latency = lanes, classes, read_latency
        words = ("rows", "cols", "z_base", "z_stride", "y_base", "e_base", "e_stride")
        super().__init__({
            "start": In(1),
            "abort": In(1),
            "done": Out(1),
            **{name: In(WORD_BITS) for name in words},
            "exponent": In(signed(8)),
            **{f"{port}_en": Out(1) for port in "zye"},
            **{f"{port}_addr": Out(WORD_BITS) for port in "zye"},
            "z_data": In(data.ArrayLayout(signed(8), lanes)),
            "y_data": In(data.ArrayLayout(signed(16), lanes)),
            "e_data": Out(signed(8)),
            "loss": Out(32),
            "correct": Out(16),
            "samples": Out(16),
        })

    def elaborate(self, platform: object) -> Module:
        top, m = Module(), Module()
        top.submodules.rows = ResetInserter(self.abort)(m)
        m.submodules.scan = scan = LogitScan(lanes=self.lanes, classes=self.classes, read_latency=self.read_latency)
        # a reset would come between the block RAMs and what follows them, and there is nothing to forget
        top.submodules.exp = exp = Exp2()
        m.submodules.reciprocal = reciprocal = Reciprocal()
        m.submodules.errors = errors = ErrorStream(lanes=self.lanes, classes=self.classes)
        m.d.comb += [
            scan.start.eq(self.start), errors.restart.eq(self.start),
            *(getattr(scan, name).eq(getattr(self, name)) for name in ("rows", "cols", "z_base", "z_stride", "y_base")),
            *(getattr(scan, name).eq(getattr(self, name)) for name in ("z_data", "y_data")),
            *(getattr(self, name).eq(getattr(scan, name)) for name in ("z_en", "z_addr", "y_en", "y_addr")),
            *(getattr(errors, name).eq(getattr(self, name)) for name in ("cols", "e_base", "e_stride")),
            *(getattr(self, name).eq(getattr(errors, name)) for name in ("e_en", "e_addr", "e_data")),
            exp.d.eq(scan.d), exp.log_index.eq(reciprocal.index), errors.r.eq(reciprocal.r),
        ]
        shift = Signal(signed(9))
        m.d.sync += [shift.eq(8 - self.exponent), exp.shift.eq(Mux(shift[-1], 0, Mux(shift[:8] > 25, 25, shift)))]

        row = Signal(_ROW)
        take, counted = Signal(), Signal()
        write, read = self._buffer(top)
        self._sum(m, scan, exp, write, row, take)
        m.d.comb += [
            reciprocal.start.eq(take), reciprocal.s.eq(row.total), errors.counted.eq(counted),
            errors.start.eq(delayed(m, reciprocal.step == Reciprocal.latency - 3, 1, "send_", resets=True)[-1]),
            Cat(errors.p, errors.hit).eq(read.data),
        ]
        # a register, for much hangs on it; all three stay as they are until a row is taken
        m.d.sync += take.eq(row.pending & (reciprocal.step == Reciprocal.latency) & ~errors.active & ~take)
        with m.If(take):
            m.d.sync += counted.eq(row.counted)
        self._order(m, scan, errors, read)
        self._results(top, exp, reciprocal, row, take, counted)
        return top

    def _buffer(self, m: Module) -> tuple[ReadPort, WritePort]:
        """Two rows of p and "this column is the label": address = {row mod 2, column}."""
        # A column is never read in the cycle it is written: spares the bypass Yosys puts after the block RAM.
        attrs = {"no_rw_check": 1}
        m.submodules.buffer = buffer = Memory(shape=18, depth=2 << bits_for(self.classes - 1), init=[], attrs=attrs)
        return buffer.write_port(), buffer.read_port()

    def _sum(self, m: Module, scan: LogitScan, exp: Exp2, write: WritePort, row: data.View, take: Signal) -> None:
        """Follow the elements through ``exp``: store p, add it up, note the label's w; ``pending`` at the end."""
        at_w = delayed(m, scan.element, exp.w_latency, "at_w_", resets=True)[-1]
        at_p = delayed(m, at_w, exp.latency - exp.w_latency, "at_p_", resets=True)[-1]
        label_w = Signal.like(row.w)
        with m.If(at_w.inside & at_w.hit):
            m.d.sync += label_w.eq(exp.w)

        column, bank = Signal(len(write.addr) - 1), Signal()
        m.d.comb += [
            write.addr.eq(Cat(Mux(at_p.first, 0, column), bank)),
            write.data.eq(Cat(exp.p, at_p.hit)),
            write.en.eq(at_p.inside),
        ]
        with m.If(at_p.inside):
            m.d.sync += [column.eq(Mux(at_p.first, 0, column) + 1), row.total.eq(Mux(at_p.first, 0, row.total) + exp.p)]
        with m.If(at_p.last):
            m.d.sync += row.w.eq(label_w)  # of the next row it comes soon
            m.d.sync += [row.pending.eq(1), row.counted.eq(at_p.counted), row.correct.eq(at_p.correct), bank.eq(~bank)]
        with m.Elif(take):
            m.d.sync += row.pending.eq(0)

    def _order(self, m: Module, scan: LogitScan, errors: ErrorStream, read: ReadPort) -> None:
        """Let a row begin when the row two before it is being sent: it cannot catch up with the buffer or ``row``."""
        waiting, bank = Signal(2), Signal()  # rows begun and not yet being sent; half of the buffer being read
        m.d.comb += [scan.go.eq(~waiting[1]), read.addr.eq(Cat(errors.column[:len(read.addr) - 1], bank))]
        m.d.sync += waiting.eq(waiting + scan.begin - errors.start)
        finished = Signal()
        m.d.comb += finished.eq(errors.active & errors.last & ~scan.active & (waiting == 0))
        with m.If(errors.active & errors.last):
            m.d.sync += bank.eq(~bank)
        m.d.comb += self.done.eq(delayed(m, finished, errors.latency + 1, "finished_", resets=True)[-1])

    def _results(
        self, m: Module, exp: Exp2, reciprocal: Reciprocal, row: data.View, take: Signal, counted: Signal,
    ) -> None:
        """Count a row when it is taken; its loss is complete when the logarithm is, during the division."""
        term = Signal(17)
        with m.If(self.start):
            m.d.sync += [self.loss.eq(0), self.correct.eq(0), self.samples.eq(0)]
        with m.Elif(take):
            m.d.sync += [
                term.eq(row.w),
                self.correct.eq(self.correct + (row.counted & row.correct)),
                self.samples.eq(self.samples + row.counted),
            ]
        with m.Elif(reciprocal.step == _LOG_STEP):
            m.d.sync += term.eq(term + Cat(exp.log, reciprocal.octave))
        with m.Elif((reciprocal.step == _LOG_STEP + 1) & counted):
            m.d.sync += self.loss.eq(self.loss + term)
