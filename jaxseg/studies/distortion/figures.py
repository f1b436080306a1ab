"""The figures of the distortion study, from its measures and tables."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from jaxseg.metrics.domain_ranking import MEAN, Domains
from jaxseg.metrics.resampled_ranking import Observations
from jaxseg.report import canvas, figures
from jaxseg.results.patients import Patients
from jaxseg.results.table import Table
from jaxseg.studies.base import of_kept
from jaxseg.studies.distortion import tables
from jaxseg.studies.distortion.cases import Cases
from jaxseg.studies.distortion.tables import StudyReport

_RED = (0.86, 0.05, 0.1)
_RANK_AXIS = "rank correlation with 1 − Dice"


def draw(report: StudyReport) -> None:
    """Writes all figures of the study."""
    folder, cases, measured, results = report.figures, report.cases.scored, report.measured, report.tables
    evaluation = report.settings.evaluation
    domains = cases.by_domain(evaluation.least_patients)
    correlation = results.correlation.where(unit=evaluation.unit)
    detected = results.detection.where(unit=evaluation.unit, quantity=tables.FLAGGED)
    group = {True: "in the paper", False: "not in the paper"}
    ranked = correlation.where(domain=MEAN)
    dots = [(row["score"], group[tables.IN_PAPER[row["score"]]], *row.numbers) for row in ranked]
    figures.dots(folder / "correlation.png", dots, xlabel=_RANK_AXIS)
    _draw_by_domain(folder / "correlation_domains.png", domains, correlation, xlabel=_RANK_AXIS)
    flagged = "share of the cases flagged as out-of-distribution"
    _draw_by_domain(folder / "detection.png", domains, detected, xlabel=flagged)
    dice = cases.case_dice(measured.of_networks("dice"))
    figures.curves(
        folder / "dice_domains.png",
        {"": [_distribution(name, cases, dice, evaluation.resamples) for name in domains.names]},
        xlabel="Dice of a case",
        ylabel="share of cases with at most that",
    )
    slices = tables.observe(cases, measured)
    _draw_rejection(folder, slices if evaluation.unit == "slice" else slices.by_subject(), domains)
    _draw_examples(folder, cases, domains, measured.examples, results.dice.where(quantity=tables.BEFORE))


def _draw_by_domain(path: pathlib.Path, domains: Domains, rows: Table, *, xlabel: str) -> None:
    """The paper's scores in every domain but validation, each domain's scores below each other."""
    dots = [
        (domain if row["score"] == tables.OURS else "", row["score"], *row.numbers)
        for domain in domains.names
        if domain != domains.validation
        for row in rows.where(domain=domain)
        if tables.IN_PAPER[row["score"]]
    ]
    figures.dots(path, dots, xlabel=xlabel)


def _distribution(domain: str, cases: Cases, dice: np.ndarray, resamples: int, points: int = 51) -> figures.Series:
    """The share of a domain's cases, over all networks, up to every Dice."""
    where = cases.domains == domain
    x, values = np.linspace(0, 1, points), dice[:, where].ravel()
    patients = Patients(np.tile(cases.patients[where], len(dice)), resamples)
    estimates = [patients.mean(np.where(np.isnan(values), np.nan, values <= at)) for at in x]
    mean, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("mean", "low", "high"))
    return figures.Series(domain, x, mean, low, high)


def _draw_rejection(folder: pathlib.Path, of: Observations, domains: Domains, points: int = 50) -> None:
    """Mean Dice of the kept cases against their share, mean over networks; then that of the best order."""
    pooled = of.take(np.isin(of.domains, domains.counted))
    shares = np.linspace(0.1, 1, points)
    rows_of = {name: of.of_score(name) for name in of.names}
    lines = [of_kept(name, pooled.scores[rows], 1 - pooled.risks[rows], shares) for name, rows in rows_of.items()]
    own = pooled.risks[rows_of[tables.OURS]]
    figures.curves(
        folder / "rejection.png",
        {"": [*lines, of_kept("best possible", own, 1 - own, shares, style=":")]},
        xlabel="share of the cases that is kept",
        ylabel="mean Dice of those",
        ylim=None,
    )


def _draw_examples(
    folder: pathlib.Path, cases: Cases, domains: Domains, examples: Mapping[str, Mapping[str, np.ndarray]], dice: Table
) -> None:
    rows: dict[str, list[tuple[Any, Any]]] = {"image": [], "annotation": [], "prediction, errors in red": []}
    titles = []
    for name, example in examples.items():
        for row, image in zip(rows.values(), _painted(example, cases.annotated[name] > 0), strict=True):
            row.append((image, None))
        short = "validation" if name == domains.validation else name
        titles.append(f"{short}  {dice.one(domain=name).estimate.mean:.2f}")
    figures.strip(folder / "examples.png", rows, titles=titles)


def _painted(example: Mapping[str, np.ndarray], annotated: np.ndarray) -> list[np.ndarray]:
    """The image, its annotation in colours, and the prediction with what is wrong in red, uint8 `[h,w,3]` each."""
    gray = np.clip((example["images"] + 1) / 2, 0, 1)
    gray = np.broadcast_to(gray, (*gray.shape[:2], 3)) if gray.shape[-1] == 1 else gray[..., :3]
    scored = np.concatenate([[True], annotated])
    known = lambda labels: np.where(scored[labels], labels, 0)  # what is not annotated there is shown on neither side
    labels, classes = known(example["labels"]), known(example["classes"])
    wrong = labels != classes
    layers = [gray, _coloured(gray, labels), _coloured(gray, np.where(wrong, 0, classes))]
    layers[2] = np.where(wrong[..., None], 0.25 * gray + 0.75 * np.array(_RED), layers[2])
    return [np.round(layer * 255).astype(np.uint8) for layer in layers]


def _coloured(gray: np.ndarray, labels: np.ndarray) -> np.ndarray:
    palette = np.array([to_rgb(colour) for colour in (canvas.BLUE, *canvas.PALETTE[2:])])  # red is for errors
    mixed = 0.45 * gray + 0.55 * palette[(labels - 1) % len(palette)]
    return np.where((labels > 0)[..., None], mixed, gray)
