"""A network for pictures says of a volume what it says of its slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models, networks
from jaxseg.data import grids, inputs
from jaxseg.errors import InputError

VOLUMES = np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 6, 1)).astype(np.float32)


@jax.jit
def asked(network, images):
    """Logits, the bottleneck, and the logits with half of it."""
    found, layers = network.captured(images, ("encoder_0", "bottleneck"))
    return found, network.logits(images), layers, network.replaced(images, {"bottleneck": 0.5 * layers["bottleneck"]})


@pytest.fixture(scope="module")
def unet(drawn_variables):
    model = models.build("unet", 2, features=(2, 4), skips=(True,))
    return networks.of_linen(model, drawn_variables(model, VOLUMES[:, 0]), image_size=(8, 6), channels=1)


def test_it_says_of_a_volume_what_it_says_of_its_slices(unet):
    found = asked(networks.slice_by_slice(unet), VOLUMES)
    of_slices = asked(unet, VOLUMES.reshape(6, 8, 6, 1))
    apart = lambda array: array.reshape(2, 3, *array.shape[1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, apart(b), atol=1e-5), found, of_slices)
    assert np.abs(found[0] - found[3]).max() > 1e-3


def test_it_says_of_itself_what_the_network_says(unet):
    network = networks.slice_by_slice(unet)
    assert (network.sides, network.channels, network.num_classes) == ((1, 8, 6), 1, 2)
    assert (network.layers, network.roles, network.padding) == (unet.layers, unet.roles, "zero")
    assert network.fingerprint == unet.fingerprint and network.differentiable
    assert "slice by slice" in network.notes[-1]
    assert network.inputs.grid == grids.InPlane(grids.Squash((8, 6)))
    with pytest.raises(InputError, match="takes images of 3 axes; give one that takes pictures"):
        networks.slice_by_slice(network)
    with pytest.raises(ValueError, match=r"takes volumes \[B,D,H,W,C\]"):
        jax.eval_shape(network.logits, VOLUMES[0])


def test_activations_are_those_of_the_slices_without_a_margin(drawn_variables):
    model = models.build("unet", 2, features=(2, 4), skips=(True,), padding="valid")
    network = networks.slice_by_slice(
        networks.of_linen(model, drawn_variables(model, VOLUMES[:, 0]), image_size=(8, 6), channels=1)
    )
    shapes = jax.eval_shape(lambda images: network.captured(images, ("encoder_0",)), VOLUMES)
    assert shapes[0].shape == (2, 3, 8, 6, 2) and shapes[1]["encoder_0"].shape == (2, 3, 8, 6, 2)
    assert network.margin == 0 and network.roles.bottleneck is None


def test_a_network_of_someone_else_is_given_gray_levels_of_slices():
    function = lambda levels: levels.astype(jnp.float32) - 100
    network = networks.slice_by_slice(
        networks.from_function(function, num_classes=2, image_size=(4, 5), channels=1, output="logits")
    )
    levels = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 5, 1))
    found = network.logits((levels / 127.5 - 1).astype(np.float32))
    np.testing.assert_allclose(found[..., 1], levels[..., 0] - 100, atol=1e-3)


GRIDS = {
    "squash": (grids.Squash((4, 6)), (4, 6), (4, 6)),
    "keep": (grids.Keep(0, size=(10, 20)), (8, 12), (10, 20)),
    "spacing": (grids.Keep(0, multiple=(16,), spacing=(2.0,)), (4, 6), (16, 16)),
    "patches": (grids.Patches(5, spacing=(1.0, 0.5)), (8, 24), (8, 24)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_volumes_are_prepared_in_the_plane_as_pictures_are(name):
    plane, resized, on_grid = GRIDS[name]
    made, spacing = grids.in_plane(plane), (9.0, 1.0, 1.0)
    found = made.placement((3, 8, 12), spacing)
    assert (found.resized, found.grid) == ((3, *resized), (3, *on_grid))
    of_picture = plane.placement((8, 12), spacing[1:])
    assert (of_picture.resized, of_picture.grid) == (resized, on_grid)
    assert made.pads and not made.one_size and made.example(3) == (1, *plane.example(2))
    given = inputs.Inputs(made).grid
    assert isinstance(given, grids.Patches) == (name == "patches")
