"""PyTorch tensors in: the authors' numbers out."""

import itertools
import json

import jax
import numpy as np
import pytest

from jaxseg import models
from jaxseg.errors import InputError
from jaxseg.models import weights


@pytest.fixture(scope="module")
def skinseg(oracles, drawn_state_dict):
    with np.load(oracles / "skinseg_unet.npz") as stored:
        data = dict(stored)
    shapes = json.loads((oracles / "parameter_shapes.json").read_text())["skinseg_unet"]
    return drawn_state_dict(shapes, int(data["seed"])), data["images"], data["logits"]


def test_the_shortcut_papers_unet_gives_its_logits(skinseg):
    state_dict, images, logits = skinseg
    module = models.build("unet", 2, upsample="bilinear_aligned")
    variables = weights.from_torch(module, state_dict, images.shape)
    ours = jax.jit(module.apply)(variables, images)
    assert np.abs(ours - logits).max() < 1e-3


def test_without_a_skip_it_is_the_network_whose_weights_for_the_skip_are_zero(skinseg):
    state_dict, images, _ = skinseg
    silenced = dict(state_dict)
    for name, channels in (("up4.conv.double_conv.0.weight", 64), ("up2.conv.double_conv.0.weight", 256)):
        silenced[name] = silenced[name].copy()
        silenced[name][:, :channels] = 0
    full = models.build("unet", 2, upsample="bilinear_aligned")
    cut = models.build("unet", 2, upsample="bilinear_aligned", skips=(False, True, False, True))
    expected = jax.jit(full.apply)(weights.from_torch(full, silenced, images.shape), images)
    ours = jax.jit(cut.apply)(weights.from_torch(cut, state_dict, images.shape), images)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def torch_shapes(features=(4, 6, 8), channels=2, classes=3):
    """Names and shapes of the PyTorch U-Net with transposed up-sampling."""
    shapes = {}

    def block(name, read, width):
        for i, (source, target) in enumerate(((read, width), (width, width))):
            shapes[f"{name}.double_conv.{3 * i}.weight"] = (target, source, 3, 3)
            shapes[f"{name}.double_conv.{3 * i}.bias"] = (target,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.double_conv.{3 * i + 1}.{part}"] = (target,)

    block("inc", channels, features[0])
    for i, (above, width) in enumerate(itertools.pairwise(features), 1):
        block(f"down{i}.maxpool_conv.1", above, width)
        up = len(features) - i
        shapes[f"up{up}.up.weight"] = (width, above, 2, 2)
        shapes[f"up{up}.up.bias"] = (above,)
        block(f"up{up}.conv", 2 * above, above)
    shapes["outc.conv.weight"], shapes["outc.conv.bias"] = (classes, features[0], 1, 1), (classes,)
    return shapes


@pytest.fixture
def small(drawn_state_dict):
    module = models.build("unet", 3, features=(4, 6, 8), upsample="transpose")
    return module, drawn_state_dict(torch_shapes(), 3)


def test_transposed_up_sampling_fills_every_variable(small):
    module, state_dict = small
    variables = weights.from_torch(module, state_dict, (1, 16, 16, 2))
    wanted = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 16, 16, 2), np.float32))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, wanted)
    kernel = variables["params"]["up_1"]["kernel"]  # [in, 2, 2, out] from PyTorch's [in, out, 2, 2]
    np.testing.assert_array_equal(kernel[3, 0, 1, 5], state_dict["up1.up.weight"][3, 5, 0, 1])


def test_counters_of_batches_are_ignored(small):
    module, state_dict = small
    extended = state_dict | {"inc.double_conv.1.num_batches_tracked": np.array(7)}
    weights.from_torch(module, extended, (1, 16, 16, 2))


def test_all_that_does_not_fit_is_listed_at_once(small):
    module, state_dict = small
    broken = dict(state_dict)
    del broken["inc.double_conv.0.bias"]
    broken["fc.weight"] = np.zeros((5, 2), np.float32)
    broken["inc.double_conv.3.bias"] = np.zeros(1, np.float32)  # would broadcast
    broken["outc.conv.weight"] = np.zeros((7, 4, 1, 1), np.float32)
    broken["up2.conv.double_conv.0.weight"] = np.zeros((4, 5, 3, 3), np.float32)
    with pytest.raises(InputError) as error:
        weights.from_torch(module, broken, (1, 16, 16, 2))
    text = str(error.value)
    assert "missing: inc.double_conv.0.bias" in text
    assert "left over: fc.weight (5, 2)" in text
    assert "misshapen: inc.double_conv.3.bias (1,), the network takes (4,)" in text
    assert "misshapen: outc.conv.weight (7, 4, 1, 1), the network takes (3, 4, 1, 1)" in text
    assert "misshapen: up2.conv.double_conv.0.weight (4, 5, 3, 3), the network takes (4, 8, 3, 3)" in text


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_running_statistics_do_not_fit_a_network_without_them(small, norm):
    _, state_dict = small
    module = models.build("unet", 3, features=(4, 6, 8), upsample="transpose", norm=norm)
    with pytest.raises(InputError, match=r"left over: down1.maxpool_conv.1.double_conv.1.running_mean \(6,\)"):
        weights.from_torch(module, state_dict, (1, 16, 16, 2))


def test_tensors_of_a_skip_that_is_off_are_checked_too(drawn_state_dict):
    full = models.build("residual_unet", 2, features=(3, 4))
    wanted = jax.eval_shape(full.init, jax.random.key(0), np.zeros((1, 4, 4, 1), np.float32))
    shapes = weights._shapes(wanted)
    tensors = {
        name: np.zeros(entry.shape(shapes[entry.variable]), np.float32)
        for entry in weights._residual_unet(full)
        for name in entry.sources
    }
    cut = models.build("residual_unet", 2, features=(3, 4), skips=(False,))
    weights.from_torch(cut, tensors, (1, 4, 4, 1))
    tensors["shortcut0.weight"] = np.zeros((99, 1), np.float32)
    del tensors["out_path.1.layer.bias"]
    with pytest.raises(InputError) as error:
        weights.from_torch(cut, tensors, (1, 4, 4, 1))
    assert "misshapen: shortcut0.weight (99, 1), the network takes (3, 3, 1, 1)" in str(error.value)
    assert "missing: out_path.1.layer.bias" in str(error.value)
