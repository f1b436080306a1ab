"""When checkpoints are kept for the variance of gradients; tests/studies asks for the variance itself."""

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.scores import vog


@pytest.mark.parametrize(
    ("every", "epochs", "message"),
    [
        (0, 8, "vog_every is 0; it must be a multiple of training.evaluate_every"),
        (3, 8, "vog_every is 3; it must be a multiple of training.evaluate_every"),
        (4, 7, "vog_every is 4 of 7 epochs; a variance needs two checkpoints"),
        (4, 8, None),
        (2, 4, None),
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
    checkpoints = [drawn_variables(model, np.zeros((1, 8, 8, 1), np.float32), seed) for seed in range(3)]

    def score(image, **more):
        arrays = {"image": image, "labels": np.zeros(image.shape[:3], np.uint8), "index": np.arange(2, dtype=np.int32)}
        batch = arrays | more | {"real": np.ones(2, bool)}
        monkeypatch.setattr(pipeline, "epoch", lambda source, *, batch_size: iter([batch]))
        return vog.variance_of_gradients(model, checkpoints, None, size=image.shape[1], batch_size=2)

    own = score(image[:, :4, :4].copy())
    assert (own > 0).all() and (np.abs(score(image) - own) > 1e-3 * own).all()
    np.testing.assert_allclose(score(image, valid=valid), own, rtol=1e-5)
    np.testing.assert_allclose(score(np.where(valid[..., None], image, 9), valid=valid), own, rtol=1e-5)
    valid[1] = False
    assert np.isnan(score(image, valid=valid)).tolist() == [False, True]
