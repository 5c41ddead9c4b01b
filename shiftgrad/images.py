"""Labelled images as uint8, and how their pixels become the machine's int8 mantissas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "DatasetError", "Images", "Part", "mantissas", "pixels"]

Images = NDArray[np.uint8]
Part = tuple[Images, Images]  # images and their labels

CENTRE = 128  # the pixel in the middle of a centred scale


class DatasetError(ValueError):
    """A data set that cannot be read: the file, what was wanted and what was got."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images and labels, divided into a training and a held-out part.

    Parameters
    ----------
    name : as :func:`shiftgrad.datasets.load` knows it
    images : uint8 [n, height * width * channels], to train on; row by row, the channels of a pixel together
    labels : uint8 [n], each below ``classes``
    test_images, test_labels : the same, held out
    shape : (height, width, channels) of one image
    classes : number of labels
    centred : the machine sees pixels from -127 to 127 instead of 0 to 127, see :func:`mantissas`
    """

    name: str
    images: Images
    labels: Images
    test_images: Images
    test_labels: Images
    shape: tuple[int, int, int]
    classes: int
    centred: bool = False

    def __post_init__(self) -> None:
        if len(self.shape) != 3:
            raise DatasetError(f"{self.name}: wanted a shape of (height, width, channels), got {self.shape}")
        for part, images, labels in (
            ("training", self.images, self.labels),
            ("held-out", self.test_images, self.test_labels),
        ):
            if images.dtype != np.uint8 or images.shape[1:] != (self.inputs,):
                raise DatasetError(f"{self.name}: wanted {part} images of uint8 [n, {self.inputs}], "
                                   f"got {images.dtype} {list(images.shape)}")
            if len(images) != len(labels):
                raise DatasetError(f"{self.name}: {len(images)} {part} images need as many labels, got {len(labels)}")
            if labels.dtype != np.uint8 or (labels >= self.classes).any():
                raise DatasetError(f"{self.name}: wanted {part} labels of uint8 below {self.classes}, got "
                                   f"{labels.dtype} up to {labels.max(initial=0)}")

    @property
    def inputs(self) -> int:
        """Elements of one image."""
        return math.prod(self.shape)

    @property
    def blank(self) -> int:
        """The pixel whose mantissa is 0."""
        return CENTRE if self.centred else 0


def mantissas(images: Images, centred: bool) -> NDArray[np.int8]:
    """int8 mantissas of exponent -7: pixel p becomes p // 2, 0 to 127, or, centred, p - 128 saturated to +-127."""
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8 pixels, got {images.dtype}")
    if centred:
        return np.maximum(images.astype(np.int16) - CENTRE, -127).astype(np.int8)
    return (images >> 1).astype(np.int8)


def pixels(images: NDArray[Any]) -> NDArray[np.int8]:
    """int8 mantissas of ``images``: uint8 pixels are taken for grey ones, not centred; int8 stays as it is."""
    if images.dtype == np.uint8:
        return mantissas(images, centred=False)
    if images.dtype != np.int8:
        raise TypeError(f"images must be uint8 pixels or int8 mantissas of exponent -7, got {images.dtype}")
    if images.size and images.min() == -128:
        raise ValueError("mantissas must be from -127 to 127, got -128")
    return images
