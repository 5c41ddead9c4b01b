"""A compiled network: tensors with their places, program words, and which layer each instruction serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from golden.convolution import Window
from shiftgrad import isa
from shiftgrad.config import MEMORIES, Config
from shiftgrad.isa import Flag, Memory, Opcode
from shiftgrad.models import Network
from shiftgrad.packing import Packing

__all__ = ["LOADED", "Instruction", "Loading", "Plan", "Tensor", "first_fit", "peak"]

LOADED = ("input", "labels")  # what the host writes for every mini-batch


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A row-major matrix in one of the machine's memories: a pixel of a plane a row, or a tap of a kernel.

    Parameters
    ----------
    name : ``input``, ``labels`` or ``layer.role``
    id : index in the tensor table
    memory : where it lives
    base : first memory word
    stride : memory words a row
    planes : images; of weights, input channels
    height, width : of an image or kernel
    cols : channels; of weights, output channels
    window : of weights, the kernel with its steps and padding
    exponent : at the start of training
    layer : its layer's name; empty for ``input`` and ``labels``
    live : first and last instruction of the train program that need it kept; another tensor may use its place outside
    unsigned : mantissas from 0 to 255
    """

    name: str
    id: int
    memory: Memory
    base: int
    stride: int
    planes: int
    cols: int
    exponent: int
    layer: str
    live: tuple[int, int]
    height: int = 1
    width: int = 1
    window: Window = Window()
    unsigned: bool = False

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return self.planes * self.height * self.width

    @property
    def words(self) -> int:
        """Memory words it takes."""
        return self.rows * self.stride

    def descriptor(self) -> list[int]:
        """Its tensor table entry, 8 words, with an empty history."""
        window = self.window
        values = {"base": self.base, "stride": self.stride, "planes": self.planes, "cols": self.cols,
                  "memory": isa.UNSIGNED if self.unsigned else int(self.memory), "exponent": self.exponent,
                  "height": self.height - 1, "width": self.width - 1, "pad_y": window.pad_y, "pad_x": window.pad_x,
                  "step_y": window.step_y - 1, "step_x": window.step_x - 1}
        return [isa.pack(word, {f.name: values[f.name] for f in word if f.name in values}) for word in isa.DESCRIPTOR]


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One program word and what it is for.

    Parameters
    ----------
    pc : address in the program memory
    program : ``train`` or ``evaluate``
    layer : layer it serves; empty for LOSS and HALT
    phase : ``forward``, ``loss``, ``backward``, ``weights`` (gradient and update), ``bias`` and ``scalar`` (the same)
        or ``halt``
    opcode, flags, imm : as encoded
    operands : tensor name by operand (dst, a, b, c, d)
    shape : rows and columns of the result and terms of an element's sum, (m, n, k); k = 0 when there is no sum, zeros
        for HALT
    word : the 64-bit encoding
    """

    pc: int
    program: str
    layer: str
    phase: str
    opcode: Opcode
    flags: Flag
    imm: int
    operands: Mapping[str, str]
    shape: tuple[int, int, int]
    word: int

    def __str__(self) -> str:
        flags = "".join(f".{flag.name}" for flag in Flag if flag & self.flags)
        sources = [f"{role}={name}" for role, name in self.operands.items()]
        return f"{self.opcode.name}{flags} {', '.join(sources)}{f' imm={self.imm}' if self.imm else ''}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Whether the next mini-batch has a place of its own, so that it can be loaded while a program runs.

    Parameters
    ----------
    second : by name of ``LOADED``, the first word of its second place; empty when there is none
    why : why there is none
    """

    second: Mapping[str, int]
    why: str = ""

    def __str__(self) -> str:
        if not self.second:
            return f"next batch: loaded between programs, {self.why}"
        places = ", ".join(f"{name} at {base}" for name, base in self.second.items())
        return f"next batch: loaded while a program runs, every other one with {places}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a host needs to train ``network`` on a machine of ``config``.

    Parameters
    ----------
    batch : samples a step
    lr_shift : the learning rate is 2^-lr_shift (of the batch's mean gradient), times 2^-LR_SHIFT (the register)
    scale : ``delayed`` or ``current``
    packing : how the host lays out the input
    tensors : by id
    instructions : by program address
    entries : first address of each program, ``train`` and ``evaluate``
    loading : where the next mini-batch goes
    """

    network: Network
    config: Config
    batch: int
    lr_shift: int
    scale: str
    packing: Packing
    tensors: tuple[Tensor, ...]
    instructions: tuple[Instruction, ...]
    entries: Mapping[str, int]
    loading: Loading

    @property
    def program(self) -> tuple[int, ...]:
        """The 64-bit program words."""
        return tuple(instruction.word for instruction in self.instructions)

    @cached_property
    def _by_name(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    def tensor(self, name: str) -> Tensor:
        """The tensor called ``name``; ``KeyError`` lists the names there are."""
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(f"no tensor {name!r}; there are: {', '.join(self._by_name)}") from None

    def program_of(self, name: str) -> tuple[Instruction, ...]:
        """The instructions of program ``name``, in order."""
        return tuple(instruction for instruction in self.instructions if instruction.program == name)

    def used_words(self, memory: Memory) -> int:
        """Words of ``memory`` in use, from address 0 to the end of the last tensor."""
        bases = [(t, base) for t in self.tensors for base in (t.base, self.loading.second.get(t.name, t.base))]
        return max((base + t.words for t, base in bases if t.memory == memory), default=0)

    def kept(self) -> list[Tensor]:
        """Activations of the forward pass that the backward pass reads."""
        loss = next((i.pc for i in self.program_of("train") if i.opcode == Opcode.LOSS), 0)
        return [t for t in self.tensors if t.memory == Memory.ACT and t.live[1] > loss]

    def describe(self) -> str:
        """Memories, tensors and programs as text tables."""
        config = self.config
        lines = [f"{self.network.name} on {config.name}: batch {self.batch}, learning rate 2^{-self.lr_shift}, "
                 f"scale {self.scale}, input packing {self.packing.kind}", "",
                 f"{'memory':8}{'words':>8}{'of':>8}{'use':>7}{'bytes':>10}"]
        for memory in Memory:
            name = MEMORIES[memory]
            used, depth = self.used_words(memory), config.words(name)
            size = used * config.size * config.lane_bytes(name)
            lines.append(f"{name:8}{used:8}{depth:8}{100 * used / depth:6.1f}%{size:10}")
        kept = self.kept()
        lines += ["", f"kept for the backward pass: {', '.join(t.name for t in kept)} "
                      f"({sum(t.words for t in kept)} words)", str(self.loading)]
        lines += ["", f"{'id':>3}  {'tensor':24}{'mem':5}{'base':>7}{'words':>7}{'shape':>18}{'exp':>5}  live"]
        for t in self.tensors:
            image = f"{t.planes} x {t.height} x {t.width} x {t.cols}"
            shape = f"{t.rows} x {t.cols}" if t.height == t.width == 1 else image
            place = "u" * t.unsigned + MEMORIES[t.memory]
            lines.append(f"{t.id:3}  {t.name:24}{place:5}{t.base:7}{t.words:7}{shape:>18}{t.exponent:5}"
                         f"  {t.live[0]}..{t.live[1]}")
        for name, entry in self.entries.items():
            lines += ["", f"program {name} at {entry}"]
            lines += [f"{i.pc:5}  {i.phase:10}{i.layer:12}{i}" for i in self.program_of(name)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The plan in plain types, ready for ``json.dumps``; words of program and table as hexadecimal strings."""
        return {
            "network": self.network.name, "config": self.config.name, "batch": self.batch, "lr_shift": self.lr_shift,
            "scale": self.scale, "packing": self.packing.kind, "entries": dict(self.entries),
            "loading": {"second": dict(self.loading.second), "why": self.loading.why},
            "memories": {
                MEMORIES[m]: {"used": self.used_words(m), "words": self.config.words(MEMORIES[m])} for m in Memory
            },
            "tensors": [
                {"id": t.id, "name": t.name, "layer": t.layer, "memory": MEMORIES[t.memory], "base": t.base,
                 "stride": t.stride, "rows": t.rows, "cols": t.cols, "planes": t.planes, "height": t.height,
                 "width": t.width, "exponent": t.exponent, "unsigned": t.unsigned, "live": list(t.live),
                 "descriptor": [f"0x{word:08x}" for word in t.descriptor()]}
                for t in self.tensors
            ],
            "instructions": [
                {"pc": i.pc, "program": i.program, "layer": i.layer, "phase": i.phase, "text": str(i),
                 "shape": list(i.shape), "word": f"0x{i.word:016x}"}
                for i in self.instructions
            ],
        }


# --- placement ------------------------------------------------------------------------------------

Span = tuple[int, int, int]  # words, first and last instruction that need them


def _place(spans: Sequence[Span], order: Sequence[int]) -> list[int]:
    bases: dict[int, int] = {}
    for i in order:
        words, first, last = spans[i]
        busy = sorted((bases[j], bases[j] + spans[j][0]) for j in bases if spans[j][1] <= last and first <= spans[j][2])
        base = 0
        for low, high in busy:
            if base + words <= low:
                break
            base = max(base, high)
        bases[i] = base
    return [bases[i] for i in range(len(spans))]


def peak(spans: Sequence[Span], bases: Sequence[int]) -> int:
    """Words from 0 to the end of the highest span."""
    return max((base + words for base, (words, _, _) in zip(bases, spans, strict=True)), default=0)


def first_fit(spans: Sequence[Span]) -> list[int]:
    """Base of each span such that spans needed at the same time do not overlap.

    First-fit in the order given and by decreasing size; the lower peak wins, the order given on a tie.
    """
    given = list(range(len(spans)))
    by_size = sorted(given, key=lambda i: -spans[i][0])
    return min((_place(spans, order) for order in (given, by_size)), key=lambda bases: peak(spans, bases))
