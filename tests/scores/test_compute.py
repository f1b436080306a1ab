"""Scores of many cases: one program for all networks of a shape."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import models
from jaxseg.analysis import mahalanobis
from jaxseg.data import augment, pipeline
from jaxseg.models import layers, tracing
from jaxseg.networks import of_linen
from jaxseg.scores import compute, registry
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK, ENSEMBLE
from jaxseg.scores.evidence import Asked, Evidence, Known
from tests import padded
from tests.shallow import Halved, Pixelwise


def test_networks_of_one_shape_share_a_program(drawn_variables):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 8, 8, 1), np.uint8)
    labels = random.integers(0, 2, (5, 8, 8)).astype(np.uint8)
    names = tuple("abcde")
    cases = pipeline.InMemory("random/test", ("a", "b"), images, labels, names, names, *pipeline.nowhere(5))
    model = models.build("unet", 2, features=(2, 4), skips=(True,))
    asked, scores = Asked(model.roles.convolutions[-2:]), registry.computable(())
    compute.program.cache_clear()
    found = []
    for seed in range(2):
        variables = drawn_variables(model, np.zeros((1, 8, 8, 1), np.float32), seed)
        known = Known((of_linen(model, variables, image_size=8, channels=1),))
        view = augment.testing_view("original", size=8, cases=cases.cases)
        found.append(compute.score_cases(asked, known, scores, pipeline.epoch(cases, batch_size=2), view))
    assert compute.program.cache_info().misses == 1
    assert set(found[0]) == {"dice", "entropy", "mean_sa"} and found[0]["entropy"].shape == (5,)
    assert (found[0]["entropy"] != found[1]["entropy"]).any()


class Constant(nn.Module):
    """The same logits at every pixel."""

    @nn.compact
    def __call__(self, images, train=False):
        logits = self.param("logits", nn.initializers.zeros, (2,))
        return jnp.broadcast_to(logits, (*images.shape[:-1], 2))


def member(*logits):
    return of_linen(Constant(), {"params": {"logits": np.array(logits, np.float32)}}, image_size=2, channels=1)


def test_classes_are_those_of_the_mean_probability_or_of_one_networks_logits():
    images = np.zeros((1, 2, 2, 1), np.float32)
    # a very sure member outvotes two others by the mean of the logits, not by that of the probabilities
    members = (member(40.0, 0.0), member(0.0, 2.0), member(0.0, 2.0))
    classes = jax.jit(lambda known: Evidence(Asked(()), known, images).classes)
    assert (np.asarray(classes(Known(members))) == 1).all()
    # whose softmax rounds both to 1 and 0 alike
    assert (np.asarray(classes(Known((member(1e-9, 2e-9),)))) == 1).all()


def test_units_lie_over_the_image_whatever_the_padding():
    model = models.build("unet", 2, features=(2, 4), skips=(True,), padding="valid")
    image = jax.ShapeDtypeStruct((1, 8, 12, 1), jnp.float32)
    variables = tracing.variable_shapes(model, image.shape)
    asked, network = Asked(model.roles.convolutions[-2:]), of_linen(model, variables, image_size=(8, 12), channels=1)
    shapes = jax.eval_shape(lambda one, images: Evidence(asked, Known((one,)), images).units(0), network, image)
    assert [unit.shape[1:-1] for unit in shapes] == [(8, 12), (8, 12)]


def as_stored(batch):
    """A view that resizes nothing."""
    scaled = batch["image"].astype(jnp.float32) / 127.5 - 1.0
    seen = {"images": scaled, "labels": batch["labels"].astype(jnp.int32)}
    return seen | ({"valid": batch["valid"]} if "valid" in batch else {})


def stored(**arrays):
    count = len(arrays["image"])
    return arrays | {"index": np.arange(count, dtype=np.int32), "real": np.ones(count, bool)}


def test_scores_are_of_the_pixels_that_count(drawn_variables):
    image = lambda random, shape: random.integers(0, 256, (*shape, 2), np.uint8)
    cases = padded.cases(0, image=image, labels=padded.labels)
    batch = padded.batch(cases)
    model, needs = Pixelwise(3), {AUTOENCODER, BOTTLENECK, ENSEMBLE}
    asked = Asked(("hidden",), "hidden", Halved())
    drawn = [drawn_variables(model, np.zeros((1, 8, 8, 2), np.float32), seed) for seed in range(2)]
    known = Known(tuple(of_linen(model, one, image_size=8, channels=2) for one in drawn), {})
    scores = [score for score in registry.computable(needs) if score.key != "latent_mahalanobis"]  # reads everything
    other = batch | {"image": np.where(batch["valid"][..., None], batch["image"], 77)}
    nothing = batch | {"valid": np.zeros_like(batch["valid"])}  # is left out of what training cases look like
    many = [stored(**one) for one in (batch, nothing, batch | {"image": batch["image"][::-1].copy()})]
    known = compute.fit_bottleneck(asked, known, iter(many), as_stored)
    assert known.pooled is not None and np.isfinite(known.pooled.cholesky).all()
    found = [compute.score_cases(asked, known, scores, iter([stored(**one)]), as_stored) for one in (batch, other)]
    assert {"dice", "mahalanobis", "distortion", "ensemble_dice", "mean_sa"} < set(found[0])
    for name, values in found[0].items():
        assert np.isfinite(values).all(), name
        np.testing.assert_allclose(found[1][name], values, rtol=1e-5, err_msg=name)
    of_pixels = [score for score in scores if BOTTLENECK not in score.needs]  # vectors have a place for every pixel
    alone = [compute.score_cases(asked, known, of_pixels, iter([stored(**case)]), as_stored) for case in cases]
    for name in alone[0]:
        expected = np.concatenate([own[name] for own in alone])
        np.testing.assert_allclose(found[0][name], expected, rtol=1e-4, err_msg=name)


def test_a_mask_is_extended_as_the_image_to_what_the_bottleneck_covers():
    model = models.build("unet", 2, features=(2, 4), skips=(True,), padding="valid")
    image = jax.ShapeDtypeStruct((1, 16, 24, 1), jnp.float32)
    valid = np.arange(24) < 10
    variables = tracing.variable_shapes(model, image.shape)
    asked, network = Asked((), model.roles.bottleneck), of_linen(model, variables, image_size=(16, 24), channels=1)

    def around(one, images):
        evidence = Evidence(asked, Known((one,)), images, valid=jnp.asarray(np.tile(valid, (1, 16, 1))))
        return evidence.valid_around, evidence.activations

    mask, activations = jax.eval_shape(around, network, image)
    assert mask.shape[1:] == tuple(2 * cells for cells in activations.shape[1:-1])
    width = (mask.shape[2] - 24) // 2
    assert 0 < width <= model.margin
    extended = layers.mask_around(jnp.asarray(np.tile(valid, (1, 16, 1))), activations.shape[1:-1], model.margin)
    np.testing.assert_array_equal(np.asarray(extended)[0, 0], np.pad(valid, width, "reflect"))


def test_a_score_as_a_risk_has_the_other_sign_where_high_is_good():
    values = np.array([0.25, 1.0])
    good, bad = registry.SCORES["mean_sa"], registry.SCORES["entropy"]
    np.testing.assert_array_equal(good.risk(values), [0.75, 0.0])
    np.testing.assert_array_equal(bad.risk(values), values)
    assert good.risk_meaning == f"1 - {good.meaning}" and bad.risk_meaning == bad.meaning


def test_scores_stand_in_order_and_are_computed_with_what_they_need():
    assert list(registry.SCORES) == [
        "mean_sa", "entropy", "ensemble_dice", "distortion", "ensemble_entropy", "mahalanobis", "vog",
        "latent_mahalanobis",
    ]  # fmt: skip
    keys = lambda *given: [score.key for score in registry.computable(given)]
    assert keys() == ["mean_sa", "entropy"]
    assert keys("ensemble") == ["mean_sa", "entropy", "ensemble_dice", "ensemble_entropy"]
    assert keys("autoencoder", "bottleneck")[2:] == ["distortion", "mahalanobis", "latent_mahalanobis"]
    assert keys("checkpoints") == ["mean_sa", "entropy"]  # not of a forward pass


def test_the_bottleneck_is_fitted_to_all_cases_and_to_no_filling():
    """Activations are the images themselves; the last batch is filled up with a case that does not count."""

    class Echo(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            return Identity(name="bottleneck")(images)

    class Identity(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x

    random = np.random.default_rng(0)
    images = random.random((6, 4, 4, 3)).astype(np.float32)
    batches = iter(
        {"images": images[first : first + 3], "real": np.array(valid)}
        for first, valid in ((0, [True] * 3), (3, [True, True, False]))
    )
    known = Known((of_linen(Echo(), {}, image_size=4),))
    fitted = compute.fit_bottleneck(Asked((), "bottleneck"), known, batches, Seen())

    @jax.jit
    def at_once(images):
        vectors = mahalanobis.pool(images)
        return mahalanobis.finish(mahalanobis.update(mahalanobis.init(vectors.shape[1]), vectors))

    wanted = at_once(images[:5])
    np.testing.assert_allclose(fitted.pooled.mean, wanted.mean, rtol=1e-5)
    np.testing.assert_allclose(fitted.pooled.cholesky, wanted.cholesky, rtol=1e-4, atol=1e-6)
    assert fitted.latent is None


class Seen:
    """The batch as it is."""

    def __call__(self, batch):
        return {"images": batch["images"]}


def test_foreground_is_all_but_the_background():
    images = np.zeros((1, 2, 2, 1), np.float32)
    known = Known((member(0.0, np.log(3.0)),))
    found = jax.jit(lambda known: Evidence(Asked(()), known, images).foreground)(known)
    np.testing.assert_allclose(found, 0.75, rtol=1e-6)
