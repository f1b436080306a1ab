"""What the networks of the skip-pruning study are tested on."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxseg.data import pipeline, shifts
from jaxseg.errors import InputError
from jaxseg.results.resampled import PatientDraws
from jaxseg.studies.base import SPLITS, at_even_quantiles
from jaxseg.studies.skip_pruning.settings import Evaluation, Settings
from jaxseg.training import runs

IN_DOMAIN, DOMAIN = "in-domain", "domain"  # groups; the others are the names of shifts


class Condition(NamedTuple):
    """What the networks are tested on."""

    group: str  # in-domain, domain, or the name of a shift
    label: str  # of it within the group: original, a strength, or a domain
    cases: pipeline.InMemory  # as they are stored
    shift: tuple[str, float] | None = None  # name and strength of what is done to them

    @property
    def name(self) -> str:
        """Of the condition among all."""
        return f"{self.group} {self.label}"

    @property
    def has_interval(self) -> bool:
        """Whether there are two patients, who can be resampled."""
        return len(set(self.cases.patients)) > 1


def conditions(settings: Settings, splits: runs.Splits, everything: runs.Splits) -> tuple[Condition, ...]:
    """What the networks are tested on, the unshifted test set first.

    Args:
      settings: of the study.
      splits: the cases of the domains that are trained on.
      everything: those of all domains. Of another domain all splits are tested on, but for the patients who are in
        training or validation with the domain that is trained on: one sample may be there from several scanners.

    Raises:
      InputError: there is no other domain, or the test set shows one patient.
    """
    test, domains = splits["test"], settings.run.data.domains
    tested = [Condition(IN_DOMAIN, ", ".join(domains) or "original", test)]
    for name, strengths in settings.shifts.items():
        tested += [Condition(name, f"{strength:g}", test, (name, strength)) for strength in strengths]
    if domains:
        seen = set(splits.pool.patients)
        unseen = lambda case: case["domain"] not in domains and case["patient"] not in seen
        parts = [_subset(everything[split], unseen) for split in SPLITS]
        others = pipeline.joined([part for part in parts if len(part)] or parts)
        if not len(others):
            raise InputError(
                f"{settings.run.data.dataset} has no domain but config.data.domains; leave one out of them"
            )
        of_domain = lambda domain: _subset(others, lambda case: case["domain"] == domain)
        tested += [Condition(DOMAIN, domain, of_domain(domain)) for domain in sorted(set(others.domains))]
    if not tested[0].has_interval:
        raise InputError(f"{test.name} shows one patient, who gives no interval; give more cases")
    return tuple(tested)


def _subset(cases: pipeline.InMemory, wanted: Callable[[Mapping[str, Any]], bool]) -> pipeline.InMemory:
    """The cases for which `wanted(case)` holds."""
    return cases.take(np.array([i for i in range(len(cases)) if wanted(cases[i])], int))


def compared(evaluation: Evaluation, tested: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions whose activations are compared with those of the unshifted test set."""
    chosen = (evaluation.distance_shift, evaluation.distance_strength)
    return tuple(c for c in tested if c.shift == chosen or (c.group == DOMAIN and c.has_interval))


def patient_draws(tested: Sequence[Condition], resamples: int) -> PatientDraws:
    """How often the patients of the conditions are in each resample."""
    return PatientDraws(((c.cases.patients, c.cases.domains) for c in tested), resamples)


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
    return cases.take(np.array(at_even_quantiles(area, 1)))


class Shifter:
    """Batches of conditions; every shift is compiled once."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._compiled = functools.cache(lambda name, strength: jax.jit(functools.partial(_shifted, name, strength)))

    def batches(self, condition: Condition) -> Iterator[dict[str, Any]]:
        """Every case once, shifted as it is stored, in the batches of `pipeline.epoch`."""
        for batch in pipeline.epoch(condition.cases, batch_size=self._batch_size):
            shifted = self._compiled(*condition.shift) if condition.shift else lambda image: image
            yield batch | {"image": shifted(batch["image"])}


def _shifted(name: str, strength: float, images: jax.Array) -> jax.Array:
    return shifts.shift(name, strength=strength)(jax.random.key(0), {"image": images})["image"]  # nothing is random
