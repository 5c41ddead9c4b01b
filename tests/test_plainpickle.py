"""Pickles of plain data are read; what asks for anything else is refused, and nothing of it runs."""

import functools
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shiftgrad.plainpickle import PlainArray, PlainPickleError, read

NAMED = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def described(shape: bytes = b"K\x02\x85", kind: bytes = b"u1", order: bytes = b"|", raw: bytes = b"ab") -> bytes:
    """An array as Python 2 pickles it, forged at will."""
    dtype = b"cnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\x00K\x01\x87R(K\x03U\x01" + order
    return (NAMED + b"(K\x01" + shape + dtype + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
            + bytes([len(raw)]) + raw + b"tb.")


def equal(got: Any, wanted: np.ndarray) -> None:
    assert isinstance(got, PlainArray) and got.values is not None
    assert got.values.dtype == wanted.dtype
    np.testing.assert_array_equal(got.values, wanted)


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("kind", ["u1", "i1", "<u2", ">i4", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_integers(protocol: int, kind: str, order: str) -> None:
    array = np.array([[1, 2, 3], [100, 120, 127]], kind, order=order)
    found = read(pickle.dumps({"a": array, "b": [1, "x", b"y"]}, protocol))
    equal(found["a"], array)
    assert found["b"] == [1, "x", b"y"]


def test_arrays_of_python_2() -> None:
    equal(read(described()), np.array([97, 98], np.uint8))
    equal(read(described(kind=b"i2", order=b">", shape=b"K\x01\x85")), np.array([0x6162], ">i2"))
    assert read(b"\x80\x02}U\x04dataU\x02\x80\xffs.") == {b"data": b"\x80\xff"}


def test_the_name_of_today_and_of_yesterday() -> None:
    equal(read(described().replace(b"numpy.core.", b"numpy._core.")), np.array([97, 98], np.uint8))


# --- what is refused ------------------------------------------------------------------------------


def attacks(mark: Path) -> dict[str, tuple[Any, str]]:
    """Objects that make ``mark`` when they are unpickled, and what asks for it."""
    system, command = f"{os.system.__module__}.system", f"touch '{mark}'"
    strike = Calls(os.system, command)
    return {
        "alone": (strike, system),
        "beside good data": ({b"data": np.zeros((1, 3), np.uint8), b"labels": [1], b"more": strike}, system),
        "as a key": ({(strike, 1): 1}, system),
        "in an object array": ({b"data": np.array([strike, None], object)}, "type O8|system"),
        "as an array's type": (Calls(np.dtype, strike), system),
        "as text to encode": (Calls(__import__("_codecs").encode, strike, "latin1"), system),
        "as a call's argument": (Calls(list, (strike,)), "list"),
        "by way of another call": (Calls(functools.partial(os.system, command)), "functools.partial"),
        "by eval": (Calls(eval, f"__import__('os').system({command!r})"), "eval"),
        "by exec": (Calls(exec, f"import os; os.system({command!r})"), "exec"),
    }


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("name", attacks(Path("x")))
def test_nothing_is_executed(tmp_path: Path, name: str, protocol: int) -> None:
    mark = tmp_path / "struck"
    attack, asked = attacks(mark)[name]
    data = pickle.dumps(attack, protocol)
    with pytest.raises(PlainPickleError, match=f"(asks for|of) .*({asked})"):
        read(data)
    assert not mark.exists()


def test_the_attack_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(attacks(tmp_path / "struck")["beside good data"][0]))
    assert (tmp_path / "struck").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (described(kind=b"O8"), "an array of type O8"),
        (described(kind=b"f4"), "an array of type f4"),
        (described(kind=b"V9"), "an array of type V9"),
        (described(kind=b"u1,O"), "an array of type u1,O"),
        (described(order=b"x"), "byte order x"),
        (described(raw=b"abc"), "3 bytes for an array of uint8"),
        (described(shape=b"K\x03\x85"), "2 bytes for an array of uint8"),
        (described(shape=b"J\xfe\xff\xff\xff\x85"), "an array of shape"),
        (described(shape=b"K\x02"), "another form"),
        (described().replace(b"U\x02ab", b"]"), "another form"),
        (described().replace(b"U\x02ab", b""), "damaged pickle"),
        (b"\x80\x02cnumpy\nndarray\nK\x02\x85R.", "made by its class"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "damaged pickle"),
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0zip\x86R.", "text in zip"),
        (b"\x80\x02cnumpy\ndtype\n}X\x05\0\0\0_callNsb.", "a state for what has none"),
        (b"\x80\x02cnumpy\ndtype\nN}X\x05\0\0\0_callNs\x86b.", "a state for what has none"),
        (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "asks for numpy.ndarray.__class__"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n.", "asks for numpy.core.multiarray.scalar"),
        (b"\x80\x02cnumpy\nload\n.", "asks for numpy.load"),
        (b"\x80\x02U\x01aQ.", "damaged pickle"),
        (b"\x80\x02U\x05a.", "damaged pickle"),
        (b"", "damaged pickle"),
        (b"hello", "damaged pickle"),
        (pickle.dumps([1]) + b"xy", "2 bytes after the pickle's end"),
    ],
)
def test_forged_and_damaged(data: bytes, message: str) -> None:
    with pytest.raises(PlainPickleError, match=message):
        read(data)


def test_every_truncation_is_noticed() -> None:
    data = described()
    for length in range(len(data)):
        with pytest.raises(PlainPickleError):
            read(data[:length])
