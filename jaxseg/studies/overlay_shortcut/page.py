"""The page of the overlay-shortcut study."""

from typing import Any

from jaxseg.report import estimates, page
from jaxseg.results.table import Table, table
from jaxseg.studies.overlay_shortcut import tables
from jaxseg.studies.overlay_shortcut.images import in_words
from jaxseg.studies.overlay_shortcut.settings import COMPARED, NETWORKS
from jaxseg.studies.overlay_shortcut.tables import StudyReport

_NOT_LEARNED = 0.1  # Dice below which a plane counts as not learned
_SPREAD = {"sd": "sd", "paper_mean": "paper", "paper_sd": "paper, sd"}
_SOURCES = {
    "world": "Every scan of this synthetic world exists with and without marks; only the marks depend on the plane and "
    "the organ, as in clinics.",
    "drawn": "The images had no marks of the study's kind; calipers at the ends of the head's axes and the machine's "
    "text were drawn on them, so what is below is known. What is printed on the files themselves was left.",
    "burnt_in": "The images have marks, and what is below them is not known: there is no network trained on clean "
    "images, and removals cannot be compared.",
}


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    lead = report.figure(
        "drops",
        "What the marks are worth",
        "Dots with intervals: the drop of the Dice when marks are removed, by plane, baseline and mitigated network.",
        "Annotated minus cleaned test images, paired, 95 % bootstrap intervals over patients. To the right of 0 the "
        "network needs the marks. After Table 1 of Lin, Weng et al. 2024.",
    )
    sections = [_comparison, _stability, _saliency, *([_changes, _removals] if report.settings.clean_known else [])]
    question = "Does the network segment by the marks?"
    return report.write_up("Overlay shortcut", question, lead, _facts(report.tables), sections)


def _facts(results: tables.Tables) -> list[tuple[str, str]]:
    wanted = [
        (results.drops.where(plane=tables.ALL), lambda row: f"drop to {row['drop_to']} images"),
        (results.stability.where(plane=tables.ALL), lambda _: "start and end of clips"),
        (results.saliency.where(quantity=tables.EXCESS), lambda _: "enrichment due to marks"),
    ]
    return [
        (f"{row['network']}, {label(row)}", row.text())
        for rows, label in wanted
        for row in rows
        if row["network"] in COMPARED
    ]


def _comparison(report: StudyReport) -> page.Section:
    settings, results = report.settings, report.tables
    text = [
        f"The baseline was trained on annotated images ({report.origin['data']}), the mitigated network on cleaned "
        "ones: marks were found on each image by their colour and their sharp edges, and filled in as config.removal "
        f"says ({in_words(settings.removal.method)}). The reference was trained on clean images. "
        + _SOURCES[settings.source],
        "The paper's ultrasound is private; images and network here differ, so its numbers are for orientation, not a "
        "target. Its standard deviations are over images, as in the column sd.",
        *_not_learned_text(results.dice),
    ]
    columns, paper = {"network": "network", "plane": "plane", "drop_to": "from annotated to"}, {"paper_mean": "paper"}
    title = "Dice with and without marks (Table 1)"
    dice = estimates.table(title, results.dice, ("network", "plane", "tested_on"), further=_SPREAD)
    drops = estimates.table("The drop of the Dice", results.drops, columns, further=paper, digits=3)
    return page.Section("What was compared", text, [], [dice, drops])


def _not_learned_text(dice: Table) -> list[str]:
    """Names what is not segmented even with marks: nothing can be lost there, and it affects the mean over planes."""
    planes = [
        f"{row['plane']} by the {row['network']}"
        for row in dice
        if row["tested_on"] == NETWORKS[row["network"]] and row.estimate.mean < _NOT_LEARNED
    ]
    return [f"Not learned at all, on images like those trained on: {', '.join(planes)}."] if planes else []


def _stability(report: StudyReport) -> page.Section:
    text = "The image stays, marks appear. A network that looks at the organ predicts the same before and after."
    frames = report.figure(
        "clips",
        "Agreement with the last frame",
        "Panels of the Dice with the last frame against the frame of the clip, baseline and mitigated network.",
        "Mean over clips with 95 % bootstrap intervals. After Fig. 2 of the paper.",
        table="clip_frames",
    )
    example = report.figure(
        "clip_example",
        "One clip",
        "Frames of one clip with the predictions of baseline and mitigated network.",
        "The clip on which the baseline's first and last prediction agree least: the worst case.",
        table="clip_frames",
    )
    title = "Dice of the predictions at start and end (Table 2)"
    shown = estimates.table(title, report.tables.stability, ("network", "plane"), further=_SPREAD)
    return page.Section("While a frozen frame is annotated", [text], [frames, example], [shown])


def _saliency(report: StudyReport) -> page.Section:
    text = (
        "Grad-CAM on the last layer of the encoder. Enrichment is the share of saliency on the marks over the share of "
        "the image that they cover; at 1, marks get no more attention than other places. Calipers lie where the organ "
        "ends, which has saliency of its own: the marks add the difference from the same places without marks."
    )
    maps = report.figure(
        "saliency",
        "Grad-CAM on test images",
        "Rows of test images with saliency maps of the baseline, without and with marks, and the mitigated network.",
        "Cases at even quantiles of the baseline's share on marks. After Fig. 2 of the paper's appendix.",
    )
    columns = ("network", "tested_on", "quantity")
    shown = estimates.table("Saliency on the marks", report.tables.saliency, columns)
    return page.Section("Where the networks look", [text], [maps], [shown])


def _changes(report: StudyReport) -> page.Section:
    text = (
        "The same scans with calipers alone, with text alone, with another plane's name and measures, and with the "
        "calipers a quarter of the image away. Area: predicted over annotated area; misnamed: share of the prediction "
        "with the class of an absent organ."
    )
    dice = report.figure(
        "changes",
        "Dice by kind of marks",
        "Dots with intervals: Dice of baseline and mitigated network for every kind of marks.",
        "Mean over scans with 95 % bootstrap intervals.",
    )
    example = report.figure(
        "changes_example",
        "One scan",
        "One scan with six kinds of marks and the predictions of baseline and mitigated network.",
        "The scan whose Dice with moved calipers is the baseline's median.",
        table="changes",
    )
    rows = table(row for row in report.tables.changes if row["network"] in COMPARED)
    shown = estimates.table("Changed marks", rows, ("network", "marks", "quantity"))
    return page.Section("Wrong marks", [text], [dice, example], [shown])


def _removals(report: StudyReport) -> page.Section:
    results = report.tables
    text = [
        report.judgement.verdicts[0].of["removal"],
        "True marks are the pixels that were drawn, found marks those that were detected; both are widened by "
        "config.removal.margin. Errors are taken under the true marks, so that missed marks count, and over the whole "
        "image, so that mistaken removals count.",
    ]
    rows = table(row for row in results.downstream if row["network"] in ("reference", "baseline"))
    columns = {"network": "network", "method": "method", "mask": "marks", "quantity": "quantity"}
    shown = [
        _reconstruction_table(results.reconstruction),
        estimates.table("Dice on restored images", rows, columns, digits=3),
        estimates.table("How well marks are found", results.detection, ("quantity",)),
    ]
    examples = report.figure(
        "removals",
        "Restored images",
        "Rows of image parts: with marks, clean, and as each of five removals leaves them.",
        "The half of the image with most marks, found marks removed; cases at even quantiles of the network's error.",
        table="reconstruction",
    )
    errors = report.figure(
        "reconstruction",
        "How close to the clean image",
        "Dots with intervals: error under the marks by method, true and found marks.",
        "Mean over test images with 95 % bootstrap intervals.",
    )
    gap = "Test images without their marks, by every method, as the difference from the Dice on clean images; paired."
    more = " With the marks left in, the baseline has what it learned from."
    of_network = lambda network, title, caption: report.figure(
        f"downstream_{network}",
        title,
        f"Dots with intervals: change of the {network}'s Dice by method, true and found marks.",
        caption,
        table="downstream",
    )
    of_reference = of_network("reference", "What it costs a network trained on clean images", gap)
    figures = [examples, errors, of_reference, of_network("baseline", "What it costs the baseline", gap + more)]
    return page.Section("How marks are best removed", text, figures, shown)


def _reconstruction_table(errors: Table) -> page.Table:
    """A line per method and mask: both errors under the marks and over the image."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    headers = {"method": "method", "mask": "marks"}
    for row in errors:
        line = lines.setdefault((row["method"], row["mask"]), {name: row[name] for name in ("method", "mask")})
        column = f"{row['region']} {row['metric']}"
        headers[column] = f"{row['metric'].upper()}, {row['region']}"
        line |= {column: row.text(digits=1), "n": row.estimate.n}
    note = estimates.note(row.record() for row in errors)
    return page.Table("How close to the clean image", list(lines.values()), note, headers | {"n": "n"})
