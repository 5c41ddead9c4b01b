"""Fetches, checks and runs instructions one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.hdl import Assert, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.decoder import NAMES, Decoder, Instruction, Operand, OperandCheck
from hw.exponents import ExponentUnit
from hw.post import PostProcessor
from hw.table import Descriptor, Scale
from shiftgrad.config import Config
from shiftgrad.isa import Flag, Opcode, Status

__all__ = ["Activity", "Sequencer"]

LOSS_EXPONENT = -7


class Activity(data.Struct):
    """What a busy cycle is spent on, for the counters; exactly one of the last group of six is set."""

    phase: data.StructLayout({"fwd": 1, "bwd": 1, "grad": 1, "other": 1})
    setup: unsigned(1)
    range: unsigned(1)
    write: unsigned(1)  # a write pass: feeding, waiting for a drain, or its tail
    loss: unsigned(1)


class Sequencer(wiring.Component):
    """fetch -> decode -> check each operand -> exponents -> [range pass ->] write pass -> table -> next.

    Every check is made before anything is written. An error stops the machine with its status and the program counter
    of the instruction; HALT stops it with the counter at the HALT.

    Members
    -------
    start, start_pc, abort : In    run from ``start_pc``; abort stops issuing at once and flushes the pipeline
    busy, status, pc, retired : Out
    p_addr, p_data : Out/In        program memory, data one cycle later
    t_id, t_entry, t_write, t_scale : Out/In   tensor table, entry one cycle later
    lr_shift : In(6)               taken once an instruction, with its word
    word, operands : Out           instruction running and its operands
    is_fwd, is_bwd, is_grad, is_loss : Out   its operation, one cycle after ``word``
    exponents : see ExponentUnit   guard, align, shift, step for the lanes
    rows, cols, depth : Out        M, N, K
    pass_start : Out(1)            issue, drain and clear the maxima
    range_pass : Out(1)
    pass_done : In(1)              last row of the pass has left the drain
    range_start, range_done, range_zero, range_log2, range_saturated : the range unit
    loss_start, loss_done : Out/In
    saturated : Out(32)            of the last product
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
            "word": Out(Instruction),
            "is_fwd": Out(1),
            "is_bwd": Out(1),
            "is_grad": Out(1),
            "is_loss": Out(1),
            "operands": Out(data.ArrayLayout(Operand, 4)),
            "guard": Out(5),
            "align": Out(signed(6)),
            "shift": Out(signed(7)),
            "step": Out(signed(7)),
            "rows": Out(16),
            "cols": Out(16),
            "depth": Out(16),
            "pass_start": Out(1),
            "range_pass": Out(1),
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
        m.submodules.decoder = decoder = Decoder(config=config)
        m.submodules.check = check = OperandCheck(config=config)
        m.submodules.exponents = exponents = ExponentUnit()

        word = self.word
        index = Signal(range(4))
        wait = Signal(range(128))
        measured = Signal()
        entry = Signal(Descriptor)
        is_fwd, is_bwd, is_grad, is_loss = self.is_fwd, self.is_bwd, self.is_grad, self.is_loss
        scaled = Mux(is_grad, word.c, word.dst)  # the tensor whose exponent this instruction sets
        scaled_entry = Signal(Descriptor)
        e_dst, e_a, e_b, e_c = (self.operands[i].entry.scale.exponent for i in range(4))
        m.d.comb += [
            scaled_entry.eq(Mux(is_grad, self.operands[3].entry, self.operands[0].entry)),
            decoder.word.eq(word),
            decoder.operands.eq(self.operands),
            check.entry.eq(entry),
            check.id.eq(Cat(word.dst, word.a, word.b, word.c).word_select(index, 8)),
            check.memory.eq(decoder.memories[index]),
            exponents.grad.eq(is_grad),
            exponents.ones.eq(is_grad & ((word.flags & Flag.ONES.value) != 0)),
            exponents.delayed.eq((word.flags & Flag.DELAYED.value) != 0),
            exponents.freeze.eq((word.flags & Flag.FREEZE.value) != 0),
            exponents.e_a.eq(e_a),
            exponents.e_b.eq(e_b),
            exponents.e_c.eq(e_c),
            exponents.e_dst.eq(e_dst),
            exponents.depth.eq(self.depth),
            exponents.rate.eq(decoder.rate),
            exponents.scale.eq(scaled_entry.scale),
            exponents.measured.eq(measured),
            exponents.zero.eq(self.range_zero),
            exponents.log2.eq(self.range_log2),
            self.guard.eq(exponents.guard),
            self.align.eq(exponents.align),
            self.shift.eq(exponents.shift),
            self.step.eq(exponents.step),
            self.p_addr.eq(self.pc),
            self.t_id.eq(check.id),
            self.t_scale.eq(exponents.new_scale),
        ]
        m.d.sync += [
            is_fwd.eq(word.opcode == Opcode.FWD),
            is_bwd.eq(word.opcode == Opcode.BWD),
            is_grad.eq(word.opcode == Opcode.GRAD),
            is_loss.eq(word.opcode == Opcode.LOSS),
        ]
        m.d.sync += [self.pass_start.eq(0), self.loss_start.eq(0), self.range_start.eq(0)]
        m.d.sync += [self.rows.eq(decoder.rows), self.cols.eq(decoder.cols), self.depth.eq(decoder.depth)]

        shape_error, overlap_error, rate_error = Signal(), Signal(), Signal()
        m.d.sync += [
            shape_error.eq(decoder.shape_error),
            overlap_error.eq(decoder.overlap_error),
            rate_error.eq(decoder.rate_error),
        ]
        failed = Signal()
        error = Signal(Status)
        prefetch = Signal()  # the operation is not decoded yet
        drain_cycles = PostProcessor.W_DELAY + 2 * config.size + 8  # from an abort to the last write under way

        @contextmanager
        def state(name: str) -> Iterator[None]:
            """A state that a failed check or the host can end."""
            with m.State(name):
                yield
                with m.If(failed):
                    m.d.sync += [self.status.eq(error), self.busy.eq(0)]
                    m.next = "IDLE"
                with m.If(self.abort):
                    m.d.sync += [self.status.eq(Status.ABORTED), wait.eq(drain_cycles)]
                    m.d.comb += self.t_write.eq(0)
                    m.d.sync += [self.pass_start.eq(0), self.loss_start.eq(0), self.busy.eq(1)]
                    m.next = "ABORT"

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += self.range_pass.eq(0)
                with m.If(self.start):
                    m.d.sync += [self.pc.eq(self.start_pc), self.retired.eq(0), self.busy.eq(1)]
                    m.next = "FETCH"
            with state("FETCH"):
                m.d.comb += prefetch.eq(1)
                with m.If(self.pc >= config.program_words):
                    m.d.comb += [failed.eq(1), error.eq(Status.PC_RANGE)]
                m.next = "LATCH"
            with state("LATCH"):
                m.d.comb += prefetch.eq(1)
                m.d.sync += [word.eq(self.p_data), decoder.lr_shift.eq(self.lr_shift), index.eq(0), measured.eq(0)]
                m.next = "DECODE"
            with state("DECODE"):
                m.d.comb += prefetch.eq(1)
                m.next = "OPERAND"
                with m.If(decoder.status != Status.RESET):
                    m.d.comb += [failed.eq(1), error.eq(decoder.status)]
                with m.Elif(word.opcode == Opcode.HALT):
                    m.d.comb += [failed.eq(1), error.eq(Status.HALTED)]
            with state("OPERAND"):  # t_id is out; the entry comes in the next cycle
                m.d.sync += wait.eq(check.LATENCY + 1)
                m.next = "CHECK"
                with m.If(~decoder.used.bit_select(index, 1)):
                    m.next = "OPERAND"
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == len(NAMES) - 1):
                        m.next = "COMPARE"
            with state("CHECK"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == check.LATENCY + 1):
                    m.d.sync += entry.eq(self.t_entry)
                with m.If(wait == 0):
                    m.d.sync += [self.operands[index].eq(check.operand), index.eq(index + 1)]
                    m.next = "OPERAND"
                    with m.If(check.status != Status.RESET):
                        m.d.comb += [failed.eq(1), error.eq(check.status)]
                    with m.Elif(index == len(NAMES) - 1):
                        m.next = "COMPARE"
            with state("COMPARE"):
                m.next = "AGREE"
            with state("AGREE"):
                m.d.sync += wait.eq(exponents.LATENCY)
                m.next = "EXPONENTS"
                with m.If(is_loss):
                    m.d.sync += self.loss_start.eq(1)
                    m.next = "LOSS"
                with m.If(shape_error):
                    m.d.comb += [failed.eq(1), error.eq(Status.BAD_SHAPE)]
                with m.Elif(overlap_error):
                    m.d.comb += [failed.eq(1), error.eq(Status.OVERLAP)]
                with m.Elif(rate_error):
                    m.d.comb += [failed.eq(1), error.eq(Status.OVERFLOW)]
                with m.If(failed):
                    m.d.sync += self.loss_start.eq(0)
            with state("EXPONENTS"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += self.pass_start.eq(1)
                    m.d.sync += self.range_pass.eq(exponents.need_range & ~measured)
                    m.next = "PASS"
            with state("PASS"):
                m.d.sync += wait.eq(self.flush)
                with m.If(self.pass_done):
                    m.next = "FLUSH"
            with state("FLUSH"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += self.range_start.eq(1)
                    m.next = "RANGE"
            with state("RANGE"):
                m.d.sync += wait.eq(exponents.LATENCY)
                with m.If(self.range_done):
                    m.next = "STORE"
                    with m.If(self.range_pass):
                        m.d.sync += measured.eq(1)
                        m.next = "EXPONENTS"
                    with m.Else():
                        m.d.sync += self.saturated.eq(self.range_saturated)
            with state("STORE"):
                m.d.sync += wait.eq(wait - 1)
                m.d.comb += self.t_id.eq(scaled)
                with m.If(wait == 0):
                    m.d.comb += self.t_write.eq(1)
                    m.next = "RETIRE"
            with state("LOSS"):
                with m.If(self.loss_done):
                    m.next = "LOSS_STORE"
            with state("LOSS_STORE"):
                m.d.comb += [
                    self.t_id.eq(word.dst),
                    self.t_scale.eq(scaled_entry.scale),
                    self.t_scale.exponent.eq(LOSS_EXPONENT),
                    self.t_write.eq(1),
                ]
                m.next = "RETIRE"
            with state("RETIRE"):
                m.d.sync += [self.pc.eq(self.pc + 1), self.retired.eq(self.retired + 1)]
                m.next = "FETCH"
            with m.State("ABORT"):  # writes under way reach memory, nothing new is issued
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += self.busy.eq(0)
                    m.next = "IDLE"

        known = self.busy & ~prefetch
        in_pass = fsm.ongoing("PASS") | fsm.ongoing("FLUSH") | fsm.ongoing("RANGE")
        fwd, bwd, grad = (known & chosen for chosen in (is_fwd, is_bwd, is_grad))
        ranging = (in_pass & self.range_pass) | (fsm.ongoing("EXPONENTS") & measured)
        writing = ((in_pass & ~self.range_pass) | fsm.ongoing("STORE") | fsm.ongoing("LOSS_STORE")
                   | fsm.ongoing("RETIRE"))
        activity = self.activity
        m.d.comb += [
            activity.phase.eq(Cat(fwd, bwd, grad, self.busy & ~(fwd | bwd | grad))),
            activity.loss.eq(fsm.ongoing("LOSS")),
            activity.range.eq(ranging),
            activity.write.eq(writing),
            activity.setup.eq(self.busy & ~(fsm.ongoing("LOSS") | ranging | writing)),
        ]
        if platform is None:  # simulation and formal
            phase = activity.phase
            classes = activity.setup + activity.range + activity.write + activity.loss
            m.d.sync += [
                Assert(classes == self.busy, "sequencer: wanted one activity in a busy cycle, none in others"),
                Assert(phase.fwd + phase.bwd + phase.grad + phase.other == self.busy,
                       "sequencer: wanted one phase in a busy cycle, none in others"),
                Assert(~self.t_write | self.busy, "sequencer: table written while idle"),
            ]
        return m
