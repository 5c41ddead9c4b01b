"""From a network to programs and a memory plan."""

from __future__ import annotations

import math
from dataclasses import replace

from shiftgrad import isa, limits
from shiftgrad.config import MEMORIES, Config
from shiftgrad.draft import PIXEL_EXPONENT, Draft, Entry, Order
from shiftgrad.isa import Flag, Memory, Opcode
from shiftgrad.limits import CompileError
from shiftgrad.lower import lower
from shiftgrad.models import Network
from shiftgrad.packing import choose
from shiftgrad.plan import LOADED, Instruction, Loading, Plan, Tensor, first_fit

__all__ = ["PIXEL_EXPONENT", "SCALES", "CompileError", "batch_shift", "compile_network"]

SCALES = ("delayed", "current")
NEXT = "next "  # before the name of a tensor: its second place


def batch_shift(batch: int) -> int:
    """round(log2 batch): what turns the batch's sum of gradients into (about) their mean."""
    return round(math.log2(batch))


def compile_network(network: Network, config: Config, *, batch: int, lr_shift: int, scale: str = "delayed") -> Plan:
    """Plan the memories of ``config`` for ``network`` and write its programs.

    The train program is one step (forward, loss, then by layer from the last: error of its input, updates); the
    evaluate program is forward and loss with frozen exponent histories.

    Parameters
    ----------
    network, config : what to train, on which machine
    batch : samples a step, from 1
    lr_shift : learning rate 2^-lr_shift; the batch's mean is folded into GRAD's and SUM's immediates
    scale : ``delayed`` (exponents from each tensor's history) or ``current`` (two passes, each tensor's own maximum)

    Raises
    ------
    CompileError
        When something does not fit; the message names the layer, the limit and by how much.
    """
    if scale not in SCALES:
        raise CompileError(f"scale must be one of {SCALES}, got {scale!r}")
    if not isinstance(lr_shift, int) or isinstance(lr_shift, bool):
        raise CompileError(f"lr_shift must be an integer, got {lr_shift!r}")
    limits.check_sizes(network, config, batch)
    imm = lr_shift + batch_shift(batch)
    draft = Draft(batch, imm, Flag.DELAYED if scale == "delayed" else Flag(0), config.unsigned)
    packing = choose(network, config)
    layers = lower(network, packing, draft)
    logits = layers[-1].y
    draft.entries[logits.name] = replace(draft.entries[logits.name], unsigned=False)  # LOSS takes int8
    entries = {}
    for program, frozen in (("train", Flag(0)), ("evaluate", Flag.FREEZE)):
        entries[program] = draft.start(program, frozen)
        for layer in layers:
            layer.forward()
        draft.plain("loss", Opcode.LOSS, {"dst": logits.error, "a": logits.name, "b": "labels"})
        if program == "train":
            for layer in reversed(layers):
                layer.backward()
        draft.plain("halt", Opcode.HALT)
    limits.check_shifts(network, draft, lr_shift, batch_shift(batch))
    limits.check_entries(draft)
    limits.check_operations(network, config, draft)
    limits.check_counts(network, config, draft)
    tensors, loading = _tensors(network, config, draft)
    return Plan(network=network, config=config, batch=batch, lr_shift=lr_shift, scale=scale, packing=packing,
                tensors=tensors, instructions=_instructions(draft, tensors), entries=entries, loading=loading)


# --- places ---------------------------------------------------------------------------------------

def _live(draft: Draft, *, doubled: bool = False) -> dict[str, tuple[int, int]]:
    """First and last instruction of the train program that need a tensor kept: all for parameters and labels."""
    train = [order.operands for order in draft.orders if order.program == "train"]
    found: dict[str, tuple[int, int]] = {}
    for pc, operands in enumerate(train):
        for name in operands.values():
            found[name] = (found.get(name, (pc, pc))[0], pc)
    for name, entry in draft.entries.items():
        if entry.memory not in (Memory.ACT, Memory.ERR):
            found[name] = (0, len(train) - 1)
    # the host writes it: before a program, or while one runs on another
    found["input"] = (0, len(train) - 1 if doubled else found["input"][1])
    return found


def _tensors(network: Network, config: Config, draft: Draft) -> tuple[tuple[Tensor, ...], Loading]:
    live = _live(draft, doubled=True)
    draft.entries = {name: entry for name, entry in draft.entries.items() if name in live}
    bases, loading = _doubled(config, draft, live)
    if not loading.second:
        live = _live(draft)
        bases = _placed(config, draft, live)
        for memory in Memory:
            ends = {name: bases[name] + _words(config, entry) for name, entry in draft.entries.items()
                    if entry.memory == memory}
            limits.check_fit(network, config, draft, memory, ends)
    return tuple(
        Tensor(name=name, id=i, memory=e.memory, base=bases[name], stride=config.stride(e.cols), planes=e.planes,
               height=e.height, width=e.width, cols=e.cols, window=e.window, exponent=e.exponent, layer=e.layer,
               unsigned=e.unsigned, live=live[name])
        for i, (name, e) in enumerate(draft.entries.items())
    ), loading


def _words(config: Config, entry: Entry) -> int:
    return entry.rows * config.stride(entry.cols)


def _placed(config: Config, draft: Draft, live: dict[str, tuple[int, int]], second: tuple[str, ...] = ()
            ) -> dict[str, int]:
    """First words of all tensors, and of the ``second`` places of some, with ``NEXT`` before the name."""
    bases: dict[str, int] = {}
    for memory in Memory:
        names = [name for name, entry in draft.entries.items() if entry.memory == memory]
        names += [NEXT + name for name in second if draft.entries[name].memory == memory]
        spans = [(_words(config, draft.entries[name.removeprefix(NEXT)]), *live[name]) for name in names]
        bases |= dict(zip(names, first_fit(spans), strict=True))
    return bases


def _doubled(config: Config, draft: Draft, live: dict[str, tuple[int, int]]) -> tuple[dict[str, int], Loading]:
    """First words when the host loads a batch while a program runs on another: nothing shares a place with either."""
    if not config.loads_while_busy:
        return {}, Loading(second={}, why=f"for {config.name} takes no writes while one runs")
    twice = live | {NEXT + name: live[name] for name in LOADED}
    bases = _placed(config, draft, twice, LOADED)
    for memory in Memory:
        depth = config.words(MEMORIES[memory])
        needed = max((base + _words(config, entry) for name, base in bases.items()
                      if (entry := draft.entries[name.removeprefix(NEXT)]).memory == memory), default=0)
        if needed > depth:
            return {}, Loading(second={}, why=f"for a second place does not fit the {MEMORIES[memory]} memory of "
                                              f"{config.name}: {needed} words are needed, there are {depth}")
    return bases, Loading(second={name: bases[NEXT + name] for name in LOADED})


# --- words ----------------------------------------------------------------------------------------

def _instructions(draft: Draft, tensors: tuple[Tensor, ...]) -> tuple[Instruction, ...]:
    ids = {tensor.name: tensor.id for tensor in tensors}
    return tuple(
        Instruction(pc=pc, program=o.program, layer=o.layer, phase=o.phase, opcode=o.opcode, flags=o.flags, imm=o.imm,
                    operands=o.operands, shape=_shape(draft, o),
                    word=isa.encode(o.opcode, flags=o.flags, imm=o.imm,
                                    **{role: ids[name] for role, name in o.operands.items()}))
        for pc, o in enumerate(draft.orders)
    )


def _shape(draft: Draft, order: Order) -> tuple[int, int, int]:
    """Rows and columns of the result, and terms of the sum that an element is."""
    if order.opcode == Opcode.HALT:
        return 0, 0, 0
    of = {role: draft.entries[name] for role, name in order.operands.items()}
    dst = of["dst"]
    terms = {
        Opcode.FWD: lambda: of["b"].rows,
        Opcode.BWD: lambda: of["b"].height * of["b"].width * of["b"].cols,
        Opcode.GRAD: lambda: of["b"].rows,
        Opcode.SUM: lambda: of["b"].rows * of["b"].cols,
        Opcode.AVG: lambda: of["a"].height * of["a"].width,
        Opcode.MAX: lambda: 4,
    }.get(order.opcode, lambda: 0)()
    return dst.rows, dst.cols, terms


