"""What every unit is made of: registers, delays, selections without priorities, comparisons without carry chains."""

from collections.abc import Iterable
from functools import reduce
from operator import add, or_

from amaranth.hdl import Const, Module, Mux, Signal, Value

__all__ = ["at_least", "delayed", "greater", "one_of", "register", "times"]


def register(m: Module, value: Value, name: str, *, init: int | None = None, resets: bool = False) -> Signal:
    """``value`` one cycle later, in a register without reset; of equal ones with one start synthesis keeps one.

    What lets something be written must reset: the data beside it may.
    """
    stage = Signal(value.shape(), name=name, init=init, reset_less=not resets)
    m.d.sync += stage.eq(value)
    return stage


def delayed(m: Module, value: Value, cycles: int, name: str, *, resets: bool = False, clear: Value | None = None,
            first: int = 1) -> list[Value]:
    """``value`` now, a cycle later, and so on up to ``cycles`` later.

    Parameters
    ----------
    name : of the registers, with a number from ``first`` up behind it
    resets : they reset, as they do with ``clear``
    clear : makes them 0
    """
    values = [value]
    for stage in range(first, first + cycles):
        later = values[-1] if clear is None else Mux(clear, 0, values[-1])
        values.append(register(m, later, f"{name}{stage}", resets=resets or clear is not None))
    return values


def one_of(choices: Iterable[tuple[Value, Value]]) -> Value:
    """The value whose condition holds, of pairs of which at most one does, without priorities; 0 for none."""
    return reduce(or_, (Mux(chosen, value, 0) for chosen, value in choices))


def times(value: Value, factor: int) -> Value:
    """``value * factor``; with no power of two as a sum of shifts, for which synthesis takes no multiplier."""
    if factor & (factor - 1) == 0:
        return value * factor
    return reduce(add, (value << bit for bit in range(factor.bit_length()) if factor >> bit & 1))


def at_least(n: Value, bound: int) -> Value:
    """``n >= bound`` in lookup tables; synthesis would make a carry chain of each."""
    result = Const(1)
    for bit in range(len(n)):
        result = n[bit] & result if bound >> bit & 1 else n[bit] | result
    return result if bound < 1 << len(n) else Const(0)


def greater(x: Value, y: Value) -> Value:
    """Unsigned ``x > y``, for a byte in three levels of lookup tables: less than into a carry chain and out of it."""
    pairs = [((x[i:i + 2] > y[i:i + 2]), x[i:i + 2] == y[i:i + 2]) for i in range(0, len(x), 2)]
    result = Const(0)
    for above, same in pairs:
        result = above | (same & result)
    return result
