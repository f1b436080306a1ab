"""Squashing and sliding: a function of single pixels comes through as itself; memory stays within its bound."""

import itertools
import tracemalloc

import jax
import numpy as np
import pytest

from jaxseg.data import resizing, windows
from jaxseg.data.grids import Squash
from jaxseg.data.windows import Tiling


def pixelwise(images):
    """Bright pixels are objects: the probabilities are a function of the pixel alone; the score is the mean."""
    bright = (images[..., :1].astype(np.float32) > 127).astype(np.float32)
    probabilities = 0.1 + 0.8 * np.concatenate([1 - bright, bright], -1)
    return probabilities, {"mean": images.astype(float).mean(tuple(range(1, images.ndim)))}


def noise(*size, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (150, 97), (31, 200), (5, 7), (1, 1), (33, 32)])
@pytest.mark.parametrize(
    ("tile", "overlap", "blend"), [(32, 0.5, "gaussian"), (32, 0.0, "linear"), (17, 0.9, "linear")]
)
def test_tiles_of_a_function_of_the_pixel_give_that_function(size, tile, overlap, blend):
    image = noise(*size, channels=3)
    found, _ = windows.sliding(pixelwise, image, Tiling(tile, overlap, blend, batch=5))
    wanted, _ = pixelwise(image[None])
    np.testing.assert_allclose(found, wanted[0], atol=2e-6)
    np.testing.assert_array_equal(found.argmax(-1), image[..., 0] > 127)


def test_volumes_are_tiled_along_all_three_axes():
    image = noise(9, 30, 21)
    found, scores = windows.sliding(pixelwise, image, Tiling(8, 0.5))
    np.testing.assert_array_equal(found.argmax(-1), image[..., 0] > 127)
    assert len(scores["mean"]) == 3 * 8 * 6


@pytest.mark.parametrize("blend", windows.BLENDS)
def test_overlapping_tiles_are_averaged_with_the_weights_of_their_windows(blend):
    """Three tiles of 8 along a row of 12, of which each says a number of its own."""
    count = itertools.count(1)

    def numbered(images):
        values = np.array([next(count) for _ in images], np.float32)
        return np.broadcast_to(values[:, None, None, None], (*images.shape[:-1], 1)), {}

    found, _ = windows.sliding(numbered, noise(8, 12), Tiling(8, 0.5, blend))
    places = np.arange(8) + 0.5 - 4
    window = 4.5 - abs(places) if blend == "linear" else np.exp(-0.5 * (places / 1) ** 2)  # an eighth of 8 is 1
    total, weight = np.zeros(12), np.zeros(12)
    for number, start in enumerate((-2, 2, 6), 1):
        for i in range(8):
            if 0 <= start + i < 12:
                total[start + i] += number * window[i]
                weight[start + i] += window[i]
    np.testing.assert_allclose(found[..., 0], np.broadcast_to(total / weight, (8, 12)), rtol=1e-5)


@pytest.mark.parametrize("size", [(70, 45), (20, 45), (6, 2), (1, 40)])
def test_beyond_the_border_tiles_see_the_image_mirrored_at_its_outermost_pixels(size):
    image = noise(*size)
    margin = 32
    mirrored = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "reflect")  # repeats where it must
    seen = []

    def note(images):
        seen.extend(images)
        return pixelwise(images)

    windows.sliding(note, image, Tiling(32, 0.5))
    known = {
        mirrored[y : y + 32, x : x + 32].tobytes()
        for y in range(mirrored.shape[0] - 31)
        for x in range(mirrored.shape[1] - 31)
    }
    assert seen and all(tile.shape == (32, 32, 1) and tile.tobytes() in known for tile in seen)


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(100, 32, 0.5), (33, 32, 0.25), (1000, 64, 0.75), (65, 64, 0.0)]
)
def test_no_pixel_lies_only_at_the_borders_of_tiles(length, tile, overlap):
    starts = windows._starts(length, tile, overlap)
    depth = [max(min(p - s, s + tile - 1 - p) for s in starts if s <= p < s + tile) for p in range(length)]
    assert min(depth) >= int(overlap * tile) // 2 - 1 and min(depth) >= 0


def test_tiles_that_overlap_nearly_whole_go_on_by_a_pixel():
    starts = windows._starts(13, 10, 0.99)
    assert starts == list(range(-4, 8))  # half an overlap of 9 before the image, and as much behind it
    assert windows._starts(10, 10, 0.99) == [0] and windows._starts(7, 10, 0.5) == [-1]


def test_an_image_of_the_networks_size_is_one_tile_as_in_training():
    image = noise(32, 32)
    seen = []
    windows.sliding(lambda images: seen.append(images) or pixelwise(images), image, Tiling(32, 0.5))
    (batch,) = seen
    np.testing.assert_array_equal(batch, image[None])


def test_memory_is_the_result_and_one_batch():
    image = noise(1500, 1400)
    shapes = []

    def constant(images):
        shapes.append(images.shape)
        return np.full((*images.shape[:-1], 2), 0.5, np.float32), {}

    tiling = Tiling(64, 0.5, batch=4)
    tracemalloc.start()
    windows.sliding(constant, image, tiling)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(shapes) == (4, 64, 64, 1) and len(shapes) > 400
    result, batch = 4 * 2 * 1500 * 1400, 4 * 64 * 64 * (1 + 4 * 2)
    assert result <= peak < result + 4 * batch + 500_000


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        (Tiling(0), "size is 0 and batch 8; both must be at least 1"),
        (Tiling(8, batch=0), "batch 0"),
        (Tiling(8, 1.0), "overlap is 1.0; give a share of at least 0 and below 1"),
        (Tiling(8, float("nan")), "overlap is nan"),
        (Tiling(8, blend="cubic"), "blend is 'cubic'; choose one of gaussian, linear"),
    ],
)
def test_a_window_that_cannot_slide_is_refused(tiling, message):
    with pytest.raises(ValueError, match=message):
        windows.sliding(pixelwise, noise(9, 9), tiling)


@pytest.mark.parametrize(("old", "new"), [((8, 12), (96, 60)), ((8, 12), (5, 60)), ((1, 3), (4, 1)), ((9, 9), (9, 9))])
def test_probabilities_come_back_by_linear_interpolation_at_the_pixels_centres(old, new):
    values = np.random.default_rng(1).random((2, *old, 3)).astype(np.float32)
    found = resizing.resize_linear(values, new)
    wanted = jax.image.resize(values, (2, *new, 3), "linear", antialias=False)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_volumes_come_back_along_all_axes():
    values = np.random.default_rng(2).random((1, 4, 5, 6, 2)).astype(np.float32)
    wanted = jax.image.resize(values, (1, 9, 3, 13, 2), "linear", antialias=False)
    np.testing.assert_allclose(resizing.resize_linear(values, (9, 3, 13)), wanted, atol=1e-6)


def squashed(network, images, side, size):
    placement = Squash(side).placement(images.shape[1:-1], (np.nan, np.nan))
    return windows.on_grid(network, images, placement, fill=0, size=size)


@pytest.mark.parametrize("flip", [False, True])
def test_an_edge_comes_back_from_a_squashed_image_where_it_was(flip):
    """96 x 160 to 32 x 32 and back: pixels are 3 x 5 then, and edges between them are hit to the pixel."""
    for axis, unit in ((0, 3), (1, 5)):
        image = np.zeros((1, 96, 160, 1), np.uint8)
        inside = (slice(None),) * (1 + axis) + (slice(7 * unit, 22 * unit),)
        image[inside] = 255
        image = 255 - image if flip else image
        found, _ = squashed(pixelwise, image, 32, (96, 160))
        np.testing.assert_array_equal(found.argmax(-1), image[..., 0] > 127)


def test_what_is_squashed_is_the_networks_answer_to_the_squashed_image(slow_resize):
    image = noise(90, 70, channels=3)
    seen = []
    squashed(lambda images: seen.append(images) or pixelwise(images), image[None], 24, (9, 9))
    np.testing.assert_allclose(seen[0][0], slow_resize(image, 24, 24), atol=1)
