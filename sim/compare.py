"""Simulated and golden machine side by side: quickly whether they are equal, slowly where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.machine import GoldenMachine
from shiftgrad.config import MEMORIES
from shiftgrad.device import DeviceError
from sim.machine import MachineState
from sim.model import Simulation

__all__ = ["Comparison", "Difference", "MismatchError", "compare_registers", "compare_words"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where simulation and golden machine part.

    Parameters
    ----------
    where : the first word or register that differs
    simulated, golden : its two values
    count : how many words of that memory differ
    """

    where: str
    simulated: int
    golden: int
    count: int = 1

    def __str__(self) -> str:
        more = f" ({self.count} words differ)" if self.count > 1 else ""
        return f"{self.where}: simulated {self.simulated}, golden {self.golden}{more}"


class MismatchError(DeviceError):
    """Simulation and golden machine differ after an instruction; ``differences`` has one entry a memory or register."""

    def __init__(self, when: str, differences: list[Difference]) -> None:
        super().__init__(f"{when}: " + "; ".join(map(str, differences)))
        self.differences = differences


class Comparison:
    """The state of ``golden`` beside that of ``simulation``.

    An image of the golden machine is kept in the simulator's layout. Words that the golden machine wrote are copied to
    it; then every word of the simulation, written or not, is compared with it, in one C++ call where words of a lane
    are neighbours.

    Parameters
    ----------
    simulation, state : the simulation and its views
    golden : machine of the same configuration
    """

    def __init__(self, simulation: Simulation, state: MachineState, golden: GoldenMachine) -> None:
        self.state, self.golden, self._simulation = state, golden, simulation
        self._banks = {name: [np.empty_like(bank) for bank in state.banks[name]] for name in MEMORIES}
        self._table = {word: np.empty_like(column) for word, column in state.table.items()}
        pairs = [(view, image) for name in MEMORIES
                 for view, image in zip(state.banks[name], self._banks[name], strict=True)]
        pairs += [(view, self._table[word]) for word, view in state.table.items()]
        pairs += [(state.program, golden.program)]
        pairs += [(view, golden.lfsr[lane:lane + 1]) for lane, view in enumerate(state.lfsr)]
        solid = [all(array.flags.c_contiguous for array in pair) for pair in pairs]
        self._blocks = simulation.blocks([pair for pair, whole in zip(pairs, solid, strict=True) if whole])
        self._strided = [pair for pair, whole in zip(pairs, solid, strict=True) if not whole]
        self._copy_all()

    def _copy_all(self) -> None:
        self.golden.take_written()
        for name in MEMORIES:
            self._copy(name, 0, len(self.golden.memories[name]))

    def _copy(self, name: str, start: int, stop: int) -> None:
        lanes = self.golden.memories[name][start:stop]
        for image, column in zip(self._banks[name], lanes.view(f"u{lanes.itemsize}").T, strict=True):
            image[start:stop] = column

    def equal(self) -> bool:
        """Whether all memories, tables, generators and results are equal, given what the golden machine marked."""
        for name, (start, stop) in self.golden.take_written().items():
            self._copy(name, start, stop)
        for word, image in self._table.items():
            image[:] = self.golden.table[:, word]
        return (self._simulation.equal(self._blocks) and all(np.array_equal(*pair) for pair in self._strided)
                and not any(compare_registers(self._results())))

    def differences(self) -> list[Difference]:
        """What differs now, one entry a memory or register: the machines themselves, without the image."""
        self._copy_all()
        return list(self._differences())

    def _differences(self) -> Iterator[Difference]:
        golden, state = self.golden, self.state
        for name in MEMORIES:
            lanes = golden.memories[name]
            simulated = state.memory(name)
            if not np.array_equal(simulated, lanes):
                wrong = np.argwhere(simulated != lanes)
                word, lane = wrong[0]
                yield Difference(where=f"{name} word {word} lane {lane}", simulated=int(simulated[word, lane]),
                                 golden=int(lanes[word, lane]), count=len(np.unique(wrong[:, 0])))
        for word, column in state.table.items():
            yield from compare_words(f"word {word} of tensor", column, golden.table[:, word])
        yield from compare_words("program word", state.program, golden.program)
        yield from compare_words("generator of lane", np.concatenate(state.lfsr), golden.lfsr)
        yield from compare_registers(self._results())

    def _results(self) -> dict[str, tuple[int, int]]:
        return {name.upper(): (int(view[0]), getattr(self.golden, name) & 0xFFFFFFFF)
                for name, view in self.state.results.items()}


def compare_registers(pairs: dict[str, tuple[int, int]]) -> Iterator[Difference]:
    """Those of ``pairs``, simulated and golden by name, that differ."""
    for name, (simulated, golden) in pairs.items():
        if simulated != golden:
            yield Difference(where=f"register {name}", simulated=simulated, golden=golden)


def compare_words(what: str, simulated: NDArray[Any], golden: NDArray[Any]) -> Iterator[Difference]:
    """The first of the words that differ, if any do."""
    wrong = np.flatnonzero(simulated != golden)
    if len(wrong):
        first = int(wrong[0])
        yield Difference(where=f"{what} {first}", simulated=int(simulated[first]), golden=int(golden[first]),
                         count=len(wrong))
