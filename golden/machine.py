"""The golden machine: executes program words on the RTL's memories, bit for bit, one instruction at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden import convolution, vector
from golden import numerics as rules
from golden.convolution import product
from golden.generator import Ahead
from golden.host import BusError, HostPort
from golden.issue import Issuer, Stop
from golden.tensor import Tensor, tensor
from shiftgrad.config import MEMORIES, Config
from shiftgrad.isa import HISTORY, LR_MAX, Flag, Memory, Opcode, Status

__all__ = ["BusError", "GoldenMachine", "Tensor", "product"]

UNIT_EXPONENT = -14  # of the scalar 1.0 that ADD and ADDB multiply by without SCALAR


class GoldenMachine(HostPort):
    """A machine of ``config``; :meth:`run` programs or :meth:`step` them. See :class:`HostPort` for its state."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._issuer = Issuer(config)
        self._ahead = Ahead()

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
        return tensor(index, self.table[index])

    def values(self, tensor: Tensor) -> NDArray[Any]:
        """The mantissas of ``tensor``, [rows, cols], a view."""
        words = self.memories[MEMORIES[tensor.memory]][tensor.base:tensor.end]
        if tensor.unsigned:
            words = words.view(np.uint8)
        return words.reshape(tensor.rows, -1)[:, :tensor.cols]

    def images(self, tensor: Tensor) -> NDArray[Any]:
        """The mantissas of ``tensor``, [planes, height, width, cols]."""
        return self.values(tensor).reshape(tensor.image)

    def scalar(self, tensor: Tensor) -> int:
        """The first element of ``tensor``."""
        return int(self.values(tensor)[0, 0])

    def _execute(self) -> None:
        instruction = self._issuer.fetch(self.pc, self.program, self.table)
        more = {}
        if instruction.opcode in (Opcode.GRAD, Opcode.SUM):
            more["n"] = instruction.imm + self.lr_shift
            if not 0 <= more["n"] <= LR_MAX:
                raise Stop(Status.OVERFLOW)
        getattr(self, f"_{instruction.opcode.name.lower()}")(instruction.flags, **instruction.operands, **more)

    # --- products ---------------------------------------------------------------------------------

    def _with_scalar(self, a: Tensor, d: Tensor | None) -> NDArray[Any]:
        """Images of operand ``a``, scalar ``d`` added."""
        images = self.images(a)
        return rules.with_scalar(images, self.scalar(d), d.exponent - a.exponent) if d else images

    def _fwd(self, flags: int, dst: Tensor, a: Tensor, b: Tensor, c: Tensor | None = None,
             d: Tensor | None = None) -> None:
        e_v = a.exponent + b.exponent
        acc = convolution.forward(self._with_scalar(a, d), self.values(b), b.window)
        bias, e_bias = (self.values(c)[0], c.exponent) if c else (None, 0)
        v = rules.forward_value(acc, e_v, bias=bias, e_bias=e_bias, relu=bool(flags & Flag.RELU))
        self._nearest(flags, dst, v, e_v)
        self._count("FWD_MACS", acc.size * b.rows)

    def _bwd(self, flags: int, dst: Tensor, a: Tensor, b: Tensor, c: Tensor | None = None) -> None:
        acc = convolution.backward(self.images(a), self.values(b), b.window, dst.size)
        v = rules.backward_value(acc, self.values(c) if c else None)
        self._nearest(flags, dst, v, a.exponent + b.exponent)
        self._count("BWD_MACS", convolution.backward_macs(dst.planes, dst.size, b.window, dst.cols, a.cols))

    def _grad(self, flags: int, n: int, dst: Tensor, b: Tensor, c: Tensor, a: Tensor | None = None,
              d: Tensor | None = None) -> None:
        errors = self.values(b)
        acc = (convolution.gradient(self._with_scalar(a, d), errors, dst.window) if a
               else errors.sum(axis=0, keepdims=True, dtype=np.int64))
        e_g = (a.exponent if a else 0) + b.exponent
        self._step(flags, dst, c, acc, e_g, 16 - (b.rows - 1).bit_length(), n)
        self._count("GRAD_MACS", acc.size * b.rows)

    def _step(self, flags: int, dst: Tensor, c: Tensor, acc: NDArray[Any], e_g: int, most: int, n: int) -> None:
        """Momentum ``c`` and parameters ``dst`` from the gradient ``acc`` at exponent ``e_g``; guard at ``most``."""
        g = rules.guard_shift(e_g, c.exponent, most)
        v = rules.gradient_value(acc, g, self.values(c), c.exponent, e_g - g)
        e_t = self._scale(flags, c, v, e_g - g)
        r1, r2, self.lfsr[:] = rules.gradient_draws(self.lfsr, dst.rows, dst.cols, dst.planes, block=self._ahead.block)
        m, self.saturated = rules.requantise(v, e_t - (e_g - g), r1)
        bound = rules.BOUND8 if dst.memory == Memory.WGT else rules.BOUND16
        self._write(dst, rules.update(self.values(dst), m, dst.exponent + n - e_t, r2, bound=bound))
        self._write(c, m)

    def _loss(self, flags: int, dst: Tensor, a: Tensor, b: Tensor) -> None:
        result = rules.loss_rows(self.values(a), a.exponent, self.values(b)[0])
        self._write(dst, result.errors)
        self._set_exponent(dst, rules.ERROR_EXPONENT)
        self.loss, self.correct, self.samples = result.loss, result.correct, result.samples

    # --- vector unit ------------------------------------------------------------------------------

    def _add(self, flags: int, dst: Tensor, a: Tensor, b: Tensor | None = None, c: Tensor | None = None,
             d: Tensor | None = None) -> None:
        v, e_v = self._scaled(a, d)
        if c:
            v += vector.scalar_term(self.scalar(c), c.exponent - e_v)
        if b:
            other = vector.shortcut(self.images(b), dst.image).reshape(dst.shape)
            v = rules.add_sat32(v, rules.align(other, b.exponent - e_v))
        self._nearest(flags, dst, np.maximum(v, 0) if flags & Flag.RELU else v, e_v)

    def _addb(self, flags: int, dst: Tensor, a: Tensor, b: Tensor | None = None, c: Tensor | None = None,
              d: Tensor | None = None) -> None:
        v, e_v = self._scaled(a, d)
        if b:
            other = vector.shortcut_backward(self.images(b), dst.image).reshape(dst.shape)
            v = rules.add_sat32(v, rules.align(other, b.exponent - e_v))
        self._nearest(flags, dst, rules.backward_value(v, self.values(c) if c else None), e_v)

    def _scaled(self, a: Tensor, d: Tensor | None) -> tuple[NDArray[np.int32], int]:
        """Operand ``a`` times scalar ``d``, or 1; and the product's exponent."""
        factor, e_d = (self.scalar(d), d.exponent) if d else (vector.ONE, UNIT_EXPONENT)
        return vector.scaled(self.values(a), factor), a.exponent + e_d

    def _sum(self, flags: int, n: int, dst: Tensor, b: Tensor, c: Tensor, a: Tensor | None = None) -> None:
        acc = vector.total(self.values(b), self.values(a) if a else None)
        e_g = b.exponent + (a.exponent if a else 0)
        self._step(flags, dst, c, acc, e_g, vector.sum_limit(b.rows, b.cols), n)

    def _avg(self, flags: int, dst: Tensor, a: Tensor) -> None:
        shift = vector.average_shift(a.height * a.width)
        self._nearest(flags, dst, vector.average(self.images(a)), a.exponent - shift)

    def _avgb(self, flags: int, dst: Tensor, a: Tensor, c: Tensor | None = None) -> None:
        v = vector.average_backward(self.values(a), dst.image).reshape(dst.shape)
        shift = vector.average_shift(dst.height * dst.width)
        self._nearest(flags, dst, rules.backward_value(v, self.values(c) if c else None), a.exponent - shift)

    def _max(self, flags: int, dst: Tensor, a: Tensor) -> None:
        self._nearest(flags, dst, vector.largest(self.images(a)).reshape(dst.shape), a.exponent)

    def _maxb(self, flags: int, dst: Tensor, a: Tensor, b: Tensor) -> None:
        v = vector.largest_backward(self.images(a), self.images(b), mask=bool(flags & Flag.MASK))
        self._nearest(flags, dst, v.reshape(dst.shape), a.exponent)

    # --- write-back -------------------------------------------------------------------------------

    def _nearest(self, flags: int, dst: Tensor, v: NDArray[Any], e_v: int) -> None:
        """Requantise ``v`` at exponent ``e_v`` into ``dst``, rounding to nearest."""
        if dst.unsigned:
            v = np.maximum(v, 0)
        e_t = self._scale(flags, dst, v, e_v)
        q, self.saturated = rules.requantise(v, e_t - e_v, unsigned=dst.unsigned)
        self._write(dst, q)

    def _scale(self, flags: int, tensor: Tensor, v: NDArray[Any], e_v: int) -> int:
        """Choose the target exponent of ``tensor``, store it and the history; returns it."""
        largest = rules.amax(v)
        own = rules.own_exponent(largest, e_v, tensor.exponent, unsigned=tensor.unsigned)
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
        name = MEMORIES[tensor.memory]
        words = self.memories[name][tensor.base:tensor.end].reshape(tensor.rows, -1)
        words[:, :tensor.cols] = q.view(np.int8) if tensor.unsigned else q
        words[:, tensor.cols:] = 0
        self.mark(name, tensor.base, tensor.end)

    def _count(self, name: str, macs: int) -> None:
        self.counters[name] = self.counters[name] + macs & (1 << 48) - 1
