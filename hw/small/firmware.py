"""The controller's program: everything but the work on a tile."""

from golden.generator import default_seeds
from golden.numerics import EXP2, LOG2
from hw.small import layout
from hw.small.assembler import Assembler, Op, Port
from hw.small.firmware_bus import bus_routines
from hw.small.firmware_loss import loss_routines
from hw.small.firmware_operands import operand_routines
from hw.small.firmware_pass import pass_routines
from hw.small.firmware_scale import scale_routines
from hw.small.lane import LANES
from hw.small.layout import max_terms
from shiftgrad.config import Config
from shiftgrad.isa import MAGIC, Opcode, Status

__all__ = ["Firmware", "max_terms"]


class Firmware:
    """Code and initial data of the controller of ``config``."""

    def __init__(self, config: Config) -> None:
        layout.check_small(config)
        self.config = config
        self.assembler = code = Assembler(layout.VARIABLES)
        layout.names(code)
        self._boot()
        self._control()
        self._dispatch()
        operand_routines(code, config)
        scale_routines(code)
        pass_routines(code)
        loss_routines(code)
        bus_routines(code, config)
        self.code = code.words()
        self.data = self._data()

    def _data(self) -> list[int]:
        data = [0] * layout.WORDS
        for value, address in self.assembler.constants.items():
            data[address] = value
        data[layout.MASKS:layout.MASKS + 8] = layout.masks()
        data[layout.register("MAGIC")] = MAGIC
        data[layout.register("CONFIG")] = self.config.size | (self.config.tensors - 1).bit_length() << 8
        for i, (power, logarithm) in enumerate(zip(EXP2, LOG2, strict=True)):
            data[layout.CURVES + i] = power - 1 | logarithm << 16
        return data

    def _boot(self) -> None:
        """Registers and generators as after a reset; memories stay."""
        code = self.assembler
        for seed in default_seeds(LANES).tolist():
            code.out(Port.SEED, seed)
        code.load(0)
        code.store("STATUS", "PC", "START_PC", "LR_SHIFT", "RETIRED", "LOSS", "CORRECT", "SAMPLES", "SATURATED",
                   "go", "abort")
        code.out(Port.STATUS)
        code.out(Port.RETIRED)
        code.call("clear")

    def _control(self) -> None:
        """Idle, start, fetch, retire, stop."""
        code = self.assembler
        code.label("idle")
        code.call("poll")
        code.load("go")
        code.jump("idle", when=Op.JZ)
        code.move("PC", "START_PC")
        code.move("go", 0)
        code.jump("fetch")

        code.label("retire")
        for name in ("PC", "RETIRED"):
            code.load(name)
            code.add(1)
            code.store(name)
        code.out(Port.RETIRED)
        code.jump("fetch")
        for status in Status:
            if status >= Status.HALTED:
                code.label(f"stop.{status.name}")
                code.load(int(status))
                code.jump("stop")
        code.label("stop")
        code.emit(Op.SHL, *[0] * 8)
        code.store("STATUS")
        code.out(Port.STATUS)
        code.jump("idle")

    def _dispatch(self) -> None:
        """Fetch an instruction, take it apart and go to its operation, when its flags are legal."""
        code = self.assembler
        code.label("fetch")
        code.call("poll")
        code.load("abort")
        code.jump("stop.ABORTED", when=Op.JNZ)
        code.load("PC")
        code.sub(self.config.program_words)
        code.jump("stop.PC_RANGE", when=Op.JP)
        code.load("PC")
        code.emit(Op.SHL)
        code.add(layout.PROGRAM)
        code.store("pointer")
        code.emit(Op.SETP)
        self._split(("opcode", "flags", "dst.id", "a.id"))
        code.load("pointer")
        code.add(1)
        code.emit(Op.SETP)
        self._split(("b.id", "c.id", "d.id", "imm"))
        for opcode, legal in self.config.legal_flags.items():
            following = code.local()
            code.load("opcode")
            code.sub(int(opcode))
            code.jump(following, when=Op.JNZ)
            code.load("flags")
            code.emit(Op.ANI, ~int(legal))
            code.jump("stop.ILLEGAL_FLAGS", when=Op.JNZ)
            code.jump("stop.HALTED" if opcode == Opcode.HALT else opcode.name)
            code.label(following)
        code.jump("stop.ILLEGAL_OPCODE")

    def _split(self, fields: tuple[str, ...]) -> None:
        """The bytes of the program word at P."""
        code = self.assembler
        code.emit(Op.LDX, 0)
        for i, field in enumerate(fields):
            code.store("word")
            code.emit(Op.ANI, 255)
            code.store(field)
            if i < len(fields) - 1:
                code.load("word")
                code.emit(Op.ROR)
