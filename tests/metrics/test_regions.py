"""Rings, mask centres and moving windows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics import overlap, regions


def test_the_authors_ring_dice(oracles):
    with np.load(oracles / "ring_dice.npz") as stored:
        labels, predictions = (
            np.unpackbits(stored[name], axis=-1).astype(np.int32) for name in ("labels", "predictions")
        )
        distances, expected = stored["outer_distance"], stored["dice_smooth1"]
    ours = jax.jit(lambda a, b: regions.band_dice(a, b, smooth=1.0))(labels, predictions)
    np.testing.assert_array_equal(ours[0], distances)
    np.testing.assert_allclose(ours[1], expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "width"), [((12, 12), 2), ((13, 17), 3), ((10, 14), 5), ((2, 2), 10)])
def test_band_dice_is_dice_of_the_cut_out_ring(shape, width):
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 3, (2, 4, *shape), dtype=np.int32)
    distances, scores = regions.band_dice(labels, predictions, width=width)
    half = min(shape) // 2
    for ring, outer in enumerate(distances):
        border = half - int(outer)
        last = ring == 0
        inside = np.zeros(shape, bool)
        for y, x in itertools.product(*map(range, shape)):
            d = min(y, x, shape[0] - 1 - y, shape[1] - 1 - x)
            inside[y, x] = d >= border and (last or d < border + width)
        cut = [np.where(inside, mask > 0, 0).astype(np.int32) for mask in (labels, predictions)]
        np.testing.assert_allclose(scores[:, ring], overlap.dice(*cut, num_classes=2)[:, 0], rtol=1e-6)


def test_rings_count_from_the_border_and_partition_the_image():
    index = regions.band_index((256, 256), 10)
    assert (np.bincount(index.ravel()).sum(), index.max()) == (256 * 256, 12)
    assert (index[0] == 12).all() and (index[9, 9:-9] == 12).all() and index[10, 10] == 11 and index[128, 128] == 0
    np.testing.assert_array_equal(regions.outer_distances((256, 256), 10), np.arange(8, 129, 10))


def test_rings_survive_flips():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 2, (2, 3, 20, 20), dtype=np.int32)
    np.testing.assert_array_equal(
        regions.band_dice(a, b, width=3)[1], regions.band_dice(a[:, ::-1], b[:, ::-1], width=3)[1]
    )


def test_empty_rings_are_undefined_unless_smoothed():
    empty = jnp.zeros((1, 8, 8), jnp.int32)
    assert np.isnan(regions.band_dice(empty, empty, width=2)[1]).all()
    assert (regions.band_dice(empty, empty, width=2, smooth=1.0)[1] == 1).all()


def test_what_has_no_rings_is_refused():
    with pytest.raises(ValueError, match="2-D"):
        regions.band_dice(*[jnp.zeros((1, 4, 4, 4), jnp.int32)] * 2)
    with pytest.raises(ValueError, match="width is 0"):
        regions.band_dice(*[jnp.zeros((1, 4, 4), jnp.int32)] * 2, width=0)


def test_mask_centres_are_where_the_mask_is():
    labels = jnp.zeros((3, 8, 8), jnp.int32).at[0, 3:5, 3:5].set(1).at[1, 0, 7].set(2)
    centres = regions.mask_centres(labels)
    np.testing.assert_allclose(centres[0], [0, 0], atol=1e-6)
    np.testing.assert_allclose(centres[1], [-7 / 8, 7 / 8], rtol=1e-6)
    assert np.isnan(centres[2]).all()


def slow_agreement(masks, inside):
    both = total = 0
    for i in range(len(masks)):
        for j in range(i + 1, len(masks)):
            seen = inside[i] & inside[j]
            both += 2 * (masks[i] & masks[j] & seen).sum()
            total += (masks[i] & seen).sum() + (masks[j] & seen).sum()
    return both / total if total else np.nan


def test_window_agreement_is_the_loop_over_pairs():
    random = np.random.default_rng(0)
    inside = np.zeros((5, 12, 12), bool)
    for i in range(5):
        inside[i, i : i + 7, 5 - i : 12 - i] = True
    masks = random.random((5, 12, 12)) < 0.4
    ours = jax.jit(regions.window_agreement)(masks, inside)
    np.testing.assert_allclose(ours, slow_agreement(masks & inside, inside), rtol=1e-6)


def test_windows_of_one_mask_agree_and_of_nothing_are_undefined():
    inside = np.zeros((2, 6, 6), bool)
    inside[0, :4], inside[1, 2:] = True, True
    mask = np.random.default_rng(0).random((6, 6)) < 0.5
    assert regions.window_agreement(np.stack([mask, mask]), inside) == 1
    assert np.isnan(regions.window_agreement(np.zeros_like(inside), inside))
    with pytest.raises(ValueError, match="windows, height, width"):
        regions.window_agreement(mask, inside)
    with pytest.raises(TypeError, match="masks must be bool"):
        regions.window_agreement(inside.astype(np.int32), inside)


def test_mask_centres_of_drawn_masks():
    labels = (np.random.default_rng(8).uniform(size=(4, 37, 53)) < 0.3).astype(np.int32)
    rows, columns = ((2 * np.arange(size) + 1) / size - 1 for size in labels.shape[1:])
    expected = [[(rows[:, None] * m).sum(), (columns * m).sum()] / m.sum() for m in labels]
    np.testing.assert_allclose(regions.mask_centres(labels), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda: regions.mask_centres(np.zeros((1, 4, 4, 4), np.int32)), r"must be \[B,H,W\], got \(1, 4, 4, 4\)"),
        (lambda: regions.band_index((8, 1), 2), r"image of \(8, 1\) has no rings"),
        (lambda: regions.band_index((8, 8, 8), 2), r"image of \(8, 8, 8\) has no rings"),
        (lambda: regions.window_agreement(*[np.ones((2, 0, 3), bool)] * 2), r"masks \(2, 0, 3\) has an empty axis"),
    ],
)
def test_what_has_no_place_is_named(score, message):
    with pytest.raises(ValueError, match=message):
        score()
    np.testing.assert_array_equal(regions.band_index((2, 2), 1), np.zeros((2, 2)))
