"""DTU-Net: the fusion's formula, what the topology net may see, the embedding, the objective."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import models
from jaxseg.models import capture, dtu_net
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


def test_layers_are_leaky_and_dropout_is_active_in_training_alone():
    module, variables, images = network()
    names = ["texture_encoder/level_0/conv_0", "topology_decoder/level_0/conv_1"]
    wanted = [*names, *(f"{name}/norm" for name in names)]
    _, found = jax.jit(lambda v, x: capture.capture(module, v, x, wanted))(variables, images)
    for name in names:
        before = np.asarray(found[f"{name}/norm"])
        np.testing.assert_allclose(found[name], np.where(before > 0, before, 0.01 * before), atol=1e-6)
    dropped = "texture_encoder/level_0/dropout"
    run = lambda key, train: module.apply(
        variables,
        images,
        train=train,
        rngs={"dropout": key},
        capture_intermediates=lambda layer, _: "/".join(layer.path) == dropped,
        mutable=["intermediates", "batch_stats"],
    )[1]["intermediates"]["texture_encoder"]["level_0"]["dropout"]["__call__"][0]
    run = jax.jit(run, static_argnums=1)
    first, second, test = run(jax.random.key(0), True), run(jax.random.key(1), True), run(jax.random.key(0), False)
    assert 0.15 < np.mean(first == 0) < 0.25 and not np.array_equal(first == 0, second == 0)
    assert (test != 0).all()


def test_the_embedding_is_the_bottleneck_times_its_channels_weights():
    module, variables, images = network()
    deep = ["topology_encoder/level_1"]
    _, found = jax.jit(lambda v, x: capture.capture(module, v, x, deep))(variables, images)
    out = jax.jit(functools.partial(module.apply, method="outputs"))(variables, images)
    x, attention = np.asarray(found[deep[0]]), variables["params"]["attention"]
    hidden = x.mean((1, 2)) @ attention["squeeze"]["kernel"] + attention["squeeze"]["bias"]
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    weights = 1 / (1 + np.exp(-(hidden @ attention["excite"]["kernel"] + attention["excite"]["bias"])))
    np.testing.assert_allclose(out.embedding, x * weights[:, None, None], atol=1e-5)


def test_default_widths_are_those_of_the_paper():
    module = models.build("dtu_net", 2)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    width = lambda part, level: params[part][f"level_{level}"]["conv_1"]["conv"]["conv"]["kernel"].shape[-1]
    assert [width("texture_encoder", level) for level in range(5)] == [64, 128, 256, 512, 1024]
    assert [width("topology_encoder", level) for level in range(4)] == [64, 128, 256, 512]


def test_decode_wants_the_image_for_learned_fusion_alone():
    for fusion, change in (("learned", lambda skips: skips[:-1]), ("fixed", lambda skips: (*skips, skips[0]))):
        module, variables, images = network(fusion=fusion)
        bottleneck, skips = module.apply(variables, images, method="encode")
        with pytest.raises(ValueError, match=f"with {fusion} fusion encode returns 2"):
            module.apply(variables, bottleneck, change(skips), method="decode")


def test_the_objective_is_the_sum_of_its_parts(monkeypatch):
    module, variables, images = network()
    labels = (images[..., 0] > 0.5).astype(jnp.int32)
    batch = {"images": images, "labels": labels}
    seen = {}

    def noted(name):
        original = getattr(losses, name)

        def call(*args, **options):
            value = original(*args, **options)
            seen.setdefault(name, []).append((args, options, value))
            return value

        return call

    for name in ("dice_focal_loss", "binary_cross_entropy", "triplet_loss"):
        monkeypatch.setattr(losses, name, noted(name))
    total, _ = objectives.dtu(module, fraction=0.4, margin=0.3)(jax.random.key(7), variables, batch)
    ((coarse, _), _, _), ((fused, _), _, _) = seen["dice_focal_loss"]
    np.testing.assert_allclose(jnp.exp(fused).sum(-1), 1, rtol=1e-5)  # log probabilities; the coarse are logits
    assert np.abs(jnp.exp(coarse).sum(-1) - 1).max() > 0.01
    (((_, truth), _, _),) = seen["binary_cross_entropy"]
    assert truth.dtype == bool and np.array_equal(truth, labels > 0)
    (((_, positive, negative), options, _),) = seen["triplet_loss"]
    assert options == {"margin": 0.3}
    expected = sum(float(value) for calls in seen.values() for *_, value in calls)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert len(seen) == 3
    # the positive is the annotation: its embedding is nearer to the one without dropout than the negative's is
    exact = module.apply(
        variables,
        jax.nn.one_hot(labels, 3, dtype=jnp.float32),
        train=True,
        method="embed",
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )[0]
    assert np.abs(exact - positive).mean() < np.abs(exact - negative).mean()


def test_the_objective_is_learnt():
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
