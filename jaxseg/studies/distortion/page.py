"""The page of the distortion study."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxseg.metrics.domain_ranking import MEAN, TOGETHER
from jaxseg.report import estimates, page
from jaxseg.results.claims import Claim
from jaxseg.results.table import Row, Table, table
from jaxseg.scores import registry
from jaxseg.studies.distortion import tables
from jaxseg.studies.distortion.cases import SHIFTED
from jaxseg.studies.distortion.claims import NEGLIGIBLE
from jaxseg.studies.distortion.settings import UNITS
from jaxseg.studies.distortion.tables import StudyReport

_COUNTS = ("n", "undefined", "patients")
_PAPER = {"paper": "paper"}
_DEVIATION = {"runs_std": "std over runs", **_PAPER}


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    unit = report.settings.evaluation.unit
    lead = report.figure(
        "correlation",
        "Rank correlation with 1 - Dice",
        "Dots with intervals: rank correlation of every score with 1 - Dice, mean of the shifted domains.",
        f"Within each shifted domain, by {unit}; mean of the domains. {_runs_text(report)} "
        f"{_scores(report, of_paper=False)}",
    )
    question = "Does distortion tell where a segmentation is wrong on another scanner?"
    sections = (_comparison, _claims, _failure_prediction, _detection, _rejection, _segmentation)
    return report.write_up("Segmentation distortion", question, lead, _facts(report), sections)


def _comparison(report: StudyReport) -> page.Section:
    shown = report.tables.correlation.values("score")
    text = [
        f"{report.settings.run.replicas} networks that differ in their seed were trained on one domain, and for each "
        f"an autoencoder of its bottleneck's activations ({report.origin['data']}). Each score of a case is compared "
        "with 1 - Dice of the same network, or ensemble: a useful score correlates positively.",
        *(
            f"{score.name}: {score.risk_meaning}{'' if tables.IN_PAPER[score.name] else '; not in the paper'}."
            for score in tables.SCORES
            if score.name in shown
        ),
    ]
    columns = {"setting": "", "here": "here", **_PAPER}
    compared = _facts_table("Here and in the paper", report.tables.settings, columns)
    return page.Section("What was compared", text, [], [compared])


def _claims(report: StudyReport) -> page.Section:
    unit = report.settings.evaluation.unit
    text = [
        "The rule was set before the result: a claim holds if the whole interval of its difference lies above 0, does "
        f"not hold if it lies below {NEGLIGIBLE} (of the Dice lost: below 0), and is unclear otherwise. The verdict "
        f"above reads those by {unit}.",
        _unit_text(report),
    ]
    columns = {"claim": "claim", "unit": "by", "answer": "here"}
    rows = table(_claim_row(claim) for claim in report.judgement.claims)
    shown = _table("Claims", rows, columns, _PAPER, estimate="difference [95 % interval]")
    return page.Section("The paper's claims", text, [], [shown])


def _claim_row(claim: Claim) -> Row:
    assert claim.row is not None  # as of all claims here
    keys = {"claim": claim.claim, **claim.of, "answer": claim.answer}
    return dataclasses.replace(claim.row, keys=keys, more={"paper": claim.paper})


def _failure_prediction(report: StudyReport) -> page.Section:
    unit, results = report.settings.evaluation.unit, report.tables
    dots = report.figure(
        "correlation_domains",
        "Rank correlation domain by domain",
        "Dots with intervals: rank correlation of the paper's scores with 1 - Dice in every domain.",
        f"By {unit}. {_runs_text(report)} After Fig. 3 of Lennartz and Schultz 2023, which prints no numbers. "
        f"{_scores(report)}",
        table="correlation",
    )
    title, of_unit = "Rank correlation with 1 - Dice, by", lambda each: results.correlation.where(unit=each)
    shown = [
        _table(f"{title} {each}", of_unit(each), ("domain", "score"), _DEVIATION)
        for each in (unit, *(other for other in UNITS if other != unit))
    ]
    columns = {"unit": "by", "quantity": "quantity", "score": "other score"}
    differences = results.differences.where(domain=MEAN)
    shown.append(_table("SD minus the other score, mean of the shifted domains", differences, columns, _PAPER))
    return page.Section("Which scores predict errors", [_counted_text(report)], [dots], shown)


def _detection(report: StudyReport) -> page.Section:
    evaluation = report.settings.evaluation
    text = (
        "A score that is higher on another scanner need not be higher where the segmentation is wrong: rejecting by it "
        "also loses cases that are segmented well."
    )
    detected = report.figure(
        "detection",
        "Flagged as out-of-distribution",
        "Dots with intervals: share of the cases of every domain that each of the paper's scores flags.",
        f"By {evaluation.unit}. The threshold keeps {evaluation.keep:.0%} of in-distribution validation. Fig. 4, left. "
        f"{_scores(report)}",
    )
    dice = report.figure(
        "dice_domains",
        "Dice by domain",
        "Curves of the share of cases up to every Dice, for every domain.",
        "Share of the cases (slices) with at most that Dice, with intervals; further to the right is better. Fig. 4, "
        "right, shows distributions.",
        table="cases",
    )
    rows = report.tables.detection.where(unit=evaluation.unit)
    columns = ("quantity", "domain", "score")
    shown = _table(f"Detection of shifted cases, by {evaluation.unit}", rows, columns, _PAPER)
    return page.Section("Which scores detect shifted images", [text], [detected, dice], [shown])


def _rejection(report: StudyReport) -> page.Section:
    curves = report.figure(
        "rejection",
        "Dice of what is kept",
        "Curves of the mean Dice of the kept cases against the share that is kept, for every score.",
        f"By {report.settings.evaluation.unit}, mean over the networks. 'best possible' rejects by the networks' own "
        f"Dice; an ensemble has a Dice of its own, with which its curves end. {_scores(report, of_paper=False)}",
        table="risk_coverage",
    )
    columns = {"unit": "by", "quantity": "quantity", "score": "score"}
    shown = _table("Area under the risk-coverage curve", report.tables.risk_coverage, columns, _PAPER)
    text = "What remains when the cases with the highest scores are rejected, all shifted domains together."
    return page.Section("Rejecting what a score suspects", [text], [curves], [shown])


def _segmentation(report: StudyReport) -> page.Section:
    results = report.tables
    examples = report.figure(
        "examples",
        "Examples",
        "One image of every domain with its annotation, and the prediction with its errors in red.",
        "The case of every domain with the median Dice, by the first network; red: its errors in the classes that are "
        "annotated there. Numbers: mean Dice of domain and networks. After Fig. 2.",
        table="dice",
    )
    classes = {"domain": "domain", "class": "class", "cases_with_it": "cases with it", "n": "cases", "scored": "scored"}
    training = {
        "network": "network",
        "seed": "seed",
        "best_step": "best step",
        "validation_score": f"validation {report.settings.run.training.selection}",
        "autoencoder_best_step": "best step of the autoencoder",
        "autoencoder_validation_loss": "its validation loss",
    }
    shown = [
        _table("Dice by domain", results.dice, ("domain", "quantity"), _DEVIATION),
        _facts_table("Which classes are annotated", results.classes, classes),
        _facts_table("Training", results.training, training),
    ]
    return page.Section("How well the networks segment", [_annotated_text(results)], [examples], shown)


def _table(
    title: str, rows: Table, columns: estimates.Columns, further: Mapping[str, str], estimate: str = estimates.MEAN
) -> page.Table:
    made = estimates.table(title, rows, columns, further=further, estimate=estimate, counts=_COUNTS)
    explained = f" {registry.explained(rows.values('score'))}." if "score" in columns and rows else ""
    return dataclasses.replace(made, note=made.note + explained)


def _scores(report: StudyReport, *, of_paper: bool = True) -> str:
    """What the scores of a figure are, those of the paper or all."""
    shown = report.tables.correlation.values("score")
    return f"{registry.explained([name for name in shown if tables.IN_PAPER[name] or not of_paper])}."


def _facts_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> page.Table:
    conventions = dict.fromkeys(row["convention"] for row in rows if "convention" in row)
    return page.Table(title, rows, "".join(f"{convention}." for convention in conventions), columns)


def _facts(report: StudyReport) -> list[tuple[str, str]]:
    results, evaluation = report.tables, report.settings.evaluation
    ranked = results.correlation.where(unit=evaluation.unit, domain=MEAN)
    flagged = results.detection.where(unit=evaluation.unit, domain=MEAN, quantity=tables.FLAGGED)
    dice = results.dice.where(quantity=tables.BEFORE)
    inside = report.cases.scored.by_domain(evaluation.least_patients).inside
    return [
        *((f"{score}, correlation", ranked.one(score=score).text()) for score in ("SD", "PM", "entropy")),
        *((f"{score}, flagged", flagged.one(score=score).text()) for score in ("SD", "PM")),
        *((f"Dice, {domain}", dice.one(domain=domain).text()) for domain in (inside, TOGETHER)),
    ]


def _runs_text(report: StudyReport) -> str:
    return f"Mean of {report.settings.run.replicas} networks; 95 % bootstrap intervals over patients."


def _unit_text(report: StudyReport) -> str:
    cases, unit = report.cases.scored, report.settings.evaluation.unit
    count = cases.patient_count(cases.roles == SHIFTED)
    if unit == "subject":
        why = "as in the paper's published code; its text speaks of images"
    else:
        why = f"as {count} shifted subjects are too few to rank; the paper's published code scores subjects"
    return (
        f"The verdict is by {unit}, {why}. A subject's score and Dice are the means over its slices in one domain. The "
        "same subject in several domains is resampled as one."
    )


def _counted_text(report: StudyReport) -> str:
    cases, least = report.cases.scored, report.settings.evaluation.least_patients
    counted = cases.by_domain(least).counted
    text = (
        "The mean is over the shifted domains, with equal weights: across domains, a score that only reflects the "
        f"scanner would seem to predict the error. '{TOGETHER}' ranks over all of them."
    )
    left_out = [name for name in cases.of_role(SHIFTED) if name not in counted]
    return f"{text} Left out of both: {', '.join(left_out)}, with fewer than {least} patients." if left_out else text


def _annotated_text(results: tables.Tables) -> str:
    missing = [f"{row['class']} in {row['domain']}" for row in results.classes if not row["scored"]]
    if not missing:
        return "All classes are annotated in all domains."
    return (
        f"Not annotated, and so not scored: {'; '.join(missing)}. Predictions of these classes there count neither for "
        "nor against a network; the scores do not know this and use all classes."
    )
