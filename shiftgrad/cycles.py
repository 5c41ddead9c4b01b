"""How long an instruction keeps the machine busy: a model with one place for its constants."""

from __future__ import annotations

from dataclasses import dataclass

from golden.convolution import backward_macs
from shiftgrad.config import Config
from shiftgrad.isa import PRODUCTS, Flag, Memory, Opcode
from shiftgrad.plan import Instruction, Plan, Tensor

__all__ = ["Cost", "cost_of", "tile_cycles"]

# --- fitted to the RTL's counters -------------------------------------------------------------------
SETUP = 31  # fetch, comparisons and exponents of an instruction
OPERAND = 21  # more for each operand it checks
SCALAR = 17  # more for each scalar it brings to another exponent
LOOPS = 17  # loops of each further part or pass of a product; those of the first are worked out meanwhile
PASS = (4, 47)  # fill and tail of a pass: 4 T + 47
LOSS_ROW = 19  # a row of P = T stride logits: max(2 P, P + 19) cycles
LOSS_END = 52  # after the last: P + 52
HALT = 8
STREAM_PASS = (2, 44)  # fill and tail of a pass of the vector unit: 2 T + 44
SUM_END = 8  # more for the total of a SUM: T + 8
PAIR_WORD = 2  # cycles a word of ADD and ADDB with two operands
MAX_WORD = 4  # cycles a word of the smaller image, both ways


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cycles of one instruction.

    Parameters
    ----------
    instruction : which
    tiles : T x T tiles of the result; 0 for what does not run on the array
    tile : cycles a tile occupies the array, on average; 0 for what does not run on it
    passes : 1, or 2 when a range pass comes first
    cycles : in all, overheads included
    macs : useful multiply-accumulates (range passes not counted)
    """

    instruction: Instruction
    tiles: int
    tile: int
    passes: int
    cycles: int
    macs: int


def tile_cycles(opcode: Opcode, reduction: int, size: int) -> int:
    """Cycles P a tile occupies the array: the reduction, padded to T where an operand is rotated, and at least T."""
    if opcode == Opcode.GRAD:
        return max(reduction, size)
    return -(-reduction // size) * size


def cost_of(instruction: Instruction, plan: Plan, *, first: bool) -> Cost:
    """Cost of ``instruction``; in the ``first`` step there is no history, so a delayed scale takes two passes."""
    config, opcode = plan.config, instruction.opcode
    if opcode == Opcode.HALT:
        return Cost(instruction=instruction, tiles=0, tile=0, passes=0, cycles=HALT, macs=0)
    of = {role: plan.tensor(name) for role, name in instruction.operands.items()}
    scalars = sum(role in ("c", "d") and (tensor.rows, tensor.cols, tensor.memory) == (1, 1, Memory.VEC)
                  for role, tensor in of.items())
    setup = SETUP + OPERAND * len(of) + SCALAR * scalars
    if opcode == Opcode.LOSS:
        row = config.size * of["dst"].stride
        cycles = setup + of["dst"].rows * max(2 * row, row + LOSS_ROW) + row + LOSS_END
        return Cost(instruction=instruction, tiles=0, tile=0, passes=0, cycles=cycles, macs=0)
    passes = 2 if first or not instruction.flags & Flag.DELAYED else 1
    if opcode not in PRODUCTS:
        around = STREAM_PASS[0] * config.size + STREAM_PASS[1]
        around += config.size + SUM_END if opcode == Opcode.SUM else 0
        cycles = setup + passes * (_stream(instruction, of) + around)
        return Cost(instruction=instruction, tiles=0, tile=0, passes=passes, cycles=cycles, macs=0)
    tiles, busy, macs = _array(opcode, of, config)
    parts = len(_classes(of["dst"], of["b"])) if opcode == Opcode.BWD else 1
    cycles = setup + passes * (busy + PASS[0] * config.size + PASS[1]) + (passes * parts - 1) * LOOPS
    return Cost(instruction=instruction, tiles=tiles, tile=busy // tiles, passes=passes, cycles=cycles, macs=macs)


def _array(opcode: Opcode, of: dict[str, Tensor], config: Config) -> tuple[int, int, int]:
    """Tiles, cycles the array is fed, and useful multiply-accumulates of a product."""
    size, dst, b = config.size, of["dst"], of["b"]
    if opcode == Opcode.GRAD:
        taps = dst.height * dst.width
        tiles = taps * -(-dst.planes // size) * dst.stride
        return tiles, tiles * tile_cycles(opcode, b.rows, size), dst.rows * dst.cols * b.rows
    if opcode == Opcode.FWD:
        tiles = -(-dst.rows // size) * dst.stride
        return tiles, tiles * b.height * b.width * of["a"].stride * size, dst.rows * dst.cols * b.rows
    tiles = busy = 0
    for pixels, taps in _classes(dst, b):
        share = -(-pixels // size) * dst.stride
        tiles, busy = tiles + share, busy + share * max(1, taps * of["a"].stride) * size
    macs = backward_macs(dst.planes, (dst.height, dst.width), b.window, dst.cols, of["a"].cols)
    return tiles, busy, macs


def _classes(dst: Tensor, weights: Tensor) -> list[tuple[int, int]]:
    """Pixels of an input that see the same taps, and how many those are: one class at step 1, four at step 2."""
    w = weights.window
    lines, pixels = (
        [(len(range(r, side, step)), len(range((r + pad) % step, kernel, step))) for r in range(step)]
        for side, kernel, step, pad in ((dst.height, w.height, w.step_y, w.pad_y),
                                        (dst.width, w.width, w.step_x, w.pad_x)))
    return [(dst.planes * y * x, ty * tx) for y, ty in lines for x, tx in pixels]


def _stream(instruction: Instruction, of: dict[str, Tensor]) -> int:
    """Cycles the vector unit is fed."""
    opcode, dst = instruction.opcode, of["dst"]
    if opcode in (Opcode.ADD, Opcode.ADDB):
        return dst.words * (PAIR_WORD if instruction.flags & Flag.PAIR else 1)
    words = {Opcode.SUM: lambda: of["b"].words, Opcode.AVG: lambda: of["a"].words, Opcode.AVGB: lambda: dst.words,
             Opcode.MAX: lambda: MAX_WORD * dst.words, Opcode.MAXB: lambda: MAX_WORD * of["a"].words}
    return words[opcode]()
