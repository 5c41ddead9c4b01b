"""CIFAR-10: both versions, the division, and every way a file can be wrong."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shiftgrad.datasets import Dataset, DatasetError, load

RECORD = 3073


def planes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and pixels as both versions store them: [n, colour, row, column]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 10, count).astype(np.uint8), rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)


def binary(count: int, seed: int = 0) -> bytes:
    labels, pixels = planes(count, seed)
    return np.hstack([labels[:, None], pixels.reshape(count, -1)]).tobytes()


def python_3(count: int, seed: int = 0, *, protocol: int = 2, **changes: Any) -> bytes:
    labels, pixels = planes(count, seed)
    batch: dict[str, Any] = {"batch_label": "one", "labels": labels.tolist(), "data": pixels.reshape(count, -1)}
    batch = {key: value for key, value in (batch | changes).items() if value is not None}
    return pickle.dumps(batch, protocol)


def python_2(count: int, seed: int = 0) -> bytes:
    """The published files: Python 2 strings, which become bytes, as keys and elements."""
    labels, pixels = planes(count, seed)

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    raw, size = pixels.tobytes(), b"M" + count.to_bytes(2, "little")
    array = (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R(K\x01"
             + size + b"M\x00\x0c\x86cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R(K\x03" + short(b"|")
             + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb")
    items = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (b"\x80\x02}(" + short(b"batch_label") + short(b"training batch 1 of 5") + short(b"labels") + items
            + short(b"data") + array + b"u.")


def write(folder: Path, make: Any = binary, **counts: int) -> None:
    """Files called by ``counts``, ``.bin`` for the binary version, each with other images."""
    folder.mkdir(exist_ok=True)
    for seed, (name, count) in enumerate(counts.items()):
        (folder / (name + ".bin" * (make is binary))).write_bytes(make(count, seed))


def check(data: Dataset, train: list[tuple[int, int]], test: list[tuple[int, int]] | None = None,
          held: int = 0) -> None:
    """``data`` is what :func:`planes` made of each (count, seed), the last ``held`` held out unless there is a test."""

    def joined(parts: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        made = [planes(*part) for part in parts]
        pixels = np.concatenate([p for _, p in made])
        wanted = np.zeros((len(pixels), 32, 32, 3), np.uint8)
        for colour in range(3):
            wanted[..., colour] = pixels[:, colour]
        return np.concatenate([labels for labels, _ in made]), wanted.reshape(len(pixels), -1)

    labels, images = joined(train)
    cut = len(labels) - held
    test_labels, test_images = joined(test) if test else (labels[cut:], images[cut:])
    for got, wanted in ((data.images, images[:cut]), (data.labels, labels[:cut]), (data.test_images, test_images),
                        (data.test_labels, test_labels)):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, wanted)


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [binary, python_2, python_3])
def test_as_published(tmp_path: Path, make: Any) -> None:
    write(tmp_path, make, data_batch_1=4, data_batch_2=3, test_batch=2)
    data = load("cifar10", tmp_path, seed=5)
    check(data, [(4, 0), (3, 1)], [(2, 2)])
    assert (data.name, data.shape, data.inputs, data.classes, data.centred) == ("cifar10", (32, 32, 3), 3072, 10, True)


@pytest.mark.parametrize("make", [binary, python_2])
@pytest.mark.parametrize(("last", "held"), [(6, 1), (15, 1), (16, 2)])
def test_without_a_test_batch_the_last_tenth_is_held_out(tmp_path: Path, make: Any, last: int, held: int) -> None:
    write(tmp_path, make, data_batch_1=4, data_batch_2=last)
    check(load("cifar10", tmp_path, seed=1), [(4, 0), (last, 1)], held=held)


def test_too_few_to_hold_one_out(tmp_path: Path) -> None:
    write(tmp_path, data_batch_1=9)
    with pytest.raises(DatasetError, match="at least 10 images, one to hold out, got 9"):
        load("cifar10", tmp_path)


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, data_batch_10=5, data_batch_2=3, data_batch_1=4)
    (tmp_path / "data_batch_3.bin.part").write_bytes(b"x")
    (tmp_path / "batches.meta.txt").write_bytes(b"airplane")
    check(load("cifar10", tmp_path), [(4, 2), (3, 1), (5, 0)], held=1)


@pytest.mark.parametrize(("name", "make"), [("cifar-10-batches-bin", binary), ("cifar-10-batches-py", python_2)])
def test_the_folder_of_the_archives_folder(tmp_path: Path, name: str, make: Any) -> None:
    write(tmp_path / name, make, data_batch_1=4, test_batch=2)
    check(load("cifar10", tmp_path), [(4, 0)], [(2, 1)])
    check(load("cifar10", tmp_path / name), [(4, 0)], [(2, 1)])


def test_binary_comes_before_python_and_here_before_the_archives_folder(tmp_path: Path) -> None:
    write(tmp_path / "cifar-10-batches-py", python_2, data_batch_1=3, test_batch=3)
    write(tmp_path, python_2, data_batch_1=4, test_batch=4)
    check(load("cifar10", tmp_path), [(4, 0)], [(4, 1)])
    write(tmp_path / "cifar-10-batches-bin", binary, data_batch_1=5, test_batch=5)
    check(load("cifar10", tmp_path), [(5, 0)], [(5, 1)])
    write(tmp_path, binary, data_batch_1=11)  # without a test_batch of its own: none of another version is taken
    check(load("cifar10", tmp_path), [(11, 0)], held=1)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickles_of_python_3(tmp_path: Path, protocol: int) -> None:
    labels, pixels = planes(12, 0)
    shapes = {"data": np.asfortranarray(pixels.reshape(12, -1)), "labels": None, "fine_labels": labels.astype(">i8")}
    (tmp_path / "data_batch_1").write_bytes(python_3(12, protocol=protocol, **shapes))
    check(load("cifar10", tmp_path), [(12, 0)], held=1)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: b"", "wanted at least one image, got an empty file"),
        (lambda d: d[:-1], f"wanted whole records of {RECORD} bytes.* got {12 * RECORD - 1} bytes: {RECORD - 1} more"),
        (lambda d: d + b"\0", f"got {12 * RECORD + 1} bytes: 1 more than 12 records"),
        (lambda d: d[:100], "got 100 bytes: 100 more than 0 records"),
        (lambda d: d[: 2 * RECORD] + b"\x0a" + d[2 * RECORD + 1:], "wanted labels from 0 to 9, got 10 at index 2"),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_1.bin", "test_batch.bin"])
def test_a_damaged_binary_file(tmp_path: Path, name: str, damage: Any, message: str) -> None:
    write(tmp_path, data_batch_1=12, test_batch=12)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(DatasetError, match=message) as caught:
        load("cifar10", tmp_path)
    assert str(tmp_path / name) in str(caught.value)


ONES = [1] * 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"hello", "wanted a pickle of arrays and lists of integers, got a damaged pickle"),
        (python_2(12)[:-1], "got a damaged pickle"),
        (python_2(12)[:9000], "got a damaged pickle"),
        (python_2(12) + b"\0", "got 1 bytes after the pickle's end"),
        (pickle.dumps([1], 2), "wanted a pickled dictionary, got list"),
        (python_3(12, data=None), "wanted an array under 'data', got none"),
        (python_3(12, data=[1, 2]), "wanted an array under 'data', got one of list"),
        (python_3(12, labels=None), "wanted a list under 'labels', got none"),
        (python_3(12, labels=(1, 2)), "wanted a list under 'labels', got one of tuple"),
        (python_3(12, labels=np.ones((12, 1), np.uint8)), "wanted a list under 'labels', got an array of another form"),
        (python_3(12, data=np.zeros((12, 3072), np.int8)), r"'data' of uint8 \[n, 3072\], got int8 \[12, 3072\]"),
        (python_3(12, data=np.zeros((12, 784), np.uint8)), r"got uint8 \[12, 784\]"),
        (python_3(12, data=np.zeros(3072, np.uint8)), r"got uint8 \[3072\]"),
        (python_3(12, data=np.zeros((12, 3072), np.float32)), "got an array of type f4"),
        (python_3(12, data=np.zeros((12, 3072), object)), "got an array of type O8"),
        (python_3(12, labels=np.array(ONES, object)), "got an array of type O8"),
        (python_3(12, protocol=5), "got a pickle that asks for numpy._core.numeric._frombuffer"),
        (python_3(12, labels=ONES[1:]), "wanted 12 labels, one an image, got 11"),
        (python_3(12, labels=[*ONES, 1]), "wanted 12 labels, one an image, got 13"),
        (python_3(12, labels=[1, 10, *ONES[2:]]), "wanted labels from 0 to 9, got 10 at index 1"),
        (python_3(12, labels=[1, -1, *ONES[2:]]), "wanted labels from 0 to 9, got -1 at index 1"),
        (python_3(12, labels=[1, 257, *ONES[2:]]), "wanted labels from 0 to 9, got 257 at index 1"),
        (python_3(12, labels=[1, 10**6000, *ONES[2:]]), "wanted labels from 0 to 9, got one beyond 64 bits"),
        (python_3(12, labels=[1, 0.0, *ONES[2:]]), "wanted integers in 'labels', got one of float"),
        (python_3(12, labels=[1, True, *ONES[2:]]), "wanted integers in 'labels', got one of bool"),
        (python_3(12, labels=[1, None, *ONES[2:]]), "wanted integers in 'labels', got none"),
        (python_3(12, labels=np.full(12, 10)), "wanted labels from 0 to 9, got 10 at index 0"),
        (python_2(0).replace(b"T\0\0\0\0", b"U\0"), "wanted at least one image, got none"),
    ],
)
def test_a_damaged_python_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        load("cifar10", tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


class Strike:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (os.system, (f"touch '{self.mark}'",))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: [s], lambda s: np.array([[s]], object)])
@pytest.mark.parametrize("key", ["data", "labels", "more"])
@pytest.mark.parametrize("name", ["data_batch_1", "test_batch"])
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, name: str, key: str, wrap: Any, protocol: int) -> None:
    write(tmp_path, python_2, data_batch_1=12, test_batch=2)
    (tmp_path / name).write_bytes(python_3(12, protocol=protocol, **{key: wrap(Strike(tmp_path / "struck"))}))
    wanted = rf"{name}: wanted a pickle of arrays and lists of integers, got .* ({os.system.__module__}\.system|O8)"
    with pytest.raises(DatasetError, match=wanted):
        load("cifar10", tmp_path)
    assert not (tmp_path / "struck").exists()


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cifar10: wanted --data-dir, .* got none"):
        load("cifar10")
    with pytest.raises(DatasetError, match=f"{tmp_path}/x: wanted the folder of .*, got no such folder"):
        load("cifar10", tmp_path / "x")
    write(tmp_path, test_batch=2)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DatasetError, match=f"{tmp_path}: wanted data_batch_1.bin, ... or data_batch_1, .* got neither"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["data_batch_1.bin", "test_batch.bin"])
def test_unreadable_files(tmp_path: Path, name: str) -> None:
    write(tmp_path, data_batch_1=12, test_batch=2)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=f"{name}: wanted a readable CIFAR-10 file, got: Is a directory"):
        load("cifar10", tmp_path)
