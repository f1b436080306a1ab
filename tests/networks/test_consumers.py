"""What takes networks takes all makes: one network as a module, as a JAX function and on the host."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import inference, networks
from jaxseg.analysis import gradcam, vog
from jaxseg.data import augment, pipeline
from jaxseg.scores import compute, registry
from jaxseg.scores import vog as difficulty
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK
from jaxseg.scores.evidence import Asked, Known
from jaxseg.training import brief_fit, objectives, sliding
from tests.shallow import Halved, Pixelwise, ShallowAutoencoder

RANDOM = np.random.default_rng(0)
LEVELS = RANDOM.integers(0, 256, (5, 6, 6, 2), np.uint8)
IMAGES = LEVELS[:2].astype(np.float32) / np.float32(127.5) - 1
NAMES = tuple("abcde")
LABELS = RANDOM.integers(0, 2, (5, 6, 6)).astype(np.uint8)
CASES = pipeline.InMemory("drawn/test", ("a", "b"), LEVELS, LABELS, NAMES, NAMES, *pipeline.nowhere(5))


@pytest.fixture(scope="module")
def module(drawn_variables):
    return networks.of_linen(Pixelwise(2), drawn_variables(Pixelwise(2), IMAGES), image_size=6, channels=2)


@pytest.fixture(scope="module")
def as_function(module):
    params = jax.tree.map(lambda x: x if x.ndim == 2 else x.reshape(1, 1, 1, -1), module.variables["params"])

    def function(levels, where=jnp):
        dense = lambda x, name: x @ params[name]["kernel"] + params[name]["bias"]
        hidden = dense(where.asarray(levels, where.float32) / where.float32(127.5) - 1, "hidden")
        return dense(where.maximum(hidden, 0), "head"), {"hidden": hidden}

    make = lambda given: networks.from_function(
        given, num_classes=2, image_size=6, channels=2, output="logits", bottleneck="hidden"
    )
    return make(function), make(lambda levels: function(levels, np))


def scored(network, needs):
    asked, known = Asked(("hidden",), "hidden", Halved()), Known((network,), {})
    view = augment.testing_view("original", size=6, cases=NAMES)
    known = compute.fit_bottleneck(asked, known, pipeline.epoch(CASES, batch_size=2), view)
    return compute.score_cases(asked, known, registry.computable(needs), pipeline.epoch(CASES, batch_size=2), view)


def test_scores_are_the_same_of_every_make(module, as_function):
    expected = scored(module, {AUTOENCODER, BOTTLENECK})
    assert {"dice", "distortion", "entropy", "mean_sa", "mahalanobis", "latent_mahalanobis"} == set(expected)
    for network, needs in zip(as_function, ({AUTOENCODER, BOTTLENECK}, {BOTTLENECK}), strict=True):
        found = scored(network, needs)
        assert set(expected) - set(found) == (
            {"distortion", "latent_mahalanobis"} if AUTOENCODER not in needs else set()
        )
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=2e-4, err_msg=name)


def test_predictions_and_ensembles_are_the_same_of_every_make(module, as_function):
    view = lambda batch: augment.whole(batch, size=6)
    share = lambda labels, predictions: {"same": jnp.mean((labels == predictions).astype(jnp.float32), (1, 2))}
    run = lambda network: inference.score_cases(network, pipeline.epoch(CASES, batch_size=2), view, share)["same"]
    expected = run(module)
    assert 0 < expected.mean() < 1
    for network in as_function:
        np.testing.assert_array_equal(run(network), expected)
    mean = jax.jit(lambda members: sliding.mean_probabilities(members, IMAGES))
    np.testing.assert_allclose(mean((module, *as_function)), mean((module,)), atol=1e-5)


def test_analyses_of_gradients_are_the_same(module, as_function):
    @jax.jit
    def ask(network, images):
        hidden = network.activations(images, ("hidden",))["hidden"]
        rest = lambda x: network.replaced(images, {"hidden": x})
        slopes = gradcam.score_gradients(rest, hidden, class_index=1)
        return gradcam.gradcam(hidden, slopes, size=(6, 6)), vog.input_gradients(network.logits, images)

    for found, expected in zip(ask(as_function[0], IMAGES), ask(module, IMAGES), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.abs(expected).max() > 0.1


def test_an_autoencoder_is_fitted_to_every_make_alike(module, as_function):
    coder = ShallowAutoencoder((6, 6, 6), latent=2, width=2)
    start = jax.jit(coder.init)(jax.random.key(2, impl="rbg"), np.zeros((1, 6, 6, 6), np.float32))["params"]
    key = jax.random.key(0)

    def slopes(frozen):
        objective = objectives.reconstruction(coder, "hidden")
        loss = lambda params: objective(key, {"params": params, "frozen": frozen}, {"images": IMAGES})[0]
        return jax.jit(jax.value_and_grad(loss))(start)

    expected = slopes(module)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), slopes(as_function[0]), expected)


def test_the_variance_of_gradients_is_that_of_every_make(module, as_function):
    half = dataclasses.replace(module, variables=jax.tree.map(lambda x: 0.5 * x, module.variables))
    ask = lambda *checkpoints: difficulty.variance_of_gradients(checkpoints, CASES, size=6, batch_size=2)
    expected = ask(module, half)
    assert (expected > 1e-3).all()
    np.testing.assert_allclose(ask(as_function[0], half), expected, rtol=1e-3)


def test_a_brief_fit_takes_the_networks_bottleneck(as_function, monkeypatch):
    made = []

    def create(key, module, optimizer, shape):
        made.append(shape)
        return brief_fit.state.TrainState(jnp.int32(0), {"seen": jnp.float32(0)}, {}, (), key)

    def step(state, batch):
        assert state.variables["frozen"] is not None
        return state, {"loss": jnp.float32(1)}

    monkeypatch.setattr(brief_fit.state, "create", create)
    monkeypatch.setattr(brief_fit.steps, "make_train_step", lambda *_: step)
    options = {"view": "original", "size": 6, "batch_size": 2, "steps_taken": 1, "latent": 2, "width": 2}
    fitted, _ = brief_fit.fit_autoencoder(as_function[0], CASES, **options)
    assert fitted.shape == (6, 6, 6) and made == [(1, 6, 6, 6)]
