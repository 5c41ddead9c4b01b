"""The whole machine behind a host bus."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.array import SystolicArray
from hw.bus import HostBus
from hw.counters import PerformanceCounters
from hw.drain import DrainController
from hw.feeder import Feeder
from hw.host import HostInterface
from hw.issuer import Issuer
from hw.logic import delayed, register
from hw.loss import LossUnit
from hw.memory import READ_LATENCY, SkewedMemory
from hw.post import Gate, PostProcessor
from hw.range import RangeUnit
from hw.sequencer import Sequencer
from hw.table import TensorTable
from hw.vector import VectorUnit
from shiftgrad.config import MEMORIES, WORD_BITS, Config
from shiftgrad.isa import Status

__all__ = ["Core"]


class Unsigned(data.Struct):
    """Whether values are unsigned: results, operand a of the array, the vector unit's streams, the mask."""

    dst: 1
    a: 1
    x: 1
    y: 1
    gate: 1


class Core(wiring.Component):
    """Sequencer, memories, array, vector unit, post-processor and loss unit of one configuration.

    Members
    -------
    bus : In(HostBus)
    busy, status, retired : Out    as the registers of the same names
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__({"bus": In(HostBus()), "busy": Out(1), "status": Out(Status), "retired": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, size = self.config, self.config.size
        m.submodules.host = self.host = HostInterface(config=config)
        m.submodules.sequencer = self.sequencer = Sequencer(config=config)
        m.submodules.table = self.table = TensorTable(depth=config.tensors)
        m.submodules.issuer = self.issuer = Issuer(size=size)
        bits = 8 + config.unsigned  # of an operand that may be an activation
        m.submodules.feed_a = self.feed_a = Feeder(size=size, rows=True, bits=bits)
        m.submodules.feed_b = self.feed_b = Feeder(size=size, rows=False)
        m.submodules.array = self.array = SystolicArray(size=size, a_bits=bits)
        # the token of row T-1 comes ACC_DELAY before that row
        delay = self.feed_a.latency + self.array.drain_delay - PostProcessor.ACC_DELAY - 1  # and is a cycle on its way
        m.submodules.drain = self.drain = DrainController(size=size, delay=delay)
        m.submodules.vector = self.vector = VectorUnit(size=size, lut_products=config.lut_products, bits=bits)
        m.submodules.post = self.post = PostProcessor(size=size, uint8=config.unsigned)
        m.submodules.range = self.range = RangeUnit(lanes=size)
        m.submodules.loss = self.loss = LossUnit(lanes=size, classes=config.classes, read_latency=READ_LATENCY + 1)
        m.submodules.counters = self.counters = PerformanceCounters(size=size)
        self.memories = {
            # a product reads padding, and pixels behind the last one, as whatever there is
            name: SkewedMemory(lanes=size, depth=config.words(name), width=8 * config.lane_bytes(name),
                               every_read_counts=name not in ("act", "err"))
            for name in MEMORIES
        }
        for name, memory in self.memories.items():
            m.submodules[name] = memory
        connect(m, flipped(self.bus), self.host.bus)
        # static during an instruction, and there long before it is needed: every unit takes it from a register of its
        # own, each behind another one, for of equal ones synthesis keeps one
        copies = delayed(m, self.sequencer.operation, 5, "operation", first=0)
        self.of_product, operation, self.of_roots, self.of_vector = copies[2:]
        self.of_post = operation
        self.gradient, self.ones, self.backward, self.forward = (
            Signal(name=name) for name in ("gradient", "ones", "backward", "forward"))
        m.d.sync += [
            self.gradient.eq(operation.grad | operation["sum"]),
            self.ones.eq(operation.grad & operation.ones),
            self.forward.eq(operation.fwd | operation.add | operation.avg | operation.max),
            self.backward.eq(operation.bwd | operation.addb | operation.avgb | operation.maxb),
        ]
        if config.unsigned:
            self._unsigned(m)
        self._aborts(m)
        self._product(m)
        self._control(m)
        self._vector(m)
        self._post(m)
        self._loss(m)
        self._roots(m, platform)
        return m

    def _unsigned(self, m: Module) -> None:
        """Which of the values on their way are unsigned, static during an instruction."""
        dst, a, b, c, _ = self.sequencer.unsigned
        operation = self.of_post
        self.unsigned = Signal(Unsigned)
        m.d.sync += [
            self.unsigned.dst.eq(dst), self.unsigned.a.eq(a), self.unsigned.gate.eq(c),
            self.unsigned.x.eq(Mux(operation.maxb | operation["sum"], b, a)),
            self.unsigned.y.eq(Mux(operation.add | operation.addb, b, a)),
        ]
        m.d.comb += [self.feed_a.unsigned.eq(self.unsigned.a), self.post.unsigned.eq(self.unsigned.dst)]

    def _aborts(self, m: Module) -> None:
        """The host's abort, later for units farther away; they stop one after the other."""
        self.abort_product = register(m, self.host.abort, "abort_product")
        self.abort_vector = register(m, self.abort_product, "abort_vector")
        self.abort_loss = register(m, register(m, self.abort_vector, "abort_on_its_way"), "abort_loss")

    def _control(self, m: Module) -> None:
        """Host, sequencer, table, counters."""
        host, sequencer, table, loss, counters = self.host, self.sequencer, self.table, self.loss, self.counters
        m.d.comb += [
            self.busy.eq(sequencer.busy), self.status.eq(sequencer.status), self.retired.eq(sequencer.retired),
            *(getattr(host, name).eq(getattr(sequencer, name))
              for name in ("busy", "status", "pc", "retired", "saturated", "p_addr")),
            *(getattr(host, name).eq(getattr(loss, name)) for name in ("loss", "correct", "samples")),
            host.counters.eq(counters.values),
            host.seed_state.eq(self.post.seed_state),
            host.t_r_data.eq(table.h_r_data),
            *(getattr(sequencer, name).eq(getattr(host, name))
              for name in ("start", "start_pc", "abort", "lr_shift", "p_data")),
            sequencer.s_data.eq(self.memories["vec"].r_data[0]),
            sequencer.part_done.eq(self.issuer.closing),
            sequencer.pass_done.eq(self.leaving["done"] | self.vector.done),
            sequencer.loss_done.eq(loss.done),
            counters.clear.eq(host.clear),
        ]
        m.d.sync += [  # a cycle late
            counters.activity.eq(sequencer.activity),
            counters.feeding.eq(self.issuer.busy), counters.waiting.eq(self.issuer.waiting),
            counters.streaming.eq(self.vector.busy), counters.macs.eq(self.issuer.macs),
        ]

        m.d.sync += [  # a cycle late, and so are entries
            sequencer.t_entry.eq(table.entry),
            table.id.eq(Mux(sequencer.busy, sequencer.t_id, host.t_id)),
            table.h_word.eq(host.t_word), table.h_write.eq(host.t_write), table.h_w_data.eq(host.t_data),
            table.write.eq(sequencer.t_write), table.scale.eq(sequencer.t_scale),
        ]

    def _product(self, m: Module) -> None:
        """Issue, feed, array, drain."""
        sequencer, issuer, feed_a, feed_b, drain = self.sequencer, self.issuer, self.feed_a, self.feed_b, self.drain
        operation, abort = self.of_product, self.abort_product
        m.d.comb += [
            issuer.start.eq(sequencer.part_start), issuer.abort.eq(abort), issuer.loops.eq(sequencer.loops),
            feed_a.slot.eq(issuer.slot), feed_b.slot.eq(issuer.slot),
            feed_a.rotated.eq(~operation.grad), feed_b.rotated.eq(operation.bwd),
            feed_a.pad.eq(issuer.pad), feed_a.ones.eq(self.ones),
            feed_a.scalar.eq(sequencer.offset), feed_a.add.eq(operation.scalar),
            self.array.a.eq(feed_a.lanes), self.array.first.eq(feed_a.first), self.array.b.eq(feed_b.lanes),
            drain.row.eq(issuer.row), drain.boundary.eq(issuer.boundary),
            drain.last.eq(issuer.closing & sequencer.last_part), drain.abort.eq(abort),
        ]
        self.leaving = {name: register(m, getattr(drain, name), f"leaving_{name}", resets=name in ("token", "done"))
                        for name in ("token", "offset", "lanes", "tile", "done")}
        shift = delayed(m, drain.shift, PostProcessor.ACC_DELAY + 1, "shift_wait", resets=True, first=0)
        m.d.comb += self.array.shift.eq(shift[-1])

    def _vector(self, m: Module) -> None:
        """The vector unit: x is a of a forward operation or of AVGB and ADDB, b of SUM and MAXB."""
        sequencer, vector = self.sequencer, self.vector
        operation, control = self.of_vector, vector.control
        m.d.comb += [vector.start.eq(sequencer.vector_start), vector.abort.eq(self.abort_vector)]
        m.d.sync += [  # a cycle late
            control.add.eq(operation.add | operation.addb), control.total.eq(operation["sum"]),
            control.average.eq(operation.avg), control.spread.eq(operation.avgb), control.largest.eq(operation.max),
            control.route.eq(operation.maxb), control.pair.eq(operation.pair), control.mask.eq(operation.mask),
            control.factor.eq(sequencer.factor), control.term.eq(sequencer.term), control.drop.eq(sequencer.drop),
        ]
        for i, name in enumerate(("dst", "a", "b")):
            operand, wanted = sequencer.operands[i], getattr(vector, name)
            entry = operand.entry
            m.d.sync += [  # a cycle late
                wanted.base.eq(entry.base), wanted.stride.eq(entry.stride), wanted.planes.eq(entry.planes),
                wanted.height_1.eq(entry.height), wanted.width_1.eq(entry.width), wanted.cols.eq(entry.cols),
                wanted.line.eq(operand.line), wanted.image.eq(operand.image),
            ]

    def _post(self, m: Module) -> None:
        """Post-processor and range."""
        sequencer, post, vector = self.sequencer, self.post, self.vector
        operation, control = self.of_post, post.control
        dst, c = sequencer.operands[0].entry, sequencer.operands[3].entry
        added = operation.add | operation.addb
        wide = self.ones | operation["sum"]
        on_vector, masked, plus, total = (Signal(name=name) for name in ("on_vector", "masked", "plus", "total"))
        m.d.sync += [
            on_vector.eq(operation.vector), total.eq(wide),
            masked.eq(self.backward & operation.mask & ~operation.maxb),
            post.q_base.eq(Mux(self.gradient, c.base, dst.base)),
            plus.eq(self.gradient | (operation.fwd & operation.bias) | (added & operation.pair)),
        ]
        m.d.comb += [
            control.grad.eq(self.gradient), control.mask.eq(masked), control.add.eq(plus), control.wide.eq(total),
            control.relu.eq(operation.relu | self.unsigned.dst if self.config.unsigned else operation.relu),
            control.guard.eq(sequencer.guard), control.align.eq(sequencer.align), control.shift.eq(sequencer.shift),
            control.step.eq(sequencer.step), control.range_pass.eq(sequencer.range_pass),
            *(getattr(post, name).eq(Mux(on_vector, getattr(vector, name), self.leaving[name]))
              for name in ("token", "offset", "lanes")),
            post.tile.eq(self.leaving["tile"]),
            post.aux_base.eq(c.base), post.aux_by_tile.eq(operation.fwd),
            post.scalar_bias.eq(sequencer.scalar_bias), post.scalar.eq(sequencer.scalar),
            post.dst_base.eq(dst.base),
            self.range.clear.eq(sequencer.clear),
            post.seed_load.eq(self.host.seed_load),
            *(post.seed_data[n].eq(self.host.m_word[n].data) for n in range(self.config.size)),
            self.range.start.eq(sequencer.range_start),
            self.range.largest.eq(post.largest), self.range.clips.eq(post.clips),
            sequencer.range_done.eq(self.range.done), sequencer.range_zero.eq(self.range.amax_zero),
            sequencer.range_log2.eq(self.range.log2), sequencer.range_saturated.eq(self.range.saturated),
        ]
        self._lanes(m, on_vector, total)

    def _lanes(self, m: Module, on_vector: Signal, total: Signal) -> None:
        """Which memories a lane's data come from; told from lane to lane, for they are far apart."""
        post, vector, operation = self.post, self.vector, self.of_post
        chosen = Cat(on_vector, self.gradient, total, operation.bwd, operation.grad, self.forward | operation.maxb,
                     operation.add | operation["sum"])
        fixed = len(chosen)
        if self.config.unsigned:
            chosen = Cat(chosen, self.unsigned)
        for n in range(self.config.size):
            chosen = register(m, chosen, f"chosen{n}")
            vec, wgt, act, mom, err = (self.read_data(name)[n] for name in ("vec", "wgt", "act", "mom", "err"))
            act_a, act_x, act_y, gate = act, act, act, Gate.of(act)
            if self.config.unsigned:
                unsigned = self.unsigned.shape()(chosen[fixed:])
                act_a, act_x, act_y = (Cat(act, act[7] & ~getattr(unsigned, name)).as_signed() for name in "axy")
                gate = Gate.of(act, unsigned.gate)
            m.d.comb += [
                post.acc[n].eq(Mux(chosen[0], vector.acc[n], self.array.acc[n])),
                post.aux[n].eq(Mux(chosen[1], mom, Mux(chosen[0], vector.op2[n], vec))),
                post.gate[n].eq(gate),
                post.old[n].eq(Mux(chosen[2], vec, wgt)),
                self.feed_a.banks[n].eq(Mux(chosen[3], err, act_a)), self.feed_b.banks[n].eq(Mux(chosen[4], err, wgt)),
                vector.x[n].eq(Mux(chosen[5], act_x, err)), vector.y[n].eq(Mux(chosen[6], act_y, err)),
            ]

    def _loss(self, m: Module) -> None:
        loss = self.loss
        dst, a, b = (self.sequencer.operands[i].entry for i in range(3))
        m.d.comb += [
            loss.start.eq(self.sequencer.loss_start), loss.abort.eq(self.abort_loss),
            loss.rows.eq(self.sequencer.operands[1].rows), loss.cols.eq(a.cols),
            loss.exponent.eq(a.scale.exponent),
            loss.z_base.eq(a.base), loss.z_stride.eq(a.stride), loss.z_data.eq(self.read_data("act")),
            loss.y_base.eq(b.base), loss.y_data.eq(self.read_data("vec")),
            loss.e_base.eq(dst.base), loss.e_stride.eq(dst.stride),
        ]

    # --- memories ---------------------------------------------------------------------------------

    def read_data(self, name: str) -> Value:
        """The lanes memory ``name`` has read."""
        return self.memories[name].r_data

    def _roots(self, m: Module, platform: object) -> None:
        """Who reads and writes which memory in which operation; the host reads when the machine is idle.

        A host write happens in the cycle after its grant, one in which the machine writes nothing there. Those of the
        machine come when they come.
        """
        host, sequencer, post, loss, vector = self.host, self.sequencer, self.post, self.loss, self.vector
        operation = self.of_roots
        feed_a = (self.issuer.read & ~self.ones, self.issuer.a_addr)
        feed_b = (self.issuer.read, self.issuer.b_addr)
        aux, old = (post.aux_en, post.aux_addr), (post.old_en, post.old_addr)
        x, y = (vector.x_en, vector.x_addr), (vector.y_en, vector.y_addr)
        both = (vector.any_en, Mux(vector.x_en, vector.x_addr, vector.y_addr))
        error, logits, labels = (  # a cycle late, for the loss unit is far away
            [register(m, getattr(loss, f"{name}_{what}"), f"{name}_{what}") for what in ("en", "addr")]
            for name in "ezy")
        q, w = (post.q_en, post.q_addr, post.q), (post.w_en, post.w_addr, post.w_new)
        masked = operation.bwd | operation.addb | operation.avgb
        readers = {
            "act": [(operation.fwd | operation.grad, *feed_a), (masked, *aux), (operation.add, *both),
                    (operation.avg | operation.max | operation.maxb, *x), (operation["sum"], *y),
                    (operation.loss, *logits)],
            "err": [(operation.bwd, *feed_a), (operation.grad, *feed_b), (operation.addb, *both),
                    (operation["sum"] | operation.avgb, *x), (operation.maxb, *y)],
            "wgt": [(operation.fwd | operation.bwd, *feed_b), (operation.grad, *old)],
            "mom": [(self.gradient, *aux)],
            "vec": [(operation.fwd, *aux), (self.ones | operation["sum"], *old),
                    (operation.loss, *labels), (sequencer.s_next, sequencer.s_en, sequencer.s_addr)],
        }
        writers = {
            "act": [(self.forward, *q)],
            "err": [(self.backward, *q), (operation.loss, *error, None)],  # its data goes to every lane
            "wgt": [(operation.grad & ~self.ones, *w)],
            "mom": [(self.gradient, *q)],
            "vec": [(self.ones | operation["sum"], *w)],
        }
        soon = {"act": post.q_soon, "vec": post.w_soon}  # where the host may write while the machine is busy
        granted = Signal(len(MEMORIES))
        m.d.comb += host.m_granted.eq(granted.any())
        for i, name in enumerate(MEMORIES):
            memory = self.memories[name]
            m.d.comb += memory.h_word.eq(host.m_word)
            m.d.comb += getattr(host.m_data, name).eq(memory.r_data.as_value())
            reads = [(~sequencer.busy, host.m_read[i], host.m_addr)]
            reads += [(sequencer.busy & chosen & (name != "vec" or chosen is sequencer.s_next or ~sequencer.s_next),
                       enable, address) for chosen, enable, address in readers[name]]
            machine = [(sequencer.busy & chosen, enable, address) for chosen, enable, address, _ in writers[name]]
            busy = register(m, machine[0][0], f"{name}_writes")  # long before its first write
            m.d.comb += granted[i].eq(host.m_write[i] & ~(busy & soon.get(name, 0)))
            m.d.sync += memory.h_en.eq(granted[i])
            writes = [(granted[i], Const(1), host.m_addr)]
            writes += [(chosen & ~granted[i], enable, address) for chosen, enable, address in machine]
            for what, roots in (("r", reads), ("w", writes)):
                enable, address = self._one(m, roots, f"{name}_{what}")
                m.d.comb += [getattr(memory, f"{what}_en").eq(enable), getattr(memory, f"{what}_addr").eq(address)]
            if platform is None:  # simulation and formal
                for n, (chosen, enable, _) in enumerate(machine):
                    displaced = memory.h_en & register(m, chosen, f"{name}_due{n}") & enable
                    m.d.sync += Assert(~displaced, f"core: a host write to {name} displaces one of the machine")
        # half of the lanes each; another start keeps the registers apart
        errors = [Signal(8, name=f"error{half}", init=half) for half in range(2)]
        m.d.sync += [error_of_half.eq(loss.e_data) for error_of_half in errors]
        lossy = operation.loss
        for n in range(self.config.size):
            lossy = register(m, lossy, f"lossy{n}")
            for name in MEMORIES:
                value = writers[name][0][-1][n]
                if name == "err":
                    value = Mux(lossy, errors[2 * n // self.config.size], value)
                m.d.comb += self.memories[name].w_data[n].eq(value)

    def _one(self, m: Module, roots: list, name: str) -> tuple[Value, Value]:
        """Enable and address of the root that is chosen; ``roots`` lists chosen in the next cycle, enable, address."""
        enable, address = Const(0), Const(0, WORD_BITS)
        for number, (chosen, root_enable, root_address) in enumerate(roots):
            now = Signal(name=f"{name}_chosen{number}")
            m.d.sync += now.eq(chosen)
            enable = enable | (now & root_enable)
            address = address | (root_address & now.replicate(WORD_BITS))
        return enable, address
