"""The skip-pruning study's measures as tables, the paper's numbers (Wilm et al. 2024) beside them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg import models
from jaxseg.data import pipeline
from jaxseg.models import tracing
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.results.resampled import Resampled, mean_of, weighted_sum
from jaxseg.results.table import Row, Table, table
from jaxseg.studies.base import Measures, Report
from jaxseg.studies.skip_pruning import distance_tables, paper
from jaxseg.studies.skip_pruning.conditions import IN_DOMAIN, Condition
from jaxseg.studies.skip_pruning.experiment import Cases, Measured
from jaxseg.studies.skip_pruning.iou import CASE, SET, Scores, class_numbers, of_cases, scores
from jaxseg.studies.skip_pruning.settings import Network, Settings, architecture, difference
from jaxseg.training import checks

SHIFTED, ALL = "shifted", "all"  # over which conditions IoU is averaged, besides single groups
_OVER_PATIENTS = "bootstrap over patients within domains, 95 %"
_CONVENTIONS = {
    SET: "IoU of {classes}, pixels accumulated over the test set, mean over folds",
    CASE: "IoU of {classes} per case, mean over folds and cases; empty in label and prediction is undefined, left out",
}


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    iou: Table
    differences: Table
    distances: Table
    distance_differences: Table
    parameters: list[dict[str, Any]]
    paper_domains: list[dict[str, Any]]
    folds: list[dict[str, Any]]
    cases: list[dict[str, Any]]


StudyReport = Report[Settings, Cases, Measured, Tables]


def tabulate(settings: Settings, cases: Cases, measured: Measured) -> Tables:
    """All numbers of the study."""
    tested, networks = cases.tested, measured.of_networks
    names = tested[0].cases.class_names
    classes = class_numbers(settings.evaluation.classes, names)
    named = " and ".join(names[k] for k in classes) + (" (mean)" if len(classes) > 1 else "")
    conventions = {measure: text.format(classes=named) for measure, text in _CONVENTIONS.items()}
    iou = scores(settings.evaluation, tested, networks)
    compared = pairs(settings.pruned)
    return Tables(
        iou=table(_iou_rows(settings, tested, iou, conventions)),
        differences=table(_difference_rows(settings.encoder_names, compared, tested, iou, conventions)),
        distances=table(distance_tables.layer_rows(settings, tested, networks)),
        distance_differences=table(distance_tables.difference_rows(settings, compared, tested, networks)),
        parameters=parameter_records(settings, tested[0].cases),
        paper_domains=[*_paper_records(), *_beside_paper_records(settings, tested, iou)],
        folds=_fold_records(tested, networks, iou),
        cases=_case_records(tested, networks, classes),
    )


def _who(network: Network) -> dict[str, Any]:
    return {"encoder": network.encoder, "architecture": network.architecture}


def _iou_rows(
    settings: Settings, tested: Sequence[Condition], iou: Scores, conventions: Mapping[str, str]
) -> Iterator[Row]:
    for network, measure, condition in itertools.product(settings.networks, (SET, CASE), tested):
        keys = _who(network) | {"group": condition.group, "condition": condition.label, "measure": measure}
        score = iou[network, condition.name, measure]
        domain = "" if condition.shift else condition.label
        of_paper = paper.iou(settings.run.data.dataset, network, domain=domain, shift=condition.shift)
        more = score.over_folds | {"paper": of_paper if measure == SET else None}
        yield Row(keys, score.estimate, conventions[measure], _OVER_PATIENTS, more)


def places(tested: Sequence[Condition]) -> dict[str, tuple[str, ...]]:
    """Over which conditions IoU is averaged, by name: in-domain, every group, all that are shifted, and all.

    What has one patient is in no mean: it has no interval.
    """
    sound = [condition for condition in tested if condition.has_interval]
    groups = dict.fromkeys(condition.group for condition in sound)
    names = {group: tuple(c.name for c in sound if c.group == group) for group in groups}
    names[SHIFTED] = tuple(c.name for c in sound if c.group != IN_DOMAIN)
    return names | {ALL: tuple(c.name for c in sound)}


def pairs(pruned: Sequence[int]) -> list[tuple[int, int]]:
    """Which counts of removed skips are compared: each with the baseline, with the one before it, the last with L1."""
    chosen = [(b, 0) for b in pruned[1:]]
    chosen += [(b, a) for a, b in itertools.pairwise(pruned) if a]
    return [*dict.fromkeys([*chosen, *([(pruned[-1], 1)] if pruned[-1] > 1 else [])])]


def _difference_rows(
    encoders: Sequence[str],
    compared: Sequence[tuple[int, int]],
    tested: Sequence[Condition],
    iou: Scores,
    conventions: Mapping[str, str],
) -> Iterator[Row]:
    for encoder, measure, (more, less) in itertools.product(encoders, (SET, CASE), compared):
        for place, names in places(tested).items():
            keys: dict[str, Any] = {"encoder": encoder, "difference": difference(more, less)}
            keys |= {"architecture": architecture(more), "minus": architecture(less), "place": place}
            keys |= {"measure": measure, "conditions": len(names)}
            change = _change(iou, encoder, more, less, names, measure)
            convention = f"{conventions[measure]}; mean over conditions"
            yield Row(keys, change.estimate, convention, f"{_OVER_PATIENTS}, paired", change.over_folds)


def _change(iou: Scores, encoder: str, more: int, less: int, names: Sequence[str], measure: str) -> Resampled:
    """Of the mean over conditions, from a network without `less` skips to one without `more`."""
    mean = lambda pruned: mean_of([iou[Network(encoder, pruned), name, measure] for name in names])
    return weighted_sum([(1.0, mean(more)), (-1.0, mean(less))])


def _fold_records(
    tested: Sequence[Condition], measured: Mapping[Network, Measures], iou: Scores
) -> list[dict[str, Any]]:
    convention = "IoU of the set, per condition; validation: on the fold held out"
    said = {"n": len(tested[0].cases), "undefined": 0, "interval": "none, one network", "convention": convention}
    return [
        {**_who(network), "fold": fold, "best_step": int(step), "validation_miou": float(miou)}
        | {condition.name: float(iou[network, condition.name, SET].folds[fold]) for condition in tested}
        | said
        for network, measures in measured.items()
        for fold, (step, miou) in enumerate(zip(measures["step"], measures["validation_miou"], strict=True))
    ]


def _case_records(
    tested: Sequence[Condition], measured: Mapping[Network, Measures], classes: Sequence[int]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"case": case, "patient": patient, "group": condition.group, "condition": condition.label}
        for condition in tested
        for case, patient in zip(condition.cases.cases, condition.cases.patients, strict=True)
    ]
    for network, measures in measured.items():
        for row, value in zip(rows, of_cases(measures["counts"], classes), strict=True):
            row[f"{network.encoder} {network.architecture}"] = float(value)
    return rows


def _change_record(data: str, network: Network, in_domain: float, shifted: float, conditions: int) -> dict[str, Any]:
    convention = "difference from the baseline's IoU of the set, the paper's from its numbers of two digits"
    of = {"data": data, "encoder": network.encoder, "difference": difference(network.pruned, 0)}
    changes = {"in_domain": in_domain, "shifted": shifted, "conditions": conditions}
    return of | changes | {"convention": convention}


def _paper_records() -> list[dict[str, Any]]:
    """What pruning changes in the paper's three clinical data sets (differences of Fig. 9)."""
    change = lambda data, of, domains: round(paper.change(data, of.encoder, of.pruned, 0, domains=domains), 3)
    ends = paper.TRAINED_ON, paper.OTHERS
    return [
        _change_record(f"{data}, the paper", of, change(data, of, ends[0]), change(data, of, ends[1]), len(values) - 1)
        for data, networks in paper.DOMAINS.items()
        for of, values in ((Network(*key), values) for key, values in networks.items())
        if of.pruned
    ]


def _beside_paper_records(settings: Settings, tested: Sequence[Condition], iou: Scores) -> list[dict[str, Any]]:
    """The same of the study's networks."""
    names, data = places(tested), f"{settings.run.data.dataset}, here"
    change = lambda network, place: _change(iou, network.encoder, network.pruned, 0, names[place], SET).value
    record = lambda of: _change_record(data, of, change(of, IN_DOMAIN), change(of, SHIFTED), len(names[SHIFTED]))
    return [record(network) for network in settings.networks if network.pruned]


def parameter_records(settings: Settings, cases: pipeline.InMemory) -> list[dict[str, Any]]:
    """Table II: trainable parameters of the paper's networks (three channels, two classes), then of this study's."""
    listed: list[tuple[str, Network, int, int | None]] = [
        ("the paper's", Network(encoder, pruned), _paper_network_size(encoder, pruned), count)
        for encoder, counts in paper.PARAMETERS.items()
        for pruned, count in enumerate(counts)
    ]
    for network in settings.networks:
        model = checks.build_model(settings.of_run(network), cases.num_classes)
        size = count_parameters(model, settings.run.data.image_size, cases.num_channels)
        listed.append(("here", network, size, None))
    convention = "trainable parameters; batch norm's scale and shift count, its running statistics do not"
    return [
        {"networks": whose} | _who(network) | {"parameters": number, "paper": count, "convention": convention}
        for whose, network, number, count in listed
    ]


@functools.cache
def _paper_network_size(encoder: str, pruned: int) -> int:
    skips = (False,) * pruned + (True,) * (len(paper.PARAMETERS[encoder]) - 1 - pruned)
    # the study at the paper's size has traced them in this type and size, which takes seconds and is remembered
    model = models.build("resnet_unet", 2, encoder=encoder, skips=skips, dtype=jnp.dtype("float32"))
    return count_parameters(model, 512, 3)


def count_parameters(model: UNetSkeleton, size: int, channels: int) -> int:
    """How many parameters are trained; nothing is computed."""
    variables = tracing.variable_shapes(model, (1, size, size, channels))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
