"""State machines with a register for each state, where decoding a number would take too long."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import or_

from amaranth.hdl import Module, Signal

__all__ = ["OneHot"]


class OneHot:
    """States of ``m``, used as those of ``m.FSM``; the first name is the initial one.

    ``with states.state("A"):`` holds what happens in A, ``states.next("B")`` there leads to B; :meth:`finish` comes
    last.
    """

    def __init__(self, m: Module, names: Sequence[str]) -> None:
        self._m, self._names = m, list(names)
        self._now = {name: Signal(name=f"in_{name.lower()}", init=not i) for i, name in enumerate(self._names)}
        # of each state, the one that follows; 0 while it is not the state
        self._following = {name: Signal(len(self._names), name=f"behind_{name.lower()}") for name in self._names}
        self._current: str | None = None

    @contextmanager
    def state(self, name: str) -> Iterator[None]:
        """What happens in a state; it lasts until ``next`` says otherwise."""
        self._current = name
        with self._m.If(self._now[name]):
            self.next(name)
            yield
        self._current = None

    def next(self, name: str) -> None:
        """Go to ``name``; of several the last one counts."""
        if self._current is None:
            raise RuntimeError(f"next({name!r}) outside of a state")
        self._m.d.comb += self._following[self._current].eq(1 << self._names.index(name))

    def ongoing(self, name: str) -> Signal:
        """Whether ``name`` is the state."""
        return self._now[name]

    def finish(self) -> None:
        """Connect the states."""
        following = reduce(or_, self._following.values())
        self._m.d.sync += [now.eq(following[i]) for i, now in enumerate(self._now.values())]
