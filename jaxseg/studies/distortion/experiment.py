"""Segmentation distortion (Lennartz and Schultz 2023): what is trained and measured.

Several networks are trained on one domain, with other seeds, and for each an autoencoder of its bottleneck. All score
the same cases (`cases`) by the scores of `jaxseg.scores`.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.data import augment, pipeline
from jaxseg.data.normalisation import Scale
from jaxseg.metrics import overlap
from jaxseg.networks.linen import LinenNetwork
from jaxseg.results.stored import kept
from jaxseg.scores import compute, registry, vog
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK, ENSEMBLE
from jaxseg.scores.evidence import Asked, Evidence, Known
from jaxseg.studies.base import Measures, at_even_quantiles
from jaxseg.studies.distortion.cases import ROLES, Cases, Gathered
from jaxseg.studies.distortion.settings import Settings
from jaxseg.training import autoencoders, runs

_OF_NETWORK = registry.computable({AUTOENCODER, BOTTLENECK})
_OF_ENSEMBLE = tuple(score for score in registry.computable({ENSEMBLE}) if ENSEMBLE in score.needs)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What all networks and ensembles scored."""

    networks: tuple[Measures, ...]  # per network, `of_network` of all cases, and VoG
    ensembles: tuple[Measures, ...]  # per ensemble, `of_ensemble`; none where there are too few networks for one
    training: tuple[dict[str, Any], ...]  # per network, what its best checkpoint and that of its autoencoder reached
    # domain -> `images` `[h,w,C]`, `labels` and `classes` `[h,w]` of a case and the first network
    examples: Mapping[str, Measures] = dataclasses.field(default_factory=dict)

    def of_networks(self, key: str) -> np.ndarray:
        """One of the measures of all M networks, `[M,N,...]`."""
        return np.stack([network[key] for network in self.networks])


class Network(NamedTuple):
    """A network by its `number` from 0, with config and folder of its run and the folder of its autoencoder's.

    The latter also holds what both scored.
    """

    number: int
    run: ml_collections.ConfigDict
    folder: pathlib.Path
    autoencoder: pathlib.Path


def networks(settings: Settings, workdir: pathlib.Path) -> list[Network]:
    """All networks of the study."""
    members = runs.member_runs(settings.run, _networks_folder(workdir))
    return [Network(i, *member, workdir / "runs" / f"autoencoder_{i}") for i, member in enumerate(members)]


def run_folders(settings: Settings, workdir: pathlib.Path) -> list[pathlib.Path]:
    """The folders of all training runs: of every network and of every autoencoder."""
    of_all = networks(settings, workdir)
    return [*(network.folder for network in of_all), *(network.autoencoder for network in of_all)]


def _networks_folder(workdir: pathlib.Path) -> pathlib.Path:
    return workdir / "runs" / "networks"


def train_and_measure(settings: Settings, gathered: Gathered, workdir: pathlib.Path) -> Measured:
    """Every run of the study, trained and measured, or read back where that was done before."""
    splits, of_all = gathered.splits, networks(settings, workdir)
    runs.train(settings.run, splits, _networks_folder(workdir), keep_every=settings.evaluation.vog_every)
    for network in of_all:
        autoencoders.train(settings.of_autoencoder(network.folder, network.run.seed), splits, network.autoencoder)
    stored = lambda folder, make, of, wanted=(): kept(
        folder / "measures.npz", functools.partial(make, settings, gathered, *of), wanted=[one.key for one in wanted]
    )
    of_networks = tuple(stored(one.autoencoder, _of_network, (one,), _OF_NETWORK) for one in of_all)
    size, runs_folder = settings.evaluation.ensemble_size, workdir / "runs"
    of_ensembles = tuple(
        stored(runs_folder / f"ensemble_{i}", _of_ensemble, (of_all[i * size : (i + 1) * size],), _OF_ENSEMBLE)
        for i in range(len(of_all) // size)
    )
    typical = typical_cases(gathered.scored, of_networks[0]["dice"])
    examples = stored(runs_folder / "examples", _examples, (of_all[0], list(typical.values())))
    return Measured(
        of_networks,
        of_ensembles,
        training=tuple(_training_record(settings, network) for network in of_all),
        examples={name: {key: values[i] for key, values in examples.items()} for i, name in enumerate(typical)},
    )


def load(settings: Settings, splits: runs.Splits, network: Network) -> tuple[Asked, Known]:
    """A network and its autoencoder, both at their best checkpoint."""
    run = settings.of_autoencoder(network.folder, network.run.seed)
    channels = splits.open("train").num_channels
    loaded = autoencoders.load_best(run, network.autoencoder, splits.num_classes, channels)
    autoencoder, weights, of_run = loaded
    layers = tuple(settings.evaluation.ability_layers)
    return Asked(layers, settings.layer, autoencoder), Known((of_run,), weights)


def _seen(settings: Settings, cases: pipeline.InMemory) -> tuple[compute.Batches, compute.View]:
    """Batches of cases, and the networks' view of them."""
    data, batch_size = settings.run.data, settings.run.training.batch_size
    view = augment.testing_view(data.view, size=data.image_size, cases=cases.cases)
    return pipeline.epoch(cases, batch_size=batch_size), view


def of_network(
    settings: Settings, asked: Asked, known: Known, train: pipeline.InMemory, scored: pipeline.InMemory
) -> dict[str, np.ndarray]:
    """All scores of one network that a forward pass gives, `[N]` by their keys.

    Also `dice` and `dice_after` `[N,K-1]`, of the prediction as it is and with the bottleneck reconstructed.
    """
    known = compute.fit_bottleneck(asked, known, *_seen(settings, train))
    return compute.score_cases(asked, known, _OF_NETWORK, *_seen(settings, scored), further=_dice_before_and_after)


def _dice_before_and_after(evidence: Evidence, labels: jax.Array) -> dict[str, jax.Array]:
    after = jnp.argmax(evidence.logits_after, -1).astype(jnp.int32)
    reconstructed = overlap.dice(labels, after, num_classes=evidence.logits.shape[-1], valid=evidence.valid)
    return compute.dice(evidence, labels) | {"dice_after": reconstructed}


def of_ensemble(
    settings: Settings, members: Sequence[LinenNetwork], scored: pipeline.InMemory
) -> dict[str, np.ndarray]:
    """All scores of an ensemble, `[N]` by their keys, and `dice` `[N,K-1]` of the highest mean probability."""
    return compute.score_cases(Asked(()), Known(tuple(members)), _OF_ENSEMBLE, *_seen(settings, scored))


def _of_network(settings: Settings, gathered: Gathered, network: Network) -> dict[str, np.ndarray]:
    splits, stored, run = gathered.splits, gathered.scored.stored, network.run
    asked, known = load(settings, splits, network)
    (of_run,) = known.members
    assert isinstance(of_run, LinenNetwork)
    scored = of_network(settings, asked, known, splits["train"], stored)
    checkpoints = vog.checkpoints(settings.evaluation.vog_every, run, network.folder, splits, of_run)
    scored["vog"] = vog.variance_of_gradients(
        checkpoints, stored, size=run.data.image_size, batch_size=run.training.batch_size
    )
    return scored


def _of_ensemble(settings: Settings, gathered: Gathered, members: Sequence[Network]) -> dict[str, np.ndarray]:
    splits = gathered.splits
    shape = (1, *(settings.run.data.image_size,) * 2, splits.open("train").num_channels)
    loaded = [runs.best_network(member.run, member.folder, shape, splits.num_classes)[0] for member in members]
    return of_ensemble(settings, loaded, gathered.scored.stored)


def _examples(settings: Settings, gathered: Gathered, network: Network, chosen: Sequence[int]) -> dict[str, np.ndarray]:
    asked, known = load(settings, gathered.splits, network)
    shown = lambda evidence, labels: {"images": evidence.images, "labels": labels, "classes": evidence.classes}
    cases = gathered.scored.stored.take(np.array(chosen))
    examples = compute.score_cases(asked, known, (), *_seen(settings, cases), further=shown)
    if cases.scales is not None:  # black is -1 in figures, and white 1
        pairs = zip(examples["images"], cases.scales, strict=True)
        examples["images"] = np.stack([Scale(*scale).levels(image) / np.float32(127.5) - 1 for image, scale in pairs])
    return examples


def _training_record(settings: Settings, network: Network) -> dict[str, Any]:
    summary = lambda folder: json.loads((folder / "summary.json").read_bytes())
    of_network, of_autoencoder = summary(network.folder), summary(network.autoencoder)
    selection = settings.run.training.selection
    best = {"best_step": of_network["best_step"], "validation_score": of_network[f"best_validation_{selection}"]}
    step, loss = of_autoencoder["best_step"], of_autoencoder["best_validation_loss"]
    best |= {"autoencoder_best_step": step, "autoencoder_validation_loss": loss}
    convention = (
        f"best of the in-distribution validation: {selection} of the network over the defined pairs of case and class, "
        "L_seg + L_mse of the autoencoder"
    )
    return {"network": network.number, "seed": network.run.seed, **best, "convention": convention}


def typical_cases(cases: Cases, dice: np.ndarray) -> dict[str, int]:
    """Of every domain the case with the median Dice `[N,K-1]`; none where no Dice is defined."""
    of_case = cases.case_dice(dice)
    median = lambda domain: at_even_quantiles(np.where(cases.domains == domain, of_case, np.nan), 1)
    return {name: case for role in ROLES for name in cases.of_role(role) for case in median(name)}
