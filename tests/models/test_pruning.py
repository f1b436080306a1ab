"""Units taken out of the last layer: the narrower network is the one in which they are constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import capture, pruning
from jaxseg.models.pruning import LAST_LAYER, prune_last_layer

KEEP = np.array([True, False, True, True, False])
MEANS = np.array([9.0, 0.25, 9.0, 9.0, 1.5], np.float32)


@pytest.fixture(scope="module", params=["batch bilinear", "instance transpose"])
def network(request):
    norm, upsample = request.param.split()
    model = models.build("unet", 3, features=(5, 6), norm=norm, upsample=upsample)
    random = np.random.default_rng(1)
    images = random.standard_normal((2, 8, 8, 1), np.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), images)
    # positive statistics and no dead unit; compiling the real draw takes longer than the test
    variables = jax.tree.map(lambda x: random.uniform(0.1, 1.0, x.shape).astype(np.float32), like)
    return model, variables, images


def test_the_pruned_network_is_the_one_whose_inert_units_have_their_mean(network):
    model, variables, images = network
    narrow, pruned = prune_last_layer(model, variables, KEEP, MEANS)

    @jax.jit
    def run(variables, pruned):
        masked = capture.replace(model, variables, images, {LAST_LAYER: lambda x: jnp.where(KEEP, x, MEANS)})
        return masked, narrow.apply(pruned, images), model.apply(variables, images)

    masked, found, whole = map(np.asarray, run(variables, pruned))
    np.testing.assert_allclose(found, masked, rtol=1e-5, atol=1e-5)
    assert np.abs(masked - whole).max() > 0.1


def test_what_is_removed_is_gone_and_the_rest_is_shared(network):
    model, variables, images = network
    narrow, pruned = prune_last_layer(model, variables, KEEP, MEANS)
    like = jax.eval_shape(narrow.init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, pruned) == jax.tree.map(lambda leaf: leaf.shape, like)
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))
    # per unit a kernel of 3 x 3 x 5, scale and bias of the norm, and a weight per class
    per_unit = 45 + 2 + 3
    assert size(variables) - size(pruned) == 2 * per_unit
    assert (
        pruned["params"]["encoder_0"]["conv_0"]["conv"]["conv"]["kernel"]
        is (variables["params"]["encoder_0"]["conv_0"]["conv"]["conv"]["kernel"])
    )
    assert variables["params"]["head"]["conv"]["kernel"].shape[-2] == 5  # what was given is as it was


def test_what_cannot_be_pruned_is_refused(network):
    model, variables, _ = network
    with pytest.raises(ValueError, match=r"keep \(4,\) and means \(5,\) must have one entry per unit, \[5\]"):
        prune_last_layer(model, variables, KEEP[:4], MEANS)
    with pytest.raises(ValueError, match="names no unit"):
        prune_last_layer(model, variables, np.zeros(5, bool), MEANS)
    with pytest.raises(ValueError, match="a group norm mixes"):
        prune_last_layer(models.build("unet", 3, features=(5, 6), norm="group"), variables, KEEP, MEANS)
    with pytest.raises(ValueError, match="last_width is 0"):
        pruning.NarrowedUNet(2, last_width=0).check()
    pruning.NarrowedUNet(2, last_width=1).check()  # one is enough
