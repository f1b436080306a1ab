"""File -> the grid of a network -> mask -> file, for volumes of any shape, spacing and orientation.

The oracle is a network that says what is annotated: it is given the annotation as channels, one a class, that are 1
where a voxel is of that class. What it says, in the file, can only differ by what the way there and back costs.
"""

import functools

import flax.linen as nn
import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from configs import train
from jaxseg.data import geometry
from jaxseg.data.pipeline import Preparation
from jaxseg.models.skeleton import Roles
from jaxseg.networks import of_linen
from jaxseg.prediction import inputs, outputs
from jaxseg.prediction.inputs import TrainedOn
from jaxseg.prediction.predictor import Predictor
from jaxseg.training import trained

CLASSES = ("background", "cavity", "wall")
SEEN = "SPL"  # to which sides the slices, rows and columns of the data set run
SIDES = {"L": (-1, 0, 0), "R": (1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
ALONG = {"S": 0, "I": 0, "P": 1, "A": 1, "L": 2, "R": 2}  # the axis of the data set that runs to a side, or from it
BACKWARDS = np.eye(4)[[2, 1, 0, 3]]

ORIENTATIONS = st.permutations([0, 1, 2]).flatmap(
    lambda order: st.tuples(*(st.sampled_from(("SI", "PA", "LR")[axis]) for axis in order)).map("".join)
)
SHAPES = st.tuples(st.integers(5, 8), st.integers(64, 96), st.integers(64, 96))
SPACINGS = st.tuples(st.floats(3, 10), st.floats(0.8, 1.25), st.floats(0.8, 1.25))  # mm

GEOMETRIES = {
    "keep, all of it": ("keep", {"multiple": (32, 32)}, False),
    "keep, padded": ("keep", {"size": (96, 96)}, False),
    "patches": ("patches", {"size": (48, 48)}, False),
    "keep, resampled": ("keep", {"multiple": (32, 32), "spacing": (1.0, 1.0)}, True),
    "patches, resampled": ("patches", {"size": (48, 48), "spacing": (1.0, 1.0)}, True),
    "squash": ("squash", {}, True),
    "keep, as large as fits": ("keep", {"size": (80, 96), "whole": True}, True),
    "keep, resampled along all axes": ("keep", {"multiple": (32, 32), "spacing": (3.0, 1.0, 1.0)}, True),
}


class Oracle(nn.Module):
    """What is 1 in the channel of a class is of that class."""

    roles = Roles(None, (), (), ("conv",))

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3, use_bias=False, name="conv")(images)


@functools.cache
def predictor(name: str, rank: int) -> Predictor:
    """Of the oracle, whose programs are compiled once for all files."""
    chosen, options, _ = GEOMETRIES[name]
    config = train.get_config("tiny").unlock()
    config.data.update(source_size=96, image_size=96, geometry=chosen, normalisation="none")
    depth = {name: (8, *options[name]) for name in ("multiple", "size") if name in options and rank == 3}
    config.data.geometry_options.update(options | depth)
    known = TrainedOn(CLASSES, 3, rank, Preparation(None, None, True, SEEN))
    variables = {"params": {"conv": {"kernel": 20 * np.eye(3, dtype=np.float32)}}}
    oracle = of_linen(Oracle(), variables, image_size=(96,) * rank)
    return Predictor(trained.of_config(config.lock(), (oracle,), known, name="the oracle"))


def annotated(seed, shape):
    """Labels `[D,H,W]` of two structures, a cavity half as wide as the plane, and its wall."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (1, 8, 8))
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    distance = np.hypot(*places)[None] + noise / np.abs(noise).max() / 8
    return np.select([distance < 0.5, distance < 0.85], [1, 2], 0).astype(np.uint8)


def stored(labels, spacing, codes):
    """Labels as a file with axes to the sides `codes` has them, and its affine, axes as `formats.read` gives them."""
    order = [ALONG[code] for code in codes]
    turned = np.transpose(labels, order)
    turned = np.flip(turned, [axis for axis, code in enumerate(codes) if code not in SEEN])
    affine = np.eye(4)
    affine[:3, :3] = np.array([SIDES[code] for code in codes], float).T * np.array(spacing)[order]
    affine[:3, 3] = 11.0, -5.0, 3.0
    return np.ascontiguousarray(turned), affine


@pytest.mark.parametrize(
    ("name", "rank"), [(name, rank) for name in GEOMETRIES for rank in (2, 3) if "all axes" not in name or rank == 3]
)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=SHAPES, spacing=SPACINGS, codes=ORIENTATIONS, seed=st.integers(0, 99))
def test_what_an_oracle_says_comes_back_to_its_voxels(tmp_path, name, rank, shape, spacing, codes, seed):
    labels, affine = stored(annotated(seed, shape), spacing, codes)
    channels = (labels[..., None] == np.arange(3)).astype(np.uint8)
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(channels.transpose(2, 1, 0, 3), affine @ BACKWARDS), path)

    asked = predictor(name, rank)
    loaded = inputs.load(path, asked.trained.trained_on, asked.inputs)
    prediction = asked.predict(loaded.stored, loaded.size, spacing=loaded.spacing)
    suffix, content = outputs.encode_mask(loaded.as_in_file(prediction.labels), path, loaded.picture)
    (tmp_path / f"mask{suffix}").write_bytes(content)

    mask = nibabel.load(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(mask.affine, nibabel.load(path).affine)
    found = np.asarray(mask.dataobj).transpose()
    assert geometry.orientation(affine) == codes
    if GEOMETRIES[name][2]:
        for k in (1, 2):
            assert 2 * np.sum((found == k) & (labels == k)) / (np.sum(found == k) + np.sum(labels == k)) > 0.98
    else:
        np.testing.assert_array_equal(found, labels)
