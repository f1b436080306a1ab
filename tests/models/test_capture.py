"""Activations by name, of the project's networks and of any other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import capture


@pytest.fixture(scope="module")
def setting():
    module = models.build("unet", 2, features=(4, 6, 8))
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    return module, jax.jit(module.init)(jax.random.key(1, impl="rbg"), images), images


def test_names_go_from_input_to_output(setting):
    names = capture.layer_names(*setting)
    blocks = [name for name in names if "/" not in name]
    assert blocks == ["encoder_0", "encoder_1", "bottleneck", "decoder_1", "decoder_0", "head"]
    assert names.index("encoder_0/conv_0/norm") < names.index("encoder_0/conv_0") < names.index("encoder_0/conv_1")


def test_captured_activations_are_those_of_encode_and_the_logits_are_unchanged(setting):
    module, variables, images = setting
    read = jax.jit(lambda v, x: capture.capture(module, v, x, ("encoder_0", "bottleneck", "head")))
    logits, activations = read(variables, images)
    bottleneck, skips = jax.jit(lambda v, x: module.apply(v, x, method="encode"))(variables, images)
    assert set(activations) == {"encoder_0", "bottleneck", "head"}
    np.testing.assert_allclose(activations["bottleneck"], bottleneck, atol=1e-5)
    np.testing.assert_allclose(activations["encoder_0"], skips[0], atol=1e-5)
    np.testing.assert_array_equal(activations["head"], logits)
    np.testing.assert_allclose(logits, jax.jit(module.apply)(variables, images), atol=1e-5)


def test_all_layers_are_captured_when_none_is_named(setting):
    module, variables, images = setting
    names = capture.layer_names(module, variables, images)
    shapes = jax.eval_shape(lambda v, x: capture.capture(module, v, x)[1], variables, images)
    assert set(shapes) == set(names)
    assert shapes["encoder_1"].shape == (2, 8, 8, 6)


def test_replacing_by_itself_changes_nothing_and_by_nothing_changes_the_rest(setting):
    module, variables, images = setting
    run = jax.jit(lambda v, x, scale: capture.replace(module, v, x, {"bottleneck": lambda a: a * scale}))
    plain = jax.jit(module.apply)(variables, images)
    np.testing.assert_allclose(run(variables, images, 1.0), plain, atol=1e-5)
    bottleneck, skips = module.apply(variables, images, method="encode")
    expected = module.apply(variables, 0 * bottleneck, skips, method="decode")
    np.testing.assert_allclose(run(variables, images, 0.0), expected, atol=1e-5)
    assert np.abs(expected - plain).max() > 1e-3


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


def test_it_works_for_any_linen_network():
    images = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
    module = Foreign()
    variables = module.init(jax.random.key(1), images)
    assert capture.layer_names(module, variables, images) == ("twice",)
    logits, activations = capture.capture(module, variables, images)
    np.testing.assert_allclose(3 * activations["twice"], logits, rtol=1e-5)


def test_unknown_layers_and_changed_shapes_are_named(setting):
    module, variables, images = setting
    with pytest.raises(ValueError, match="no layer middle; the network has encoder_0/conv_0"):
        capture.capture(module, variables, images, ["middle"])
    with pytest.raises(ValueError, match=r"made \(2, 4, 4\) of \(2, 4, 4, 8\)"):
        capture.replace(module, variables, images, {"bottleneck": lambda a: a[..., 0]})


def test_a_function_may_apply_a_network_with_layers_of_the_same_name():
    module = models.build("unet", 2, features=(3, 4))
    inner = models.build("unet", 4, features=(2, 4))  # its bottleneck is called bottleneck too
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    variables = jax.jit(module.init)(jax.random.key(1, impl="rbg"), images)
    x = capture.capture(module, variables, images, ["bottleneck"])[1]["bottleneck"]
    inner_variables = jax.jit(inner.init)(jax.random.key(2, impl="rbg"), x)
    apply = lambda x: inner.apply(inner_variables, x)
    replaced = capture.replace(module, variables, images, {"bottleneck": apply})
    expected = capture.replace(module, variables, images, {"bottleneck": lambda _: apply(x)})
    np.testing.assert_allclose(replaced, expected, atol=1e-6)


def test_a_function_may_read_the_same_network_on_another_image(setting):
    """Activation patching: the bottleneck of another image."""
    module, variables, images = setting
    other = images[:, ::-1] + 1
    patched = capture.replace(
        module,
        variables,
        images,
        {"bottleneck": lambda _: capture.capture(module, variables, other, ["bottleneck"])[1]["bottleneck"]},
    )
    _, skips = module.apply(variables, images, method="encode")
    bottleneck, _ = module.apply(variables, other, method="encode")
    expected = module.apply(variables, bottleneck, skips, method="decode")
    np.testing.assert_allclose(patched, expected, atol=1e-5)


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
    module, x = Looped(), jnp.ones((1, 3))
    variables = module.init(jax.random.key(0), x, train=True)
    names = capture.layer_names(module, variables, x, train=True)
    assert names == ("first", "last")
    logits, found = capture.capture(module, variables, x, train=False)
    np.testing.assert_array_equal(found["last"], logits)
    halved = capture.replace(module, variables, x, {"last": lambda x: x / 2}, train=False)
    np.testing.assert_allclose(halved, logits / 2)


def test_a_single_name_is_asked_for_in_a_sequence(setting):
    with pytest.raises(ValueError, match="the string 'bottleneck'; give a sequence"):
        capture.capture(*setting, "bottleneck")
