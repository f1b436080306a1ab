"""The vision transformer: a slow reference, what it knows of places, and other image sizes than its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import capture, vit

SMALL = {"patch": 4, "width": 12, "depth": 2, "heads": 2}
PLACES = ("learned", "sinusoidal", "relative")


def build(**options):
    return models.build("vit", 3, **(SMALL | options))


def drawn(shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def variables_of(drawn_variables):
    """`(position, sizes) -> variables`, all drawn, also those that begin as zeros or ones."""
    return functools.cache(
        lambda position, sizes=(8, 12): drawn_variables(
            build(position=position), jax.ShapeDtypeStruct((1, *sizes, 2), jnp.float32)
        )
    )


def norm(x, parameters):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * parameters["scale"] + parameters["bias"]


def dense(x, parameters):
    return x @ parameters["kernel"] + parameters["bias"]


def reference(image, params, position):
    """Tokens of one image `[H,W,C]`, one query after the other."""
    rows, columns = image.shape[0] // 4, image.shape[1] // 4
    grid = [(i, j) for i in range(rows) for j in range(columns)]
    pixels = lambda i, j: image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
    # of a pixel its channels, of a patch its pixels: by channel, row, column
    flat = [np.moveaxis(pixels(i, j), -1, 0).ravel() for i, j in grid]
    x = dense(np.stack(flat), params["patches"]["embedding"])
    if position == "learned":
        x = x + params["patches"]["position"].reshape(-1, 12)
    if position == "sinusoidal":
        waves = lambda n: [f(n / 10000 ** (k / 3)) for f in (np.sin, np.cos) for k in range(3)]
        x = x + np.array([waves(i) + waves(j) for i, j in grid])
    for number in range(SMALL["depth"]):
        of = params[f"layer_{number}"]
        parts = dense(norm(x, of["attention_norm"]), of["attention"]["parts"]).reshape(-1, 3, 2, 6)
        seen = np.zeros((len(grid), 2, 6))
        for token, (i, j) in enumerate(grid):
            for head in range(2):
                scores = parts[:, 1, head] @ parts[token, 0, head] / np.sqrt(6)
                if position == "relative":
                    table = of["attention"]["bias"][head]
                    scores = scores + [table[i - a + rows - 1, j - b + columns - 1] for a, b in grid]
                weights = np.exp(scores - scores.max())
                seen[token, head] = weights @ parts[:, 2, head] / weights.sum()
        x = x + dense(seen.reshape(-1, 12), of["attention"]["out"])
        hidden = dense(norm(x, of["perceptron_norm"]), of["hidden"])
        tanh = np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3))
        x = x + dense(0.5 * hidden * (1 + tanh), of["out"])
    return norm(x, params["bottleneck"]).reshape(rows, columns, 12)


@pytest.mark.parametrize("position", vit.POSITIONS)
def test_tokens_are_those_of_a_slow_reference(position, variables_of):
    module, variables, images = build(position=position), variables_of(position), drawn((2, 8, 12, 2))
    tokens, skips = jax.jit(lambda *given: module.apply(*given, method="encode"))(variables, images)
    assert skips == ()
    params = jax.tree.map(np.float64, variables["params"])
    for image, found in zip(images, tokens, strict=True):
        np.testing.assert_allclose(found, reference(image.astype(float), params, position), atol=2e-4)


@pytest.mark.parametrize("position", vit.POSITIONS)
@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_without_positions_and_borders_nothing_tells_the_place(position, padding, variables_of):
    module, images = build(position=position, padding=padding), drawn((1, 8, 12, 2))
    moved = lambda array: np.roll(array, (4, 8), (1, 2))
    run = jax.jit(module.apply)
    logits, of_moved = (np.asarray(run(variables_of(position), given)) for given in (images, moved(images)))
    same = np.abs(of_moved - moved(logits)).max() < 1e-4 * np.abs(logits).max()
    assert same == (position == "none" and padding == "circular")


@pytest.mark.parametrize("position", PLACES)
def test_larger_images_have_places_of_their_own(position, variables_of):
    module, images = build(position=position), drawn((1, 16, 24, 2))
    variables = variables_of(position)
    logits = jax.jit(module.apply)(variables, images)
    assert logits.shape == (1, 16, 24, 3) and np.isfinite(logits).all()
    if position == "sinusoidal":
        return
    # as if the parameters had been of that size: interpolated, or that of the nearest offset
    larger = jax.tree.map(np.asarray, variables)
    if position == "learned":
        place = larger["params"]["patches"]["position"]
        larger["params"]["patches"]["position"] = jax.image.resize(place, (4, 6, 12), "linear")
    else:
        for number in range(SMALL["depth"]):
            attention = larger["params"][f"layer_{number}"]["attention"]
            attention["bias"] = np.pad(attention["bias"], [(0, 0), (2, 2), (3, 3)], "edge")
    np.testing.assert_allclose(jax.jit(module.apply)(larger, images), logits, atol=1e-5)


def test_volumes_work_by_rank_and_half_precision_is_near(variables_of):
    module, rough = build(position="relative"), build(position="relative", dtype=jnp.bfloat16)
    volumes, variables = drawn((1, 8, 4, 8, 2)), variables_of("relative", (8, 4, 8))
    exact, near = jax.jit(lambda *given: (module.apply(*given), rough.apply(*given)))(variables, volumes)
    assert exact.shape == (1, 8, 4, 8, 3)
    assert np.sqrt(np.mean((near - exact) ** 2) / np.mean(exact**2)) < 5e-2


def test_gradients_reach_every_parameter_and_remat_does_not_change_them(variables_of):
    images, variables = drawn((2, 8, 12, 2)), variables_of("learned")

    def loss(params, images, module):
        logits, _ = module.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.mean(logits * jnp.sin(jnp.arange(logits.size, dtype=jnp.float32).reshape(logits.shape)))

    both = lambda params, images: [jax.grad(loss)(params, images, build(remat=again)) for again in (False, True)]
    kept, again = jax.tree.map(np.asarray, jax.jit(both)(variables["params"], images))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(kept), jax.tree.leaves(again), strict=True):
        assert np.isfinite(a).all() and np.abs(a).max() > 0, path
        np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(a).max(), 1e-2))


def test_roles_are_names_of_layers_in_their_order(variables_of):
    module, images = build(), jax.ShapeDtypeStruct((1, 8, 12, 2), jnp.float32)
    names, roles = capture.layer_names(module, variables_of("learned"), images), module.roles
    for of_role in ((*roles.encoder, roles.bottleneck, *roles.decoder), roles.convolutions):
        assert list(of_role) == sorted(of_role, key=names.index)
    run = lambda variables, images: capture.capture(module, variables, images, roles.convolutions)[1]
    seen = jax.eval_shape(run, variables_of("learned"), images)
    assert [seen[name].shape for name in ("patches", "layer_1", "bottleneck")] == [(1, 2, 3, 12)] * 3
    assert seen["up_0/conv_1"].shape == (1, 8, 12, 3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"padding": "valid"}, "padding 'valid' is for networks that see a part of the image"),
        ({"patch": 12}, "patch is 12; give a power of two"),
        ({"heads": 5}, "heads must divide the width"),
        ({"width": 4}, "which is halved 2 times"),
        ({"position": "absolute"}, "position is 'absolute'; choose one of learned, sinusoidal, relative, none"),
        ({"skips": (True,)}, "skips .* names 1 levels, there are 0"),
    ],
)
def test_what_cannot_work_is_named(options, told):
    with pytest.raises(ValueError, match=told):
        build(**options)


def test_sizes_that_are_no_whole_patches_are_named(variables_of):
    with pytest.raises(ValueError, match="need image sizes divisible by 4, got 10 x 12; the next sizes are 8 or 12 x"):
        jax.eval_shape(build().apply, variables_of("learned"), jax.ShapeDtypeStruct((1, 10, 12, 2), jnp.float32))
