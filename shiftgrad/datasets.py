"""Labelled images as uint8: scikit-learn's digits, and MNIST from its standard IDX files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["DATASETS", "Dataset", "DatasetError", "Images", "load", "read_idx"]

Images = NDArray[np.uint8]

IDX_UINT8 = 0x08  # the only IDX element type these files use
MNIST_SHAPE = (28, 28)


class DatasetError(ValueError):
    """A data set that cannot be read: the file, what was wanted and what was got."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images and labels, divided into a training and a held-out part.

    Parameters
    ----------
    name : as :func:`load` knows it
    images : uint8 [n, pixels], to train on
    labels : uint8 [n], each below ``classes``
    test_images, test_labels : the same, held out
    shape : (rows, columns) of one image
    classes : number of labels
    """

    name: str
    images: Images
    labels: Images
    test_images: Images
    test_labels: Images
    shape: tuple[int, int]
    classes: int

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("training", self.images, self.labels),
            ("held-out", self.test_images, self.test_labels),
        ):
            if len(images) != len(labels):
                raise DatasetError(f"{self.name}: {len(images)} {part} images need as many labels, got {len(labels)}")

    @property
    def inputs(self) -> int:
        """Pixels of one image."""
        return math.prod(self.shape)


def _opened(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: wanted a readable IDX file, plain or gzip, got: {error}") from None


def read_idx(path: Path, dims: int) -> Images:
    """The uint8 array of an IDX file, gzip or not.

    ``DatasetError`` unless it has ``dims`` dimensions and no byte is missing or left over.
    """
    data = _opened(path)
    head = 4 + 4 * dims
    wanted = bytes((0, 0, IDX_UINT8, dims))
    if data[:4] != wanted:
        raise DatasetError(f"{path}: wanted IDX magic {wanted.hex()} (uint8, {dims} dimensions), got {data[:4].hex()}")
    if len(data) < head:
        raise DatasetError(f"{path}: wanted a header of {head} bytes, got {len(data)}")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims))
    if len(data) - head != math.prod(shape):
        raise DatasetError(
            f"{path}: wanted {math.prod(shape)} bytes of data for {' x '.join(map(str, shape))}, got {len(data) - head}"
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def _mnist_file(folder: Path, stem: str) -> Path | None:
    """The file that holds ``stem``, under any of the names in use."""
    names = (stem, stem.replace("-idx", ".idx"))
    return next((p for n in names for p in (folder / n, folder / f"{n}.gz") if p.is_file()), None)


def _mnist_part(folder: Path, part: str) -> tuple[Images, Images] | None:
    """Images [n, 784] and labels [n] of ``train`` or ``t10k``; ``None`` when neither file is there."""
    stems = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    pixels, digits = (_mnist_file(folder, stem) for stem in stems)
    if pixels is None and digits is None:
        return None
    if pixels is None or digits is None:
        found, lost = (digits, stems[0]) if pixels is None else (pixels, stems[1])
        raise DatasetError(f"{folder}: wanted {lost}[.gz] beside {found.name if found else ''}, got no such file")
    images, labels = read_idx(pixels, 3), read_idx(digits, 1)
    if images.shape[1:] != MNIST_SHAPE:
        raise DatasetError(f"{pixels}: wanted images of 28 x 28, got {images.shape[1]} x {images.shape[2]}")
    if len(images) != len(labels):
        raise DatasetError(f"{digits}: wanted {len(images)} labels, one an image of {pixels.name}, got {len(labels)}")
    if len(labels) == 0:
        raise DatasetError(f"{pixels}: wanted at least one image, got none")
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DatasetError(f"{digits}: wanted labels from 0 to 9, got {labels[at]} at index {at}")
    return images.reshape(len(images), -1), labels


def _divided(
    folder: Path, train: tuple[Images, Images] | None, t10k: tuple[Images, Images] | None
) -> tuple[tuple[Images, Images], tuple[Images, Images]]:
    """Hold out part of the one file pair there is: a fifth of t10k (10,000 give 8,000 and 2,000), a sixth of train."""
    pair = train or t10k
    if pair is None:
        names = "(images-idx3-ubyte[.gz] and labels-idx1-ubyte[.gz])"
        raise DatasetError(f"{folder}: wanted train-* or t10k-* {names}, got neither")
    images, labels = pair
    parts = 6 if train else 5
    if len(labels) < parts:
        raise DatasetError(f"{folder}: wanted at least {parts} images, one to hold out, got {len(labels)}")
    cut = len(labels) - len(labels) // parts
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order[:cut]], labels[order[:cut]]), (images[order[cut:]], labels[order[cut:]])


def _mnist(data_dir: Path | None, seed: int) -> Dataset:
    if data_dir is None:
        raise DatasetError("mnist: wanted --data-dir, the folder of its IDX files (t10k-*, train-*), got none")
    if not data_dir.is_dir():
        raise DatasetError(f"{data_dir}: wanted the folder of the MNIST IDX files, got no such folder")
    train, test = _mnist_part(data_dir, "train"), _mnist_part(data_dir, "t10k")
    if train is None or test is None:
        train, test = _divided(data_dir, train, test)
    return Dataset(name="mnist", images=train[0], labels=train[1], test_images=test[0], test_labels=test[1],
                   shape=MNIST_SHAPE, classes=10)


def _digits(data_dir: Path | None, seed: int) -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DatasetError("digits: wanted scikit-learn, which holds them, got no such package") from None
    bunch = load_digits()
    images = (bunch.data.astype(np.int64) * 255 // 16).astype(np.uint8)
    labels = bunch.target.astype(np.uint8)
    order = np.random.default_rng(seed).permutation(len(labels))
    cut = len(labels) * 4 // 5
    train, test = order[:cut], order[cut:]
    return Dataset(name="digits", images=images[train], labels=labels[train], test_images=images[test],
                   test_labels=labels[test], shape=(8, 8), classes=10)


DATASETS: dict[str, Callable[[Path | None, int], Dataset]] = {"digits": _digits, "mnist": _mnist}


def load(name: str, data_dir: str | Path | None = None, seed: int = 0) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : ``digits`` (1,797 of 8 x 8, no file needed, 80 / 20 by ``seed``) or ``mnist`` (28 x 28, IDX files of
        ``data_dir``). MNIST with both file pairs is used as published; one pair alone is divided by a fixed
        permutation: ``t10k`` into 8,000 to train and 2,000 held out, ``train`` 5 : 1.
    data_dir : folder of the files; ``digits`` needs none
    seed : of the division of ``digits``

    Raises
    ------
    DatasetError
        the file, what was wanted and what was got
    """
    if name not in DATASETS:
        raise DatasetError(f"no data set {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name](Path(data_dir) if data_dir is not None else None, seed)
