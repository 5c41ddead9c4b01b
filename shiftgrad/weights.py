"""A network's parameters as float32 in the usual layouts, and back: what other programs read and write.

Convolutions are [outputs, inputs, height, width], biases and scalars [size], dense layers [outputs, inputs], the inputs
of an image in the order channel, line, pixel. Names are the tensors' own: ``stem.weight``, ``block1.b1a``, ``fc.bias``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.files import FileError, arrays_of, write_bytes
from shiftgrad.initialise import BIAS_EXPONENT, weight_exponent
from shiftgrad.models import Dense, Network

__all__ = ["Quantised", "WeightsError", "floats", "quantised", "read", "write"]

Array = NDArray[Any]
Floats = dict[str, NDArray[np.float32]]
BOUND8, BOUND16 = 127, 32767
TORCH = (".pt", ".pth")
KINDS = ".npz or .pt"


class WeightsError(ValueError):
    """Parameters that cannot be read, written or used: the file or tensor, what was wanted and what was got."""


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A parameter: its name and exponent, the machine's layout split into axes, and how to permute those."""

    name: str
    exponent: int
    axes: tuple[int, ...]  # height, width, inputs, outputs; of a vector, its size
    shape: tuple[int, ...]  # outside

    @property
    def vector(self) -> bool:
        return len(self.axes) == 1

    def outside(self, mantissas: Array) -> NDArray[np.float32]:
        values = np.ldexp(mantissas.astype(np.float32), self.exponent).reshape(self.axes)
        return np.ascontiguousarray(values.T if self.vector else values.transpose(3, 2, 0, 1)).reshape(self.shape)

    def inside(self, values: Array) -> Array:
        if self.vector:
            return values.reshape(1, -1)
        height, width, inputs, outputs = self.axes
        return values.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0).reshape(-1, outputs)


def _slots(network: Network) -> Iterator[_Slot]:
    for index, (layer, shape) in enumerate(network.steps()):
        seen = shape if index else network.input_shape
        for w in layer.weights(shape, network.blocks):
            dense = isinstance(layer, Dense)
            axes = (*seen, w.outputs) if dense else (w.window.height, w.window.width, w.inputs, w.outputs)
            outside = (w.outputs, math.prod(seen)) if dense else (w.outputs, w.inputs, w.window.height, w.window.width)
            yield _Slot(name=w.name, exponent=weight_exponent(w), axes=axes, shape=outside)
        for v in layer.vectors(shape):
            yield _Slot(name=v.name, exponent=BIAS_EXPONENT, axes=(v.size,), shape=(v.size,))


def floats(network: Network, state: Mapping[str, Array]) -> Floats:
    """Every parameter as mantissa * 2^exponent, exact in float32; ``state`` is that of a host or a checkpoint."""
    return {slot.name: slot.outside(state[slot.name]) for slot in _slots(network)}


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """Mantissas by tensor name, as a host writes them; ``saturated`` of ``total`` were out of their tensor's range."""

    mantissas: dict[str, Array]
    saturated: int
    total: int


def quantised(network: Network, values: Mapping[str, Array], source: object = "weights") -> Quantised:
    """``values`` at the exponents of the network's tensors: nearest, ties to even, saturated.

    Raises
    ------
    WeightsError
        a name is missing or unknown, a shape is another, or a value is not finite; begins with ``source``
    """
    slots = {slot.name: slot for slot in _slots(network)}
    for what, names in (("has no", slots.keys() - values.keys()), ("has unknown", values.keys() - slots.keys())):
        if names:
            raise WeightsError(f"{source}: {what} {', '.join(sorted(names))}; {network.name} has {', '.join(slots)}")
    mantissas, saturated = {}, 0
    for name, slot in slots.items():
        value = np.asarray(values[name])
        if value.shape != slot.shape:
            raise WeightsError(f"{source}: {name} must have shape {slot.shape}, got {value.shape}")
        if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise WeightsError(f"{source}: {name} must be finite numbers, got {_complaint(value)}")
        with np.errstate(over="ignore"):  # an infinity saturates
            rounded = np.rint(np.ldexp(slot.inside(value).astype(np.float64), -slot.exponent))
        bound, dtype = (BOUND16, np.int16) if slot.vector else (BOUND8, np.int8)
        saturated += int(np.count_nonzero(np.abs(rounded) > bound))
        mantissas[name] = np.clip(rounded, -bound, bound).astype(dtype)
    return Quantised(mantissas=mantissas, saturated=saturated, total=sum(a.size for a in mantissas.values()))


def _complaint(value: Array) -> str:
    return f"type {value.dtype}" if value.dtype.kind not in "fiu" else "a NaN or an infinity"


# --- files ----------------------------------------------------------------------------------------

def write(path: Path | str, values: Mapping[str, Array]) -> None:
    """``values`` as an archive of arrays (.npz) or a PyTorch state_dict (.pt, .pth), atomically."""
    path = Path(path)
    if path.suffix in TORCH:
        from shiftgrad import torch_file

        write_bytes(path, torch_file.to_bytes(values))
        return
    _check_kind(path)
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(values)
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read(path: Path | str) -> dict[str, Array]:
    """The arrays of an .npz, .pt or .pth file by name; nothing in it is executed."""
    path = Path(path)
    _check_kind(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: wanted weights, got: {error.strerror}") from None
    if path.suffix in TORCH:
        from shiftgrad import torch_file

        return torch_file.from_bytes(path, data)
    try:
        found = arrays_of(data)
    except FileError as error:
        raise WeightsError(f"{path}: wanted an .npz archive of arrays, got something else or a damaged one ({error})"
                           ) from None
    if "header" in found:
        raise WeightsError(f"{path}: wanted weights, got a checkpoint: make them with shiftgrad export")
    return found


def _check_kind(path: Path) -> None:
    if path.suffix not in (".npz", *TORCH):
        raise WeightsError(f"{path}: wanted a file called {KINDS}, got {path.suffix or 'no ending'}")
