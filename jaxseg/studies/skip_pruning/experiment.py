"""Pruned skip connections (Wilm et al. 2024): which runs, which numbers.

One network per encoder and number of removed skips, counted from the top; each is trained once per fold, and every
fold's network is tested on the same held-out cases under several conditions:

  group                            condition
  in-domain                        the test cases of the domain that was trained on, as they are
  brightness, contrast, saturation the same cases, shifted by every strength
  domain                           the cases of every other domain, whose patients no network has seen

IoU is that of pixels accumulated over the set (section V), a number per fold and their mean; beside it stands the mean
over cases. Intervals are over patients, with the trained networks as they are: patients are drawn within the domains
that they occur in, the same ones for everything, so that differences are paired. Over folds the range is given.
"""

import functools
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, shifts
from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.models.resnet_unet import ENCODERS
from jaxseg.models.skeleton import Roles
from jaxseg.results.stored import kept
from jaxseg.studies.skip_pruning import distances
from jaxseg.studies.skip_pruning.conditions import Condition, Shifter, example_cases
from jaxseg.training import checks, runs

Measures = Mapping[str, np.ndarray]


class Cases(NamedTuple):
    """What networks are trained on, and under which conditions they are tested."""

    splits: runs.Splits
    tested: tuple[Condition, ...]


class Network(NamedTuple):
    """A network of the study.

    Attributes:
      encoder: its encoder, or the network's name where it has but one.
      pruned: how many of the top skips it lacks.
    """

    encoder: str
    pruned: int

    @property
    def architecture(self) -> str:
        """As the paper names it."""
        return architecture(self.pruned)


def architecture(pruned: int) -> str:
    """The paper's name of a network without the top skips."""
    return f"L{pruned}-pruned" if pruned else "baseline"


def check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config; raises InputError, before anything is computed, when a field of the study cannot work."""
    if config.get("study") != "skip_pruning":
        raise InputError("the config is not this study's; give configs/skip_pruning.py, or use launch.train")
    for name in ("encoders", "pruned", "shifts", "data", "model", "training", "evaluation"):
        if name not in config:
            raise InputError(f"config.{name} is missing; configs/skip_pruning.py shows every field")
    if config.encoders and config.model.name != "resnet_unet":
        raise InputError(f"config.encoders are for resnet_unet, config.model.name is {config.model.name!r}; leave none")
    if len(set(config.encoders)) < len(config.encoders) or set(config.encoders) - set(ENCODERS):
        raise InputError(f"config.encoders is {config.encoders!r}; give some of {', '.join(ENCODERS)}, each once")
    _check_pruned(config)
    for name, strengths in config.shifts.items():
        for strength in strengths:
            shifts.check_shift(name, strength)
        if len(set(strengths)) < len(strengths) or shifts.SHIFTS[name].draws:
            raise InputError(
                f"config.shifts.{name} is {strengths!r}; give each strength once, of a shift without chance"
            )
    if not config.shifts and not config.data.domains:
        raise InputError("there is no shift: fill config.shifts, or name in config.data.domains what is trained on")
    for network in networks(config):
        checks.check(run_config(config, network))
    _check_evaluation(config)
    return config


def _check_pruned(config: ml_collections.ConfigDict) -> None:
    pruned, levels = config.pruned, len(config.model.skips)
    if not {0, 1} <= set(pruned) or list(pruned) != sorted(set(pruned)) or pruned[-1] > levels:
        raise InputError(
            f"config.pruned is {pruned!r}; give rising numbers of removed skips, up to {levels}, with 0 (the baseline) "
            "and 1 among them"
        )


def _check_evaluation(config: ml_collections.ConfigDict) -> None:
    evaluation = config.evaluation
    for name in ("bins", "halvings", "distance_resamples", "resamples"):
        if evaluation[name] < 1:
            raise InputError(f"config.evaluation.{name} is {evaluation[name]}; it must be at least 1")
    name, strength = evaluation.distance_shift, evaluation.distance_strength
    if config.shifts and strength not in config.shifts.get(name, ()):
        raise InputError(
            f"config.evaluation.distance_shift {name!r} with distance_strength {strength} is none of config.shifts; "
            "the distance is taken of one that is tested"
        )


def networks(config: ml_collections.ConfigDict) -> tuple[Network, ...]:
    """All networks of the study, by encoder."""
    encoders = config.encoders or (config.model.name,)
    return tuple(Network(encoder, pruned) for encoder in encoders for pruned in config.pruned)


def run_config(config: ml_collections.ConfigDict, network: Network) -> ml_collections.ConfigDict:
    """The config of the run that trains a network, with a replica per fold."""
    run = ml_collections.ConfigDict(checks.run_fields(config))
    if config.encoders:
        run.model.encoder = network.encoder
    run.model.skips = (False,) * network.pruned + (True,) * (len(run.model.skips) - network.pruned)
    return run.lock()


def roles(config: ml_collections.ConfigDict, network: Network) -> Roles:
    """What the layers of a network are."""
    return checks.build_model(run_config(config, network), 2).roles


def run_folder(workdir: pathlib.Path, network: Network) -> pathlib.Path:
    """Where a run of the study keeps its replicas and measures."""
    return workdir / "runs" / f"{network.encoder}_L{network.pruned}"


# ------------------------------------------------------------------------------------------------------------ measures


def train_and_measure(
    config: ml_collections.ConfigDict, splits: runs.Splits, tested: Sequence[Condition], workdir: pathlib.Path
) -> dict[Network, dict[str, np.ndarray]]:
    """Every network of the study, trained and measured, or read back where that was done before."""
    measured = {}
    shifter = Shifter(config.training.batch_size)
    for network in networks(config):
        run, folder = run_config(config, network), run_folder(workdir, network)
        runs.train(run, splits, folder)
        make = functools.partial(measure, config, run, folder, tested, shifter)
        measured[network] = kept(folder / "measures.npz", make)
    return measured


def measure(
    config: ml_collections.ConfigDict,
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
    members = [
        runs.load_best(member, place, test.images.shape, test.num_classes)
        for member, place in runs.member_runs(run, folder)
    ]
    model, variables = members[0][0], [values for _, values, _ in members]
    view = augment.testing_view("original", size=run.data.image_size, cases=())
    counts = inference.score_cases(
        model,
        variables,
        itertools.chain.from_iterable(map(shifter.batches, tested)),
        view,
        lambda labels, predictions: {"counts": _member_counts(labels, predictions, test.num_classes)},
        predict=_predict_members,
    )["counts"]
    shown = inference.score_cases(
        model,
        variables[0],
        itertools.chain.from_iterable(map(shifter.batches, example_cases(tested))),
        view,
        lambda _, predictions: {"predictions": predictions.astype(jnp.uint8)},
    )["predictions"]
    measures = {name: np.array([best[name] for *_, best in members]) for name in members[0][2]}
    # laid out as a file gives them back: sums over another layout round differently
    measures |= {"counts": np.ascontiguousarray(np.moveaxis(counts, 1, 0)), "examples": shown}
    return measures | distances.measure(config, model, variables, tested, shifter)


def _predict_members(model: Any, members: Sequence[Any], images: jax.Array) -> jax.Array:
    return jnp.stack([inference.predict(model, variables, images) for variables in members], 1)


def _member_counts(labels: jax.Array, predictions: jax.Array, num_classes: int) -> jax.Array:
    """Counts `[B,F,K,3]` of labels `[B,n,n]` and predictions `[B,F,n,n]`."""
    count = lambda predicted: overlap.class_counts(labels, predicted, num_classes=num_classes)
    return jnp.stack([count(predictions[:, i]) for i in range(predictions.shape[1])], 1)


def seen_examples(
    config: ml_collections.ConfigDict, examples: Sequence[Condition]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What a network sees of each example, uint8 `[n,n,C]`, and its labels `[n,n]`."""
    shifter, found = Shifter(1), []
    for condition in examples:
        (batch,) = shifter.batches(condition)
        seen = augment.whole(batch, size=config.data.image_size)
        found.append((np.asarray(augment.levels(seen["images"])[0]), np.asarray(seen["labels"][0])))
    return found
