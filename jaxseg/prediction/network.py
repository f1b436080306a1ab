"""A trained network as a function: stored images in, class probabilities and quality estimates out."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg.data import augment, windows
from jaxseg.errors import InputError
from jaxseg.models.autoencoder import Autoencoder
from jaxseg.networks import Network, host
from jaxseg.networks.linen import LinenNetwork
from jaxseg.numerics import in_32_bits
from jaxseg.scores import registry
from jaxseg.scores.base import AUTOENCODER, LAYERS, Score
from jaxseg.scores.evidence import Asked, Evidence, Known
from jaxseg.training import autoencoders, checks, runs
from jaxseg.training.checkpoints import checksums
from jaxseg.training.trained import Trained


class Repair(NamedTuple):
    """An autoencoder of a run's network, for segmentation distortion.

    Attributes:
      module: the autoencoder.
      variables: of its best checkpoint.
      layer: whose activations it takes.
      checksum: of the variables.
    """

    module: Autoencoder
    variables: dict[str, Any]
    layer: str
    checksum: str


@in_32_bits
def load_repair(folder: pathlib.Path, trained: Trained) -> Repair:
    """The autoencoder in `folder`.

    Raises:
      InputError: there is none, or it was fitted to another network.
    """
    absent = "holds no autoencoder; make one with configs/autoencoder.py"
    config = runs.stored_config(folder, absent)
    checks.check_fields(config, sections=("", "data", "training"))
    if not {"network", "layer", "autoencoder"} <= set(config):
        raise InputError(f"{folder} {absent}")
    if config.replicas > 1 or len(trained.members) > 1:
        raise InputError(f"{folder}: an autoencoder belongs to one network; name single runs, not replicas")
    known = trained.trained_on
    module, variables, network = autoencoders.load_best(
        config, folder, len(known.class_names), known.num_channels, rank=known.rank
    )
    (own,) = trained.members
    if not isinstance(own, LinenNetwork) or checksums(network.variables) != checksums(own.variables):
        raise InputError(f"{folder}: was fitted to the network of {config.network}, not to that of {trained.name}")
    return Repair(module, variables, config.layer, f"{sum(checksums(variables).values()) % 2**32:08x}")


def quality_layers(network: Network) -> tuple[str, ...]:
    """The last two convolutional layers, whose units He et al. ask for the quality of an output (Eq. 12)."""
    return (network.roles.convolutions or network.layers)[-2:]


def scores_of(members: Sequence[Network], *, repair: Repair | None = None) -> tuple[Score, ...]:
    """Those of `scores.registry` that can be computed of what networks say of an image."""
    there = {AUTOENCODER} if repair else set()
    return registry.computable(there, without=() if quality_layers(members[0]) else {LAYERS})


def compiled(
    members: Sequence[Network], *, image_size: int | None, batch: int, repair: Repair | None = None
) -> windows.Network:
    """Networks as a function of stored images, for `windows`.

    Args:
      members: of any make; of several, the softmax probabilities are averaged.
      image_size: side of what it sees, to which images are resized as in training; None: they come as it sees them.
      batch: images at once; fewer are filled up, but one is not, so that two programs are compiled at most.
      repair: gives the score `distortion` too.

    Returns:
      `images [B,*n,C]`, B at most `batch`, and, unless all count, which pixels do -> probabilities float32
      `[B,*image_size,K]` and the scores `[B]` of `scores_of` by their keys.
    """

    asked = Asked(quality_layers(members[0]), *((repair.layer, repair.module) if repair else ()))
    known = Known(tuple(members), repair and repair.variables)
    scores = scores_of(members, repair=repair)

    @jax.jit
    def program(known: Known, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        seen = augment.whole(batch, size=image_size)
        evidence = Evidence(asked, known, seen["images"], valid=seen.get("valid"))
        return evidence.probabilities, {score.key: score.compute(evidence) for score in scores if score.compute}

    @in_32_bits
    def network(images: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, windows.Scores]:
        count = len(images)
        stored = {"image": images, "labels": np.zeros(images.shape[:-1], np.uint8)}
        stored |= {} if valid is None else {"valid": valid}
        if 1 < count < batch:
            fill = lambda array: np.concatenate([array, np.repeat(array[-1:], batch - count, 0)])
            stored = {name: fill(array) for name, array in stored.items()}
        with host.plainly():
            probabilities, values = program(known, stored)
        ordered = {score.key: np.asarray(values[score.key])[:count] for score in scores}  # jit sorts them
        return np.asarray(probabilities)[:count], ordered

    return network
