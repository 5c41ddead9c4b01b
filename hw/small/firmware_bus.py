"""The host bus, served in software: registers at any time, windows while no program runs."""

from hw.small import layout
from hw.small.assembler import Assembler, Op, Port, Read
from hw.small.lane import LANES, mode_word
from hw.small.layout import MOMENTA, REGISTERS, register
from shiftgrad.config import Config
from shiftgrad.isa import COUNTER_BASE, COUNTERS, DESCRIPTOR_WORDS, LFSR_BASE, Region

__all__ = ["bus_routines"]

BASIC_REGISTERS, FIRST_COUNTER, FIRST_SEED = 12, COUNTER_BASE // 4, LFSR_BASE // 4
WRITE, WHOLE = 1 << 24, 1 << 25
START, ABORT, CLEAR = 1, 2, 4
STORE_ACT, STORE_ERR, STORE_PARAMETERS, STORE_VEC = 1, 2, 4, 8


def bus_routines(code: Assembler, config: Config) -> None:
    """Routines ``poll`` (serve an access if one waits), ``serve`` and ``clear`` (the counters)."""
    _clear(code)
    _serve(code)
    _registers(code)
    _control(code)
    _seeds(code)
    _words(code, config)
    _memories(code, config)
    _vector(code, config)
    for label, port in (("bus.reply", Port.REPLY), ("bus.refuse", Port.REFUSE)):
        code.label(label)
        code.out(port)
        code.leave("serve")


def _clear(code: Assembler) -> None:
    again = code.local()
    code.label("clear")
    code.move("left", 2 * len(COUNTERS))
    code.label(again)
    code.load("left")
    code.add(-1)
    code.store("left")
    code.add(REGISTERS + FIRST_COUNTER)
    code.emit(Op.SETP)
    code.load(0)
    code.emit(Op.STX, 0)
    code.load("left")
    code.jump(again, when=Op.JNZ)
    code.emit(Op.RET)


def _serve(code: Assembler) -> None:
    """Take an address apart and go to its region."""
    idle, whole = code.local(), code.local()
    code.enter("poll")
    code.read(Read.REQUEST)
    code.jump(idle, when=Op.JZ)
    code.call("serve")
    code.label(idle)
    code.leave("poll")

    code.enter("serve")
    code.read(Read.ADDRESS)
    code.store("bus")
    code.emit(Op.ANI, 3)
    code.jump("bus.refuse", when=Op.JNZ)
    code.load("bus")
    code.emit(Op.AND, code.constant(WRITE))
    code.store("bus.write")
    code.jump(whole, when=Op.JZ)
    code.load("bus")
    code.emit(Op.AND, code.constant(WHOLE))
    code.jump("bus.refuse", when=Op.JZ)
    code.label(whole)
    code.load("bus")
    code.emit(Op.AND, code.constant(0xFFFFF))
    code.emit(Op.SHR, 0, 0)
    code.store("bus.index")
    code.load("bus")
    code.emit(Op.ROR, 0, 0)
    code.emit(Op.SHR, 0, 0, 0, 0)
    code.emit(Op.ANI, 15)
    code.store("bus.region")
    code.jump("bus.registers", when=Op.JZ)
    code.load("STATUS")
    code.emit(Op.ANI, 1)
    code.jump("bus.refuse", when=Op.JNZ)
    for region in Region:
        if region != Region.REGISTERS:
            code.load("bus.region")
            code.sub(int(region))
            code.jump(f"bus.{region.name}", when=Op.JZ)
    code.jump("bus.refuse")


def _registers(code: Assembler) -> None:
    read, load = code.local(), code.local()
    code.label("bus.registers")
    code.load("bus.index")
    code.add(-FIRST_SEED)
    code.jump("bus.seeds", when=Op.JP)
    code.load("bus.write")
    code.jump(read, when=Op.JZ)
    for name in ("CTRL", "START_PC", "LR_SHIFT"):
        code.load("bus.index")
        code.sub(register(name) - REGISTERS)
        code.jump(f"bus.{name}", when=Op.JZ)
    code.jump("bus.refuse")
    for name, mask in (("START_PC", 0xFFFF), ("LR_SHIFT", 0x3F)):
        code.label(f"bus.{name}")
        code.read(Read.DATA)
        code.emit(Op.AND, code.constant(mask))
        code.store(name)
        code.jump("bus.reply")

    code.label(read)
    code.load("bus.index")
    code.sub(register("CTRL") - REGISTERS)
    code.jump("bus.refuse", when=Op.JZ)
    code.load("bus.index")
    code.add(-BASIC_REGISTERS)
    code.jump(load, when=Op.JN)
    code.add(BASIC_REGISTERS - FIRST_COUNTER)
    code.jump("bus.refuse", when=Op.JN)
    code.add(-2 * len(COUNTERS))
    code.jump("bus.refuse", when=Op.JP)
    code.label(load)
    code.load("bus.index")
    code.add(REGISTERS)
    code.emit(Op.SETP)
    code.emit(Op.LDX, 0)
    code.jump("bus.reply")


def _control(code: Assembler) -> None:
    """CTRL: start, abort, clear."""
    alone, keep, quiet = (code.local() for _ in range(3))
    code.label("bus.CTRL")
    code.read(Read.DATA)
    code.emit(Op.ANI, START | ABORT)
    code.sub(START)
    code.jump(alone, when=Op.JNZ)
    code.load("STATUS")
    code.emit(Op.ANI, 1)
    code.jump("bus.refuse", when=Op.JNZ)
    code.move("go", 1)
    code.load(0)
    code.store("abort", "RETIRED")
    code.out(Port.RETIRED)
    code.load("STATUS")
    code.add(1)
    code.store("STATUS")
    code.out(Port.STATUS)  # busy before the access ends
    code.label(alone)
    code.read(Read.DATA)
    code.emit(Op.ANI, CLEAR)
    code.jump(keep, when=Op.JZ)
    code.call("clear")
    code.label(keep)
    code.read(Read.DATA)
    code.emit(Op.ANI, ABORT)
    code.jump(quiet, when=Op.JZ)
    code.move("abort", 1)
    code.label(quiet)
    code.load(0)
    code.jump("bus.reply")


def _seeds(code: Assembler) -> None:
    """A generator: all of them go round once."""
    again, other, keep, some = (code.local() for _ in range(4))
    code.label("bus.seeds")
    code.add(-LANES)
    code.jump("bus.refuse", when=Op.JP)
    code.load("STATUS")
    code.emit(Op.ANI, 1)
    code.jump("bus.refuse", when=Op.JNZ)
    code.move("left", FIRST_SEED)
    code.label(again)
    code.load("left")
    code.sub("bus.index")
    code.jump(other, when=Op.JNZ)
    code.read(Read.SEED)
    code.store("bus.word")
    code.load("bus.write")
    code.jump(other, when=Op.JZ)
    code.read(Read.DATA)
    code.jump(some, when=Op.JNZ)
    code.load(1)
    code.label(some)
    code.jump(keep)
    code.label(other)
    code.read(Read.SEED)
    code.label(keep)
    code.out(Port.SEED)
    code.load("left")
    code.add(1)
    code.store("left")
    code.add(-FIRST_SEED - LANES)
    code.jump(again, when=Op.JNZ)
    code.load("bus.word")
    code.jump("bus.reply")


def _within(code: Assembler, most: int) -> None:
    """Refuse an index from ``most`` up."""
    code.load("bus.index")
    code.sub(most)
    code.jump("bus.refuse", when=Op.JP)
    code.load("bus.index")


def _words(code: Assembler, config: Config) -> None:
    """Program and tensor table: words of the data memory."""
    access, write = code.local(), code.local()
    code.label("bus.PROGRAM")
    _within(code, 2 * config.program_words)
    code.add(layout.PROGRAM)
    code.store("bus.at")
    code.move("bus.mask", -1)
    code.jump(access)
    code.label("bus.TABLE")
    _within(code, DESCRIPTOR_WORDS * config.tensors)
    code.emit(Op.ANI, DESCRIPTOR_WORDS - 1)
    code.add(layout.MASKS)
    code.emit(Op.SETP)
    code.emit(Op.LDX, 0)
    code.store("bus.mask")
    code.load("bus.index")
    code.add(layout.TABLE)
    code.store("bus.at")
    code.label(access)
    code.load("bus.at")
    code.emit(Op.SETP)
    code.load("bus.write")
    code.jump(write, when=Op.JNZ)
    code.emit(Op.LDX, 0)
    code.jump("bus.reply")
    code.label(write)
    code.read(Read.DATA)
    code.emit(Op.AND, "bus.mask")
    code.emit(Op.STX, 0)
    code.jump("bus.reply")


def _memories(code: Assembler, config: Config) -> None:
    """Memories of 8-bit lanes: a host word is a memory word."""
    for name, mode, first, port, read, store in (
        ("act", mode_word(), 0, Port.A_ADDR, Read.A, STORE_ACT),
        ("err", mode_word(a_err=1), 0, Port.A_ADDR, Read.A, STORE_ERR),
        ("wgt", mode_word(), 0, Port.B_ADDR, Read.B, STORE_PARAMETERS),
        ("mom", mode_word(), MOMENTA, Port.B_ADDR, Read.B, STORE_PARAMETERS),
    ):
        write = code.local()
        code.label(f"bus.{name.upper()}")
        _within(code, config.words(name))
        if first:
            code.add(first)
        code.out(port)
        code.out(Port.MODE, mode)
        code.load("bus.write")
        code.jump(write, when=Op.JNZ)
        code.read(read)
        code.jump("bus.reply")
        code.label(write)
        code.read(Read.DATA)
        code.out(Port.WORD)
        code.out(Port.STORE, store)
        code.jump("bus.reply")


def _vector(code: Assembler, config: Config) -> None:
    """VEC: a host word is two lanes of 16 bits."""
    write = code.local()
    code.label("bus.VEC")
    _within(code, LANES // 2 * config.words("vec"))
    code.emit(Op.SHL)
    code.store("bus.at")
    code.out(Port.A_ADDR)
    code.load("bus.write")
    code.jump(write, when=Op.JNZ)
    code.read(Read.VECTOR)
    code.emit(Op.AND, code.constant(0xFFFF))
    code.store("bus.word")
    _second(code)
    code.read(Read.VECTOR)
    code.emit(Op.AND, code.constant(0xFFFF))
    code.emit(Op.ROR, 0, 0)
    code.emit(Op.OR, "bus.word")
    code.jump("bus.reply")
    code.label(write)
    code.read(Read.DATA)
    code.out(Port.WORD)
    code.out(Port.STORE, STORE_VEC)
    _second(code)
    code.read(Read.DATA)
    code.emit(Op.ROR, 0, 0)
    code.out(Port.WORD)
    code.out(Port.STORE, STORE_VEC)
    code.jump("bus.reply")


def _second(code: Assembler) -> None:
    code.load("bus.at")
    code.add(1)
    code.out(Port.A_ADDR)
