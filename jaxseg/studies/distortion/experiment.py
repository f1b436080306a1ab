"""Segmentation distortion (Lennartz and Schultz 2023): which runs, on which cases.

Several networks are trained on one domain, with other seeds, and for each an autoencoder of its bottleneck. All score
the same cases, each of which has a role:

  validation   in-domain, chose the checkpoints; sets the threshold of detection
  test         in-domain, if the data set has such a split
  shifted      of other domains: scanners, sites, another data set

`scores.cases` has the scores of a case, `tables` the numbers and the verdict.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from jaxseg.data import builders, pipeline
from jaxseg.errors import InputError
from jaxseg.models import capture, tracing
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.results.stored import kept
from jaxseg.scores import cases as distortion_scores
from jaxseg.scores import vog as difficulty
from jaxseg.training import autoencoders, checks, runs

UNITS = ("slice", "subject")
MATCHINGS = ("name", "order")
_SECTIONS = ("data", "model", "training", "shifted", "autoencoder", "autoencoder_training", "evaluation")

# --------------------------------------------------------------------------------------------------------------- config


def check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config; raises InputError, before anything is computed, when a field of the study cannot work."""
    if config.get("study") != "distortion":
        raise InputError("the config is not a study's; give configs/distortion.py, or use launch.train")
    for name in (*_SECTIONS, "layer"):
        if name not in config:
            raise InputError(f"config.{name} is missing; configs/distortion.py shows every field")
    network = network_config(config)
    checks.check(network)
    checks.check_common(autoencoder_config(config, pathlib.Path(), network.seed))
    for name, value, wanted in (
        ("data.view", config.data.view, "original"),
        ("data.folds", config.data.folds, 0),
        ("vary", config.vary, "seed"),
    ):
        if value != wanted:
            raise InputError(f"config.{name} is {value!r}; the study is of {wanted!r} alone")
    _check_shifted(config)
    _check_evaluation(config)
    _check_layers(config)
    return config


def _check_shifted(config: ml_collections.ConfigDict) -> None:
    shifted = config.shifted
    if not shifted.dataset and not config.data.domains:
        raise InputError(
            "config.data.domains is empty, so all domains are trained on and none is foreign; name those to train on, "
            "or another data set in config.shifted.dataset"
        )
    if shifted.classes not in MATCHINGS:
        raise InputError(f"config.shifted.classes is {shifted.classes!r}; choose one of {', '.join(MATCHINGS)}")
    if not shifted.splits:
        raise InputError("config.shifted.splits is empty; name the splits whose cases are tested, such as ('test',)")
    if shifted.domain_words < 0:
        raise InputError(f"config.shifted.domain_words is {shifted.domain_words}; it must be at least 0")


def _check_evaluation(config: ml_collections.ConfigDict) -> None:
    evaluation = config.evaluation
    if evaluation.unit not in UNITS:
        raise InputError(f"config.evaluation.unit is {evaluation.unit!r}; choose one of {', '.join(UNITS)}")
    for name, least in (("ensemble_size", 2), ("least_patients", 2), ("resamples", 1)):
        if evaluation[name] < least:
            raise InputError(f"config.evaluation.{name} is {evaluation[name]}; it must be at least {least}")
    if not 0 < evaluation.keep <= 1:
        raise InputError(f"config.evaluation.keep is {evaluation.keep}; it must lie above 0 and be at most 1")
    difficulty.check(config)


def _check_layers(config: ml_collections.ConfigDict) -> None:
    model, size = checks.build_model(config, 2), config.data.image_size
    image: Any = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)  # layers are named alike for any channels
    variables = tracing.variable_shapes(model, image.shape)
    known = capture.layer_names(model, variables, image)
    for field, layers in (("layer", (config.layer,)), ("evaluation.ability_layers", config.evaluation.ability_layers)):
        unknown = [layer for layer in layers if layer not in known]
        if unknown or not layers:
            raise InputError(f"config.{field} names no layer {unknown[:1]}; the network has {', '.join(known)}")


def network_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config of the networks, as replicas with other seeds."""
    return ml_collections.ConfigDict(checks.run_fields(config)).lock()


def autoencoder_config(
    config: ml_collections.ConfigDict, network: pathlib.Path, seed: int
) -> ml_collections.ConfigDict:
    """The config of the autoencoder of the network in the folder `network`."""
    fields = checks.run_fields(config)
    del fields["model"]
    fields |= {"replicas": 1, "seed": seed, "training": config.autoencoder_training.to_dict()}
    fields |= {"network": str(network), "layer": config.layer, "autoencoder": config.autoencoder.to_dict()}
    return ml_collections.ConfigDict(fields).lock()


def claimed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config by which a work directory is known: raw files may move, as those of --manual_dir may."""
    known = config.copy_and_resolve_references().unlock()
    known.shifted.manual_dir = ""
    return known.lock()


# ---------------------------------------------------------------------------------------------------------------- cases


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """All cases that are scored, one after the other.

    Attributes:
      stored: images, and labels in the network's classes.
      roles: validation, test or shifted, `[N]`.
      domains: as tables name them, `[N]`.
      patients: `[N]`; cases of one are drawn together, of whatever domain they are.
      names: of the domains, in the order of tables: validation, test, then those that are shifted.
    """

    stored: pipeline.InMemory
    roles: np.ndarray
    domains: np.ndarray
    patients: np.ndarray
    names: tuple[str, ...]

    @property
    def shifted(self) -> tuple[str, ...]:
        """The names of the shifted domains."""
        return tuple(name for name in self.names if (self.roles[self.domains == name] == "shifted").all())

    @functools.cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """Domain -> how many of its cases have a pixel of each class but the background, `[K-1]`."""
        classes = range(1, self.stored.num_classes)
        axes = tuple(range(1, self.stored.labels.ndim))
        has = np.stack([(self.stored.labels == k).any(axes) for k in classes], 1)
        return {name: has[self.domains == name].sum(0) for name in self.names}


class Data(NamedTuple):
    """What networks are trained on, and the cases that are scored."""

    splits: runs.Splits
    scored: Cases


def gather(
    config: ml_collections.ConfigDict, splits: runs.Splits, directory: pathlib.Path, data_dir: pathlib.Path
) -> Cases:
    """The in-domain and the shifted cases, the latter of another data set if the config names one.

    Args:
      config: of the study.
      splits: of the training data set and its domains.
      directory: of the training data set.
      data_dir: of prepared data sets; the shifted one is prepared there.

    Raises:
      InputError: a data set or a split is not there, there is no shifted case, classes or channels do not match those
        of the network, a shifted patient was trained on, or no shifted domain has patients enough.
    """
    own = ", ".join(config.data.domains) or config.data.dataset.partition("/")[0]
    parts = {role: splits[role] for role in ("validation", "test") if role in pipeline.split_sizes(directory)}
    shifted = _shifted(config, splits, directory, data_dir)
    domains = [f"{own} ({role})" for role, part in parts.items() for _ in part.cases]
    domains += [_domain(config, domain) for domain in shifted.domains]
    patients = [patient for part in parts.values() for patient in part.patients]
    prefix = f"{config.shifted.dataset}: " if config.shifted.dataset else ""
    patients += [f"{prefix}{patient}" for patient in shifted.patients]
    roles = [role for role, part in (parts | {"shifted": shifted}).items() for _ in part.cases]
    inside = [f"{own} ({role})" for role in parts]
    cases = Cases(
        stored=pipeline.joined([*parts.values(), shifted]),
        roles=np.array(roles),
        domains=np.array(domains),
        patients=np.array(patients),
        names=(*inside, *sorted(set(domains) - set(inside))),
    )
    if not counted_domains(config, cases):
        raise InputError(
            f"no shifted domain ({', '.join(cases.shifted)}) has {config.evaluation.least_patients} patients or more, "
            "so no interval can be given; test on more patients, or lower config.evaluation.least_patients"
        )
    return cases


def counted_domains(config: ml_collections.ConfigDict, cases: Cases) -> tuple[str, ...]:
    """The shifted domains with enough patients for an interval, over which means are taken."""
    patients = lambda name: len(set(cases.patients[cases.domains == name]))
    return tuple(name for name in cases.shifted if patients(name) >= config.evaluation.least_patients)


def _domain(config: ml_collections.ConfigDict, domain: str) -> str:
    words = config.shifted.domain_words
    name = " ".join(domain.split()[:words]) if words else domain
    return name or config.shifted.dataset


def _shifted(
    config: ml_collections.ConfigDict, splits: runs.Splits, directory: pathlib.Path, data_dir: pathlib.Path
) -> pipeline.InMemory:
    shifted = config.shifted
    if shifted.dataset:
        directory = builders.prepare(shifted.dataset, data_dir=data_dir, manual_dir=shifted.manual_dir or None)
    opened = [
        pipeline.Split(directory, split, size=config.data.source_size, domains=shifted.domains)
        for split in shifted.splits
    ]
    train = splits.open("train")
    for split in opened:
        if (split.num_channels, split.rank) != (train.num_channels, train.rank):
            raise InputError(
                f"{split.name} has {split.num_channels} channels and rank {split.rank}, {train.name} has "
                f"{train.num_channels} and {train.rank}; prepare both from images of one kind"
            )
    table = match_classes(train.class_names, opened[0].class_names, shifted.classes, opened[0].name)
    found = pipeline.joined([pipeline.in_memory(split) for split in opened])
    found = dataclasses.replace(found, class_names=train.class_names, labels=table[found.labels])
    if shifted.dataset:
        return found
    kept = np.flatnonzero(~np.isin(found.domains, config.data.domains))
    if not len(kept):
        raise InputError(
            f"{found.name} has no other domain than {', '.join(config.data.domains)}; name fewer in "
            "config.data.domains, or another data set in config.shifted.dataset"
        )
    found = found.take(kept)
    known = sorted(set(found.patients) & set(splits["train"].patients))
    if known:
        raise InputError(
            f"config.shifted.splits {tuple(shifted.splits)} has patients that were trained on, such as {known[0]}; "
            "give ('test',)"
        )
    return found


def match_classes(own: Sequence[str], foreign: Sequence[str], how: str, name: str) -> np.ndarray:
    """Which of the network's classes each class of another data set is, uint8 `[classes of the other]`.

    Args:
      own: the network's classes, the background first.
      foreign: those of the other data set, the background first.
      how: by name, or by order, where the numbers are known to mean the same.
      name: of the other data set, for the message.

    Raises:
      InputError: a class has no counterpart.
    """
    if how == "order":
        if len(foreign) > len(own):
            raise InputError(
                f"{name} has {len(foreign)} classes, the network {len(own)} ({', '.join(own)}); they cannot be matched "
                "by order: leave out those that it does not know"
            )
        return np.arange(len(foreign), dtype=np.uint8)
    unknown = [each for each in foreign[1:] if each not in own[1:]]
    if unknown:
        raise InputError(
            f"{name} has the class {unknown[0]!r}, the network knows {', '.join(own[1:])}; name the classes alike "
            "(classes.csv of a folder), or set config.shifted.classes to 'order' where their numbers mean the same"
        )
    return np.array([0, *(own.index(each) for each in foreign[1:])], np.uint8)


# ----------------------------------------------------------------------------------------------------------------- runs


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What all networks and ensembles scored.

    Attributes:
      networks: per network, `distortion_scores.of_network` of all cases.
      ensembles: per ensemble, `distortion_scores.of_ensemble`; none where there are too few networks for one.
      training: per network, what its best checkpoint and that of its autoencoder reached.
    """

    networks: tuple[Mapping[str, np.ndarray], ...]
    ensembles: tuple[Mapping[str, np.ndarray], ...]
    training: tuple[dict[str, Any], ...]


def networks_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Where the networks are, each in a folder of its own below."""
    return workdir / "runs" / "networks"


def run_folders(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[pathlib.Path]:
    """The folders of all training runs: of every network and of every autoencoder."""
    members = runs.member_runs(network_config(config), networks_folder(workdir))
    return [*(place for _, place in members), *(autoencoder_folder(workdir, i) for i in range(len(members)))]


def autoencoder_folder(workdir: pathlib.Path, number: int) -> pathlib.Path:
    """Where the autoencoder of a network is, and what both scored."""
    return workdir / "runs" / f"autoencoder_{number}"


def train_and_measure(
    config: ml_collections.ConfigDict, splits: runs.Splits, cases: Cases, workdir: pathlib.Path
) -> Measured:
    """Every run of the study, trained and measured, or read back where that was done before."""
    network = network_config(config)
    runs.train(network, splits, networks_folder(workdir), keep_every=config.evaluation.vog_every)
    members = runs.member_runs(network, networks_folder(workdir))
    for i, (member, place) in enumerate(members):
        autoencoders.train(autoencoder_config(config, place, member.seed), splits, autoencoder_folder(workdir, i))
    networks = tuple(
        kept(
            autoencoder_folder(workdir, i) / "measures.npz",
            lambda i=i: _of_network(config, splits, cases, workdir, i),  # type: ignore[misc]
        )
        for i in range(len(members))
    )
    size = config.evaluation.ensemble_size
    ensembles = tuple(
        kept(
            workdir / "runs" / f"ensemble_{e}" / "measures.npz",
            lambda e=e: _of_ensemble(config, splits, cases, workdir, range(e * size, (e + 1) * size)),  # type: ignore[misc]
        )
        for e in range(len(members) // size)
    )
    return Measured(networks, ensembles, tuple(_reached(config, workdir, i) for i in range(len(members))))


def load(
    config: ml_collections.ConfigDict, splits: runs.Splits, workdir: pathlib.Path, number: int
) -> distortion_scores.Fitted:
    """A network and its autoencoder, both at their best checkpoint."""
    member, place = runs.member_runs(network_config(config), networks_folder(workdir))[number]
    fitted, of_autoencoder, network, variables = autoencoders.load_best(
        autoencoder_config(config, place, member.seed),
        autoencoder_folder(workdir, number),
        splits.num_classes,
        splits.open("train").num_channels,
    )
    return distortion_scores.Fitted(network, fitted, config.layer, variables, of_autoencoder)


def _of_network(
    config: ml_collections.ConfigDict, splits: runs.Splits, cases: Cases, workdir: pathlib.Path, number: int
) -> dict[str, np.ndarray]:
    fitted = load(config, splits, workdir, number)
    assert isinstance(fitted.network, UNetSkeleton)  # as all networks that a config can name
    scored = distortion_scores.of_network(config, fitted, splits["train"], cases.stored)
    member, place = runs.member_runs(network_config(config), networks_folder(workdir))[number]
    checkpoints = difficulty.checkpoints(config, member, place, splits, fitted.variables)
    scored["gradients"] = difficulty.variance_of_gradients(
        fitted.network, checkpoints, cases.stored, size=config.data.image_size, batch_size=config.training.batch_size
    )
    return scored


def _of_ensemble(
    config: ml_collections.ConfigDict, splits: runs.Splits, cases: Cases, workdir: pathlib.Path, numbers: Sequence[int]
) -> dict[str, np.ndarray]:
    members = runs.member_runs(network_config(config), networks_folder(workdir))
    shape = (1, *(config.data.image_size,) * 2, splits.open("train").num_channels)
    loaded = [runs.load_best(*members[i], shape, splits.num_classes) for i in numbers]
    return distortion_scores.of_ensemble(config, loaded[0][0], [variables for _, variables, _ in loaded], cases.stored)


def _reached(config: ml_collections.ConfigDict, workdir: pathlib.Path, number: int) -> dict[str, Any]:
    member, place = runs.member_runs(network_config(config), networks_folder(workdir))[number]
    network, of_autoencoder = (
        json.loads((folder / "summary.json").read_bytes()) for folder in (place, autoencoder_folder(workdir, number))
    )
    return {
        "network": number,
        "seed": member.seed,
        "best_step": network["best_step"],
        "validation_score": network[f"best_validation_{config.training.selection}"],
        "autoencoder_best_step": of_autoencoder["best_step"],
        "autoencoder_validation_loss": of_autoencoder["best_validation_loss"],
        "convention": f"best of the in-domain validation: {config.training.selection} of the network over the defined "
        "pairs of case and class, L_seg + L_mse of the autoencoder",
    }


def examples(
    config: ml_collections.ConfigDict,
    splits: runs.Splits,
    cases: Cases,
    chosen: Mapping[str, int],
    workdir: pathlib.Path,
) -> dict[str, dict[str, np.ndarray]]:
    """What the first network makes of some cases.

    Args:
      config: of the study.
      splits: of the training data set.
      cases: all that are scored.
      chosen: name -> number of a case.
      workdir: of the study, all of whose runs are there.

    Returns:
      name -> `images` `[h,w,C]`, `labels` and `classes` `[h,w]`, as `distortion_scores.predictions`.
    """
    seen = kept(
        workdir / "runs" / "examples" / "measures.npz",
        lambda: distortion_scores.predictions(
            config, load(config, splits, workdir, 0), cases.stored, list(chosen.values())
        ),
    )
    return {name: {key: values[i] for key, values in seen.items()} for i, name in enumerate(chosen)}
