"""Functions of gray levels as networks: closed forms, on the host and in JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models, networks
from jaxseg.errors import InputError
from jaxseg.models import capture
from jaxseg.networks import base, fingerprints, functions, host

IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 4, 6, 2)).astype(np.float32)
LEVELS = np.round((IMAGES + 1) * 127.5)
SLOPES = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, -1.0]], np.float32)
make = functools.partial(networks.from_function, image_size=(4, 6), channels=2)


def linear(levels):
    """Three logits of the two channels' levels, with a nested program and a layer before and after it."""
    scaled = levels.astype(jnp.float32) / 255
    inner = jax.jit(lambda x: jnp.maximum(x - 0.5, 0.0) * 2)
    folded = inner(scaled)
    turned = jax.jit(lambda x: jnp.tanh(inner(x)))(folded)
    return turned @ SLOPES, {"folded": folded, "turned": turned}


def on_host(levels):
    """The same in NumPy."""
    assert isinstance(levels, np.ndarray) and levels.dtype == np.uint8
    fold = lambda x: np.maximum(x - 0.5, 0) * 2
    folded = fold(np.asarray(levels, np.float32) / 255)
    return np.tanh(fold(folded)) @ SLOPES, {"folded": folded, "turned": np.tanh(fold(folded))}


@pytest.fixture(scope="module")
def both():
    return make(linear, num_classes=3, bottleneck="folded"), make(on_host, num_classes=3, bottleneck="folded")


def test_jax_and_the_host_give_the_same_logits_and_activations(both):
    program = jax.jit(lambda network, images: network.captured(images, network.layers))
    expected, layers = on_host(LEVELS.astype(np.uint8))
    for network in both:
        assert network.layers == ("folded", "turned") and network.num_classes == 3
        assert network.roles == base.Roles("folded", (), ("turned",), ("folded", "turned"))
        logits, found = program(network, IMAGES)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        for name, values in layers.items():
            np.testing.assert_allclose(found[name], values, atol=1e-6)
    assert isinstance(both[0], functions.FunctionNetwork) and both[0].differentiable
    assert isinstance(both[1], host.HostNetwork) and not both[1].differentiable
    assert both[0].fingerprint != make(lambda levels: linear(levels)[0] + 1, num_classes=3).fingerprint


def test_a_layer_is_replaced_wherever_its_values_go(both):
    network = both[0]
    replaced = jax.jit(lambda **given: network.replaced(IMAGES, given))
    folded, turned = (np.random.default_rng(i).uniform(0, 1, IMAGES.shape).astype(np.float32) for i in range(2))
    after = lambda x: np.tanh(np.maximum(x - 0.5, 0) * 2)
    np.testing.assert_allclose(replaced(folded=folded), after(folded) @ SLOPES, atol=1e-6)
    np.testing.assert_allclose(replaced(turned=turned), turned @ SLOPES, atol=1e-6)
    np.testing.assert_allclose(replaced(folded=folded, turned=turned), turned @ SLOPES, atol=1e-6)


def test_gradients_are_those_of_the_function_at_whole_levels(both):
    network = both[0]
    weights = np.random.default_rng(1).normal(size=(3, 4, 6, 3)).astype(np.float32)
    score = lambda logits: jnp.sum(logits * weights)

    @jax.jit
    def slopes(images, folded):
        of_images = jax.grad(lambda x: score(network.logits(x)))(images)
        return of_images, jax.grad(lambda x: score(network.replaced(images, {"folded": x})))(folded)

    folded = on_host(LEVELS.astype(np.uint8))[1]["folded"]
    of_images, of_folded = slopes(IMAGES, folded)
    after = np.tanh(np.maximum(folded - 0.5, 0) * 2)
    expected = (weights @ SLOPES.T) * (1 - after**2) * 2 * (folded > 0.5)
    np.testing.assert_allclose(of_folded, expected, atol=1e-4)
    np.testing.assert_allclose(of_images, expected * 2 * (LEVELS / 255 > 0.5) / 2, atol=1e-4)


def test_a_mask_is_certain_whoever_computes_it():
    probabilities = jax.jit(lambda network, images: jax.nn.softmax(network.logits(images)))
    for function in (lambda levels: levels[..., :1] > 128, lambda levels: np.asarray(levels)[..., :1] > 128):
        network = make(function, num_classes=2)
        np.testing.assert_allclose(probabilities(network, IMAGES)[..., 1], LEVELS[..., 0] > 128, atol=1e-6)
        assert network.notes == ("The answer is one probability, that of the foreground.",)


def test_the_host_is_given_whole_levels_in_batches_of_a_size():
    seen = []

    def answer(levels):
        seen.append(np.asarray(levels))
        return np.asarray(levels, np.float32) - 300

    network = make(answer, num_classes=2, batch_size=2)
    del seen[:]
    logits = network.logits(IMAGES)
    assert [len(batch) for batch in seen] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(seen), LEVELS)
    np.testing.assert_array_equal(logits, LEVELS - 300)
    beyond = network.logits(3 * IMAGES)  # as augmented images may lie
    np.testing.assert_array_equal(beyond, np.clip(np.round((3 * IMAGES + 1) * 127.5), 0, 255) - 300)
    mapped = jax.jit(jax.vmap(network.logits, 1))(np.stack([IMAGES, -IMAGES], 1))
    np.testing.assert_array_equal(mapped[1], np.round((1 - IMAGES) * 127.5) - 300)


def test_volumes_are_functions_of_volumes():
    volume = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4, 5, 1)).astype(np.float32)
    network = networks.from_function(
        lambda levels: np.asarray(levels).mean(1, keepdims=True) + 0.0 * levels - 99,
        num_classes=2,
        image_size=(3, 4, 5),
        channels=1,
    )
    means = np.round((volume + 1) * 127.5).mean(1, keepdims=True) - 99 + 0 * volume
    logits = np.asarray(network.logits(volume))
    np.testing.assert_allclose(logits, np.concatenate([0 * means, means], -1), atol=1e-4)


def test_what_the_host_shows_cannot_be_replaced_and_has_no_gradient(both):
    network = both[1]
    with pytest.raises(InputError, match="the function on_host shows its activations and takes none; give a JAX func"):
        network.replaced(IMAGES, {"folded": IMAGES})
    with pytest.raises(InputError, match="the function on_host has no gradient; give a JAX function, or PyTorch th"):
        jax.eval_shape(jax.grad(lambda images: jnp.sum(network.logits(images))), IMAGES)


def test_a_function_that_counts_in_bytes_has_no_gradient():
    network = make(lambda levels: (levels * 2).astype(jnp.float32) - 300, num_classes=2)  # beyond 127 it begins anew
    assert not network.differentiable
    np.testing.assert_array_equal(jax.jit(network.logits)(IMAGES), LEVELS * 2 % 256 - 300)
    with pytest.raises(InputError, match="has no gradient: it says something else of float32 gray levels"):
        jax.eval_shape(jax.grad(lambda images: jnp.sum(network.logits(images))), IMAGES)


def test_layers_of_a_linen_module_within_a_function_are_replaced(drawn_variables):
    images = LEVELS[:, :, :4].astype(np.float32) / 127.5 - 1
    model = models.build("unet", 2, features=(2, 4), skips=(True,))
    variables, layers = drawn_variables(model, images), ("encoder_0/conv_1", "bottleneck")
    asked = lambda levels: capture.capture(model, variables, levels.astype(jnp.float32) / 127.5 - 1, layers)
    network = networks.from_function(asked, num_classes=2, image_size=4, channels=2, output="logits")

    @jax.jit
    def both(images):
        found = network.activations(images)
        changed = {name: 0.5 * array + 1 for name, array in found.items()}
        pairs = []
        for name, array in changed.items():
            direct = capture.replace(model, variables, images, {name: lambda x: 0.5 * x + 1})
            pairs.append((network.replaced(images, {name: array}), direct))
        return pairs

    for found, expected in both(images):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_layer_that_is_a_copy_cannot_be_replaced():
    copied = lambda levels: (levels.astype(jnp.float32) - 300, {"a": levels.astype(jnp.float32) + 1})
    network = make(copied, num_classes=2)
    with pytest.raises(InputError, match="does not compute its answer from what it returns for a; return the very ar"):
        jax.eval_shape(lambda images: network.replaced(images, {"a": images}), IMAGES)


@pytest.mark.parametrize(
    ("images", "layers", "given", "sentence"),
    [
        (IMAGES[:, :3], (), {}, r"images are \(3, 3, 6, 2\), and the network takes \[B,4,6,2\]"),
        (IMAGES, ("front",), {}, "no layer front; the network has folded, turned"),
        (IMAGES, "folded", {}, "layers is the string 'folded'"),
        (IMAGES, (), {"folded": IMAGES[:1]}, r"folded was given \(1, 4, 6, 2\); its activation is \(3, 4, 6, 2\)"),
    ],
)
def test_what_is_not_the_networks_is_refused(both, images, layers, given, sentence):
    for network in both:
        with pytest.raises(ValueError, match=sentence):
            network.check(images, layers, activations=given)
    call = (lambda x: both[0].replaced(x, given)) if given else (lambda x: both[0].captured(x, layers))
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(call, images)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda levels: np.asarray(levels)[..., 0], r"gave \(2, 4, 6\) of uint8; it must give numbers \[2,4,6,K\]"),
        (lambda levels: np.asarray(levels)[:, ::2], r"gave \(2, 2, 6, 2\) of uint8; it must give numbers \[2,4,6,K\]"),
        (lambda levels: np.moveaxis(np.asarray(levels), -1, 1), r"gave \(2, 2, 4, 6\) of uint8"),
        (lambda levels: [[1], [2, 3]], "gave a list that is no array"),
        (lambda levels: 1 / 0, r"failed on images \(2, 4, 6, 2\) of uint8: ZeroDivisionError: division by zero"),
        (
            lambda levels: (1.0 * levels, {"a": levels[0]}),
            r"gave \(4, 6, 2\) of uint8 for the layer a; activations are",
        ),
    ],
)
def test_a_function_that_gives_something_else_is_told_what(function, sentence):
    with pytest.raises(InputError, match=f"the function <lambda> {sentence}") as error:
        make(function, num_classes=2)
    assert "\n" not in str(error.value)


def test_sizes_and_bottlenecks_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"image_size is \(4,\); give the side of squares"):
        networks.from_function(linear, num_classes=3, image_size=(4,))
    with pytest.raises(InputError, match="bottleneck is 'middle'; choose one of the layers: folded, turned"):
        make(linear, num_classes=3, bottleneck="middle")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"image_size": 64.0},
            r"image_size is 64.0; give the side of squares, or \(height, width\), .* in whole pixels",
        ),
        ({"image_size": (4, 6.5)}, r"image_size is \(4, 6.5\); give the side"),
        ({"image_size": None}, "image_size is None; give the side"),
        ({"image_size": (4, 0)}, r"image_size is \(4, 0\); give the side"),
        ({"batch_size": 0}, "batch_size is 0; give how many images at once, at least 1, or None for all"),
        ({"batch_size": -1}, "batch_size is -1; give"),
        ({"batch_size": 2.0}, "batch_size is 2.0; give"),
    ],
)
def test_sizes_that_are_none_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        networks.from_function(linear, **{"num_classes": 3, "image_size": (4, 6), "channels": 2} | options)
    assert base.check_sides(np.int64(5)) == (5, 5) and base.check_sides(np.array([3, 4]).tolist()) == (3, 4)


def test_a_fingerprint_is_of_the_answers_and_of_how_they_are_read():
    numbers = np.random.default_rng(0).normal(size=(2, 40, 30, 2)).astype(np.float32)
    assert fingerprints.told(numbers) == fingerprints.told(numbers * (1 + 1e-6) + 1e-7)
    for other in (numbers * 1.02, numbers + 0.02, numbers[..., ::-1], numbers[::-1]):
        assert fingerprints.told(numbers) != fingerprints.told(other)
    assert fingerprints.checksum("<f at 0x7f01>", b"a") == fingerprints.checksum("<f at 0x9b>", b"a")
    assert fingerprints.checksum("ab", "c") != fingerprints.checksum("a", "bc")
    half = lambda levels: np.asarray(levels[..., :1]) / np.float32(300)
    read = [make(half, num_classes=2, output=output).fingerprint for output in ("logits", "sigmoids")]
    assert read[0] != read[1] and read[0] == make(half, num_classes=2, output="logits").fingerprint


def test_a_function_with_arguments_is_called_by_its_name():
    network = make(functools.partial(linear), num_classes=3)
    assert network.name == "the function linear"


def test_the_trial_shows_black_white_and_noise():
    trial = functions.trial_levels((5, 7), 3)
    assert trial.shape == (2, 5, 7, 3) and trial.dtype == np.uint8
    np.testing.assert_array_equal(trial[1, :, 2, 1], [0, 64, 128, 191, 255])
    assert len(np.unique(trial[0])) > 50
