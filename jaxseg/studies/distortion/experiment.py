"""Segmentation distortion (Lennartz and Schultz 2023): what is trained and measured.

Several networks are trained on one domain, with other seeds, and for each an autoencoder of its bottleneck. All score
the same cases (`cases`), by the scores of `jaxseg.scores`.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.data import augment, pipeline
from jaxseg.metrics import overlap
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.results.stored import kept
from jaxseg.scores import compute, registry, vog
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK, ENSEMBLE
from jaxseg.scores.evidence import Asked, Evidence, Known
from jaxseg.studies.distortion.cases import ROLES, Cases, Gathered
from jaxseg.studies.distortion.settings import Settings
from jaxseg.training import autoencoders, runs

Measures = Mapping[str, np.ndarray]
_OF_NETWORK = registry.computable({AUTOENCODER, BOTTLENECK})
_OF_ENSEMBLE = tuple(score for score in registry.computable({ENSEMBLE}) if ENSEMBLE in score.needs)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What all networks and ensembles scored.

    Attributes:
      networks: per network, `of_network` of all cases, and VoG.
      ensembles: per ensemble, `of_ensemble`; none where there are too few networks for one.
      training: per network, what its best checkpoint and that of its autoencoder reached.
      examples: domain -> `images` `[h,w,C]`, `labels` and `classes` `[h,w]` of one case and the first network.
    """

    networks: tuple[Measures, ...]
    ensembles: tuple[Measures, ...]
    training: tuple[dict[str, Any], ...]
    examples: Mapping[str, Measures] = dataclasses.field(default_factory=dict)

    def of_networks(self, key: str) -> np.ndarray:
        """One of the measures of all M networks, `[M,N,...]`."""
        return np.stack([network[key] for network in self.networks])


def networks_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Where the networks are, each in a folder of its own below."""
    return workdir / "runs" / "networks"


def autoencoder_folder(workdir: pathlib.Path, number: int) -> pathlib.Path:
    """Where the autoencoder of a network is, and what both scored."""
    return workdir / "runs" / f"autoencoder_{number}"


def run_folders(settings: Settings, workdir: pathlib.Path) -> list[pathlib.Path]:
    """The folders of all training runs: of every network and of every autoencoder."""
    members = _members(settings, workdir)
    return [*(folder for _, folder in members), *(autoencoder_folder(workdir, i) for i in range(len(members)))]


def _members(settings: Settings, workdir: pathlib.Path) -> list[tuple[ml_collections.ConfigDict, pathlib.Path]]:
    """Config and folder of every network."""
    return runs.member_runs(settings.run, networks_folder(workdir))


def train_and_measure(settings: Settings, gathered: Gathered, workdir: pathlib.Path) -> Measured:
    """Every run of the study, trained and measured, or read back where that was done before."""
    splits = gathered.splits
    runs.train(settings.run, splits, networks_folder(workdir), keep_every=settings.evaluation.vog_every)
    members = _members(settings, workdir)
    for i, (member, folder) in enumerate(members):
        autoencoders.train(settings.of_autoencoder(folder, member.seed), splits, autoencoder_folder(workdir, i))
    measure_network = functools.partial(_of_network, settings, gathered, workdir)
    measure_ensemble = functools.partial(_of_ensemble, settings, gathered, workdir)
    networks = tuple(
        kept(
            autoencoder_folder(workdir, i) / "measures.npz",
            functools.partial(measure_network, i),
            wanted=[score.key for score in _OF_NETWORK],
        )
        for i in range(len(members))
    )
    ensembles = tuple(
        kept(
            workdir / "runs" / f"ensemble_{i}" / "measures.npz",
            functools.partial(measure_ensemble, i),
            wanted=[score.key for score in _OF_ENSEMBLE],
        )
        for i in range(len(members) // settings.evaluation.ensemble_size)
    )
    training = tuple(_training_record(settings, workdir, i) for i in range(len(members)))
    return Measured(networks, ensembles, training, _examples(settings, gathered, networks[0]["dice"], workdir))


def load(settings: Settings, splits: runs.Splits, workdir: pathlib.Path, number: int) -> tuple[Asked, Known]:
    """A network and its autoencoder, both at their best checkpoint."""
    member, place = _members(settings, workdir)[number]
    autoencoder, of_autoencoder, network, variables = autoencoders.load_best(
        settings.of_autoencoder(place, member.seed),
        autoencoder_folder(workdir, number),
        splits.num_classes,
        splits.open("train").num_channels,
    )
    asked = Asked(network, tuple(settings.evaluation.ability_layers), settings.layer, autoencoder)
    return asked, Known((variables,), of_autoencoder)


def _seen(settings: Settings, cases: pipeline.InMemory) -> tuple[compute.Batches, compute.View]:
    """Batches of cases, and the networks' view of them."""
    data, batch_size = settings.run.data, settings.run.training.batch_size
    view = augment.testing_view(data.view, size=data.image_size, cases=cases.cases)
    return pipeline.epoch(cases, batch_size=batch_size), view


def of_network(
    settings: Settings, asked: Asked, known: Known, train: pipeline.InMemory, scored: pipeline.InMemory
) -> dict[str, np.ndarray]:
    """All scores of one network that a forward pass gives, `[N]` by their keys, and its Dice.

    Returns:
      Also `dice` and `dice_after` `[N,K-1]` of the prediction as it is and with the bottleneck reconstructed.
    """
    known = compute.fit_bottleneck(asked, known, *_seen(settings, train))
    return compute.score_cases(asked, known, _OF_NETWORK, *_seen(settings, scored), further=_dice_before_and_after)


def _dice_before_and_after(evidence: Evidence, labels: jax.Array) -> dict[str, jax.Array]:
    after = jnp.argmax(evidence.logits_after, -1).astype(jnp.int32)
    reconstructed = overlap.dice(labels, after, num_classes=evidence.logits.shape[-1])
    return compute.dice(evidence, labels) | {"dice_after": reconstructed}


def of_ensemble(
    settings: Settings, network: nn.Module, members: Sequence[Any], scored: pipeline.InMemory
) -> dict[str, np.ndarray]:
    """All scores of an ensemble, `[N]` by their keys, and `dice` `[N,K-1]` of the highest mean probability."""
    return compute.score_cases(Asked(network, ()), Known(tuple(members)), _OF_ENSEMBLE, *_seen(settings, scored))


def _of_network(settings: Settings, gathered: Gathered, workdir: pathlib.Path, number: int) -> dict[str, np.ndarray]:
    splits, stored = gathered.splits, gathered.scored.stored
    asked, known = load(settings, splits, workdir, number)
    assert isinstance(asked.model, UNetSkeleton)  # as all networks that a config can name
    scored = of_network(settings, asked, known, splits["train"], stored)
    member, folder = _members(settings, workdir)[number]
    checkpoints = vog.checkpoints(settings.evaluation.vog_every, member, folder, splits, known.members[0])
    scored["vog"] = vog.variance_of_gradients(
        asked.model, checkpoints, stored, size=member.data.image_size, batch_size=member.training.batch_size
    )
    return scored


def _of_ensemble(settings: Settings, gathered: Gathered, workdir: pathlib.Path, number: int) -> dict[str, np.ndarray]:
    size, splits = settings.evaluation.ensemble_size, gathered.splits
    members = _members(settings, workdir)[number * size : (number + 1) * size]
    shape = (1, *(settings.run.data.image_size,) * 2, splits.open("train").num_channels)
    loaded = [runs.load_best(*member, shape, splits.num_classes) for member in members]
    return of_ensemble(settings, loaded[0][0], [variables for _, variables, _ in loaded], gathered.scored.stored)


def _training_record(settings: Settings, workdir: pathlib.Path, number: int) -> dict[str, Any]:
    member, place = _members(settings, workdir)[number]
    network, autoencoder = (
        json.loads((folder / "summary.json").read_bytes()) for folder in (place, autoencoder_folder(workdir, number))
    )
    selection = settings.run.training.selection
    return {
        "network": number,
        "seed": member.seed,
        "best_step": network["best_step"],
        "validation_score": network[f"best_validation_{selection}"],
        "autoencoder_best_step": autoencoder["best_step"],
        "autoencoder_validation_loss": autoencoder["best_validation_loss"],
        "convention": f"best of the in-distribution validation: {selection} of the network over the defined pairs of "
        "case and class, L_seg + L_mse of the autoencoder",
    }


def _examples(
    settings: Settings, gathered: Gathered, dice: np.ndarray, workdir: pathlib.Path
) -> dict[str, dict[str, np.ndarray]]:
    """What the first network makes of a typical case of every domain.

    Args:
      settings: of the study.
      gathered: all cases.
      dice: of the first network, `[N,K-1]`.
      workdir: of the study, all of whose runs are there.

    Returns:
      domain -> `images` `[h,w,C]`, `labels` and `classes` `[h,w]`.
    """
    cases = gathered.scored
    typical = typical_cases(cases, dice)

    def make() -> dict[str, np.ndarray]:
        asked, known = load(settings, gathered.splits, workdir, 0)
        chosen = cases.stored.take(np.array(list(typical.values())))
        shown = lambda evidence, labels: {"images": evidence.images, "labels": labels, "classes": evidence.classes}
        return compute.score_cases(asked, known, (), *_seen(settings, chosen), further=shown)

    seen = kept(workdir / "runs" / "examples" / "measures.npz", make)
    return {name: {key: values[i] for key, values in seen.items()} for i, name in enumerate(typical)}


def typical_cases(cases: Cases, dice: np.ndarray) -> dict[str, int]:
    """Of every domain the case with the median Dice `[N,K-1]`; none where no Dice is defined."""
    of_case = cases.case_dice(dice)
    typical = {}
    for name in (name for role in ROLES for name in cases.of_role(role)):
        defined = np.flatnonzero((cases.domains == name) & ~np.isnan(of_case))
        if len(defined):
            typical[name] = int(defined[np.argsort(of_case[defined], kind="stable")[len(defined) // 2]])
    return typical
