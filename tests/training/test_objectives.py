"""Objectives against their parts put together by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg import models
from jaxseg.analysis import distortion, prototypes
from jaxseg.models import capture, tracing
from jaxseg.networks import of_linen
from jaxseg.training import autoencoders, losses, objectives
from tests.shallow import ShallowAutoencoder


@pytest.fixture(autouse=True)
def optax_mixes_types():
    """Adam's bias correction raises a float to an integer power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def setting():
    model = models.build("unet", 2, features=(2, 4))
    labels = np.zeros((2, 16, 16), np.int32)
    labels[0, 2:9, 3:12], labels[1, 6:14, 5:10] = 1, 1
    noise = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    batch = {"images": (labels[..., None] - 0.5 + 0.3 * noise).astype(np.float32), "labels": labels}
    return model, jax.jit(model.init)(jax.random.key(1, impl="rbg"), batch["images"]), batch


KEY = jax.random.key(7, impl="rbg")  # which XLA compiles faster
LAYERS = ("encoder_0/conv_1", "bottleneck/conv_0")


def test_segmentation_ability_is_the_loss_and_what_the_layers_lack(setting):
    model, variables, batch = setting
    images, labels = batch["images"], batch["labels"]
    objective = objectives.segmentation_ability(model, losses.dice_loss, layers=LAYERS, weight=0.7, smooth=0.5)

    def by_hand(variables):
        logits, state = model.apply(
            variables, images, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
        )
        stored = state["intermediates"]
        features = [stored["encoder_0"]["conv_1"]["__call__"][0], stored["bottleneck"]["conv_0"]["__call__"][0]]
        lacking = prototypes.sa_loss(features, jax.nn.softmax(logits)[..., 1], labels)
        return losses.dice_loss(logits, labels, smooth=0.5) + 0.7 * lacking, state["batch_stats"]

    found = jax.jit(lambda v: jax.value_and_grad(lambda v: objective(KEY, v, batch), has_aux=True)(v))(variables)
    expected = jax.jit(lambda v: jax.value_and_grad(by_hand, has_aux=True)(v))(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    moved = jax.tree.map(np.subtract, *jax.device_get((found[0][1], variables["batch_stats"])))
    changed = jax.tree.map(lambda x: np.abs(x).max(), moved)
    assert min(jax.tree.leaves(changed)) > 0


def test_no_named_layers_are_all_numbered_ones_and_weight_0_is_supervised(setting):
    model, variables, batch = setting
    build = lambda **options: objectives.segmentation_ability(model, losses.cross_entropy_loss, **options)
    asked = [
        build(),
        build(layers=model.numbered_layers),
        build(weight=0.0),
        objectives.supervised(model, losses.cross_entropy_loss),
    ]
    values = jax.jit(lambda v: [objective(KEY, v, batch) for objective in asked])(variables)
    unnamed, named, weightless, plain = jax.device_get(values)
    np.testing.assert_allclose(unnamed[0], named[0], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), weightless, plain)
    assert unnamed[0] > plain[0] + 0.05


def test_layers_that_cannot_be_are_named(setting):
    model, variables, batch = setting
    objective = objectives.segmentation_ability(model, losses.dice_loss, layers=("encoder_9",))
    with pytest.raises(ValueError, match="no layer encoder_9; the network has encoder_0/conv_0"):
        jax.eval_shape(lambda v: objective(KEY, v, batch), variables)
    other = models.build("residual_unet", 2, features=(2, 4))  # without names, all of any network's
    objective = objectives.segmentation_ability(other, losses.dice_loss)
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
    batch = {"images": images, "labels": jax.ShapeDtypeStruct((2, 8, 8), np.int32)}
    jax.eval_shape(lambda v, b: objective(KEY, v, b), tracing.variable_shapes(other, images.shape), batch)
    with pytest.raises(ValueError, match="padding='valid' cover more"):
        objectives.segmentation_ability(models.build("unet", 2, padding="valid"), losses.dice_loss)


LAYER = "bottleneck/conv_0"


@pytest.fixture(scope="module")
def activations(setting):
    model, variables, batch = setting
    return jax.jit(lambda v: capture.capture(model, v, batch["images"], (LAYER,))[1][LAYER])(variables)


def fitted(setting, activations, kind):
    """An autoencoder and the variables of an objective that fits it."""
    coder = ShallowAutoencoder(activations.shape[1:], latent=4, width=4, kind=kind)
    start = jax.jit(coder.init)(jax.random.key(2, impl="rbg"), activations)["params"]
    network = of_linen(*setting[:2], image_size=16, channels=setting[2]["images"].shape[-1])
    return coder, {"params": start, "batch_stats": {}, "frozen": network}


def test_reconstruction_is_the_autoencoders_loss_leaves_the_network_alone_and_falls(setting, activations):
    model, variables, batch = setting
    coder, state = fitted(setting, activations, "variational")
    objective = objectives.reconstruction(coder, LAYER, kl_weight=0.3)

    def by_hand(params):
        run = lambda x: coder.apply({"params": params}, x, train=True, method="reconstruct", rngs={"noise": KEY})
        r, kl = run(activations)
        logits = model.apply(variables, batch["images"])
        after = capture.replace(model, variables, batch["images"], {LAYER: lambda x: run(x)[0]})
        return distortion.autoencoder_loss(logits, after, activations, r) + 0.3 * kl.mean()

    @jax.jit
    def descend(state):
        found = jax.value_and_grad(lambda v: objective(KEY, v, batch), has_aux=True)(state)
        norms = {name: optax.tree.norm(part) for name, part in found[1].items()}
        down = jax.tree.map(lambda g: -g / norms["params"], found[1]["params"])
        return *found[0], norms, down

    def moved(by):
        return jax.tree.map(lambda p, d: np.asarray(p) + np.float32(by) * np.asarray(d), state["params"], down)

    loss, updated, norms, down = descend(state)
    expected = jax.jit(by_hand)
    np.testing.assert_allclose(loss, expected(state["params"]), rtol=1e-5)
    assert updated == {}
    slope = (float(expected(moved(1e-3))) - float(expected(moved(-1e-3)))) / 2e-3
    np.testing.assert_allclose(slope, -norms["params"], rtol=0.03)
    assert norms["frozen"] == 0
    for _ in range(20):
        state = {**state, "params": moved(0.1)}
        later, _, _, down = descend(state)
    assert later < 0.6 * loss


def test_pixels_that_do_not_count_are_in_no_part_of_an_objective(setting, activations):
    model, variables, batch = setting
    coder, state = fitted(setting, activations, "plain")
    valid = np.zeros((2, 16, 16), bool)
    valid[0, :, :9] = valid[1, 4:] = True
    ability = objectives.segmentation_ability(model, losses.dice_loss, layers=LAYERS, weight=0.7)
    repair = objectives.reconstruction(coder, LAYER)
    of_cases = autoencoders.losses_step(coder, LAYER, lambda batch: batch)

    @jax.jit
    def parts(batch):
        images = batch["images"]
        logits, features, _ = capture.capture_and_update(
            model, variables, images, LAYERS, mutable=["batch_stats"], train=True, rngs={"dropout": KEY}
        )
        r = coder.apply({"params": state["params"]}, activations, train=True, method="reconstruct")[0]
        after = capture.replace(model, variables, images, {LAYER: lambda _: r})
        asked = ability(KEY, variables, batch)[0], repair(KEY, state, batch)[0], of_cases(state, batch)
        return *asked, logits, [features[name] for name in LAYERS], r, model.apply(variables, images), after

    found = jax.device_get(parts(batch | {"valid": valid}))
    with_ability, with_repair, terms, logits, features, r, before, after = found
    mask = np.asarray(jax.nn.softmax(logits))[..., 1]
    lacking = prototypes.sa_loss(features, mask, batch["labels"], region=valid)
    np.testing.assert_allclose(
        with_ability, losses.dice_loss(logits, batch["labels"], valid=valid) + 0.7 * lacking, rtol=1e-5
    )
    cells = valid.reshape(2, 8, 2, 8, 2).mean((2, 4)) > 0.5
    assert cells.shape == activations.shape[:3]
    mean = lambda squares, counts: [one[there].mean() for one, there in zip(squares, counts, strict=True)]
    changed = np.asarray(jax.nn.softmax(before)) - np.asarray(jax.nn.softmax(after))
    expected = [mean((before - after) ** 2, valid), mean((np.asarray(activations) - r) ** 2, cells)]
    np.testing.assert_allclose(terms.T, [*expected, mean(changed**2, valid)], rtol=1e-3)
    np.testing.assert_allclose(with_repair, np.mean(expected, 1).sum(), rtol=1e-4)


def test_beside_the_reconstruction_the_encoder_runs_once(setting, activations):
    model, variables, batch = setting
    coder, state = fitted(setting, activations, "plain")
    objective = objectives.reconstruction(coder, LAYER, kl_weight=1e6)

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    network = flops(lambda v: model.apply(v, batch["images"]), variables)
    before = flops(lambda v: capture.capture(model, v, batch["images"], (LAYER,))[1], variables)
    code = flops(lambda p: coder.apply({"params": p}, activations, train=True, method="reconstruct"), state["params"])
    program = jax.jit(lambda v: objective(KEY, v, batch)[0]).lower(state).compile()
    found = program.cost_analysis()["flops"]
    np.testing.assert_allclose(found, 2 * network - before + code, rtol=0.03)
    assert before > 0.1 * found
    assert 0.1 < program(state) < 10  # the plain kind has no divergence, whatever it weighs


def test_dtus_loss_is_the_sum_of_four(monkeypatch):
    """Of outputs that are known; the triplet's negative is an annotation that was corrupted."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (2, 8, 8)).astype(np.int32)
    draw = lambda *shape: random.standard_normal((2, 8, 8, *shape)).astype(np.float32)
    coarse, fused, topology_logits, anchor, wrong = draw(3), draw(3), draw(), draw(3), 2 - labels
    out = types.SimpleNamespace(coarse=coarse, logits=fused, topology=topology_logits, embedding=anchor)
    calls = []

    class Model:
        num_classes = 3

        def apply(self, variables, x, *, method, rngs, train, mutable):
            calls.append((method, jax.random.key_data(rngs["dropout"]), train, mutable))
            return (out, {"batch_stats": "seen"}) if method == "outputs" else (2 * x, {"batch_stats": "unseen"})

    def corrupt(key, images, labels, *, num_classes, fraction, valid):
        assert (num_classes, fraction, valid) == (3, 0.3, None)
        return wrong

    monkeypatch.setattr(objectives.topology, "corrupt", corrupt)
    objective = objectives.dtu(Model(), fraction=0.3, margin=0.4)

    @jax.jit
    def both():
        one_hot = lambda labels: 2 * np.eye(3, dtype=np.float32)[labels]
        parts = [
            losses.dice_focal_loss(coarse, labels),
            losses.dice_focal_loss(fused, labels),
            losses.binary_cross_entropy(topology_logits, labels > 0),
            losses.triplet_loss(anchor, one_hot(labels), one_hot(wrong), margin=0.4),
        ]
        loss, stats = objective(KEY, {}, {"images": draw(1), "labels": jnp.asarray(labels)})
        assert stats == "seen"  # of the anchor alone
        keys = [jax.random.key_data(jax.random.fold_in(jax.random.split(KEY)[0], i)) for i in range(3)]
        return loss, jnp.stack(parts), jnp.stack(keys), jnp.stack([key for _, key, *_ in calls])

    loss, parts, keys, used = both()
    np.testing.assert_allclose(loss, np.sum(parts), rtol=1e-6)
    assert min(parts) > 0.1
    np.testing.assert_array_equal(used, keys)  # each pass drops others
    assert [(method, train) for method, _, train, _ in calls] == [("outputs", True), ("embed", True), ("embed", True)]
