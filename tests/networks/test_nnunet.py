"""nnU-Net's folders as networks: what their plans make of a case, beside the formulas."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxseg import networks
from jaxseg.data.grids import Patches
from jaxseg.data.normalisation import Statistics
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
        ("RescaleTo01Normalization", (SEEN - SEEN.min()) / (SEEN.max() - SEEN.min())),
        ("RGBTo01Normalization", SEEN / 255),
        ("NoNormalization", SEEN),
    ],
)
def test_intensities_are_those_of_nnunet(scheme, wanted):
    found = inputs_of(plans((scheme,))).normalisation(SEEN)
    np.testing.assert_allclose(found.astype(float), wanted, rtol=1e-3, atol=1e-3)


def test_channels_have_schemes_of_their_own():
    """Also where both are CT, clipped at different ends."""
    two = np.concatenate([SEEN, 3 * SEEN[::-1] + 7], -1)
    found = inputs_of(plans(("CTNormalization", "ZScoreNormalization"))).normalisation
    wanted = [(np.clip(SEEN, -30, 150) - 40) / 20, (SEEN[::-1] - SEEN.mean()) / SEEN.std()]
    np.testing.assert_allclose(found(two).astype(float), np.concatenate(wanted, -1), rtol=1e-3, atol=1e-3)
    of_files = Statistics(*np.array([[0, 0], [1, 1], [9, 30], [9, 50]], np.float32))  # of which z-scores are
    wanted[1] = (two[..., 1:] - 30) / 50
    found_of_files = found(two, known=of_files).astype(float)
    np.testing.assert_allclose(found_of_files, np.concatenate(wanted, -1), rtol=1e-3, atol=2e-3)
    scale = found.scale(two, known=of_files)
    np.testing.assert_allclose(scale.black, [-2.0, -0.6], rtol=1e-6)
    np.testing.assert_allclose(scale.white, [-39 / 20, -29 / 50], rtol=1e-6)
    np.testing.assert_allclose([scale.least[0], scale.most[0]], [-3.5, 5.5])
    ends = [reading.Channel("CT", "CTNormalization", False, 0.0, 1.0, 0.0, high) for high in (10.0, 20.0)]
    clipped = inputs_of(plans(("CTNormalization",) * 2, channels=tuple(ends))).normalisation(two)
    np.testing.assert_array_equal(clipped.max((0, 1)), [10, 20])


def test_z_scores_of_masks_are_of_what_is_inside_a_border_of_zeros():
    """By nnU-Net's own formula; in a volume, zeros that are enclosed are inside."""
    channels = (reading.Channel("MR", "ZScoreNormalization", True), reading.Channel("CT", "NoNormalization", True))
    found = inputs_of(plans(("ZScoreNormalization", "NoNormalization"), channels=channels)).normalisation
    volume = np.zeros((5, 6, 7, 2), np.float32)
    volume[1:4, 1:5, 1:6] = np.random.default_rng(0).uniform(50, 90, (3, 4, 5, 2))
    volume[2, 2:4, 3] = 0
    volume[1, 1, 1, 0] = 0  # the other channel is not
    inside = np.zeros((5, 6, 7), bool)
    inside[1:4, 1:5, 1:6] = True
    for image, mask in ((volume, inside), (volume[2], volume[2, ..., 0] != 0)):
        values = image[..., 0][mask].astype(float)
        wanted = image.astype(float)
        wanted[..., 0][mask] = (values - values.mean()) / values.std()
        np.testing.assert_allclose(found(image), wanted, rtol=1e-3, atol=2e-3)
        scale = found.scale(image, scaling=("window", 0.0, 255.0))  # levels are intensities
        np.testing.assert_allclose(scale.values(image)[mask], wanted[mask], rtol=1e-3, atol=3e-3)
    np.testing.assert_array_equal(found(np.zeros_like(volume)), 0)


def test_slices_along_another_axis_are_refused_and_others_are_turned_in_their_plane():
    with pytest.raises(InputError, match="in the order 2, 0, 1, so its slices lie along another axis than the first"):
        inputs_of(plans(transpose_forward=(2, 0, 1)))
    grid = inputs_of(plans(transpose_forward=(0, 2, 1), spacing=(0.5, 0.8))).grid
    assert grid.example(2) == (16, 8) and tuple(grid.spacing) == (0.8, 0.5)


def test_a_network_of_transposed_volumes_takes_cases_in_their_own_order(tmp_path):
    options = OPTIONS | {"kernels": ((1, 3, 3), (3, 3, 3)), "strides": ((1, 1, 1), (1, 2, 2))}
    written = nnunet.plans_json(options, (3, 4, 8))  # whose axes are the last, the first and the second of a case
    random = np.random.default_rng(0)
    shapes = nnunet.tensor_shapes(options, 1, 3)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nnunet.write_folder(tmp_path, written, nnunet.dataset_json(), nnunet.with_copies(tensors))
    network = networks.from_nnunet(tmp_path)
    grid = network.inputs.grid
    assert network.sides == grid.example(3) == (4, 8, 3) and tuple(grid.spacing) == (0.8, 0.8, 3.0)
    assert network.class_names == ("background", "organ", "tumour") and network.num_classes == 3
    images = random.normal(size=(2, 4, 8, 3, 1)).astype(np.float32)
    wanted = nnunet.forward(tensors, images.transpose(0, 3, 1, 2, 4), options["strides"]).transpose(0, 2, 3, 1, 4)
    bottleneck = network.roles.bottleneck

    @jax.jit
    def both(network, images):
        logits, found = network.captured(images, (bottleneck,))
        return logits, found[bottleneck], network.replaced(images, found)

    logits, inner, replaced = both(network, images)
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(replaced, wanted, rtol=1e-3, atol=1e-3)
    assert inner.shape == (2, 2, 4, 3, 4)
    assert network.repadded("reflect").padding == "reflect" and network.repadded("reflect").sides == network.sides


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
    np.testing.assert_allclose(jax.jit(network.logits)(images), wanted, rtol=1e-3, atol=1e-3)
