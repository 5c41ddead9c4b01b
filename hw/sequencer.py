"""Fetches, checks and runs instructions one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.hdl import Assert, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw import instruction
from hw.activity import Activity, account
from hw.decoder import Decoder, Instruction
from hw.exponents import ExponentUnit, clamp
from hw.geometry import Geometry, Loops
from hw.instruction import Operation
from hw.lane import Lane
from hw.memory import READ_LATENCY
from hw.onehot import OneHot
from hw.operand import Operand, OperandCheck
from hw.post import PostProcessor
from hw.range import RangeUnit
from hw.scalar import ScalarUnit
from hw.table import Descriptor, Scale
from shiftgrad.config import WORD_BITS, Config
from shiftgrad.isa import OPERAND_NAMES, Opcode, Status

__all__ = ["Sequencer"]

STATES = (
    "IDLE", "FETCH", "WORD", "LATCH", "DECODE", "OPERAND", "CHECK", "AGREE", "EXPONENTS", "SCALAR", "SCALAR_READ",
    "SCALAR_SHIFT", "GEOMETRY", "PASS", "FLUSH", "RANGE", "STORE", "LOSS", "LOSS_STORE", "WRITE", "RETIRE", "FAILED",
    "ABORT")


class Sequencer(wiring.Component):
    """fetch -> decode -> check each operand -> exponents, scalars -> [range pass ->] write pass -> table -> next.

    Every check is made before anything is written. An error stops the machine with its status and the program counter
    of the instruction; HALT stops it with the counter at the HALT. A backward convolution with a step of 2 makes a pass
    of up to four parts, one for each parity of lines and pixels.

    Members
    -------
    start, start_pc, abort : In    run from ``start_pc``; abort stops issuing at once and flushes the pipeline
    busy, status, pc, retired : Out
    p_addr, p_data : Out/In        program memory, data two cycles later
    t_id, t_entry, t_write, t_scale : Out/In   tensor table, entry four cycles later
    s_next : Out(1)                ``s_en`` comes in the next cycle
    s_en, s_addr, s_data : Out/In  a scalar in lane 0 of the vector memory, READ_LATENCY cycles later
    lr_shift : In(6)               taken once an instruction
    operation : Out(Operation)     instruction running, one cycle after its word
    operands : Out                 its operands, in the order of ``isa.OPERAND_NAMES``
    guard, drop, align, shift, step : Out   see ExponentUnit
    loops : Out(Loops)             of a product, see Geometry
    offset : Out(signed 8)         scalar d on operand a's scale; 9 bits where that may be unsigned
    unsigned : Out(5)              operands that are unsigned, where they may be; a cycle after ``operands``
    factor, term : Out             what the vector unit multiplies with and adds
    scalar_bias, scalar : Out      FWD: the bias is this scalar
    part_start, vector_start : Out(1)   issue a part of a product, or a pass of the vector unit
    clear : Out(1)                 a pass begins: clear the maxima
    last_part : Out(1)             the part running is the pass's last
    range_pass : Out(1)
    part_done : In(1)              the part is issued
    pass_done : In(1)              last row of the pass has left the drain or the vector unit
    range_start, range_done, range_zero, range_log2, range_saturated : the range unit
    loss_start, loss_done : Out/In
    saturated : Out(32)            of the last product or vector operation
    activity : Out                 for the counters
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__({
            "start": In(1),
            "start_pc": In(16),
            "abort": In(1),
            "lr_shift": In(6),
            "busy": Out(1),
            "status": Out(Status),
            "pc": Out(16),
            "retired": Out(32),
            "p_addr": Out(16),
            "p_data": In(Instruction),
            "t_id": Out(8),
            "t_entry": In(Descriptor),
            "t_write": Out(1),
            "t_scale": Out(Scale),
            "s_next": Out(1),
            "s_en": Out(1),
            "s_addr": Out(WORD_BITS),
            "s_data": In(signed(16)),
            "operation": Out(Operation()),
            "operands": Out(data.ArrayLayout(Operand, len(OPERAND_NAMES))),
            "guard": Out(5),
            "drop": Out(5),
            "align": Out(signed(6)),
            "shift": Out(signed(7)),
            "step": Out(signed(7)),
            "loops": Out(Loops),
            "offset": Out(signed(8 + config.unsigned)),
            **({"unsigned": Out(len(OPERAND_NAMES))} if config.unsigned else {}),
            "factor": Out(signed(16)),
            "term": Out(signed(32)),
            "scalar_bias": Out(1),
            "scalar": Out(signed(16)),
            "part_start": Out(1),
            "vector_start": Out(1),
            "clear": Out(1),
            "last_part": Out(1),
            "range_pass": Out(1),
            "part_done": In(1),
            "pass_done": In(1),
            "range_start": Out(1),
            "range_done": In(1),
            "range_zero": In(1),
            "range_log2": In(signed(7)),
            "range_saturated": In(32),
            "loss_start": Out(1),
            "loss_done": In(1),
            "saturated": Out(32),
            "activity": Out(Activity),
        })

    @property
    def flush(self) -> int:
        """Cycles from the drain's last token, a cycle late here, to the start of the range unit."""
        last = PostProcessor.LARGEST_DELAY + (self.config.size - 1) * Lane.LARGEST_DELAY  # magnitude of lane 0
        return last - RangeUnit.late(self.config.size)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        self.word = Signal(Instruction)
        self.index = Signal(range(len(OPERAND_NAMES)))
        self.lasts, self.over = Signal(range(128)), Signal()  # cycles a state waits, less 1; it has waited
        self.measured = Signal()
        m.submodules.decoder = self.decoder = Decoder(config=config)
        m.submodules.check = self.check = OperandCheck(config=config)
        m.submodules.exponents = self.exponents = ExponentUnit(uint8=config.unsigned)
        m.submodules.geometry = self.geometry = Geometry(size=config.size)
        m.submodules.scalar_unit = self.scalars = ScalarUnit(uint8=config.unsigned)
        instruction.decode(m, self)
        instruction.exponents(m, self)
        instruction.geometry(m, self)
        self._take(m)
        instruction.scalars(m, self)
        self._states(m)
        account(m, self)
        if platform is None:  # simulation and formal
            activity = self.activity
            phases = sum(activity.phase[name] for name in ("fwd", "bwd", "grad", "vector", "other"))
            classes = activity.setup + activity.range + activity.write + activity.loss
            m.d.sync += [
                Assert(classes == self.busy, "sequencer: wanted one activity in a busy cycle, none in others"),
                Assert(phases == self.busy, "sequencer: wanted one phase in a busy cycle, none in others"),
                Assert(~self.t_write | self.busy, "sequencer: table written while idle"),
            ]
        return m

    # --- states -----------------------------------------------------------------------------------

    def _states(self, m: Module) -> None:
        self.reason, self.prefetch = Signal(Status), Signal()
        word, result = self.word, Signal(8)  # the tensor whose exponent is stored
        self.storing = Signal()  # it is the one the table shows
        self.retiring = Signal()  # in RETIRE
        m.d.comb += self.p_addr.eq(self.pc)
        m.d.sync += [signal.eq(0) for signal in (self.part_start, self.vector_start, self.clear, self.loss_start,
                                                 self.range_start, self.scalars.start,
                                                 self.t_write, self.s_next, self.retiring)]
        with m.If(self.start & ~self.busy):  # which is IDLE
            m.d.sync += [self.pc.eq(self.start_pc), self.retired.eq(0)]
        with m.If(self.retiring):
            m.d.sync += [self.pc.eq(self.pc + 1), self.retired.eq(self.retired + 1)]
        m.d.sync += [
            self.t_id.eq(Mux(self.storing, result,
                             Cat(word.dst, word.a, word.b, word.c, word.d).word_select(self.index, 8))),
            result.eq(Mux(self.gradient, word.c, word.dst)), self.storing.eq(0),
        ]
        wait, first = Signal.like(self.lasts), Signal()  # first: of a wait's cycles, or there is none
        m.d.sync += [
            first.eq((self.lasts == 0) | self.over | self.abort),
            wait.eq(Mux(first, self.lasts, wait - 1)), self.over.eq((wait == 1) & ~first & ~self.abort),
        ]
        self.fsm = OneHot(m, STATES)
        with self.fsm.state("IDLE"):
            m.d.comb += self.prefetch.eq(1)
            m.d.sync += [self.range_pass.eq(0), self.busy.eq(self.start)]
            with m.If(self.start):
                self.fsm.next("FETCH")
        self._fetch(m)
        self._check(m)
        self._prepare(m)
        self._run(m)
        self._store(m)
        with self.fsm.state("FAILED"):
            m.d.comb += self.prefetch.eq(1)
            m.d.sync += self.status.eq(self.reason)
            self.fsm.next("IDLE")
        with self.fsm.state("ABORT"):  # writes under way reach memory, nothing new is issued
            self._wait(m, PostProcessor.W_DELAY + 2 * self.config.size + 12)
            m.d.sync += self.status.eq(Status.ABORTED)
            with m.If(self.over):
                self.fsm.next("IDLE")
        self.fsm.finish()

    @contextmanager
    def _state(self, m: Module, name: str) -> Iterator[None]:
        """A state that the host can end."""
        with self.fsm.state(name):
            yield
            with m.If(self.abort):
                m.d.sync += [self.part_start.eq(0), self.vector_start.eq(0), self.clear.eq(0), self.loss_start.eq(0),
                             self.t_write.eq(0), self.retiring.eq(0)]
                self.fsm.next("ABORT")

    def _fail(self, m: Module, status: object) -> None:
        m.d.sync += self.reason.eq(status)
        self.fsm.next("FAILED")

    def _wait(self, m: Module, cycles: int) -> None:
        """In this state ``over`` comes ``cycles``, at least 2, after the first cycle.

        Another state that waits may follow only then, or when the host ends this one.
        """
        m.d.comb += self.lasts.eq(cycles - 1)

    def _fetch(self, m: Module) -> None:
        word, decoder, halt, beyond = self.word, self.decoder, Signal(), Signal()
        self.used = Signal(len(OPERAND_NAMES))  # operands from ``index`` on
        illegal = Signal()
        m.d.sync += [halt.eq(word.opcode == Opcode.HALT), illegal.eq(decoder.status != Status.RESET)]
        with self._state(m, "FETCH"):
            m.d.comb += self.prefetch.eq(1)
            m.d.sync += beyond.eq(self.pc >= self.config.program_words)
            self.fsm.next("WORD")
        with self._state(m, "WORD"):
            m.d.comb += self.prefetch.eq(1)
            self.fsm.next("LATCH")
            with m.If(beyond):
                self._fail(m, Status.PC_RANGE)
        with self._state(m, "LATCH"):
            m.d.comb += self.prefetch.eq(1)
            m.d.sync += [
                word.eq(self.p_data), decoder.lr_shift.eq(self.lr_shift), self.measured.eq(0),
                self.index.eq(0), self.last.eq(0)]
            self.fsm.next("DECODE")
        with self._state(m, "DECODE"):
            self._wait(m, decoder.WORD_LATENCY + 1)
            m.d.comb += self.prefetch.eq(1)
            m.d.sync += self.used.eq(decoder.used)
            with m.If(self.over):
                self.fsm.next("OPERAND")
                with m.If(illegal):
                    self._fail(m, decoder.status)
                with m.Elif(halt):
                    self._fail(m, Status.HALTED)

    def _take(self, m: Module) -> None:
        """Entries from the table to the check, and from there to the operands."""
        self.asked, self.checked, self.last = Signal(), Signal(), Signal()  # last: ``index`` is the last operand's
        shown, keep = Signal(3), Signal(len(OPERAND_NAMES))  # the table's data comes five cycles after the index
        m.d.sync += [shown.eq(Cat(self.asked, shown)), self.check.start.eq(shown[2])]
        for i in range(len(OPERAND_NAMES)):  # a cycle late, so that their enables are registers
            m.d.sync += keep[i].eq(self.checked & (self.index == i))
            with m.If(keep[i]):
                m.d.sync += self.operands[i].eq(self.check.operand)

    def _check(self, m: Module) -> None:
        """Each operand used, then all together."""
        decoder, check, index = self.decoder, self.check, self.index
        misfit, apart, how, whole = Signal(), Signal(), Signal(Status), Signal()
        m.d.sync += [
            misfit.eq(check.status != Status.RESET),
            apart.eq(decoder.rate_error | decoder.overlap_error | decoder.shape_error),
            how.eq(Mux(decoder.shape_error, Status.BAD_SHAPE,
                       Mux(decoder.overlap_error, Status.OVERLAP, Status.OVERFLOW))),
        ]

        def proceed() -> None:
            self.fsm.next("OPERAND")
            m.d.sync += [index.eq(index + 1), self.last.eq(index == len(OPERAND_NAMES) - 2),
                         self.used.eq(self.used >> 1)]
            with m.If(self.last):
                m.d.sync += whole.eq(1)
                self.fsm.next("AGREE")

        # operands are there in the second cycle of AGREE; should they not agree, loops do no harm
        m.d.sync += [self.asked.eq(0), whole.eq(0), self.geometry.start.eq(whole)]
        with self._state(m, "OPERAND"):
            m.d.sync += self.asked.eq(1)
            self.fsm.next("CHECK")
            with m.If(~self.used[0]):
                m.d.sync += self.asked.eq(0)
                proceed()
        with self._state(m, "CHECK"):
            self._wait(m, check.LATENCY + 5)
            with m.If(self.over):
                m.d.comb += self.checked.eq(1)
                proceed()
                with m.If(misfit):
                    self._fail(m, check.status)
        with self._state(m, "AGREE"):
            self._wait(m, decoder.LATENCY + 2)
            self._first_part(m)
            with m.If(self.over):
                self.fsm.next("EXPONENTS")
                with m.If(self.operation.loss):
                    m.d.sync += self.loss_start.eq(1)
                    self.fsm.next("LOSS")
                with m.If(apart):
                    self._fail(m, how)
                    m.d.sync += self.loss_start.eq(0)

    def _first_part(self, m: Module) -> None:
        """The loops, if there are any, begin with even lines and pixels."""
        m.d.sync += [self.odd_y.eq(0), self.odd_x.eq(0)]

    def _prepare(self, m: Module) -> None:
        """Exponents, then scalars d and c, while the loops are worked out."""
        operation, scalars = self.operation, self.scalars
        e_a, e_c, e_d = (self.operands[i].entry.scale.exponent for i in (1, 3, 4))
        on_c = Signal()  # the scalar being brought in is c
        scalar_c, distance = Signal(), Signal(signed(11))
        some, more = Signal(), Signal()  # a scalar is to be brought in: behind the exponents, behind this one
        m.d.sync += [
            scalar_c.eq(operation.bias & (operation.add | (self.operands[3].entry.cols == 1))),
            distance.eq(Mux(on_c, e_c, e_d) - Mux(on_c, self.exponents.e_v, e_a)),
            some.eq(~self.measured & (operation.scalar | scalar_c)), more.eq(~on_c & scalar_c),
            self.s_en.eq(self.s_next),
            self.s_addr.eq(Mux(on_c, self.operands[3].entry.base, self.operands[4].entry.base)),
        ]
        m.d.comb += scalars.d.eq(clamp(m, distance, -31, 31, "distance"))

        forget, shifted, take_c, take_d = self.forget, Signal(), self.take_c, self.take_d
        m.d.sync += [signal.eq(0) for signal in (forget, shifted, take_c, take_d)]

        with self._state(m, "EXPONENTS"):
            # the operands were there for the time of AGREE; what depends on the number of pixels needs 3 more
            self._wait(m, Mux(self.measured, self.exponents.RANGE_LATENCY,
                              self.exponents.LATENCY + 3 - self.decoder.LATENCY - 2))
            m.d.sync += on_c.eq(~operation.scalar)
            with m.If(self.over):
                m.d.sync += [self.range_pass.eq(self.exponents.need_range & ~self.measured), forget.eq(~self.measured)]
                self.fsm.next("GEOMETRY")
                with m.If(some):
                    self.fsm.next("SCALAR")
        with self._state(m, "SCALAR"):
            m.d.sync += self.s_next.eq(1)
            self.fsm.next("SCALAR_READ")
        with self._state(m, "SCALAR_READ"):
            self._wait(m, READ_LATENCY + 1)
            with m.If(self.over):
                m.d.sync += scalars.start.eq(1)
                self.fsm.next("SCALAR_SHIFT")
        with self._state(m, "SCALAR_SHIFT"):
            m.d.sync += shifted.eq(~scalars.start & ~scalars.busy & ~shifted)
            with m.If(shifted):
                m.d.sync += [take_c.eq(on_c), take_d.eq(~on_c), on_c.eq(1)]
                self.fsm.next("GEOMETRY")
                with m.If(more):
                    self.fsm.next("SCALAR")
        with self._state(m, "GEOMETRY"):
            with m.If(self.geometry.done):
                m.d.sync += [self.part_start.eq(~operation.vector), self.vector_start.eq(operation.vector),
                             self.clear.eq(~self.odd_y & ~self.odd_x)]
                self.fsm.next("PASS")

    def _run(self, m: Module) -> None:
        done, part_done, ranged = Signal(), Signal(), Signal()
        m.d.sync += [done.eq(self.pass_done & self.last_part), part_done.eq(self.part_done & ~self.last_part),
                     ranged.eq(self.range_done)]
        with self._state(m, "PASS"):
            with m.If(part_done):
                m.d.sync += [self.odd_x.eq(~self.odd_x & self.more_x), self.geometry.start.eq(1)]
                with m.If(self.odd_x | ~self.more_x):
                    m.d.sync += self.odd_y.eq(1)
                self.fsm.next("GEOMETRY")
            with m.If(done):
                self.fsm.next("FLUSH")
        with self._state(m, "FLUSH"):
            self._wait(m, self.flush)
            with m.If(self.over):
                m.d.sync += self.range_start.eq(1)
                self.fsm.next("RANGE")
        with self._state(m, "RANGE"):
            with m.If(ranged):
                self.fsm.next("STORE")
                with m.If(self.range_pass):
                    self._first_part(m)
                    m.d.sync += [self.measured.eq(1), self.geometry.start.eq(~self.operation.vector)]
                    self.fsm.next("EXPONENTS")
                with m.Else():
                    m.d.sync += self.saturated.eq(self.range_saturated)

    def _store(self, m: Module) -> None:
        lost = Signal()
        m.d.sync += lost.eq(self.loss_done)
        with self._state(m, "STORE"):
            self._wait(m, self.exponents.STORE_LATENCY - 1)  # the range has been there for a cycle
            m.d.sync += self.storing.eq(1)
            with m.If(self.over):
                m.d.sync += self.t_write.eq(1)
                self.fsm.next("WRITE")
        with self._state(m, "LOSS"):
            m.d.sync += self.storing.eq(1)
            with m.If(lost):
                self.fsm.next("LOSS_STORE")
        with self._state(m, "LOSS_STORE"):
            m.d.sync += self.t_write.eq(1)
            self.fsm.next("WRITE")
        with self._state(m, "WRITE"):  # on its way to the table
            m.d.sync += self.retiring.eq(1)
            self.fsm.next("RETIRE")
        with self._state(m, "RETIRE"):
            self.fsm.next("FETCH")
