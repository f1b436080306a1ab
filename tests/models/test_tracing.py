"""What is remembered of a network, and of which."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxseg import models
from jaxseg.models import capture, tracing


class Scaled(nn.Module):
    """Holds an array, and so cannot be hashed."""

    factor: Any

    @nn.compact
    def __call__(self, images):
        return nn.Conv(self.factor.size, (1, 1), name="conv")(images) * self.factor


def test_a_network_is_traced_once_for_a_shape():
    traced = []
    ask = tracing.remembered(lambda module, shape: traced.append((module, shape)) or len(traced))
    first, same, other = (models.build("unet", 2, features=(2, width), skips=(True,)) for width in (4, 4, 6))
    assert [ask(first, (1, 8)), ask(same, (1, 8)), ask(other, (1, 8)), ask(first, (1, 16))] == [1, 1, 2, 3]


def test_a_module_that_holds_an_array_is_traced_anew():
    for channels in (2, 3):
        module = Scaled(np.ones((1, 1, 1, channels), np.float32))
        shapes = tracing.variable_shapes(module, [1, 4, 4, 5])
        assert shapes["params"]["conv"]["kernel"].shape == (1, 1, 5, channels)
        assert capture.layer_names(module, shapes, jnp.zeros((1, 4, 4, 5))) == ("conv",)
