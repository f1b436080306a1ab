"""The segmentation-ability study's measures as tables, with the numbers of He et al. 2022 for ISIC 2017 beside them."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.analysis import prototypes
from jaxseg.results.patients import Patients, Terms
from jaxseg.results.table import NONE, PAIRED, Row, Table, table
from jaxseg.studies.base import Measures, Report, case_records
from jaxseg.studies.segmentation_ability import quality
from jaxseg.studies.segmentation_ability.experiment import Measured
from jaxseg.studies.segmentation_ability.quality import DICE, SA
from jaxseg.studies.segmentation_ability.settings import NETWORKS, Settings
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


StudyReport = Report[Settings, runs.Splits, Measured, Tables]


def tabulate(settings: Settings, splits: runs.Splits, measures: Measured) -> Tables:
    """All numbers of the study."""
    measured = measures.networks
    of = lambda name: Patients(np.array(splits[name].patients), settings.evaluation.resamples)
    patients, validation = of("test"), of("validation")
    each = lambda rows: table(row for name in NETWORKS for row in rows(settings, name, measured[name], patients))
    return Tables(
        performance=each(_performance_rows),
        layers=each(_layer_rows),
        differences=table(_difference_rows(settings, measured, patients)),
        units=each(_unit_rows),
        active=table(_active_row(settings, network, measured[network], validation) for network in NETWORKS),
        pruning=each(_pruning_rows),
        cost=[row for network in NETWORKS for row in _cost_rows(settings, network, measured[network])],
        quality=each(quality.correlation_rows),
        buckets=each(quality.bucket_rows),
        coverage=each(quality.coverage_rows),
        coverage_gains=each(quality.gain_rows),
        separableness=each(_separableness_rows),
        noise=each(_noise_rows),
        noise_groups=each(_noise_group_rows),
        training=[_training_row(settings, network, measured[network], splits) for network in NETWORKS],
        cases=[record for network, m in measured.items() for record in _case_records(splits, network, m)],
    )


def _performance_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Table 1."""
    for what, values, convention in (("output", measures["dice"], DICE), ("last layer", measures["sa"][:, -1], SA)):
        mean, std = PAPER_PERFORMANCE[network, what]
        more = {"std": _std(values), "paper": mean, "paper_std": std}
        yield patients.row(values, convention, more=more, network=network, segmentation=what)


def _layer_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Fig. 5."""
    group_of = {i: group for group, members in settings.layer_groups.items() for i in members}
    for i, name in enumerate(settings.layers):
        yield patients.row(measures["sa"][:, i], SA, network=network, layer=i + 1, name=name, group=group_of[i])


LATE, RISE, OVER_OUTPUT = "late minus early layers", "last layer minus first of the decoder", "last layer minus output"
OUTPUT, LAST, ALL = "Dice of the output", "SA of the last layer", "SA, mean over all layers"
BOTH = "online minus offline"


def _difference_rows(settings: Settings, measured: Mapping[str, Measures], patients: Patients) -> Iterator[Row]:
    """What the paper says of one layer against another, and of one training against the other."""
    groups, first_of_decoder = settings.layer_groups, settings.first_of_decoder
    listed: list[tuple[str, str, Terms, str]] = []
    for network in NETWORKS:
        sa, dice = measured[network]["sa"], measured[network]["dice"]
        listed += [
            (network, LATE, [*_over(sa, groups["late"]), *_over(sa, groups["early"], -1.0)], SA),
            (network, RISE, [*_over(sa, [-1]), *_over(sa, [first_of_decoder], -1.0)], SA),
            (network, OVER_OUTPUT, [*_over(sa, [-1]), (-1.0, dice)], f"{SA}. {DICE}"),
        ]
    online, offline = measured["online"], measured["offline"]
    layers = range(online["sa"].shape[1])
    listed += [
        (BOTH, OUTPUT, [(1.0, online["dice"]), (-1.0, offline["dice"])], DICE),
        (BOTH, LAST, [*_over(online["sa"], [-1]), *_over(offline["sa"], [-1], -1.0)], SA),
        (BOTH, ALL, [*_over(online["sa"], layers), *_over(offline["sa"], layers, -1.0)], SA),
    ]
    minus = lambda more, less: round(PAPER_PERFORMANCE[more][0] - PAPER_PERFORMANCE[less][0], 4)
    paper = {(n, OVER_OUTPUT): minus((n, "last layer"), (n, "output")) for n in NETWORKS}
    for quantity, what in ((OUTPUT, "output"), (LAST, "last layer")):
        paper[BOTH, quantity] = minus(("online", what), ("offline", what))
    for network, quantity, terms, convention in listed:
        more = {"paper": paper.get((network, quantity))}
        yield patients.row(terms, convention, more=more, network=network, quantity=quantity)


def _over(values: np.ndarray, columns: Sequence[int], sign: float = 1.0) -> list[tuple[float, np.ndarray]]:
    """The mean over some columns of `[N,L]`, as terms of a contrast."""
    return [(sign / len(columns), values[:, i]) for i in columns]


def _unit_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Fig. 7: the units of the last layer, sorted by their SA score on the test cases."""
    estimates = [patients.mean(column) for column in measures["units"].T]
    order = sorted(range(len(estimates)), key=lambda unit: np.nan_to_num(estimates[unit].mean))
    active = _active(settings, measures)
    for rank, unit in enumerate(order, 1):
        keys = {"network": network, "rank": rank, "unit": unit, "active": bool(active[unit])}
        yield Row(keys, estimates[unit], f"{SA}. Of one unit of the last layer")


def _active(settings: Settings, measures: Measures) -> np.ndarray:
    """Which units are left by the config's threshold, bool `[C]`."""
    return measures["keep"][settings.evaluation.inert_sweep.index(settings.evaluation.inert_below)]


_RULE = (
    "Inert: mean SA score on the validation cases below that share of the output's mean Dice there; the best unit stays"
)


def _active_row(settings: Settings, network: str, measures: Measures, patients: Patients) -> Row:
    """The share of units whose score is near the output's, decided anew in every resample of the validation cases."""
    units, output = measures["validation_units"], measures["validation_output"]
    share = settings.evaluation.inert_below

    def statistic(*columns: np.ndarray) -> float:
        *scored, dice = columns
        return float(prototypes.active_units(np.stack(scored, 1), dice, share).mean()) if len(dice) else math.nan

    columns = {f"unit {i}": column for i, column in enumerate(units.T)} | {"dice": output}
    estimate = patients.statistic(statistic, columns)
    keys = {"network": network, "quantity": "share of active units", "inert_below": share, "units": units.shape[1]}
    return Row(keys, estimate, f"{_RULE}. Interval over the validation cases", more={"paper": PAPER_ACTIVE})


TAKEN_OUT, AT_MEAN = "taken out", "held"


def _pruning_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Dice without the inert units, and what that is less than with all; of other thresholds, with them constant."""
    evaluation = settings.evaluation
    tested = [
        (share, AT_MEAN, keep, measures["masked_dice"][:, i])
        for i, (share, keep) in enumerate(zip(evaluation.inert_sweep, measures["keep"], strict=True))
    ]
    tested.insert(0, (evaluation.inert_below, TAKEN_OUT, _active(settings, measures), measures["pruned_dice"]))
    for share, inert, kept, dice in tested:
        change = [(1.0, dice), (-1.0, measures["dice"])]
        more = {"units": len(kept), "active": int(kept.sum()), "dice": patients.mean(dice).mean}
        convention = f"Dice minus that with all units. {DICE}. {_RULE}. Held: at their mean in validation"
        yield patients.row(change, convention, more=more, network=network, inert_below=share, inert_units=inert)


def _cost_rows(settings: Settings, network: str, measures: Measures) -> list[dict[str, Any]]:
    active = _active(settings, measures)
    parameters, flops, seconds = (measures[name] for name in ("parameters", "flops", "seconds"))
    convention = (
        "one forward pass of one image; trained parameters; operations by XLA's cost analysis of the program as "
        "written; milliseconds: median of n passes in turns, beside what else the machine did"
    )
    said = {"interval": NONE, "n": settings.evaluation.rounds, "undefined": 0, "convention": convention}
    return [
        {"network": network, "which": which, "last_layer": units, "parameters": int(parameters[i])}
        | {"megaflops": float(flops[i]) / 1e6, "milliseconds": 1e3 * float(seconds[i])}
        | said
        for i, (which, units) in enumerate((("whole", len(active)), ("without inert units", int(active.sum()))))
    ]


def _separableness_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Table 3."""
    listed = [
        ("separableness", measures["separableness"], f"{SA}. Separableness: with the image's colours as features"),
        ("output", measures["dice"], DICE),
        ("gain", measures["gain"], "Dice of the output minus separableness per case, mean: m(d)"),
    ]
    for quantity, values, convention in listed:
        more = {"paper": PAPER_SEPARABLENESS[quantity] if network == "online" else None}
        yield patients.row(values, convention, more=more, network=network, quantity=quantity)


_NOISE = (
    "SA score with uniform noise of up to this share of the gray range, minus that without, per case, mean; the mask "
    "is the network's own for each image"
)


def _noise_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """Fig. 16."""
    change = measures["noise_sa"] - measures["sa"][:, None]
    places = itertools.product(enumerate(settings.evaluation.noise_levels), enumerate(settings.layers))
    for (v, level), (i, name) in places:
        values, layer = change[:, v, i], i + 1
        yield patients.row(values, _NOISE, interval=PAIRED, network=network, noise=level, layer=layer, name=name)


EARLY_ABSTRACT, LATE_ABSTRACT = "early minus abstract layers", "late minus abstract layers"
ALL_LEVELS = "all"


def _noise_group_rows(settings: Settings, network: str, measures: Measures, patients: Patients) -> Iterator[Row]:
    """By how much noise costs one group of layers more than another, per level and over all."""
    change, levels = measures["noise_sa"] - measures["sa"][:, None], settings.evaluation.noise_levels
    groups, compared = settings.layer_groups, ((EARLY_ABSTRACT, "early"), (LATE_ABSTRACT, "late"))
    listed = [(f"{level:g}", [v]) for v, level in enumerate(levels)] + [(ALL_LEVELS, list(range(len(levels))))]
    for (noise, chosen), (quantity, group) in itertools.product(listed, compared):
        terms = [
            (weight / len(chosen), values)
            for v in chosen
            for weight, values in (*_over(change[:, v], groups[group]), *_over(change[:, v], groups["abstract"], -1.0))
        ]
        convention = f"{_NOISE}. Difference of the groups' means, below 0 where the first loses more"
        yield patients.row(terms, convention, network=network, noise=noise, quantity=quantity)


def _training_row(settings: Settings, network: str, measures: Measures, splits: runs.Splits) -> dict[str, Any]:
    weight, undefined = settings.of_run(network).training.ability_weight, np.isnan(measures["validation_output"]).sum()
    best = {"best_step": int(measures["step"]), "validation_dice": float(measures["validation_dice"])}
    counts = {"n": len(splits["validation"]), "undefined": int(undefined), "interval": NONE}
    convention = "mean per case and foreground class, undefined left out"
    return {"network": network, "ability_weight": weight, **best, **counts, "convention": convention}


def _case_records(splits: runs.Splits, network: str, measures: Measures) -> list[dict[str, Any]]:
    names = ("dice", "mean_sa", "vog", "separableness", "gain", "pruned_dice")
    layers = {f"sa_{number}": values for number, values in enumerate(measures["sa"].T, 1)}
    return case_records(splits["test"], {name: measures[name] for name in names} | layers, network=network)


def _std(values: np.ndarray) -> float:
    """Standard deviation over the defined cases, which the paper prints after its means."""
    defined = values[~np.isnan(values)]
    return float(defined.std()) if defined.size else math.nan
