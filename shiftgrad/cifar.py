"""CIFAR-10 from the files of its standard binary or Python version."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.images import Dataset, DatasetError, Images, Part
from shiftgrad.plainpickle import PlainArray, PlainPickleError, read

__all__ = ["cifar10"]

SIDE, CHANNELS, CLASSES = 32, 3, 10
PIXELS = SIDE * SIDE * CHANNELS
RECORD = 1 + PIXELS
HELD_OUT = 10  # the tenth part is held out where there is no test_batch
LABELS = ("labels", "fine_labels")


def cifar10(data_dir: Path | None, seed: int) -> Dataset:
    """CIFAR-10 as :func:`shiftgrad.datasets.load` gives it; the division does not depend on the seed."""
    if data_dir is None:
        raise DatasetError("cifar10: wanted --data-dir, the folder of its data_batch_* files, got none")
    if not data_dir.is_dir():
        raise DatasetError(f"{data_dir}: wanted the folder of the CIFAR-10 files, got no such folder")
    layout, folder, batches = _found(data_dir)
    images, labels = _joined([layout.read(path) for path in batches])
    test = folder / f"test_batch{layout.ending}"
    if test.exists():
        held = layout.read(test)
    else:
        if len(labels) < HELD_OUT:
            raise DatasetError(f"{folder}: wanted at least {HELD_OUT} images, one to hold out, got {len(labels)}")
        cut = len(labels) - len(labels) // HELD_OUT
        images, labels, held = images[:cut], labels[:cut], (images[cut:], labels[cut:])
    return Dataset(name="cifar10", images=images, labels=labels, test_images=held[0], test_labels=held[1],
                   shape=(SIDE, SIDE, CHANNELS), classes=CLASSES, centred=True)


# --- which files ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """A version: the folder its archive makes, how its files' names end, and what reads one."""

    folder: str
    ending: str
    read: Callable[[Path], Part]

    def batches(self, folder: Path) -> list[Path]:
        """The training files of ``folder`` by their number, 10 after 9."""
        name = re.compile(rf"data_batch_([0-9]+){re.escape(self.ending)}")
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := name.fullmatch(path.name))]
        return [path for _, path in sorted(found)]


def _found(data_dir: Path) -> tuple[_Layout, Path, list[Path]]:
    """The first place with training files: binary before Python, ``data_dir`` itself before the archive's folder."""
    for layout in LAYOUTS:
        for folder in (data_dir, data_dir / layout.folder):
            if folder.is_dir() and (batches := layout.batches(folder)):
                return layout, folder, batches
    raise DatasetError(f"{data_dir}: wanted data_batch_1.bin, ... or data_batch_1, ..., there or in "
                       f"{' or '.join(layout.folder for layout in LAYOUTS)}, got neither")


def _joined(parts: list[Part]) -> Part:
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


# --- one file -------------------------------------------------------------------------------------


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: wanted a readable CIFAR-10 file, got: {error.strerror}") from None
    if not data:
        raise DatasetError(f"{path}: wanted at least one image, got an empty file")
    return data


def _binary(path: Path) -> Part:
    data = _bytes(path)
    if rest := len(data) % RECORD:
        raise DatasetError(f"{path}: wanted whole records of {RECORD} bytes, a label and {PIXELS} pixels, got "
                           f"{len(data)} bytes: {rest} more than {len(data) // RECORD} records")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    return _checked(path, records[:, 1:], records[:, 0])


def _python(path: Path) -> Part:
    try:
        batch = read(_bytes(path))
    except PlainPickleError as error:
        raise DatasetError(f"{path}: wanted a pickle of arrays and lists of integers, got {error}") from None
    if not isinstance(batch, dict):
        raise DatasetError(f"{path}: wanted a pickled dictionary, got {type(batch).__name__}")
    return _checked(path, _data(path, batch), _labels(path, batch))


def _values(batch: dict[Any, Any], *names: str) -> Iterator[Any]:
    """The values under ``names``, as strings of Python 3 or 2."""
    return (batch[key] for name in names for key in (name.encode(), name) if key in batch)


def _data(path: Path, batch: dict[Any, Any]) -> Images:
    value = next(_values(batch, "data"), None)
    array = value.values if isinstance(value, PlainArray) else None
    if array is None:
        raise DatasetError(f"{path}: wanted an array under 'data', got {_kind(value)}")
    if array.dtype != np.uint8 or array.shape[1:] != (PIXELS,):
        raise DatasetError(f"{path}: wanted 'data' of uint8 [n, {PIXELS}], got {array.dtype} {list(array.shape)}")
    return array


def _labels(path: Path, batch: dict[Any, Any]) -> NDArray[Any]:
    value = next(_values(batch, *LABELS), None)
    if isinstance(value, PlainArray) and value.values is not None and value.values.ndim == 1:
        return value.values
    if not isinstance(value, list):
        raise DatasetError(f"{path}: wanted a list under 'labels', got {_kind(value)}")
    if others := [label for label in value if type(label) is not int]:
        raise DatasetError(f"{path}: wanted integers in 'labels', got {_kind(others[0])}")
    try:
        return np.array(value, np.int64)
    except OverflowError:
        raise DatasetError(f"{path}: wanted labels from 0 to {CLASSES - 1}, got one beyond 64 bits") from None


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    return "an array of another form" if isinstance(value, PlainArray) else f"one of {type(value).__name__}"


def _checked(path: Path, planes: Images, labels: NDArray[Any]) -> Part:
    """Images [n, 3072], the colours of a pixel together, of [n, 3 planes of 32 x 32], and uint8 labels."""
    if len(planes) == 0:
        raise DatasetError(f"{path}: wanted at least one image, got none")
    if len(labels) != len(planes):
        raise DatasetError(f"{path}: wanted {len(planes)} labels, one an image, got {len(labels)}")
    bad = (labels < 0) | (labels >= CLASSES)
    if bad.any():
        at = int(np.argmax(bad))
        raise DatasetError(f"{path}: wanted labels from 0 to {CLASSES - 1}, got {labels[at]} at index {at}")
    images = planes.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1).reshape(-1, PIXELS)
    return images, labels.astype(np.uint8)


LAYOUTS = (
    _Layout(folder="cifar-10-batches-bin", ending=".bin", read=_binary),
    _Layout(folder="cifar-10-batches-py", ending="", read=_python),
)
