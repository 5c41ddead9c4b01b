"""Tensors and instructions in the making, by name: what :mod:`shiftgrad.lower` writes and the compiler places."""

from __future__ import annotations

from dataclasses import dataclass, field

from golden.convolution import Window
from shiftgrad.initialise import BIAS_EXPONENT, MOMENTUM_EXPONENT, weight_exponent
from shiftgrad.isa import Flag, Memory, Opcode
from shiftgrad.models import Shape, Vector, Weights

__all__ = ["PIXEL_EXPONENT", "Draft", "Entry", "Order", "Value"]

PIXEL_EXPONENT = -7
LOSS_EXPONENT = -7
PLAIN = Flag(0)
SCALAR_SLOWDOWN = 3  # the learning rate of a scalar is an eighth


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor without its place."""

    memory: Memory
    planes: int
    height: int = 1
    width: int = 1
    cols: int
    exponent: int
    layer: str
    window: Window = Window()
    unsigned: bool = False

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return self.planes * self.height * self.width


@dataclass(frozen=True, kw_only=True)
class Order:
    """An instruction with its operands by name."""

    program: str
    layer: str
    phase: str
    opcode: Opcode
    flags: Flag
    imm: int
    operands: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Value:
    """What one layer hands to the next: an activation, and where its error is wanted.

    Parameters
    ----------
    name : of the activation
    shape : (height, width, channels)
    error : name of its error; empty when nobody needs that
    relu : no element is negative, and the error passes only where the activation is positive
    """

    name: str
    shape: Shape
    error: str = ""
    relu: bool = False


@dataclass
class Draft:
    """Tensors and programs of a network, in the order they are declared and emitted.

    Parameters
    ----------
    batch : samples a step
    imm : learning-rate shift of weights and biases
    delayed : ``Flag.DELAYED`` or none, on every instruction that scales
    unsigned : activations that cannot be negative are unsigned
    """

    batch: int
    imm: int
    delayed: Flag
    unsigned: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    program: str = ""
    frozen: Flag = PLAIN

    def start(self, program: str, frozen: Flag = PLAIN) -> int:
        """Emit into ``program`` from now on; returns its first address."""
        self.program, self.frozen = program, frozen
        return len(self.orders)

    # --- tensors ----------------------------------------------------------------------------------

    def activation(self, name: str, shape: Shape, layer: str, *, positive: bool = False) -> None:
        """Declare images of ``shape`` in the activation memory; ``positive``: they cannot be negative."""
        self._images(name, Memory.ACT, shape, PIXEL_EXPONENT, layer, unsigned=positive and self.unsigned)

    def error(self, name: str, shape: Shape, layer: str) -> None:
        """Declare images of ``shape`` in the error memory."""
        self._images(name, Memory.ERR, shape, LOSS_EXPONENT, layer)

    def _images(self, name: str, memory: Memory, shape: Shape, exponent: int, layer: str, *, unsigned: bool = False
                ) -> None:
        height, width, channels = shape
        self.entries[name] = Entry(memory=memory, planes=self.batch, height=height, width=width, cols=channels,
                                   exponent=exponent, layer=layer, unsigned=unsigned)

    def weights(self, weights: Weights, layer: str, *, inputs: int, window: Window) -> None:
        """Declare a weight tensor and its momentum; ``inputs`` and ``window`` are those left behind the packing."""
        for name, memory, exponent in ((weights.name, Memory.WGT, weight_exponent(weights)),
                                       (weights.momentum, Memory.MOM, MOMENTUM_EXPONENT)):
            self.entries[name] = Entry(memory=memory, planes=inputs, height=window.height, width=window.width,
                                       cols=weights.outputs, exponent=exponent, layer=layer, window=window)

    def vector(self, vector: Vector, layer: str) -> None:
        """Declare a bias or scalar and its momentum."""
        for name, memory, exponent in ((vector.name, Memory.VEC, BIAS_EXPONENT),
                                       (vector.momentum, Memory.MOM, MOMENTUM_EXPONENT)):
            self.entries[name] = Entry(memory=memory, planes=1, cols=vector.size, exponent=exponent, layer=layer)

    def labels(self) -> None:
        """Declare the batch's labels."""
        self.entries["labels"] = Entry(memory=Memory.VEC, planes=1, cols=self.batch, exponent=0, layer="")

    # --- instructions -----------------------------------------------------------------------------

    def forward(self, layer: str, opcode: Opcode, dst: str, a: str, *, flags: Flag = PLAIN, **more: str) -> None:
        """Emit a forward instruction; ``more`` are its other operands."""
        self._emit(layer, "forward", opcode, self.delayed | self.frozen | flags, {"dst": dst, "a": a, **more})

    def backward(self, layer: str, opcode: Opcode, dst: str, a: str, *, flags: Flag = PLAIN,
                 masked_by: Value | None = None, **more: str) -> None:
        """Emit what makes the error ``dst``, only where ``masked_by`` is positive if that went through ReLU."""
        if masked_by and masked_by.relu:
            flags |= Flag.MASK
            if opcode != Opcode.MAXB:
                more["c"] = masked_by.name
        self._emit(layer, "backward", opcode, self.delayed | flags, {"dst": dst, "a": a, **more})

    def learn_weights(self, layer: str, weights: Weights, a: str, error: str, scalar: str = "") -> None:
        """Emit the update of ``weights`` by input ``a`` (plus ``scalar``) and ``error``."""
        flags, more = (Flag.SCALAR, {"d": scalar}) if scalar else (Flag(0), {})
        self._emit(layer, "weights", Opcode.GRAD, self.delayed | flags,
                   {"dst": weights.name, "a": a, "b": error, "c": weights.momentum, **more}, self.imm)

    def learn_vector(self, layer: str, vector: Vector, error: str, factor: str = "") -> None:
        """Emit the update of a bias, or of a scalar that is added or (with ``factor``) multiplied with that."""
        operands = {"dst": vector.name, **({"a": factor} if factor else {}), "b": error, "c": vector.momentum}
        if vector.scalar:
            flags = Flag.PAIR if factor else Flag(0)
            self._emit(layer, "scalar", Opcode.SUM, self.delayed | flags, operands, self.imm + SCALAR_SLOWDOWN)
        else:
            self._emit(layer, "bias", Opcode.GRAD, self.delayed | Flag.ONES, operands, self.imm)

    def plain(self, phase: str, opcode: Opcode, operands: dict[str, str] | None = None) -> None:
        """Emit LOSS or HALT."""
        self._emit("", phase, opcode, Flag(0), operands or {})

    def _emit(self, layer: str, phase: str, opcode: Opcode, flags: Flag, operands: dict[str, str], imm: int = 0
              ) -> None:
        self.orders.append(Order(program=self.program, layer=layer, phase=phase, opcode=opcode, flags=flags, imm=imm,
                                 operands=operands))
