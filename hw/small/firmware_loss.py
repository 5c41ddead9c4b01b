"""Softmax cross-entropy, a row at a time; the rule is ``golden.numerics.loss_rows``.

The buffer has a word for each column, four for each word of a row: v = 127 - z at first, then the power p. Columns
beyond the last have 255 there, which is the least logit and a power whose error is 0.
"""

from golden.numerics import ERROR_EXPONENT, LOG2E
from hw.small.assembler import Assembler, Op, Port, Read
from hw.small.firmware_scale import limit
from hw.small.lane import LANES, mode_word
from hw.small.layout import BUFFER, CURVES

__all__ = ["loss_routines"]

POWER_BITS = 17  # of the largest power of two in the table, 2^16
DISTANCE_BITS = 8  # of the largest logit minus another
EXPONENT_ONE = 6  # of a logit, so that its distance needs no shift to have 8 fraction bits
SCALE_MAX = 2
W_MAX = 0xFFFF
VANISHED = POWER_BITS << 8  # w from which on a power is 0
LEAST = 1 << 8  # smaller powers, of a sum of 2^16 or more, have an error of 0
REST, HALF_BITS = (1 << 16) - 1, 9  # of (2^34 - 1) / S: the first 16 steps leave that rest; then twice 9
HALF = (1 << HALF_BITS) - 1
ERROR_BITS = 27
STORE_ERR = 2


def loss_routines(code: Assembler) -> None:
    """Label ``loss``: LOSS, its operands known; then ``retire``."""
    _loss(code)
    _rows(code)
    _finish(code)
    _ignored(code)
    _scan(code)
    _powers(code)
    _weight(code)
    _divide(code)
    _errors(code)
    _share(code)
    _sample(code)


def bump(code: Assembler, name: str, by: int | str = 1) -> None:
    """Variable = variable + a number, or a variable; A is it, too."""
    code.load(name)
    code.add(by)
    code.store(name)


def _loss(code: Assembler) -> None:
    """What is the same for all rows; ``tail`` has ones in the lanes of a row's last word that have no column."""
    code.label("loss")
    code.load(0)
    code.store("LOSS", "CORRECT", "SAMPLES", "tail")
    code.out(Port.MODE, mode_word())
    for name, value in (("z.at", "a.base"), ("e.at", "dst.base"), ("rows", "a.rows")):
        code.move(name, value)
    code.load("b.base")
    code.emit(Op.SHL, 0, 0)
    code.store("y.at")
    code.load(EXPONENT_ONE)
    code.sub("a.exponent")
    limit(code, "z.shift", -SCALE_MAX, 31)
    code.load("a.cols")
    code.add(BUFFER)
    code.store("end")
    code.emit(Op.ANI, LANES - 1)
    again = code.local()
    code.jump("loss.row", when=Op.JZ)
    code.store("left")
    code.move("tail", -1)
    code.label(again)
    code.load("tail")
    code.emit(Op.SHL, *[0] * 8)
    code.store("tail")
    bump(code, "left", -1)
    code.jump(again, when=Op.JNZ)


def _rows(code: Assembler) -> None:
    quiet = code.local()
    code.label("loss.row")
    code.read(Read.REQUEST)
    code.jump(quiet, when=Op.JZ)
    code.call("serve")
    code.label(quiet)
    code.load("abort")
    code.jump("stop.ABORTED", when=Op.JNZ)
    code.load("y.at")
    code.out(Port.A_ADDR)
    code.add(1)
    code.store("y.at")
    code.read(Read.VECTOR)
    code.jump("loss.ignored", when=Op.JN)
    code.add(BUFFER)
    code.store("label.at")
    code.sub("end")
    code.jump("loss.ignored", when=Op.JP)
    for name in ("scan", "powers", "divide", "sample", "errors"):
        code.call(name)
    code.label("loss.next")
    for name, step in (("z.at", "a.stride"), ("e.at", "dst.stride"), ("rows", -1)):
        bump(code, name, step)
    code.jump("loss.row", when=Op.JNZ)


def _finish(code: Assembler) -> None:
    """The exponent of the errors."""
    code.load("dst.entry")
    code.emit(Op.SETP)
    code.emit(Op.LDX, 4)
    code.emit(Op.AND, code.constant(~0xFF))
    code.emit(Op.OR, code.constant(ERROR_EXPONENT & 0xFF))
    code.emit(Op.STX, 4)
    code.jump("retire")


def _ignored(code: Assembler) -> None:
    """A row without a label has errors of 0."""
    word = code.local()
    code.label("loss.ignored")
    code.move("at", "e.at")
    code.move("left", "a.stride")
    code.out(Port.WORD, 0)
    code.label(word)
    code.load("at")
    code.out(Port.A_ADDR)
    code.add(1)
    code.store("at")
    code.out(Port.STORE, STORE_ERR)
    bump(code, "left", -1)
    code.jump(word, when=Op.JNZ)
    code.jump("loss.next")


def _scan(code: Assembler) -> None:
    """v = 127 - z to the buffer; ``best`` is the smallest, ``best.at`` the first that is; ``label.v`` the label's."""
    word, whole = code.local(), code.local()
    code.label("scan")
    code.move("best", 256)
    code.move("at", "z.at")
    code.move("pointer", BUFFER)
    code.move("left", "a.stride")
    code.label(word)
    code.load("at")
    code.out(Port.A_ADDR)
    code.add(1)
    code.store("at")
    code.load("pointer")
    code.emit(Op.SETP)
    bump(code, "left", -1)
    code.read(Read.A)
    code.emit(Op.XOR, code.constant(0x7F7F7F7F))
    code.store("word")
    code.load("left")
    code.jump(whole, when=Op.JNZ)
    code.load("word")
    code.emit(Op.OR, "tail")
    code.store("word")
    code.label(whole)
    for lane in range(LANES):
        _scan_lane(code, lane)
    bump(code, "pointer", LANES)
    code.load("left")
    code.jump(word, when=Op.JNZ)
    code.load("label.at")
    code.emit(Op.SETP)
    code.emit(Op.LDX, 0)
    code.store("label.v")
    code.emit(Op.RET)


def _scan_lane(code: Assembler, lane: int) -> None:
    """A byte of ``word``, the lowest one, which then is the next lane's."""
    other = code.local()
    code.load("word")
    if lane:
        code.emit(Op.ROR)
        code.store("word")
    code.emit(Op.ANI, 255)
    code.emit(Op.STX, lane)
    code.sub("best")
    code.jump(other, when=Op.JP)
    code.emit(Op.LDX, lane)
    code.store("best")
    code.load("pointer")
    code.add(lane)
    code.store("best.at")
    code.label(other)


def _powers(code: Assembler) -> None:
    """The buffer's v become their powers p, ``total`` their sum."""
    again, gone, following = (code.local() for _ in range(3))
    code.enter("powers")
    code.move("total", 0)
    code.move("pointer", BUFFER)
    code.label(again)
    code.load("pointer")
    code.emit(Op.SETP)
    code.emit(Op.LDX, 0)
    code.call("weight")
    code.sub(VANISHED)
    code.jump(gone, when=Op.JP)
    code.load("w")
    code.emit(Op.ROR)
    code.out(Port.SHIFTS)
    code.load("w")
    code.emit(Op.ANI, 255)
    code.add(CURVES)
    code.emit(Op.SETP)
    code.emit(Op.LDX, 0)
    code.emit(Op.AND, code.constant(0xFFFF))
    code.add(1)
    code.out(Port.SHIFT_X)
    code.load("pointer")
    code.emit(Op.SETP)
    code.read(Read.SHIFTED)
    code.emit(Op.STX, 0)
    code.add("total")
    code.store("total")
    code.label(following)
    bump(code, "pointer")
    code.sub("end")
    code.jump(again, when=Op.JNZ)
    code.leave("powers")
    code.label(gone)
    code.load("pointer")
    code.emit(Op.SETP)
    code.load(0)
    code.emit(Op.STX, 0)
    code.jump(following)


def _weight(code: Assembler) -> None:
    """A and ``w``: w of the logit whose v is A, not limited to W_MAX."""
    code.label("weight")
    code.sub("best")
    code.emit(Op.SETP)
    code.load("z.shift")
    code.out(Port.SHIFTS)
    code.load(0)
    for _ in range(DISTANCE_BITS):
        code.emit(Op.MUL, code.constant(LOG2E << DISTANCE_BITS))
    code.out(Port.SHIFT_X)
    code.load(0)  # time passes
    code.read(Read.SHIFTED)
    code.store("w")
    code.emit(Op.RET)


def _divide(code: Assembler) -> None:
    """``ratio`` = floor((2^34 - 1) / total), nine bits at a time; A = rest * 2^9 + quotient."""
    code.enter("divide")
    code.load("total")
    code.emit(Op.ROR, 0, 0, 0)
    code.emit(Op.SHL)
    code.add(-1)
    code.store("back")  # S * 2^9 - 1: the step was too far, its quotient bit is 0
    code.add(-1 - HALF)
    code.store("forth")  # twice A, minus this: the next bit of the dividend is 1, subtract S, the quotient bit is 1
    code.load(REST << HALF_BITS)
    code.call("divide.half")
    code.store("rest")
    code.emit(Op.ANI, HALF)
    code.emit(Op.ROR, 0, 0, 0)
    code.emit(Op.SHL)
    code.store("ratio")
    code.load("rest")
    code.emit(Op.ANI, ~HALF)
    code.call("divide.half")
    code.emit(Op.ANI, HALF)
    code.add("ratio")
    code.store("ratio")
    code.leave("divide")
    code.label("divide.half")
    for _ in range(HALF_BITS):
        enough = code.local()
        code.emit(Op.SHL)
        code.sub("forth")
        code.jump(enough, when=Op.JP)
        code.add("back")
        code.label(enough)
    code.emit(Op.RET)


def _errors(code: Assembler) -> None:
    """The buffer's powers become errors, four of them a word of ERR."""
    lane, own, fine, join, least = (code.local() for _ in range(5))
    code.enter("errors")
    code.move("pointer", BUFFER)
    code.move("at", "e.at")
    code.move("word", 0)
    code.label(lane)
    code.load("pointer")
    code.emit(Op.SETP)
    code.sub("label.at")
    code.jump(own, when=Op.JZ)
    code.call("share")
    code.add(-128)
    code.jump(fine, when=Op.JN)
    code.load(-1)
    code.label(fine)
    code.add(128)
    code.label(join)  # behind four of them the first one is the lowest byte
    code.add("word")
    code.emit(Op.ROR)
    code.store("word")
    bump(code, "pointer")
    code.emit(Op.ANI, LANES - 1)
    code.jump(lane, when=Op.JNZ)
    code.load("at")
    code.out(Port.A_ADDR)
    code.add(1)
    code.store("at")
    code.out(Port.WORD, "word")
    code.out(Port.STORE, STORE_ERR)
    code.move("word", 0)
    code.load("pointer")
    code.sub("end")
    code.jump(lane, when=Op.JN)
    code.leave("errors")
    code.label(own)
    code.call("share")
    code.add(127 - 128)
    code.jump(least, when=Op.JP)
    code.load(0)
    code.label(least)
    code.add(-127)
    code.emit(Op.ANI, 255)
    code.jump(join)


def _share(code: Assembler) -> None:
    """A = (p * ratio + 2^26) / 2^27, rounded down, of the power at P."""
    none = code.local()
    code.label("share")
    code.emit(Op.LDX, 0)
    code.add(-LEAST)
    code.jump(none, when=Op.JN)
    code.add(LEAST)
    code.emit(Op.SETP)
    code.load(1 << ERROR_BITS - 1)
    for _ in range(POWER_BITS):
        code.emit(Op.MUL, "ratio")
    code.emit(Op.ROR)
    code.emit(Op.ANI, 1023)
    code.emit(Op.SHR, *[0] * (ERROR_BITS - POWER_BITS - 8))
    code.emit(Op.RET)
    code.label(none)
    code.load(0)
    code.emit(Op.RET)


def _sample(code: Assembler) -> None:
    """Count the sample."""
    wrong, limited, again, found = (code.local() for _ in range(4))
    code.enter("sample")
    bump(code, "SAMPLES")
    code.load("label.at")
    code.sub("best.at")
    code.jump(wrong, when=Op.JNZ)
    bump(code, "CORRECT")
    code.label(wrong)
    code.load("label.v")
    code.call("weight")
    code.emit(Op.SUB, code.constant(W_MAX))
    code.jump(limited, when=Op.JN)
    code.load(0)
    code.label(limited)
    code.add(W_MAX)
    code.add("LOSS")
    code.store("LOSS")
    code.label(again)  # total = 2^16 * 2^n * (1 + i / 256)
    code.load("total")
    code.sub(1 << POWER_BITS)
    code.jump(found, when=Op.JN)
    bump(code, "LOSS", 256)
    code.load("total")
    code.emit(Op.SHR)
    code.store("total")
    code.jump(again)
    code.label(found)
    code.load("total")
    code.emit(Op.SHR, *[0] * 8)
    code.emit(Op.ANI, 255)
    code.add(CURVES)
    code.emit(Op.SETP)
    code.emit(Op.LDX, 0)
    code.emit(Op.ROR, 0, 0)
    code.emit(Op.AND, code.constant(0xFFFF))
    code.add("LOSS")
    code.store("LOSS")
    code.leave("sample")
