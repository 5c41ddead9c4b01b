"""PyTorch state_dict files. Only this module and :mod:`shiftgrad.torch_net` need PyTorch, the extra ``torch``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.files import brief
from shiftgrad.weights import WeightsError

__all__ = ["from_bytes", "to_bytes"]

Array = NDArray[Any]


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise WeightsError("wanted PyTorch for a .pt file, got no such package: install shiftgrad[torch], or use .npz"
                           ) from None
    return torch


def to_bytes(values: Mapping[str, Array]) -> bytes:
    """A file that ``torch.load`` gives as a state_dict of ``values``."""
    torch = _torch()
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in values.items()}, buffer)
    return buffer.getvalue()


def from_bytes(path: Path, data: bytes) -> dict[str, Array]:
    """The arrays of a state_dict file; weights only, nothing in it is executed."""
    torch = _torch()
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        entries = dict(found.items())
    except Exception as error:  # what torch.load raises for a bad file is not documented
        raise WeightsError(f"{path}: wanted a state_dict of tensors, got something else or a damaged one "
                           f"({brief(error)})") from None
    if wrong := [name for name, entry in entries.items() if not isinstance(entry, torch.Tensor)]:
        raise WeightsError(f"{path}: wanted a state_dict of tensors, got {wrong[0]!r}: "
                           f"{type(entries[wrong[0]]).__name__}")
    return {str(name): _array(torch, tensor) for name, tensor in entries.items()}


def _array(torch: Any, tensor: Any) -> Array:
    tensor = tensor.detach()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
