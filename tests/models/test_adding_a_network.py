"""The network in ARCHITECTURE.md does what is promised there."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import capture, layers

TEXT = (pathlib.Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()


@pytest.fixture(scope="module")
def network():
    (code,) = re.findall(r"```python\n(.*?class TinyNet.*?)```", TEXT, re.DOTALL)
    names = {}
    exec(code, names)
    return names["TinyNet"]


@pytest.mark.parametrize("padding", layers.PADDINGS)
def test_it_takes_images_and_volumes_in_every_padding(network, padding):
    for skips in ((True,), (False,)):
        module = network(3, padding=padding, skips=skips)
        for shape in ((2, 8, 6, 1), (1, 4, 6, 8, 2)):
            variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
            assert jax.eval_shape(module.apply, variables, jnp.zeros(shape)).shape == (*shape[:-1], 3)


def test_its_reach_is_wide_enough(network):
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    module = network(2, padding="valid")
    variables = jax.jit(module.init)(jax.random.key(1, impl="rbg"), images)
    logits = jax.jit(module.apply)(variables, images)
    wider = type("Wider", (network,), {"reach": property(lambda self: network.reach.fget(self) + 8)})
    np.testing.assert_allclose(jax.jit(wider(2, padding="valid").apply)(variables, images), logits, atol=1e-5)


def test_its_activations_have_names(network):
    module, images = network(2), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    assert {"top/conv_0", "bottleneck", "decoder", "head"} <= set(capture.layer_names(module, variables, images))
