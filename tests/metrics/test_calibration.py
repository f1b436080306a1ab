"""Calibration error and Brier score against loops, closed forms and their conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics import calibration

FAST_ERROR, FAST_SUMS = (
    jax.jit(f, static_argnames="bins") for f in (calibration.expected_calibration_error, calibration.calibration_sums)
)


def draw(seed, shape=(3, 6, 5), num_classes=3):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(num_classes), shape).astype(np.float32)
    return probabilities, random.integers(0, num_classes, shape, dtype=np.int32)


def slow_sums(probabilities, labels, bins):
    sums = np.zeros((len(labels), bins, 3))
    for at in np.ndindex(labels.shape):
        row = probabilities[at].tolist()
        confidence, guess = max(row), row.index(max(row))
        inside = [b for b in range(bins) if b / bins < confidence <= (b + 1) / bins]
        sums[at[0], inside[0]] += (1, confidence, guess == labels[at])
    return sums


def slow_error(sums):
    error = 0.0
    for pixels, confidence, right in sums:
        if pixels:
            error += pixels / sums[:, 0].sum() * abs(right / pixels - confidence / pixels)
    return error


@pytest.mark.parametrize(("shape", "bins"), [((3, 6, 5), 15), ((2, 3, 4, 5), 4), ((1, 70, 80), 15), ((1, 2, 2), 1)])
def test_the_error_is_the_loop(shape, bins):
    probabilities, labels = draw(0, shape)
    expected = slow_sums(probabilities, labels, bins)
    np.testing.assert_allclose(FAST_SUMS(probabilities, labels, bins=bins), expected, rtol=1e-5)
    error = FAST_ERROR(probabilities, labels, bins=bins)
    assert error.shape == shape[:1]
    np.testing.assert_allclose(error, [slow_error(rows) for rows in expected], atol=1e-6)


def test_compiled_or_not_it_is_the_same():
    probabilities, labels = draw(7)
    error = calibration.expected_calibration_error(probabilities, labels)
    np.testing.assert_allclose(error, FAST_ERROR(probabilities, labels), rtol=1e-6)
    np.testing.assert_allclose(error, FAST_ERROR(probabilities, labels, bins=15), rtol=1e-6)


def of_confidence(confidence, right):
    """Two classes: the first is as likely as `confidence`, and right where `right` is 1."""
    confidence = np.asarray(confidence, np.float32)[None, None]
    return np.stack([confidence, 1 - confidence], -1), 1 - np.asarray(right, np.int32)[None, None]


def test_errors_of_known_predictions():
    error = lambda confidence, right: FAST_ERROR(*of_confidence(np.resize(confidence, 4), np.resize(right, 4)))
    assert error([1.0], [1]) == 0
    assert error([1.0], [0]) == 1
    np.testing.assert_allclose(error([0.75], [1, 1, 1, 0]), 0, atol=1e-7)
    np.testing.assert_allclose(error([0.75], [1]), 0.25, atol=1e-7)
    # errors of opposite sign do not cancel between bins, but do inside one
    np.testing.assert_allclose(error([0.6, 0.9], [1, 0]), (0.4 + 0.9) / 2, atol=1e-6)
    np.testing.assert_allclose(error([0.96, 0.98], [1, 0]), (1.94 - 1) / 2, atol=1e-6)


def test_a_confidence_at_an_edge_is_in_the_bin_below():
    sums = FAST_SUMS(*of_confidence([0.5, 0.625, 0.75, 0.8125, 1.0], [1] * 5), bins=4)
    np.testing.assert_array_equal(sums[0, :, 0], [0, 1, 2, 2])


def test_rounding_beyond_one_is_in_the_last_bin():
    sums = FAST_SUMS(*of_confidence([1.0, 1.0 + 2e-7], [1, 1]), bins=4)
    np.testing.assert_array_equal(sums[0, :, 0], [0, 0, 0, 2])


def test_bools_and_bytes_are_labels_too():
    p, y = of_confidence([0.7, 0.9], [1, 0])
    for dtype in (bool, np.uint8):
        assert FAST_ERROR(p, y.astype(dtype)) == FAST_ERROR(p, y)
        assert calibration.brier(p, y.astype(dtype)) == calibration.brier(p, y)


def test_of_equally_likely_classes_the_first_counts():
    sums = FAST_SUMS(*of_confidence([0.5, 0.5, 0.5], [1, 0, 0]), bins=2)
    np.testing.assert_array_equal(sums[0], [[3, 1.5, 1], [0, 0, 0]])


def test_sums_add_up_to_those_of_the_set():
    probabilities, labels = draw(1, (6, 8, 8))
    sums = np.asarray(FAST_SUMS(probabilities, labels))
    assert sums.shape == (6, 15, 3)
    joined = FAST_SUMS(probabilities.reshape(1, 48, 8, 3), labels.reshape(1, 48, 8))
    total = np.sum(sums, axis=0, dtype=float)
    np.testing.assert_allclose(total, joined[0], rtol=1e-6)
    error = calibration.calibration_error_from_sums(total)
    np.testing.assert_allclose(error, slow_error(slow_sums(probabilities, labels, 15).sum(0)), atol=1e-6)
    assert error < calibration.calibration_error_from_sums(sums).mean()  # so the set's is not the mean of the images'


def test_many_pixels_lose_no_count():
    confidence = np.full(1 << 21, 0.7, np.float32)
    sums = FAST_SUMS(*of_confidence(confidence, np.ones_like(confidence)))
    np.testing.assert_allclose(sums[0].sum(0), [1 << 21, confidence.sum(dtype=float), 1 << 21], rtol=5e-6)


def test_pixels_have_no_order_and_classes_no_names():
    probabilities, labels = draw(2, (2, 6, 6))
    order, classes = np.random.default_rng(0).permutation(36), np.array([2, 0, 1])
    shuffled = probabilities.reshape(2, 36, 3)[:, order].reshape(2, 6, 6, 3)
    moved = labels.reshape(2, 36)[:, order].reshape(2, 6, 6)
    renamed = probabilities[..., np.argsort(classes)], classes[labels].astype(np.int32)
    for score in (FAST_ERROR, calibration.brier):
        value = score(probabilities, labels)
        assert (value >= 0).all() and (value <= 2).all()
        np.testing.assert_allclose(score(shuffled, moved), value, rtol=1e-5)
        np.testing.assert_allclose(score(*renamed), value, rtol=1e-5)


def test_a_network_that_says_what_it_knows_has_next_to_no_error():
    random = np.random.default_rng(3)
    confidence = random.uniform(0.5, 1, 20000)
    p, y = of_confidence(confidence, random.random(20000) < confidence)
    assert FAST_ERROR(p, y) < 0.02
    sharper = p**2 / np.sum(p**2, -1, keepdims=True)
    assert FAST_ERROR(sharper, y) > 0.05


@pytest.mark.parametrize("shape", [(3, 6, 5), (2, 3, 4, 5)])
def test_brier_is_the_loop(shape):
    probabilities, labels = draw(4, shape, num_classes=4)
    slow = np.zeros(shape[0])
    for at in np.ndindex(shape):
        for k in range(4):
            slow[at[0]] += (float(probabilities[at][k]) - (k == labels[at])) ** 2
    slow /= np.prod(shape[1:])
    np.testing.assert_allclose(calibration.brier(probabilities, labels), slow, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(calibration.brier)(probabilities, labels), slow, rtol=1e-6)


def test_brier_of_known_predictions():
    assert calibration.brier(*of_confidence([1.0], [1])) == 0
    assert calibration.brier(*of_confidence([1.0], [0])) == 2
    assert calibration.brier(*of_confidence([0.5], [0])) == 0.5
    assert calibration.brier(*of_confidence([1.0, 1.0, 1.0, 1.0], [1, 1, 1, 0])) == 0.5
    p, y = of_confidence([0.25], [1])
    assert calibration.brier(p.astype(jnp.bfloat16), y) == 2 * 0.75**2


def test_gradients_are_finite_and_point_to_the_truth():
    labels, logits = np.zeros((1, 2, 2), np.int32), np.zeros((1, 2, 2, 2), np.float32)
    labels[0, 0, 0], logits[0, 1] = 1, 40  # one row is sure, one does not know
    for score in (calibration.expected_calibration_error, calibration.brier):
        gradient = jax.jit(jax.grad(lambda x, s=score: s(jax.nn.softmax(x), labels).sum()))(logits)
        assert np.isfinite(gradient).all()
    gradient = np.asarray(gradient)
    assert gradient[0, 0, 0, 1] < 0 < gradient[0, 0, 0, 0]


def test_a_nan_shows_in_its_image_alone():
    probabilities, labels = draw(5)
    probabilities[1, 2, 3] = np.nan
    for score in (FAST_ERROR, calibration.brier):
        np.testing.assert_array_equal(np.isnan(score(probabilities, labels)), [False, True, False])
    assert np.isnan(calibration.calibration_error_from_sums(np.zeros((4, 3))))


def test_a_label_that_no_class_has_is_never_met():
    p, y = of_confidence([1.0, 1.0], [1, 1])
    y[0, 0, 0] = 255
    assert FAST_ERROR(p, y) == 0.5


def test_what_they_cannot_score_is_named():
    p, y = draw(6)
    for score in (calibration.expected_calibration_error, calibration.calibration_sums, calibration.brier):
        with pytest.raises(ValueError, match=r"probabilities \(3, 6, 5, 3\) and labels \(3, 6, 4\) do not fit"):
            score(p, y[:, :, :4])
        with pytest.raises(ValueError, match=r"got \(6, 5, 3\); add the batch or class axis"):
            score(p[0], y[0])
        with pytest.raises(ValueError, match="have one class"):
            score(p[..., :1], y)
        with pytest.raises(TypeError, match="probabilities must be floating, got int32"):
            score(p.astype(np.int32), y)
        with pytest.raises(TypeError, match="labels must be integer class numbers, got float32"):
            score(p, y.astype(np.float32))
    with pytest.raises(ValueError, match="bins is 0"):
        calibration.expected_calibration_error(p, y, bins=0)
    with pytest.raises(ValueError, match=r"got \(15, 2\); calibration_sums makes them"):
        calibration.calibration_error_from_sums(np.zeros((15, 2)))
