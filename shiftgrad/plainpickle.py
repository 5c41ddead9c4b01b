"""Reads pickles of plain data: dictionaries, lists, strings, numbers and NumPy arrays of integers, and nothing else.

A pickle is a program that may call whatever it can name. Here the few names that an array's pickle needs mean stand-ins
defined below, which only take notes; any other name is refused. Neither NumPy nor anything else runs at a pickle's
request, so that no forged array description reaches NumPy's own reconstruction either.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["PlainArray", "PlainPickleError", "read"]

INTEGER = re.compile(r"[iu][1248]")


class PlainPickleError(ValueError):
    """A pickle that is damaged or asks for more than plain data."""


class PlainArray:
    """An array of integers, as a pickle describes it; ``values`` is None until it has."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        """Take ``ndarray``'s state: version, shape, type, whether columns go first, and the elements' bytes."""
        version, shape, kind, columns_first, raw = state
        if not isinstance(kind, _Type) or type(shape) is not tuple or type(raw) is not bytes:
            raise PlainPickleError("an array with a description of another form")
        if not all(type(size) is int and size >= 0 for size in shape):
            raise PlainPickleError(f"an array of shape {shape}")
        if len(raw) != math.prod(shape) * kind.dtype.itemsize:
            raise PlainPickleError(f"{len(raw)} bytes for an array of {kind.dtype} {list(shape)}")
        self.values = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if columns_first else "C")


class _Type:
    """An element type; integers only."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any, *flags: Any) -> None:
        name = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(name, str) or not INTEGER.fullmatch(name):
            raise PlainPickleError(f"an array of type {name}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        """Take ``dtype``'s state: all an integer has is its byte order."""
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise PlainPickleError(f"an array of byte order {order}")
        self.dtype = np.dtype(f"{order}{self.dtype.str[1:]}")


class _Name:
    """What a name in a pickle means. It can be called, and not changed."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise PlainPickleError("a state for what has none")


def _array(*arguments: Any) -> PlainArray:
    return PlainArray()  # the state that follows has all there is to know


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise PlainPickleError(f"text in {encoding}")
    return text.encode("latin1")


def _ndarray(*arguments: Any) -> NoReturn:
    raise PlainPickleError("an array that is made by its class")


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes where Python 2 can read them
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Name:
        if (module, name) not in NAMES:
            raise PlainPickleError(f"a pickle that asks for {module}.{name}")
        return _Name(NAMES[module, name])


def read(data: bytes) -> Any:
    """The object pickled in ``data``; strings of Python 2 are bytes, arrays are :class:`PlainArray`.

    Raises
    ------
    PlainPickleError
        what was got instead; nothing has been executed
    """
    file = io.BytesIO(data)
    try:
        found = _Reader(file, encoding="bytes").load()
    except PlainPickleError:
        raise
    except Exception as error:  # a damaged pickle may end in nearly any of them
        raise PlainPickleError(f"a damaged pickle ({type(error).__name__}: {error})") from None
    if left := len(data) - file.tell():
        raise PlainPickleError(f"{left} bytes after the pickle's end")
    return found
