"""The controller: a 32-bit accumulator machine whose program sequences the datapath."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.small.assembler import ADDRESS_BITS, Op

__all__ = ["Processor"]

POINTER_BITS = 17  # a multiplier, too
SHIFTS, ADDERS = (Op.SHR, Op.SHL, Op.ROR), (Op.ADD, Op.SUB, Op.ADI, Op.MUL)
LOW_BITS = 10
WARM_BITS = 13  # it starts after 2^12 cycles: block RAMs of the UP5K can be read and its PLL has locked
LOW = 1 << LOW_BITS


class Processor(wiring.Component):
    """Executes ``code``, an instruction in two cycles, one that may jump in three; see :class:`hw.small.assembler.Op`.

    First cycle: the instruction has come from its memory; a data word is asked for. Second cycle: the word has come, or
    that of a port, and becomes b; data memory, ports and P are written, jumps are decided, and unless the jump looks at
    A the next instruction is asked for. Third cycle, which most often is the next instruction's first: A is written.

    Parameters
    ----------
    code : 16-bit words
    data : initial 32-bit words of the data memory, as many as it has

    Members
    -------
    port : Out      number of a port, with ``write`` or for ``read_data``
    write : Out(1)  OUT: the port takes ``value`` in this cycle
    value : Out(32) A
    read_data : In(32)   of the port
    """

    def __init__(self, *, code: Sequence[int], data: Sequence[int]) -> None:
        self.code, self.data = code, data
        super().__init__({"port": Out(5), "write": Out(1), "value": Out(32), "read_data": In(32)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.code = code = Memory(shape=16, depth=len(self.code), init=self.code)
        fetch = code.read_port()
        self.fetched, self.operand, self.loaded = fetch.data, Signal(ADDRESS_BITS), Signal(32)
        self.pc, self.link = Signal(ADDRESS_BITS, name="pc"), Signal(ADDRESS_BITS, name="link")
        self.pointer, self.late = Signal(POINTER_BITS), Signal()
        self.first, self.second, self.last = first, second, last = Signal(), Signal(), Signal(init=1)
        third, warm = Signal(), Signal(WARM_BITS)
        m.d.comb += [fetch.addr.eq(self.pc), fetch.en.eq((second & ~self.late) | last)]
        with m.If(warm[-1]):
            m.d.sync += [first.eq(fetch.en), second.eq(first), last.eq(second & self.late), third.eq(second)]
        with m.Else():
            m.d.sync += warm.eq(warm + 1)
        with m.If(first):
            self._decode(m)
        self._next(m)
        with m.If(second):
            self._fetch_operand(m)
        self._execute(m, third)
        self._data_memory(m, second & self.control["store"])
        return m

    def _is(self, *ops: Op) -> Value:
        """Whether the instruction fetched is one of ``ops``."""
        return Cat(self.fetched[ADDRESS_BITS:] == op for op in ops).any()

    def _decode(self, m: Module) -> None:
        """Control signals for the other cycles."""
        controls = {
            "immediate": self._is(Op.LDI, Op.ANI, Op.ADI, Op.LINK), "minus": self._is(Op.SUB), "input": self._is(Op.IN),
            "adder": self._is(*ADDERS), "multiply": self._is(Op.MUL), "shifter": self._is(*SHIFTS),
            "right": self._is(Op.SHR), "rotate": self._is(Op.ROR),
            "both": self._is(Op.AND, Op.ANI), "either": self._is(Op.OR), "differ": self._is(Op.XOR),
            "store": self._is(Op.STA, Op.STX), "output": self._is(Op.OUT), "point": self._is(Op.SETP),
            "zero": self._is(Op.JZ), "other": self._is(Op.JNZ), "negative": self._is(Op.JN),
            "positive": self._is(Op.JP), "computed": self._is(Op.JMPA),
            "changes": ~self._is(Op.STA, Op.STX, Op.OUT, Op.SETP) & ~(self.fetched[ADDRESS_BITS:] >= Op.JMP),
        }
        self.control = {name: Signal(name=name) for name in controls}
        m.d.sync += [self.control[name].eq(value) for name, value in controls.items()]
        m.d.sync += self.late.eq(self._is(Op.JZ, Op.JNZ, Op.JN, Op.JP, Op.JMPA))
        m.d.sync += self.operand.eq(Mux(self._is(Op.LINK), self.link, self._address()))

    def _address(self) -> Value:
        """Address of the data word, or the immediate."""
        n = self.fetched[:ADDRESS_BITS]
        return Mux(self._is(Op.LDX, Op.STX), self.pointer[:ADDRESS_BITS] | n, n)

    def _next(self, m: Module) -> None:
        """Program counter: after the first cycle what does not depend on A, after the second what does."""
        c, zero, negative = self.control, self.value == 0, self.value[-1]
        taken = ((c["zero"] & zero) | (c["other"] & ~zero) | (c["negative"] & negative) | (c["positive"] & ~negative))
        following = Signal(ADDRESS_BITS)
        m.d.comb += following.eq(self.pc + 1)
        with m.If(self.first):
            m.d.sync += self.pc.eq(Mux(self._is(Op.RET), self.link,
                                       Mux(self._is(Op.JMP, Op.CALL), self.fetched[:ADDRESS_BITS], following)))
            with m.If(self._is(Op.CALL)):
                m.d.sync += self.link.eq(following)
        with m.Elif(self.second & (taken | c["computed"])):
            m.d.sync += self.pc.eq(Mux(c["computed"], self.value, self.fetched))

    def _data_memory(self, m: Module, write: Value) -> None:
        """Two memories, the first as large as block RAMs make one without a multiplexer."""
        high, asked = Signal(), self._address()
        with m.If(self.first):
            m.d.sync += high.eq(asked[LOW_BITS])
        words = []
        for name, part in (("low", slice(LOW)), ("high", slice(LOW, None))):
            content = self.data[part]
            m.submodules[name] = memory = Memory(shape=32, depth=len(content), init=content)
            load, store = memory.read_port(), memory.write_port()
            m.d.comb += [
                load.addr.eq(asked), load.en.eq(self.first), store.addr.eq(self.operand), store.data.eq(self.value),
                store.en.eq(write & (self.operand[LOW_BITS] == (name == "high"))),
            ]
            words.append(load.data)
        m.d.comb += self.loaded.eq(Mux(high, words[1], words[0]))

    def _fetch_operand(self, m: Module) -> None:
        """b: an immediate, a data word or its complement, a port; 0 to multiply with an even P."""
        c = self.control
        self.b = Signal(32)
        m.d.sync += self.b.eq(Mux(c["input"], self.read_data, Mux(
            c["immediate"], self.operand.as_signed(), self.loaded ^ c["minus"].replicate(32))))
        with m.If(c["multiply"] & ~self.pointer[0]):
            m.d.sync += self.b.eq(0)

    def _execute(self, m: Module, now: Value) -> None:
        c, a, b = self.control, self.value, self.b
        m.d.comb += [self.port.eq(self.operand), self.write.eq(self.second & c["output"])]
        total, logic, shifted = (Signal(32, name=name) for name in ("total", "logic", "shifted"))
        m.d.comb += [
            total.eq(a + b + c["minus"]),
            logic.eq(Mux(c["both"], a & b, Mux(c["either"], a | b, Mux(c["differ"], a ^ b, b)))),
            shifted.eq(Mux(c["right"], a >> 1, Mux(c["rotate"], a.rotate_right(8), a << 1))),
        ]
        with m.If(now & c["changes"]):
            m.d.sync += a.eq(Mux(c["adder"], Mux(c["multiply"], total >> 1, total), Mux(c["shifter"], shifted, logic)))
        with m.If(self.second & c["point"]):
            m.d.sync += self.pointer.eq(a)
        with m.Elif(now & c["multiply"]):
            m.d.sync += self.pointer.eq(self.pointer >> 1)
