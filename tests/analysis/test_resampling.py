"""Up-sampling by matrices: the libraries' numbers, the adjoint, constants."""

import jax
import numpy as np
import pytest

from jaxseg.analysis import resampling


@pytest.mark.parametrize("interpolation", resampling.INTERPOLATIONS)
@pytest.mark.parametrize(("low", "high"), [(4, 8), (5, 12), (7, 7), (1, 3), (6, 4), (3, 1)])
def test_rows_sum_to_one_and_weights_are_no_less_than_zero(interpolation, low, high):
    weights = resampling.matrix(low, high, interpolation=interpolation)
    assert weights.shape == (high, low) and weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)


def test_bilinear_is_the_librarys_resize():
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(resampling.upsample(x, (12, 8)), jax.image.resize(x, (2, 12, 8, 3), "linear"), atol=1e-5)


def test_aligned_corners_keep_the_corners_and_nearest_repeats():
    x = np.arange(4, dtype=np.float32)[None]
    np.testing.assert_allclose(
        resampling.upsample(x, (7,), interpolation="bilinear_aligned")[0], np.arange(7) / 2, atol=1e-6
    )
    np.testing.assert_allclose(resampling.upsample(x, (8,), interpolation="nearest")[0], np.repeat(np.arange(4), 2))


@pytest.mark.parametrize("interpolation", resampling.INTERPOLATIONS)
def test_the_adjoint_moves_the_weights_to_the_other_side(interpolation):
    random = np.random.default_rng(0)
    x, y = (random.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 4, 5, 2), (2, 6, 4, 11, 2)))
    up = resampling.upsample(x, (6, 4, 11), interpolation=interpolation)
    down = resampling.upsample_adjoint(y, (3, 4, 5), interpolation=interpolation)
    np.testing.assert_allclose(np.vdot(up, y), np.vdot(x, down), rtol=1e-4)


def test_unknown_interpolations_are_named():
    with pytest.raises(ValueError, match="interpolation is 'cubic'; choose one of bilinear"):
        resampling.upsample(np.zeros((1, 2), np.float32), (4,), interpolation="cubic")


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="an axis has at least 1"):
        resampling.matrix(0, 3)
    for shape, sizes in (((2, 4), (8, 8)), ((2, 0, 4, 1), (8, 8)), ((2, 4, 4, 1), (8, 0))):
        with pytest.raises(ValueError, match="cannot be resampled"):
            resampling.upsample(np.ones(shape, np.float32), sizes)
