"""The whole machine behind a host bus."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.array import SystolicArray
from hw.bus import HostBus
from hw.counters import PerformanceCounters
from hw.drain import DrainController
from hw.feeder import Feeder
from hw.host import HostInterface
from hw.issuer import Issuer
from hw.loss import LossUnit
from hw.memory import READ_LATENCY, SkewedMemory
from hw.post import PostProcessor
from hw.range import RangeUnit
from hw.sequencer import Sequencer
from hw.table import TensorTable
from shiftgrad.config import MEMORIES, Config
from shiftgrad.isa import Flag, Status

__all__ = ["Core"]


class Core(wiring.Component):
    """Sequencer, memories, array, post-processor and loss unit of one configuration.

    Members
    -------
    bus : In(HostBus)
    busy, status, retired : Out    as the registers of the same names
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__({"bus": In(HostBus()), "busy": Out(1), "status": Out(Status), "retired": Out(32)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        config, size = self.config, self.config.size
        m.submodules.host = host = HostInterface(config=config)
        m.submodules.sequencer = sequencer = Sequencer(config=config)
        m.submodules.table = table = TensorTable(depth=config.tensors)
        m.submodules.issuer = issuer = Issuer(size=size)
        m.submodules.feed_a = feed_a = Feeder(size=size, rows=True)
        m.submodules.feed_b = feed_b = Feeder(size=size, rows=False)
        m.submodules.array = array = SystolicArray(size=size)
        # the token of row T-1 comes ACC_DELAY before that row
        delay = feed_a.latency + array.drain_delay - PostProcessor.ACC_DELAY
        m.submodules.drain = drain = DrainController(size=size, delay=delay)
        m.submodules.post = post = PostProcessor(size=size)
        m.submodules.range = range_unit = RangeUnit(lanes=size)
        m.submodules.loss = loss = LossUnit(lanes=size, classes=config.classes, read_latency=READ_LATENCY)
        m.submodules.counters = counters = PerformanceCounters(size=size)
        memories = {
            name: SkewedMemory(lanes=size, depth=config.words(name), width=8 * config.lane_bytes(name))
            for name in MEMORIES
        }
        for name, memory in memories.items():
            m.submodules[name] = memory
        connect(m, flipped(self.bus), host.bus)

        word = sequencer.word
        dst, a, b, c = (sequencer.operands[i] for i in range(4))
        is_fwd, is_bwd, is_grad, is_loss = sequencer.is_fwd, sequencer.is_bwd, sequencer.is_grad, sequencer.is_loss

        def flag(name: Flag) -> object:
            return (word.flags & name.value) != 0

        ones = Signal()
        m.d.sync += ones.eq(is_grad & flag(Flag.ONES))

        # host, sequencer, table
        m.d.comb += [
            self.busy.eq(sequencer.busy),
            self.status.eq(sequencer.status),
            self.retired.eq(sequencer.retired),
            host.busy.eq(sequencer.busy),
            host.status.eq(sequencer.status),
            host.pc.eq(sequencer.pc),
            host.retired.eq(sequencer.retired),
            host.saturated.eq(sequencer.saturated),
            host.loss.eq(loss.loss),
            host.correct.eq(loss.correct),
            host.samples.eq(loss.samples),
            host.counters.eq(counters.values),
            host.seed_state.eq(post.seed_state),
            host.p_addr.eq(sequencer.p_addr),
            host.t_r_data.eq(table.h_r_data),
            sequencer.start.eq(host.start),
            sequencer.start_pc.eq(host.start_pc),
            sequencer.abort.eq(host.abort),
            sequencer.lr_shift.eq(host.lr_shift),
            sequencer.p_data.eq(host.p_data),
            sequencer.t_entry.eq(table.entry),
            sequencer.pass_done.eq(drain.done),
            sequencer.loss_done.eq(loss.done),
            table.id.eq(Mux(sequencer.busy, sequencer.t_id, host.t_id)),
            table.h_word.eq(host.t_word),
            table.h_write.eq(host.t_write),
            table.h_w_data.eq(host.t_data),
            table.write.eq(sequencer.t_write),
            table.scale.eq(sequencer.t_scale),
        ]

        # array: issue, feed, drain
        m.d.comb += [
            issuer.start.eq(sequencer.pass_start),
            issuer.abort.eq(host.abort),
            issuer.rows.eq(sequencer.rows),
            issuer.cols.eq(sequencer.cols),
            issuer.depth.eq(sequencer.depth),
            issuer.a_base.eq(a.entry.base),
            issuer.a_stride.eq(a.entry.stride),
            issuer.a_rotated.eq(~is_grad),
            issuer.b_base.eq(b.entry.base),
            issuer.b_stride.eq(b.entry.stride),
            issuer.b_rotated.eq(is_bwd),
            feed_a.slot.eq(issuer.slot),
            feed_a.rotated.eq(issuer.a_rotated),
            feed_a.ones.eq(ones),
            feed_a.banks.eq(Mux(is_bwd, memories["err"].r_data, memories["act"].r_data)),
            feed_b.slot.eq(issuer.slot),
            feed_b.rotated.eq(issuer.b_rotated),
            feed_b.banks.eq(Mux(is_grad, memories["err"].r_data, memories["wgt"].r_data)),
            array.a.eq(feed_a.lanes),
            array.first.eq(feed_a.first),
            array.b.eq(feed_b.lanes),
            drain.start.eq(sequencer.pass_start),
            drain.abort.eq(host.abort),
            drain.rows.eq(sequencer.rows),
            drain.cols.eq(sequencer.cols),
            drain.stride.eq(dst.entry.stride),
            drain.boundary.eq(issuer.boundary),
        ]
        shift = drain.shift
        for stage in range(PostProcessor.ACC_DELAY):
            delayed = Signal(size, name=f"shift_wait{stage}")
            m.d.sync += delayed.eq(shift)
            shift = delayed
        m.d.comb += array.shift.eq(shift)

        # post-processor and range
        control = post.control
        m.d.comb += [
            control.grad.eq(is_grad),
            control.mask.eq(is_bwd & flag(Flag.MASK)),
            control.add.eq(is_grad | (is_fwd & flag(Flag.BIAS))),
            control.relu.eq(is_fwd & flag(Flag.RELU)),
            control.wide.eq(ones),
            control.guard.eq(sequencer.guard),
            control.align.eq(sequencer.align),
            control.shift.eq(sequencer.shift),
            control.step.eq(sequencer.step),
            control.range_pass.eq(sequencer.range_pass),
            post.token.eq(drain.token),
            post.offset.eq(drain.offset),
            post.tile.eq(drain.tile),
            post.lanes.eq(drain.lanes),
            post.aux_base.eq(c.entry.base),
            post.aux_by_tile.eq(is_fwd),
            post.dst_base.eq(dst.entry.base),
            post.q_base.eq(Mux(is_grad, c.entry.base, dst.entry.base)),
            post.acc.eq(array.acc),
            post.clear.eq(sequencer.pass_start),
            post.seed_load.eq(host.seed_load),
            post.seed_data.eq(host.seed_data),
            range_unit.start.eq(sequencer.range_start),
            range_unit.amax.eq(post.amax),
            range_unit.saturated_lanes.eq(post.saturated),
            sequencer.range_done.eq(range_unit.done),
            sequencer.range_zero.eq(range_unit.amax_zero),
            sequencer.range_log2.eq(range_unit.log2),
            sequencer.range_saturated.eq(range_unit.saturated),
        ]
        for n in range(size):
            vec, wgt = memories["vec"].r_data[n], memories["wgt"].r_data[n]
            act, mom = memories["act"].r_data[n], memories["mom"].r_data[n]
            m.d.comb += [
                post.aux[n].eq(Mux(is_grad, mom, Mux(is_bwd, act, vec))),
                post.old[n].eq(Mux(ones, vec, wgt)),
            ]

        # loss
        m.d.comb += [
            loss.start.eq(sequencer.loss_start),
            loss.abort.eq(host.abort),
            loss.rows.eq(a.entry.rows),
            loss.cols.eq(a.entry.cols),
            loss.exponent.eq(a.entry.scale.exponent),
            loss.z_base.eq(a.entry.base),
            loss.z_stride.eq(a.entry.stride),
            loss.z_data.eq(memories["act"].r_data),
            loss.y_base.eq(b.entry.base),
            loss.y_data.eq(memories["vec"].r_data),
            loss.e_base.eq(dst.entry.base),
            loss.e_stride.eq(dst.entry.stride),
        ]

        # counters
        m.d.comb += [
            counters.activity.eq(sequencer.activity),
            counters.feeding.eq(issuer.busy),
            counters.waiting.eq(issuer.waiting),
            counters.macs.eq(issuer.macs),
            counters.clear.eq(host.clear),
        ]

        # memory roots: who reads and writes which memory in which instruction
        feed_a_read = (issuer.read & ~ones, issuer.a_addr)
        feed_b_read = (issuer.read, issuer.b_addr)
        aux_read, old_read = (post.aux_en, post.aux_addr), (post.old_en, post.old_addr)
        q_write, w_write = (post.q_en, post.q_addr, post.q), (post.w_en, post.w_addr, post.w_new)
        readers = {
            "act": [(is_fwd | is_grad, *feed_a_read), (is_bwd, *aux_read), (is_loss, loss.z_en, loss.z_addr)],
            "err": [(is_bwd, *feed_a_read), (is_grad, *feed_b_read)],
            "wgt": [(is_fwd | is_bwd, *feed_b_read), (is_grad, *old_read)],
            "mom": [(is_grad, *aux_read)],
            "vec": [(is_fwd, *aux_read), (ones, *old_read), (is_loss, loss.y_en, loss.y_addr)],
        }
        writers = {
            "act": [(is_fwd, *q_write)],
            "err": [(is_bwd, *q_write), (is_loss, loss.e_en, loss.e_addr, None)],
            "wgt": [(is_grad & ~ones, *w_write)],
            "mom": [(is_grad, *q_write)],
            "vec": [(ones, *w_write)],
        }
        for i, name in enumerate(MEMORIES):
            memory = memories[name]
            m.d.comb += [
                memory.h_word.eq(host.m_word),
                memory.h_en.eq(~sequencer.busy),
                memory.r_en.eq(host.m_en[i] & ~host.m_write[i]),
                memory.r_addr.eq(host.m_addr),
                memory.w_en.eq(host.m_write[i]),
                memory.w_addr.eq(host.m_addr),
                getattr(host.m_data, name).eq(memory.r_data.as_value()),
            ]
            with m.If(sequencer.busy):
                m.d.comb += [memory.r_en.eq(0), memory.w_en.eq(0)]
                for chosen, enable, address in readers[name]:
                    with m.If(chosen):
                        m.d.comb += [memory.r_en.eq(enable), memory.r_addr.eq(address)]
                for chosen, enable, address, _ in writers[name]:
                    with m.If(chosen):
                        m.d.comb += [memory.w_en.eq(enable), memory.w_addr.eq(address)]
            for chosen, _, _, values in writers[name]:
                with m.If(chosen):
                    for n in range(size):
                        value = loss.e_data if values is None else values[n]
                        m.d.comb += memory.w_data[n].eq(value)
        return m
