"""DTU-Net: the fusion's formula, what the topology net may see, the embedding, the objective."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import models
from jaxseg.models import capture, dtu_net, tracing
from jaxseg.training import losses, objectives

SMALL = {"features": (4, 6), "topology_features": (3, 5)}


IMAGES = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)


def build(**options):
    return models.build("dtu_net", 3, **SMALL, **options)


@pytest.fixture(scope="module")
def learned(drawn_variables):
    module = build(fusion="learned")
    return module, drawn_variables(module, IMAGES)


LEAKY = ["texture_encoder/level_0/conv_0", "topology_decoder/level_0/conv_1"]
DEEPEST = "topology_encoder/level_1"


@pytest.fixture(scope="module")
def fixed(drawn_variables):
    """What the network with fixed fusion gives in its several ways, in one program; also with all weight on texture."""
    module, texture_alone = build(), build(fusion_weights=(1.0, 1e-12))
    variables = drawn_variables(module, IMAGES)
    wanted = [*LEAKY, *(f"{name}/norm" for name in LEAKY), DEEPEST]

    @jax.jit
    def run(variables, images):
        out = module.apply(variables, images, method="outputs")
        return {
            "out": out,
            "logits": module.apply(variables, images),
            "embedding": module.apply(variables, jax.nn.softmax(out.coarse), method="embed"),
            "texture_alone": texture_alone.apply(variables, images, method="outputs"),
            "found": capture.capture(module, variables, images, wanted)[1],
        }

    results = jax.tree.map(np.asarray, run(variables, IMAGES))
    return types.SimpleNamespace(module=module, variables=variables, run=run, **results)


def fused(coarse, topology, w1, w2):
    """The paper's formula for the probabilities, of the logits `[...,K]` and `[...,1]`, in float64."""
    exponentials = np.exp(np.asarray(coarse, np.float64))
    p = exponentials / exponentials.sum(-1, keepdims=True)
    t = 1 / (1 + np.exp(-np.asarray(topology, np.float64)))
    background, foreground = p[..., :1], p[..., 1:]
    total = foreground.sum(-1, keepdims=True)
    parts = np.concatenate([total * (w1 * background + w2 * (1 - t)), foreground * (w1 * total + w2 * t)], -1)
    return parts / parts.sum(-1, keepdims=True)


def test_fusion_is_the_papers_formula():
    random = np.random.default_rng(0)
    coarse, topology = (random.normal(size=(2, 3, 3, count)).astype(np.float32) for count in (4, 1))
    logits = jax.jit(dtu_net.fuse)(coarse, topology, np.log(np.float32([0.3, 0.7])))
    np.testing.assert_allclose(np.exp(logits), fused(coarse, topology, 0.3, 0.7), rtol=1e-5)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (3.0, 3.0), (0.3, 0.7), (6.0, 14.0)])
def test_weights_of_the_fusion_count_by_their_shares(weights):
    found = jax.jit(lambda: build(fusion_weights=weights)._log_weights((), None, None, False))()
    np.testing.assert_allclose(np.exp(found), np.divide(weights, sum(weights)), rtol=1e-6)


def test_fusion_of_certain_networks_is_finite():
    """Where both agree the answer is theirs. Where they do not, both terms share the factor S, and T decides."""

    @jax.jit
    @jax.vmap
    def run(coarse, topology):
        fuse = lambda coarse: dtu_net.fuse(coarse, topology, jnp.log(jnp.array([0.5, 0.5])))
        return fuse(coarse), jax.grad(lambda coarse: jnp.sum(jnp.sin(fuse(coarse))))(coarse)

    coarse, topology = np.float32([300, -300, -300]), np.float32([300, -300, 300])
    logits, gradients = run(np.stack([0 * coarse, coarse], -1), topology[:, None])
    assert np.isfinite(logits).all() and np.isfinite(gradients).all()
    for winner, found in zip((1, 0, 1), logits, strict=True):
        assert int(np.argmax(found)) == winner or abs(float(found[0] - found[1])) < 1.0


def test_logits_are_log_probabilities_and_agree_with_the_parts(fixed):
    out = fixed.out
    np.testing.assert_allclose(out.logits, fixed.logits, atol=1e-5)
    np.testing.assert_allclose(np.exp(out.logits).sum(-1), 1.0, rtol=1e-5)
    expected = fused(out.coarse, out.topology[..., None], 0.5, 0.5)
    np.testing.assert_allclose(out.logits, np.log(expected), atol=1e-5)
    np.testing.assert_allclose(out.embedding, fixed.embedding, atol=1e-5)
    assert fixed.embedding.shape == (2, 8, 8, 5)


def test_weights_are_what_they_say(fixed):
    """All weight on the texture net: p_fg is in proportion to fg S, p_bg to bg S, so the coarse answer comes back."""
    coarse = np.asarray(fixed.texture_alone.coarse, np.float64)
    log_softmax = coarse - np.log(np.exp(coarse).sum(-1, keepdims=True))
    np.testing.assert_allclose(fixed.texture_alone.logits, log_softmax, atol=1e-4)


def test_learned_fusion_reads_the_image(learned):
    module, variables = learned

    @jax.jit
    def run(variables, images):
        bottleneck, skips = module.apply(variables, images, method="encode")
        assert len(skips) == 2
        decode = lambda skips: module.apply(variables, bottleneck, skips, method="decode")
        return module.apply(variables, images), decode(skips), decode((skips[0], 5 - skips[1]))

    whole, decoded, of_another_image = run(variables, IMAGES)
    np.testing.assert_allclose(decoded, whole, atol=1e-5)
    assert np.abs(of_another_image - decoded).max() > 1e-3


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
        models.build("dtu_net", 3, **options)


def test_layers_are_leaky(fixed):
    for name in LEAKY:
        before = fixed.found[f"{name}/norm"]
        np.testing.assert_allclose(fixed.found[name], np.where(before > 0, before, 0.01 * before), atol=1e-6)


def test_dropout_is_active_in_training_alone(fixed):
    @jax.jit
    def run(variables, images):
        def dropped(seed, train):
            _, updated = fixed.module.apply(
                variables,
                images,
                train=train,
                rngs={"dropout": jax.random.key(seed)},
                capture_intermediates=lambda layer, _: "/".join(layer.path) == "texture_encoder/level_0/dropout",
                mutable=["intermediates", "batch_stats"],
            )
            return updated["intermediates"]["texture_encoder"]["level_0"]["dropout"]["__call__"][0]

        return dropped(0, True), dropped(1, True), dropped(0, False)

    first, second, test = run(fixed.variables, IMAGES)
    assert 0.15 < np.mean(first == 0) < 0.25 and not np.array_equal(first == 0, second == 0)
    assert (test != 0).all()


def test_the_embedding_is_the_bottleneck_times_its_channels_weights(fixed):
    x, attention = fixed.found[DEEPEST], fixed.variables["params"]["attention"]
    hidden = x.mean((1, 2)) @ attention["squeeze"]["kernel"] + attention["squeeze"]["bias"]
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    weights = 1 / (1 + np.exp(-(hidden @ attention["excite"]["kernel"] + attention["excite"]["bias"])))
    np.testing.assert_allclose(fixed.out.embedding, x * weights[:, None, None], atol=1e-5)


def test_default_widths_are_those_of_the_paper():
    module = models.build("dtu_net", 2)
    params = tracing.variable_shapes(module, (1, 32, 32, 3))["params"]
    width = lambda part, level: params[part][f"level_{level}"]["conv_1"]["conv"]["conv"]["kernel"].shape[-1]
    assert [width("texture_encoder", level) for level in range(5)] == [64, 128, 256, 512, 1024]
    assert [width("topology_encoder", level) for level in range(4)] == [64, 128, 256, 512]


def test_decode_wants_the_image_for_learned_fusion_alone(fixed, learned):
    def run(module, variables, change):
        bottleneck, skips = module.apply(variables, IMAGES, method="encode")
        with pytest.raises(ValueError, match=f"with {module.fusion} fusion encode returns 1"):
            module.apply(variables, bottleneck, change(skips), method="decode")

    jax.eval_shape(lambda variables: run(learned[0], variables, lambda skips: skips[:-1]), learned[1])
    jax.eval_shape(lambda variables: run(fixed.module, variables, lambda skips: (*skips, skips[0])), fixed.variables)


def test_the_objective_is_the_sum_of_its_parts(fixed, monkeypatch):
    module, variables = fixed.module, fixed.variables
    labels = (IMAGES[..., 0] > 0.5).astype(np.int32)
    valid = np.ones(labels.shape, bool)
    valid[0, :, 9:] = False
    labels[~valid] = 0
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

    @jax.jit
    def run(variables, batch):
        total, _ = objectives.dtu(module, fraction=0.4, margin=0.3)(jax.random.key(7), variables, batch)
        exact = module.apply(
            variables,
            jax.nn.one_hot(batch["labels"], 3, dtype=jnp.float32),
            train=True,
            method="embed",
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )[0]
        parts = {name: [(args, value) for args, _, value in calls] for name, calls in seen.items()}
        return total, exact, parts, [options.pop("valid") for calls in seen.values() for _, options, _ in calls]

    batch = {"images": IMAGES, "labels": labels, "valid": valid}
    total, exact, found, (*of_pixels, of_places) = jax.tree.map(np.asarray, run(variables, batch))
    for counts in of_pixels:
        np.testing.assert_array_equal(counts, valid)
    ((coarse, _), _), ((log_fused, _), _) = found["dice_focal_loss"]
    np.testing.assert_allclose(np.exp(log_fused).sum(-1), 1, rtol=1e-5)  # log probabilities; the coarse are logits
    assert np.abs(np.exp(coarse).sum(-1) - 1).max() > 0.01
    (((_, truth), _),) = found["binary_cross_entropy"]
    assert truth.dtype == bool and np.array_equal(truth, labels > 0)
    (((_, positive, negative), _),) = found["triplet_loss"]
    assert [options for _, options, _ in seen["triplet_loss"]] == [{"margin": 0.3}]
    shape = positive.shape[:-1]
    side = labels.shape[1] // shape[1]
    shares = valid.reshape(shape[0], shape[1], side, shape[2], side).mean((2, 4))
    np.testing.assert_array_equal(of_places, shares > 0.5)  # of the pixels of a place more than half
    expected = sum(float(value) for calls in found.values() for _, value in calls)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert len(found) == 3
    # the positive is the annotation: its embedding is nearer to the one without dropout than the negative's is
    assert np.abs(exact - positive).mean() < np.abs(exact - negative).mean()


def test_the_objective_is_learnt(fixed):
    module, variables = fixed.module, fixed.variables
    labels = np.zeros((2, 16, 16), np.int32)
    labels[:, 3:12, 4:9], labels[:, 8:14, 9:14] = 1, 2
    images = (labels[..., None] + 0.1 * IMAGES).astype(np.float32)
    batch = {"images": images, "labels": labels}
    objective, optimizer = objectives.dtu(module), optax.flatten(optax.adam(1e-2))

    @jax.jit
    def step(key, variables, moments):
        def loss_fn(params):
            return objective(key, {"params": params, "batch_stats": variables["batch_stats"]}, batch)

        (loss, stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction raises a float to an integer power
            updates, moments = optimizer.update(gradient, moments)
            params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": stats}, moments, loss, gradient

    history, moments = [], jax.jit(optimizer.init)(variables["params"])
    for number in range(60):
        key = jax.random.key(number, impl="rbg")
        variables, moments, loss, gradient = step(key, variables, moments)
        history.append(float(loss))
        if number == 0:
            first = gradient
    out = jax.tree.map(np.asarray, fixed.run(variables, images)["out"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(first):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    assert np.mean(history[-5:]) < 0.5 * history[0]
    assert np.mean(np.argmax(out.logits, -1) == labels) > 0.95
    probability = 1 / (1 + np.exp(-np.asarray(out.topology, np.float64)))
    assert -np.mean(np.log(np.where(labels > 0, probability, 1 - probability))) < 0.3
