"""A golden machine whose tensors lie one after the other, in memories full of rubbish."""

from __future__ import annotations

import numpy as np

from golden.machine import GoldenMachine
from shiftgrad.config import Config
from shiftgrad.isa import DESCRIPTOR, Memory, Opcode, Status, pack

SMALL = Config(name="small", size=4, act_words=256, err_words=128, wgt_words=512, mom_words=512, vec_words=64,
               program_words=32, tensors=24, classes=16)
FWD, BWD, GRAD, LOSS, HALT = Opcode.FWD, Opcode.BWD, Opcode.GRAD, Opcode.LOSS, Opcode.HALT


class Bench:
    """A machine, tensors laid out one after the other, and memories full of rubbish."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        self.config, self.rng, self.machine = config, rng, GoldenMachine(config)
        self.free = dict.fromkeys(Memory, 0)
        self.count = 0
        for memory in self.machine.memories.values():
            memory[:] = rng.integers(-128, 128, memory.shape)

    def tensor(self, memory: Memory, rows: int, cols: int, exponent: int = 0) -> int:
        stride = self.config.stride(cols)
        index, self.count = self.count, self.count + 1
        self.describe(index, base=self.free[memory], stride=stride, planes=rows, cols=cols, memory=memory,
                      exponent=exponent)
        self.free[memory] += rows * stride
        return index

    def describe(self, index: int, **values: int) -> None:
        """Set fields of a tensor table entry, the others stay."""
        old = self.machine.table[index].tolist()
        for word, fields in enumerate(DESCRIPTOR):
            mine = {f.name: values[f.name] for f in fields if f.name in values}
            mask = sum(((1 << f.width) - 1) << f.low for f in fields if f.name in mine)
            self.machine.table[index, word] = old[word] & ~mask | pack(fields, mine)

    def fill(self, index: int, bound: int = 127) -> np.ndarray:
        values = self.values(index)
        values[:] = self.rng.integers(-bound, bound + 1, values.shape)
        return values.copy()

    def values(self, index: int) -> np.ndarray:
        return self.machine.values(self.machine.tensor(index))

    def load(self, *words: int) -> None:
        self.machine.program[:len(words)] = words

    def step(self, word: int) -> Status | None:
        self.load(word)
        self.machine.pc = 0
        return self.machine.step()
