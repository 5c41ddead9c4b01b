"""Flips and shifts: what they do to a picture, and that the seed and the step alone decide them."""

import numpy as np
import pytest

from shiftgrad.augment import augmented

SHAPE = (4, 5, 3)
OPTIONS = {"flip": True, "shift": 2, "blank": 128, "seed": 3, "step": 7}


def pictures(count: int = 64, seed: int = 9) -> np.ndarray:
    print(f"seed {seed}")
    return np.random.default_rng(seed).integers(0, 100, (count, 4 * 5 * 3)).astype(np.uint8)


def moved(picture: np.ndarray, mirrored: bool, down: int, right: int, blank: int) -> np.ndarray:
    """One pixel at a time."""
    source, out = picture.reshape(SHAPE), np.full(SHAPE, blank, np.uint8)
    for y in range(4):
        for x in range(5):
            if 0 <= y - down < 4 and 0 <= x - right < 5:
                at = x - right
                out[y, x] = source[y - down, 4 - at if mirrored else at]
    return out.reshape(-1)


def found(before: np.ndarray, after: np.ndarray, most: int, blank: int) -> tuple[bool, int, int]:
    """How ``after`` came of ``before``; it must be in exactly one way."""
    ways = [(mirrored, down, right) for mirrored in (False, True) for down in range(-most, most + 1)
            for right in range(-most, most + 1)
            if np.array_equal(moved(before, mirrored, down, right, blank), after)]
    assert len(ways) == 1, ways
    return ways[0]


@pytest.mark.parametrize("blank", [0, 128])
def test_every_image_is_mirrored_and_moved_on_its_own(blank: int) -> None:
    before = pictures(400)
    after = augmented(before, SHAPE, **OPTIONS | {"blank": blank})
    assert after.dtype == np.uint8 and after.shape == before.shape
    ways = [found(*pair, 2, blank) for pair in zip(before, after, strict=True)]
    mirrored, down, right = np.array(ways).T
    assert 160 < mirrored.sum() < 240
    for moves in (down, right):
        counts = np.bincount(moves + 2, minlength=5)
        assert len(counts) == 5 and counts.min() > 50, counts
    assert len(set(ways)) == 50, "every combination occurs"


def test_flips_alone() -> None:
    before = pictures()
    after = augmented(before, SHAPE, **OPTIONS | {"shift": 0})
    ways = [found(*pair, 0, 0) for pair in zip(before, after, strict=True)]
    assert {way[0] for way in ways} == {False, True}


def test_shifts_alone_are_those_with_flips() -> None:
    before = pictures()
    shifts = [[found(*pair, 2, 128)[1:] for pair in zip(before, augmented(before, SHAPE, **OPTIONS | {"flip": flip}),
                                                       strict=True)] for flip in (False, True)]
    assert shifts[0] == shifts[1]


def test_nothing_asked_nothing_done() -> None:
    before = pictures()
    np.testing.assert_array_equal(augmented(before, SHAPE, **OPTIONS | {"flip": False, "shift": 0}), before)


def test_the_images_given_stay_as_they_are() -> None:
    before, copy = pictures(), pictures()
    before.setflags(write=False)
    augmented(before, SHAPE, **OPTIONS)
    np.testing.assert_array_equal(before, copy)


def test_seed_and_step_decide() -> None:
    before = pictures()
    first = augmented(before, SHAPE, **OPTIONS)
    np.random.default_rng(1).random(5)
    np.testing.assert_array_equal(first, augmented(before, SHAPE, **OPTIONS))
    for other in ({"seed": 4}, {"step": 8}, {"seed": 7, "step": 3}):
        assert not np.array_equal(first, augmented(before, SHAPE, **OPTIONS | other)), other
