"""Arrays by name that must be the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def assert_same(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> None:
    """Same names, same values."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
