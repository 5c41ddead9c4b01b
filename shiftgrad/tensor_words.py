"""A tensor's mantissas as the words its memory has on the host bus."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.config import MEMORIES, Config
from shiftgrad.isa import Memory

__all__ = ["pack_tensor", "unpack_tensor"]

Array = NDArray[Any]


def pack_tensor(values: Array, config: Config, memory: Memory) -> NDArray[np.uint32]:
    """[rows, cols] mantissas as the 32-bit words the host writes; lanes beyond the last column are 0."""
    name = MEMORIES[memory]
    rows, cols = values.shape
    stride, size = config.stride(cols), config.size
    lanes = config.pitch(name) // config.lane_bytes(name)
    dtype = np.dtype(f"<i{config.lane_bytes(name)}")
    rowwise = np.zeros((rows, stride * size), dtype)
    rowwise[:, :cols] = values.astype(dtype)
    words = np.zeros((rows * stride, lanes), dtype)
    words[:, :size] = rowwise.reshape(-1, size)
    return words.view("<u4").reshape(-1).astype(np.uint32)


def unpack_tensor(words: Array, shape: tuple[int, int], config: Config, memory: Memory, *, unsigned: bool = False
                  ) -> Array:
    """The inverse of :func:`pack_tensor`: int16 from the vector memory, else int8 or, ``unsigned``, uint8."""
    name = MEMORIES[memory]
    lanes = config.pitch(name) // config.lane_bytes(name)
    values = np.ascontiguousarray(words, "<u4").view(f"<i{config.lane_bytes(name)}").reshape(-1, lanes)
    dtype = np.int16 if memory == Memory.VEC else np.uint8 if unsigned else np.int8
    return values[:, : config.size].reshape(shape[0], -1)[:, : shape[1]].astype(dtype)
