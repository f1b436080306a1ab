"""The synthetic lesions: reproducible, the same at any size, and placed as ISIC 2017 places them."""

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data.synthetic import dermoscopy

SIZE = 64
COUNT = 400

# Measured on 1600 masks of the ISIC 2017 training set, stretched to 256 x 256.
ISIC_MEAN_OFFSET = 0.127  # of the mask's centroid from the image's centre, in half sides
ISIC_AREA_QUARTILES = (0.051, 0.129, 0.279)  # fraction of the image
ISIC_NEAR_BORDER = 0.12  # fraction of masks within 1.6 % of the side from the border; 0.064 touch the last pixel
ISIC_FOREGROUND_BY_RING = (0.029, 0.109, 0.280, 0.543, 0.812)  # five rings of equal width, from the border inwards


@pytest.fixture(scope="module")
def renders():
    images, labels = zip(*(dermoscopy.render(3, index, SIZE) for index in range(COUNT)), strict=True)
    return np.stack(images), np.stack(labels)


def border_distance():
    """Distance of each pixel from the border, 0 to 1 in the middle."""
    steps = np.minimum(np.arange(SIZE), SIZE - 1 - np.arange(SIZE))
    return np.minimum(steps[:, None], steps) / (SIZE / 2)


def test_shapes_and_values(renders):
    images, labels = renders
    assert images.shape == (COUNT, SIZE, SIZE, 3) and images.dtype == np.uint8
    assert labels.shape == (COUNT, SIZE, SIZE) and labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1}
    assert labels.any(axis=(1, 2)).all()


def test_same_seed_and_index_give_the_same_bytes():
    for first, second in zip(dermoscopy.render(5, 2, SIZE), dermoscopy.render(5, 2, SIZE), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("seed", "index"), [(5, 3), (6, 2), (2, 5)])
def test_another_seed_or_index_gives_another_scene(seed, index):
    image, labels = dermoscopy.render(5, 2, SIZE)
    other_image, other_labels = dermoscopy.render(seed, index, SIZE)
    assert (image != other_image).mean() > 0.5
    assert (labels != other_labels).any()


def test_images_do_not_depend_on_what_was_drawn_before():
    alone = dermoscopy.render(5, 9, SIZE)[0]
    dermoscopy.render(5, 8, 2 * SIZE)
    np.testing.assert_array_equal(alone, dermoscopy.render(5, 9, SIZE)[0])


def test_labels_show_the_same_scene_at_another_size():
    scores = []
    for index in range(20):
        small = dermoscopy.render(1, index, 128)[1].astype(bool)
        large = dermoscopy.render(1, index, 256)[1].astype(bool)[::2, ::2]
        scores.append(2 * (small & large).sum() / (small.sum() + large.sum()))
    # Every second pixel of the large labels lies a quarter of a pixel off: that costs the smallest lesions a little.
    assert np.mean(scores) > 0.97
    assert min(scores) > 0.93


def test_labels_are_equal_where_the_pixel_centres_are():
    for index in range(5):
        np.testing.assert_array_equal(
            dermoscopy.render(1, index, 64)[1], dermoscopy.render(1, index, 192)[1][1::3, 1::3]
        )


def test_images_show_the_same_scene_at_another_size():
    for index in range(20):
        small = dermoscopy.render(1, index, 128)[0].astype(float)
        large = dermoscopy.render(1, index, 256)[0].astype(float).reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
        assert np.abs(small - large).mean() < 6


def test_lesions_are_as_large_as_in_isic(renders):
    areas = renders[1].mean(axis=(1, 2))
    np.testing.assert_allclose(np.quantile(areas, (0.25, 0.5, 0.75)), ISIC_AREA_QUARTILES, rtol=0.25)


def test_lesions_are_centred_as_in_isic_and_not_more_tightly(renders):
    centroids = np.array([ndimage.center_of_mass(labels) for labels in renders[1]])
    offsets = np.hypot(*((2 * centroids + 1) / SIZE - 1).T)
    assert 0.9 * ISIC_MEAN_OFFSET < offsets.mean() < 1.2 * ISIC_MEAN_OFFSET


def test_lesions_reach_the_border_as_often_as_in_isic(renders):
    labels = renders[1]
    near_border = labels[:, border_distance() == 0].any(axis=1)  # one pixel of 64 is 1.6 % of the side
    assert 0.5 * ISIC_NEAR_BORDER < near_border.mean() < 1.5 * ISIC_NEAR_BORDER


def test_foreground_fades_towards_the_border_as_in_isic(renders):
    rings = np.floor(5 * border_distance()).astype(int)
    foreground = [renders[1][:, rings == ring].mean() for ring in range(5)]
    np.testing.assert_allclose(foreground, ISIC_FOREGROUND_BY_RING, rtol=0.15, atol=0.015)


def test_lesions_are_darker_than_the_skin_around_them(renders):
    darker = []
    for image, labels in zip(*renders, strict=True):
        around = ndimage.binary_dilation(labels, iterations=5) & ~ndimage.binary_dilation(labels, iterations=1)
        if around.any():
            darker.append(image[around].mean() > image[labels > 0].mean())
    assert np.mean(darker) > 0.9  # 0.99 in ISIC


def test_dark_corners_are_common_but_not_the_rule(renders):
    corners = renders[0][:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=(1, 2))
    assert 0.15 < (corners < 60).mean() < 0.45


def test_a_size_without_pixels_is_refused():
    with pytest.raises(ValueError, match="size is 0"):
        dermoscopy.render(0, 0, 0)
