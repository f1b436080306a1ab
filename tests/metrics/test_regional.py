"""Overlap of all foreground together asks for the right class."""

import numpy as np
import pytest

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


LABELS = np.zeros((2, 4, 4), int)


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (lambda: regional.region_sums(LABELS, LABELS, LABELS), TypeError, "region must be bool, got int64"),
        (lambda: regional.foreground_dice(LABELS, LABELS[:1]), ValueError, r"predictions \(1, 4, 4\) .* of one shape"),
        (lambda: regional.foreground_dice(*[LABELS[0, 0]] * 2), ValueError, r"labels \(4,\), .* of one shape"),
        (lambda: regional.foreground_dice(LABELS, LABELS / 2), TypeError, "predictions must be integer class numbers"),
        (lambda: regional.foreground_dice(*[LABELS[:, :0]] * 2), ValueError, r"labels \(2, 0, 4\) has an empty axis"),
        (lambda: regional.dice_from_region_sums(np.ones(3)), ValueError, r"sums must be \[...,2\], got \(3,\)"),
        (lambda: regional.dice_from_region_sums(np.ones(())), ValueError, r"sums must be \[...,2\], got \(\)"),
    ],
)
def test_what_has_no_overlap_is_named(score, error, message):
    with pytest.raises(error, match=message):
        score()
    assert np.isnan(regional.foreground_dice(LABELS[0], LABELS[0]))  # of one image, without a batch
