"""The page of the skip-pruning study."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from jaxseg.report import page
from jaxseg.results.claims import Claim
from jaxseg.results.text import estimate_text
from jaxseg.studies.base import Report
from jaxseg.studies.skip_pruning import experiment as study
from jaxseg.studies.skip_pruning import figures as skip_pruning_figures
from jaxseg.studies.skip_pruning import tables as numbers
from jaxseg.studies.skip_pruning.conditions import DOMAIN, IN_DOMAIN, Condition, compared


def make(
    report: Report[Any, study.Cases, Mapping[study.Network, study.Measures], numbers.Tables],
) -> page.Page:
    """What the page says."""
    config, tested, results, figure = report.settings, report.cases.tested, report.tables, report.figure
    claims, verdicts, origin = report.judgement.claims, report.judgement.verdicts, report.origin
    lead = figure(
        "differences",
        "What removing skips changes",
        "Dots with intervals: IoU of each pruned network minus that of the baseline, in-domain and under shift.",
        "IoU of the test set, mean over folds; 95 % bootstrap intervals over patients, paired. The networks are taken "
        "as they are: the interval does not cover what another training would change, which the range over folds in "
        "the table tells.",
        "differences",
    )
    return page.Page(
        title=f"Pruned skip connections ({report.size})",
        question="Is a U-Net better, at home and under domain shift, without its uppermost skip connection?",
        verdict=verdicts[0].verdict,
        answer=" ".join(f"{v.of['encoder']}: {v.sentence}" if len(verdicts) > 1 else v.sentence for v in verdicts),
        lead=lead,
        facts=_facts(results, skip_pruning_figures.encoders(config)),
        sections=[
            _claims_section(config, claims, origin),
            *_iou_sections(config, tested, results, figure),
            *_distance_sections(config, tested, results, figure),
            _paper_section(config, results),
            _parameter_section(results),
        ],
    )


_ENCODER, _ARCHITECTURE = {"encoder": "encoder"}, {"architecture": "architecture"}


def _table(
    title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], more: Mapping[str, str] | None = None
) -> page.Table:
    """The named columns, then estimate, range over folds, n and undefined, then more; the conventions as the note.

    A column of encoders stands in front where there are several.
    """
    more = more or {}
    columns = {**(_ENCODER if len({row["encoder"] for row in rows}) > 1 else {}), **columns}
    shown = [
        {name: row[name] for name in columns}
        | {
            "estimate": estimate_text(row["mean"], row["low"], row["high"], digits=3),
            "over_folds": f"{row['lowest_fold']:z.3f} ... {row['highest_fold']:z.3f}",
            "n": row["n"],
            "undefined": row["undefined"],
        }
        | {name: row[name] for name in more}
        for row in rows
    ]
    headers = {**columns, "estimate": "mean [95 % interval]", "over_folds": "lowest and highest fold"}
    headers |= {"n": "n", "undefined": "undefined", **more}
    notes = dict.fromkeys(f"{row['convention']}; interval: {row['interval']}" for row in rows)
    return page.Table(title, shown, ". ".join(notes) + ".", headers)


def _facts(results: numbers.Tables, encoders: Sequence[str]) -> list[tuple[str, str]]:
    rows = {
        (r["encoder"], r["architecture"], r["group"]): r
        for r in results.iou
        if r["measure"] == numbers.SET and r["group"] == IN_DOMAIN
    }
    return [
        (f"{encoder}, {name}, in-domain", estimate_text(row["mean"], row["low"], row["high"]))
        for encoder in encoders
        for (of, name, _), row in rows.items()
        if of == encoder
    ]


def _claims_section(
    config: ml_collections.ConfigDict, claims: Sequence[Claim], origin: Mapping[str, Any]
) -> page.Section:
    folds = f"{config.replicas} networks per architecture, one per {config.vary}" if config.replicas > 1 else "one run"
    return page.Section(
        "The paper's claims",
        [
            f"The baseline has all skips, Ln lacks the top n. Trained: {folds} ({origin['data']}); every one is tested "
            "on the same held-out cases.",
            "A claim holds if the whole interval and every single fold lie on its side of 0, does not hold if they lie "
            "on the other, and is unclear otherwise. The interval is over patients and takes the networks as they are; "
            "what another training would change shows in the folds alone. At least as good allows for a loss of 0.01 "
            "IoU. Each claim is judged by itself, without correction for their number.",
        ],
        [],
        [
            page.Table(
                "Claims",
                [claim.record() for claim in claims],
                "Intervals: 95 %, bootstrap over patients, paired; folds are not resampled.",
                {
                    "claim": "claim",
                    **_ENCODER,
                    "answer": "answer",
                    "sentence": "by these numbers",
                    "paper": "the paper",
                },
            )
        ],
    )


def _iou_sections(
    config: ml_collections.ConfigDict, tested: Sequence[Condition], results: numbers.Tables, figure: Any
) -> list[page.Section]:
    encoders = skip_pruning_figures.encoders(config)
    caption = "Accumulated over the test set, mean over folds; intervals stand in the table."
    matrices = [
        figure(
            f"iou_{encoder}",
            f"IoU by strength of the shift, {encoder}",
            "Matrices of IoU: architectures in rows, strengths of brightness, contrast and saturation in columns.",
            f"{caption} After Fig. 7 of Wilm et al. 2024.",
            "iou",
        )
        for encoder in encoders
        if config.shifts
    ]
    matrices += [
        figure(
            f"domains_{encoder}",
            f"IoU by domain, {encoder}",
            "A matrix of IoU: architectures in rows, domains in columns.",
            f"{caption} Cases of other domains are those of patients that no network has seen. After Fig. 9.",
            "iou",
        )
        for encoder in encoders
        if any(condition.group == DOMAIN for condition in tested)
    ]
    examples = [
        figure(
            f"examples_{encoder}",
            f"One case under shift, {encoder}",
            "Rows of images with the annotated outline and the predictions of three networks.",
            "The case with the median area of foreground; the networks of the first fold.",
            "cases",
        )
        for encoder in encoders
    ]
    where = {"group": "condition", "condition": "strength or domain"}
    of_set = [row for row in results.iou if row["measure"] == numbers.SET]
    per_case = [row for row in results.iou if row["measure"] == numbers.CASE]
    changes = [row for row in results.differences if row["measure"] == numbers.SET]
    left_out = sorted({f"{c.label} ({len(c.cases)} cases)" for c in tested if not c.has_interval})
    text = [
        "The paper's text gives few of Fig. 7's values; they stand beside ours where it does. A value of the paper is "
        "of its own images and networks, so only tendencies compare."
    ]
    if left_out:
        text.append(f"With one patient, and so without interval and in no mean: {', '.join(left_out)}.")
    return [
        page.Section(
            "Segmentation",
            text,
            [*matrices, *examples],
            [
                _table("IoU of the set", of_set, {**_ARCHITECTURE, **where}, {"paper": "paper"}),
                _table("IoU per case", per_case, {**_ARCHITECTURE, **where}),
                _table(
                    "Differences",
                    changes,
                    {"difference": "difference", "place": "mean over"},
                    {"conditions": "conditions"},
                ),
            ],
        )
    ]


def _distance_sections(
    config: ml_collections.ConfigDict, tested: Sequence[Condition], results: numbers.Tables, figure: Any
) -> list[page.Section]:
    shown = [
        figure(
            f"distances_{encoder}_{i}",
            f"Hellinger distance by layer, {condition.name}, {encoder}",
            "Violin plots of the Hellinger distance of the channels of each layer, one panel per architecture.",
            "Channels of all folds, between the test set as it is and "
            + ("shifted. " if condition.shift else "that domain. ")
            + "Dashed: between two random halves of the unshifted test set, which differ by sampling alone. Halves are "
            "smaller, and of other images, so a small shift of the same images may lie below. After Fig. 8.",
            "distances",
        )
        for encoder in skip_pruning_figures.encoders(config)
        for i, condition in enumerate(compared(config, tested))
    ]
    layers = _table(
        "By layer",
        results.distances,
        {**_ARCHITECTURE, "compared": "compared with", "layer": "layer"},
        {"null": "no shift", "null_high": "97.5 % of no shift", "channels": "channels", "constant": "constant"},
    )
    changes = _table(
        "Differences of layers",
        results.distance_differences,
        {"quantity": "quantity", "compared": "compared with"},
    )
    return [
        page.Section(
            "Which layers the shift moves",
            [
                "The distance is that of histograms, per channel, between activations of the unshifted and of the "
                "shifted images: 0 for equal frequencies, 1 for no value in common. A channel that never fires counts "
                "with 0 and lowers its layer's mean; the table says how many there are."
            ],
            shown,
            [layers, changes],
        )
    ]


def _paper_section(config: ml_collections.ConfigDict, results: numbers.Tables) -> page.Section:
    places = {"in_domain": "in-domain", "shifted": "mean over shifts", "conditions": "shifts"}
    columns = {"data": "data", "encoder": "encoder", "difference": "difference", **places}
    note = ". ".join(dict.fromkeys(row["convention"] for row in results.paper_domains)) + "."
    return page.Section(
        "Beside the paper's clinical data",
        [
            "Fig. 9 of the paper gives the IoU per scanner or vendor of networks trained on the first one: mitotic "
            "figures (MS-MF), canine skin tumours (MS-CCT), hearts (MV-MR). Only differences from the baseline compare "
            "across data sets."
        ],
        [],
        [page.Table("Change by pruning", results.paper_domains, note, columns)],
    )


def _parameter_section(results: numbers.Tables) -> page.Section:
    columns = {"networks": "networks", **_ENCODER, **_ARCHITECTURE, "parameters": "parameters", "paper": "paper"}
    return page.Section(
        "Size of the networks",
        ["A removed skip takes its weights in the decoder with it (Table II)."],
        [],
        [page.Table("Trainable parameters", results.parameters, f"{results.parameters[0]['convention']}.", columns)],
    )
