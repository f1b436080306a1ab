"""The figures of the distortion study, from its measures and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from matplotlib.colors import to_rgb

from jaxseg.metrics import ranking
from jaxseg.metrics.intervals import bootstrap_mean
from jaxseg.report import canvas, figures
from jaxseg.scores.cases import SCORES
from jaxseg.studies.base import Report
from jaxseg.studies.distortion import experiment as study
from jaxseg.studies.distortion import numbers
from jaxseg.studies.distortion import tables as results

_RED = (0.86, 0.05, 0.1)
_IN_PAPER = {score.name: score.in_paper for score in SCORES}


def draw(report: Report[ml_collections.ConfigDict, study.Data, study.Measured, results.Tables]) -> None:
    """Writes all figures of the study."""
    folder, config, cases, measured = report.figures, report.settings, report.cases.scored, report.measured
    found = report.tables
    typical = results.typical_cases(cases, measured)
    examples = study.examples(config, report.cases.splits, cases, typical, report.workdir)
    unit = config.evaluation.unit
    correlation = [row for row in found.correlation if row["unit"] == unit]
    axis = "rank correlation with 1 − Dice"
    figures.dots(
        folder / "correlation.png",
        [
            (row["score"], "in the paper" if _IN_PAPER[row["score"]] else "beyond it", *_estimate(row))
            for row in correlation
            if row["domain"] == numbers.MEAN
        ],
        xlabel=axis,
    )
    figures.dots(folder / "correlation_domains.png", _by_domain(cases, correlation), xlabel=axis)
    detected = [row for row in found.detection if (row["unit"], row["quantity"]) == (unit, results.DETECTED)]
    figures.dots(
        folder / "detection.png", _by_domain(cases, detected), xlabel="share of the cases that are called foreign"
    )
    dice = results.case_dice(cases, measured.networks)
    figures.curves(
        folder / "dice_domains.png",
        {"": [_distribution(config, cases, dice, name) for name in cases.names]},
        xlabel="Dice of a case",
        ylabel="share of cases with at most that",
    )
    slices = results.observe(cases, measured)
    figures.curves(
        folder / "rejection.png",
        {"": _rejection(slices if unit == "slice" else slices.by_subject(), study.counted_domains(config, cases))},
        xlabel="share of the cases that is kept",
        ylabel="mean Dice of those",
        ylim=None,
    )
    rows: dict[str, list[tuple[Any, Any]]] = {"image": [], "annotation": [], "prediction, errors in red": []}
    for name in examples:
        for row, image in zip(rows.values(), _painted(examples[name], cases.drawn[name] > 0), strict=True):
            row.append((image, None))
    mean = {row["domain"]: row["mean"] for row in found.dice if row["quantity"] == results.BEFORE}
    titles = [f"{name.replace('validation', 'val.')}  {mean[name]:.2f}" for name in examples]
    figures.strip(folder / "examples.png", rows, titles=titles)


def _estimate(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return row["mean"], row["low"], row["high"]


def _by_domain(cases: study.Cases, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float, float, float]]:
    """The paper's scores in every domain but validation, each domain's scores below each other."""
    return [
        (row["domain"] if row["score"] == "SD" else "", row["score"], *_estimate(row))
        for domain in (name for name in cases.names if not name.endswith("(validation)"))
        for row in rows
        if row["domain"] == domain and _IN_PAPER[row["score"]]
    ]


def _distribution(
    config: ml_collections.ConfigDict, cases: study.Cases, dice: np.ndarray, domain: str, points: int = 51
) -> figures.Series:
    """The share of a domain's cases, over all networks, up to every Dice."""
    where = cases.domains == domain
    x = np.linspace(0, 1, points)
    patients, values = cases.patients[where], dice[:, where]
    rows = [np.where(np.isnan(values), np.nan, values <= at) for at in x]
    estimates = [
        bootstrap_mean(row.ravel(), np.tile(patients, len(values)), resamples=config.evaluation.resamples)
        for row in rows
    ]
    mean, low, high = (np.array([getattr(e, name) for e in estimates]) for name in ("mean", "low", "high"))
    return figures.Series(domain, x, mean, low, high)


def _rejection(of: numbers.Observations, domains: Sequence[str], points: int = 50) -> list[figures.Series]:
    """Mean Dice of the kept cases against their share, mean over networks; then that of the best order."""
    where = np.isin(of.domains, domains)
    grid = np.linspace(0.1, 1, points)

    def series(name: str, scores: np.ndarray, risks: np.ndarray, style: str = "-") -> figures.Series:
        found = [ranking.risk_coverage(*pair) for pair in zip(scores, risks, strict=True)]
        curves = [1 - np.interp(grid, curve.coverage, curve.risk) for curve in found if curve.n > 1]
        mean = np.mean(curves, 0) if curves else np.full(points, np.nan)
        return figures.Series(name, grid, mean, mean, mean, style)

    lines = [
        series(name, of.scores[of.owner == s][:, where], of.risks[of.owner == s][:, where])
        for s, name in enumerate(of.names)
    ]
    own = of.risks[of.owner == 0][:, where]
    return [*lines, series("best possible", own, own, ":")]


def _painted(example: Mapping[str, np.ndarray], drawn: np.ndarray) -> list[np.ndarray]:
    """The image, its annotation in colours, and the prediction with what is wrong in red, uint8 `[h,w,3]` each."""
    gray = np.clip((example["images"] + 1) / 2, 0, 1)
    gray = np.broadcast_to(gray, (*gray.shape[:2], 3)) if gray.shape[-1] == 1 else gray[..., :3]
    scored = np.concatenate([[True], drawn])
    known = lambda labels: np.where(scored[labels], labels, 0)  # what nobody drew there is shown on neither side
    labels, classes = known(example["labels"]), known(example["classes"])
    wrong = labels != classes
    layers = [gray, _coloured(gray, labels), _coloured(gray, np.where(wrong, 0, classes))]
    layers[2] = np.where(wrong[..., None], 0.25 * gray + 0.75 * np.array(_RED), layers[2])
    return [np.round(layer * 255).astype(np.uint8) for layer in layers]


def _coloured(gray: np.ndarray, labels: np.ndarray) -> np.ndarray:
    palette = np.array([to_rgb(colour) for colour in (canvas.BLUE, *canvas.PALETTE[2:])])  # red is for errors
    mixed = 0.45 * gray + 0.55 * palette[(labels - 1) % len(palette)]
    return np.where((labels > 0)[..., None], mixed, gray)
