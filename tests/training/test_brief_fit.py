"""A brief fit takes so many steps over the training cases; what a step does is asked elsewhere."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.data import pipeline
from jaxseg.models.skeleton import Roles
from jaxseg.networks import of_linen
from jaxseg.training import brief_fit
from jaxseg.training.state import TrainState

OPTIONS = {"view": "original", "size": 8, "latent": 3, "width": 2}


@pytest.fixture(scope="module")
def cases():
    names = tuple("abcde")
    images = np.zeros((5, 8, 8, 1), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None]
    labels = np.arange(5, dtype=np.uint8)[:, None, None] + np.zeros((5, 8, 8), np.uint8)
    return pipeline.InMemory("drawn", ("a", "b"), images, labels, names, names, *pipeline.nowhere(5))


@pytest.fixture
def fit(monkeypatch, cases, drawn_variables):
    """`(loss, **options) -> the autoencoder and its variables`; steps add up what they see, and have that loss."""

    def create(key, module, optimizer, shape):
        assert shape == (1, *module.shape)
        return TrainState(jnp.int32(0), {"seen": jnp.float32(0)}, {}, (), key)

    def call(loss, cases=cases, **options):
        def step(state, batch):
            seen = [jnp.mean(batch[name].astype(jnp.float32)) for name in ("image", "labels", "index")]
            later = (
                10 * state.params["seen"] + seen[0] + 2 * seen[1] + 4 * seen[2] + 100 * jnp.sum(batch.get("valid", 0))
            )
            return state.replace(params={"seen": later}), {"loss": jnp.float32(loss)}

        monkeypatch.setattr(brief_fit.state, "create", create)
        monkeypatch.setattr(brief_fit.steps, "make_train_step", lambda *_: step)
        model = models.build("unet", 2, features=(2, 4), skips=(True,))
        variables = drawn_variables(model, np.zeros((1, 8, 8, 1), np.float32))
        network = of_linen(model, variables, image_size=8, channels=1)
        return brief_fit.fit_autoencoder(network, cases, **OPTIONS | options)

    return call


def test_every_step_takes_a_batch_of_the_cases_in_an_order_of_its_own(fit):
    made, variables = fit(0.5, batch_size=2, steps_taken=4, seed=3)
    assert made.shape == (4, 4, 4) and made.latent == 3
    order = pipeline.order(5, batch_size=2, seed=3)
    total = 0.0
    for _ in range(4):
        total = 10 * total + 7 * np.mean(next(order))
    assert float(variables["params"]["seen"]) == pytest.approx(total)


def test_a_batch_is_no_larger_than_there_are_cases_and_the_last_loss_is_finite(fit):
    _, variables = fit(0.5, batch_size=16, steps_taken=1)
    assert float(variables["params"]["seen"]) == pytest.approx(7 * 2)  # the mean of 0 to 4
    with pytest.raises(FloatingPointError, match="loss is not finite; take fewer steps"):
        fit(float("nan"), batch_size=2, steps_taken=1)


def test_cases_may_be_rectangles_of_which_not_all_counts(fit, cases):
    wide = lambda array: np.concatenate([array, array[:, :, :4]], 2)
    valid = np.ones((5, 8, 12), bool)
    valid[:, 3:] = False
    some = dataclasses.replace(cases, images=wide(cases.images), labels=wide(cases.labels), valid=valid)
    made, variables = fit(0.5, cases=some, size=None, batch_size=2, steps_taken=1, seed=3)
    assert made.shape == (4, 6, 4)
    mean = np.mean(next(pipeline.order(5, batch_size=2, seed=3)))
    assert float(variables["params"]["seen"]) == pytest.approx(7 * mean + 100 * 2 * 3 * 12)


def test_a_network_without_a_bottleneck_is_refused(cases):
    network = types.SimpleNamespace(roles=Roles(None, (), (), ("a", "b")))
    with pytest.raises(ValueError, match="has no bottleneck whose activations could be reconstructed"):
        brief_fit.fit_autoencoder(network, cases, **OPTIONS, batch_size=2, steps_taken=1)
