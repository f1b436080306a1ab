"""Pruned skip connections (Wilm et al. 2024): what is trained and measured.

One network per encoder and number of removed skips, counted from the top; each is trained once per fold, and every
fold's network is tested on the same held-out cases under several conditions:

  group                            condition
  in-domain                        the test cases of the domain that was trained on, as they are
  brightness, contrast, saturation the same cases, shifted by every strength
  domain                           the cases of every other domain, whose patients no network has seen

IoU is that of pixels accumulated over the set (section V), per fold and their mean, and the mean over cases. Intervals
are over patients, with the trained networks as they are: patients are resampled within the domains that they occur in,
the same ones for everything, so that differences are paired. Over folds the range is given.
"""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, inputs
from jaxseg.metrics import overlap
from jaxseg.networks import Network as AnyNetwork
from jaxseg.studies import base
from jaxseg.studies.base import Data, Measures, open_splits
from jaxseg.studies.skip_pruning import distances
from jaxseg.studies.skip_pruning.conditions import Condition, Shifter, conditions, example_cases
from jaxseg.studies.skip_pruning.iou import class_numbers
from jaxseg.studies.skip_pruning.settings import Network, Settings
from jaxseg.training import runs


class Cases(NamedTuple):
    """What networks are trained on, and under which conditions they are tested."""

    splits: runs.Splits
    tested: tuple[Condition, ...]


def gather(settings: Settings, data: Data) -> Cases:
    """The cases of the study's data set; raises InputError as `conditions`, or where a class is unknown."""
    directory, splits = open_splits(settings.of_run(settings.networks[0]), data)
    tested = conditions(settings, splits, runs.Splits(directory, inputs.of_config(settings.run)))
    class_numbers(settings.evaluation.classes, tested[0].cases.class_names)  # says which is unknown
    return Cases(splits, tested)


class Example(NamedTuple):
    """A case of a condition that is shown."""

    name: str  # of condition and case
    image: np.ndarray  # as a network sees it, uint8 `[n,n,C]`
    labels: np.ndarray  # `[n,n]`


class Measured(NamedTuple):
    """What the study measures."""

    of_networks: Mapping[Network, Measures]  # as of `measure`
    examples: Sequence[Example]  # one for each of `example_cases`


def run_folder(workdir: pathlib.Path, network: Network) -> pathlib.Path:
    """Where a run of the study keeps its replicas and measures."""
    return workdir / "runs" / f"{network.encoder}_L{network.pruned}"


def train_and_measure(settings: Settings, cases: Cases, workdir: pathlib.Path) -> Measured:
    """Every network of the study, trained and measured, or read back where that was done before."""
    shifter = Shifter(settings.run.training.batch_size)
    of_run = lambda run, folder: measure(settings, run, folder, cases.tested, shifter)
    measured = base.train_and_measure(settings, workdir, lambda _: cases.splits, of_run, folder_of=run_folder)
    return Measured(measured, examples(settings.run.data.image_size, cases.tested))


def measure(
    settings: Settings,
    run: ml_collections.ConfigDict,
    folder: pathlib.Path,
    tested: Sequence[Condition],
    shifter: Shifter,
) -> dict[str, np.ndarray]:
    """The best checkpoints of all F replicas of a run under every condition.

    Returns:
      `counts` int32 `[F,M,K,3]`, as of `overlap.class_counts`, of the cases of all conditions one after the other;
      `examples` uint8 `[E,n,n]`, what the first replica predicts for `example_cases`; what `distances.measure` gives;
      `step` and `validation_miou` `[F]` of the checkpoints.
    """
    test = tested[0].cases
    loaded = [
        runs.best_network(member, place, test.images.shape, test.num_classes)
        for member, place in runs.member_runs(run, folder)
    ]
    members = [network for network, _ in loaded]
    model: Any = members[0].model
    view = augment.testing_view("original", size=run.data.image_size, cases=())
    counts = inference.score_cases(
        members,
        itertools.chain.from_iterable(map(shifter.batches, tested)),
        view,
        lambda labels, predictions, valid=None: {
            "counts": _member_counts(labels, predictions, test.num_classes, valid=valid)
        },
        predict=_predict_members,
    )["counts"]
    shown = inference.score_cases(
        members[0],
        itertools.chain.from_iterable(map(shifter.batches, example_cases(tested))),
        view,
        lambda _, predictions, **valid: {"predictions": predictions.astype(jnp.uint8)},
    )["predictions"]
    measures = {name: np.array([best[name] for _, best in loaded]) for name in loaded[0][1]}
    # laid out as a file gives them back: sums over another layout round differently
    measures |= {"counts": np.ascontiguousarray(np.moveaxis(counts, 1, 0)), "examples": shown}
    return measures | distances.measure(settings, model, [one.variables for one in members], tested, shifter)


def _predict_members(members: Sequence[AnyNetwork], images: jax.Array) -> jax.Array:
    return jnp.stack([inference.predict(network, images) for network in members], 1)


def _member_counts(
    labels: jax.Array, predictions: jax.Array, num_classes: int, *, valid: jax.Array | None = None
) -> jax.Array:
    """Counts `[B,F,K,3]` of labels `[B,n,n]` and predictions `[B,F,n,n]`."""
    count = lambda predicted: overlap.class_counts(labels, predicted, num_classes=num_classes, valid=valid)
    return jnp.stack([count(predictions[:, i]) for i in range(predictions.shape[1])], 1)


def examples(size: int, tested: Sequence[Condition]) -> list[Example]:
    """The cases that are shown, at the size of the networks' images."""
    shifter, shown = Shifter(1), []
    for condition in example_cases(tested):
        (batch,) = shifter.batches(condition)
        seen = augment.whole(batch, size=size)
        name = f"{condition.name}: {condition.cases.cases[0]}"
        shown.append(Example(name, np.asarray(augment.levels(seen["images"])[0]), np.asarray(seen["labels"][0])))
    return shown
