"""Sizes of images and labels against slow references: sums over overlaps, straight lines between centres."""

import math

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data import resizing


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    array = np.random.default_rng(seed).standard_normal(shape)
    array = ndimage.gaussian_filter(array, (*[1.0] * (len(shape) - 1), 0))
    return np.clip(128 + 50 * array / array.std(), 0, 255).astype(np.uint8)


def rough(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def weights(old: int, new: int) -> np.ndarray:
    """`[new, old]`: shares of the old pixels in the new ones, by area where there are fewer, else by distance."""
    table = np.zeros((new, old))
    for i in range(new):
        if new <= old:
            low, high = i * old / new, (i + 1) * old / new
            for j in range(old):
                table[i, j] = max(0.0, min(high, j + 1) - max(low, j)) / (high - low)
        else:
            place = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
            j = min(math.floor(place), old - 1)
            table[i, j] += 1 - (place - j)
            table[i, min(j + 1, old - 1)] += place - j
    return table


def reference(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """One axis after the other, unrounded."""
    result = image.astype(float)
    for axis, (old, new) in enumerate(zip(image.shape, size, strict=False)):
        result = np.moveaxis(np.tensordot(weights(old, new), result, (1, axis)), 0, axis)
    return result


PLANES = [
    ((40, 60), (20, 30)),  # halved
    ((41, 67), (16, 16)),  # squashed
    ((24, 18), (32, 32)),  # enlarged
    ((20, 50), (32, 32)),  # both
    ((33, 32), (32, 32)),  # nearly the same
    ((1, 7), (4, 4)),
]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize(("old", "new"), PLANES)
def test_planes(old, new, channels):
    image = rough((*old, channels))
    got = resizing.resize(image, new)
    assert got.dtype == np.uint8 and got.shape == (*new, channels)
    # rounded once where axes become shorter and once where they become longer
    assert abs(got - reference(image, new)).max() <= 1.01 + 0.1


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_channels_do_not_touch_each_other(channels):
    image = rough((30, 40, channels))
    got = resizing.resize(image, (17, 50))
    for c in range(channels):
        np.testing.assert_array_equal(got[..., c : c + 1], resizing.resize(image[..., c : c + 1].copy(), (17, 50)))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(
    ("old", "new"), [((6, 30, 40), (12, 16, 16)), ((20, 16, 12), (8, 24, 24)), ((5, 16, 16), (10, 16, 16))]
)
def test_volumes(old, new, channels):
    image = smooth((*old, channels))
    got = resizing.resize(image, new)
    assert got.dtype == np.uint8 and got.shape == (*new, channels)
    assert abs(got - reference(image, new)).max() <= 1.6 + 0.1  # rounded up to three times


def test_large_planes_of_volumes():
    """The depth is resized as the height of a very wide picture."""
    image = smooth((3, 8, 10, 1)).repeat(60, 1).repeat(60, 2)
    assert image[0].size > 2**18
    got = resizing.resize(image, (6, *image.shape[1:3]))
    assert abs(got - reference(image, (6, *image.shape[1:3]))).max() <= 0.6


@pytest.mark.parametrize(("old", "new"), [((30, 41), (16, 16)), ((9, 11), (32, 20)), ((20, 50), (32, 32))])
def test_mirrored_and_turned_images_give_mirrored_and_turned_results(old, new):
    """Half-pixel centres: nothing is shifted, by a level of rounding."""
    image = rough((*old, 3))
    got = resizing.resize(image, new).astype(int)
    for axis in (0, 1):
        assert abs(resizing.resize(np.flip(image, axis).copy(), new) - np.flip(got, axis)).max() <= 1
    turned = resizing.resize(image.transpose(1, 0, 2).copy(), new[::-1])
    assert abs(turned - got.transpose(1, 0, 2)).max() <= 1


@pytest.mark.parametrize("new", [(5, 7), (16, 16), (64, 40)])
def test_a_plain_image_stays_plain(new):
    for value in (0, 1, 127, 254, 255):
        assert (resizing.resize(np.full((20, 30, 3), value, np.uint8), new) == value).all()


def test_making_smaller_averages_all_pixels():
    image = rough((64, 96, 1))
    got = resizing.resize(image, (8, 8))
    np.testing.assert_allclose(got[..., 0], image.reshape(8, 8, 8, 12).mean((1, 3)), atol=0.51)


def test_the_same_size_is_the_same_array():
    for shape in ((5, 7, 3), (4, 5, 7, 2)):
        image = rough(shape)
        assert resizing.resize(image, shape[:-1]) is image
        assert resizing.resize(image, list(shape[:-1])) is image
        labels = image[..., 0]
        assert resizing.resize_labels(labels, shape[:-1]) is labels


def test_views_are_read_as_they_look():
    """Channels in another order, a cut-out, every other row: nothing of their memory shows."""
    image = rough((40, 60, 4))
    for view in (image[..., ::-1], image[3:33, 5:45], image[::2], image[..., 1:4], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(resizing.resize(view, (16, 16)), resizing.resize(view.copy(), (16, 16)))


LABELS = [((40, 60), (20, 30)), ((41, 67), (16, 16)), ((7, 9), (20, 31)), ((5, 16, 11), (9, 8, 22))]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
@pytest.mark.parametrize(("old", "new"), LABELS)
def test_labels_are_those_at_the_centres(old, new, dtype):
    labels = np.random.default_rng(0).integers(0, 100, old).astype(dtype)
    got = resizing.resize_labels(labels, new)
    assert got.dtype == dtype and got.shape == new
    for index in np.ndindex(*new):
        centres = [(i + 0.5) * o / n for i, o, n in zip(index, old, new, strict=True)]
        # where a centre lies between two pixels, either of them
        choices = [{math.floor(c - 1e-9), math.floor(c + 1e-9)} for c in centres]
        wanted = {labels[tuple(place)] for place in np.array(np.meshgrid(*map(list, choices))).reshape(len(old), -1).T}
        assert got[index] in wanted


def test_labels_and_images_lie_upon_each_other():
    """The middle of a disc stays at the same share of the side, in the image as in the labels."""
    y, x = np.mgrid[:90, :120]
    labels = (np.hypot(y - 30.2, x - 71.7) < 17).astype(np.uint8)
    for new in ((32, 32), (200, 160)):
        for resized in (
            resizing.resize_labels(labels, new),
            resizing.resize(255 * labels[..., None], new)[..., 0] / 255,
        ):
            centre = [(c + 0.5) / n for c, n in zip(ndimage.center_of_mass(resized), new, strict=True)]
            np.testing.assert_allclose(centre, (30.7 / 90, 72.2 / 120), atol=0.006)
