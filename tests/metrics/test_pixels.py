"""Pixels that do not count in metrics: a padded batch is its cases one by one, at their own size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics import calibration, overlap, pixels, regional, regions, surface
from tests import padded

NAMES = ("dice", "smooth", "counts", "ece", "sums", "brier")


@jax.jit
def of_pixels(labels, predictions, probabilities, valid=None):
    """The metrics that no more than their pixels decide, as one program."""
    of_classes = functools.partial(overlap.dice, labels, predictions, num_classes=3, valid=valid)
    return {
        "dice": of_classes(),
        "smooth": of_classes(smooth=1.0),
        "counts": overlap.class_counts(labels, predictions, num_classes=3, valid=valid),
        "ece": calibration.expected_calibration_error(probabilities, labels, bins=4, valid=valid),
        "sums": calibration.calibration_sums(probabilities, labels, bins=4, valid=valid),
        "brier": calibration.brier(probabilities, labels, valid=valid),
    }


def on_host(labels, predictions, valid=None):
    near = {"num_classes": 3, "spacing": (1.0, 2.5), "valid": valid}
    return {
        "foreground": regional.foreground_dice(labels, predictions, valid=valid),
        "hausdorff": surface.hausdorff95(labels, predictions, **near),
        "surface": surface.surface_dice(labels, predictions, tolerance=1.0, **near),
    }


@pytest.fixture(scope="module")
def cases():
    probabilities = lambda random, shape: padded.softmax(padded.logits(random, shape))
    cases = padded.cases(0, labels=padded.labels, predictions=padded.labels, probabilities=probabilities)
    cases[0]["labels"][cases[0]["labels"] == 2] = cases[0]["predictions"][cases[0]["predictions"] == 2] = 0
    return cases


@pytest.fixture(scope="module")
def batch(cases):
    """Padded, and with foreground predicted all over the padding."""
    batch = padded.batch(cases)
    batch["predictions"] = np.where(batch["valid"], batch["predictions"], 1)
    return batch


@pytest.fixture(scope="module")
def found(batch):
    return jax.device_get(of_pixels(**batch))


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_is_its_cases(cases, found, name):
    expected = np.concatenate([of_pixels(**case)[name] for case in cases])
    np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    if name == "dice":
        assert np.isnan(found["dice"]).tolist() == [[False, True], [False, False]]  # a class in neither


@pytest.mark.parametrize("name", ["foreground", "hausdorff", "surface"])
def test_so_is_what_the_host_computes(cases, batch, name):
    pairs = [{key: case[key] for key in ("labels", "predictions")} for case in cases]
    found = on_host(batch["labels"], batch["predictions"], batch["valid"])[name]
    np.testing.assert_allclose(found, np.concatenate([on_host(**pair)[name] for pair in pairs]))


def test_to_say_that_all_pixels_count_is_to_say_nothing(cases):
    everywhere = np.ones(cases[1]["labels"].shape, bool)
    expected, found = of_pixels(**cases[1]), of_pixels(**cases[1], valid=everywhere)
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


def test_without_a_pixel_nothing_is_defined(batch, found):
    valid = batch["valid"].copy()
    valid[1] = False
    empty = jax.device_get(of_pixels(**batch | {"valid": valid}))
    for name in ("dice", "ece", "brier"):
        assert np.isnan(empty[name][1]).all(), name
        np.testing.assert_array_equal(empty[name][0], found[name][0])
    assert not empty["counts"][1].any() and not empty["sums"][1].any()
    assert (empty["smooth"][1] == 1).all()  # as where a class is in neither
    for name, values in on_host(batch["labels"], batch["predictions"], valid).items():
        assert np.isnan(values[1]).all(), name


def test_places_are_those_of_the_array(batch):
    labels, predictions, valid = batch["predictions"], batch["predictions"][::-1].copy(), batch["valid"]
    # what does not count has no foreground, and nothing else changes: neither border nor centre move
    shown = [np.where(valid, array, 0) for array in (labels, predictions)]
    run = jax.jit(lambda a, b, valid=None: (regions.band_dice(a, b, width=2, valid=valid)[1], centres(a, valid)))
    centres = lambda mask, valid: regions.mask_centres(mask, valid=valid)
    for ours, theirs in zip(run(labels, predictions, valid), run(*shown), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("trailing", [(), (3,)])
def test_the_mean_of_an_image_is_over_its_valid_pixels(trailing):
    random = np.random.default_rng(2)
    values, valid = random.standard_normal((3, 4, 5, *trailing)).astype(np.float32), random.random((3, 4, 5)) < 0.5
    valid[1] = False
    found = jax.jit(functools.partial(pixels.mean, empty=7.0))(
        np.where(valid.reshape(3, 4, 5, *(1 for _ in trailing)), values, np.nan), valid
    )
    np.testing.assert_allclose(found, [values[0][valid[0]].mean(), 7, values[2][valid[2]].mean()], rtol=1e-5)


def test_masks_that_are_none_are_refused_in_words():
    labels, shares = np.zeros((1, 4, 4), np.int32), np.full((1, 4, 4, 2), 0.5, np.float32)
    near = {"num_classes": 2, "spacing": (1.0, 1.0)}
    calls = (
        lambda valid: overlap.dice(labels, labels, num_classes=2, valid=valid),
        lambda valid: overlap.class_counts(labels, labels, num_classes=2, valid=valid),
        lambda valid: regional.foreground_dice(labels, labels, valid=valid),
        lambda valid: regions.band_dice(labels, labels, valid=valid),
        lambda valid: regions.mask_centres(labels, valid=valid),
        lambda valid: surface.hausdorff95(labels, labels, valid=valid, **near),
        lambda valid: surface.surface_dice(labels, labels, tolerance=1.0, valid=valid, **near),
        lambda valid: calibration.calibration_sums(shares, labels, valid=valid),
        lambda valid: calibration.expected_calibration_error(shares, labels, valid=valid),
        lambda valid: calibration.brier(shares, labels, valid=valid),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"valid \(1, 4\) must say of every pixel of labels, \(1, 4, 4\)"):
            jax.eval_shape(lambda call=call: call(jnp.ones((1, 4), bool)))
        with pytest.raises(TypeError, match="valid must be bool"):
            jax.eval_shape(lambda call=call: call(jnp.ones((1, 4, 4), jnp.int32)))
