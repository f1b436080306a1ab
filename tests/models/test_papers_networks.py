"""The papers' own networks: their numbers of parameters, and their logits where there are reference numbers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import weights

TABLE_II = {  # Wilm et al. 2024: trainable parameters with the top 0 to 4 skips off
    "resnet18": (14_328_354, 14_309_922, 14_273_058, 14_125_602, 13_535_778),
    "resnet34": (24_436_514, 24_418_082, 24_381_218, 24_233_762, 23_643_938),
}


@pytest.mark.parametrize("encoder", TABLE_II)
def test_parameter_counts_are_those_of_the_paper(encoder):
    """The encoder is the same whatever skips there are; it is counted once."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    key = jax.random.key(0)
    count = lambda variables: sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))

    def parameters(module, method, *inputs):
        return jax.eval_shape(functools.partial(module.init_with_output, method=method), key, *inputs)

    (bottleneck, levels), encoding = parameters(models.build("resnet_unet", 2, encoder=encoder), "encode", images)
    for off, expected in enumerate(TABLE_II[encoder]):
        on = (False,) * off + (True,) * (4 - off)
        module = models.build("resnet_unet", 2, encoder=encoder, skips=on)
        skips = tuple(level if there else None for level, there in zip(levels, on, strict=True))
        _, decoding = parameters(module, "decode", bottleneck, skips)
        assert count(encoding) + count(decoding) == expected


@pytest.fixture(scope="module")
def reference(oracles, drawn_state_dict):
    shapes = json.loads((oracles / "parameter_shapes.json").read_text())

    def load(file, network):
        with np.load(oracles / f"{file}.npz") as stored:
            return drawn_state_dict(shapes[network], int(stored["seed"])), stored["images"], stored["logits"]

    return load


@pytest.mark.parametrize("encoder", TABLE_II)
@pytest.mark.parametrize("off", range(5))
def test_the_skip_papers_networks_give_their_logits(reference, encoder, off):
    state_dict, images, logits = reference(f"smp_{encoder}" + (f"_L{off}" if off else ""), f"smp_{encoder}")
    module = models.build("resnet_unet", 2, encoder=encoder, skips=(False,) * off + (True,) * (4 - off))
    variables = weights.from_torch(module, state_dict, images.shape)
    ours = jax.jit(module.apply)(variables, images)
    # the logits of resnet34 reach 2000, where PyTorch's float32 is 0.009 from its float64
    assert np.abs(ours - logits).max() < (1e-3 if encoder == "resnet18" else 1e-5 * np.abs(logits).max())


def test_the_distortion_papers_network_gives_its_logits(reference):
    state_dict, images, logits = reference("damri_unet2d", "damri_unet2d")
    module = models.build("residual_unet", 4)
    variables = weights.from_torch(module, state_dict, images.shape)
    ours = jax.jit(module.apply)(variables, images)
    assert np.abs(ours - logits).max() < 1e-3 * np.abs(logits).max()


def test_tensors_of_a_shortcut_that_is_off_are_passed_over(reference):
    state_dict, images, _ = reference("damri_unet2d", "damri_unet2d")
    silenced = {name: 0 * array if name.startswith("shortcut1") else array for name, array in state_dict.items()}
    full, cut = models.build("residual_unet", 4), models.build("residual_unet", 4, skips=(True, False, True))
    expected = jax.jit(full.apply)(weights.from_torch(full, silenced, images.shape), images)
    ours = jax.jit(cut.apply)(weights.from_torch(cut, state_dict, images.shape), images)
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()
