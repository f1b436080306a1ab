"""What the network sees of a stored case."""

import jax
import numpy as np
import pytest

from jaxseg.data import augment
from jaxseg.errors import InputError


def stored(b=4, size=8, seed=0):
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (b, size, size, 3), dtype=np.uint8),
        "labels": random.integers(0, 2, (b, size, size), dtype=np.uint8),
        "index": np.arange(b, dtype=np.int32),
    }


def test_images_are_scaled_to_minus_one_and_one():
    batch = stored()
    batch["image"][0, 0, 0], batch["image"][0, 0, 1] = 0, 255
    seen = augment.whole(batch, size=8)
    assert seen["images"][0, 0, 0, 0] == -1 and seen["images"][0, 0, 1, 0] == 1
    np.testing.assert_array_equal(seen["labels"], batch["labels"])
    assert (seen["images"].dtype, seen["labels"].dtype) == (np.float32, np.int32)


def test_halving_is_antialiased_and_keeps_label_values():
    batch = stored(size=16)
    seen = augment.whole(batch, size=8)
    constant = augment.whole({**batch, "image": np.full_like(batch["image"], 51)}, size=8)["images"]
    np.testing.assert_allclose(constant, 51 / 127.5 - 1, atol=1e-6)
    assert set(np.unique(seen["labels"])) <= {0, 1}
    # a triangle filter averages checkerboards away; picking pixels would keep them
    board = np.broadcast_to((np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None], (4, 16, 16, 3))
    assert np.abs(augment.whole({**batch, "image": board}, size=8)["images"][:, 1:-1, 1:-1]).max() < 0.01


@pytest.mark.parametrize("corner", range(4))
def test_a_quadrant_is_cut_at_the_midpoint_before_resizing(corner):
    batch = stored()
    y, x = corner // 2 * 4, corner % 2 * 4
    seen = augment.quadrant(batch, np.full(4, corner), size=4)
    np.testing.assert_array_equal(seen["labels"], batch["labels"][:, y : y + 4, x : x + 4])
    np.testing.assert_allclose(seen["images"], batch["image"][:, y : y + 4, x : x + 4] / 127.5 - 1, atol=1e-6)
    # resized after the cut: nothing from beyond the midpoint leaks in
    other = {**batch, "image": batch["image"].copy()}
    outside = np.ones((8, 8), bool)
    outside[y : y + 4, x : x + 4] = False
    other["image"][:, outside] = 0
    enlarged = [augment.quadrant(b, np.full(4, corner), size=8)["images"] for b in (batch, other)]
    np.testing.assert_array_equal(*enlarged)


def test_training_draws_each_quadrant_equally_often_and_anew():
    batch = stored(b=64)
    view = jax.jit(augment.training_view("quadrant", size=4))
    numbered = np.indices((2, 2)).reshape(2, 4).T @ [2, 1]
    batch["labels"][:] = np.kron(numbered.reshape(2, 2), np.ones((4, 4), int))
    drawn = np.stack([view(jax.random.key(i), batch)["labels"][:, 0, 0] for i in range(20)])
    counts = np.bincount(drawn.ravel(), minlength=4)
    assert (np.abs(counts - 320) < 4 * np.sqrt(1280 * 3 / 16)).all()
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[3], view(jax.random.key(3), batch)["labels"][:, 0, 0])


def test_the_test_quadrant_belongs_to_the_case_and_not_to_its_place():
    cases = [f"ISIC_{i:07d}" for i in range(100)]
    corners = augment.case_corners(cases)
    np.testing.assert_array_equal(augment.case_corners(cases[::-1]), corners[::-1])
    assert (np.bincount(corners, minlength=4) > 10).all()
    batch = {**stored(), "index": np.array([7, 3, 99, 0], np.int32)}
    seen = augment.testing_view("quadrant", size=4, cases=cases)(batch)
    expected = augment.quadrant(batch, corners[[7, 3, 99, 0]], size=4)
    np.testing.assert_array_equal(seen["images"], expected["images"])


def test_views_that_cannot_be_are_named():
    with pytest.raises(InputError, match="view is 'half'; choose one of original, quadrant"):
        augment.training_view("half", size=4)
    with pytest.raises(ValueError, match="square images of even size"):
        augment.quadrant(stored(size=7), np.zeros(4, int), size=4)
