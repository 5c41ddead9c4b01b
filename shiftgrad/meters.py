"""Looking into a running device: its counters, and one training step taken apart by instruction."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from shiftgrad.device import Device
from shiftgrad.host import Host, MachineError, StepResult
from shiftgrad.isa import COUNTERS, REGISTERS, Opcode, Region, Status, encode
from shiftgrad.plan import Instruction

__all__ = ["Probe", "read_counters"]

ADDRESS = {register.name: register.address for register in REGISTERS}
PHASE = {Opcode.FWD: "forward", Opcode.BWD: "backward", Opcode.GRAD: "gradient"}


def read_counters(device: Device) -> Counter[str]:
    """The 48-bit counters by name."""
    values = device.counters()
    return Counter({name: values[name] for name in COUNTERS})


class Probe:
    """Runs a training step one instruction at a time, so that every instruction's registers can be read.

    A copy of the train program with a HALT after each instruction stands behind the plan's programs; results are the
    same to the bit as those of the step in one run.

    Parameters
    ----------
    host : with its plan loaded; :meth:`load` must be called after every ``host.load``

    Attributes
    ----------
    instructions : of the train program, its HALT left out
    """

    def __init__(self, host: Host) -> None:
        self._host, self._plan = host, host.plan
        self.instructions = [i for i in self._plan.program_of("train") if i.opcode != Opcode.HALT]
        self._base = len(self._plan.program)

    @property
    def fits(self) -> bool:
        """Whether the program memory has room for the copy."""
        return self._base + 2 * len(self.instructions) <= self._plan.config.program_words

    def load(self) -> None:
        """Write the copy."""
        words = [word for i in self.instructions for word in (i.word, encode(Opcode.HALT))]
        halves = np.array(words, np.uint64).astype("<u8").view("<u4")
        self._host.device.write(self._plan.config.address(Region.PROGRAM) + 8 * self._base, halves.astype(np.uint32))

    def step(self, lr_extra: int) -> tuple[StepResult, dict[str, float]]:
        """One training step on the loaded batch: its result, and the saturated share of the mantissas by phase."""
        device = self._host.device
        before = device.read(ADDRESS["LR_SHIFT"])
        device.write(ADDRESS["LR_SHIFT"], [lr_extra])
        saturated: Counter[str] = Counter()
        total: Counter[str] = Counter()
        loss = correct = samples = last = 0
        for instruction in self.instructions:
            self.run(instruction)
            _, loss, correct, samples, last = device.read(ADDRESS["RETIRED"], 5).tolist()
            if phase := PHASE.get(instruction.opcode):
                saturated[phase] += last
                total[phase] += instruction.shape[0] * instruction.shape[1]
        device.write(ADDRESS["LR_SHIFT"], before)
        nats = loss * math.log(2) / 256 / max(1, samples)
        result = StepResult(loss=nats, correct=correct, samples=samples, saturated=last)
        return result, {phase: saturated[phase] / total[phase] for phase in total}

    def run(self, instruction: Instruction) -> None:
        """Run one instruction of the train program; the caller keeps their order."""
        self._host.select()
        status = Status(self._host.device.run(self._base + 2 * self.instructions.index(instruction)))
        if status != Status.HALTED:
            raise MachineError(status, instruction.pc, f"{instruction} ({instruction.phase}, on its own)")
