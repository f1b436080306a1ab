"""nnU-Net's folders as networks: what their plans make of a case, beside the formulas."""

import dataclasses

import numpy as np
import pytest

from jaxseg import networks
from jaxseg.data.grids import Patches
from jaxseg.errors import InputError
from jaxseg.models.nnunet_folder import plans as reading
from jaxseg.networks.nnunet import inputs_of
from tests import nnunet

OPTIONS = {
    "encoder": "plain",
    "features": (2, 4),
    "kernels": ((3, 3), (3, 3)),
    "strides": ((1, 1), (2, 2)),
    "depths": (1, 1),
    "decoder_depths": (1,),
    "norm": "instance",
}
SEEN = np.random.default_rng(0).uniform(-100, 300, (6, 10, 1)).astype(np.float32)


def plans(schemes=("ZScoreNormalization",), *, ending=".nii.gz", **changes):
    written = nnunet.plans_json(OPTIONS, (8, 16), configuration="2d", schemes=schemes)
    written["transpose_forward"] = written["transpose_backward"] = [0, 1, 2]
    dataset = nnunet.dataset_json([f"c{i}" for i in range(len(schemes))]) | {"file_ending": ending}
    return dataclasses.replace(reading.read(written, dataset, "2d"), **changes)


def test_patches_have_the_size_and_the_spacing_of_the_plans():
    grid = inputs_of(plans()).grid
    assert isinstance(grid, Patches) and grid.example(2) == (8, 16) and tuple(grid.spacing) == (0.8, 0.8)
    at = grid.placement((10, 10), (1.6, 0.8))
    assert (at.resized, at.grid) == ((20, 10), (20, 16))
    pictures = inputs_of(plans(ending=".png", spacing=(1.0, 1.0))).grid
    assert pictures.placement((10, 20), (np.nan, np.nan)).resized == (10, 20)


@pytest.mark.parametrize(
    ("scheme", "wanted"),
    [
        ("ZScoreNormalization", (SEEN - SEEN.mean()) / SEEN.std()),
        ("CTNormalization", (np.clip(SEEN, -30, 150) - 40) / 20),
        ("RGBTo01Normalization", SEEN / 255),
        ("NoNormalization", SEEN),
    ],
)
def test_intensities_are_those_of_nnunet(scheme, wanted):
    found = inputs_of(plans((scheme,))).normalisation(SEEN)
    np.testing.assert_allclose(found.astype(float), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (plans(("RescaleTo01Normalization",)), "by RescaleTo01Normalization, which has no counterpart here"),
        (plans(("CTNormalization", "NoNormalization")), "by CTNormalization and NoNormalization, and here all"),
        (plans(transpose_forward=(2, 0, 1)), "in the order 2, 0, 1, and cases here keep theirs"),
    ],
)
def test_what_has_no_counterpart_is_refused_in_a_sentence(given, message):
    with pytest.raises(InputError, match=message):
        inputs_of(given)


def test_z_scores_of_masks_are_refused():
    masked = plans(channels=(reading.Channel("MR", "ZScoreNormalization", True),))
    with pytest.raises(InputError, match=r"inside the border of zeros alone \(use_mask_for_norm\)"):
        inputs_of(masked)


def test_a_folder_is_a_network(tmp_path):
    written = nnunet.plans_json(OPTIONS, (8, 16), configuration="2d")
    written["transpose_forward"] = written["transpose_backward"] = [0, 1, 2]
    random = np.random.default_rng(0)
    shapes = nnunet.tensor_shapes(OPTIONS, 1, 3)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nnunet.write_folder(tmp_path, written, nnunet.dataset_json(), nnunet.with_copies(tensors), fold=1)
    network = networks.from_nnunet(tmp_path, fold=1)
    assert (network.num_classes, network.channels, network.sides) == (3, 1, (8, 16))
    assert network.class_names == ("background", "organ", "tumour") and network.inputs == inputs_of(plans())
    assert "not cropped away" in network.notes[0] and network.roles.bottleneck in network.layers
    images = random.normal(size=(2, 8, 16, 1)).astype(np.float32)
    wanted = nnunet.forward(tensors, images, OPTIONS["strides"])
    np.testing.assert_allclose(network.logits(images), wanted, rtol=1e-3, atol=1e-3)
