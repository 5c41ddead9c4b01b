"""The small machine behind a host bus: controller, memories, array and lane."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.bus import HostBus
from hw.small.assembler import Port, Read
from hw.small.drain import SmallDrain
from hw.small.firmware import Firmware, max_terms
from hw.small.lane import LANES, Mode, SmallLane
from hw.small.memory import SPRAM_WORDS, WordMemory
from hw.small.processor import Processor
from hw.small.stream import AddressStream, SmallArray
from shiftgrad.config import Config
from shiftgrad.isa import Status

__all__ = ["SmallCore"]

WORD, ADDRESS = 8 * LANES, (SPRAM_WORDS - 1).bit_length()


class SmallCore(wiring.Component):
    """A dense machine of ``config``: same bus, programs and results as :class:`hw.core.Core`, fewer LUTs.

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
        config = self.config
        terms = max_terms(config)
        firmware = Firmware(config)
        acc_bits = (terms << 14).bit_length() + 1  # (-128)^2 every time
        m.submodules.processor = self.processor = Processor(code=firmware.code, data=firmware.data)
        m.submodules.array = self.array = SmallArray(acc_bits=acc_bits, terms_bits=terms.bit_length())
        m.submodules.lane = self.lane = SmallLane(acc_bits=acc_bits)
        m.submodules.drain = self.drain = SmallDrain(bits=ADDRESS)
        m.submodules.a = self.a = AddressStream(bits=ADDRESS)
        m.submodules.b = self.b = AddressStream(bits=ADDRESS)
        m.submodules.act = self.act = WordMemory()
        m.submodules.parameters = self.parameters = WordMemory()
        m.submodules.err = self.err = Memory(shape=WORD, depth=config.err_words, init=[])
        m.submodules.vec = self.vec = Memory(shape=signed(16), depth=LANES * config.vec_words, init=[])
        self.vec_read = self.vec.read_port()
        self._ports(m)
        self._tile(m)
        self._lane(m)
        self._memories(m)
        return m

    def _out(self, port: Port) -> Value:
        """The controller writes to ``port`` in this cycle."""
        return self.processor.write & (self.processor.port == port)

    def _register(self, m: Module, port: Port, shape: object) -> Signal:
        register = Signal(shape, name=port.name.lower())  # type: ignore[call-overload]
        with m.If(self._out(port)):
            m.d.sync += register.eq(self.processor.value)
        return register

    def _ports(self, m: Module) -> None:
        """Registers of the controller, and what it reads."""
        processor, bus, value = self.processor, self.bus, self.processor.value
        self.mode = Signal(Mode)
        with m.If(self._out(Port.MODE)):
            m.d.sync += self.mode.as_value().eq(value)
        self.shifts, self.row_step = (self._register(m, port, bits) for port, bits in (
            (Port.SHIFTS, 28), (Port.ROW_STEP, ADDRESS)))
        self.tile = Signal(data.StructLayout({"rows": 3, "cols": 3, "vector": range(self.config.vec_words)}))
        with m.If(self._out(Port.TILE)):
            m.d.sync += self.tile.as_value().eq(value)
        with m.If(self._out(Port.STATUS)):
            m.d.sync += [self.busy.eq(value[0]), self.status.eq(value[8:])]
        with m.If(self._out(Port.RETIRED)):
            m.d.sync += self.retired.eq(value)
        m.d.sync += [bus.ready.eq(self._out(Port.REPLY) | self._out(Port.REFUSE)),
                     bus.error.eq(self._out(Port.REFUSE))]
        m.d.comb += bus.r_data.eq(value)  # still the same a cycle later
        self.waiting = Signal()  # a tile is under way
        sources = {
            Read.REQUEST: bus.valid, Read.TILE: self.waiting, Read.DATA: bus.w_data,
            Read.ADDRESS: Cat(bus.addr, bus.write, bus.strobe.all()),
            Read.A: self.array.a, Read.B: self.array.b, Read.VECTOR: self.vec_read.data,
            Read.MAXIMUM: self.lane.maximum,
            Read.SHIFTED: self.lane.whole, Read.SEED: self.lane.seed, Read.SATURATED: self.lane.saturated,
        }
        with m.Switch(processor.port[:4]):
            for port, source in sources.items():
                with m.Case(port):
                    m.d.comb += processor.read_data.eq(source)

    def _tile(self, m: Module) -> None:
        """From the controller's start to the last word written."""
        array, drain, value = self.array, self.drain, self.processor.value
        start = Signal()
        m.d.sync += start.eq(self._out(Port.TILE))
        with m.If(self._out(Port.TILE)):
            m.d.sync += self.waiting.eq(1)
        with m.Elif(drain.final):
            m.d.sync += self.waiting.eq(0)
        for stream, load, step, wrap, advance in (
            (self.a, Port.A_ADDR, Port.A_STEP, Port.A_WRAP, array.a_advance),
            (self.b, Port.B_ADDR, Port.B_STEP, Port.B_WRAP, array.b_advance),
        ):
            m.d.comb += [
                stream.load.eq(self._out(load)), stream.step_load.eq(self._out(step)),
                stream.wrap_load.eq(self._out(wrap)), stream.value.eq(value),
                stream.restart.eq(array.restart), stream.advance.eq(advance),
            ]
        m.d.comb += [
            array.start.eq(start), array.mode.eq(self.mode),
            array.terms_load.eq(self._out(Port.TERMS)), array.terms.eq(value),
            array.row.eq(drain.row), array.col.eq(drain.col),
            drain.start.eq(array.done), drain.rows.eq(self.tile.rows), drain.cols.eq(self.tile.cols),
            drain.two.eq(self.mode.grad & self.mode.write),
            drain.d_load.eq(self._out(Port.D_ADDR)), drain.c_load.eq(self._out(Port.C_ADDR)),
            drain.address.eq(value), drain.step.eq(self.row_step),
        ]

    def _lane(self, m: Module) -> None:
        lane, drain, mode, value = self.lane, self.drain, self.mode, self.processor.value
        second, old = Signal(WORD), Signal(WORD)
        with m.If(drain.take_second):
            m.d.sync += second.eq(Mux(mode.grad, self.parameters.r_data, self.act.r_data))
        with m.If(drain.take_old):
            m.d.sync += old.eq(self.parameters.r_data)
        m.d.comb += [
            lane.run.eq(drain.run), lane.slot.eq(drain.slot), lane.mode.eq(mode), lane.shifts.eq(self.shifts),
            lane.col.eq(drain.col), lane.acc.eq(self.array.acc), lane.inside.eq(drain.inside),
            lane.live.eq(drain.live), lane.second.eq(second), lane.vector.eq(self.vec_read.data), lane.old.eq(old),
            lane.old_inside.eq(drain.old_inside),
            lane.x_load.eq(self._out(Port.SHIFT_X)), lane.x.eq(value),
            lane.word_load.eq(self._out(Port.WORD)), lane.word.eq(value),
            lane.clear.eq(self._out(Port.CLEAR)),
            lane.seed_load.eq(self._out(Port.SEED)), lane.seed_data.eq(value),
        ]

    def _memories(self, m: Module) -> None:
        """ACT behind stream A, WGT and MOM behind stream B, ERR behind either; all behind the drain."""
        drain, lane, mode, a, b = self.drain, self.lane, self.mode, self.a.address, self.b.address
        store = [self._out(Port.STORE) & self.processor.value[i] for i in range(4)]
        act, parameters, word = self.act, self.parameters, lane.q_word
        err_read, err_write = self.err.read_port(), self.err.write_port()
        m.d.comb += [
            act.address.eq(Mux(drain.run, drain.word, a)),
            act.write.eq((drain.write_word & mode.write & ~mode.grad & ~mode.to_err) | store[0]), act.w_data.eq(word),
            parameters.address.eq(Mux(drain.run, drain.word, b)),
            parameters.write.eq((drain.write_word & drain.two) | (drain.write_old & drain.two & ~mode.wide) | store[2]),
            parameters.w_data.eq(Mux(drain.write_old, lane.w_word, word)),
            err_read.addr.eq(Mux(mode.b_err, b, a)),
            err_write.addr.eq(Mux(drain.run, drain.word, a)), err_write.data.eq(word),
            err_write.en.eq((drain.write_word & mode.write & ~mode.grad & mode.to_err) | store[1]),
            self.array.a_data.eq(Mux(mode.a_err, err_read.data, act.r_data)),
            self.array.b_data.eq(Mux(mode.b_err, err_read.data, parameters.r_data)),
        ]
        self._vector(m, store[3])

    def _vector(self, m: Module, store: Value) -> None:
        drain, mode, write = self.drain, self.mode, self.vec.write_port()
        read = self.vec_read
        element = Cat(drain.col & (~mode.one_bias).replicate(2), self.tile.vector)
        before = Signal(2)
        m.d.comb += [
            before.eq(drain.col - 1), read.addr.eq(Mux(drain.run, element, self.a.address)),
            write.addr.eq(Mux(drain.run, Cat(before, self.tile.vector), self.a.address)),
            write.data.eq(Mux(drain.run, self.lane.w_vector, self.lane.q_word)),
            write.en.eq(store | (drain.run & (drain.slot == 0) & self.lane.w_live & drain.two & mode.wide)),
        ]
