"""What may come in: values that are known are checked, wherever they lie, and values that are traced are left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import prototypes, uncertainty
from jaxseg.metrics import arrays, calibration, overlap, surface

SHAPES = (2, 4, 5)


def labels(highest, dtype=np.int32):
    drawn = np.random.default_rng(0).integers(0, 2, SHAPES).astype(dtype)
    return drawn * dtype(highest)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64, jnp.bfloat16, np.float16])
@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_extremes_are_those_of_numpy(dtype, place):
    values = np.random.default_rng(1).integers(1, 100, (3, 50, 7)).astype(dtype)
    values[1, 2, 3], values[2, 4, 5] = 0, 101
    assert arrays.extremes(place(values)) == (0, 101)
    assert arrays.extremes(place(values[:0])) is None


def test_extremes_pass_over_nan():
    values = np.array([[np.nan, 2.0], [-1.0, np.nan]], np.float32)
    assert arrays.extremes(values) == (-1, 2)
    assert np.isnan(arrays.extremes(values[:1, :1])).all()


def test_a_device_reduces_to_what_the_host_does():
    p = np.random.default_rng(2).dirichlet(np.ones(3), (4, 9, 11)).astype(np.float32)
    p[0, 0, 0] = np.nan
    np.testing.assert_array_equal(arrays._device_extremes(p), arrays.extremes(p))
    np.testing.assert_allclose(arrays._device_sums(p), arrays._sums(p), rtol=1e-6)


def test_sums_of_many_pixels_are_those_of_some_and_a_forgotten_softmax_is_in_all():
    logits = np.random.default_rng(3).uniform(0, 1, (1, 600, 600, 2)).astype(np.float32)
    with pytest.raises(ValueError, match="sum to"):
        arrays.check_probabilities(logits)
    arrays.check_probabilities(np.asarray(jax.nn.softmax(logits)))


def test_a_mask_of_0_and_255_is_no_class_number_and_the_remedy_is_named():
    mask, truth = labels(255, np.uint8), labels(1)
    for score in (overlap.dice, overlap.class_counts):
        for pair in ((mask, truth), (truth, mask), (jnp.asarray(mask), jnp.asarray(truth))):
            with pytest.raises(ValueError, match=r"class number 255.* 2 classes .*give (labels|predictions) // 255"):
                score(*(x.astype(np.int32) for x in pair), num_classes=2)
    options = {"num_classes": 2, "spacing": (1, 1)}
    with pytest.raises(ValueError, match="labels // 255"):
        surface.hausdorff95(mask, mask, **options)
    with pytest.raises(ValueError, match="predictions // 255"):
        surface.surface_dice(truth, mask.astype(np.int32), tolerance=1, **options)
    with pytest.raises(ValueError, match="predictions // 255"):
        uncertainty.pairwise_dice(np.stack([mask, mask]), num_classes=2)
    p = np.full((*SHAPES, 2), 0.5, np.float32)
    for score in (calibration.brier, calibration.expected_calibration_error, calibration.calibration_sums):
        with pytest.raises(ValueError, match="labels // 255"):
            score(p, mask)
    with pytest.raises(ValueError, match="labels // 255"):
        prototypes.class_sa_scores(p, p, mask)
    assert overlap.dice(mask // 255, truth, num_classes=2).tolist() == [[1], [1]]


def test_of_an_ignored_255_beside_class_numbers_the_remedy_is_another():
    truth = labels(1)
    truth[0, 0] = 255
    with pytest.raises(ValueError, match="to be ignored"):
        overlap.dice(truth, labels(1), num_classes=2)


def test_class_numbers_begin_at_0_and_end_below_the_number_of_classes():
    with pytest.raises(ValueError, match=r"class number 3.*num_classes=4"):
        overlap.dice(labels(3), labels(1), num_classes=3)
    with pytest.raises(ValueError, match="class number -1"):
        overlap.dice(labels(1), -labels(1), num_classes=3)
    p = np.full((*SHAPES, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match="class number -1"):
        prototypes.sa_score(p, p[..., 1], -labels(1))
    wide = labels(1).astype(np.int64) + 2**32  # of which int32 would keep the 0s and 1s
    with pytest.raises(ValueError, match="4294967297"):
        overlap.dice(wide, labels(1), num_classes=2)


def test_what_is_traced_keeps_its_numbers():
    mask, truth = labels(255), labels(1)
    traced = jax.jit(lambda a, b: overlap.dice(a, b, num_classes=2))
    np.testing.assert_array_equal(traced(mask, truth), np.zeros((2, 1)))
    logits = np.random.default_rng(4).standard_normal((1, 3, 3, 2)).astype(np.float32)
    assert np.isnan(jax.jit(uncertainty.entropy)(logits)).all()
    assert np.isfinite(jax.jit(uncertainty.maximum_probability)(logits)).all()


def test_what_is_known_is_checked_also_while_something_else_is_traced():
    mask, truth = jnp.asarray(labels(255)), jnp.asarray(labels(1))
    with pytest.raises(ValueError, match="255"):
        jax.jit(lambda scale: scale * overlap.dice(mask, truth, num_classes=2))(1.0)
    p = jnp.full((2, 3), 1 / 3)
    assert jax.jit(lambda scale: scale * uncertainty.entropy(p)[0])(2.0) == pytest.approx(2 * np.log(3))


@pytest.mark.parametrize("member", [np.asarray, jnp.asarray])
def test_what_is_no_probability_is_named(member):
    random = np.random.default_rng(5)
    logits = member(random.standard_normal((2, 6, 6, 3)).astype(np.float32))
    one_map = member(random.uniform(0, 1, (2, 6, 6)).astype(np.float32))
    first = member(np.moveaxis(random.dirichlet(np.ones(3), (2, 6, 6)).astype(np.float32), -1, 1))
    for score in (uncertainty.entropy, uncertainty.maximum_probability):
        with pytest.raises(ValueError, match=r"from -.* softmax of the logits"):
            score(logits)
        with pytest.raises(ValueError, match=r"\(2, 6, 6\) sum to .*stack\(\[1 - p, p\], -1\)"):
            score(one_map)
        with pytest.raises(ValueError, match=r"jnp.moveaxis\(p, 1, -1\)"):
            score(first)
    for score in (uncertainty.ensemble_entropy, uncertainty.mutual_information):
        with pytest.raises(ValueError, match="softmax"):
            score(logits[None])
    for score in (calibration.brier, calibration.expected_calibration_error):
        with pytest.raises(ValueError, match="softmax"):
            score(logits, np.zeros((2, 6, 6), np.int32))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_rounded_probabilities_are_probabilities(dtype):
    p = jax.nn.softmax(4 * jax.random.normal(jax.random.key(0), (4, 16, 16, 20))).astype(dtype)
    arrays.check_probabilities(p)
    arrays.check_probabilities(np.asarray(p))
    arrays.check_shares(mask=p * dtype(1.001))


def test_a_soft_mask_of_0_to_255_is_no_probability():
    features = np.random.default_rng(6).standard_normal((2, 4, 5, 3)).astype(np.float32)
    soft = np.random.default_rng(7).uniform(0, 1, SHAPES).astype(np.float32)
    for wrong in ({"mask": 255 * soft}, {"mask": soft, "region": 255 * soft}, {"mask": -soft}):
        with pytest.raises(ValueError, match="0 to 1"):
            prototypes.object_probability(features, **wrong)
    hard = (soft > 0.5).astype(np.uint8)
    ours, theirs = (prototypes.object_probability(features, mask) for mask in (255 * hard, hard.astype(np.float32)))
    np.testing.assert_array_equal(ours, theirs)


class Tensor:
    """As other libraries have them: an array for NumPy, unless it needs a gradient."""

    def __init__(self, values, grad=False):
        self.values, self.grad = values, grad

    def __array__(self, dtype=None, copy=None):
        if self.grad:
            raise RuntimeError("Can't call numpy() on a tensor that requires grad.\nUse detach().")
        return self.values


def test_lists_and_tensors_of_others_are_arrays():
    truth, found = labels(1), labels(1)[::-1]
    expected = overlap.dice(truth, found, num_classes=2)
    for other in (truth.tolist(), Tensor(truth), tuple(truth.tolist())):
        np.testing.assert_array_equal(overlap.dice(other, found, num_classes=2), expected)
    for what, no_array in (("requires grad", Tensor(truth, grad=True)), ("inhomogeneous", [[1, 2], [3]])):
        with pytest.raises(TypeError, match=f"labels is a .*{what}.*give an array"):
            overlap.dice(no_array, found, num_classes=2)
    with pytest.raises(TypeError, match="labels must be bool, integer or floating-point numbers"):
        overlap.dice(truth.astype(str), found, num_classes=2)


def test_masked_values_are_named_and_counted():
    truth = np.ma.masked_equal(labels(1), 1)
    with pytest.raises(ValueError, match=r"labels \(2, 4, 5\) is a masked array with \d+ masked values"):
        overlap.dice(truth, labels(1), num_classes=2)


def test_an_error_names_the_function_and_its_documentation_stays():
    assert overlap.dice.__name__ == "dice" and "Dice 1945" in overlap.dice.__doc__
    with pytest.raises(TypeError, match="num_classes"):
        overlap.dice(labels(1), labels(1))


def test_states_are_converted_array_by_array_and_long_floats_shortened():
    swapped = np.arange(3.0).astype(">f8")
    state = arrays.converted("state", {"sums": swapped, "count": 2, "none": None})
    assert state["sums"].dtype.isnative and state["none"] is None and state["count"] == 2
    np.testing.assert_array_equal(state["sums"], swapped)
    assert arrays.converted("values", np.ones(2, np.longdouble)).dtype == np.float64


def test_shares_that_miss_their_ends_by_more_than_rounding_are_named():
    for values in ([-0.011, 0.5], [0.5, 1.011]):
        with pytest.raises(ValueError, match="must lie from 0 to 1"):
            arrays.check_shares(mask=np.array(values))
        with pytest.raises(ValueError, match="softmax of the logits"):
            arrays.check_probabilities(np.array([values]))
    for total in (0.985, 1.015):
        with pytest.raises(ValueError, match="must sum to 1"):
            arrays.check_probabilities(np.array([[total / 2, total / 2]]))
    arrays.check_probabilities(np.array([[-0.009, 1.0], [0.3, 0.709]]))
    arrays.check_shares(mask=np.array([-0.009, 1.009]), region=None, hard=np.array([0, 7]))


def test_sums_are_over_all_classes_also_where_devices_hold_some_each(monkeypatch):
    p = np.random.default_rng(8).dirichlet(np.ones(4), (2, 5)).astype(np.float32)
    expected = arrays._sums(p)
    monkeypatch.setattr(arrays, "_parts", lambda array: [array[..., :1], array[..., 1:]])
    assert arrays._sums(p) == expected == pytest.approx((1, 1))
