"""Linen modules as networks say what `models.capture` says, to the bit, and share programs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models, networks
from jaxseg.models import capture
from jaxseg.models.skeleton import compiler_options

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)


class Pixelwise(nn.Module):
    """A network of someone else, who says nothing of roles."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(2, name="hidden")(images)))


@pytest.fixture(scope="module")
def unets(drawn_variables):
    """Two networks of one shape."""
    model = models.build("unet", 2, features=(2, 4), skips=(True,), padding="reflect")
    return [networks.of_linen(model, drawn_variables(model, IMAGES, seed), image_size=8) for seed in range(2)]


def test_logits_activations_and_replacements_are_those_of_capture(unets):
    layers = ("encoder_0", "bottleneck")

    @jax.jit
    def ask(network, images):
        direct = capture.capture(network.model, network.variables, images, layers)
        function = {"bottleneck": lambda x: 0.5 * x + 1}
        changed = capture.replace(network.model, network.variables, images, function)
        logits, found = network.captured(images, layers)
        replaced = network.replaced(images, {"bottleneck": 0.5 * found["bottleneck"] + 1})
        return (direct, direct[0], changed), ((logits, found), network.logits(images), replaced)

    for network in unets:
        jax.tree.map(np.testing.assert_array_equal, *ask(network, IMAGES))
    assert ask._cache_size() == 1  # variables are arguments, not constants


def test_it_says_of_itself_what_the_module_says(unets):
    network = unets[0]
    assert (network.num_classes, network.channels, network.sides) == (2, 3, (8, 8))
    assert network.layers == capture.layer_names(network.model, network.variables, IMAGES)
    assert network.roles == network.model.roles and network.roles.bottleneck == "bottleneck"
    assert (network.padding, network.margin, network.differentiable, network.notes) == ("reflect", 0, True, ())
    assert network.fingerprint != unets[1].fingerprint
    again = networks.of_linen(network.model, jax.tree.map(jnp.array, network.variables), image_size=8)
    assert again.fingerprint == network.fingerprint


def test_a_module_of_someone_else_has_layers_and_no_bottleneck(drawn_variables):
    network = networks.of_linen(Pixelwise(), drawn_variables(Pixelwise(), IMAGES), image_size=(8, 8))
    assert network.num_classes == 3 and network.layers == ("hidden", "head")
    assert network.roles == (None, (), (), ("hidden", "head"))
    assert (network.padding, network.margin) == ("", 0)


def test_a_margin_is_the_modules():
    model = models.build("unet", 2, features=(2, 4), skips=(True,), padding="valid")
    assert networks.of_linen(model, {}, image_size=8).margin == model.margin > 0


def test_gradients_are_compiled_as_the_module_needs_it(unets):
    assert unets[0].compiler_options == compiler_options(unets[0].model)
    assert networks.of_linen(Pixelwise(), {}, image_size=8).compiler_options == {}
