"""A tensor's words in the documented layout, and images as mantissas."""

from __future__ import annotations

import numpy as np
import pytest

from shiftgrad.config import SIZES, Config
from shiftgrad.images import pixels
from shiftgrad.isa import Memory
from shiftgrad.tensor_words import pack_tensor, unpack_tensor


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("memory", [Memory.WGT, Memory.VEC])
def test_packing_is_the_documented_layout(size: int, memory: Memory) -> None:
    config, rng = Config(name="c", size=size), np.random.default_rng(size)
    width = 2 if memory == Memory.VEC else 1
    for rows, cols in ((1, 1), (3, size), (2, size + 1), (5, 2 * size - 1)):
        values = rng.integers(-127, 128, (rows, cols)).astype(np.int16)
        raw = pack_tensor(values, config, memory).astype("<u4").tobytes()
        pitch = {4: 4, 8: 8, 12: 16, 16: 16}[size] * width
        stride = -(-cols // size)
        assert len(raw) == rows * stride * pitch
        expected = bytearray(len(raw))
        for r in range(rows):
            for c in range(cols):
                at = (r * stride + c // size) * pitch + c % size * width
                expected[at : at + width] = int(values[r, c]).to_bytes(width, "little", signed=True)
        assert raw == bytes(expected)
        back = unpack_tensor(np.frombuffer(raw, "<u4"), (rows, cols), config, memory)
        assert back.dtype == (np.int16 if width == 2 else np.int8)
        np.testing.assert_array_equal(back, values)


def test_pixels() -> None:
    np.testing.assert_array_equal(pixels(np.array([0, 1, 2, 255], np.uint8)), np.array([0, 0, 1, 127], np.int8))
    signed = np.array([-127, 127], np.int8)
    assert pixels(signed) is signed
    with pytest.raises(ValueError, match="got -128"):
        pixels(np.array([-128], np.int8))
    with pytest.raises(TypeError, match="got float64"):
        pixels(np.zeros(3))
