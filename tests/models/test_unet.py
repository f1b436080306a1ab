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


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def build(**options):
    return models.build("unet", 3, features=FEATURES, **options)


IMAGES = drawn((1, 32, 32, 2))


@pytest.fixture(scope="module")
def variables(drawn_variables):
    """Of the network with bilinear up-sampling for two channels, whatever its padding."""
    return drawn_variables(build(), IMAGES)


@pytest.mark.parametrize(("size", "upsample"), [((4, 6), "transpose"), ((2, 4, 6), "bilinear")])
def test_logits_have_the_size_of_the_images_in_2d_and_3d(drawn_variables, upsample, size):
    images = drawn((2, *size, 2))
    modules = {
        padding: models.build("unet", 3, features=(2, 3), padding=padding, upsample=upsample)
        for padding in layers.PADDINGS
    }
    variables = drawn_variables(modules["zero"], images)
    run = jax.jit(lambda variables, images: {name: module.apply(variables, images) for name, module in modules.items()})
    for padding, logits in run(variables, images).items():
        assert logits.shape == (2, *size, 3), padding
        assert logits.dtype == jnp.float32, padding
        assert np.isfinite(logits).all(), padding


def rolled_difference(module, variables):
    """Between the logits of a rolled image and the rolled logits, at most."""
    roll = lambda x: np.roll(x, (8, -12), (1, 2))
    logits = np.asarray(jax.jit(module.apply)(variables, np.concatenate([IMAGES, roll(IMAGES)])))
    return np.abs(logits[1:] - roll(logits[:1])).max()


@pytest.mark.parametrize("upsample", ["bilinear", "transpose"])
def test_circular_padding_commutes_with_rolls(drawn_variables, upsample):
    module = build(padding="circular", upsample=upsample)
    assert rolled_difference(module, drawn_variables(module, IMAGES)) < 2e-4


def test_zero_padding_does_not_commute_with_rolls(variables):
    assert rolled_difference(build(padding="zero"), variables) > 0.1


def test_only_valid_padding_commutes_with_shifts(variables):
    """Two windows of one scene, 8 pixels apart; beyond their borders the scene is as uniform as its reflection.

    So the image looks the same from every pixel that both windows hold. A network that pads feature maps with zeros
    still sees where each window ends.
    """
    scene = np.zeros((1, 88, 88, 2), np.float32)
    scene[:, 36:52, 36:52] = drawn((1, 16, 16, 2), seed=5)
    assert unet.image_margin(2) <= 28  # no reflection reaches the blob
    modules = build(padding="valid"), build(padding="zero")
    run = jax.jit(lambda variables, windows: [module.apply(variables, windows) for module in modules])
    commutes = []
    for logits in map(np.asarray, run(variables, np.concatenate([scene[:, :80, :80], scene[:, 8:, 8:]]))):
        first, second = np.split(logits, 2)
        assert np.abs(first).max() > 0.1
        commutes.append(np.abs(first[:, 8:, 8:] - second[:, :-8, :-8]).max() < 1e-4)
    assert commutes == [True, False]


@pytest.mark.parametrize(("levels", "upsample"), [(1, "bilinear"), (2, "bilinear"), (3, "transpose")])
def test_valid_interior_equals_the_other_modes(drawn_variables, levels, upsample):
    """Where no receptive field reaches the border, the padding mode does not matter."""
    size = 2 ** (levels + 1) * 8
    images = drawn((1, size, size, 1))
    modules = [
        models.build("unet", 2, features=(3, 4, 4, 5)[: levels + 1], padding=padding, upsample=upsample)
        for padding in ("valid", "zero")
    ]
    run = jax.jit(lambda variables, images: [module.apply(variables, images) for module in modules])
    valid, zero = run(drawn_variables(modules[0], images), images)
    margin = unet.image_margin(levels, upsample_loss=0 if upsample == "transpose" else 1)
    inside = slice(margin, size - margin)
    np.testing.assert_allclose(valid[:, inside, inside], zero[:, inside, inside], atol=1e-4)
    assert size - 2 * margin > 0


def test_gradient_through_a_skip_exists_only_where_it_is_on(drawn_variables):
    module = build(skips=(True, False))

    @jax.jit
    def run(variables, images):
        bottleneck, skips = module.apply(variables, images, method="encode")
        energy = lambda skips: jnp.sum(module.apply(variables, bottleneck, skips, method="decode") ** 2)
        return skips, jax.grad(energy)(skips)

    skips, gradients = run(drawn_variables(module, IMAGES), IMAGES)
    assert skips[1] is None and gradients[1] is None
    assert np.abs(gradients[0]).max() > 0


def shallow(**options):
    """With one pooling."""
    return models.build("unet", 3, features=FEATURES[:2], **options)


@pytest.fixture(scope="module")
def results(drawn_variables):
    """What the network gives as a whole, in parts, in half precision and layer by layer, in one program."""
    half = shallow(dtype=jnp.bfloat16)
    numbered = shallow().numbered_layers
    images = drawn((1, 8, 8, 2))

    @jax.jit
    def run(variables, images):
        whole, parts = {}, {}
        for padding in layers.PADDINGS:
            module = shallow(padding=padding)
            bottleneck, skips = module.apply(variables, images, method="encode")
            parts[padding] = module.apply(variables, bottleneck, skips, method="decode")
            whole[padding] = module.apply(variables, images)
        found = capture.capture(shallow(), variables, images, numbered)[1]
        return {"whole": whole, "parts": parts, "half": half.apply(variables, images), "found": found}

    return jax.tree.map(np.asarray, run(drawn_variables(shallow(), images), images))


@pytest.mark.parametrize("padding", layers.PADDINGS)
def test_encode_then_decode_is_the_network(results, padding):
    assert np.isfinite(results["whole"][padding]).all()
    np.testing.assert_allclose(results["parts"][padding], results["whole"][padding], atol=1e-5)


def test_bfloat16_stays_near_float32_with_float32_parameters(results):
    exact, rough = results["whole"]["zero"], results["half"]
    assert rough.dtype == jnp.float32
    assert np.abs(rough - exact).max() / np.abs(exact).max() < 3e-2
    initialised = jax.eval_shape(build(dtype=jnp.bfloat16).init, jax.random.key(0), IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(initialised)} == {jnp.dtype("float32")}


def test_the_numbered_layers_are_activations_behind_the_relu(results):
    assert set(results["found"]) == set(shallow().numbered_layers)
    assert all((activation >= 0).all() and (activation == 0).any() for activation in results["found"].values())


def test_batch_norm_is_the_textbook_formula():
    x, norm = 3 + 2 * drawn((4, 5, 6, 3)), layers.BatchNorm()

    @jax.jit
    def run(x):
        variables = norm.init(jax.random.key(1), x, train=True)
        return norm.apply(variables, x, train=True, mutable=["batch_stats"])

    y, updated = run(x)
    mean, var = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)


@pytest.mark.parametrize(("norm", "groups"), [("instance", 12), ("group", 4)])
def test_other_norms_are_the_textbook_formula(norm, groups):
    """12 channels: 12 groups of one, or as many groups as both 8 and 12 can be divided by."""
    x = 1000 + 2 * drawn((4, 5, 6, 12))  # far from zero, where squares lose digits

    class Layer(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x, train):
            return layers.normalisation(norm, jnp.float32, "norm")(x, train)

    @jax.jit
    def run(x):
        module = Layer()
        variables = module.init(jax.random.key(1), x, train=True)
        return [module.apply(variables, x, train=train) for train in (True, False)]

    grouped = np.reshape(x, (4, 30, groups, 12 // groups))
    mean, var = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    for y in run(x):
        np.testing.assert_allclose(y, expected, atol=2e-3)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_networks_with_other_norms_have_no_running_statistics_and_learn(drawn_variables, norm):
    module = models.build("unet", 3, features=(4, 6), norm=norm)
    images = drawn((2, 8, 8, 2))
    variables = drawn_variables(module, images)
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


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 3, 4, 2, 2)])
def test_bilinear_doubling_is_the_library_resize(shape):
    target = (shape[0], *(2 * size for size in shape[1:-1]), shape[-1])
    run = jax.jit(lambda x: (layers.double(x, "zero"), jax.image.resize(x, target, "linear")))
    doubled, resized = run(drawn(shape))
    np.testing.assert_allclose(doubled, resized, atol=1e-6)


def test_aligned_doubling_is_linear_interpolation_between_the_corners():
    x = drawn((1, 5, 4, 1))
    rows = np.stack([np.interp(np.linspace(0, 4, 10), np.arange(5), x[0, :, j, 0]) for j in range(4)], 1)
    expected = np.stack([np.interp(np.linspace(0, 3, 8), np.arange(4), row) for row in rows])
    np.testing.assert_allclose(jax.jit(layers.double_aligned)(x)[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("rank", [2, 3])
def test_transposed_convolution_is_a_sum_over_offsets(drawn_variables, rank):
    x, module = drawn((2, *(3, 4, 2)[:rank], 5)), layers.TransposedConv(6)
    variables = drawn_variables(module, x)
    y = np.asarray(jax.jit(module.apply)(variables, x))
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
        jax.eval_shape(models.build("unet", 2).init, jax.random.key(0), drawn(shape))


def test_unknown_network_and_too_few_classes():
    with pytest.raises(ValueError, match="known are unet, resnet_unet, residual_unet, dtu_net"):
        models.build("vnet", 2)
    with pytest.raises(ValueError, match="at least 2"):
        models.build("unet", 1)


def test_decode_refuses_skips_of_another_network(variables):
    module = build()
    bottleneck, skips = jax.eval_shape(functools.partial(module.apply, method="encode"), variables, IMAGES)
    with pytest.raises(ValueError, match="was built with"):
        jax.eval_shape(functools.partial(module.apply, method="decode"), variables, bottleneck, (skips[0], None))
