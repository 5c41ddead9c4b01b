"""The controller: a 32-bit accumulator machine whose program sequences the datapath."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.small.assembler import ADDRESS_BITS, Op

__all__ = ["Processor"]

POINTER_BITS = 17  # a multiplier, too
SHIFTS, ADDERS = (Op.SHR, Op.SHL, Op.ROR, Op.MUL), (Op.ADD, Op.SUB, Op.ADI)


class Processor(wiring.Component):
    """Executes ``code``, an instruction in two cycles; see :class:`hw.small.assembler.Op`.

    First cycle: the instruction has come from its memory; a data word is asked for and jumps are decided. Second cycle:
    the word has come, A, data memory and ports are written, the next instruction is asked for.

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
        m.submodules.data = self.memory = Memory(shape=32, depth=len(self.data), init=self.data)
        fetch, self.load, self.store = code.read_port(), self.memory.read_port(), self.memory.write_port()
        self.pc, self.link, self.pointer = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(POINTER_BITS)
        self.execute = Signal()
        self.fetched, self.operand = fetch.data, Signal(ADDRESS_BITS)
        m.d.sync += self.execute.eq(~self.execute)
        started = Signal()  # the first instruction has come
        m.d.sync += started.eq(1)
        with m.If(~started):
            m.d.sync += self.execute.eq(0)
        m.d.comb += [fetch.addr.eq(self.pc), fetch.en.eq(self.execute | ~started), self.load.en.eq(~self.execute)]
        with m.If(started & ~self.execute):
            self._decode(m)
            self._next(m)
        self._execute(m, started & self.execute)
        return m

    def _is(self, *ops: Op) -> Value:
        """Whether the instruction fetched is one of ``ops``."""
        return Cat(self.fetched[ADDRESS_BITS:] == op for op in ops).any()

    def _decode(self, m: Module) -> None:
        """Control signals for the second cycle."""
        self.controls = {
            "immediate": self._is(Op.LDI, Op.ANI, Op.ADI), "minus": self._is(Op.SUB),
            "adder": self._is(*ADDERS), "shifter": self._is(*SHIFTS), "input": self._is(Op.IN),
            "linked": self._is(Op.LINK), "right": self._is(Op.SHR, Op.MUL), "rotate": self._is(Op.ROR),
            "both": self._is(Op.AND, Op.ANI), "either": self._is(Op.OR), "differ": self._is(Op.XOR),
            "multiply": self._is(Op.MUL), "store": self._is(Op.STA, Op.STX), "output": self._is(Op.OUT),
            "point": self._is(Op.SETP),
            "changes": ~self._is(Op.STA, Op.STX, Op.OUT, Op.SETP) & ~(self.fetched[ADDRESS_BITS:] >= Op.JMP),
        }
        self.control = {name: Signal(name=name) for name in self.controls}
        m.d.sync += [self.control[name].eq(value) for name, value in self.controls.items()]
        m.d.sync += self.operand.eq(self._address())

    def _address(self) -> Value:
        """Address of the data word, or the immediate."""
        n = self.fetched[:ADDRESS_BITS]
        return Mux(self._is(Op.LDX, Op.STX), self.pointer[:ADDRESS_BITS] | n, n)

    def _next(self, m: Module) -> None:
        """Program counter after the instruction fetched."""
        zero, negative = self.value == 0, self.value[-1]
        taken = (self._is(Op.JMP, Op.CALL) | (self._is(Op.JZ) & zero) | (self._is(Op.JNZ) & ~zero)
                 | (self._is(Op.JN) & negative) | (self._is(Op.JP) & ~negative))
        following = Signal(ADDRESS_BITS)
        m.d.comb += following.eq(self.pc + 1)
        m.d.sync += self.pc.eq(Mux(taken, self.fetched, following))
        with m.If(self._is(Op.CALL)):
            m.d.sync += self.link.eq(following)
        with m.If(self._is(Op.RET)):
            m.d.sync += self.pc.eq(self.link)
        with m.If(self._is(Op.JMPA)):
            m.d.sync += self.pc.eq(self.value)

    def _execute(self, m: Module, now: Value) -> None:
        c, a = self.control, self.value
        m.d.comb += [
            self.load.addr.eq(self._address()), self.port.eq(self.operand), self.write.eq(now & c["output"]),
            self.store.addr.eq(self.operand), self.store.data.eq(a), self.store.en.eq(now & c["store"]),
        ]
        b, total, logic, shifted = (Signal(32, name=name) for name in ("b", "total", "logic", "shifted"))
        immediate = self.operand.as_signed()
        m.d.comb += [
            b.eq(Mux(c["immediate"], immediate, self.load.data)),
            total.eq(a + (b ^ c["minus"].replicate(32)) + c["minus"]),
            logic.eq(Mux(c["both"], a & b, Mux(c["either"], a | b, Mux(c["differ"], a ^ b, b)))),
        ]
        halved = Mux(c["multiply"] & self.pointer[0], total, a)
        m.d.comb += shifted.eq(Mux(c["right"], halved >> 1, Mux(c["rotate"], a.rotate_right(8), a << 1)))
        with m.If(now & c["changes"]):
            m.d.sync += a.eq(Mux(c["adder"], total, Mux(c["shifter"], shifted, Mux(
                c["input"], self.read_data, Mux(c["linked"], self.link, logic)))))
        with m.If(now & c["point"]):
            m.d.sync += self.pointer.eq(a)
        with m.If(now & c["multiply"]):
            m.d.sync += self.pointer.eq(self.pointer >> 1)
