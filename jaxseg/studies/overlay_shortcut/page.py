"""The page of the overlay-shortcut study."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from jaxseg.report import page
from jaxseg.results.claims import Verdict
from jaxseg.results.text import estimate_text
from jaxseg.studies.base import Report
from jaxseg.studies.overlay_shortcut import experiment as study
from jaxseg.studies.overlay_shortcut import images as marked
from jaxseg.studies.overlay_shortcut import tables as numbers


def make(
    report: Report[Any, Mapping[str, marked.Scans], study.Measured, numbers.Tables],
) -> page.Page:
    """What the page says."""
    config, results, figure = report.settings, report.tables, report.figure
    verdict, origin = report.judgement.verdicts[0], report.origin
    lead = figure(
        "drops",
        "What the marks are worth",
        "Dots with intervals: the fall of the Dice when marks are removed, by plane, baseline and mitigated network.",
        "Annotated minus cleaned test images, paired, 95 % bootstrap intervals over patients. To the right of 0 the "
        "network needs the marks. After Table 1 of Lin, Weng et al. 2024.",
        "drops",
    )
    known = config.overlays.source != "burnt_in"
    sections = [_compared(config, results, origin), _stability(results, figure), _saliency(results, figure)]
    if known:
        sections += [_changes(results, figure), _removals(results, verdict, figure)]
    return page.Page(
        title=f"Overlay shortcut ({report.size})",
        question="Does the network segment by the marks?",
        verdict=verdict.verdict,
        answer=verdict.sentence,
        lead=lead,
        facts=_facts(results),
        sections=sections,
    )


_SOURCES = {
    "world": "Every scan of this drawn world exists with and without marks; the marks go with the plane and the organ, "
    "as in clinics, and nothing else does.",
    "drawn": "The images had no marks of the study's kind; calipers at the ends of the head's axes and the machine's "
    "text were drawn on them, so what is below is known. What the files themselves have printed on them was left.",
    "burnt_in": "The images have marks, and what is below them is not known: there is no network trained on clean "
    "images, and removals cannot be compared.",
}


def _compared(config: ml_collections.ConfigDict, results: numbers.Tables, origin: Mapping[str, Any]) -> page.Section:
    return page.Section(
        "What was compared",
        [
            f"The baseline was trained on annotated images ({origin['data']}), the mitigated network on cleaned ones: "
            "marks were found on each image by their colour and their sharp edges, and filled in as config.removal "
            f"says ({config.removal.method.replace('_', ' ')}). The reference was trained on clean images. "
            + _SOURCES[config.overlays.source],
            "The paper's ultrasound is private, and other images and a smaller network stand here: its numbers are "
            "for orientation, not to be met. Behind its ± stand standard deviations over images, as in the column sd.",
            *_missed_text(results),
        ],
        [],
        [
            _table(
                "Dice with and without marks (Table 1)",
                results.dice,
                {"network": "network", "plane": "plane", "tested_on": "tested on"},
                paper=True,
            ),
            _table(
                "The fall of the Dice",
                results.drops,
                {"network": "network", "plane": "plane", "drop_to": "from annotated to"},
                paper=True,
                digits=3,
            ),
        ],
    )


def _missed_text(results: numbers.Tables) -> list[str]:
    """Names what is not segmented even with marks: nothing can be lost there, and it pulls the mean over planes."""
    missed = [
        f"{row['plane']} by the {row['network']}"
        for row in results.dice
        if row["tested_on"] == study.NETWORKS[row["network"]] and row["mean"] < _MISSED
    ]
    return [f"Not learned at all, on images like those trained on: {', '.join(missed)}."] if missed else []


_MISSED = 0.1  # Dice below which a plane counts as not learned


def _stability(results: numbers.Tables, figure: page.FigureOf) -> page.Section:
    return page.Section(
        "While a frozen frame is annotated",
        [
            "The image stays, marks appear. A network that looks at the organ gives the same answer before and after.",
        ],
        [
            figure(
                "clips",
                "Agreement with the last frame",
                "Panels of the Dice with the last frame against the frame of the clip, baseline and mitigated network.",
                "Mean over clips with 95 % bootstrap intervals. After Fig. 2 of the paper.",
                "clip_frames",
            ),
            figure(
                "clip_example",
                "One clip",
                "Frames of one clip with the predictions of baseline and mitigated network.",
                "The clip on which the baseline's first and last prediction agree least: the worst case.",
                "clip_frames",
            ),
        ],
        [
            _table(
                "Dice of the predictions at start and end (Table 2)",
                results.stability,
                {"network": "network", "plane": "plane"},
                paper=True,
            )
        ],
    )


def _saliency(results: numbers.Tables, figure: page.FigureOf) -> page.Section:
    return page.Section(
        "Where the networks look",
        [
            "Grad-CAM on the last layer of the encoder. Enrichment is the share of saliency on the marks over the "
            "share of the image that they cover; 1 means that marks are looked at like any other place. Calipers lie "
            "where the organ ends, which has saliency of its own: what the marks add is the difference from the same "
            "places on the same images without marks.",
        ],
        [
            figure(
                "saliency",
                "Grad-CAM on test images",
                "Rows of test images with saliency maps of the baseline, without and with marks, and the mitigation.",
                "Cases at even quantiles of the baseline's share on marks. After Fig. 2 of the paper's appendix.",
                "saliency",
            )
        ],
        [
            _table(
                "Saliency on the marks",
                results.saliency,
                {"network": "network", "tested_on": "tested on", "quantity": "quantity"},
            )
        ],
    )


def _changes(results: numbers.Tables, figure: page.FigureOf) -> page.Section:
    return page.Section(
        "Marks that are not the right ones",
        [
            "The same scans with calipers alone, with text alone, with another plane's name and measures, and with the "
            "calipers a quarter of the image away. Area is what is predicted over what is annotated; misnamed is the "
            "share of it that bears the class of an organ that is not there.",
        ],
        [
            figure(
                "changes",
                "Dice by kind of marks",
                "Dots with intervals: Dice of baseline and mitigated network for every kind of marks.",
                "Mean over scans with 95 % bootstrap intervals.",
                "changes",
            ),
            figure(
                "changes_example",
                "One scan",
                "One scan with six kinds of marks and the predictions of baseline and mitigated network.",
                "The scan whose Dice with moved calipers is the baseline's median.",
                "changes",
            ),
        ],
        [
            _table(
                "Changed marks",
                [row for row in results.changes if row["network"] != "reference"],
                {"network": "network", "marks": "marks", "quantity": "quantity"},
            )
        ],
    )


def _removals(results: numbers.Tables, verdict: Verdict, figure: page.FigureOf) -> page.Section:
    columns = {"network": "network", "method": "method", "mask": "marks", "quantity": "quantity"}
    gap = "Test images without their marks, by every method, as the difference from the Dice on clean images; paired."
    return page.Section(
        "How marks are best removed",
        [
            verdict.of["removal"],
            "True marks are the pixels that were drawn, found ones those that were detected; both are widened by "
            "config.removal.margin. Errors are taken under the true marks, so that a mark that was not found counts, "
            "and over the whole image, so that what was removed by mistake counts.",
        ],
        [
            figure(
                "removals",
                "Restored images",
                "Rows of image parts: with marks, clean, and as each of five removals leaves them.",
                "The half of the image with most marks, found marks removed; cases at even quantiles of the network's "
                "error.",
                "reconstruction",
            ),
            figure(
                "reconstruction",
                "How near to the clean image",
                "Dots with intervals: error under the marks by method, true and found marks.",
                "Mean over test images with 95 % bootstrap intervals.",
                "reconstruction",
            ),
            figure(
                "downstream_reference",
                "What it costs a network trained on clean images",
                "Dots with intervals: change of the reference's Dice by method, true and found marks.",
                gap,
                "downstream",
            ),
            figure(
                "downstream_baseline",
                "What it costs the baseline",
                "Dots with intervals: change of the baseline's Dice by method, true and found marks.",
                gap + " With the marks left in, the baseline has what it learned from.",
                "downstream",
            ),
        ],
        [
            _reconstruction_table(results),
            _table(
                "Dice on restored images",
                [row for row in results.downstream if row["network"] in ("reference", "baseline")],
                columns,
                digits=3,
            ),
            _table("How well marks are found", results.detection, {"quantity": "quantity"}),
        ],
    )


def _reconstruction_table(results: numbers.Tables) -> page.Table:
    """A line per method and mask: both errors under the marks and over the image."""
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    headers = {"method": "method", "mask": "marks"}
    for row in results.reconstruction:
        line = shown.setdefault((row["method"], row["mask"]), {"method": row["method"], "mask": row["mask"]})
        key = f"{row['region']} {row['metric']}"
        headers[key] = f"{row['metric'].upper()}, {row['region']}"
        line |= {key: estimate_text(row["mean"], row["low"], row["high"], 1), "n": row["n"]}
    note = ". ".join(dict.fromkeys(row["convention"] for row in results.reconstruction)) + "."
    return page.Table("How near to the clean image", list(shown.values()), note, headers | {"n": "n"})


def _table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    paper: bool = False,
    digits: int = 2,
) -> page.Table:
    """The named columns, then the estimate, the paper's number, n and undefined; the rows' conventions as the note."""
    headers = dict(columns) | {"estimate": "mean [95 % interval]"}
    if any("sd" in row for row in rows):
        headers["sd"] = "sd"
    if paper:
        headers["paper"] = "paper"
    headers |= {"n": "n", "undefined": "undefined"}
    shown = [
        {name: row[name] for name in columns}
        | {
            "estimate": estimate_text(row["mean"], row["low"], row["high"], digits),
            "sd": row.get("sd", math.nan),
            "paper": _paper_text(row, digits) if paper else "",
            "n": row["n"],
            "undefined": row["undefined"],
        }
        for row in rows
    ]
    return page.Table(title, shown, ". ".join(dict.fromkeys(row["convention"] for row in rows)) + ".", headers)


def _paper_text(row: Mapping[str, Any], digits: int) -> str | None:
    if math.isnan(row["paper_mean"]):
        return None
    spread = row.get("paper_sd", math.nan)
    return f"{row['paper_mean']:z.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.2f}")


def _facts(results: numbers.Tables) -> list[tuple[str, str]]:
    facts = [
        (f"{row['network']}, drop to {row['drop_to']} images", numbers.text(row))
        for row in results.drops
        if row["plane"] == numbers.ALL and row["network"] in ("baseline", "mitigation")
    ]
    facts += [
        (f"{row['network']}, start and end of clips", numbers.text(row))
        for row in results.stability
        if row["plane"] == numbers.ALL and row["network"] in ("baseline", "mitigation")
    ]
    facts += [
        (f"{row['network']}, enrichment due to marks", numbers.text(row))
        for row in results.saliency
        if row["quantity"] == numbers.EXCESS and row["network"] in ("baseline", "mitigation")
    ]
    return facts
