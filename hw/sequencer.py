"""Fetches, checks and runs instructions one after the other."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.decoder import Decoder, Instruction
from hw.exponents import ExponentUnit
from hw.geometry import Geometry, Loops
from hw.memory import READ_LATENCY
from hw.operand import Operand, OperandCheck
from hw.post import PostProcessor
from hw.scalar import ScalarUnit
from hw.table import Descriptor, Scale
from shiftgrad.config import WORD_BITS, Config
from shiftgrad.isa import OPERAND_NAMES, VECTORS, Flag, Opcode, Status

__all__ = ["Activity", "Operation", "Sequencer"]

LOSS_EXPONENT = -7
ONE, ONE_EXPONENT = 1 << 14, -14  # the scalar 1.0


class Activity(data.Struct):
    """What a busy cycle is spent on, for the counters: one phase, and one of the other four."""

    phase: data.StructLayout({"fwd": 1, "bwd": 1, "grad": 1, "vector": 1, "other": 1})
    setup: unsigned(1)
    range: unsigned(1)
    write: unsigned(1)  # a write pass: feeding, streaming, waiting for a drain, or its tail
    loss: unsigned(1)


class Operation(data.StructLayout):
    """The instruction's operation, one bit each, ``vector`` for all on the vector unit, and its flags."""

    def __init__(self) -> None:
        names = [opcode.name.lower() for opcode in Opcode if opcode != Opcode.HALT]
        super().__init__({name: 1 for name in (*names, "vector", *(flag.name.lower() for flag in Flag))})


class Sequencer(wiring.Component):
    """fetch -> decode -> check each operand -> exponents, scalars -> [range pass ->] write pass -> table -> next.

    Every check is made before anything is written. An error stops the machine with its status and the program counter
    of the instruction; HALT stops it with the counter at the HALT. A backward convolution with a step of 2 makes a pass
    of up to four parts, one for each parity of lines and pixels.

    Members
    -------
    start, start_pc, abort : In    run from ``start_pc``; abort stops issuing at once and flushes the pipeline
    busy, status, pc, retired : Out
    p_addr, p_data : Out/In        program memory, data one cycle later
    t_id, t_entry, t_write, t_scale : Out/In   tensor table, entry one cycle later
    s_en, s_addr, s_data : Out/In  a scalar in lane 0 of the vector memory, READ_LATENCY cycles later
    lr_shift : In(6)               taken once an instruction
    operation : Out(Operation)     instruction running, one cycle after its word
    operands : Out                 its operands, in the order of ``isa.OPERAND_NAMES``
    guard, drop, align, shift, step : Out   see ExponentUnit
    loops : Out(Loops)             of a product, see Geometry
    offset : Out(signed 8)         scalar d on operand a's scale
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
            "offset": Out(signed(8)),
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
        """Cycles from the drain's last token to all maxima being final."""
        return PostProcessor.AMAX_DELAY + self.config.size

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        self.word = Signal(Instruction)
        self.index = Signal(range(len(OPERAND_NAMES)))
        self.wait = Signal(range(128))
        self.measured = Signal()
        self.entry = Signal(Descriptor)
        m.submodules.decoder = self.decoder = Decoder(config=config)
        m.submodules.check = self.check = OperandCheck(config=config)
        m.submodules.exponents = self.exponents = ExponentUnit()
        m.submodules.geometry = self.geometry = Geometry(size=config.size)
        m.submodules.scalar_unit = self.scalars = ScalarUnit()
        self._decode(m)
        self._exponents(m)
        self._geometry(m)
        self._states(m)
        self._activity(m)
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

    # --- what follows from the instruction --------------------------------------------------------

    def _decode(self, m: Module) -> None:
        word, decoder, check, operation = self.word, self.decoder, self.check, self.operation
        m.d.comb += [
            decoder.word.eq(word), decoder.operands.eq(self.operands),
            check.entry.eq(self.entry),
            check.id.eq(Cat(word.dst, word.a, word.b, word.c, word.d).word_select(self.index, 8)),
            check.memory.eq(decoder.memories[self.index]),
        ]
        for opcode in Opcode:
            if opcode != Opcode.HALT:
                m.d.sync += operation[opcode.name.lower()].eq(word.opcode == opcode)
        m.d.sync += operation.vector.eq(Cat(word.opcode == opcode for opcode in VECTORS).any())
        for flag in Flag:
            m.d.sync += operation[flag.name.lower()].eq((word.flags & flag.value) != 0)
        with m.If((word.flags & Flag.ONES.value) != 0):  # there is no operand a
            m.d.sync += operation.scalar.eq(0)

    def _exponents(self, m: Module) -> None:
        """Which exponents count for which operation."""
        operation, exponents, decoder = self.operation, self.exponents, self.decoder
        dst, a, b, c, d = (self.operands[i].entry.scale.exponent for i in range(5))
        pixels, average = Signal(17), Signal(5)
        m.d.comb += pixels.eq(Mux(operation.avg, self.operands[1].pixels, self.operands[0].pixels))
        reached = [pixels >= math.isqrt((1 << 2 * k - 1) - 1) + 1 for k in range(1, 17)]  # ceil(2^(k - 1/2))
        m.d.sync += average.eq(sum(reached))
        self.scaled = Signal(Descriptor)  # of the tensor whose exponent this instruction sets
        gradient = operation.grad | operation["sum"]
        m.d.comb += [
            self.scaled.eq(Mux(gradient, self.operands[3].entry, self.operands[0].entry)),
            exponents.e_x.eq(a), exponents.e_y.eq(b), exponents.e_add.eq(c), exponents.e_dst.eq(dst),
            exponents.grad.eq(gradient),
            exponents.most.eq(16 - Mux(operation["sum"], decoder.sum_bits, decoder.row_bits)),
            exponents.delayed.eq(operation.delayed), exponents.freeze.eq(operation.freeze),
            exponents.rate.eq(decoder.rate), exponents.scale.eq(self.scaled.scale),
            exponents.measured.eq(self.measured), exponents.zero.eq(self.range_zero),
            exponents.log2.eq(self.range_log2),
            *(getattr(self, name).eq(getattr(exponents, name)) for name in ("guard", "drop", "align", "shift", "step")),
            self.t_scale.eq(exponents.new_scale),
        ]
        with m.If(operation.ones | (operation["sum"] & ~operation.pair)):
            m.d.comb += exponents.e_x.eq(0)
        with m.If(operation.add | operation.addb):
            m.d.comb += [exponents.e_y.eq(Mux(operation.scalar, d, ONE_EXPONENT)), exponents.e_add.eq(b)]
        with m.If(operation.avg | operation.avgb):
            m.d.comb += exponents.e_y.eq(-average)
        with m.If(operation.max | operation.maxb):
            m.d.comb += exponents.e_y.eq(0)

    def _geometry(self, m: Module) -> None:
        """Loops of a product; the parts of a backward one."""
        geometry, operation = self.geometry, self.operation
        weights, image = self.operands[2].entry, self.operands[0].entry
        self.odd_y, self.odd_x = Signal(), Signal()
        more_y, more_x = Signal(), Signal()  # there are odd lines, or pixels, to be done apart
        m.d.sync += [
            more_y.eq(operation.bwd & weights.step_y & (image.height != 0)),
            more_x.eq(operation.bwd & weights.step_x & (image.width != 0)),
        ]
        self.more_x = more_x
        m.d.comb += [
            geometry.is_bwd.eq(operation.bwd), geometry.is_grad.eq(operation.grad), geometry.ones.eq(operation.ones),
            geometry.dst.eq(self.operands[0]), geometry.a.eq(self.operands[1]), geometry.b.eq(self.operands[2]),
            geometry.odd_y.eq(self.odd_y), geometry.odd_x.eq(self.odd_x), self.loops.eq(geometry.loops),
            self.last_part.eq((self.odd_y == more_y) & (self.odd_x == more_x)),
        ]

    # --- states -----------------------------------------------------------------------------------

    def _states(self, m: Module) -> None:
        self.failed, self.error, self.prefetch = Signal(), Signal(Status), Signal()
        m.d.comb += [self.p_addr.eq(self.pc), self.t_id.eq(self.check.id)]
        m.d.sync += [signal.eq(0) for signal in (self.part_start, self.vector_start, self.clear, self.loss_start,
                                                 self.range_start, self.geometry.start, self.scalars.start,
                                                 self.check.start)]
        with m.FSM() as self.fsm:
            with m.State("IDLE"):
                m.d.sync += self.range_pass.eq(0)
                with m.If(self.start):
                    m.d.sync += [self.pc.eq(self.start_pc), self.retired.eq(0), self.busy.eq(1)]
                    m.next = "FETCH"
            self._fetch(m)
            self._check(m)
            self._prepare(m)
            self._run(m)
            self._store(m)
            with m.State("ABORT"):  # writes under way reach memory, nothing new is issued
                self._count_down(m)
                with m.If(self.wait == 0):
                    m.d.sync += self.busy.eq(0)
                    m.next = "IDLE"

    @contextmanager
    def _state(self, m: Module, name: str) -> Iterator[None]:
        """A state that a failed check or the host can end."""
        drain_cycles = PostProcessor.W_DELAY + 2 * self.config.size + 8  # from an abort to the last write under way
        with m.State(name):
            yield
            with m.If(self.failed):
                m.d.sync += [self.status.eq(self.error), self.busy.eq(0)]
                m.next = "IDLE"
            with m.If(self.abort):
                m.d.sync += [self.status.eq(Status.ABORTED), self.wait.eq(drain_cycles)]
                m.d.comb += self.t_write.eq(0)
                m.d.sync += [self.part_start.eq(0), self.vector_start.eq(0), self.clear.eq(0), self.loss_start.eq(0),
                             self.busy.eq(1)]
                m.next = "ABORT"

    def _fail(self, m: Module, status: object) -> None:
        m.d.comb += [self.failed.eq(1), self.error.eq(status)]

    def _count_down(self, m: Module) -> None:
        m.d.sync += self.wait.eq(self.wait - 1)

    def _fetch(self, m: Module) -> None:
        word, decoder = self.word, self.decoder
        with self._state(m, "FETCH"):
            m.d.comb += self.prefetch.eq(1)
            with m.If(self.pc >= self.config.program_words):
                self._fail(m, Status.PC_RANGE)
            m.next = "LATCH"
        with self._state(m, "LATCH"):
            m.d.comb += self.prefetch.eq(1)
            m.d.sync += [
                word.eq(self.p_data), decoder.lr_shift.eq(self.lr_shift), self.index.eq(0), self.measured.eq(0)]
            m.next = "DECODE"
        with self._state(m, "DECODE"):
            m.d.comb += self.prefetch.eq(1)
            m.next = "OPERAND"
            with m.If(decoder.status != Status.RESET):
                self._fail(m, decoder.status)
            with m.Elif(word.opcode == Opcode.HALT):
                self._fail(m, Status.HALTED)

    def _check(self, m: Module) -> None:
        """Each operand used, then all together."""
        decoder, check, index, wait = self.decoder, self.check, self.index, self.wait
        last = index == len(OPERAND_NAMES) - 1
        with self._state(m, "OPERAND"):  # t_id is out; the entry comes in the next cycle
            m.d.sync += wait.eq(check.LATENCY + 1)
            m.next = "CHECK"
            with m.If(~decoder.used.bit_select(index, 1)):
                m.next = "OPERAND"
                m.d.sync += index.eq(index + 1)
                with m.If(last):
                    m.d.sync += wait.eq(decoder.LATENCY)
                    m.next = "AGREE"
        with self._state(m, "CHECK"):
            self._count_down(m)
            with m.If(wait == check.LATENCY + 1):
                m.d.sync += [self.entry.eq(self.t_entry), check.start.eq(1)]
            with m.If(wait == 0):
                m.d.sync += [self.operands[index].eq(check.operand), index.eq(index + 1)]
                m.next = "OPERAND"
                with m.If(check.status != Status.RESET):
                    self._fail(m, check.status)
                with m.Elif(last):
                    m.d.sync += wait.eq(decoder.LATENCY)
                    m.next = "AGREE"
        with self._state(m, "AGREE"):
            self._count_down(m)
            with m.If(wait == 0):
                m.d.sync += wait.eq(self.exponents.LATENCY)
                m.next = "EXPONENTS"
                with m.If(self.operation.loss):
                    m.d.sync += self.loss_start.eq(1)
                    m.next = "LOSS"
                for wrong, status in ((decoder.rate_error, Status.OVERFLOW), (decoder.overlap_error, Status.OVERLAP),
                                      (decoder.shape_error, Status.BAD_SHAPE)):  # the last one counts
                    with m.If(wrong):
                        self._fail(m, status)
                with m.If(self.failed):
                    m.d.sync += self.loss_start.eq(0)

    def _prepare(self, m: Module) -> None:
        """Exponents, then scalars d and c, then the loops."""
        operation, scalars, wait = self.operation, self.scalars, self.wait
        e_a, e_c, e_d = (self.operands[i].entry.scale.exponent for i in (1, 3, 4))
        on_c = Signal()  # the scalar being brought in is c
        scalar_c = operation.bias & (operation.add | (self.operands[3].entry.cols == 1))
        distance = Signal(signed(11))
        m.d.comb += distance.eq(Mux(on_c, e_c - self.exponents.e_v, e_d - e_a))
        bounds = [Const(-31, signed(11)), Const(31, signed(11))]
        m.d.sync += scalars.d.eq(Mux(distance < bounds[0], bounds[0], Mux(distance > bounds[1], bounds[1], distance)))

        def scalar_next(done: bool) -> None:
            with m.If(scalar_c if not done else Const(0)):
                m.d.sync += on_c.eq(1)
                m.next = "SCALAR"
            with m.Else():
                m.d.sync += [wait.eq(self.geometry.LATENCY), self.geometry.start.eq(1)]
                m.next = "GEOMETRY"

        with self._state(m, "EXPONENTS"):
            self._count_down(m)
            m.d.sync += [self.odd_y.eq(0), self.odd_x.eq(0), on_c.eq(0)]
            with m.If(wait == 0):
                m.d.sync += self.range_pass.eq(self.exponents.need_range & ~self.measured)
                with m.If(self.measured):
                    scalar_next(True)
                with m.Else():
                    m.d.sync += [
                        self.offset.eq(0), self.factor.eq(Mux(operation.add | operation.addb, ONE, 1)), self.term.eq(0),
                        self.scalar_bias.eq(0),
                    ]
                    with m.If(operation.scalar):
                        m.next = "SCALAR"
                    with m.Else():
                        scalar_next(False)
        with self._state(m, "SCALAR"):
            m.d.comb += [
                self.s_en.eq(1), self.s_addr.eq(Mux(on_c, self.operands[3].entry.base, self.operands[4].entry.base))]
            m.d.sync += wait.eq(READ_LATENCY)
            m.next = "SCALAR_READ"
        with self._state(m, "SCALAR_READ"):
            self._count_down(m)
            with m.If(wait == 1):
                m.d.sync += [scalars.value.eq(self.s_data), scalars.start.eq(1)]
            with m.If(wait == 0):
                m.next = "SCALAR_SHIFT"
        with self._state(m, "SCALAR_SHIFT"):
            with m.If(~scalars.start & ~scalars.busy):
                with m.If(on_c):
                    m.d.sync += [self.term.eq(Mux(operation.add, scalars.y, 0)),
                                 self.scalar.eq(scalars.value), self.scalar_bias.eq(operation.fwd)]
                    scalar_next(True)
                with m.Else():
                    m.d.sync += self.offset.eq(scalars.small)
                    with m.If(operation.vector):
                        m.d.sync += self.factor.eq(scalars.value)
                    scalar_next(False)
        with self._state(m, "GEOMETRY"):
            self._count_down(m)
            with m.If((wait == 0) | operation.vector):
                m.d.sync += [self.part_start.eq(~operation.vector), self.vector_start.eq(operation.vector),
                             self.clear.eq(~self.odd_y & ~self.odd_x)]
                m.next = "PASS"

    def _run(self, m: Module) -> None:
        wait = self.wait
        with self._state(m, "PASS"):
            m.d.sync += wait.eq(self.flush)
            with m.If(self.part_done & ~self.last_part):
                m.d.sync += [self.odd_x.eq(~self.odd_x & self.more_x), wait.eq(self.geometry.LATENCY + 1),
                             self.geometry.start.eq(1)]
                with m.If(self.odd_x | ~self.more_x):
                    m.d.sync += self.odd_y.eq(1)
                m.next = "GEOMETRY"
            with m.If(self.pass_done & self.last_part):
                m.next = "FLUSH"
        with self._state(m, "FLUSH"):
            self._count_down(m)
            with m.If(wait == 0):
                m.d.sync += self.range_start.eq(1)
                m.next = "RANGE"
        with self._state(m, "RANGE"):
            m.d.sync += wait.eq(self.exponents.LATENCY)
            with m.If(self.range_done):
                m.next = "STORE"
                with m.If(self.range_pass):
                    m.d.sync += self.measured.eq(1)
                    m.next = "EXPONENTS"
                with m.Else():
                    m.d.sync += self.saturated.eq(self.range_saturated)

    def _store(self, m: Module) -> None:
        word = self.word
        with self._state(m, "STORE"):
            self._count_down(m)
            gradient = self.operation.grad | self.operation["sum"]
            m.d.comb += self.t_id.eq(Mux(gradient, word.c, word.dst))
            with m.If(self.wait == 0):
                m.d.comb += self.t_write.eq(1)
                m.next = "RETIRE"
        with self._state(m, "LOSS"):
            with m.If(self.loss_done):
                m.next = "LOSS_STORE"
        with self._state(m, "LOSS_STORE"):
            m.d.comb += [
                self.t_id.eq(word.dst), self.t_scale.eq(self.scaled.scale), self.t_scale.exponent.eq(LOSS_EXPONENT),
                self.t_write.eq(1),
            ]
            m.next = "RETIRE"
        with self._state(m, "RETIRE"):
            m.d.sync += [self.pc.eq(self.pc + 1), self.retired.eq(self.retired + 1)]
            m.next = "FETCH"

    # --- counters ---------------------------------------------------------------------------------

    def _activity(self, m: Module) -> None:
        activity, operation = self.activity, self.operation

        def ongoing(*names: str) -> Value:
            return Cat(self.fsm.ongoing(name) for name in names).any()

        known = self.busy & ~self.prefetch
        phases = {name: known & operation[name] for name in ("fwd", "bwd", "grad", "vector")}
        product = ongoing("PASS", "FLUSH", "RANGE")
        ranging, writing = Signal(), Signal()
        m.d.comb += [
            ranging.eq((product & self.range_pass) | (ongoing("EXPONENTS") & self.measured)),
            writing.eq((product & ~self.range_pass) | ongoing("STORE", "LOSS_STORE", "RETIRE")),
            *(activity.phase[name].eq(value) for name, value in phases.items()),
            activity.phase.other.eq(self.busy & ~Cat(phases.values()).any()),
            activity.loss.eq(ongoing("LOSS")), activity.range.eq(ranging), activity.write.eq(writing),
            activity.setup.eq(self.busy & ~(ongoing("LOSS") | ranging | writing)),
        ]
