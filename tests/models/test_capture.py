"""Activations by name, of the project's networks and of any other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import capture


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def setting(drawn_variables):
    module = models.build("unet", 2, features=(4, 6, 8))
    images = drawn((2, 16, 16, 3))
    return module, drawn_variables(module, images), images


def test_names_go_from_input_to_output(setting):
    names = capture.layer_names(*setting)
    blocks = [name for name in names if "/" not in name]
    assert blocks == ["encoder_0", "encoder_1", "bottleneck", "decoder_1", "decoder_0", "head"]
    assert names.index("encoder_0/conv_0/norm") < names.index("encoder_0/conv_0") < names.index("encoder_0/conv_1")


@pytest.fixture(scope="module")
def results(setting):
    """What the network gives when it is read, changed and called in parts, in one program."""
    module, variables, images = setting

    @jax.jit
    def run(variables, images, other):
        encode = lambda images: module.apply(variables, images, method="encode")
        decode = lambda *parts: module.apply(variables, *parts, method="decode")
        replace = lambda function: capture.replace(module, variables, images, {"bottleneck": function})
        of_other = lambda _: capture.capture(module, variables, other, ["bottleneck"])[1]["bottleneck"]
        bottleneck, skips = encode(images)
        return {
            "plain": module.apply(variables, images),
            "captured": capture.capture(module, variables, images, ("encoder_0", "bottleneck", "head")),
            "encoded": (bottleneck, skips[0]),
            "replaced by itself": replace(lambda x: x),
            "replaced by nothing": replace(lambda x: 0 * x),
            "of nothing": decode(0 * bottleneck, skips),
            "patched": replace(of_other),
            "of another": decode(encode(other)[0], skips),
        }

    return jax.tree.map(np.asarray, run(variables, images, images[:, ::-1] + 1))


def test_captured_activations_are_those_of_encode_and_the_logits_are_unchanged(results):
    logits, activations = results["captured"]
    bottleneck, skip = results["encoded"]
    assert set(activations) == {"encoder_0", "bottleneck", "head"}
    np.testing.assert_allclose(activations["bottleneck"], bottleneck, atol=1e-5)
    np.testing.assert_allclose(activations["encoder_0"], skip, atol=1e-5)
    np.testing.assert_array_equal(activations["head"], logits)
    np.testing.assert_allclose(logits, results["plain"], atol=1e-5)


def test_all_layers_are_captured_when_none_is_named(setting):
    module, variables, images = setting
    names = capture.layer_names(module, variables, images)
    shapes = jax.eval_shape(lambda v, x: capture.capture(module, v, x)[1], variables, images)
    assert set(shapes) == set(names)
    assert shapes["encoder_1"].shape == (2, 8, 8, 6)


def test_replacing_by_itself_changes_nothing_and_by_nothing_changes_the_rest(results):
    np.testing.assert_allclose(results["replaced by itself"], results["plain"], atol=1e-5)
    np.testing.assert_allclose(results["replaced by nothing"], results["of nothing"], atol=1e-5)
    assert np.abs(results["of nothing"] - results["plain"]).max() > 1e-3


def test_a_function_may_read_the_same_network_on_another_image(results):
    """Activation patching: the bottleneck of another image."""
    np.testing.assert_allclose(results["patched"], results["of another"], atol=1e-5)
    assert np.abs(results["patched"] - results["plain"]).max() > 1e-3


def test_beside_a_forward_pass_the_encoder_runs_once(setting):
    module, variables, images = setting

    def cost(function):
        return jax.jit(function).lower(variables, images).compile().cost_analysis()["flops"]

    both = cost(
        lambda v, x: (module.apply(v, x), capture.replace(module, v, x, {"bottleneck": lambda a: jnp.maximum(a, 0.1)}))
    )
    plain = cost(module.apply)
    encoder = cost(lambda v, x: module.apply(v, x, method="encode"))
    assert both == pytest.approx(2 * plain - encoder, rel=0.02)


class Foreign(nn.Module):
    """A network of someone else, with a layer that is called twice and one that returns a pair."""

    @nn.compact
    def __call__(self, images):
        dense = nn.Dense(3, name="twice")
        x = dense(dense(images))
        a, b = Pair(name="pair")(x)
        return a + b


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x, 2 * x


def test_it_works_for_any_linen_network(drawn_variables):
    images, module = drawn((1, 4, 4, 3)), Foreign()
    variables = drawn_variables(module, images)
    assert capture.layer_names(module, variables, images) == ("twice",)
    logits, activations = jax.jit(lambda v, x: capture.capture(module, v, x))(variables, images)
    np.testing.assert_allclose(3 * activations["twice"], logits, rtol=1e-5)
    for name in ("pair", ""):  # is called, but gives no one activation; the network itself is no layer
        with pytest.raises(ValueError, match=f"no layer {name}; the network has twice"):
            jax.eval_shape(lambda v, x, name=name: capture.capture(module, v, x, [name]), variables, images)


def test_unknown_layers_and_changed_shapes_are_named(setting):
    module, variables, images = setting
    with pytest.raises(ValueError, match="no layer middle; the network has encoder_0/conv_0"):
        jax.eval_shape(lambda v, x: capture.capture(module, v, x, ["middle"]), variables, images)
    with pytest.raises(ValueError, match=r"made \(2, 4, 4\) of \(2, 4, 4, 8\)"):
        jax.eval_shape(
            lambda v, x: capture.replace(module, v, x, {"bottleneck": lambda a: a[..., 0]}), variables, images
        )


def test_a_function_may_apply_a_network_with_layers_of_the_same_name(drawn_variables):
    module = models.build("unet", 2, features=(3, 4))
    inner = models.build("unet", 4, features=(2, 4))  # its bottleneck is called bottleneck too
    images = drawn((1, 8, 8, 1))
    variables, inner_variables = drawn_variables(module, images), drawn_variables(inner, drawn((1, 4, 4, 4)))

    @jax.jit
    def run(variables, inner_variables, images):
        apply = lambda x: inner.apply(inner_variables, x)
        x = capture.capture(module, variables, images, ["bottleneck"])[1]["bottleneck"]
        replace = lambda function: capture.replace(module, variables, images, {"bottleneck": function})
        return replace(apply), replace(lambda _: apply(x))

    replaced, expected = run(variables, inner_variables, images)
    np.testing.assert_allclose(replaced, expected, atol=1e-6)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(3, name="dense")(x), None


class Looped(nn.Module):
    """Layers in a lifted loop, and a flag that every call must give."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(3, name="first")(x)
        scan = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = scan(name="loop")(x, None)
        return nn.Dense(2, name="last")(x if train else -x)


def test_layers_in_loops_are_not_listed_and_calls_may_need_options():
    module, x = Looped(), drawn((1, 3))

    @jax.jit
    def run(key, x):
        variables = module.init(key, x, train=True)
        assert capture.layer_names(module, variables, x, train=True) == ("first", "last")
        logits, found = capture.capture(module, variables, x, train=False)
        halved = capture.replace(module, variables, x, {"last": lambda x: x / 2}, train=False)
        with pytest.raises(ValueError, match="no layer loop/dense; the network has first, last"):
            capture.capture(module, variables, x, ["loop/dense"], train=False)
        return logits, found["last"], halved

    logits, last, halved = map(np.asarray, run(jax.random.key(0, impl="rbg"), x))
    np.testing.assert_array_equal(last, logits)
    np.testing.assert_allclose(halved, logits / 2)


def test_a_single_name_is_asked_for_in_a_sequence(setting):
    with pytest.raises(ValueError, match="the string 'bottleneck'; give a sequence"):
        capture.capture(*setting, "bottleneck")
