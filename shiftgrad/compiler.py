"""From a network to programs and a memory plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from shiftgrad import isa
from shiftgrad.config import MEMORIES, Config
from shiftgrad.initialise import BIAS_EXPONENT, MOMENTUM_EXPONENT, weight_exponent
from shiftgrad.isa import Flag, Memory, Opcode
from shiftgrad.models import Dense, Network
from shiftgrad.plan import Instruction, Plan, Tensor, first_fit

__all__ = ["SCALES", "CompileError", "batch_shift", "compile_network"]

SCALES = ("delayed", "current")
DIMENSION_MAX = 65535
PIXEL_EXPONENT = -7
LOSS_EXPONENT = -7
REDUCTION_MAX = ((1 << 31) - 1) // 127**2


class CompileError(ValueError):
    """A network that cannot run on a configuration; the message names the layer and what was over which limit."""


def batch_shift(batch: int) -> int:
    """round(log2 batch): what turns the batch's sum of gradients into (about) their mean."""
    return round(math.log2(batch))


@dataclass(frozen=True)
class _Shape:
    memory: Memory
    rows: int
    cols: int
    exponent: int
    layer: str


@dataclass(frozen=True)
class _Draft:
    program: str
    layer: str
    phase: str
    opcode: Opcode
    flags: Flag
    imm: int
    operands: dict[str, str]


@dataclass
class _Builder:
    """Tensors and instructions in the making; programs are numbered as they are emitted."""

    network: Network
    config: Config
    batch: int
    imm: int
    delayed: Flag
    shapes: dict[str, _Shape] = field(default_factory=dict)
    emitted: list[_Draft] = field(default_factory=list)

    def declare(self, name: str, memory: Memory, rows: int, cols: int, exponent: int, layer: str = "") -> None:
        self.shapes[name] = _Shape(memory, rows, cols, exponent, layer)

    def declare_layer(self, layer: Dense, fan_in: int) -> None:
        name, units = layer.name, layer.units
        exponent = weight_exponent(fan_in, zero=layer.zero)
        self.declare(f"{name}.weight", Memory.WGT, fan_in, units, exponent, name)
        self.declare(f"{name}.momentum", Memory.MOM, fan_in, units, MOMENTUM_EXPONENT, name)
        if layer.bias:
            self.declare(f"{name}.bias", Memory.VEC, 1, units, BIAS_EXPONENT, name)
            self.declare(f"{name}.bias_momentum", Memory.MOM, 1, units, MOMENTUM_EXPONENT, name)
        self.declare(f"{name}.out", Memory.ACT, self.batch, units, PIXEL_EXPONENT, name)
        self.declare(f"{name}.error", Memory.ERR, self.batch, units, LOSS_EXPONENT, name)

    def emit(self, program: str, layer: str, phase: str, opcode: Opcode, operands: dict[str, str],
             flags: int = 0, imm: int = 0) -> None:
        self.emitted.append(_Draft(program, layer, phase, opcode, Flag(flags), imm, operands))

    def forward(self, program: str, extra: Flag) -> None:
        source = "input"
        for layer in self.network.layers:
            name = layer.name
            flags = self.delayed | extra | (Flag.RELU if layer.relu else Flag(0))
            operands = {"dst": f"{name}.out", "a": source, "b": f"{name}.weight"}
            if layer.bias:
                flags |= Flag.BIAS
                operands["c"] = f"{name}.bias"
            self.emit(program, name, "forward", Opcode.FWD, operands, flags)
            source = f"{name}.out"
        error = f"{self.network.layers[-1].name}.error"
        self.emit(program, "", "loss", Opcode.LOSS, {"dst": error, "a": source, "b": "labels"})

    def backward(self, program: str) -> None:
        layers = self.network.layers
        for index in reversed(range(len(layers))):
            layer, below = layers[index], layers[index - 1] if index else None
            name, error = layer.name, f"{layer.name}.error"
            source = f"{below.name}.out" if below else "input"
            if below:
                operands = {"dst": f"{below.name}.error", "a": error, "b": f"{name}.weight"}
                flags = self.delayed
                if below.relu:
                    flags |= Flag.MASK
                    operands["c"] = source
                self.emit(program, name, "backward", Opcode.BWD, operands, flags)
            operands = {"dst": f"{name}.weight", "a": source, "b": error, "c": f"{name}.momentum"}
            self.emit(program, name, "weights", Opcode.GRAD, operands, self.delayed, self.imm)
            if layer.bias:
                operands = {"dst": f"{name}.bias", "b": error, "c": f"{name}.bias_momentum"}
                self.emit(program, name, "bias", Opcode.GRAD, operands, self.delayed | Flag.ONES, self.imm)

    def live(self, name: str) -> tuple[int, int]:
        """First and last instruction of the train program that need ``name`` kept: all for parameters and labels."""
        train = [draft.operands for draft in self.emitted if draft.program == "train"]
        if self.shapes[name].memory not in (Memory.ACT, Memory.ERR):
            return 0, len(train) - 1
        uses = [pc for pc, operands in enumerate(train) if name in operands.values()]
        return uses[0], uses[-1]

    def tensors(self) -> tuple[Tensor, ...]:
        bases: dict[str, int] = {}
        for memory in Memory:
            names = [name for name, shape in self.shapes.items() if shape.memory == memory]
            spans = [(self.words(name), *self.live(name)) for name in names]
            placed = dict(zip(names, first_fit(spans), strict=True))
            self.check_fit(memory, placed)
            bases |= placed
        return tuple(
            Tensor(name=name, id=i, memory=s.memory, base=bases[name], stride=self.config.stride(s.cols), rows=s.rows,
                   cols=s.cols, exponent=s.exponent, layer=s.layer, live=self.live(name))
            for i, (name, s) in enumerate(self.shapes.items())
        )

    def words(self, name: str) -> int:
        shape = self.shapes[name]
        return shape.rows * self.config.stride(shape.cols)

    def check_fit(self, memory: Memory, bases: dict[str, int]) -> None:
        label, config = MEMORIES[memory], self.config
        depth, unit = config.words(label), config.size * config.lane_bytes(label)
        ends = {name: base + self.words(name) for name, base in bases.items()}
        over = [name for name, end in ends.items() if end > depth]
        if over:
            name, needed = over[0], max(ends.values())
            layer = self.shapes[name].layer
            owner = f"layer {layer}" if layer else f"network {self.network.name}"
            raise CompileError(
                f"{owner}: {name} does not fit the {label} memory "
                f"of {config.name}: {needed * unit} bytes are needed, there are {depth * unit}: "
                f"{(needed - depth) * unit} bytes over")

    def instructions(self, tensors: tuple[Tensor, ...]) -> tuple[Instruction, ...]:
        ids = {tensor.name: tensor.id for tensor in tensors}
        return tuple(
            Instruction(pc=pc, program=d.program, layer=d.layer, phase=d.phase, opcode=d.opcode, flags=d.flags,
                        imm=d.imm, operands=d.operands, shape=self.product(d.opcode, d.operands),
                        word=isa.encode(d.opcode, flags=d.flags, imm=d.imm,
                                        **{role: ids[name] for role, name in d.operands.items()}))
            for pc, d in enumerate(self.emitted)
        )

    def product(self, opcode: Opcode, operands: dict[str, str]) -> tuple[int, int, int]:
        if opcode == Opcode.HALT:
            return 0, 0, 0
        dst = self.shapes[operands["dst"]]
        if opcode == Opcode.LOSS:
            return dst.rows, dst.cols, 0
        return dst.rows, dst.cols, self.batch if opcode == Opcode.GRAD else self.shapes[operands["a"]].cols


def _check_sizes(network: Network, config: Config, batch: int) -> None:
    if not isinstance(batch, int) or not 1 <= batch <= DIMENSION_MAX:
        raise CompileError(f"network {network.name}: batch must be an integer from 1 to {DIMENSION_MAX}, got {batch!r}")
    for layer, fan_in in network.fan_in():
        for what, terms in (("inputs", fan_in), ("units", layer.units)):
            if terms > REDUCTION_MAX:
                raise CompileError(f"layer {layer.name}: a sum of {terms} int8 products could overflow 32 bits: "
                                   f"at most {REDUCTION_MAX} {what}, got {terms}")
            if terms > DIMENSION_MAX:
                raise CompileError(f"layer {layer.name}: {what} must be at most {DIMENSION_MAX}, got {terms}")
    if network.classes > config.classes:
        raise CompileError(f"layer {network.layers[-1].name}: {config.name} classifies at most {config.classes} "
                           f"classes, got {network.classes} units")


def _check_counts(network: Network, config: Config, builder: _Builder) -> None:
    for what, used, limit, items in (
        ("program memory", len(builder.emitted), config.program_words, [d.layer for d in builder.emitted]),
        ("tensor table", len(builder.shapes), config.tensors, [s.layer for s in builder.shapes.values()]),
    ):
        if used > limit:
            layer = next((name for name in items[limit:] if name), network.layers[-1].name)
            raise CompileError(f"layer {layer}: network {network.name} does not fit the {what} of {config.name}: "
                               f"{used} entries are needed, there are {limit}: {used - limit} over")


def compile_network(network: Network, config: Config, *, batch: int, lr_shift: int, scale: str = "delayed") -> Plan:
    """Plan the memories of ``config`` for ``network`` and write its programs.

    The train program is one step (forward, loss, then by layer from the last: error, weights, bias); the evaluate
    program is forward and loss with frozen exponent histories.

    Parameters
    ----------
    network, config : what to train, on which machine
    batch : samples a step, from 1
    lr_shift : learning rate 2^-lr_shift; the batch's mean is folded into GRAD's immediate
    scale : ``delayed`` (exponents from each tensor's history) or ``current`` (two passes, each tensor's own maximum)

    Raises
    ------
    CompileError
        When something does not fit; the message names the layer, the limit and by how much.
    """
    if scale not in SCALES:
        raise CompileError(f"scale must be one of {SCALES}, got {scale!r}")
    _check_sizes(network, config, batch)
    imm = lr_shift + batch_shift(batch)
    if not 0 <= imm <= isa.LR_MAX:
        raise CompileError(f"network {network.name}: lr_shift + round(log2 batch) must be from 0 to {isa.LR_MAX}, "
                           f"got {lr_shift} + {batch_shift(batch)}")
    builder = _Builder(network, config, batch, imm, Flag.DELAYED if scale == "delayed" else Flag(0))
    builder.declare("input", Memory.ACT, batch, network.inputs, PIXEL_EXPONENT)
    builder.declare("labels", Memory.VEC, 1, batch, 0)
    for layer, fan_in in network.fan_in():
        builder.declare_layer(layer, fan_in)
    builder.forward("train", Flag(0))
    builder.backward("train")
    builder.emit("train", "", "halt", Opcode.HALT, {})
    evaluate = len(builder.emitted)
    builder.forward("evaluate", Flag.FREEZE)
    builder.emit("evaluate", "", "halt", Opcode.HALT, {})
    _check_counts(network, config, builder)
    tensors = builder.tensors()
    return Plan(network=network, config=config, batch=batch, lr_shift=lr_shift, scale=scale, tensors=tensors,
                instructions=builder.instructions(tensors), entries={"train": 0, "evaluate": evaluate})
