"""When checkpoints are kept for the variance of gradients, which of them, and the variance of known gradients."""

import types

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.networks import of_linen
from jaxseg.scores import vog


@pytest.mark.parametrize(
    ("every", "epochs", "message"),
    [
        (0, 8, "vog_every is 0; it must be a multiple of training.evaluate_every"),
        (3, 8, "vog_every is 3; it must be a multiple of training.evaluate_every"),
        (4, 7, "vog_every is 4 of 7 epochs; a variance needs two checkpoints"),
        (4, 8, None),
        (2, 4, None),
        (1, 8, "vog_every is 1; it must be a multiple of training.evaluate_every"),
        (2, 3, "a variance needs two checkpoints"),
    ],
)
def test_a_variance_needs_two_checkpoints_that_follow_validations(every, epochs, message):
    training = ml_collections.ConfigDict({"evaluate_every": 2, "epochs": epochs})
    if message is None:
        vog.check(every, training)
        return
    with pytest.raises(InputError, match=message):
        vog.check(every, training)


class Pixelwise(nn.Module):
    """Logits of a pixel are of that pixel alone."""

    remat: bool = False

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(2)(jnp.sin(3.0 * nn.Dense(3)(images)))


def test_the_variance_is_over_the_pixels_that_count(drawn_variables, monkeypatch):
    """Whatever lies elsewhere; and a half of the image that counts is that half as an image of its own."""
    random = np.random.default_rng(0)
    image, valid = random.integers(0, 256, (2, 8, 8, 1), np.uint8), np.zeros((2, 8, 8), bool)
    valid[:, :4, :4] = True
    model = Pixelwise()
    drawn = [drawn_variables(model, np.zeros((1, 8, 8, 1), np.float32), seed) for seed in range(3)]
    checkpoints = [of_linen(model, variables, image_size=8, channels=1) for variables in drawn]

    def score(image, **more):
        arrays = {"image": image, "labels": np.zeros(image.shape[:3], np.uint8), "index": np.arange(2, dtype=np.int32)}
        batch = arrays | more | {"real": np.ones(2, bool)}
        monkeypatch.setattr(pipeline, "epoch", lambda source, *, batch_size: iter([batch]))
        return vog.variance_of_gradients(checkpoints, None, size=image.shape[1], batch_size=2)

    own = score(image[:, :4, :4].copy())
    assert (own > 0).all() and (np.abs(score(image) - own) > 1e-3 * own).all()
    np.testing.assert_allclose(score(image, valid=valid), own, rtol=1e-5)
    np.testing.assert_allclose(score(np.where(valid[..., None], image, 9), valid=valid), own, rtol=1e-5)
    valid[1] = False
    assert np.isnan(score(image, valid=valid)).tolist() == [False, True]


@pytest.mark.parametrize("every", [1, 3])
def test_every_validation_may_have_its_checkpoint(every):
    vog.check(every, ml_collections.ConfigDict({"evaluate_every": 1, "epochs": 2 * every}))
    vog.check(every, ml_collections.ConfigDict({"evaluate_every": 0, "epochs": 2 * every}))
    with pytest.raises(InputError, match="a variance needs two checkpoints"):
        vog.check(every, ml_collections.ConfigDict({"evaluate_every": 1, "epochs": 2 * every - 1}))


def test_checkpoints_are_those_of_so_many_epochs(monkeypatch):
    asked = []

    def kept(folder, like, *, every):
        asked.append((folder, like, every))
        return {15: {"a": 1}, 30: {"a": 2}}

    monkeypatch.setattr(vog.runs, "Data", lambda config, splits: types.SimpleNamespace(steps_per_epoch=5))
    monkeypatch.setattr(vog.runs, "restore_kept", kept)
    network = of_linen(Linear(), {"a": 0}, image_size=4)
    found = vog.checkpoints(3, {}, "folder", {}, network)
    assert [(one.model, one.variables) for one in found] == [(Linear(), {"a": 1}), (Linear(), {"a": 2})]
    assert asked == [("folder", {"a": 0}, 15)]


class Linear(nn.Module):
    """Class 1 everywhere, by so much an input."""

    @nn.compact
    def __call__(self, images, train=False):
        scale = self.param("scale", nn.initializers.zeros, ())
        logit = scale * jnp.sum(images, -1, keepdims=True)
        return jnp.concatenate([jnp.full_like(logit, -100), logit], -1)


def test_the_variance_of_known_gradients():
    """The gradient is the scale everywhere: its standard deviation over checkpoints is that of the scales."""
    names = tuple("abc")
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2), np.uint8)
    cases = pipeline.InMemory("drawn", ("a", "b"), images, images[..., 0], names, names, *pipeline.nowhere(3))
    variables = [{"params": {"scale": jnp.float32(value)}} for value in (1.0, 2.0, 6.0)]
    checkpoints = [of_linen(Linear(), one, image_size=4, channels=2) for one in variables]
    found = vog.variance_of_gradients(checkpoints, cases, size=4, batch_size=2)
    np.testing.assert_allclose(found, np.full(3, np.std([1, 2, 6])), rtol=1e-5)
