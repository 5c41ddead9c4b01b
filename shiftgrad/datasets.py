"""The data sets there are: scikit-learn's digits, MNIST and CIFAR-10 from their standard files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from shiftgrad.cifar import cifar10
from shiftgrad.images import Dataset, DatasetError, Images, mantissas
from shiftgrad.mnist import mnist, mnist14, read_idx

__all__ = ["DATASETS", "Dataset", "DatasetError", "Images", "load", "mantissas", "read_idx"]


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
                   test_labels=labels[test], shape=(8, 8, 1), classes=10)


DATASETS: dict[str, Callable[[Path | None, int], Dataset]] = {
    "digits": _digits, "mnist": mnist, "mnist14": mnist14, "cifar10": cifar10,
}


def load(name: str, data_dir: str | Path | None = None, seed: int = 0) -> Dataset:
    """Load a data set.

    ``digits``
        1,797 of 8 x 8, no file needed, 80 / 20 by ``seed``.
    ``mnist``, ``mnist14``
        28 x 28, or those averaged to 14 x 14; IDX files. Both file pairs are used as published; one pair alone is
        divided by a fixed permutation: ``t10k`` into 8,000 to train and 2,000 held out, ``train`` 5 : 1.
    ``cifar10``
        32 x 32 in colour, centred; the binary version's ``data_batch_<number>.bin`` or, where there is none, the Python
        version's ``data_batch_<number>``, in ``data_dir`` itself or in the folder that their archive makes there. Files
        may hold any number of images. ``test_batch`` beside them is held out; without it, their last tenth. Pickles are
        read as plain data, nothing in them is executed; protocol 5, newer than these files, is refused.

    Parameters
    ----------
    name : one of these
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
