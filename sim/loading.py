"""Random writes to ACT and VEC while a program runs, at words it does not use, as a host loads its next mini-batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from golden.tensor import tensor
from shiftgrad.config import MEMORIES, Config
from shiftgrad.isa import LOADABLE, OPERAND_NAMES, Region, Status, decode
from sim.device import VerilatorDevice
from sim.programs import Case, load

__all__ = ["Piece", "Pieces", "execute_loading", "free_words"]

WORDS = 14  # most memory words of a piece
GRACE = 16  # cycles; the next instruction takes more than that before it writes


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Neighbouring 32-bit words from byte ``address`` up, each to be written after ``rest`` cycles."""

    address: int
    words: NDArray[np.uint32]
    rest: NDArray[np.uint32]


def free_words(config: Config, case: Case, memory: str) -> NDArray[np.bool_]:
    """Words of ``memory`` that no operand of the program has, legal or not."""
    free = np.ones(config.words(memory), np.bool_)
    named = {decode(word)[name] for word in case.program for name in OPERAND_NAMES}
    for index in named & set(range(len(case.table))):
        entry = tensor(index, case.table[index])
        if entry.memory == MEMORIES.index(memory):
            free[entry.base:entry.end] = False
    return free


class Pieces:
    """What a host might load while ``case`` runs: :meth:`draw` as often as wanted.

    Attributes
    ----------
    free : memory -> the words to choose from
    """

    def __init__(self, config: Config, case: Case, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        self.free = {name: np.flatnonzero(free_words(config, case, name)) for name in LOADABLE}

    def __bool__(self) -> bool:
        return any(map(len, self.free.values()))

    def draw(self) -> Piece:
        """The next one: some without a pause, some a word now and then."""
        rng, config = self.rng, self.config
        name = str(rng.choice([name for name, free in self.free.items() if len(free)]))
        free, pitch = self.free[name], config.pitch(name) // 4
        first = int(rng.integers(len(free)))
        most = int(rng.integers(1, WORDS + 1))
        run = int(np.argmin(np.append(np.diff(free[first:first + most]) == 1, False))) + 1  # neighbours from the first
        start = int(rng.integers(pitch))
        count = int(rng.integers(1, run * pitch - start + 1))
        return Piece(address=config.address(Region[name.upper()]) + 4 * (int(free[first]) * pitch + start),
                     words=rng.integers(0, 1 << 32, count, np.uint32),
                     rest=rng.integers(0, int(rng.choice([1, 3, 20, 200])), count).astype(np.uint32))


def execute_loading(device: VerilatorDevice, case: Case, rng: np.random.Generator) -> tuple[list[Status], int]:
    """As :func:`sim.programs.execute`, with writes from each start to its end; also how many words they were."""
    load(device, case)
    pieces, pc, reasons, count = Pieces(device.config, case, rng), 0, [], 0
    while pc < len(case.program):
        device.start(pc)
        while pieces and device.simulation.busy:
            piece = pieces.draw()
            device.load(piece.address, piece.words, rest=piece.rest, grace=int(rng.integers(GRACE)))
            count += len(piece.words)
        reasons.append(device.wait())
        pc = device.read_register("PC") + 1
    return reasons, count
