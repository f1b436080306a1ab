"""DTU-Net: the fusion's formula, what the topology net may see, the embedding, the objective."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import models
from jaxseg.models import dtu_net
from jaxseg.training import losses, objectives

SMALL = {"features": (4, 6, 8), "topology_features": (4, 6)}


def network(seed=0, shape=(2, 16, 16, 3), **options):
    module = models.build("dtu_net", 3, **SMALL, **options)
    images = jax.random.normal(jax.random.key(seed), shape)
    return module, jax.jit(module.init)(jax.random.key(1, impl="rbg"), images), images


def test_fusion_is_the_papers_formula():
    random = np.random.default_rng(0)
    coarse, topology = random.normal(size=(2, 3, 3, 4)), random.normal(size=(2, 3, 3, 1))
    p = np.exp(coarse) / np.exp(coarse).sum(-1, keepdims=True)
    t = 1 / (1 + np.exp(-topology))
    background, foreground = p[..., :1], p[..., 1:]
    total = foreground.sum(-1, keepdims=True)
    w1, w2 = 0.3, 0.7
    fused = np.concatenate([total * (w1 * background + w2 * (1 - t)), foreground * (w1 * total + w2 * t)], -1)
    expected = fused / fused.sum(-1, keepdims=True)
    logits = dtu_net.fuse(jnp.float32(coarse), jnp.float32(topology), jnp.log(jnp.array([w1, w2])))
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-5)


@pytest.mark.parametrize(("coarse", "topology", "winner"), [(300.0, 300.0, 1), (-300.0, -300.0, 0), (-300.0, 300.0, 1)])
def test_fusion_of_certain_networks_is_finite(coarse, topology, winner):
    """Where both agree the answer is theirs. Where they do not, both terms share the factor S, and T decides."""
    logits = jnp.array([0.0, coarse])[None]
    run = lambda logits: dtu_net.fuse(logits, jnp.array([[topology]]), jnp.log(jnp.array([0.5, 0.5])))
    fused = run(logits)
    assert np.isfinite(fused).all()
    assert np.isfinite(jax.grad(lambda logits: jnp.sum(jnp.sin(run(logits))))(logits)).all()
    assert int(jnp.argmax(fused)) == winner or abs(float(fused[0, 0] - fused[0, 1])) < 1.0


def test_logits_are_log_probabilities_and_agree_with_the_parts():
    module, variables, images = network()
    out = jax.jit(functools.partial(module.apply, method="outputs"))(variables, images)
    np.testing.assert_allclose(out.logits, jax.jit(module.apply)(variables, images), atol=1e-5)
    np.testing.assert_allclose(jnp.exp(out.logits).sum(-1), 1.0, rtol=1e-5)
    expected = dtu_net.fuse(out.coarse, out.topology[..., None], jnp.log(jnp.array([0.5, 0.5])))
    np.testing.assert_allclose(out.logits, expected, atol=1e-5)
    embedding = module.apply(variables, jax.nn.softmax(out.coarse), method="embed")
    np.testing.assert_allclose(out.embedding, embedding, atol=1e-5)
    assert embedding.shape == (2, 8, 8, 6)


def test_weights_are_what_they_say():
    """All weight on the texture net: p_fg is in proportion to fg S, p_bg to bg S, so the coarse answer comes back."""
    module, variables, images = network(fusion_weights=(1.0, 1e-12))
    out = module.apply(variables, images, method="outputs")
    np.testing.assert_allclose(out.logits, jax.nn.log_softmax(out.coarse), atol=1e-4)


def test_learned_fusion_reads_the_image():
    module, variables, images = network(fusion="learned")
    bottleneck, skips = module.apply(variables, images, method="encode")
    assert len(skips) == 3
    decode = jax.jit(functools.partial(module.apply, method="decode"))
    logits = decode(variables, bottleneck, skips)
    np.testing.assert_allclose(logits, jax.jit(module.apply)(variables, images), atol=1e-5)
    assert np.abs(decode(variables, bottleneck, (*skips[:2], 5 - skips[2])) - logits).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "mean"}, "fusion is 'mean'; choose one of fixed, learned"),
        ({"fusion_weights": (0.5,)}, "give two weights above 0"),
        ({"fusion_weights": (0.5, 0.0)}, "give two weights above 0"),
    ],
)
def test_fusions_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("dtu_net", 3, **options).init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


def test_the_objective_is_the_sum_of_its_parts_and_is_learnt():
    module, variables, _ = network()
    labels = jnp.zeros((2, 16, 16), jnp.int32).at[:, 3:12, 4:9].set(1).at[:, 8:14, 9:14].set(2)
    images = labels[..., None].astype(jnp.float32) + 0.1 * jax.random.normal(jax.random.key(5), (2, 16, 16, 3))
    batch = {"images": images, "labels": labels}
    objective = objectives.dtu(module)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(key, variables, moments):
        def loss_fn(params):
            return objective(key, {"params": params, "batch_stats": variables["batch_stats"]}, batch)

        (loss, stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction raises a float to an integer power
            updates, moments = optimizer.update(gradient, moments)
            params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": stats}, moments, loss, gradient

    moments = optimizer.init(variables["params"])
    history = []
    for i in range(60):
        variables, moments, loss, gradient = step(jax.random.key(i), variables, moments)
        history.append(float(loss))
        if i == 0:
            for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
                assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    assert np.mean(history[-5:]) < 0.5 * history[0]
    predicted = jnp.argmax(module.apply(variables, images), -1)
    assert np.mean(predicted == labels) > 0.95
    out = module.apply(variables, images, method="outputs")
    assert losses.binary_cross_entropy(out.topology, labels > 0) < 0.3
