"""MNIST from its standard IDX files, whole or averaged to 14 x 14."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from shiftgrad.images import Dataset, DatasetError, Images, Part

__all__ = ["mnist", "mnist14", "read_idx"]

IDX_UINT8 = 0x08  # the only IDX element type these files use
SIDE = 28


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


def _mnist_part(folder: Path, part: str) -> Part | None:
    """Images [n, 784] and labels [n] of ``train`` or ``t10k``; ``None`` when neither file is there."""
    stems = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    pixels, digits = (_mnist_file(folder, stem) for stem in stems)
    if pixels is None and digits is None:
        return None
    if pixels is None or digits is None:
        found, lost = (digits, stems[0]) if pixels is None else (pixels, stems[1])
        raise DatasetError(f"{folder}: wanted {lost}[.gz] beside {found.name if found else ''}, got no such file")
    images, labels = read_idx(pixels, 3), read_idx(digits, 1)
    if images.shape[1:] != (SIDE, SIDE):
        raise DatasetError(f"{pixels}: wanted images of 28 x 28, got {images.shape[1]} x {images.shape[2]}")
    if len(images) != len(labels):
        raise DatasetError(f"{digits}: wanted {len(images)} labels, one an image of {pixels.name}, got {len(labels)}")
    if len(labels) == 0:
        raise DatasetError(f"{pixels}: wanted at least one image, got none")
    if labels.max() > 9:
        at = int(np.argmax(labels > 9))
        raise DatasetError(f"{digits}: wanted labels from 0 to 9, got {labels[at]} at index {at}")
    return images.reshape(len(images), -1), labels


def _divided(folder: Path, train: Part | None, t10k: Part | None) -> tuple[Part, Part]:
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


def _parts(name: str, data_dir: Path | None) -> tuple[Part, Part]:
    if data_dir is None:
        raise DatasetError(f"{name}: wanted --data-dir, the folder of its IDX files (t10k-*, train-*), got none")
    if not data_dir.is_dir():
        raise DatasetError(f"{data_dir}: wanted the folder of the MNIST IDX files, got no such folder")
    train, test = _mnist_part(data_dir, "train"), _mnist_part(data_dir, "t10k")
    return (train, test) if train and test else _divided(data_dir, train, test)


def mnist(data_dir: Path | None, seed: int) -> Dataset:
    """MNIST as :func:`shiftgrad.datasets.load` gives it; the division does not depend on the seed."""
    train, test = _parts("mnist", data_dir)
    return Dataset(name="mnist", images=train[0], labels=train[1], test_images=test[0], test_labels=test[1],
                   shape=(SIDE, SIDE, 1), classes=10)


def _halved(images: Images) -> Images:
    """[n, 28 * 28] to [n, 14 * 14]: the mean of every 2 x 2 pixels, halves rounded up."""
    half = SIDE // 2
    sums = images.reshape(-1, half, 2, half, 2).sum(axis=(2, 4), dtype=np.uint16)
    return ((sums + 2) >> 2).astype(np.uint8).reshape(-1, half * half)


def mnist14(data_dir: Path | None, seed: int) -> Dataset:
    """MNIST averaged to 14 x 14: the same files, division and labels as :func:`mnist`."""
    train, test = _parts("mnist14", data_dir)
    return Dataset(name="mnist14", images=_halved(train[0]), labels=train[1], test_images=_halved(test[0]),
                   test_labels=test[1], shape=(SIDE // 2, SIDE // 2, 1), classes=10)
