"""The skip-pruning study's measures as tables, the paper's numbers (Wilm et al. 2024) beside them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import models
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.models import tracing
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.studies.skip_pruning.conditions import (
    DOMAIN,
    IN_DOMAIN,
    Condition,
    Drawn,
    Draws,
    combined,
    compared,
    mean_of,
)
from jaxseg.studies.skip_pruning.experiment import Measures, Network, architecture, networks, roles, run_config
from jaxseg.training import checks


def set_iou(counts: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """IoU from accumulated pixels, mean over the classes that are there, `[...]`; NaN if none is.

    Args:
      counts: `[...,K,3]`, sums over a set.
      classes: places among the foreground classes.
    """
    return _mean_defined(overlap.iou_from_counts(counts)[..., list(classes)], -1)


def iou_of(counts: np.ndarray, weights: np.ndarray, patients: int, classes: Sequence[int]) -> dict[str, Drawn]:
    """IoU of one network and condition by both measures: of the set, and per case.

    Args:
      counts: `[F,N,K,3]`.
      weights: `[R,N]`, how often each case is drawn.
      patients: how many there are.
      classes: places among the foreground classes.
    """
    n, sums = counts.shape[1], counts.sum(1, dtype=np.int64)
    flat = np.moveaxis(counts, 1, 0).reshape(n, -1).astype(np.float64)
    drawn = np.rint(weights @ flat).reshape(len(weights), len(counts), *counts.shape[2:])
    folds = set_iou(sums, classes)
    whole = Drawn(float(_mean_defined(folds, 0)), _mean_defined(set_iou(drawn, classes), 1), folds, n, 0, patients)
    by_fold = set_iou(counts, classes)  # [F,N]
    cases = _mean_defined(by_fold, 0)
    defined = ~np.isnan(cases)
    with np.errstate(invalid="ignore"):  # a resample without a defined case
        resampled = weights @ np.where(defined, cases, 0) / (weights @ defined)
    means = _mean_defined(by_fold, 1)
    per_case = Drawn(
        float(_mean_defined(cases, 0)), resampled, means, int(defined.sum()), int((~defined).sum()), patients
    )
    return {SET: whole, CASE: per_case}


def _mean_defined(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not NaN; NaN where all is."""
    defined = ~np.isnan(values)
    total, count = np.where(defined, values, 0).sum(axis), defined.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


SET, CASE = "of the set", "per case"
_CONVENTIONS = {
    SET: "IoU of {classes}, pixels accumulated over the test set, mean over folds",
    CASE: "IoU of {classes} per case, mean over folds and cases; empty in label and prediction is undefined, left out",
}
_OVER_PATIENTS = "bootstrap over patients within domains, 95 %"


# -------------------------------------------------------------------------------------------------------------- tables


@dataclasses.dataclass(frozen=True)
class Tables:
    """Rows of every table; each row says its convention, n, undefined and interval."""

    iou: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    distances: list[dict[str, Any]]
    distance_differences: list[dict[str, Any]]
    parameters: list[dict[str, Any]]
    paper_domains: list[dict[str, Any]]
    folds: list[dict[str, Any]]
    cases: list[dict[str, Any]]


Scores = dict[tuple[Network, str, str], Drawn]  # network, condition, measure


def tabulate(
    config: ml_collections.ConfigDict, tested: Sequence[Condition], measured: Mapping[Network, Measures]
) -> Tables:
    """All numbers of the study as rows."""
    classes = class_places(config, tested[0].cases.class_names)
    draws = Draws(tested, config.evaluation.resamples)
    weights = {condition.name: draws.of_cases(condition) for condition in tested}
    scores: Scores = {}
    for network, measures in measured.items():
        for condition, counts in by_condition(measures["counts"], tested):
            patients = len(set(condition.cases.patients))
            for measure, drawn in iou_of(counts, weights[condition.name], patients, classes).items():
                scores[network, condition.name, measure] = drawn
    named = " and ".join(tested[0].cases.class_names[1 + k] for k in classes) + (" (mean)" if len(classes) > 1 else "")
    conventions = {measure: text.format(classes=named) for measure, text in _CONVENTIONS.items()}
    return Tables(
        iou=_iou_rows(config, tested, scores, conventions),
        differences=_difference_rows(config, tested, scores, conventions),
        distances=_distance_rows(config, tested, measured),
        distance_differences=_distance_difference_rows(config, tested, measured),
        parameters=parameter_rows(config, tested[0].cases),
        paper_domains=_paper_rows(config, tested, scores),
        folds=_fold_rows(tested, measured, scores),
        cases=_case_rows(tested, measured, classes),
    )


def class_places(config: ml_collections.ConfigDict, names: Sequence[str]) -> tuple[int, ...]:
    """Places among the foreground classes of those whose IoU is averaged; raises InputError if one is unknown."""
    known = list(names[1:])
    unknown = [name for name in config.evaluation.classes if name not in known]
    if unknown:
        raise InputError(f"config.evaluation.classes has {unknown[0]!r}; choose from {', '.join(known)}")
    return tuple(known.index(name) for name in config.evaluation.classes or known)


def by_condition(counts: np.ndarray, tested: Sequence[Condition]) -> Iterator[tuple[Condition, np.ndarray]]:
    """Every condition with its part of `[F,M,K,3]`."""
    ends = np.cumsum([len(condition.cases) for condition in tested])
    return zip(tested, np.split(counts, ends[:-1], 1), strict=True)


def _who(network: Network) -> dict[str, Any]:
    return {"encoder": network.encoder, "architecture": network.architecture}


def _iou_rows(
    config: ml_collections.ConfigDict, tested: Sequence[Condition], scores: Scores, conventions: Mapping[str, str]
) -> list[dict[str, Any]]:
    return [
        _who(network)
        | {"group": condition.group, "condition": condition.label, "measure": measure}
        | scores[network, condition.name, measure].row()
        | {
            "paper": paper_iou(config, network, condition) if measure == SET else None,
            "interval": _OVER_PATIENTS,
            "convention": conventions[measure],
        }
        for network in networks(config)
        for measure in (SET, CASE)
        for condition in tested
    ]


SHIFTED, ALL = "shifted", "all"


def places(tested: Sequence[Condition]) -> dict[str, tuple[str, ...]]:
    """Over which conditions IoU is averaged, by name: in-domain, every group, all that are shifted, and all.

    What has one patient is in no mean: it has no interval.
    """
    sound = [condition for condition in tested if condition.has_interval]
    groups = dict.fromkeys(condition.group for condition in sound)
    found = {group: tuple(c.name for c in sound if c.group == group) for group in groups}
    found[SHIFTED] = tuple(c.name for c in sound if c.group != IN_DOMAIN)
    return found | {ALL: tuple(c.name for c in sound)}


def pairs(config: ml_collections.ConfigDict) -> list[tuple[int, int]]:
    """Which numbers of removed skips are compared: each with the baseline, with the one before it, the last with L1."""
    chosen = [(b, 0) for b in config.pruned[1:]]
    chosen += [(b, a) for a, b in itertools.pairwise(config.pruned) if a]
    return [*dict.fromkeys([*chosen, *([(config.pruned[-1], 1)] if config.pruned[-1] > 1 else [])])]


def _difference_rows(
    config: ml_collections.ConfigDict, tested: Sequence[Condition], scores: Scores, conventions: Mapping[str, str]
) -> list[dict[str, Any]]:
    rows = []
    for encoder in dict.fromkeys(network.encoder for network in networks(config)):
        for measure in (SET, CASE):
            for more, less in pairs(config):
                for place, names in places(tested).items():
                    rows.append(
                        {"encoder": encoder, "difference": difference(more, less), "place": place, "measure": measure}
                        | {"conditions": len(names)}
                        | _change(scores, encoder, more, less, names, measure).row()
                        | {
                            "interval": f"{_OVER_PATIENTS}, paired",
                            "convention": f"{conventions[measure]}; mean over conditions",
                        }
                    )
    return rows


def _change(scores: Scores, encoder: str, more: int, less: int, names: Sequence[str], measure: str) -> Drawn:
    """Of the mean over conditions, from a network without `less` skips to one without `more`."""
    mean = lambda pruned: mean_of([scores[Network(encoder, pruned), name, measure] for name in names])
    return combined([(1.0, mean(more)), (-1.0, mean(less))])


def difference(more: int, less: int) -> str:
    """How the tables name the network with `more` pruned skips minus that with `less`."""
    return f"{architecture(more)} minus {architecture(less)}"


def _fold_rows(
    tested: Sequence[Condition], measured: Mapping[Network, Measures], scores: Scores
) -> list[dict[str, Any]]:
    return [
        _who(network)
        | {
            "fold": fold,
            "best_step": int(measures["step"][fold]),
            "validation_miou": float(measures["validation_miou"][fold]),
        }
        | {condition.name: float(scores[network, condition.name, SET].folds[fold]) for condition in tested}
        | {
            "n": len(tested[0].cases),
            "undefined": 0,
            "interval": "none, one network",
            "convention": "IoU of the set, per condition; validation: on the fold held out",
        }
        for network, measures in measured.items()
        for fold in range(len(measures["step"]))
    ]


def _case_rows(
    tested: Sequence[Condition], measured: Mapping[Network, Measures], classes: Sequence[int]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"case": case, "patient": patient, "group": condition.group, "condition": condition.label}
        for condition in tested
        for case, patient in zip(condition.cases.cases, condition.cases.patients, strict=True)
    ]
    for network, measures in measured.items():
        values = _mean_defined(set_iou(measures["counts"], classes), 0)
        for row, value in zip(rows, values, strict=True):
            row[f"{network.encoder} {network.architecture}"] = float(value)
    return rows


# ------------------------------------------------------------------------------------------------------ distance tables

_OVER_DRAWN = "bootstrap over patients within domains, 95 %, centred on the estimate: resampling itself adds distance"
_DISTANCE = (
    "Hellinger distance per channel, {bins} bins over the joint range, mean over channels and folds; activations "
    "averaged to the grid of the deepest layer"
)


def layer_distances(measures: Measures, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
    """Distances `[F,L]` of the layers, and `[F,L,R]` of drawn patients, the latter centred on the former.

    A resample has some patients twice and others not at all, which adds distance as a smaller test set would; only its
    spread is of interest.
    """
    name = condition.name
    values = [measures[f"{name}/distance/{layer}"].mean(1, dtype=np.float64) for layer in measures["layers"]]
    estimate, drawn = np.stack(values, 1), measures[f"{name}/drawn"].astype(np.float64)
    return estimate, drawn - drawn.mean(-1, keepdims=True) + estimate[..., None]


def _of_layers(measures: Measures, condition: Condition, weights: np.ndarray) -> Drawn:
    """A weighted sum `[L]` of the layers' distances, mean over folds."""
    estimate, drawn = layer_distances(measures, condition)
    folds = estimate @ weights
    cases = condition.cases
    undefined = int(np.isnan(folds).sum())
    return Drawn(float(folds.mean()), (weights @ drawn).mean(0), folds, len(cases), undefined, len(set(cases.patients)))


def _distance_rows(
    config: ml_collections.ConfigDict, tested: Sequence[Condition], measured: Mapping[Network, Measures]
) -> list[dict[str, Any]]:
    rows = []
    for network, measures in measured.items():
        layers, decoder = [str(name) for name in measures["layers"]], roles(config, network).decoder
        for condition in compared(config, tested):
            null = measures[f"{condition.name}/null"].mean(0)  # over folds, [L,S]
            for i, layer in enumerate(layers):
                channels = measures[f"{condition.name}/distance/{layer}"]
                quartiles = np.percentile(channels, [25, 50, 75])
                rows.append(
                    _who(network)
                    | {"compared": condition.name, "layer": layer}
                    | {"part": "decoder" if layer in decoder else "encoder"}
                    | _of_layers(measures, condition, np.eye(len(layers))[i]).row()
                    | {"null": float(null[i].mean()), "null_high": float(np.percentile(null[i], 97.5))}
                    | dict(zip(("quartile_1", "median", "quartile_3"), map(float, quartiles), strict=True))
                    | {
                        "channels": channels.shape[1],
                        "constant": float(measures[f"{condition.name}/constant"][:, i].mean()),
                        "interval": _OVER_DRAWN,
                        "convention": _DISTANCE.format(bins=config.evaluation.bins)
                        + "; null: of the halves of the unshifted test set, mean and 97.5th percentile; channels that "
                        "are constant (mean number over folds) count with their 0",
                    }
                )
    return rows


EARLY = "first layer minus all behind it"
DEEPEST = "first layer minus bottleneck"
DECODER = "decoder of {more} minus decoder of {less}"


def _distance_difference_rows(
    config: ml_collections.ConfigDict, tested: Sequence[Condition], measured: Mapping[Network, Measures]
) -> list[dict[str, Any]]:
    rows = []

    def add(encoder: str, condition: Condition, quantity: str, drawn: Drawn) -> None:
        rows.append(
            {"encoder": encoder, "compared": condition.name, "quantity": quantity}
            | drawn.row()
            | {"interval": f"{_OVER_DRAWN}; paired", "convention": _DISTANCE.format(bins=config.evaluation.bins)}
        )

    for encoder in dict.fromkeys(network.encoder for network in measured):
        layers = [str(name) for name in measured[Network(encoder, 0)]["layers"]]
        blocks = roles(config, Network(encoder, 0))
        weights = {
            EARLY: _weights(layers[:1], layers) - _weights(layers[1:], layers),
            DEEPEST: _weights(layers[:1], layers)
            - _weights([layer for layer in layers if layer not in blocks.decoder][-1:], layers),
        }
        decoder = _weights(blocks.decoder, layers)
        for condition in compared(config, tested):
            for pruned, (quantity, weight) in itertools.product(config.pruned, weights.items()):
                drawn = _of_layers(measured[Network(encoder, pruned)], condition, weight)
                add(encoder, condition, f"{architecture(pruned)}: {quantity}", drawn)
            for more, less in pairs(config):
                change = [
                    (sign, _of_layers(measured[Network(encoder, pruned)], condition, decoder))
                    for sign, pruned in ((1.0, more), (-1.0, less))
                ]
                name = DECODER.format(more=architecture(more), less=architecture(less))
                add(encoder, condition, name, combined(change))
    return rows


def _weights(chosen: Sequence[str], layers: Sequence[str]) -> np.ndarray:
    """`[L]`, of the mean of the chosen layers."""
    return np.array([layer in chosen for layer in layers], float) / len(chosen)


# ------------------------------------------------------------------------------------------------- the paper's numbers

PAPER_PARAMETERS = {  # Table II
    "resnet18": (14_328_354, 14_309_922, 14_273_058, 14_125_602, 13_535_778),
    "resnet34": (24_436_514, 24_418_082, 24_381_218, 24_233_762, 23_643_938),
}
# Section V.A, of Fig. 7: cell IoU at a brightness of 0.75; the text says no more of that figure in numbers
_PAPER_BRIGHTNESS = {
    ("resnet18", 2): 0.86, ("resnet34", 2): 0.90,
    ("resnet18", 3): 0.82, ("resnet34", 3): 0.91,
    ("resnet18", 4): 0.77, ("resnet34", 4): 0.86,
}  # fmt: skip
# Fig. 9: IoU by domain, A (trained on) first
PAPER_DOMAINS: dict[str, dict[tuple[str, int], tuple[float, ...]]] = {
    "MS-MF": {
        ("resnet18", 0): (0.85, 0.58, 0.70, 0.47, 0.57, 0.34),
        ("resnet18", 1): (0.86, 0.57, 0.70, 0.47, 0.53, 0.32),
        ("resnet18", 4): (0.83, 0.60, 0.70, 0.47, 0.59, 0.35),
        ("resnet34", 0): (0.86, 0.56, 0.67, 0.49, 0.53, 0.34),
        ("resnet34", 1): (0.87, 0.60, 0.70, 0.51, 0.58, 0.40),
        ("resnet34", 4): (0.84, 0.59, 0.68, 0.47, 0.57, 0.31),
    },
    "MS-CCT": {
        ("resnet18", 0): (0.63, 0.59, 0.60, 0.55, 0.52),
        ("resnet18", 1): (0.73, 0.68, 0.68, 0.63, 0.64),
        ("resnet18", 4): (0.72, 0.67, 0.68, 0.64, 0.62),
        ("resnet34", 0): (0.71, 0.68, 0.67, 0.58, 0.64),
        ("resnet34", 1): (0.74, 0.70, 0.70, 0.63, 0.67),
        ("resnet34", 4): (0.73, 0.69, 0.68, 0.63, 0.65),
    },
    "MV-MR": {
        ("resnet18", 0): (0.72, 0.60, 0.56, 0.55),
        ("resnet18", 1): (0.77, 0.62, 0.69, 0.58),
        ("resnet18", 4): (0.67, 0.49, 0.50, 0.51),
        ("resnet34", 0): (0.77, 0.65, 0.67, 0.67),
        ("resnet34", 1): (0.79, 0.69, 0.71, 0.68),
        ("resnet34", 4): (0.74, 0.63, 0.60, 0.66),
    },
}
_PAPER_PLACES = {  # data set -> the paper's name of it, and the first word of each domain in the paper's order
    "ms_cct": ("MS-CCT", ("cs2", "nz210", "nz20", "p1000", "gt450")),
    "mnms": ("MV-MR", ("Siemens", "Philips", "GE", "Canon")),
}


def paper_iou(config: ml_collections.ConfigDict, network: Network, condition: Condition) -> float | None:
    """The paper's number beside one of ours, where its text or figures have one."""
    dataset = config.data.dataset.partition("/")[0]
    if dataset == "smear":
        return (
            _PAPER_BRIGHTNESS.get((network.encoder, network.pruned))
            if condition.shift == ("brightness", 0.75)
            else None
        )
    if dataset not in _PAPER_PLACES or condition.group not in (IN_DOMAIN, DOMAIN):
        return None
    name, domains = _PAPER_PLACES[dataset]
    values = PAPER_DOMAINS[name].get((network.encoder, network.pruned))
    word = condition.label.partition(" ")[0]
    return values[domains.index(word)] if values and word in domains else None


def _paper_rows(config: ml_collections.ConfigDict, tested: Sequence[Condition], scores: Scores) -> list[dict[str, Any]]:
    """What pruning changes in the paper's three clinical data sets (differences of Fig. 9), and here."""
    convention = "difference from the baseline's IoU of the set, the paper's from its numbers of two digits"
    rows = [
        {
            "data": f"{data}, the paper",
            "encoder": encoder,
            "difference": difference(pruned, 0),
            "in_domain": round(values[0] - numbers[encoder, 0][0], 3),
            "shifted": round(float(np.mean(np.subtract(values[1:], numbers[encoder, 0][1:]))), 3),
            "conditions": len(values) - 1,
            "convention": convention,
        }
        for data, numbers in PAPER_DOMAINS.items()
        for (encoder, pruned), values in numbers.items()
        if pruned
    ]
    names = places(tested)
    rows += [
        {
            "data": f"{config.data.dataset}, here",
            "encoder": network.encoder,
            "difference": difference(network.pruned, 0),
            "in_domain": _change(scores, network.encoder, network.pruned, 0, names[IN_DOMAIN], SET).value,
            "shifted": _change(scores, network.encoder, network.pruned, 0, names[SHIFTED], SET).value,
            "conditions": len(names[SHIFTED]),
            "convention": convention,
        }
        for network in networks(config)
        if network.pruned
    ]
    return rows


def parameter_rows(config: ml_collections.ConfigDict, cases: pipeline.InMemory) -> list[dict[str, Any]]:
    """Table II: trainable parameters of the paper's networks (three channels, two classes), then of this study's."""
    listed: list[tuple[str, Network, int, int | None]] = [
        ("the paper's", Network(encoder, pruned), _paper_network_size(encoder, pruned), count)
        for encoder, counts in PAPER_PARAMETERS.items()
        for pruned, count in enumerate(counts)
    ]
    for network in networks(config):
        model = checks.build_model(run_config(config, network), cases.num_classes)
        listed.append(("here", network, count_parameters(model, config.data.image_size, cases.num_channels), None))
    convention = "trainable parameters; batch norm's scale and shift count, its running statistics do not"
    return [
        {"networks": whose} | _who(network) | {"parameters": number, "paper": paper, "convention": convention}
        for whose, network, number, paper in listed
    ]


@functools.cache
def _paper_network_size(encoder: str, pruned: int) -> int:
    skips = (False,) * pruned + (True,) * (len(PAPER_PARAMETERS[encoder]) - 1 - pruned)
    # of this type and size the study at the paper's size has traced them, which takes seconds, and is remembered
    model = models.build("resnet_unet", 2, encoder=encoder, skips=skips, dtype=jnp.dtype("float32"))
    return count_parameters(model, 512, 3)


def count_parameters(model: UNetSkeleton, size: int, channels: int) -> int:
    """How many numbers are trained; nothing is computed."""
    variables = tracing.variable_shapes(model, (1, size, size, channels))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
