"""Data sets: divisions, IDX files and every way they can be wrong; pixels as mantissas."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shiftgrad.datasets import Dataset, DatasetError, load, mantissas


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_part(folder: Path, part: str, count: int, *, zipped: bool = False, first: int = 0) -> None:
    images = np.arange(first, first + count, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    labels = ((np.arange(count) + first) % 10).astype(np.uint8)
    for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx(array)
        name = f"{part}-{stem}-ubyte"
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


def test_digits() -> None:
    data = load("digits", seed=3)
    assert data.images.shape == (1437, 64) and data.test_images.shape == (360, 64)
    assert data.images.dtype == data.labels.dtype == np.uint8
    assert data.images.max() == 255 and data.images.min() == 0
    assert set(np.unique(data.images)) <= {x * 255 // 16 for x in range(17)}
    assert (data.shape, data.inputs, data.classes) == ((8, 8, 1), 64, 10)
    assert not data.centred and data.blank == 0
    assert set(data.labels) == set(range(10))


def test_digits_division_follows_the_seed() -> None:
    first, again, other = (load("digits", seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.test_labels, again.test_labels)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_as_published(tmp_path: Path, zipped: bool) -> None:
    write_part(tmp_path, "train", 30, zipped=zipped)
    write_part(tmp_path, "t10k", 7, zipped=zipped, first=100)
    data = load("mnist", tmp_path)
    assert data.images.shape == (30, 784) and data.test_images.shape == (7, 784)
    assert list(data.images[:, 0]) == list(range(30)) and list(data.test_images[:, 0]) == list(range(100, 107))
    assert list(data.labels) == [i % 10 for i in range(30)]
    assert (data.name, data.shape, data.classes, data.centred) == ("mnist", (28, 28, 1), 10, False)


def test_mnist_t10k_alone_is_divided_by_a_fixed_permutation(tmp_path: Path) -> None:
    images = np.zeros((10_000, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(10_000) >> 8, np.arange(10_000) & 255
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx((np.arange(10_000) % 10).astype(np.uint8)))
    data = load("mnist", tmp_path, seed=5)
    order = np.random.default_rng(0).permutation(10_000)
    assert list(data.images[:, 0].astype(int) * 256 + data.images[:, 1]) == list(order[:8000])
    assert list(data.test_images[:, 0].astype(int) * 256 + data.test_images[:, 1]) == list(order[8000:])
    assert list(data.test_labels) == list(order[8000:] % 10)


def test_mnist_train_alone_is_divided(tmp_path: Path) -> None:
    write_part(tmp_path, "train", 60)
    data = load("mnist", tmp_path)
    assert (len(data.images), len(data.test_images)) == (50, 10)
    assert sorted([*data.images[:, 0], *data.test_images[:, 0]]) == list(range(60))


def test_mnist14_averages_the_same_images(tmp_path: Path) -> None:
    print("seed 4")
    images = np.random.default_rng(4).integers(0, 256, (20, 28, 28)).astype(np.uint8)
    images[0, :2, :6] = [[255, 255, 0, 1, 1, 0], [255, 255, 1, 0, 0, 0]]  # 255, a half and a quarter
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(20, dtype=np.uint8) % 10))
    whole, small = load("mnist", tmp_path), load("mnist14", tmp_path)
    assert (small.name, small.shape, small.inputs, small.classes) == ("mnist14", (14, 14, 1), 196, 10)
    corners = [whole.images.reshape(-1, 28, 28)[:, y::2, x::2].astype(float) for y in (0, 1) for x in (0, 1)]
    wanted = np.floor(sum(corners) / 4 + 0.5).reshape(-1, 196)
    np.testing.assert_array_equal(small.images, wanted)
    first = np.flatnonzero(np.random.default_rng(0).permutation(20) == 0)[0]
    assert list(np.vstack([small.images, small.test_images])[first, :3]) == [255, 1, 0]
    assert len(small.test_images) == 4 and small.test_images.shape[1] == 196
    np.testing.assert_array_equal(small.labels, whole.labels)
    np.testing.assert_array_equal(small.test_labels, whole.test_labels)


@pytest.mark.parametrize(("part", "least"), [("t10k", 5), ("train", 6)])
def test_too_few_to_hold_one_out(tmp_path: Path, part: str, least: int) -> None:
    write_part(tmp_path, part, least)
    assert len(load("mnist", tmp_path).test_labels) == 1
    write_part(tmp_path, part, least - 1)
    with pytest.raises(DatasetError, match=f"at least {least} images, one to hold out, got {least - 1}"):
        load("mnist", tmp_path)


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, lambda d: b"\0\0\x0d\3" + d[4:], "wanted IDX magic 00000803 .* got 00000d03"),
        (IMAGES, lambda d: b"", "wanted IDX magic 00000803"),
        (IMAGES, lambda d: d[:9], "wanted a header of 16 bytes, got 9"),
        (IMAGES, lambda d: d[:-1], "wanted 3920 bytes of data for 5 x 28 x 28, got 3919"),
        (IMAGES, lambda d: d + b"x", "wanted 3920 bytes of data for 5 x 28 x 28, got 3921"),
        (IMAGES, lambda d: d[:8] + struct.pack(">II", 14, 56) + d[16:], "wanted images of 28 x 28, got 14 x 56"),
        (IMAGES, lambda d: gzip.compress(d)[:-12], "wanted a readable IDX file"),
        (IMAGES, lambda d: gzip.compress(d)[:40] + b"\xff" * 20, "wanted a readable IDX file"),
        (LABELS, lambda d: d[:4] + struct.pack(">I", 4) + d[8:-1], "wanted 5 labels, .* got 4"),
        (LABELS, lambda d: d[:-1] + b"\x0a", "wanted labels from 0 to 9, got 10 at index 4"),
        (LABELS, lambda d: None, f"wanted {LABELS}.* beside {IMAGES}, got no such file"),
        (IMAGES, lambda d: None, f"wanted {IMAGES}.* beside {LABELS}, got no such file"),
    ],
)
def test_a_damaged_file_is_named_with_what_was_wanted(tmp_path: Path, name: str, damage, message: str) -> None:
    write_part(tmp_path, "t10k", 5)
    path = tmp_path / name
    data = damage(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        load("mnist", tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_no_images_at_all(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 0)
    with pytest.raises(DatasetError, match="wanted at least one image, got none"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("folder", ["", "missing"])
def test_missing_files(tmp_path: Path, folder: str) -> None:
    with pytest.raises(DatasetError, match="wanted .* got (neither|no such folder)"):
        load("mnist", tmp_path / folder)


def test_names() -> None:
    with pytest.raises(DatasetError, match="no data set 'cifar'; there are: digits, mnist, mnist14, cifar10"):
        load("cifar")
    for name in ("mnist", "mnist14", "cifar10"):
        with pytest.raises(DatasetError, match=f"{name}: wanted --data-dir"):
            load(name)


# --- the record -----------------------------------------------------------------------------------


def colour() -> Dataset:
    return Dataset(name="colour", images=np.zeros((4, 18), np.uint8), labels=np.zeros(4, np.uint8),
                   test_images=np.zeros((2, 18), np.uint8), test_labels=np.zeros(2, np.uint8), shape=(2, 3, 3),
                   classes=2, centred=True)


def test_images_must_have_the_shape() -> None:
    assert colour().inputs == 18
    for wrong, message in (
        ({"shape": (2, 3)}, r"wanted a shape of \(height, width, channels\), got \(2, 3\)"),
        ({"shape": (2, 3, 1)}, r"wanted training images of uint8 \[n, 6\], got uint8 \[4, 18\]"),
        ({"test_images": np.zeros((2, 2, 9), np.uint8)}, r"wanted held-out images .* got uint8 \[2, 2, 9\]"),
        ({"images": np.zeros((4, 18), np.int8)}, r"wanted training images .* got int8 \[4, 18\]"),
        ({"labels": np.zeros(3, np.uint8)}, "4 training images need as many labels, got 3"),
        ({"labels": np.full(4, 2, np.uint8)}, "wanted training labels of uint8 below 2, got uint8 up to 2"),
        ({"labels": np.zeros(4)}, "wanted training labels of uint8 below 2, got float64 up to 0.0"),
    ):
        with pytest.raises(DatasetError, match=f"colour: {message}"):
            replace(colour(), **wrong)


def test_mantissas() -> None:
    every = np.arange(256, dtype=np.uint8)
    grey, centred = mantissas(every, False), mantissas(every, True)
    assert grey.dtype == centred.dtype == np.int8
    assert grey.tolist() == [p // 2 for p in range(256)]
    assert centred.tolist() == [-127, *range(-127, 128)]
    with pytest.raises(TypeError, match="images must be uint8 pixels, got int8"):
        mantissas(every.astype(np.int8), True)


@pytest.mark.parametrize("centred", [False, True])
def test_blank_is_the_pixel_of_mantissa_0(centred: bool) -> None:
    data = replace(colour(), centred=centred)
    assert mantissas(np.array([data.blank], np.uint8), centred).tolist() == [0]
