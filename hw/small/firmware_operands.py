"""Operands: taken from the tensor table, checked one by one and together; then what an operation makes of them."""

from hw.small import layout
from hw.small.assembler import Assembler, Op
from hw.small.lane import LANES, mode_word
from hw.small.layout import MOMENTA, SLOT, SLOTS
from shiftgrad.config import Config
from shiftgrad.isa import EXPONENT_MAX, EXPONENT_MIN, HISTORY, LR_MAX, Flag, Memory

__all__ = ["operand_routines"]


def operand_routines(code: Assembler, config: Config) -> None:
    """Labels FWD, BWD, GRAD and LOSS, and what they call."""
    _forward(code, config)
    _backward(code, config)
    _gradient(code, config)
    _ones(code, config)
    _loss(code, config)
    _operand(code, config)
    _multiply(code)


def _take(code: Assembler, config: Config, **operands: Memory) -> None:
    """Check operands, each by itself, and keep them in their slots."""
    for name, memory in operands.items():
        code.move("id", f"{name}.id")
        code.move("memory", int(memory))
        code.move("room", config.words(memory.name.lower()))
        code.move("slot", SLOTS[name])
        code.call("operand")


def _same(code: Assembler, *pairs: tuple[str, str | int]) -> None:
    """BAD_SHAPE unless the two of each pair are equal."""
    for one, other in pairs:
        code.load(one)
        code.sub(other)
        code.jump("stop.BAD_SHAPE", when=Op.JNZ)


def _apart(code: Assembler) -> None:
    """OVERLAP when dst and a, in the same memory, share a word."""
    fine = code.local()
    code.load("dst.base")
    code.sub("a.end")
    code.jump(fine, when=Op.JP)
    code.load("a.base")
    code.sub("dst.end")
    code.jump("stop.OVERLAP", when=Op.JN)
    code.label(fine)


def _without(code: Assembler, flag: Flag, label: str) -> None:
    """Go to ``label`` unless the instruction has ``flag``."""
    code.load("flags")
    code.emit(Op.ANI, int(flag))
    code.jump(label, when=Op.JZ)


def _product(code: Assembler, config: Config, *, terms: str, a_turned: bool, b_turned: bool) -> None:
    """Sizes and address steps of a product, whose reduction must not be too long."""
    code.load(terms)
    code.store("terms")
    code.sub(config.terms_end)
    code.jump("stop.BAD_SHAPE", when=Op.JP)
    for name, turned in (("a", a_turned), ("b", b_turned)):
        code.load(f"{name}.stride")
        code.store(f"{name}.wrap")
        if turned:
            code.emit(Op.SHL, 0)
            code.emit(Op.SHL, 0)
            code.store(f"{name}.tile")
            code.load(1)
            code.sub(f"{name}.tile")
            code.add(f"{name}.stride")
            code.store(f"{name}.wrap")
        else:
            code.move(f"{name}.tile", 1)


def _forward(code: Assembler, config: Config) -> None:
    plain, narrow, ready = (code.local() for _ in range(3))
    code.label("FWD")
    _take(code, config, dst=Memory.ACT, a=Memory.ACT, b=Memory.WGT)
    code.move("mode", mode_word(a_turned=1))
    code.load(0)
    code.store("vector", "vector.step", "offset")
    _without(code, Flag.BIAS, plain)
    _take(code, config, c=Memory.VEC)
    _same(code, ("c.rows", 1))
    code.move("vector", "c.base")
    code.load("c.cols")
    code.sub(1)
    code.jump(narrow, when=Op.JZ)
    _same(code, ("c.cols", "b.cols"))
    code.move("vector.step", 1)
    code.move("mode", mode_word(a_turned=1, add=1))
    code.jump(ready)
    code.label(narrow)
    code.move("mode", mode_word(a_turned=1, add=1, one_bias=1))
    code.jump(ready)
    code.label(plain)
    code.move("c.exponent", 0)
    code.label(ready)
    _same(code, ("dst.cols", "b.cols"), ("a.rows", "dst.rows"), ("a.cols", "b.rows"))
    _product(code, config, terms="b.rows", a_turned=True, b_turned=False)
    _apart(code)
    relu = code.local()
    _without(code, Flag.RELU, relu)
    code.load("mode")
    code.add(mode_word(relu=1))
    code.store("mode")
    code.label(relu)
    _counted(code, "FWD_MACS")
    code.jump("nearest")


def _backward(code: Assembler, config: Config) -> None:
    plain = code.local()
    code.label("BWD")
    _take(code, config, dst=Memory.ERR, a=Memory.ERR, b=Memory.WGT)
    code.move("mode", mode_word(a_err=1, a_turned=1, b_turned=1, to_err=1))
    code.load(0)
    code.store("vector", "vector.step", "offset", "c.exponent", "c.base")
    _without(code, Flag.MASK, plain)
    _take(code, config, c=Memory.ACT)
    _same(code, ("c.rows", "dst.rows"), ("c.cols", "dst.cols"))
    code.move("mode", mode_word(a_err=1, a_turned=1, b_turned=1, to_err=1, mask=1))
    code.label(plain)
    _same(code, ("a.cols", "b.cols"), ("a.rows", "dst.rows"), ("dst.cols", "b.rows"))
    _product(code, config, terms="a.cols", a_turned=True, b_turned=True)
    _apart(code)
    _counted(code, "BWD_MACS")
    code.jump("nearest")


def _gradient(code: Assembler, config: Config) -> None:
    code.label("GRAD")
    code.load("flags")
    code.emit(Op.ANI, int(Flag.ONES))
    code.jump("ONES", when=Op.JNZ)
    _take(code, config, dst=Memory.WGT, a=Memory.ACT, b=Memory.ERR, c=Memory.MOM)
    _same(code, ("c.rows", "dst.rows"), ("c.cols", "dst.cols"), ("dst.cols", "b.cols"), ("a.rows", "b.rows"),
          ("a.cols", "dst.rows"))
    code.move("mode", mode_word(b_err=1, grad=1, add=1))
    code.load(0)
    code.store("vector", "vector.step")
    _product(code, config, terms="b.rows", a_turned=False, b_turned=False)
    code.label("rate")
    code.move("offset", MOMENTA)
    code.load("imm")
    code.emit(Op.XOR, code.constant(128))
    code.add(-128)
    code.add("LR_SHIFT")
    code.store("rate")
    code.jump("stop.OVERFLOW", when=Op.JN)
    code.sub(LR_MAX + 1)
    code.jump("stop.OVERFLOW", when=Op.JP)
    _counted(code, "GRAD_MACS")
    code.jump("stochastic")


def _ones(code: Assembler, config: Config) -> None:
    code.label("ONES")
    _take(code, config, dst=Memory.VEC, b=Memory.ERR, c=Memory.MOM)
    _same(code, ("dst.rows", 1), ("c.rows", 1), ("dst.cols", "b.cols"), ("c.cols", "b.cols"))
    code.load(0)
    code.store("a.exponent", "a.base", "a.stride")
    code.move("mode", mode_word(a_ones=1, b_err=1, grad=1, add=1, wide=1))
    code.move("vector", "dst.base")
    code.move("vector.step", 1)
    _product(code, config, terms="b.rows", a_turned=False, b_turned=False)
    code.jump("rate")


def _loss(code: Assembler, config: Config) -> None:
    code.label("LOSS")
    _take(code, config, dst=Memory.ERR, a=Memory.ACT, b=Memory.VEC)
    _same(code, ("dst.rows", "a.rows"), ("dst.cols", "a.cols"), ("b.rows", 1), ("b.cols", "a.rows"))
    code.load("a.cols")
    code.sub(config.classes + 1)
    code.jump("stop.BAD_SHAPE", when=Op.JP)
    code.jump("loss")


def _counted(code: Assembler, name: str) -> None:
    code.move("counter", layout.register(name))


def _operand(code: Assembler, config: Config) -> None:
    """Entry ``id`` of the table, in ``memory`` of ``room`` words, to ``slot``."""
    code.enter("operand")
    code.load("id")
    code.sub(config.tensors)
    code.jump("stop.BAD_TENSOR", when=Op.JP)
    code.load("id")
    code.emit(Op.SHL, 0, 0, 0)
    code.add(layout.TABLE)
    code.store("t.entry")
    code.emit(Op.SETP)
    code.emit(Op.LDX, 2)
    code.emit(Op.ANI, 7)
    code.sub("memory")
    code.jump("stop.BAD_TENSOR", when=Op.JNZ)
    _shape(code)
    code.emit(Op.LDX, 0)
    code.store("t.base", "t.end")
    _exponent(code)
    for factor, value in (("m.x", "t.rows"), ("m.y", "t.stride")):
        code.move(factor, value)
    code.call("multiply")
    code.add("t.base")
    code.store("t.end")
    code.load("room")
    code.sub("t.end")
    code.jump("stop.OUT_OF_RANGE", when=Op.JN)
    for bound, sign in ((EXPONENT_MIN, 1), (EXPONENT_MAX, -1)):
        code.load("t.exponent" if sign > 0 else bound)
        code.sub(bound if sign > 0 else "t.exponent")
        code.jump("stop.OVERFLOW", when=Op.JN)
    code.load(HISTORY)
    code.sub("t.count")
    code.jump("stop.OVERFLOW", when=Op.JN)
    code.load("slot")
    code.emit(Op.SETP)
    for i, field in enumerate(SLOT):
        code.load(f"t.{field}")
        code.emit(Op.STX, i)
    code.leave("operand")


def _upper(code: Assembler, word: int) -> None:
    """A = upper half of the entry's ``word``."""
    code.emit(Op.LDX, word)
    code.emit(Op.ROR, 0, 0)
    code.emit(Op.AND, code.constant(0xFFFF))


def _shape(code: Assembler) -> None:
    """Rows, columns and stride of the entry at P; a tensor of images is BAD_SHAPE."""
    code.emit(Op.LDX, 1)
    code.emit(Op.AND, code.constant(0xFFFF))
    code.jump("stop.BAD_SHAPE", when=Op.JZ)
    code.store("t.rows")
    _upper(code, 1)
    code.jump("stop.BAD_SHAPE", when=Op.JZ)
    code.store("t.cols")
    code.add(LANES - 1)
    code.emit(Op.SHR, 0, 0)
    code.store("t.stride")
    _upper(code, 2)
    code.sub("t.stride")
    code.jump("stop.BAD_SHAPE", when=Op.JNZ)
    code.emit(Op.LDX, 3)
    code.jump("stop.BAD_SHAPE", when=Op.JNZ)


def _exponent(code: Assembler) -> None:
    """Exponent and length of the history of the entry at P."""
    code.emit(Op.LDX, 4)
    code.emit(Op.ANI, 255)
    code.emit(Op.XOR, code.constant(128))
    code.add(-128)
    code.store("t.exponent")
    code.emit(Op.LDX, 4)
    code.emit(Op.ROR, 0)
    code.emit(Op.ANI, 15)
    code.store("t.count")


def _multiply(code: Assembler) -> None:
    """A = m.x * m.y, both below 2^16; the smaller the second, the sooner."""
    again, even, done = (code.local() for _ in range(3))
    code.label("multiply")
    code.move("m.sum", 0)
    code.label(again)
    code.load("m.y")
    code.jump(done, when=Op.JZ)
    code.emit(Op.ANI, 1)
    code.jump(even, when=Op.JZ)
    code.load("m.sum")
    code.add("m.x")
    code.store("m.sum")
    code.label(even)
    code.load("m.x")
    code.emit(Op.SHL)
    code.store("m.x")
    code.load("m.y")
    code.emit(Op.SHR)
    code.store("m.y")
    code.jump(again)
    code.label(done)
    code.load("m.sum")
    code.emit(Op.RET)
