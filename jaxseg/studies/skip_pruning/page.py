"""The page of the skip-pruning study."""

from collections.abc import Mapping

from jaxseg.report import estimates, page
from jaxseg.results.table import Table
from jaxseg.studies.base import claims_table
from jaxseg.studies.skip_pruning.conditions import DOMAIN, IN_DOMAIN, compared
from jaxseg.studies.skip_pruning.iou import CASE, SET
from jaxseg.studies.skip_pruning.tables import StudyReport

_ENCODER, _ARCHITECTURE = {"encoder": "encoder"}, {"architecture": "architecture"}
_CONDITION = {"group": "condition", "condition": "strength or domain"}
_FOLDS = {"lowest_fold": "lowest fold", "highest_fold": "highest fold"}


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    verdicts = report.judgement.verdicts
    lead = report.figure(
        "differences",
        "What removing skips changes",
        "Dots with intervals: IoU of each pruned network minus that of the baseline, in-domain and under shift.",
        "IoU of the test set, mean over folds; 95 % bootstrap intervals over patients, paired. The interval takes the "
        "networks as they are; the variation between trainings shows in the range over folds in the table.",
    )
    question = "Is a U-Net better, in-domain and under domain shift, without its uppermost skip connection?"
    answer = " ".join(f"{v.of['encoder']}: {v.sentence}" if len(verdicts) > 1 else v.sentence for v in verdicts)
    in_domain = report.tables.iou.where(measure=SET, group=IN_DOMAIN)
    facts = [(f"{row['encoder']}, {row['architecture']}, in-domain", row.text()) for row in in_domain]
    sections = (_claims, _segmentation, _layers, _paper, _parameters)
    return report.write_up("Pruned skip connections", question, lead, facts, sections, answer=answer)


def _table(title: str, rows: Table, columns: Mapping[str, str], further: Mapping[str, str] | None = None) -> page.Table:
    """With the range over folds; a column of encoders comes first where there are several."""
    if len(rows.values("encoder")) > 1:
        columns = {**_ENCODER, **columns}
    return estimates.table(title, rows, columns, further={**_FOLDS, **(further or {})}, digits=3)


def _claims(report: StudyReport) -> page.Section:
    run = report.settings.run
    folds = f"{run.replicas} networks per architecture, one per {run.vary}" if run.replicas > 1 else "one run"
    text = [
        f"The baseline has all skips, Ln lacks the top n. Trained: {folds} ({report.origin['data']}); every one is "
        "tested on the same held-out cases.",
        "A claim holds if the whole interval and every single fold lie on its side of 0, does not hold if they lie on "
        "the other, and is unclear otherwise. The interval is over patients and takes the networks as they are; the "
        "variation between trainings shows in the folds alone. At least as good allows for a loss of 0.01 IoU. Claims "
        "are not corrected for their number.",
    ]
    claims = claims_table(report.judgement.claims, "bootstrap over patients, paired; folds are not resampled")
    return page.Section("The paper's claims", text, [], [claims])


def _segmentation(report: StudyReport) -> page.Section:
    tested, results = report.cases.tested, report.tables
    text = [
        "The paper's text gives few of Fig. 7's values, shown beside ours. They are of other images and networks, so "
        "only tendencies compare."
    ]
    left_out = sorted({f"{c.label} ({len(c.cases)} cases)" for c in tested if not c.has_interval})
    if left_out:
        text.append(f"With one patient, and so without interval and in no mean: {', '.join(left_out)}.")
    of_set, per_case = results.iou.where(measure=SET), results.iou.where(measure=CASE)
    changes = results.differences.where(measure=SET)
    shown = [
        _table("IoU of the set", of_set, {**_ARCHITECTURE, **_CONDITION}, {"paper": "paper"}),
        _table("IoU per case", per_case, {**_ARCHITECTURE, **_CONDITION}),
        _table(
            "Differences", changes, {"difference": "difference", "place": "mean over"}, {"conditions": "conditions"}
        ),
    ]
    return page.Section("Segmentation", text, _segmentation_figures(report), shown)


def _segmentation_figures(report: StudyReport) -> list[page.Figure]:
    settings, tested = report.settings, report.cases.tested
    caption = "Accumulated over the test set, mean over folds; intervals are in the table."
    by_strength = lambda encoder: report.figure(
        f"iou_{encoder}",
        f"IoU by strength of the shift, {encoder}",
        "Matrices of IoU: architectures in rows, strengths of brightness, contrast and saturation in columns.",
        f"{caption} After Fig. 7 of Wilm et al. 2024.",
        table="iou",
    )
    by_domain = lambda encoder: report.figure(
        f"domains_{encoder}",
        f"IoU by domain, {encoder}",
        "A matrix of IoU: architectures in rows, domains in columns.",
        f"{caption} Cases of other domains are those of patients that no network has seen. After Fig. 9.",
        table="iou",
    )
    examples = lambda encoder: report.figure(
        f"examples_{encoder}",
        f"One case under shift, {encoder}",
        "Rows of images with the annotated outline and the predictions of three networks.",
        "The case with the median area of foreground; the networks of the first fold.",
        table="cases",
    )
    kinds = [by_strength] if settings.shifts else []
    kinds += [by_domain] if any(condition.group == DOMAIN for condition in tested) else []
    return [of(encoder) for of in (*kinds, examples) for encoder in settings.encoder_names]


def _layers(report: StudyReport) -> page.Section:
    settings, results = report.settings, report.tables
    text = (
        "The distance is that of histograms, per channel, between activations of the unshifted and of the shifted "
        "images: 0 for equal frequencies, 1 for no value in common. Constant channels count with 0 and lower the mean "
        "of their layer; the table has their number."
    )
    shown = [
        report.figure(
            f"distances_{encoder}_{i}",
            f"Hellinger distance by layer, {condition.name}, {encoder}",
            "Violin plots of the Hellinger distance of the channels of each layer, one panel per architecture.",
            "Channels of all folds, between the test set as it is and "
            + ("shifted. " if condition.shift else "that domain. ")
            + "Dashed: between two random halves of the unshifted test set, which differ by sampling alone. Halves are "
            "smaller, and of other images, so a small shift of the same images may lie below. After Fig. 8.",
            table="distances",
        )
        for encoder in settings.encoder_names
        for i, condition in enumerate(compared(settings.evaluation, report.cases.tested))
    ]
    compared_with = {"compared": "compared with"}
    null = {"null": "no shift", "null_high": "97.5 % of no shift", "channels": "channels", "constant": "constant"}
    layers = _table("By layer", results.distances, {**_ARCHITECTURE, **compared_with, "layer": "layer"}, null)
    columns = {"networks": "architecture", "quantity": "quantity", **compared_with}
    differences = _table("Differences of layers", results.distance_differences, columns)
    return page.Section("Which layers the shift moves", [text], shown, [layers, differences])


def _paper(report: StudyReport) -> page.Section:
    rows = report.tables.paper_domains
    text = (
        "Fig. 9 of the paper gives the IoU per scanner or vendor of networks trained on the first one: mitotic figures "
        "(MS-MF), canine skin tumours (MS-CCT), hearts (MV-MR). Only differences from the baseline compare across data "
        "sets."
    )
    columns = {"data": "data", **_ENCODER, "difference": "difference", "in_domain": "in-domain"}
    columns |= {"shifted": "mean over shifts", "conditions": "shifts"}
    changes = page.Table("Change by pruning", rows, f"{rows[0]['convention']}.", columns)
    return page.Section("Beside the paper's clinical data", [text], [], [changes])


def _parameters(report: StudyReport) -> page.Section:
    rows = report.tables.parameters
    columns = {"networks": "networks", **_ENCODER, **_ARCHITECTURE, "parameters": "parameters", "paper": "paper"}
    size = page.Table("Trainable parameters", rows, f"{rows[0]['convention']}.", columns)
    text = "A removed skip takes its weights in the decoder with it (Table II)."
    return page.Section("Size of the networks", [text], [], [size])
