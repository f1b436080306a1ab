"""Which cases the distortion study scores, and by which of their classes."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxseg.data import inputs, pipeline
from jaxseg.errors import InputError
from jaxseg.metrics.domain_ranking import Domains
from jaxseg.metrics.intervals import defined_mean
from jaxseg.studies.base import Data, open_splits
from jaxseg.studies.distortion.settings import BY_ORDER, Settings
from jaxseg.training import runs

VALIDATION, TEST, SHIFTED = ROLES = ("validation", "test", "shifted")


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """All cases that are scored."""

    stored: pipeline.InMemory  # images, and labels in the network's classes
    roles: np.ndarray  # validation, test or shifted, `[N]`
    domains: np.ndarray  # as tables name them, `[N]`; all cases of one have the same role
    patients: np.ndarray  # `[N]`; cases of one are resampled together, of whatever domain they are

    def of_role(self, role: str) -> tuple[str, ...]:
        """The names of the domains with this role."""
        return tuple(sorted(set(self.domains[self.roles == role].tolist())))

    def patient_count(self, where: np.ndarray) -> int:
        """How many patients some cases, a mask `[N]`, are of."""
        return len(set(self.patients[where]))

    def by_domain(self, least_patients: int) -> Domains:
        """The domains; those that are shifted are counted with so many patients or more."""
        validation, test, shifted = (self.of_role(role) for role in ROLES)
        counted = tuple(name for name in shifted if self.patient_count(self.domains == name) >= least_patients)
        return Domains((*validation, *test, *shifted), validation[0], (test or validation)[0], counted)

    @functools.cached_property
    def annotated(self) -> dict[str, np.ndarray]:
        """Domain -> how many of its cases have a pixel of each class but the background, `[K-1]`."""
        axes = tuple(range(1, self.stored.labels.ndim))
        has = np.stack([(self.stored.labels == k).any(axes) for k in range(1, self.stored.num_classes)], 1)
        return {name: has[self.domains == name].sum(0) for role in ROLES for name in self.of_role(role)}

    def class_dice(self, dice: np.ndarray) -> np.ndarray:
        """Dice `[...,N,K-1]`, with NaN for a class that is not annotated in the case's domain.

        A class without a pixel in any case of a domain counts as not annotated there: predicting it is no error that
        could be recognised.
        """
        return np.where(np.stack([self.annotated[domain] > 0 for domain in self.domains]), dice, np.nan)

    def case_dice(self, dice: np.ndarray) -> np.ndarray:
        """The mean `[...,N]` over the defined classes of `class_dice`."""
        return defined_mean(self.class_dice(dice))


class Gathered(NamedTuple):
    """What networks are trained on, and the cases that are scored."""

    splits: runs.Splits
    scored: Cases


def gather(settings: Settings, data: Data) -> Gathered:
    """The training data, the in-distribution and the shifted cases, the latter of another data set if one is named.

    `data.manual_dir` is of the training data set; that of the shifted one is a setting.

    Raises:
      InputError: the cases are volumes, a data set or split is missing, there is no shifted case, classes or channels
        do not match those of the network, a shifted patient was trained on, or no shifted domain has enough patients.
    """
    directory, splits = open_splits(settings.run, data)
    if splits.rank != 2:
        raise InputError(f"{settings.run.data.dataset} has volumes; this study is of pictures, use its slices")
    inside = {role: splits[role] for role in (VALIDATION, TEST) if role in pipeline.split_sizes(directory)}
    shifted = _shifted(settings, splits, directory, data)
    own = ", ".join(settings.run.data.domains) or settings.run.data.dataset.partition("/")[0]
    domains = {role: [f"{own} ({role})"] * len(part) for role, part in inside.items()}
    domains[SHIFTED] = [_domain_name(settings, domain) for domain in shifted.domains]
    prefix = f"{settings.shifted.dataset}: " if settings.shifted.dataset else ""
    patients = [patient for part in inside.values() for patient in part.patients]
    cases = Cases(
        stored=pipeline.joined([*inside.values(), shifted]),
        roles=np.repeat(list(domains), [len(names) for names in domains.values()]),
        domains=np.concatenate(list(domains.values())),
        patients=np.array([*patients, *(f"{prefix}{patient}" for patient in shifted.patients)]),
    )
    least = settings.evaluation.least_patients
    if not cases.by_domain(least).counted:
        raise InputError(
            f"no shifted domain ({', '.join(cases.of_role(SHIFTED))}) has {least} patients or more, so no interval can "
            "be given; test on more patients, or lower config.evaluation.least_patients"
        )
    return Gathered(splits, cases)


def _domain_name(settings: Settings, domain: str) -> str:
    words = settings.shifted.domain_words
    return (" ".join(domain.split()[:words]) if words else domain) or settings.shifted.dataset


def _shifted(settings: Settings, splits: runs.Splits, directory: pathlib.Path, data: Data) -> pipeline.InMemory:
    """The shifted cases, with labels in the network's classes."""
    shifted = settings.shifted
    if shifted.dataset:
        directory = Data(data.folder, shifted.manual_dir or None).prepare(shifted.dataset)
    given = inputs.of_config(settings.run)
    opened = [pipeline.Split(directory, split, inputs=given, domains=shifted.domains) for split in shifted.splits]
    train = splits.open("train")
    for split in opened:
        if (split.num_channels, split.rank) != (train.num_channels, train.rank):
            raise InputError(
                f"{split.name} has {split.num_channels} channels and rank {split.rank}, {train.name} has "
                f"{train.num_channels} and {train.rank}; prepare both from images of one kind"
            )
    own_class = match_classes(train.class_names, opened[0].class_names, shifted.classes, opened[0].name)
    cases = pipeline.joined([pipeline.in_memory(split, pictured=splits.pictured) for split in opened])
    cases = dataclasses.replace(cases, class_names=train.class_names, labels=own_class[cases.labels])
    return cases if shifted.dataset else _of_other_domains(settings, splits, cases)


def _of_other_domains(settings: Settings, splits: runs.Splits, cases: pipeline.InMemory) -> pipeline.InMemory:
    """Of the training data set's cases those of the domains that are not trained on."""
    trained_on = settings.run.data.domains
    others = np.flatnonzero(~np.isin(cases.domains, trained_on))
    if not len(others):
        raise InputError(
            f"{cases.name} has no other domain than {', '.join(trained_on)}; name fewer in config.data.domains, or "
            "another data set in config.shifted.dataset"
        )
    cases = cases.take(others)
    seen = sorted(set(cases.patients) & set(splits["train"].patients))
    if seen:
        raise InputError(
            f"config.shifted.splits {tuple(settings.shifted.splits)} has patients that were trained on, such as "
            f"{seen[0]}; give ('test',)"
        )
    return cases


def match_classes(own: Sequence[str], other: Sequence[str], how: str, name: str) -> np.ndarray:
    """The network's class of each class of another data set, uint8 `[K]`; raises InputError where one has none.

    Args:
      own, other: classes of the network and of the other data set, the background first.
      how: by name, or by order, where class indices are known to mean the same.
      name: of the other data set, for the message.
    """
    if how == BY_ORDER:
        if len(other) > len(own):
            raise InputError(
                f"{name} has {len(other)} classes, the network {len(own)} ({', '.join(own)}); they cannot be matched "
                "by order: leave out those that it does not know"
            )
        return np.arange(len(other), dtype=np.uint8)
    unknown = [each for each in other[1:] if each not in own[1:]]
    if unknown:
        raise InputError(
            f"{name} has the class {unknown[0]!r}, the network knows {', '.join(own[1:])}; name the classes alike "
            "(classes.csv of a folder), or set config.shifted.classes to 'order' where their indices mean the same"
        )
    return np.array([0, *(own.index(each) for each in other[1:])], np.uint8)
