"""What a machine cannot do, said before it is asked to: every reason for a network not to compile."""

from __future__ import annotations

from golden.convolution import Window
from shiftgrad import isa
from shiftgrad.config import MEMORIES, Config
from shiftgrad.draft import Draft
from shiftgrad.isa import PRODUCTS, SUM_BITS_MAX, TERMS_END, Memory, Opcode
from shiftgrad.layers import is_size
from shiftgrad.models import Dense, Network

__all__ = [
    "CompileError", "check_counts", "check_entries", "check_fit", "check_operations", "check_shifts", "check_sizes",
]

DIMENSION_MAX = 65535
REDUCTION_MAX = TERMS_END - 1


class CompileError(ValueError):
    """A network that cannot run on a configuration; the message names the layer and what was over which limit."""


def check_sizes(network: Network, config: Config, batch: int) -> None:
    """Batch, reductions, widths and classes."""
    if not is_size(batch) or batch > DIMENSION_MAX:
        raise CompileError(f"network {network.name}: batch must be an integer from 1 to {DIMENSION_MAX}, got {batch!r}")
    if len(network.layers) > config.tensors:  # each has one at least, and the rest need not be worked out
        raise CompileError(f"layer {network.layers[config.tensors].name}: the tensor table of {config.name} has "
                           f"{config.tensors} entries, got {len(network.layers)} layers")
    for layer, shape in network.steps():
        noun = "units" if isinstance(layer, Dense) else "channels"
        for weights in layer.weights(shape, network.blocks):
            taps = weights.window.height * weights.window.width
            source = "inputs" if taps == 1 else f"inputs ({taps} taps x {weights.inputs} channels)"
            for what, terms in ((source, weights.fan_in), (noun, taps * weights.outputs)):
                if terms > REDUCTION_MAX:
                    raise CompileError(f"layer {layer.name}: a sum of {terms} int8 products could overflow 32 bits: "
                                       f"at most {REDUCTION_MAX} {what}, got {terms}")
            for what, terms in ((source, weights.fan_in), (noun, weights.outputs)):
                if terms > DIMENSION_MAX:
                    raise CompileError(f"layer {layer.name}: {what} must be at most {DIMENSION_MAX}, got {terms}")
    if network.classes > config.classes:
        raise CompileError(f"layer {network.layers[-1].name}: {config.name} classifies at most {config.classes} "
                           f"classes, got {network.classes} units")


def check_entries(draft: Draft) -> None:
    """Rows of images, and lengths of scalar sums."""
    for name, entry in draft.entries.items():
        if entry.rows > DIMENSION_MAX:
            pixels = entry.height * entry.width
            owner = f"layer {entry.layer}" if entry.layer else "the input"
            raise CompileError(f"{owner}: {name} has {entry.rows} rows, {draft.batch} images of {pixels} pixels; at "
                               f"most {DIMENSION_MAX}: use a batch of at most {DIMENSION_MAX // pixels}")
    for order in draft.orders:
        if order.opcode == Opcode.SUM:
            error = draft.entries[order.operands["b"]]
            if (error.rows - 1).bit_length() + (error.cols - 1).bit_length() > SUM_BITS_MAX:
                raise CompileError(f"layer {order.layer}: the scalar {order.operands['dst']} sums {error.rows} x "
                                   f"{error.cols} errors, each side rounded up to a power of two; at most "
                                   f"2^{SUM_BITS_MAX}: use a smaller batch or fewer channels")


def check_operations(network: Network, config: Config, draft: Draft) -> None:
    """What a dense machine lacks: images, scalars, the vector unit, and long sums."""
    for order in draft.orders:
        owner = f"layer {order.layer}" if order.layer else f"network {network.name}"
        of = {role: draft.entries[name] for role, name in order.operands.items()}
        if order.flags & ~config.legal_flags.get(order.opcode, order.flags) or order.opcode not in config.legal_flags:
            raise CompileError(f"{owner}: {config.name} has no vector unit and no scalars, which {order.opcode.name} "
                               "needs: dense layers only")
        if config.dense and any((e.height, e.width, e.window) != (1, 1, Window()) for e in of.values()):
            raise CompileError(f"{owner}: {config.name} has no images and kernels, which {order.opcode.name} needs: "
                               "dense layers only")
        if order.opcode in PRODUCTS:
            terms = of["b"].cols if order.opcode == Opcode.BWD else of["b"].rows
            if terms >= config.terms_end:
                raise CompileError(f"{owner}: {config.name} adds up at most {config.terms_end - 1} products, "
                                   f"{order.opcode.name} needs {terms}")


def check_shifts(network: Network, draft: Draft, lr_shift: int, batch_shift: int) -> None:
    """Learning rates."""
    largest = max((order.imm for order in draft.orders), default=0)
    slow = largest - lr_shift - batch_shift
    scalars = f" + {slow} (scalars)" if slow > 0 else ""
    if lr_shift + batch_shift < 0 or largest > isa.LR_MAX:
        raise CompileError(f"network {network.name}: lr_shift + round(log2 batch){scalars} must be from 0 to "
                           f"{isa.LR_MAX}, got {lr_shift} + {batch_shift}{scalars}")


def check_counts(network: Network, config: Config, draft: Draft) -> None:
    """Instructions and tensors."""
    for what, used, limit, items in (
        ("program memory", len(draft.orders), config.program_words, [order.layer for order in draft.orders]),
        ("tensor table", len(draft.entries), config.tensors, [entry.layer for entry in draft.entries.values()]),
    ):
        if used > limit:
            layer = next((name for name in items[limit:] if name), network.layers[-1].name)
            raise CompileError(f"layer {layer}: network {network.name} does not fit the {what} of {config.name}: "
                               f"{used} entries are needed, there are {limit}: {used - limit} over")


def check_fit(network: Network, config: Config, draft: Draft, memory: Memory, ends: dict[str, int]) -> None:
    """Words of one memory; ``ends`` are the first words behind its tensors."""
    label = MEMORIES[memory]
    depth, unit = config.words(label), config.size * config.lane_bytes(label)
    over = [name for name, end in ends.items() if end > depth]
    if over:
        name, needed = over[0], max(ends.values())
        layer = draft.entries[name].layer
        owner = f"layer {layer}" if layer else f"network {network.name}"
        raise CompileError(f"{owner}: {name} does not fit the {label} memory of {config.name}: {needed * unit} bytes "
                           f"are needed, there are {depth * unit}: {(needed - depth) * unit} bytes over")
