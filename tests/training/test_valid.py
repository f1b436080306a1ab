"""Pixels that do not count in losses: a padded batch is its cases one by one, at their own size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import options
from jaxseg.analysis import prototypes
from jaxseg.errors import InputError
from jaxseg.training import losses, objectives, steps, topology
from tests import padded

LOSSES = losses.LOSSES | {
    "focal": losses.focal_loss,
    "no smoothing": lambda logits, labels, **valid: losses.dice_loss(logits, labels, smooth=0.0, **valid),
    "bce": lambda logits, labels, **valid: losses.binary_cross_entropy(logits[..., 1], labels > 0, **valid),
    "triplet": lambda logits, labels, **valid: losses.triplet_loss(logits, logits[..., ::-1], -logits, **valid),
}


@jax.jit
def all_losses(logits, labels, valid=None):
    """Value and gradient of every loss."""
    return {name: jax.value_and_grad(loss)(logits, labels, valid=valid) for name, loss in LOSSES.items()}


@pytest.fixture(scope="module")
def one_by_one():
    cases = padded.cases(0, logits=padded.logits, labels=padded.labels)
    return cases, [jax.device_get(all_losses(**case)) for case in cases]


@pytest.fixture(scope="module")
def together(one_by_one):
    return jax.device_get(all_losses(**padded.batch(one_by_one[0])))


@pytest.mark.parametrize("name", LOSSES)
def test_a_padded_batch_has_loss_and_gradient_of_its_cases(one_by_one, together, name):
    value, gradient = together[name]
    gradient = gradient.copy()
    np.testing.assert_allclose(value, np.mean([own[name][0] for own in one_by_one[1]]), rtol=1e-5)
    for i, (place, own) in enumerate(zip(padded.places(), one_by_one[1], strict=True)):
        np.testing.assert_allclose(gradient[i][place] * 2, own[name][1][0], rtol=1e-4, atol=1e-6)
        gradient[i][place] = 0
    assert not gradient.any()  # nothing is asked of the padding, not even NaN


@pytest.mark.parametrize("name", LOSSES)
def test_to_say_that_all_pixels_count_is_to_say_nothing(one_by_one, name):
    case, own = one_by_one[0][0], one_by_one[1][0][name]
    found = all_losses(**case, valid=np.ones(case["labels"].shape, bool))[name]
    for ours, theirs in zip(found, own, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_an_image_without_a_pixel_loses_nothing_and_is_one_of_the_images(one_by_one, together):
    batch = padded.batch(one_by_one[0])
    batch["valid"][1] = False
    for name, (value, gradient) in jax.device_get(all_losses(**batch)).items():
        np.testing.assert_allclose(value, one_by_one[1][0][name][0] / 2, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(gradient[0], together[name][1][0], rtol=1e-5, atol=1e-7, err_msg=name)
        assert not gradient[1].any(), name  # so that parts of a batch, on devices, average to the batch


def test_masks_that_do_not_fit_are_named():
    logits, labels = np.zeros((1, 4, 4, 2), np.float32), np.zeros((1, 4, 4), np.int32)
    for loss in losses.LOSSES.values():
        with pytest.raises(ValueError, match=r"valid \(1, 4\) must say of every pixel of labels, \(1, 4, 4\)"):
            loss(logits, labels, valid=np.zeros((1, 4), bool))
    with pytest.raises(TypeError, match="valid must be bool, got int32; compare it with a threshold"):
        losses.dice_loss(logits, labels, valid=labels)


def test_valid_is_no_option_of_a_config():
    assert options.chosen("training.loss", losses.LOSSES, "dice", {"smooth": 0.5}) == {"smooth": 0.5}
    with pytest.raises(InputError, match=r"training.loss_options.valid is unknown; dice has smooth"):
        options.chosen("training.loss", losses.LOSSES, "dice", {"valid": None})


@jax.jit
def ability(features, mask, labels, region=None):
    """`sa_loss` of features at the mask's size, and its gradients."""
    loss = lambda features, mask: prototypes.sa_loss([features], mask, labels, region=region)
    return jax.value_and_grad(loss, (0, 1))(features, mask)


def test_the_ability_of_a_padded_batch_is_that_of_its_cases():
    uniform = lambda random, shape: random.uniform(0.1, 0.9, shape).astype(np.float32)
    cases = padded.cases(2, features=padded.logits, mask=uniform, labels=padded.labels)
    own = [jax.device_get(ability(**case)) for case in cases]
    batch = padded.batch(cases, finite=True)
    region = batch.pop("valid")
    value, gradients = jax.device_get(ability(**batch, region=region))
    np.testing.assert_allclose(value, np.mean([one[0] for one in own]), rtol=1e-5)
    for number, gradient in enumerate(map(np.array, gradients)):
        for i, (place, one) in enumerate(zip(padded.places(), own, strict=True)):
            np.testing.assert_allclose(gradient[i][place] * 2, one[1][number][0], rtol=1e-3, atol=1e-6)
            gradient[i][place] = 0
        np.testing.assert_allclose(gradient, 0, atol=1e-7)
    region[1] = False  # nowhere are prototypes
    value, gradients = jax.device_get(ability(**batch, region=region))
    np.testing.assert_allclose(value, own[0][0] / 2, rtol=1e-5)
    assert all(np.isfinite(gradient).all() and not gradient[1].any() for gradient in gradients)


def test_false_splits_are_painted_on_valid_pixels_alone():
    labels, valid = np.zeros((1, 16, 16), np.int32), np.zeros((1, 16, 16), bool)
    labels[0, 0, 0], valid[0, :8, :12] = 1, True
    images = np.full((1, 16, 16, 4), 0.25, np.float32)  # every pixel looks like the class
    paint = jax.jit(lambda valid: topology.corrupt(jax.random.key(3), images, labels, num_classes=2, valid=valid))
    wrong = np.asarray(paint(valid))
    assert not wrong[~valid].any()
    assert wrong.sum() == 19  # a fifth of the 95 background pixels that count


class Pixelwise:
    """Logits of a pixel are its channels times a number: nothing leaks in from the padding."""

    def apply(self, variables, images, *, mutable=(), **_):
        logits = images * variables["params"]
        return (logits, {}) if mutable else logits


def test_objectives_and_counts_ask_the_batch_which_pixels_count():
    cases = padded.cases(3, images=padded.logits, labels=padded.labels)
    objective = objectives.supervised(Pixelwise(), losses.dice_cross_entropy_loss, smooth=0.5)
    counts = steps.make_counts_step(Pixelwise(), lambda batch: batch, 3)

    @jax.jit
    def run(batch):
        loss = lambda scale: objective(None, {"params": scale}, batch)[0]
        return *jax.value_and_grad(loss)(jnp.float32(1.5)), counts({"params": 1.0}, batch)

    value, slope, counted = jax.device_get(run(padded.batch(cases, finite=True)))
    values, slopes, of_cases = zip(*(jax.device_get(run(case)) for case in cases), strict=True)
    np.testing.assert_allclose(value, np.mean(values), rtol=1e-5)
    np.testing.assert_allclose(slope, np.mean(slopes), rtol=1e-4)
    np.testing.assert_array_equal(counted, np.concatenate(of_cases))
