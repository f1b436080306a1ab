"""The segmentation-ability study's measures as tables, with the numbers of He et al. 2022 for ISIC 2017 beside them."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.data import pipeline
from jaxseg.metrics import ranking
from jaxseg.results.table import NONE, PAIRED, Row, Table, table
from jaxseg.studies.segmentation_ability import estimates, quality, scores
from jaxseg.studies.segmentation_ability import experiment as study
from jaxseg.studies.segmentation_ability.estimates import Term
from jaxseg.studies.segmentation_ability.experiment import NETWORKS, Measures
from jaxseg.training import runs

# ISIC 2017 in the paper: means and standard deviations over 600 test images
PAPER_PERFORMANCE = {  # Table 1
    ("offline", "output"): (0.8330, 0.18),
    ("offline", "last layer"): (0.8260, 0.17),
    ("online", "output"): (0.8353, 0.17),
    ("online", "last layer"): (0.8445, 0.16),
}
PAPER_SEPARABLENESS = {"separableness": 0.667, "output": 0.835, "gain": 0.168}  # Table 3, of the online network
PAPER_ACTIVE = "0.2 to 0.5"  # section 4.5, over five data sets; on ISIC more than 20 of 64


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    performance: Table
    layers: Table
    differences: Table
    units: Table
    active: Table
    pruning: Table
    cost: list[dict[str, Any]]
    quality: Table
    buckets: Table
    coverage: Table
    coverage_gains: Table
    separableness: Table
    noise: Table
    noise_groups: Table
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


def tabulate(config: ml_collections.ConfigDict, splits: runs.Splits, measured: Mapping[str, Measures]) -> Tables:
    """All numbers of the study."""
    test = splits["test"]
    patients, validation = (np.array(splits[name].patients) for name in ("test", "validation"))
    each = lambda rows: table(row for network in NETWORKS for row in rows(config, network, measured[network], patients))
    return Tables(
        performance=each(_performance_rows),
        layers=each(_layer_rows),
        differences=table(_difference_rows(config, measured, patients)),
        units=each(_unit_rows),
        active=table(_active_row(config, network, measured[network], validation) for network in NETWORKS),
        pruning=each(_pruning_rows),
        cost=[row for network in NETWORKS for row in _cost_rows(config, network, measured[network])],
        quality=each(quality.correlation_rows),
        buckets=each(quality.bucket_rows),
        coverage=each(quality.coverage_rows),
        coverage_gains=each(quality.gain_rows),
        separableness=each(_separableness_rows),
        noise=each(_noise_rows),
        noise_groups=each(_noise_group_rows),
        training=[_training_row(config, network, measured[network], splits) for network in NETWORKS],
        cases=_case_rows(config, test, measured),
    )


# ------------------------------------------------------------------------------------------------- layers (4.4)


def _performance_rows(
    config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray
) -> list[Row]:
    """Table 1."""
    rows = []
    for what, values, convention in (
        ("output", measures["dice"], estimates.DICE),
        ("last layer", measures["sa"][:, -1], estimates.SA),
    ):
        mean, std = PAPER_PERFORMANCE[network, what]
        more = {"std": estimates.std(values), "paper": mean, "paper_std": std}
        keys = {"network": network, "segmentation": what}
        rows.append(Row(keys, estimates.mean(config, values, patients), convention, more=more))
    return rows


def _layer_rows(config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray) -> list[Row]:
    """Fig. 5."""
    group_of = {i: group for group, members in study.layer_groups(config).items() for i in members}
    return [
        Row(
            {"network": network, "layer": i + 1, "name": name, "group": group_of[i]},
            estimates.mean(config, measures["sa"][:, i], patients),
            estimates.SA,
        )
        for i, name in enumerate(study.layer_names(config))
    ]


LATE, RISE, OVER_OUTPUT = "late minus early layers", "last layer minus first of the decoder", "last layer minus output"
OUTPUT, LAST, ALL = "Dice of the output", "SA of the last layer", "SA, mean over all layers"
BOTH = "online minus offline"


def _difference_rows(
    config: ml_collections.ConfigDict, measured: Mapping[str, Measures], patients: np.ndarray
) -> list[Row]:
    """What the paper says of one layer against another, and of one training against the other."""
    groups = study.layer_groups(config)
    first_of_decoder = study.first_of_decoder(config)
    listed: list[tuple[str, str, list[Term], str]] = []
    for network in NETWORKS:
        sa, dice = measured[network]["sa"], measured[network]["dice"]
        listed += [
            (network, LATE, [*_over(sa, groups["late"]), *_over(sa, groups["early"], -1.0)], estimates.SA),
            (network, RISE, [*_over(sa, [-1]), *_over(sa, [first_of_decoder], -1.0)], estimates.SA),
            (network, OVER_OUTPUT, [*_over(sa, [-1]), (-1.0, dice)], f"{estimates.SA}. {estimates.DICE}"),
        ]
    online, offline = measured["online"], measured["offline"]
    layers = range(online["sa"].shape[1])
    listed += [
        (BOTH, OUTPUT, [(1.0, online["dice"]), (-1.0, offline["dice"])], estimates.DICE),
        (BOTH, LAST, [*_over(online["sa"], [-1]), *_over(offline["sa"], [-1], -1.0)], estimates.SA),
        (BOTH, ALL, [*_over(online["sa"], layers), *_over(offline["sa"], layers, -1.0)], estimates.SA),
    ]
    paper = {
        (network, OVER_OUTPUT): PAPER_PERFORMANCE[network, "last layer"][0] - PAPER_PERFORMANCE[network, "output"][0]
        for network in NETWORKS
    }
    for quantity, what in ((OUTPUT, "output"), (LAST, "last layer")):
        paper[BOTH, quantity] = PAPER_PERFORMANCE["online", what][0] - PAPER_PERFORMANCE["offline", what][0]
    return [
        Row(
            {"network": network, "quantity": quantity},
            estimates.contrast(config, terms, patients),
            convention,
            PAIRED,
            {"paper": round(paper[network, quantity], 4) if (network, quantity) in paper else None},
        )
        for network, quantity, terms, convention in listed
    ]


def _over(values: np.ndarray, columns: Sequence[int], sign: float = 1.0) -> list[Term]:
    """The mean over some columns of `[N,L]`, as terms of a contrast."""
    return [(sign / len(columns), values[:, i]) for i in columns]


# --------------------------------------------------------------------------------------- units, and without some (4.5)


def _unit_rows(config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray) -> list[Row]:
    """Fig. 7: the units of the last layer, sorted by their SA score on the test cases."""
    found = [estimates.mean(config, column, patients) for column in measures["units"].T]
    order = sorted(range(len(found)), key=lambda unit: np.nan_to_num(found[unit].mean))
    active = _active(config, measures)
    convention = f"{estimates.SA}. Of one unit of the last layer"
    return [
        Row({"network": network, "rank": rank, "unit": unit, "active": bool(active[unit])}, found[unit], convention)
        for rank, unit in enumerate(order, 1)
    ]


def _active(config: ml_collections.ConfigDict, measures: Measures) -> np.ndarray:
    """Which units are left by the config's threshold, bool `[C]`."""
    return measures["keep"][config.evaluation.inert_sweep.index(config.evaluation.inert_below)]


_RULE = (
    "Inert: mean SA score on the validation cases below that share of the output's mean Dice there; the best unit stays"
)


def _active_row(config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray) -> Row:
    """The share of units whose score is near the output's, decided anew in every resample of the validation cases."""
    units, output = measures["validation_units"], measures["validation_output"]
    share = config.evaluation.inert_below

    def statistic(*columns: np.ndarray) -> float:
        *found, dice = columns
        return float(scores.active_units(np.stack(found, 1), dice, share).mean()) if len(dice) else math.nan

    columns = {f"unit {i}": column for i, column in enumerate(units.T)} | {"dice": output}
    estimate = ranking.bootstrap(statistic, columns, patients, resamples=config.evaluation.resamples)
    keys = {"network": network, "quantity": "share of active units", "inert_below": share, "units": units.shape[1]}
    return Row(keys, estimate, f"{_RULE}. Interval over the validation cases", more={"paper": PAPER_ACTIVE})


TAKEN_OUT, AT_MEAN = "taken out", "held"


def _pruning_rows(
    config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray
) -> list[Row]:
    """Dice without the inert units, and what that is less than with all; of other thresholds, with them constant."""
    evaluation = config.evaluation
    tested = [
        (share, AT_MEAN, keep, measures["masked_dice"][:, i])
        for i, (share, keep) in enumerate(zip(evaluation.inert_sweep, measures["keep"], strict=True))
    ]
    tested.insert(0, (evaluation.inert_below, TAKEN_OUT, _active(config, measures), measures["pruned_dice"]))
    rows = []
    for share, inert, kept, dice in tested:
        change = estimates.contrast(config, [(1.0, dice), (-1.0, measures["dice"])], patients)
        keys = {"network": network, "inert_below": share, "inert_units": inert}
        more = {"units": len(kept), "active": int(kept.sum()), "dice": estimates.mean(config, dice, patients).mean}
        convention = f"Dice minus that with all units. {estimates.DICE}. {_RULE}. Held: at their mean in validation"
        rows.append(Row(keys, change, convention, PAIRED, more))
    return rows


def _cost_rows(config: ml_collections.ConfigDict, network: str, measures: Measures) -> list[dict[str, Any]]:
    active = _active(config, measures)
    units = len(active), int(active.sum())
    return [
        {
            "network": network,
            "which": which,
            "last_layer": units[i],
            "parameters": int(measures["parameters"][i]),
            "megaflops": float(measures["flops"][i]) / 1e6,
            "milliseconds": 1e3 * float(measures["seconds"][i]),
            "interval": NONE,
            "n": config.evaluation.rounds,
            "undefined": 0,
            "convention": "one forward pass of one image; trained parameters; operations by XLA's cost analysis of the "
            "program as written; milliseconds: median of n passes in turns, beside what else the machine did",
        }
        for i, which in enumerate(("whole", "without inert units"))
    ]


# ------------------------------------------------------------------------------------------ separableness, noise


def _separableness_rows(
    config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray
) -> list[Row]:
    """Table 3."""
    listed = [
        (
            "separableness",
            measures["separableness"],
            f"{estimates.SA}. Separableness: with the image's colours as features",
        ),
        ("output", measures["dice"], estimates.DICE),
        ("gain", measures["gain"], "Dice of the output minus separableness per case, mean: m(d)"),
    ]
    return [
        Row(
            {"network": network, "quantity": quantity},
            estimates.mean(config, values, patients),
            convention,
            more={"paper": PAPER_SEPARABLENESS[quantity] if network == "online" else None},
        )
        for quantity, values, convention in listed
    ]


_NOISE = (
    "SA score with uniform noise of up to this share of the gray range, minus that without, per case, mean; the mask "
    "is the network's own for each image"
)


def _noise_rows(config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray) -> list[Row]:
    """Fig. 16."""
    change = measures["noise_sa"] - measures["sa"][:, None]
    return [
        Row(
            {"network": network, "noise": level, "layer": i + 1, "name": name},
            estimates.mean(config, change[:, v, i], patients),
            _NOISE,
            PAIRED,
        )
        for v, level in enumerate(config.evaluation.noise_levels)
        for i, name in enumerate(study.layer_names(config))
    ]


EARLY_ABSTRACT, LATE_ABSTRACT = "early minus abstract layers", "late minus abstract layers"
ALL_LEVELS = "all"


def _noise_group_rows(
    config: ml_collections.ConfigDict, network: str, measures: Measures, patients: np.ndarray
) -> list[Row]:
    """By how much noise costs one group of layers more than another, per level and over all."""
    change, levels = measures["noise_sa"] - measures["sa"][:, None], config.evaluation.noise_levels
    groups = study.layer_groups(config)
    listed = [(f"{level:g}", [v]) for v, level in enumerate(levels)] + [(ALL_LEVELS, list(range(len(levels))))]
    rows = []
    for (noise, chosen), (quantity, group) in itertools.product(
        listed, ((EARLY_ABSTRACT, "early"), (LATE_ABSTRACT, "late"))
    ):
        terms = [
            (weight / len(chosen), values)
            for v in chosen
            for weight, values in (
                *_over(change[:, v], groups[group]),
                *_over(change[:, v], groups["abstract"], -1.0),
            )
        ]
        convention = f"{_NOISE}. Difference of the groups' means, below 0 where the first loses more"
        who = {"network": network, "noise": noise, "quantity": quantity}
        rows.append(Row(who, estimates.contrast(config, terms, patients), convention, PAIRED))
    return rows


# ------------------------------------------------------------------------------------------------------------ the rest


def _training_row(
    config: ml_collections.ConfigDict, network: str, measures: Measures, splits: runs.Splits
) -> dict[str, Any]:
    return {
        "network": network,
        "ability_weight": study.run_config(config, network).training.ability_weight,
        "best_step": int(measures["step"]),
        "validation_dice": float(measures["validation_dice"]),
        "n": len(splits["validation"]),
        "undefined": int(np.isnan(measures["validation_output"]).sum()),
        "interval": NONE,
        "convention": "mean per case and foreground class, undefined left out",
    }


def _case_rows(
    config: ml_collections.ConfigDict, test: pipeline.InMemory, measured: Mapping[str, Measures]
) -> list[dict[str, Any]]:
    names = ("dice", "mean_sa", "vog", "separableness", "gain", "pruned_dice")
    return [
        {"case": test.cases[i], "patient": test.patients[i], "network": network}
        | {name: float(measures[name][i]) for name in names}
        | {f"sa_{layer + 1}": float(value) for layer, value in enumerate(measures["sa"][i])}
        for network, measures in measured.items()
        for i in range(len(test))
    ]
