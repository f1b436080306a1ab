"""The U-Net: shapes, symmetries of the padding modes, skips, precision."""

import functools
import itertools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import capture, layers, unet

FEATURES = (4, 6, 8)  # two poolings: positions repeat every 4 pixels


def init_key(seed):
    """A generator that compiles faster than the default one."""
    return jax.random.key(seed, impl="rbg")


def network(shape=(1, 32, 32, 2), seed=0, **options):
    """A network with random running statistics, so that a wrong constant anywhere shows."""
    module = models.build("unet", 3, features=FEATURES, **options)
    images = jax.random.normal(jax.random.key(seed), shape)
    variables = jax.jit(module.init)(init_key(seed + 1), images)
    return module, _disturbed(variables), images


def _disturbed(variables):
    random = np.random.default_rng(9)
    return jax.tree.map(lambda x: np.float32(x * random.uniform(0.5, 1.5, x.shape) + 0.1 * (x.ndim == 1)), variables)


@pytest.mark.parametrize("padding", layers.PADDINGS)
@pytest.mark.parametrize("upsample", ["bilinear", "transpose"])
@pytest.mark.parametrize("size", [(16, 24), (8, 8, 12)])
def test_logits_have_the_size_of_the_images_in_2d_and_3d(padding, upsample, size):
    module, variables, images = network((2, *size, 2), padding=padding, upsample=upsample)
    logits = jax.jit(module.apply)(variables, images)
    assert logits.shape == (2, *size, 3)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("upsample", ["bilinear", "transpose"])
def test_circular_padding_commutes_with_rolls(upsample):
    module, variables, images = network(padding="circular", upsample=upsample)
    apply = jax.jit(module.apply)
    rolled = apply(variables, jnp.roll(images, (8, -12), (1, 2)))
    np.testing.assert_allclose(rolled, jnp.roll(apply(variables, images), (8, -12), (1, 2)), atol=2e-4)


def test_zero_padding_does_not_commute_with_rolls():
    module, variables, images = network(padding="zero")
    apply = jax.jit(module.apply)
    rolled = apply(variables, jnp.roll(images, (8, -12), (1, 2)))
    assert np.abs(rolled - jnp.roll(apply(variables, images), (8, -12), (1, 2))).max() > 0.1


@pytest.mark.parametrize(("padding", "commutes"), [("valid", True), ("zero", False)])
def test_valid_padding_commutes_with_shifts(padding, commutes):
    """Two windows of one scene, 8 pixels apart; beyond their borders the scene is as uniform as its reflection.

    So the image looks the same from every pixel that both windows hold. A network that pads feature maps with zeros
    still sees where each window ends.
    """
    module, variables, _ = network((1, 80, 80, 2), padding=padding)
    blob = jax.random.normal(jax.random.key(5), (1, 16, 16, 2))
    scene = jnp.zeros((1, 88, 88, 2)).at[:, 36:52, 36:52].set(blob)
    assert unet.image_margin(2) <= 28  # no reflection reaches the blob
    apply = jax.jit(module.apply)
    first, second = apply(variables, scene[:, :80, :80]), apply(variables, scene[:, 8:, 8:])
    difference = np.abs(first[:, 8:, 8:] - second[:, :-8, :-8]).max()
    assert np.abs(first).max() > 0.1
    assert (difference < 1e-4) == commutes


@pytest.mark.parametrize(("levels", "upsample"), [(1, "bilinear"), (2, "bilinear"), (2, "transpose"), (3, "transpose")])
def test_valid_interior_equals_the_other_modes(levels, upsample):
    """Where no receptive field reaches the border, the padding mode does not matter."""
    features = (3, 4, 4, 5)[: levels + 1]
    size = 2 ** (levels + 1) * 8
    images = jax.random.normal(jax.random.key(0), (1, size, size, 1))
    results = []
    for padding in ("valid", "zero"):
        module = models.build("unet", 2, features=features, padding=padding, upsample=upsample)
        variables = jax.jit(module.init)(init_key(1), images)
        results.append(jax.jit(module.apply)(variables, images))
    margin = unet.image_margin(levels, 0 if upsample == "transpose" else 1)
    inside = slice(margin, size - margin)
    np.testing.assert_allclose(results[0][:, inside, inside], results[1][:, inside, inside], atol=1e-4)
    assert size - 2 * margin > 0


def test_gradient_through_a_skip_exists_only_where_it_is_on():
    module, variables, images = network(skips=(True, False))
    bottleneck, skips = jax.jit(functools.partial(module.apply, method="encode"))(variables, images)
    assert skips[1] is None
    energy = lambda skips: jnp.sum(module.apply(variables, bottleneck, skips, method="decode") ** 2)
    grads = jax.jit(jax.grad(energy))(skips)
    assert grads[1] is None
    assert np.abs(grads[0]).max() > 0


def test_encode_then_decode_is_the_network():
    for padding in layers.PADDINGS:
        module, variables, images = network(padding=padding)
        encode, decode = (jax.jit(functools.partial(module.apply, method=name)) for name in ("encode", "decode"))
        parts = decode(variables, *encode(variables, images))
        np.testing.assert_allclose(parts, jax.jit(module.apply)(variables, images), atol=1e-5)


def test_bfloat16_stays_near_float32_with_float32_parameters():
    module, variables, images = network()
    half = models.build("unet", 3, features=FEATURES, dtype=jnp.bfloat16)
    exact, rough = jax.jit(module.apply)(variables, images), jax.jit(half.apply)(variables, images)
    assert rough.dtype == jnp.float32
    assert np.abs(rough - exact).max() / np.abs(exact).max() < 3e-2
    initialised = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(initialised)} == {jnp.dtype("float32")}


def test_batch_norm_is_the_textbook_formula():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 6, 3))
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(1), x, train=True)
    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)


@pytest.mark.parametrize(("norm", "groups"), [("instance", 12), ("group", 4)])
def test_other_norms_are_the_textbook_formula(norm, groups):
    """12 channels: 12 groups of one, or as many groups as both 8 and 12 can be divided by."""
    x = 1000 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 6, 12))  # far from zero, where squares lose digits

    class Layer(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x, train):
            return layers.normalisation(norm, jnp.float32, "norm")(x, train)

    module = Layer()
    variables = module.init(jax.random.key(1), x, train=True)
    grouped = np.reshape(x, (4, 30, groups, 12 // groups))
    mean, var = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    for train in (True, False):
        np.testing.assert_allclose(module.apply(variables, x, train=train), expected, atol=2e-3)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_networks_with_other_norms_have_no_running_statistics_and_learn(norm):
    module = models.build("unet", 3, features=FEATURES, norm=norm)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 2))
    variables = jax.jit(module.init)(init_key(1), images)
    assert set(variables) == {"params"}
    loss = lambda params: jnp.mean(module.apply({"params": params}, images, train=True) ** 2)
    for name, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name


def test_the_18_layers_are_the_convolutions_in_order():
    module = models.build("unet", 2, features=(2, 3, 4, 5, 6), upsample="transpose")
    images = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    names = module.numbered_layers
    listed = capture.layer_names(module, variables, images)
    assert [name for name in listed if name in names] == list(names)
    _, found = jax.eval_shape(lambda v, x: capture.capture(module, v, x, names), variables, images)
    sizes = [found[name].shape[1:] for name in names]
    widths = [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2]
    sides = [32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32]
    assert sizes == [(side, side, width) for side, width in zip(sides, widths, strict=True)]
    groups = module.layer_groups
    assert [(group, len(layers)) for group, layers in groups.items()] == [("early", 4), ("abstract", 10), ("late", 4)]
    assert sum(groups.values(), ()) == names and len(names) == 18


def test_the_numbered_layers_are_activations_behind_the_relu():
    module, variables, images = network()
    _, found = jax.jit(lambda v, x: capture.capture(module, v, x, module.numbered_layers))(variables, images)
    assert all((activation >= 0).all() and (activation == 0).any() for activation in found.values())


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 3, 4, 2, 2)])
def test_bilinear_doubling_is_the_library_resize(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    target = (shape[0], *(2 * size for size in shape[1:-1]), shape[-1])
    np.testing.assert_allclose(layers.double(x, "zero"), jax.image.resize(x, target, "linear"), atol=1e-6)


def test_aligned_doubling_is_linear_interpolation_between_the_corners():
    x = jax.random.normal(jax.random.key(0), (1, 5, 4, 1))
    rows = np.stack([np.interp(np.linspace(0, 4, 10), np.arange(5), x[0, :, j, 0]) for j in range(4)], 1)
    expected = np.stack([np.interp(np.linspace(0, 3, 8), np.arange(4), row) for row in rows])
    np.testing.assert_allclose(layers.double_aligned(x)[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("rank", [2, 3])
def test_transposed_convolution_is_a_sum_over_offsets(rank):
    x = jax.random.normal(jax.random.key(0), (2, *(3, 4, 2)[:rank], 5))
    module = layers.TransposedConv(6)
    variables = module.init(jax.random.key(1), x)
    y = module.apply(variables, x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    for offset in itertools.product((0, 1), repeat=rank):
        at = (slice(None), *(slice(o, None, 2) for o in offset))
        np.testing.assert_allclose(y[at], x @ kernel[(slice(None), *offset)] + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "mirror"}, "padding is 'mirror'; choose one of zero"),
        ({"norm": "layer"}, "norm is 'layer'; choose one of batch, instance, group"),
        ({"upsample": "cubic"}, "upsample is 'cubic'; choose one of bilinear"),
        ({"skips": (True,)}, r"skips \(True,\) names 1 levels"),
        ({"features": (4,)}, "one width above 0 per level"),
        ({"features": (4, -8)}, "one width above 0 per level"),
        ({"features": (4.5, 8)}, "one width above 0 per level"),
        ({"padding": "circular", "upsample": "bilinear_aligned"}, "use upsample='bilinear'"),
        ({"depth": 3}, "unet has no option depth; it has padding"),
    ],
)
def test_options_that_cannot_work_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        models.build("unet", 2, **options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 30, 1), "divisible by 16, got 16 x 30; the next sizes are 16 x 16 or 32"),
        ((1, 100, 7, 1), "the next sizes are 96 or 112 x 16"),
        ((16, 16, 1), r"must be \[B,H,W,C\]"),
    ],
)
def test_sizes_that_do_not_fit_are_answered_with_those_that_do(shape, message):
    with pytest.raises(ValueError, match=message):
        models.build("unet", 2).init(jax.random.key(0), jnp.zeros(shape))


def test_unknown_network_and_too_few_classes():
    with pytest.raises(ValueError, match="known are unet, resnet_unet, residual_unet, dtu_net"):
        models.build("vnet", 2)
    with pytest.raises(ValueError, match="at least 2"):
        models.build("unet", 1)


def test_decode_refuses_skips_of_another_network():
    module, variables, images = network()
    bottleneck, skips = jax.eval_shape(functools.partial(module.apply, method="encode"), variables, images)
    with pytest.raises(ValueError, match="was built with"):
        jax.eval_shape(functools.partial(module.apply, method="decode"), variables, bottleneck, (skips[0], None))
