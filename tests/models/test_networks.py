"""What all networks promise: shapes, padding modes, skips, gradients, precision."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import capture, layers, residual_unet, resnet_unet, skeleton

# the smallest of each kind, the size of images it takes, and its number of skips; nnunet with batch norm here, as the
# reach of instance norm is the whole image
SMALL = {
    "unet": ({"features": (4, 6)}, 8, 1),
    "resnet_unet": ({"encoder": "smallest"}, 32, 4),
    "residual_unet": ({"features": (4, 6)}, 8, 1),
    "dtu_net": ({"features": (4, 6), "topology_features": (3, 5)}, 8, 1),
    "nnunet": ({"features": (4, 6), "norm": "batch"}, 8, 1),
    "nnunet, residual": ({"encoder": "residual", "features": (4, 6), "depths": (1, 1), "norm": "batch"}, 8, 1),
}
STRIDED = [name for name in SMALL if name != "unet"]  # tests/models/test_unet.py has stricter tests of unet


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    """Fewer layers and channels than can be asked for: one block a stage, with a shortcut of its own and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet_unet.ENCODERS, "smallest", (1, 1, 1, 1))
        patch.setattr(resnet_unet, "_ENCODER_WIDTHS", (64, 8, 10, 12))
        patch.setattr(resnet_unet, "_DECODER_WIDTHS", (8, 8, 16, 32, 16))
        patch.setattr(residual_unet, "_BLOCKS", 1)
        yield


def every_other(count):
    return tuple(i % 2 == 0 for i in range(count))


def skip_choices(count):
    """All on, all off, every other one; the last is the first where there is one skip."""
    return list(dict.fromkeys([(True,) * count, (False,) * count, every_other(count)]))


def build(name, **options):
    fixed, size, _ = SMALL[name]
    return models.build(name.partition(",")[0], 3, **(fixed | options)), size


def drawn(shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def variables_of(drawn_variables):
    """`(name, channels, rank, skips) -> variables`, which depend on nothing else."""

    @functools.cache
    def draw(name, channels=3, rank=2, skips=None):
        module, size = build(name, skips=skips)
        return drawn_variables(module, jax.ShapeDtypeStruct((1, *(size,) * rank, channels), jnp.float32))

    return draw


def shapes_of(module, shape):
    """Shape and type of the logits, and which skips there are; nothing is computed."""

    def parts(module, images):
        bottleneck, skips = module.encode(images)
        return module.decode(bottleneck, skips), skips

    run = lambda images: module.init_with_output(jax.random.key(0, impl="rbg"), images, method=parts)[0]
    logits, skips = jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
    return logits.shape, logits.dtype, tuple(skip is not None for skip in skips)


@pytest.mark.parametrize("name", SMALL)
def test_shapes_of_every_padding_and_choice_of_skips(name):
    """Every padding and every choice once: `decode` asks the one of convolutions, the other of concatenations."""
    for padding, skips in zip(layers.PADDINGS, itertools.cycle(skip_choices(SMALL[name][2]))):
        module, size = build(name, padding=padding, skips=skips)
        assert shapes_of(module, (2, 2 * size, size, 3)) == ((2, 2 * size, size, 3), jnp.float32, skips)


@pytest.mark.parametrize("name", SMALL)
def test_roles_are_names_of_layers_in_their_order_and_the_bottleneck_is_what_encode_returns(name, variables_of):
    module, size = build(name)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    names, roles = capture.layer_names(module, variables_of(name), images), module.roles
    ordered = (*roles.encoder, roles.bottleneck, *roles.decoder)
    for of_role in (ordered, roles.convolutions):
        assert list(of_role) == sorted(of_role, key=names.index)
    # every convolution is one of a block, or of the head behind them, and no block is without one but a stem
    assert set(roles.convolutions) == {each for each in names if each.rpartition("/")[2] in ("conv_0", "conv_1")}
    of_blocks = [block for block in ordered if any(each.startswith(f"{block}/") for each in roles.convolutions)]
    assert set(ordered) - set(of_blocks) <= {"stem"}

    def run(variables, images):
        seen = capture.capture(module, variables, images, ordered)[1]
        return seen, module.apply(variables, images, method="encode")[0]

    seen, bottleneck = jax.eval_shape(run, variables_of(name), images)
    assert seen[roles.bottleneck].shape == bottleneck.shape
    assert min(activation.shape[1] for activation in seen.values()) == bottleneck.shape[1] or name == "dtu_net"


@pytest.mark.parametrize("name", STRIDED)
def test_to_replace_the_bottleneck_is_to_decode_another(name, variables_of):
    module, size = build(name)
    images = drawn((1, size, size, 3))

    @jax.jit
    def run(variables, images):
        bottleneck, skips = module.apply(variables, images, method="encode")
        other = lambda activation: 2.0 * activation
        replaced = capture.replace(module, variables, images, {module.roles.bottleneck: other})
        return replaced, module.apply(variables, other(bottleneck), skips, method="decode")

    replaced, decoded = map(np.asarray, run(variables_of(name), images))
    np.testing.assert_allclose(replaced, decoded, atol=1e-5 * np.abs(decoded).max())


@pytest.mark.parametrize("name", SMALL)
def test_shapes_of_volumes(name):
    for padding, skips in zip(layers.PADDINGS, itertools.cycle(skip_choices(SMALL[name][2]))):
        module, size = build(name, padding=padding, skips=skips)
        assert shapes_of(module, (1, size, size, 2 * size, 1)) == ((1, size, size, 2 * size, 3), jnp.float32, skips)


@pytest.mark.parametrize(
    ("name", "widths"),
    [("residual_unet", ("features",)), ("dtu_net", ("features", "topology_features")), ("nnunet", ("features",))],
)
@pytest.mark.parametrize("skips", [(True, False), (False, True)])
def test_shapes_with_some_of_two_skips(name, widths, skips):
    module, _ = build(name, skips=skips, **dict.fromkeys(widths, (3, 4, 5)))
    assert shapes_of(module, (2, 16, 8, 3)) == ((2, 16, 8, 3), jnp.float32, skips)


@pytest.mark.parametrize("name", STRIDED)
def test_only_circular_padding_commutes_with_rolls(name, variables_of):
    modules = [build(name, padding=padding)[0] for padding in ("zero", "circular")]
    size, axes = SMALL[name][1], (1, 2)
    images = drawn((1, 3 * size, 3 * size, 3))
    both = np.concatenate([images, np.roll(images, (size, 2 * size), axes)])
    run = jax.jit(lambda variables, images: [module.apply(variables, images) for module in modules])
    commutes = []
    for logits in map(np.asarray, run(variables_of(name), both)):
        difference = np.abs(logits[1:] - np.roll(logits[:1], (size, 2 * size), axes)).max() / np.abs(logits[:1]).max()
        commutes.append(difference < 1e-4)
    assert commutes == [False, True]


@pytest.mark.parametrize("name", STRIDED)
def test_with_valid_padding_no_logit_depends_on_what_lies_beyond_the_margin(name, variables_of, monkeypatch):
    """A wider margin gives the same logits; a margin of half the reach does not."""
    module, size = build(name, padding="valid")
    images = drawn((1, size, size, 3))
    margin, unit = module.margin, 2**module.halvings

    @jax.jit
    def run(variables, images):
        results = [module.apply(variables, images)]
        for width in (margin + unit, margin // 2 // unit * unit):
            monkeypatch.setattr(type(module), "margin", property(lambda self, width=width: width))
            results.append(module.apply(variables, images))
        return results

    logits, *others = map(np.asarray, run(variables_of(name), images))
    wide, narrow = (np.abs(other - logits).max() / np.abs(logits).max() for other in others)
    assert wide < 1e-4 < narrow


@pytest.mark.parametrize("name", ["residual_unet", "dtu_net"])
def test_volumes_work_by_rank(name, variables_of):
    module, size = build(name)
    images = drawn((1, size, size, 2 * size, 1))
    logits = jax.jit(module.apply)(variables_of(name, 1, 3), images)
    assert logits.shape == (1, size, size, 2 * size, 3)


@pytest.fixture(scope="module")
def gradient(variables_of):
    """`(name, skips, **options) ->` gradient of a loss that no symmetry makes vanish, and its program's bytes.

    What was asked before is not made again. The images are small: among many activations one is so near to zero that
    rounding decides on which side of a ReLU it is.
    """

    @functools.cache
    def found(name, skips, **options):
        module, size = build(name, skips=skips, **options)
        side = max(32, 2 * size)
        images = drawn((2, side, side, 3))
        variables = variables_of(name, skips=skips)

        def loss(params, images):
            stats = {"params": params, "batch_stats": variables["batch_stats"]}
            rngs = {"dropout": jax.random.key(2, impl="rbg")}
            logits, _ = module.apply(stats, images, train=True, mutable=["batch_stats"], rngs=rngs)
            return jnp.mean(logits * jnp.sin(jnp.arange(logits.size, dtype=jnp.float32).reshape(logits.shape)))

        options = skeleton.compiler_options(module)
        compiled = jax.jit(jax.grad(loss), compiler_options=options).lower(variables["params"], images).compile()
        gradients = jax.tree.map(np.asarray, compiled(variables["params"], images))
        return gradients, compiled.memory_analysis().temp_size_in_bytes

    return found


def grid():
    """Every network, padding and three choices of skips; those that the quick run leaves out are slow."""
    for name, (_, _, count) in SMALL.items():
        for i, padding in enumerate(layers.PADDINGS):
            for j, skips in enumerate(skip_choices(count)):
                # zero with every other skip; with none, circular, which is dearer to compile, of one strided network
                quick = (padding, skips) == ("zero", every_other(count))
                quick = quick or (name, padding, skips) == ("residual_unet", "circular", (False,) * count)
                quick = quick or (name == "unet" and j == i % 2)
                yield pytest.param(name, padding, skips, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "padding", "skips"), list(grid()))
def test_gradients_are_finite_and_reach_every_parameter(name, padding, skips, gradient):
    encoders_only = {"attention"}  # of DTU-Net: the logits do not depend on the embedding
    found, _ = gradient(name, skips, padding=padding)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0 or path[0].key in encoders_only, path


@pytest.mark.parametrize("name", SMALL)
def test_remat_gives_the_same_gradients_with_less_memory(name, gradient):
    skips = every_other(SMALL[name][2])
    kept, all_bytes = gradient(name, skips, padding="zero")
    again, fewer_bytes = gradient(name, skips, padding="zero", remat=True)
    assert fewer_bytes < 0.9 * all_bytes
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        if np.abs(b).max() < 1e-7:  # rounding alone, as of a bias in front of a batch norm
            assert np.abs(a).max() < 1e-7
        else:
            np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(b).max(), 1e-3))


@pytest.mark.parametrize("name", STRIDED)
def test_bfloat16_stays_near_float32(name, variables_of):
    exact, size = build(name)
    rough, _ = build(name, dtype=jnp.bfloat16)
    images = drawn((1, 2 * size, 2 * size, 3))
    run = jax.jit(lambda variables, images: (exact.apply(variables, images), rough.apply(variables, images)))
    logits, near = map(np.asarray, run(variables_of(name), images))
    # relative to the logits' root mean square; their largest difference may be twice that
    assert np.sqrt(np.mean((near - logits) ** 2)) / np.sqrt(np.mean(logits**2)) < 3e-2


@pytest.mark.parametrize("name", ["unet", "residual_unet", "dtu_net", "nnunet"])
@pytest.mark.parametrize("features", [(4,), (4, 0), (4.5, 8)])
def test_widths_that_cannot_be_are_named(name, features):
    with pytest.raises(ValueError, match="give one width above 0 per level"):
        models.build(name, 2, features=features)
