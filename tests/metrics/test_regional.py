"""Overlap of all foreground together asks for the right class."""

import numpy as np

from jaxseg.metrics import regional


def test_a_pixel_of_another_class_is_wrong():
    a = np.zeros((3, 4, 4), int)
    b = a.copy()
    a[0, :2], b[0, 1:3] = 1, 1  # 8 pixels each, 4 shared
    a[1, :2], b[1, :2] = 1, 2  # the same place under another name
    np.testing.assert_array_equal(regional.foreground_dice(a, b), [0.5, 0.0, np.nan])
    left = np.indices(a.shape)[2] < 2
    inside = regional.dice_from_region_sums(np.asarray(regional.region_sums(a, b, left)))
    np.testing.assert_array_equal(inside, [0.5, 0.0, np.nan])
