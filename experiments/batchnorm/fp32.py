"""Pipelined FP32 adder and multiplier: round to nearest, ties to even; subnormal numbers are zero."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Adder", "Multiplier"]

EXPONENT = 255  # of infinities and NaN
NAN = 0x7FC00000


def register(m: Module, value: Any, name: str) -> Signal:
    """``value`` one cycle later, in a register without reset."""
    stage = Signal(Value.cast(value).shape(), name=name, reset_less=True)
    m.d.sync += stage.eq(value)
    return stage


def delay(m: Module, value: Any, cycles: int, name: str) -> Any:
    """``value`` some cycles later."""
    for stage in range(cycles):
        value = register(m, value, f"{name}{stage}")
    return value


def parts(x: Any) -> tuple[Any, Any, Any, Any]:
    """Sign, exponent, mantissa of 24 bits (0 of a zero or subnormal number), and whether it is infinity or NaN."""
    normal = x[23:31] != 0
    return x[31], x[23:31], Mux(normal, Cat(x[:23], Const(1, 1)), 0), x[23:31] == EXPONENT


def pack(m: Module, *, sign: Any, exponent: Any, mantissa: Any, half: Any, rest: Any, zero: Any,
         special: Any) -> Signal:
    """Round, then saturate to zero or infinity: two cycles.

    Parameters
    ----------
    exponent : signed, that of the result before a carry by rounding
    mantissa : 24 bits, the first one set
    half, rest : the first bit dropped, and whether any other is set
    zero : the result is zero
    special : Cat(infinite, nan)
    """
    rounded = register(m, (mantissa[:23] + (half & (rest | mantissa[0])))[:24], "rounded")
    carry = register(m, mantissa[:23].all() & half, "carry")  # rest or mantissa[0]: the latter is set
    exponent, sign, zero = register(m, exponent, "place"), register(m, sign, "sign"), register(m, zero, "zero")
    special = register(m, special, "special")

    reached = Signal(signed(len(exponent) + 1))
    m.d.comb += reached.eq(exponent + carry)
    small, infinite = zero | (reached <= 0), special[0] | (~zero & (reached >= EXPONENT))
    fraction = Mux(infinite | small, 0, rounded[:23])
    result = Cat(fraction, Mux(infinite, EXPONENT, Mux(small, 0, reached[:8])), sign)
    return register(m, Mux(special[1], NAN, result), "packed")


class Adder(Component):
    """sum = a + b in FP32.

    Members
    -------
    a, b : In(32)   IEEE 754 binary32; subnormal numbers count as zeros of their sign
    sum : Out(32)   nearest, ties to even, ``latency`` cycles later; 0 instead of a subnormal number; one NaN only

    A pair enters every cycle.
    """

    latency = 9

    def __init__(self) -> None:
        super().__init__({"a": In(32), "b": In(32), "sum": Out(32)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # 1: which is larger, and by how many binary places
        less = register(m, self.a[:31] < self.b[:31], "less")
        ahead = register(m, (self.a[23:31] - self.b[23:31])[:8], "ahead")
        behind = register(m, (self.b[23:31] - self.a[23:31])[:8], "behind")
        a, b = register(m, self.a, "a1"), register(m, self.b, "b1")

        # 2: in order
        large, small = Mux(less, b, a), Mux(less, a, b)
        sign, exponent, mantissa, odd = parts(large)
        negative, _, addend, _ = parts(small)
        nan = odd & ((large[:23] != 0) | ((small[23:31] == EXPONENT) & (sign ^ negative)))
        both_zero = large[23:31] == 0
        tail = [
            register(m, Mux(both_zero, sign & negative, sign), "sign2"), register(m, exponent, "exponent2"),
            register(m, Cat(odd, nan), "special2"), register(m, sign ^ negative, "subtract2"),
            register(m, mantissa, "mantissa2"),
        ]
        distance = register(m, Mux(less, behind, ahead), "distance2")
        addend = register(m, addend, "addend2")

        # 3 and 4: the smaller one to the larger one's exponent; three bits more, the last one for all that follow
        value, lost = self.shifted(Cat(Const(0, 2), addend), Const(0, 1), distance, (16, 8))
        lost = Mux(distance[5:] != 0, addend != 0, lost)
        value = register(m, Mux(distance[5:] != 0, 0, value), "value3")
        value, lost = self.shifted(value, register(m, lost, "lost3"), register(m, distance, "distance3"), (4, 2, 1))
        aligned = register(m, Cat(lost, value), "aligned4")
        sign, exponent, special, subtract, mantissa = (delay(m, t, 2, f"{n}_34_") for t, n in zip(
            tail, ("sign", "exponent", "special", "subtract", "mantissa"), strict=True))

        # 5: the sum
        exact = Signal(29)  # bit 0 makes the carry that two's complement wants
        m.d.comb += exact.eq(Cat(Const(1, 1), Const(0, 3), mantissa) + Cat(subtract, aligned ^ subtract.replicate(27)))
        total = register(m, Cat(exact[1:28], exact[28] & ~subtract), "total5")

        # 6 and 7: to the left
        value, moved, coarse = total, Const(0, 0), Const(0, 0)
        for stage, steps in ((6, (16, 8)), (7, (4, 2, 1))):
            for step in steps:
                move = Signal(name=f"move{step}")
                m.d.comb += move.eq(value[28 - step:] == 0)
                value, moved = Mux(move, value << step, value)[:28], Cat(move, moved)
            value, moved = register(m, value, f"value{stage}"), register(m, moved, f"moved{stage}")
            coarse = moved if stage == 6 else coarse
        exponent = delay(m, exponent, 2, "exponent56_")
        above = Signal(signed(10))
        m.d.sync += above.eq(exponent + 1 - (coarse << 3))
        sign, special, exponent = delay(m, sign, 3, "sign567_"), delay(m, special, 3, "special567_"), register(
            m, exponent, "exponent7")
        zero = ~value[27]
        cancelled = register(m, register(m, subtract, "subtract5"), "subtract6")
        exact_zero = zero & register(m, cancelled, "subtract7") & (exponent != 0)

        # 8 and 9: round
        m.d.comb += self.sum.eq(pack(
            m, sign=sign & ~exact_zero, exponent=above.as_signed() - moved[:3], mantissa=value[4:], half=value[3],
            rest=value[:3] != 0, zero=zero, special=special))
        return m

    @staticmethod
    def shifted(value: Any, lost: Any, distance: Any, steps: tuple[int, ...]) -> tuple[Any, Any]:
        """``value`` shifted right by the bits of ``distance`` in ``steps``, and whether a one was lost."""
        for step in steps:
            chosen = distance[step.bit_length() - 1]
            lost = lost | (chosen & (value[:step] != 0))
            value = Mux(chosen, Cat(value[step:], Const(0, step)), value)
        return value, lost


class Multiplier(Component):
    """product = a * b in FP32, with four 12 x 12 multipliers.

    Members
    -------
    a, b : In(32)       IEEE 754 binary32; subnormal numbers count as zeros of their sign
    product : Out(32)   nearest, ties to even, ``latency`` cycles later; 0 instead of a number that is below 2^-126
                        after rounding to 24 bits; one NaN only

    A pair enters every cycle.
    """

    latency = 7

    def __init__(self) -> None:
        super().__init__({"a": In(32), "b": In(32), "product": Out(32)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        # 1: parts
        a_sign, a_exponent, a_mantissa, a_odd = parts(self.a)
        b_sign, b_exponent, b_mantissa, b_odd = parts(self.b)
        a_zero, b_zero = self.a[23:31] == 0, self.b[23:31] == 0
        nan = (a_odd & (self.a[:23] != 0)) | (b_odd & (self.b[:23] != 0)) | (a_odd & b_zero) | (b_odd & a_zero)
        x, y = register(m, a_mantissa, "x1"), register(m, b_mantissa, "y1")
        tail = {"sign": a_sign ^ b_sign, "zero": a_zero | b_zero, "special": Cat(a_odd | b_odd, nan)}
        tail = {name: delay(m, value, 5, name) for name, value in tail.items()}
        exponent = register(m, a_exponent + b_exponent, "exponent1")

        # 2 to 4: the product of the mantissas, in halves
        ll, lh, hl, hh = (register(m, x[i:i + 12] * y[j:j + 12], f"product{i}_{j}") for i in (0, 12) for j in (0, 12))
        middle = register(m, lh + hl, "middle3")
        outer = register(m, Cat(ll, hh), "outer3")
        total = register(m, Cat(outer[:12], (outer[12:] + middle)[:36]), "total4")
        exponent = register(m, delay(m, exponent, 2, "exponent23_") - 127, "exponent4")

        # 5: the first one to its place; 6 and 7: round
        top = total[47]
        place = Signal(signed(11))
        m.d.comb += place.eq(exponent + top)
        m.d.comb += self.product.eq(pack(
            m, sign=tail["sign"], exponent=register(m, place, "exponent5"),
            mantissa=register(m, Mux(top, total[24:48], total[23:47]), "mantissa5"),
            half=register(m, Mux(top, total[23], total[22]), "half5"),
            rest=register(m, (total[:22] != 0) | (top & total[22]), "rest5"),
            zero=tail["zero"], special=tail["special"]))
        return m
