"""What all networks promise: shapes, padding modes, skips, precision; and the authors' numbers where there are any."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import layers, skeleton, weights

# the smallest of each kind, the size of images it takes, and its number of skips
SMALL = {
    "unet": ({"features": (4, 6, 8)}, 8, 2),
    "resnet_unet": ({"encoder": "resnet18"}, 32, 4),
    "residual_unet": ({"features": (4, 6, 8)}, 8, 2),
    "dtu_net": ({"features": (4, 6, 8), "topology_features": (4, 6)}, 8, 2),
}
STRIDED = [name for name in SMALL if name != "unet"]  # tests/models/test_unet.py has stricter tests of unet


def skip_choices(count):
    """All on, all off, every other one."""
    return [(True,) * count, (False,) * count, tuple(i % 2 == 0 for i in range(count))]


def build(name, **options):
    fixed, size, _ = SMALL[name]
    return models.build(name, 3, **fixed, **options), size


def initialised(module, images):
    return jax.jit(module.init)(jax.random.key(1, impl="rbg"), images)


def shapes_of(module, shape):
    """Shape and type of the logits, and which skips there are; nothing is computed."""

    def run(images):
        variables = module.init(jax.random.key(0, impl="rbg"), images)
        bottleneck, skips = module.apply(variables, images, method="encode")
        return module.apply(variables, bottleneck, skips, method="decode"), skips

    logits, skips = jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
    return logits.shape, logits.dtype, tuple(skip is not None for skip in skips)


@pytest.mark.parametrize("name", SMALL)
def test_shapes_of_every_padding_and_choice_of_skips(name):
    for padding, skips in itertools.product(layers.PADDINGS, skip_choices(SMALL[name][2])):
        module, size = build(name, padding=padding, skips=skips)
        assert shapes_of(module, (2, 2 * size, size, 3)) == ((2, 2 * size, size, 3), jnp.float32, skips)


@pytest.mark.parametrize("name", SMALL)
def test_shapes_of_volumes(name):
    for padding, skips in zip(layers.PADDINGS, itertools.cycle(skip_choices(SMALL[name][2]))):
        module, size = build(name, padding=padding, skips=skips)
        assert shapes_of(module, (1, size, size, 2 * size, 1)) == ((1, size, size, 2 * size, 3), jnp.float32, skips)


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_only_circular_padding_commutes_with_rolls(name, padding):
    module, size = build(name, padding=padding)
    images = jax.random.normal(jax.random.key(0), (1, 3 * size, 3 * size, 3))
    variables = initialised(module, images)
    apply = jax.jit(module.apply)
    logits = apply(variables, images)
    rolled = apply(variables, jnp.roll(images, (size, 2 * size), (1, 2)))
    difference = np.abs(rolled - jnp.roll(logits, (size, 2 * size), (1, 2))).max() / np.abs(logits).max()
    assert (difference < 1e-4) == (padding == "circular")


@pytest.mark.parametrize("name", STRIDED)
def test_with_valid_padding_no_logit_depends_on_what_lies_beyond_the_margin(name, monkeypatch):
    """A wider margin gives the same logits; a margin of half the reach does not."""
    module, size = build(name, padding="valid")
    images = jax.random.normal(jax.random.key(0), (1, size, size, 3))
    variables = initialised(module, images)
    logits = module.apply(variables, images)
    margin, unit = module.margin, 2**module.halvings
    results = {}
    for width in (margin + unit, margin // 2 // unit * unit):
        monkeypatch.setattr(type(module), "margin", property(lambda self, width=width: width))
        results[width] = np.abs(jax.jit(module.apply)(variables, images) - logits).max() / np.abs(logits).max()
    wide, narrow = results.values()
    assert wide < 1e-4 < narrow


@pytest.mark.parametrize("name", ["residual_unet", "dtu_net"])
def test_volumes_work_by_rank(name):
    module, size = build(name)
    images = jax.random.normal(jax.random.key(0), (1, size, size, 2 * size, 1))
    assert jax.jit(module.apply)(initialised(module, images), images).shape == (1, size, size, 2 * size, 3)


def gradient(module, images, variables):
    """Of a loss that no symmetry makes vanish, compiled."""

    def loss(params):
        stats = {"params": params, "batch_stats": variables["batch_stats"]}
        rngs = {"dropout": jax.random.key(2)}
        logits, _ = module.apply(stats, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return jnp.mean(logits * jnp.sin(jnp.arange(logits.size, dtype=jnp.float32).reshape(logits.shape)))

    options = skeleton.compiler_options(module)
    return jax.jit(jax.grad(loss), compiler_options=options).lower(variables["params"]).compile()


def grid():
    """Every network, padding and three choices of skips; those that the quick run leaves out are slow."""
    for name, (_, _, count) in SMALL.items():
        for i, padding in enumerate(layers.PADDINGS):
            for j, skips in enumerate(skip_choices(count)):
                # zero with every other skip, and circular, which is dearer to compile, with none
                quick = (padding, j) in (("zero", 2), ("circular", 1)) or (name == "unet" and j == i % 3)
                yield pytest.param(name, padding, skips, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "padding", "skips"), list(grid()))
def test_gradients_are_finite_and_reach_every_parameter(name, padding, skips):
    module, size = build(name, padding=padding, skips=skips)
    images = jax.random.normal(jax.random.key(0), (2, 2 * size, 2 * size, 3))
    variables = initialised(module, images)
    encoders_only = {"attention"}  # of DTU-Net: the logits do not depend on the embedding
    found = gradient(module, images, variables)(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0 or path[0].key in encoders_only, path


@pytest.mark.parametrize("name", SMALL)
def test_remat_gives_the_same_gradients_with_less_memory(name):
    results = {}
    for remat in (False, True):
        module, size = build(name, remat=remat)
        images = jax.random.normal(jax.random.key(0), (2, 4 * size, 4 * size, 3))
        variables = initialised(module, images)
        compiled = gradient(module, images, variables)
        results[remat] = compiled(variables["params"]), compiled.memory_analysis().temp_size_in_bytes
    assert results[True][1] < 0.9 * results[False][1]
    for a, b in zip(jax.tree.leaves(results[True][0]), jax.tree.leaves(results[False][0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(b).max(), 1e-3))


@pytest.mark.parametrize("name", STRIDED)
def test_bfloat16_stays_near_float32(name):
    exact, size = build(name)
    rough, _ = build(name, dtype=jnp.bfloat16)
    images = jax.random.normal(jax.random.key(0), (1, 2 * size, 2 * size, 3))
    variables = initialised(exact, images)
    logits = jax.jit(exact.apply)(variables, images)
    difference = jax.jit(rough.apply)(variables, images) - logits
    # relative to the logits' root mean square; their largest difference may be twice that
    assert np.sqrt(np.mean(difference**2)) / np.sqrt(np.mean(logits**2)) < 3e-2


@pytest.mark.parametrize("name", ["unet", "residual_unet", "dtu_net"])
@pytest.mark.parametrize("features", [(4,), (4, 0), (4.5, 8)])
def test_widths_that_cannot_be_are_named(name, features):
    with pytest.raises(ValueError, match="give one width above 0 per level"):
        models.build(name, 2, features=features).init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)))


TABLE_II = {  # Wilm et al. 2024: trainable parameters with the top 0 to 4 skips off
    "resnet18": (14_328_354, 14_309_922, 14_273_058, 14_125_602, 13_535_778),
    "resnet34": (24_436_514, 24_418_082, 24_381_218, 24_233_762, 23_643_938),
}


@pytest.mark.parametrize("encoder", TABLE_II)
def test_parameter_counts_are_those_of_the_paper(encoder):
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    for off, count in enumerate(TABLE_II[encoder]):
        module = models.build("resnet_unet", 2, encoder=encoder, skips=(False,) * off + (True,) * (4 - off))
        params = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.fixture(scope="module")
def reference(oracles, drawn_state_dict):
    shapes = json.loads((oracles / "parameter_shapes.json").read_text())

    def load(file, network):
        with np.load(oracles / f"{file}.npz") as stored:
            return drawn_state_dict(shapes[network], int(stored["seed"])), stored["images"], stored["logits"]

    return load


@pytest.mark.parametrize("encoder", TABLE_II)
@pytest.mark.parametrize("off", range(5))
def test_the_skip_papers_networks_give_their_logits(reference, encoder, off):
    state_dict, images, logits = reference(f"smp_{encoder}" + (f"_L{off}" if off else ""), f"smp_{encoder}")
    module = models.build("resnet_unet", 2, encoder=encoder, skips=(False,) * off + (True,) * (4 - off))
    variables = weights.from_torch(module, state_dict, images.shape)
    ours = jax.jit(module.apply)(variables, images)
    # the logits of resnet34 reach 2000, where PyTorch's float32 is 0.009 from its float64
    assert np.abs(ours - logits).max() < (1e-3 if encoder == "resnet18" else 1e-5 * np.abs(logits).max())


def test_the_distortion_papers_network_gives_its_logits(reference):
    state_dict, images, logits = reference("damri_unet2d", "damri_unet2d")
    module = models.build("residual_unet", 4)
    variables = weights.from_torch(module, state_dict, images.shape)
    ours = jax.jit(module.apply)(variables, images)
    assert np.abs(ours - logits).max() < 1e-3 * np.abs(logits).max()


def test_tensors_of_a_shortcut_that_is_off_are_passed_over(reference):
    state_dict, images, _ = reference("damri_unet2d", "damri_unet2d")
    silenced = {name: 0 * array if name.startswith("shortcut1") else array for name, array in state_dict.items()}
    full, cut = models.build("residual_unet", 4), models.build("residual_unet", 4, skips=(True, False, True))
    expected = jax.jit(full.apply)(weights.from_torch(full, silenced, images.shape), images)
    ours = jax.jit(cut.apply)(weights.from_torch(cut, state_dict, images.shape), images)
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()
