"""The distortion study's scores and Dice as tables.

A number of several networks is the mean over them. Its interval is from resampled patients and does not cover the
variation between seeds, which the standard deviation over runs shows.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxseg.data.augmentation.settings import check_augmentation
from jaxseg.metrics import domain_ranking
from jaxseg.metrics.domain_ranking import MEAN, TOGETHER, Domains
from jaxseg.metrics.intervals import Estimate, defined_mean
from jaxseg.metrics.resampled_ranking import Observations, Resampled
from jaxseg.results.patients import Patients
from jaxseg.results.table import OVER_PATIENTS, PAIRED, Row, Table, table
from jaxseg.scores import registry
from jaxseg.scores.base import ENSEMBLE
from jaxseg.studies.base import Report, case_records
from jaxseg.studies.distortion.cases import SHIFTED, VALIDATION, Cases, Gathered
from jaxseg.studies.distortion.experiment import Measured
from jaxseg.studies.distortion.settings import UNITS, Evaluation, Settings

OURS = "SD"
CORRELATION = "rank correlation"
FLAGGED, AUROC, FPR = "flagged as out-of-distribution", "AUROC", "FPR@95"
BEFORE, AFTER, LOST = "Dice", "Dice with the bottleneck reconstructed", "Dice lost by reconstructing the bottleneck"
OF_ENSEMBLE = "Dice of the ensemble"
RANK = "Spearman's rank correlation with 1 - Dice, within a domain unless it says otherwise; mean over the networks"
SHARE = "share above the threshold"
TOO_FEW = "none: too few patients"
_DICE = (
    "Dice per case, mean over the classes that are annotated in its domain and not undefined; mean over the networks"
)
_FIG2, _FIG3 = (f"drawn in Fig. {number}, no number in the text" for number in (2, 3))
_NOT_GIVEN = "not given"
_PAPER_SCORES = ("distortion", "mahalanobis", "latent_mahalanobis", "entropy", "ensemble_entropy")
SCORES = tuple(
    registry.SCORES[key] for key in (*_PAPER_SCORES, *(key for key in registry.SCORES if key not in _PAPER_SCORES))
)
IN_PAPER = {score.name: score.key in _PAPER_SCORES for score in SCORES}


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    dice: Table
    correlation: Table
    differences: Table
    detection: Table
    risk_coverage: Table
    classes: list[dict[str, Any]]
    settings: list[dict[str, Any]]
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


StudyReport = Report[Settings, Gathered, Measured, Tables]


def tabulate(settings: Settings, gathered: Gathered, measured: Measured) -> Tables:
    """All numbers of the study."""
    cases, evaluation = gathered.scored, settings.evaluation
    least = evaluation.least_patients
    domains, slices = cases.by_domain(least), observe(cases, measured)
    units = [_ask(name, of, domains, evaluation) for name, of in zip(UNITS, (slices, slices.by_subject()), strict=True)]
    of_units = lambda rows: table(_if_enough(row, least) for unit in units for row in rows(unit))
    return Tables(
        dice=table(_if_enough(row, least) for row in _dice_rows(cases, measured, domains, evaluation.resamples)),
        correlation=of_units(_correlation_rows),
        differences=of_units(_difference_rows),
        detection=of_units(functools.partial(_detection_rows, keep=evaluation.keep)),
        risk_coverage=of_units(_risk_rows),
        classes=_class_records(cases),
        settings=_setting_records(settings, cases),
        training=list(measured.training),
        cases=_case_records(cases, slices, measured),
    )


def _if_enough(row: Row, least_patients: int) -> Row:
    """The row, without an interval where there are too few patients for one."""
    if row.estimate.patients >= least_patients:
        return row
    estimate = dataclasses.replace(row.estimate, low=math.nan, high=math.nan)
    return dataclasses.replace(row, estimate=estimate, interval=TOO_FEW)


def observe(cases: Cases, measured: Measured) -> Observations:
    """Scores and risks of every slice."""
    runs_of = {score: measured.ensembles if ENSEMBLE in score.needs else measured.networks for score in SCORES}
    names = tuple(score.name for score, runs in runs_of.items() if runs)
    pairs = [(score, run) for score, runs in runs_of.items() for run in runs]
    scores = np.stack([score.risk(run[score.key]).astype(np.float64) for score, run in pairs])
    risks = np.stack([1.0 - cases.case_dice(run["dice"]) for _, run in pairs])
    owner = np.array([names.index(score.name) for score, _ in pairs])
    return Observations(scores, risks, owner, names, cases.domains, cases.patients)


@dataclasses.dataclass(frozen=True, eq=False)
class _Unit:
    """What all scores are worth, by slice or by subject."""

    name: str  # slice or subject
    of: Observations
    domains: Domains
    correlations: Resampled  # as the functions of that name in `domain_ranking`
    detection: Resampled
    areas: Resampled

    def row(
        self,
        keys: Mapping[str, str],
        resampled: Resampled,
        index: int,
        convention: str,
        paper: str,
        *,
        minus: str | None = None,
        **more: float,
    ) -> Row:
        """A number of the `score` in the `domain` that keys name, or by how much it exceeds that of another score."""
        domain, score = keys.get("domain", TOGETHER), keys["score"]
        pooled = domain in (MEAN, TOGETHER)
        where = np.isin(self.of.domains, self.domains.counted if pooled else (domain,))
        estimate = resampled.estimate(index, score, where, minus=minus)
        of = {"unit": self.name, **keys, "score": minus or score}
        said = paper if IN_PAPER[minus or score] else "score not in the paper"
        return Row(of, estimate, convention, PAIRED if minus else OVER_PATIENTS, {**more, "paper": said})


def _ask(name: str, of: Observations, domains: Domains, evaluation: Evaluation) -> _Unit:
    resampled = lambda statistic, needs_risk=True, **more: of.resampled(
        functools.partial(statistic, domains=domains, **more), resamples=evaluation.resamples, needs_risk=needs_risk
    )
    threshold = domain_ranking.thresholds(of, domains, evaluation.keep)
    detection = resampled(domain_ranking.detection, needs_risk=False, threshold=threshold)
    return _Unit(name, of, domains, resampled(domain_ranking.correlations), detection, resampled(domain_ranking.areas))


def _correlation_rows(unit: _Unit) -> Iterator[Row]:
    for q, domain in enumerate((*unit.domains.names, MEAN, TOGETHER)):
        deviations = unit.of.deviation_over_runs(unit.correlations.runs[q])
        for score, deviation in zip(unit.of.names, deviations, strict=True):
            keys = {"domain": domain, "score": score}
            yield unit.row(keys, unit.correlations, q, RANK, _FIG3, runs_std=deviation)


def _difference_rows(unit: _Unit) -> Iterator[Row]:
    """SD minus every other score: rank correlations, and the shares flagged as out-of-distribution; paired."""
    for quantity, resampled, what, paper in (
        (CORRELATION, unit.correlations, RANK, "SD higher in almost all cases (Fig. 3)"),
        (FLAGGED, unit.detection, SHARE, "PM far higher than SD (Fig. 4)"),
    ):
        convention = f"SD minus the other score: {what}"
        for q, domain in enumerate((*unit.domains.names, MEAN)):
            for other in (name for name in unit.of.names if name != OURS):
                keys = {"quantity": quantity, "domain": domain, "score": OURS}
                yield unit.row(keys, resampled, q, convention, paper, minus=other)


def _detection_rows(unit: _Unit, *, keep: float) -> Iterator[Row]:
    domains, inside = (*unit.domains.names, MEAN), f"in-distribution ({unit.domains.inside})"
    flagged = f"{SHARE}; threshold: at or below it lie {keep:.0%} of in-distribution validation"
    quantities = (
        (FLAGGED, flagged, "drawn in Fig. 4 for M&Ms; near-perfect for all on CC-359"),
        (AUROC, f"against {inside} cases", _NOT_GIVEN),
        (FPR, f"{inside} cases flagged where 95 % of the shifted ones are", _NOT_GIVEN),
    )
    for m, (quantity, convention, paper) in enumerate(quantities):
        for d, domain in enumerate(domains):
            if quantity == FLAGGED or domain in (*unit.domains.counted, MEAN):
                for score in unit.of.names:
                    keys = {"quantity": quantity, "domain": domain, "score": score}
                    yield unit.row(keys, unit.detection, m * len(domains) + d, convention, paper)


def _risk_rows(unit: _Unit) -> Iterator[Row]:
    convention = "mean 1 - Dice of what is kept, area over coverage; shifted domains together; less is better"
    for q, quantity in enumerate(("AURC", "excess AURC")):
        for score in unit.of.names:
            yield unit.row({"quantity": quantity, "score": score}, unit.areas, q, convention, _NOT_GIVEN)


@dataclasses.dataclass(frozen=True, eq=False)
class _DiceQuantity:
    """A mean over networks, or ensembles, or the difference of two."""

    of_runs: np.ndarray  # Dice of each of M runs, `[M,N]`
    minus: np.ndarray | None = None  # the same that is subtracted, if it is a difference
    of_class: bool = False  # whether it is of one class, which need not be annotated everywhere
    convention: str = _DICE  # as tables have them
    paper: str = _FIG2

    def estimate(self, where: np.ndarray, patients: Patients) -> Estimate:
        """Of some of the cases."""
        signed = [(1.0, self.of_runs)] + ([] if self.minus is None else [(-1.0, self.minus)])
        terms = [(sign / len(runs_of), values[where]) for sign, runs_of in signed for values in runs_of]
        return patients.of(where).contrast(terms)

    def deviation(self, where: np.ndarray) -> float:
        """Standard deviation over the runs; NaN of one run, or of a difference."""
        if self.minus is not None or len(self.of_runs) == 1:
            return math.nan
        chosen = self.of_runs[:, where]
        means = [float(np.nanmean(values)) if not np.isnan(values).all() else math.nan for values in chosen]
        return float(np.std(means, ddof=1))


def _dice_rows(cases: Cases, measured: Measured, domains: Domains, resamples: int) -> Iterator[Row]:
    """By domain: the mean, every class, the ensemble, and what the autoencoder costs."""
    patients = Patients(cases.patients, resamples)
    where = {name: cases.domains == name for name in domains.names}
    where[TOGETHER] = np.isin(cases.domains, domains.counted)
    for domain, chosen in where.items():
        for name, quantity in _dice_quantities(cases, measured).items():
            if quantity.of_class and np.isnan(quantity.of_runs[:, chosen]).all():
                continue  # not annotated there
            keys = {"domain": domain, "quantity": name}
            more = {"runs_std": quantity.deviation(chosen), "paper": quantity.paper}
            yield Row(keys, quantity.estimate(chosen, patients), quantity.convention, more=more)


def _dice_quantities(cases: Cases, measured: Measured) -> dict[str, _DiceQuantity]:
    before, after = (cases.case_dice(measured.of_networks(key)) for key in ("dice", "dice_after"))
    quantities = {
        BEFORE: _DiceQuantity(before),
        AFTER: _DiceQuantity(after),
        LOST: _DiceQuantity(before, minus=after, paper="slightly reduced in all cases"),
    }
    if measured.ensembles:
        quantities[OF_ENSEMBLE] = _DiceQuantity(np.stack([cases.case_dice(run["dice"]) for run in measured.ensembles]))
    classes = cases.stored.class_names[1:]
    if len(classes) > 1:
        by_class = cases.class_dice(measured.of_networks("dice"))
        for k, name in enumerate(classes):
            convention = f"Dice of {name} per case; mean over the networks"
            quantities[f"Dice of {name}"] = _DiceQuantity(by_class[..., k], of_class=True, convention=convention)
    return quantities


def _class_records(cases: Cases) -> list[dict[str, Any]]:
    convention = "a class of which a domain has no pixel is taken as not annotated there, and not scored"
    size = lambda domain: int((cases.domains == domain).sum())
    return [
        {"domain": domain, "class": name, "cases_with_it": int(count), "n": size(domain), "scored": bool(count)}
        | {"convention": convention}
        for domain, counts in cases.annotated.items()
        for name, count in zip(cases.stored.class_names[1:], counts, strict=True)
    ]


def _setting_records(settings: Settings, cases: Cases) -> list[dict[str, Any]]:
    """Settings here and in the paper."""
    run, evaluation, training = settings.run, settings.evaluation, settings.run.training
    changes = check_augmentation(run.data.augmentation.to_dict())
    kinds = [name for name, on in (("geometric", changes.moves), ("of intensities", bool(changes.intensities))) if on]
    patients = lambda role: cases.patient_count(cases.roles == role)
    here = (
        ("networks", run.replicas, "10"),
        ("networks in an ensemble", evaluation.ensemble_size, "5"),
        ("network", run.model.name, "U-Net, similar to Shirokikh et al. 2020 (residual_unet)"),
        ("image size (px)", run.data.image_size, "not in the text"),
        ("optimiser, rate", f"{training.optimizer}, {training.learning_rate:g}", "Adam, 0.001"),
        ("epochs", training.epochs, "until convergence on validation"),
        ("loss", training.loss, "not in the text"),
        ("augmentation", " and ".join(kinds) or "none", "CC-359: none; ACDC: as nnU-Net"),
        ("latent of the autoencoder", settings.autoencoder.latent, "CC-359: 64; M&Ms: 128"),
        ("epochs of the autoencoder", settings.autoencoder_training.epochs, "until convergence on validation"),
        ("in-distribution validation kept by the threshold", f"{evaluation.keep:.0%}", "95%"),
        ("shifted domains", len(cases.of_role(SHIFTED)), "CC-359: 5; M&Ms: 4"),
        ("shifted patients", patients(SHIFTED), "not in the text"),
        ("in-distribution validation patients", patients(VALIDATION), "not in the text"),
        ("unit of the verdict", evaluation.unit, "image"),
    )
    return [{"setting": name, "here": str(value), "paper": paper} for name, value, paper in here]


def _case_records(cases: Cases, of: Observations, measured: Measured) -> list[dict[str, Any]]:
    scores = of.mean_over_runs(of.scores.T)  # [N,S]
    dice = defined_mean(cases.case_dice(measured.of_networks("dice")), axis=0)
    columns = {"patient": cases.patients, "domain": cases.domains, "role": cases.roles, "dice": dice}
    columns |= dict(zip(of.names, scores.T, strict=True))
    convention = np.full(len(dice), "means over the networks, or ensembles")
    return case_records(cases.stored, columns | {"convention": convention})
