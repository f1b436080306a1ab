"""How difficult a case was in a training: the variance of gradients over the checkpoints that it left."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.analysis import vog
from jaxseg.data import augment, pipeline
from jaxseg.errors import InputError
from jaxseg.networks import Network
from jaxseg.networks.linen import LinenNetwork
from jaxseg.scores.base import CHECKPOINTS, Score
from jaxseg.training import runs

SCORE = Score(
    "vog",
    "VoG",
    "variance of the logits' gradients over the checkpoints of the training (Agarwal et al. 2022)",
    None,
    frozenset({CHECKPOINTS}),
)
Batch = Mapping[str, Any]


def check(every: int, training: ml_collections.ConfigDict) -> None:
    """Raises InputError when checkpoints every so many epochs, `config.evaluation.vog_every`, do not fit the training.

    Args:
      every: epochs between two checkpoints.
      training: section of that name of the run's config.
    """
    if every < 1 or every % max(training.evaluate_every, 1):
        raise InputError(
            f"config.evaluation.vog_every is {every}; it must be a multiple of training.evaluate_every "
            f"({training.evaluate_every}), as checkpoints follow validations"
        )
    if training.epochs < 2 * every:
        raise InputError(
            f"config.evaluation.vog_every is {every} of {training.epochs} epochs; a variance needs two checkpoints"
        )


def checkpoints(
    every: int, run: ml_collections.ConfigDict, folder: pathlib.Path, splits: runs.Splits, network: LinenNetwork
) -> list[LinenNetwork]:
    """The checkpoints of a run that was trained to keep them.

    Args:
      every: epochs between two checkpoints.
      run: config of the run.
      folder: of the run.
      splits: its stored cases.
      network: of the run, at any checkpoint.
    """
    steps = every * runs.Data(run, splits).steps_per_epoch
    kept = runs.restore_kept(folder, network.variables, every=steps).values()
    return [dataclasses.replace(network, variables=variables) for variables in kept]


def variance_of_gradients(
    checkpoints: Sequence[Network], source: pipeline.Source, *, size: int | None, batch_size: int
) -> np.ndarray:
    """Variance of gradients over a training's checkpoints, `[N]`; the gradient is of each one's predicted classes.

    All checkpoints are in memory at once, so that of the images nothing is. NaN with fewer than two.

    Args:
      checkpoints: the network in the course of its training.
      source: the cases.
      size: n, to which images are resized for the network; None: they come as it sees them.
      batch_size: cases at once.
    """

    def run(batch: Batch) -> dict[str, jax.Array]:
        seen = _seen(batch, size)
        images, valid = seen["images"], seen.get("valid")
        state = vog.init(images.shape[:-1])
        for network in checkpoints:
            state = _variance_step(**network.compiler_options)(network, state, images, valid)
        return {"vog": _score(state, valid=valid)}

    return inference.over_cases(run, pipeline.epoch(source, batch_size=batch_size))["vog"]


def _seen(batch: Batch, size: int | None) -> dict[str, jax.Array]:
    return _view(size)({name: batch[name] for name in ("image", "labels", "valid", "index") if name in batch})


_score = jax.jit(vog.compute)


@functools.cache
def _view(size: int | None) -> Callable[[Batch], dict[str, jax.Array]]:
    def view(batch: Batch) -> dict[str, jax.Array]:
        return {name: array for name, array in augment.whole(batch, size=size).items() if name != "labels"}

    return jax.jit(view)


@functools.cache
def _variance_step(**compiler_options: str) -> Callable[..., vog.GradientStatistics]:
    def run(
        network: Network, state: vog.GradientStatistics, images: jax.Array, valid: jax.Array | None
    ) -> vog.GradientStatistics:
        return vog.update(state, vog.input_gradients(network.logits, images, valid=valid))

    return jax.jit(run, compiler_options=compiler_options or None)
