"""What the networks of the skip-pruning study are tested on, and how patients are drawn for intervals."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from jaxseg.data import pipeline, shifts
from jaxseg.errors import InputError
from jaxseg.metrics import draws
from jaxseg.metrics.intervals import Estimate
from jaxseg.training import runs

IN_DOMAIN, DOMAIN = "in-domain", "domain"  # groups; the others are the names of shifts
_SEED = 0  # of resampling


class Condition(NamedTuple):
    """What the networks are tested on.

    Attributes:
      group: in-domain, domain, or the name of a shift.
      label: of it within the group: original, a strength, or a domain.
      cases: as they are stored.
      shift: name and strength of what is done to them.
    """

    group: str
    label: str
    cases: pipeline.InMemory
    shift: tuple[str, float] | None = None

    @property
    def name(self) -> str:
        """Of the condition among all."""
        return f"{self.group} {self.label}"

    @property
    def has_interval(self) -> bool:
        """Whether there are two patients, who can be drawn."""
        return len(set(self.cases.patients)) > 1


def conditions(
    config: ml_collections.ConfigDict, splits: runs.Splits, everything: runs.Splits
) -> tuple[Condition, ...]:
    """What the networks are tested on, the unshifted test set first.

    Args:
      config: of the study.
      splits: the cases of the domains that are trained on.
      everything: those of all domains. Of another domain all splits are tested on, but for the patients who are in
        training or validation with the domain that is trained on: one sample may be there from several scanners.
    """
    test, domains = splits["test"], config.data.domains
    found = [Condition(IN_DOMAIN, ", ".join(domains) or "original", test)]
    for name, strengths in config.shifts.items():
        found += [Condition(name, f"{strength:g}", test, (name, strength)) for strength in strengths]
    if domains:
        seen = set(splits.pool.patients)
        parts = [
            subset(everything[split], lambda case: case["domain"] not in domains and case["patient"] not in seen)
            for split in ("train", "validation", "test")
        ]
        foreign = pipeline.joined([part for part in parts if len(part)] or parts)
        if not len(foreign):
            raise InputError(f"{config.data.dataset} has no domain but config.data.domains; leave one out of them")
        found += [Condition(DOMAIN, domain, _of_domain(foreign, domain)) for domain in sorted(set(foreign.domains))]
    if not found[0].has_interval:
        raise InputError(f"{test.name} shows one patient, who gives no interval; give more cases")
    return tuple(found)


def _of_domain(cases: pipeline.InMemory, domain: str) -> pipeline.InMemory:
    return subset(cases, lambda case: case["domain"] == domain)


def subset(cases: pipeline.InMemory, wanted: Callable[[Mapping[str, Any]], bool]) -> pipeline.InMemory:
    """The cases for which `wanted(case)` holds."""
    return cases.take(np.array([i for i in range(len(cases)) if wanted(cases[i])], int))


def compared(config: ml_collections.ConfigDict, tested: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions whose activations are compared with those of the unshifted test set."""
    chosen = (config.evaluation.distance_shift, config.evaluation.distance_strength)
    return tuple(c for c in tested if c.shift == chosen or (c.group == DOMAIN and c.has_interval))


def example_cases(tested: Sequence[Condition]) -> tuple[Condition, ...]:
    """One case of each condition that is shown: in-domain, the ends of every shift, and every domain.

    It is the case with the median area of foreground, so that nobody chose it.
    """
    groups: dict[str, list[Condition]] = {}
    for condition in tested:
        groups.setdefault(condition.group, []).append(condition)
    ends = [
        condition
        for group, members in groups.items()
        for condition in (members if group == DOMAIN else dict.fromkeys((members[0], members[-1])))
    ]
    return tuple(condition._replace(cases=_median_case(condition.cases)) for condition in ends)


def _median_case(cases: pipeline.InMemory) -> pipeline.InMemory:
    area = (cases.labels > 0).reshape(len(cases), -1).sum(1)
    name = cases.cases[np.argsort(area, kind="stable")[len(area) // 2]]
    return subset(cases, lambda case: case["case"] == name)


class Shifter:
    """Batches of conditions; every shift is compiled once."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._compiled = functools.cache(lambda name, strength: jax.jit(functools.partial(_shifted, name, strength)))

    def batches(self, condition: Condition) -> Iterator[dict[str, Any]]:
        """Every case once, shifted as it is stored, in the batches of `pipeline.epoch`."""
        for batch in pipeline.epoch(condition.cases, batch_size=self._batch_size):
            if condition.shift:
                yield batch | {"image": self._compiled(*condition.shift)(batch["image"])}
            else:
                yield batch


def _shifted(name: str, strength: float, images: jax.Array) -> jax.Array:
    return shifts.shift(name, strength=strength)(jax.random.key(0), {"image": images})["image"]  # nothing is drawn


class Draws:
    """How often every patient of the test is drawn in each resample; the same ones for all conditions and networks.

    Patients are drawn within the domains that they occur in, so that none is left without patients. Who occurs in
    several (one sample on many scanners) is drawn for all of them at once.
    """

    def __init__(self, tested: Sequence[Condition], resamples: int):
        domains: dict[str, set[str]] = {}
        for condition in tested:
            for patient, domain in zip(condition.cases.patients, condition.cases.domains, strict=True):
                domains.setdefault(patient, set()).add(domain)
        self._place = {patient: i for i, patient in enumerate(domains)}
        strata = np.unique([", ".join(sorted(names)) for names in domains.values()], return_inverse=True)[1]
        self._draws = draws.of_patients(len(domains), resamples, _SEED, tuple(strata.tolist()))

    def of(self, condition: Condition) -> np.ndarray:
        """`[R,P]` of the condition's patients, sorted by name."""
        return self._draws[:, [self._place[patient] for patient in sorted(set(condition.cases.patients))]]

    def of_cases(self, condition: Condition) -> np.ndarray:
        """`[R,N]` of its cases: how often the case's patient is drawn."""
        return self._draws[:, [self._place[patient] for patient in condition.cases.patients]]


class Drawn(NamedTuple):
    """A number with what stands behind it.

    Attributes:
      value: of all patients.
      resampled: `[R]`.
      folds: `[F]`, of every fold by itself.
      n, undefined, patients: as of `Estimate`.
    """

    value: float
    resampled: np.ndarray
    folds: np.ndarray
    n: int
    undefined: int
    patients: int

    def row(self) -> dict[str, Any]:
        """Mean, interval and range over folds as columns of a table."""
        finite = self.resampled[np.isfinite(self.resampled)]
        # one patient drawn again and again is no interval
        low, high = np.percentile(finite, [2.5, 97.5]) if finite.size and self.patients > 1 else (np.nan, np.nan)
        estimate = Estimate(self.value, float(low), float(high), self.n, self.undefined, self.patients)
        return dataclasses.asdict(estimate) | {
            "lowest_fold": float(self.folds.min()),
            "highest_fold": float(self.folds.max()),
            "folds": len(self.folds),
        }


def combined(terms: Sequence[tuple[float, Drawn]]) -> Drawn:
    """A weighted sum, paired: the same patients are drawn for all terms."""
    weighted = lambda pick: sum(weight * pick(term) for weight, term in terms)
    largest = max((term for _, term in terms), key=lambda term: term.patients)
    return Drawn(
        float(weighted(lambda term: term.value)),
        weighted(lambda term: term.resampled),
        weighted(lambda term: term.folds),
        largest.n,
        max(term.undefined for _, term in terms),
        largest.patients,
    )


def mean_of(terms: Sequence[Drawn]) -> Drawn:
    """Their mean, each with the same weight."""
    return combined([(1 / len(terms), term) for term in terms])
