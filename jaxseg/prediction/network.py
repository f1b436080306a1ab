"""A run's best checkpoint as a function: stored images in, class probabilities and quality estimates out."""

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from jaxseg.data import augment, inputs, pipeline, windows
from jaxseg.errors import InputError
from jaxseg.models.autoencoder import Autoencoder
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.numerics import in_32_bits
from jaxseg.scores import registry
from jaxseg.scores.base import AUTOENCODER
from jaxseg.scores.evidence import Asked, Evidence, Known
from jaxseg.training import autoencoders, checks, contract, runs
from jaxseg.training.checkpoints import checksums
from jaxseg.training.contract import TrainedOn


class Run(NamedTuple):
    """A trained network.

    Attributes:
      config: of the run.
      folder: of the run.
      trained_on: what it takes and gives.
      model: the network.
      members: variables of its best checkpoint; of replicas, those of each, which are one ensemble.
      steps: of these checkpoints.
    """

    config: ml_collections.ConfigDict
    folder: pathlib.Path
    trained_on: TrainedOn
    model: UNetSkeleton
    members: tuple[dict[str, Any], ...]
    steps: tuple[int, ...]


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
def load_run(
    folder: pathlib.Path, prepare: Callable[[str], pathlib.Path], *, instead: tuple[pathlib.Path, str] | None = None
) -> Run:
    """The network of the best checkpoint of a run, or of all its replicas.

    What it takes and gives is read from its data set once and then kept in the run's folder, so that the run can be
    used where the data set is not.

    Args:
      folder: of the run.
      prepare: name of a data set -> its prepared folder; called if need be.
      instead: folder of a prepared data set, and its split, which the network is assumed to match where neither its
        folder nor `prepare` knows its own.

    Raises:
      InputError: there is no run or no checkpoint in the folder, or the data set is not there.
    """
    config = runs.read_config(folder)
    if config.replicas > 1 and config.vary == "fold":
        raise InputError(f"{folder}: its replicas share no validation cases; name one, as {folder / 'replica_0'}")
    trained_on = _trained_on(config, folder, prepare, instead)
    shape = (1, *inputs.sides(config, trained_on.rank), trained_on.num_channels)
    loaded = [
        runs.load_best(member, place, shape, len(trained_on.class_names))
        for member, place in runs.member_runs(config, folder)
    ]
    members, steps = tuple(variables for _, variables, _ in loaded), tuple(int(v["step"]) for *_, v in loaded)
    return Run(config, folder, trained_on, loaded[0][0], members, steps)


def _trained_on(
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    prepare: Callable[[str], pathlib.Path],
    instead: tuple[pathlib.Path, str] | None,
) -> TrainedOn:
    try:
        known = contract.of_run(config, folder, prepare)
        assert known is not None  # `prepare` raises
        return known
    except InputError:
        if instead is None:
            raise
        print(f"{folder}: what it was trained on is not known, so {instead[0]} is assumed to match", file=sys.stderr)
        return contract.of_split(pipeline.Split(*instead))


@in_32_bits
def load_repair(folder: pathlib.Path, run: Run) -> Repair:
    """The autoencoder in `folder`.

    Raises:
      InputError: there is none, or it was fitted to another network.
    """
    absent = "holds no autoencoder; make one with configs/autoencoder.py"
    config = runs.stored_config(folder, absent)
    checks.check_fields(config, sections=("", "data", "training"))
    if not {"network", "layer", "autoencoder"} <= set(config):
        raise InputError(f"{folder} {absent}")
    if config.replicas > 1 or len(run.members) > 1:
        raise InputError(f"{folder}: an autoencoder belongs to one network; name single runs, not replicas")
    known = run.trained_on
    module, variables, _, frozen = autoencoders.load_best(
        config, folder, len(known.class_names), known.num_channels, rank=known.rank
    )
    if checksums(frozen) != checksums(run.members[0]):
        raise InputError(f"{folder}: was fitted to the network of {config.network}, not to that of {run.folder}")
    return Repair(module, variables, config.layer, f"{sum(checksums(variables).values()) % 2**32:08x}")


def quality_layers(model: UNetSkeleton) -> tuple[str, ...]:
    """The last two convolutional layers, whose units He et al. ask for the quality of an output (Eq. 12)."""
    return model.roles.convolutions[-2:]


def compiled(
    model: UNetSkeleton,
    members: Sequence[Mapping[str, Any]],
    *,
    image_size: int | None,
    batch: int,
    repair: Repair | None = None,
) -> windows.Network:
    """The network as a function of stored images, for `windows`.

    Args:
      model: `images -> logits`.
      members: variables; of several, the softmax probabilities are averaged.
      image_size: side of what it sees, to which images are resized as in training; None: they come as it sees them.
      batch: images at once; fewer are filled up, but one is not, so that two programs are compiled at most.
      repair: gives the score `distortion` too.

    Returns:
      `images [B,*n,C]`, B at most `batch`, and, unless all count, which pixels do -> probabilities float32
      `[B,*image_size,K]` and the scores `[B]` of `scores.registry` that need no more than this, by their keys.
    """

    asked = Asked(model, quality_layers(model), *((repair.layer, repair.module) if repair else ()))
    known = Known(tuple(members), repair and repair.variables)
    scores = registry.computable({AUTOENCODER} if repair else ())

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
        probabilities, values = program(known, stored)
        ordered = {score.key: np.asarray(values[score.key])[:count] for score in scores}  # jit sorts them
        return np.asarray(probabilities)[:count], ordered

    return network
