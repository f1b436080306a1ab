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
            images = jax.ShapeDtypeStruct(shape, jnp.float32)
            logits, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
            assert logits.shape == (*shape[:-1], 3)


def test_its_reach_is_wide_enough(network, drawn_variables):
    images = np.random.default_rng(0).standard_normal((1, 8, 8, 1), np.float32)
    module = network(2, padding="valid")
    wider = type("Wider", (network,), {"reach": property(lambda self: network.reach.fget(self) + 8)})
    modules = module, wider(2, padding="valid")
    assert modules[1].margin > module.margin
    run = jax.jit(lambda variables, images: [module.apply(variables, images) for module in modules])
    logits, of_wider = run(drawn_variables(module, images), images)
    np.testing.assert_allclose(of_wider, logits, atol=1e-5)


def test_its_activations_have_names(network):
    module, images = network(2), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    names = capture.layer_names(module, variables, images)
    assert {"top/conv_0", "bottleneck", "decoder", "head", *module.roles.convolutions} <= set(names)
