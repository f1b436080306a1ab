"""A case on the grid of a network and back, against what single pixels say."""

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data import grids
from jaxseg.data.grids import Keep, Misfit, Patches, Squash
from jaxseg.data.raw_cases import IGNORED

UNKNOWN = (np.nan, np.nan, np.nan)
RANDOM = [(rank, seed) for rank in (2, 3) for seed in range(6)]


def blobs(rng, size, classes=3):
    """Smooth objects of several classes, some pixels wide."""
    field = ndimage.gaussian_filter(rng.standard_normal((classes, *size)), (0, *(5 if n > 12 else 1 for n in size)))
    return field.argmax(0).astype(np.uint8)


def oracle(fitted, classes=3):
    """The probabilities of a network that says what the label is; of nobody's pixels, the background."""
    labels = np.where(fitted.labels == IGNORED, 0, fitted.labels)
    return np.eye(classes, dtype=np.float32)[labels]


def dice(one, other, classes=3):
    return [
        2 * np.sum((one == k) & (other == k)) / (np.sum(one == k) + np.sum(other == k))
        for k in range(1, classes)
        if (one == k).any() or (other == k).any()
    ]


@pytest.mark.parametrize(("rank", "seed"), RANDOM)
@pytest.mark.parametrize("grid", [Keep(8, multiple=(8,)), Patches(24), Keep(64), grids.Grid()])
def test_what_is_not_resampled_comes_back_to_the_pixel(rank, seed, grid):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(5, 60, rank))
    labels, image = blobs(rng, size), rng.standard_normal((*size, 2)).astype(np.float32)
    fitted = grid.fit(image, labels, UNKNOWN[:rank], fill=-7.0)
    inside = fitted.placement.inside
    np.testing.assert_array_equal(fitted.image[inside], image)
    np.testing.assert_array_equal(fitted.labels[inside], labels)
    outside = np.ones(fitted.labels.shape, bool)
    outside[inside] = False
    assert (fitted.labels[outside] == IGNORED).all() and (fitted.image[outside] == -7).all()
    np.testing.assert_array_equal(fitted.placement.back(oracle(fitted)).argmax(-1), labels)


def test_a_case_stands_in_the_middle_and_is_cropped_about_it():
    image = np.arange(7.0)[:, None, None] * np.ones((1, 6, 1))
    fitted = Keep(4, size=(4, 9)).fit(image, np.ones((7, 6), np.uint8), (2.0, 3.0), fill=0)
    np.testing.assert_array_equal(fitted.image[:, 4, 0], [2, 3, 4, 5])  # one row more is lost before than after
    np.testing.assert_array_equal(fitted.labels[0], [IGNORED, 1, 1, 1, 1, 1, 1, IGNORED, IGNORED])
    np.testing.assert_array_equal(fitted.spacing, [2, 3])
    back = fitted.placement.back(np.stack([0 * fitted.image[..., 0], 1 + 0 * fitted.image[..., 0]], -1))
    np.testing.assert_array_equal(back.argmax(-1)[:, 0], [0, 0, 1, 1, 1, 1, 0])  # nobody said anything of the others


@pytest.mark.parametrize("multiple", [(16,), (4, 16, 8)])
def test_the_next_multiple_is_the_least_that_holds_a_case(multiple):
    placement = Keep(0, multiple=multiple).placement((9, 32, 17), UNKNOWN)
    units = multiple * 3 if len(multiple) == 1 else multiple
    assert placement.grid == tuple(-(-n // unit) * unit for n, unit in zip((9, 32, 17), units, strict=True))


def test_whatever_the_normalisation_gives_can_be_resampled():
    labels = np.zeros((20, 30), np.uint8)
    wanted = Keep(8, spacing=(1.0,), multiple=(1,)).fit(labels[..., None] + 2.5, labels, (2.0, 0.5), fill=0).image
    for dtype in (np.float16, np.float32, np.int16, np.uint16, np.uint8):
        image = np.full((20, 30, 1), 2.5 if dtype in (np.float16, np.float32) else 3, dtype)
        found = Keep(8, spacing=(1.0,), multiple=(1,)).fit(image, labels, (2.0, 0.5), fill=0).image
        assert found.dtype == dtype and found.shape == wanted.shape and (found == image.flat[0]).all()


@pytest.mark.parametrize(("rank", "seed"), RANDOM)
def test_resampled_cases_come_back_nearly(rank, seed):
    """Up and down by up to a third, along the axes of the plane; objects of about ten pixels."""
    rng = np.random.default_rng(100 + seed)
    size = (*rng.integers(6, 10, rank - 2), *rng.integers(90, 140, 2))
    labels, steps = blobs(rng, size), (*[8.0] * (rank - 2), *rng.uniform(0.75, 1.3, 2))
    image = labels[..., None].astype(np.float32)
    fitted = Keep(16, spacing=(1.0, 1.0), multiple=(16,)).fit(image, labels, steps, fill=0)
    np.testing.assert_allclose(fitted.spacing[-2:], 1, atol=0.01)  # as near as whole pixels allow
    assert fitted.placement.resized[: rank - 2] == size[: rank - 2]
    back = fitted.placement.back(oracle(fitted)).argmax(-1)
    assert min(dice(back, labels)) > 0.98


def test_resampling_needs_the_size_of_pixels():
    with pytest.raises(Misfit, match="does not say how large its pixels are"):
        Keep(8, spacing=(1.0, 1.0)).placement((8, 8), (np.nan, np.nan))
    with pytest.raises(Misfit, match="has 2 axes, and a spacing along 3 is wanted"):
        Keep(8, spacing=(1.0, 1.0, 1.0)).placement((8, 8), (1.0, 1.0))
    assert Keep(8, spacing=(2.0,)).placement((5, 8, 6), (9.0, 1.0, 4.0)).resized == (5, 4, 12)
    with pytest.raises(Misfit, match="has 2 axes, and 3 sizes are given; give 2, or one for all"):
        Keep(8, size=(8, 8, 8)).placement((8, 8), (1.0, 1.0))


def test_squashed_cases_fill_the_square():
    labels = np.zeros((30, 50), np.uint8)
    labels[10:20, 20:40] = 1
    fitted = Squash(10).fit(labels[..., None] * np.uint8(255), labels, (1.0, 2.0), fill=0)
    np.testing.assert_array_equal(fitted.spacing, [3, 10])
    np.testing.assert_array_equal(fitted.labels, fitted.image[..., 0] > 127)
    assert fitted.placement.back(oracle(fitted, 2)).shape == (30, 50, 2)
    assert dice(fitted.placement.back(oracle(fitted, 2)).argmax(-1), labels, 2)[0] > 0.9  # corners become round


@pytest.mark.parametrize(
    ("size", "wanted", "resized"),
    [
        ((60, 90), (), (32, 48)),
        ((90, 60), (), (48, 32)),
        ((40, 90), (24, 32), (14, 32)),
        ((5, 30, 90), (8, 24, 32), (5, 11, 32)),
    ],
)
def test_a_case_that_is_made_to_fit_keeps_its_aspect(size, wanted, resized):
    """All of it is there, along one axis to the border; slices of a volume are not resized."""
    labels = np.zeros(size, np.uint8)
    labels[..., size[-2] // 4 : -size[-2] // 4, size[-1] // 4 : -size[-1] // 4] = 1
    grid = Keep(48, size=wanted, whole=True)
    fitted = grid.fit(labels[..., None] * np.uint8(200), labels, (2.0,) * len(size), fill=0)
    assert fitted.placement.resized == resized and fitted.labels.shape == (wanted or (48, 48))
    assert np.count_nonzero(fitted.labels != IGNORED) == np.prod(resized)
    assert dice(fitted.placement.back(oracle(fitted, 2)).argmax(-1), labels, 2)[0] > 0.9
    assert grid.one_size and grid.draft == (2 * max(wanted or (48,)) if len(size) == 2 else None)
    np.testing.assert_allclose(fitted.spacing, np.divide(size, resized) * 2, rtol=1e-6)


def test_a_result_may_have_another_size_than_what_was_stored():
    """As a file does of which a JPEG was decoded at a smaller scale, or that was squashed when it was prepared."""
    placement = Keep(8, size=(8, 8)).placement((6, 6), (1.0, 1.0))
    assert placement.back(np.full((8, 8, 2), 0.5, np.float32), size=(12, 18)).shape == (12, 18, 2)


@pytest.mark.parametrize(
    ("grid", "one_size", "example"),
    [
        (Squash(32), True, (32, 32)),
        (Keep(32), True, (32, 32)),
        (Keep(32, size=(16, 48)), True, (16, 48)),
        (Keep(32, multiple=(16,)), False, (16, 16)),
        (Patches(32), False, (32, 32)),
        (Patches(32, size=(8, 16)), False, (8, 16)),
    ],
)
def test_what_a_network_is_built_for(grid, one_size, example):
    assert grid.one_size is one_size and grid.example(2) == example
    assert grid.sides(2) == (example if one_size else None)
