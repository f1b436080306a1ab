"""The page of the distortion study."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from jaxseg.report import page
from jaxseg.results.text import estimate_text
from jaxseg.scores.cases import SCORES
from jaxseg.studies.base import Report
from jaxseg.studies.distortion import experiment as study
from jaxseg.studies.distortion import numbers
from jaxseg.studies.distortion import tables as results


def make(report: Report[ml_collections.ConfigDict, study.Data, study.Measured, results.Tables]) -> page.Page:
    """What the page says."""
    config, cases, found, figure = report.settings, report.cases.scored, report.tables, report.figure
    answer, origin = report.judgement.verdicts[0], report.origin
    unit = config.evaluation.unit
    runs_text = f"Mean of {config.replicas} networks; 95 % bootstrap intervals over patients."
    sections = [
        page.Section(
            "What was compared",
            [
                f"{config.replicas} networks that differ in their seed were trained on one domain, and for each an "
                f"autoencoder of its bottleneck's activations ({origin['data']}). A score of a case is held against "
                "1 - Dice of the same network, one of an ensemble against that of the ensemble: a useful score "
                "correlates positively.",
                *(f"{score.name}: {score.meaning}{'' if score.in_paper else '; not in the paper'}." for score in SCORES
                  if score.name in {row["score"] for row in found.correlation}),
            ],
            [],
            [_plain("Here and in the paper", found.settings, {"setting": "", "here": "here", "paper": "paper"})],
        ),
        page.Section(
            "The paper's claims",
            [
                "The rule stood before the result: a claim holds if the whole interval of its difference lies above "
                f"0, does not hold if it lies below {results.NEGLIGIBLE} (of the Dice lost: below 0), and is unclear "
                f"otherwise. The verdict above reads those by {unit}.",
                _unit_text(cases, unit),
            ],
            [],
            [_table("Claims", found.claims, {"claim": "claim", "unit": "by", "verdict": "here"},
                    {"paper": "paper"}, "difference [95 % interval]")],
        ),
        page.Section(
            "Which scores go with errors",
            [_counted_text(config, cases)],
            [
                figure(
                    "correlation_domains",
                    "Rank correlation domain by domain",
                    "Dots with intervals: rank correlation of five scores with 1 - Dice in every domain.",
                    f"By {unit}. {runs_text} After Fig. 3 of Lennartz and Schultz 2023, which prints no numbers.",
                    "correlation",
                ),
            ],
            [
                _table(f"Rank correlation with 1 - Dice, by {each}",
                       [row for row in found.correlation if row["unit"] == each],
                       {"domain": "domain", "score": "score"}, {"runs_std": "std over runs", "paper": "paper"})
                for each in (unit, *(other for other in study.UNITS if other != unit))
            ] + [
                _table("SD less the other score, mean of the shifted domains",
                       [row for row in found.differences if row["domain"] == numbers.MEAN],
                       {"unit": "by", "quantity": "quantity", "score": "other score"}, {"paper": "paper"}),
            ],
        ),
        page.Section(
            "Which scores find foreign images",
            [
                "A score that is higher on another scanner is not one that is higher where the segmentation is wrong: "
                "whoever rejects by it also loses what would have been segmented well.",
            ],
            [
                figure(
                    "detection",
                    "Called foreign",
                    "Dots with intervals: share of the cases of every domain that five scores call foreign.",
                    f"By {unit}. The threshold keeps {config.evaluation.keep:.0%} of in-domain validation. After Fig. "
                    "4, left.",
                    "detection",
                ),
                figure(
                    "dice_domains",
                    "Dice by domain",
                    "Curves of the share of cases up to every Dice, for every domain.",
                    "Share of the cases (slices) with at most that Dice, with intervals; the more to the right, the "
                    "better. What Fig. 4, right, shows as distributions.",
                    "cases",
                ),
            ],
            [
                _table(f"Detection of foreign cases, by {unit}",
                       [row for row in found.detection if row["unit"] == unit],
                       {"quantity": "quantity", "domain": "domain", "score": "score"}, {"paper": "paper"}),
            ],
        ),
        page.Section(
            "Rejecting what a score suspects",
            ["What is left when the cases with the highest scores are rejected, all shifted domains together."],
            [
                figure(
                    "rejection",
                    "Dice of what is kept",
                    "Curves of the mean Dice of the kept cases against the share that is kept, for every score.",
                    f"By {unit}, mean over the networks. 'best possible' rejects by the networks' own Dice; an "
                    "ensemble has a Dice of its own, with which its curves end.",
                    "risk_coverage",
                )
            ],
            [_table("Area under the risk-coverage curve", found.risk_coverage,
                    {"unit": "by", "quantity": "quantity", "score": "score"}, {"paper": "paper"})],
        ),
        page.Section(
            "How well the networks segment",
            [_drawn_text(found)],
            [
                figure(
                    "examples",
                    "Examples",
                    "One image of every domain with its annotation, and the prediction with its errors in red.",
                    "Of every domain the case with the median Dice, by the first network; red is what it gets wrong in "
                    "the classes that are drawn there. Numbers: mean Dice of domain and networks. After Fig. 2.",
                    "dice",
                )
            ],
            [
                _table("Dice by domain", found.dice, {"domain": "domain", "quantity": "quantity"},
                       {"runs_std": "std over runs", "paper": "paper"}),
                _plain("Which classes are drawn", found.classes,
                       {"domain": "domain", "class": "class", "cases_with_it": "cases with it", "n": "cases",
                        "scored": "scored"}),
                _plain("Training", found.training,
                       {"network": "network", "seed": "seed", "best_step": "best step",
                        "validation_score": f"validation {config.training.selection}",
                        "autoencoder_best_step": "best step of the autoencoder",
                        "autoencoder_validation_loss": "its validation loss"}),
            ],
        ),
    ]  # fmt: skip
    return page.Page(
        title=f"Segmentation distortion ({report.size})",
        question="Does distortion tell where a segmentation is wrong on another scanner?",
        verdict=answer.verdict,
        answer=answer.sentence,
        lead=figure(
            "correlation",
            "Rank correlation with 1 - Dice",
            "Dots with intervals: rank correlation of every score with 1 - Dice, mean of the shifted domains.",
            f"Within each shifted domain, by {unit}; mean of the domains. {runs_text}",
            "correlation",
        ),
        facts=_facts(config, found),
        sections=sections,
    )


def _table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    further: Mapping[str, str],
    estimate: str = "mean [95 % interval]",
) -> page.Table:
    """The named columns, then the estimate, n, undefined and patients, then further ones; conventions as the note."""
    shown = [
        {name: row[name] for name in columns}
        | {"estimate": estimate_text(row["mean"], row["low"], row["high"])}
        | {name: row[name] for name in ("n", "undefined", "patients", *further)}
        for row in rows
    ]
    counts = {name: name for name in ("n", "undefined", "patients")}
    headers = {**columns, "estimate": estimate, **counts, **further}
    return page.Table(title, shown, _conventions(rows), headers)


def _plain(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> page.Table:
    return page.Table(title, rows, _conventions(rows), columns)


def _conventions(rows: Sequence[Mapping[str, Any]]) -> str:
    found = dict.fromkeys(row["convention"] for row in rows if "convention" in row)
    return ". ".join(found) + "." if found else ""


def _facts(config: ml_collections.ConfigDict, found: results.Tables) -> list[tuple[str, str]]:
    unit, text = config.evaluation.unit, lambda row: estimate_text(row["mean"], row["low"], row["high"])
    facts = [
        (f"{row['score']}, correlation", text(row))
        for row in found.correlation
        if (row["unit"], row["domain"]) == (unit, numbers.MEAN) and row["score"] in ("SD", "PM", "entropy")
    ]
    facts += [
        (f"{row['score']}, called foreign", text(row))
        for row in found.detection
        if (row["unit"], row["domain"], row["quantity"]) == (unit, numbers.MEAN, results.DETECTED)
        and row["score"] in ("SD", "PM")
    ]
    dice = [row for row in found.dice if row["quantity"] == results.BEFORE]
    shown = [row for row in dice if row["domain"].endswith("(test)")] or dice[:1]
    return [*facts, *((f"Dice, {row['domain']}", text(row)) for row in [*shown, dice[-1]])]


def _unit_text(cases: study.Cases, unit: str) -> str:
    count = len(set(cases.patients[cases.roles == "shifted"]))
    why = (
        "as the code that was published with the paper does; its text speaks of images"
        if unit == "subject"
        else f"as there are {count} shifted subjects, too few to rank; the code that was published with the paper "
        "scores subjects"
    )
    return (
        f"The verdict is by {unit}, {why}. A subject's score and Dice are the means over its slices in one domain. The "
        "same subject in several domains is drawn as one in the bootstrap."
    )


def _counted_text(config: ml_collections.ConfigDict, cases: study.Cases) -> str:
    left = [name for name in cases.shifted if name not in study.counted_domains(config, cases)]
    text = "The mean is over the shifted domains, each as much as the other: between domains, a score that only knows "
    text += "the scanner would seem to know the error. 'shifted domains together' ranks over all of them."
    if left:
        few = config.evaluation.least_patients
        text += f" Left out of both: {', '.join(left)}, with fewer than {few} patients."
    return text


def _drawn_text(found: results.Tables) -> str:
    missing = [f"{row['class']} in {row['domain']}" for row in found.classes if not row["scored"]]
    if not missing:
        return "All classes are drawn in all domains."
    return (
        f"Not drawn, and so not scored: {'; '.join(missing)}. What a network finds of these classes there counts "
        "neither for nor against it; the scores know nothing of this and take all classes."
    )
