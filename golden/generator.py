"""The random generator: one 32-bit xorshift (13, 17, 5) a lane, and long blocks of it at once.

A step is linear over GF(2), so 2^k steps are one 32 x 32 matrix. It is applied to many states by four byte tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ahead", "default_seeds", "gradient_draws", "leap", "leap_table", "xorshift_block", "xorshift_step"]

U32 = NDArray[np.uint32]
I32 = NDArray[np.int32]
AHEAD = 4096  # steps that Ahead makes at a time
RUN = 64  # states a stream of xorshift_block makes one after the other


def default_seeds(lanes: int) -> U32:
    """States after reset, uint32[lanes]: lane n has (n + 1) * 0x9E3779B9 mod 2^32."""
    return (np.arange(1, lanes + 1, dtype=np.uint64) * 0x9E3779B9 & 0xFFFFFFFF).astype(np.uint32)


def xorshift_step(state: U32) -> U32:
    """The state of each lane one step later; uint32, any shape. Period 2^32 - 1; 0 stays 0."""
    state = state ^ (state << np.uint32(13))
    state ^= state >> np.uint32(17)
    state ^= state << np.uint32(5)
    return state


@cache
def leap_table(k: int) -> U32:
    """Images of every byte value in every byte position under 2^k steps; uint32[4, 256]."""
    basis = np.uint32(1) << np.arange(32, dtype=np.uint32)
    columns = xorshift_step(basis) if k == 0 else leap(leap(basis, k - 1), k - 1)
    table = np.zeros((4, 256), np.uint32)
    for bit in range(8):
        table[:, 1 << bit:2 << bit] = table[:, :1 << bit] ^ columns[bit::8, None]
    table.setflags(write=False)
    return table


def leap(state: U32, k: int) -> U32:
    """The state of each lane 2^k steps later; uint32, any shape."""
    table = leap_table(k)
    return (table[0][state & 255] ^ table[1][state >> np.uint32(8) & 255]
            ^ table[2][state >> np.uint32(16) & 255] ^ table[3][state >> np.uint32(24)])


def xorshift_block(state: U32, n: int) -> U32:
    """The next ``n`` states of every lane.

    Parameters
    ----------
    state : uint32[T], the present states (not repeated in the result)
    n : steps, from 1

    Returns
    -------
    uint32[n, T]; the last row is the generators' new state.
    """
    state = np.asarray(state, np.uint32)
    lanes, streams = state.size, -(-n // RUN)
    start = np.empty((streams, lanes), np.uint32)
    start[0] = state
    filled, k = 1, RUN.bit_length() - 1
    while filled < streams:
        more = min(filled, streams - filled)
        start[filled:filled + more] = leap(start[:more], k)
        filled, k = 2 * filled, k + 1
    block = np.empty((streams, RUN, lanes), np.uint32)
    x, shifted = start, np.empty_like(start)
    for step in range(min(n, RUN)):
        x ^= np.left_shift(x, np.uint32(13), out=shifted)
        x ^= np.right_shift(x, np.uint32(17), out=shifted)
        x ^= np.left_shift(x, np.uint32(5), out=shifted)
        block[:, step] = x
    return block.reshape(-1, lanes)[:n]


class Ahead:
    """Remembers more steps than it was asked for, because many short calls of :func:`xorshift_block` are slow."""

    def __init__(self) -> None:
        self._known = np.zeros((1, 0), np.uint32)  # states one after the other
        self._at = 0

    def block(self, state: U32, n: int) -> U32:
        """:func:`xorshift_block`; read only."""
        if self._at + n >= len(self._known) or not np.array_equal(self._known[self._at], state):
            self._known = np.concatenate([state[None], xorshift_block(state, max(n, AHEAD))])
            self._at = 0
        first, self._at = self._at + 1, self._at + n
        return self._known[first:first + n]


def gradient_draws(state: U32, rows: int, cols: int, group: int | None = None, *,
                   block: Callable[[U32, int], U32] = xorshift_block) -> tuple[I32, I32, U32]:
    """The 24-bit words a gradient of ``rows`` x ``cols`` consumes, placed at their elements.

    Every row of every tile takes two states of every lane, also of lanes beyond the last column: column tiles outer,
    row tiles inner, rows of a tile from its last to its first. Element (m, n) uses lane n mod T. Each ``group`` of rows
    (all of them, when None) is divided into tiles of T on its own; what is left over makes a shorter one. ``block`` is
    :func:`xorshift_block` or does the same.

    Returns
    -------
    r1, r2 : int32[rows, cols] in [0, 2^24)
    state : uint32[T], the generators' new state
    """
    lanes, group = state.size, group or rows
    tiles, groups = -(-cols // lanes), rows // group
    states = block(state, 2 * rows * tiles)
    drained = states.reshape(tiles, groups, group, 2, lanes).transpose(3, 1, 2, 0, 4)
    placed = np.empty((2, groups, group, tiles, lanes), np.uint32)
    whole = group - group % lanes
    full = (2, groups, whole // lanes, lanes, tiles, lanes)
    placed[:, :, :whole].reshape(full)[...] = drained[:, :, :whole].reshape(full)[:, :, :, ::-1]
    placed[:, :, whole:] = drained[:, :, whole:][:, :, ::-1]
    placed >>= np.uint32(8)
    r1, r2 = placed.view(np.int32).reshape(2, rows, -1)[..., :cols]
    return r1, r2, states[-1].copy()
