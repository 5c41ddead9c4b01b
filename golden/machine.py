"""The golden machine: executes program words on the RTL's memories, bit for bit, one instruction at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden import numerics as rules
from golden.host import BusError, HostPort
from shiftgrad.isa import (
    EXPONENT_MAX,
    EXPONENT_MIN,
    HISTORY,
    LEGAL_FLAGS,
    LR_MAX,
    OPERANDS,
    Flag,
    Memory,
    Opcode,
    Status,
    decode,
)

__all__ = ["BusError", "GoldenMachine", "Tensor", "product"]

FLOAT32_TERMS = 1 << 10  # reductions up to here are exact in float32: 2^10 * 128^2 = 2^24


class Stop(Exception):  # noqa: N818
    """Ends the instruction in progress before it wrote anything."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class Tensor:
    """An entry of the tensor table as stored; ``history`` holds the entries in use, newest first."""

    id: int
    memory: int
    base: int
    stride: int
    rows: int
    cols: int
    exponent: int
    count: int
    history: tuple[int, ...]

    @property
    def end(self) -> int:
        """First memory word behind the tensor."""
        return self.base + self.rows * self.stride


def _signed8(word: int, low: int) -> int:
    return ((word >> low & 0xFF) ^ 0x80) - 0x80


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """a[M, K] . b[K, N] of int8, exact: float BLAS keeps every partial sum below its mantissa's range."""
    kind = np.float32 if a.shape[1] <= FLOAT32_TERMS else np.float64
    return (a.astype(kind) @ b.astype(kind)).astype(np.int64)


class GoldenMachine(HostPort):
    """A machine of ``config``; :meth:`run` programs or :meth:`step` them. See :class:`HostPort` for its state."""

    def run(self, pc: int = 0) -> Status:
        self.pc, self.retired = pc, 0
        while (status := self.step()) is None:
            pass
        return status

    def step(self) -> Status | None:
        """Execute the instruction at ``pc``; None while running, else why the machine stopped (``pc`` stays there)."""
        try:
            self._execute()
        except Stop as stop:
            self.status = stop.status
            return stop.status
        self.pc += 1
        self.retired += 1
        return None

    def tensor(self, index: int) -> Tensor:
        """Entry ``index`` of the tensor table as stored, unchecked."""
        w = self.table[index].tolist()
        count = w[4] >> 8 & 0xF
        history = tuple(_signed8(w[5 + i // 4], 8 * (i % 4)) for i in range(min(count, HISTORY)))
        return Tensor(index, w[2] & 7, w[0] & 0xFFFF, w[0] >> 16, w[1] & 0xFFFF, w[1] >> 16, _signed8(w[4], 0), count,
                      history)

    def values(self, tensor: Tensor) -> NDArray[Any]:
        """The mantissas of ``tensor``, [rows, cols], a view."""
        words = self.memories[Memory(tensor.memory).name.lower()][tensor.base:tensor.end]
        return words.reshape(tensor.rows, -1)[:, :tensor.cols]

    # --- checks -----------------------------------------------------------------------------------

    def _execute(self) -> None:
        if self.pc >= self.config.program_words:
            raise Stop(Status.PC_RANGE)
        field = decode(int(self.program[self.pc]))
        if field["opcode"] not in LEGAL_FLAGS:
            raise Stop(Status.ILLEGAL_OPCODE)
        opcode, flags = Opcode(field["opcode"]), field["flags"]
        if flags & ~int(LEGAL_FLAGS[opcode]):
            raise Stop(Status.ILLEGAL_FLAGS)
        if opcode == Opcode.HALT:
            raise Stop(Status.HALTED)
        operands = {name: self._operand(field[name], memory) for name, memory in OPERANDS(opcode, flags).items()}
        self._check_shapes(opcode, flags, operands)
        if opcode in (Opcode.FWD, Opcode.BWD):
            dst, a = operands["dst"], operands["a"]
            if dst.base < a.end and a.base < dst.end:
                raise Stop(Status.OVERLAP)
        if opcode == Opcode.GRAD:
            n = field["imm"] + self.lr_shift
            if not 0 <= n <= LR_MAX:
                raise Stop(Status.OVERFLOW)
            self._grad(flags, n, **operands)
        else:
            {Opcode.FWD: self._fwd, Opcode.BWD: self._bwd, Opcode.LOSS: self._loss}[opcode](flags, **operands)

    def _operand(self, index: int, memory: Memory) -> Tensor:
        if index >= self.config.tensors or (tensor := self.tensor(index)).memory != memory:
            raise Stop(Status.BAD_TENSOR)
        if not tensor.rows or not tensor.cols or tensor.stride != self.config.stride(tensor.cols):
            raise Stop(Status.BAD_SHAPE)
        if tensor.end > self.config.words(memory.name.lower()):
            raise Stop(Status.OUT_OF_RANGE)
        if not EXPONENT_MIN <= tensor.exponent <= EXPONENT_MAX or tensor.count > HISTORY:
            raise Stop(Status.OVERFLOW)
        return tensor

    def _check_shapes(self, opcode: Opcode, flags: int, operands: dict[str, Tensor]) -> None:
        shape = {name: (t.rows, t.cols) for name, t in operands.items()}
        dst, b = shape["dst"], shape["b"]
        if opcode == Opcode.FWD:
            a = shape["a"]
            good = dst == (a[0], b[1]) and a[1] == b[0] and shape.get("c", (1, b[1])) == (1, b[1])
        elif opcode == Opcode.BWD:
            a = shape["a"]
            good = dst == (a[0], b[0]) and a[1] == b[1] and shape.get("c", dst) == dst
        elif opcode == Opcode.GRAD:
            a = (b[0], 1) if flags & Flag.ONES else shape["a"]
            good = dst == shape["c"] == (a[1], b[1]) and a[0] == b[0]
        else:
            a = shape["a"]
            good = dst == a and a[1] <= self.config.classes and b == (1, a[0])
        if not good:
            raise Stop(Status.BAD_SHAPE)

    # --- instructions -----------------------------------------------------------------------------

    def _fwd(self, flags: int, dst: Tensor, a: Tensor, b: Tensor, c: Tensor | None = None) -> None:
        e_v = a.exponent + b.exponent
        acc = product(self.values(a), self.values(b))
        bias, e_bias = (self.values(c)[0], c.exponent) if c else (None, 0)
        v = rules.forward_value(acc, e_v, bias=bias, e_bias=e_bias, relu=bool(flags & Flag.RELU))
        e_t = self._scale(flags, dst, v, e_v)
        q, self.saturated = rules.requantise(v, e_t - e_v)
        self._write(dst, q)
        self._count("FWD_MACS", acc, a.cols)

    def _bwd(self, flags: int, dst: Tensor, a: Tensor, b: Tensor, c: Tensor | None = None) -> None:
        e_v = a.exponent + b.exponent
        acc = product(self.values(a), self.values(b).T)
        v = rules.backward_value(acc, self.values(c) if c else None)
        e_t = self._scale(flags, dst, v, e_v)
        q, self.saturated = rules.requantise(v, e_t - e_v)
        self._write(dst, q)
        self._count("BWD_MACS", acc, a.cols)

    def _grad(self, flags: int, n: int, dst: Tensor, b: Tensor, c: Tensor, a: Tensor | None = None) -> None:
        e_a = a.exponent if a else 0
        g = rules.guard_shift(e_a, b.exponent, c.exponent, b.rows)
        e_v = e_a + b.exponent - g
        errors = self.values(b)
        acc = product(self.values(a).T, errors) if a else errors.sum(axis=0, keepdims=True, dtype=np.int64)
        v = rules.gradient_value(acc, g, self.values(c), c.exponent, e_v)
        e_t = self._scale(flags, c, v, e_v)
        r1, r2, self.lfsr[:] = rules.gradient_draws(self.lfsr, dst.rows, dst.cols)
        m, self.saturated = rules.requantise(v, e_t - e_v, r1)
        bound = rules.BOUND8 if dst.memory == Memory.WGT else rules.BOUND16
        self._write(dst, rules.update(self.values(dst), m, dst.exponent + n - e_t, r2, bound=bound))
        self._write(c, m)
        self._count("GRAD_MACS", acc, b.rows)

    def _loss(self, flags: int, dst: Tensor, a: Tensor, b: Tensor) -> None:
        result = rules.loss_rows(self.values(a), a.exponent, self.values(b)[0])
        self._write(dst, result.errors)
        self._set_exponent(dst, rules.ERROR_EXPONENT)
        self.loss, self.correct, self.samples = result.loss, result.correct, result.samples

    # --- write-back -------------------------------------------------------------------------------

    def _scale(self, flags: int, tensor: Tensor, v: NDArray[Any], e_v: int) -> int:
        """Choose the target exponent of ``tensor``, store it and the history; returns it."""
        largest = rules.amax(v)
        own = rules.own_exponent(largest, e_v, tensor.exponent)
        target = rules.target_exponent(own, tensor.history if flags & Flag.DELAYED else ())
        self._set_exponent(tensor, target)
        if largest and not flags & Flag.FREEZE:
            w = self.table[tensor.id]
            w[4] = int(w[4]) & 0xFF | min(tensor.count + 1, HISTORY) << 8
            w[6] = int(w[6]) << 8 & 0xFFFFFFFF | int(w[5]) >> 24
            w[5] = int(w[5]) << 8 & 0xFFFFFFFF | own & 0xFF
        return target

    def _set_exponent(self, tensor: Tensor, exponent: int) -> None:
        word = int(self.table[tensor.id, 4])
        self.table[tensor.id, 4] = word & ~0xFF | exponent & 0xFF

    def _write(self, tensor: Tensor, q: NDArray[Any]) -> None:
        """Store mantissas [rows, cols] and zeros in the lanes beyond the last column."""
        words = self.memories[Memory(tensor.memory).name.lower()][tensor.base:tensor.end].reshape(tensor.rows, -1)
        words[:, :tensor.cols] = q
        words[:, tensor.cols:] = 0

    def _count(self, name: str, acc: NDArray[Any], terms: int) -> None:
        self.counters[name] = self.counters[name] + acc.size * terms & (1 << 48) - 1
