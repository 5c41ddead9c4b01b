"""A golden machine that keeps books: what every requantisation saturated and lost, and how large its result is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden import numerics as rules
from golden.machine import GoldenMachine
from golden.tensor import Tensor
from shiftgrad.config import Config
from shiftgrad.device import GoldenDevice
from shiftgrad.isa import Flag, Memory
from shiftgrad.plan import Plan

__all__ = ["PHASES", "Entry", "ObservedMachine", "observed_device"]

PHASES = {Memory.ACT: "forward", Memory.ERR: "backward", Memory.MOM: "gradient"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One requantisation.

    Parameters
    ----------
    exponent : it was given
    saturated : share of all mantissas beyond +-127 (255 when unsigned) before they were clamped
    lost : share of the accumulators other than zero that are below half a step: 0 when rounded to nearest. Momenta are
        rounded stochastically, which keeps them on average
    """

    exponent: int
    saturated: float
    lost: float


class ObservedMachine(GoldenMachine):
    """The golden machine, the same to the bit; while ``observing``, training leaves entries.

    Attributes
    ----------
    observing : switched from outside
    entries : tensor id -> its last requantisation
    moved : id of a parameter -> share of its elements that its last update changed
    rms : tensor id -> root mean square of the values last written
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.observing = False
        self.entries: dict[int, Entry] = {}
        self.moved: dict[int, float] = {}
        self.rms: dict[int, float] = {}

    def _scale(self, flags: int, tensor: Tensor, v: NDArray[Any], e_v: int) -> int:
        target = super()._scale(flags, tensor, v, e_v)
        if self.observing and not flags & Flag.FREEZE:
            rounded = rules.nearest(v, target - e_v, least=rules.REQUANTISE_MIN - tensor.unsigned)
            bound = rules.UNSIGNED8 if tensor.unsigned else rules.BOUND8
            some = int(np.count_nonzero(v))
            self.entries[tensor.id] = Entry(
                exponent=target, saturated=np.count_nonzero(np.abs(rounded) > bound) / v.size,
                lost=(some - int(np.count_nonzero(rounded))) / max(1, some))
        return target

    def _step(self, flags: int, dst: Tensor, *more: Any) -> None:
        before = self.values(dst).copy() if self.observing else None
        super()._step(flags, dst, *more)
        if before is not None:
            self.moved[dst.id] = np.count_nonzero(self.values(dst) != before) / before.size

    def _write(self, tensor: Tensor, q: NDArray[Any]) -> None:
        super()._write(tensor, q)
        if self.observing:
            root = float(np.sqrt(np.mean(np.square(q.astype(np.float64)))))
            self.rms[tensor.id] = float(np.ldexp(root, self.tensor(tensor.id).exponent))

    def by_name(self, plan: Plan) -> dict[str, Entry]:
        """Entries by tensor name, in the plan's order."""
        return {t.name: self.entries[t.id] for t in plan.tensors if t.id in self.entries}


def observed_device(config: Config) -> tuple[GoldenDevice, ObservedMachine]:
    """A golden device around an :class:`ObservedMachine`."""
    device, machine = GoldenDevice(config), ObservedMachine(config)
    device.machine = machine
    return device, machine
