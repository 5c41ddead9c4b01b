"""The machine's scaling of one lane, alone: range, shift, round, saturate; made of the machine's own units."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, signed
from amaranth.lib.wiring import Component, In, Out

from experiments.batchnorm.fp32 import delay
from hw.lane import Lane, LaneValue
from hw.range import RangeUnit
from hw.scale import FRACTION, Scale

__all__ = ["ShiftScaling"]


class ShiftScaling(Component):
    """int32 results of a tensor to int8 mantissas, one a cycle, and the tensor's range for the next exponent.

    Members
    -------
    shift : In(signed(7))    static from two cycles before a pass's first element
    clear : In(1)            the range starts anew
    valid, x : In            an element, signed(32)
    q : Out(signed(8))       round(x / 2^shift), ties to even, saturated to +-127, ``latency`` cycles later
    clipped : Out(1)         with ``q``: it was saturated
    close : In(1)            RANGE_DELAY cycles after the last element or later: work out the range
    done : Out(1)            ``range_latency`` cycles later: ``log2`` and ``zero`` are here
    log2, zero : Out         rounded logarithm of the largest magnitude; there was none but 0
    """

    RANGE_DELAY = Lane.LARGEST_LATENCY - LaneValue.LATENCY - RangeUnit.late(1)

    def __init__(self) -> None:
        scale: Any = Scale
        self.scale, self.range = scale(**Lane.SCALE), RangeUnit(lanes=1)
        super().__init__({
            "shift": In(signed(7)), "clear": In(1), "valid": In(1), "x": In(signed(32)), "q": Out(signed(8)),
            "clipped": Out(1), "close": In(1), "done": Out(1), "log2": Out(signed(7)), "zero": Out(1),
        })

    @property
    def latency(self) -> int:
        """Cycles from ``x`` to ``q``."""
        return int(self.scale.latency)

    @property
    def range_latency(self) -> int:
        """Cycles from ``close`` to ``done``."""
        return self.range.latency

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.scale, m.submodules.range = scale, found = self.scale, self.range
        m.d.comb += [
            scale.x.eq(self.x), scale.s.eq(self.shift), scale.even.eq(1), scale.r.eq(Const(1 << FRACTION - 1)),
            self.q.eq(scale.q), self.clipped.eq(scale.clipped & delay(m, self.valid, self.latency, "valid")),
            found.largest.eq(Lane.larger(m, self.x, self.valid, Const(0, 32))), found.clear.eq(self.clear),
            found.start.eq(self.close), self.done.eq(found.done),
            self.log2.eq(found.log2), self.zero.eq(found.amax_zero),
        ]
        return m
