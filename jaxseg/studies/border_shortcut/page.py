"""The page of the border-shortcut study."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.report import page
from jaxseg.results.text import estimate_text
from jaxseg.studies.base import Report
from jaxseg.studies.border_shortcut import experiment as study
from jaxseg.training import checks, runs


def make(report: Report[runs.Splits, Mapping[study.Run, study.Measures], study.Tables]) -> page.Page:
    """What the page says."""
    config, results, figure = report.config, report.tables, report.figure
    padding, evaluation = config.paddings[0], config.evaluation
    lead = figure(
        "bands",
        "Dice by distance from the centre",
        "Two panels of Dice against distance from the centre, for M_ori and M_crop, on quadrants and on whole images.",
        f"Mean per case over the cases in which annotation or prediction has lesion in the band, with 95 % bootstrap "
        f"intervals over patients; {padding} padding; the shaded range is what counts as border "
        f"({evaluation.border_width} px). After Fig. 4 of Lin, Weng et al. 2024.",
        "bands",
    )
    boxes = figure(
        "band_boxes",
        "The same, case by case",
        "Box plots of Dice per case against distance from the centre.",
        "Box: quartiles and median; whiskers to 1.5 interquartile ranges. Empty bands are left out.",
        "cases",
    )
    examples = figure(
        "examples",
        "Quadrants of test images",
        "Rows of skin images with the annotated outline and the predictions of both networks.",
        "White: annotation. Title: Dice at the border of M_ori / M_crop. The cases stand at even quantiles of the "
        "difference between the two networks at the border.",
        "cases",
    )
    windows = figure(
        "moving_window",
        "A window moves over one image",
        "Windows along the diagonal of one image with the predictions of both networks.",
        "The case with the median lesion area; the offset of the window from the top left corner is in pixels of the "
        "stored image. After Fig. 1 of the paper's appendix.",
        "moving_window",
    )
    centres = figure(
        "mask_centres",
        "Where the masks lie",
        "Heat maps of the centres of mass of the masks in every split, whole images and quadrants.",
        "Masks per cell, each panel on its own scale; of quadrants, the one that belongs to the case. After Fig. 6.",
        "mask_centre_map",
    )
    layers = figure(
        "position",
        "What each layer knows of the border",
        "Lines of R squared of the distance from the border by layer, for both networks.",
        "Cross-validated over patients, on whole test images. A network without padding has 0 here but for what "
        "lesions tell: they lie in the middle.",
        "position",
    )
    features = figure(
        "border_features",
        "Features of pixels near the border",
        "Scatter plots of the last layer's features of many pixels, coloured by distance from the border.",
        "Two largest principal components of the last layer in front of the logits. After Fig. 5 of the paper.",
        "border_features",
    )
    answer = report.judgement.verdicts[0]
    return page.Page(
        title=f"Border shortcut ({config.size})",
        question="Did the network learn that pixels near the border are background?",
        verdict=answer.verdict,
        answer=answer.sentence,
        lead=lead,
        facts=_facts(results, padding),
        sections=[
            page.Section(
                "What was compared",
                [
                    f"M_ori was trained on whole images, M_crop on quadrants ({report.origin['data']}). A quadrant is "
                    "cut at the image's midpoint before it is resized, and one of the four is drawn each time. Lesions "
                    "lie in the middle of whole images and at the edges of quadrants. Both networks are tested on "
                    "both; the quadrant of a test case is fixed by its name.",
                    "A quadrant shows the lesion twice as large, which M_ori has not seen either. What speaks for the "
                    "border rather than for the scale is the excess: how much larger the gap between the networks is "
                    "at the border than inside. How much of it is due to padding, only other padding modes tell.",
                    _prior_text(report.measured, padding),
                ],
                [],
                [
                    _table("Dice per case", results.dice, _WHO),
                    _table(
                        "At the border and inside",
                        [row for row in results.border if row["padding"] == padding],
                        {"tested_on": "tested on", "quantity": "quantity"},
                    ),
                ],
            ),
            page.Section(
                "By distance from the centre",
                [_smooth_text(results, config)],
                [boxes, examples]
                if (report.figures / "examples.png").exists()
                else [boxes],  # no examples where no case is defined
                [_band_table(results.bands, padding)],
            ),
            page.Section(
                "The moving window",
                [
                    "If a network judges a pixel by what surrounds it, its answer stays when the window moves. The "
                    "number is the Dice of the predictions of all pairs of overlapping windows, mapped back to the "
                    "image; 1 means that no pixel changed.",
                ],
                [windows],
                [_table("Agreement of overlapping windows", results.moving_window, _WHO)],
            ),
            page.Section(
                "Features near the border",
                [_position_text(results, padding)],
                [layers, features],
                [_table("R² of the distance from the border", results.position, _WHO_OF_LAYER)],
            ),
            page.Section(
                "Where the masks lie",
                ["The shortcut can only be learned where lesions avoid the border. 0 is the centre, 1 half a side."],
                [centres],
                [_table("Mean distance from the centre", results.mask_centres, {"split": "split", "view": "view"})],
            ),
            _padding_section(config, results, figure),
        ],
    )


def _position_text(results: study.Tables, padding: str) -> str:
    best = {
        model: max(
            (row for row in results.position if (row["padding"], row["model"]) == (padding, model)),
            key=lambda row: row["mean"],
        )
        for model in study.NAMES.values()
    }
    return (
        "Zero padding changes the features of pixels whose surroundings reach beyond the image. How well a regression "
        "reads the distance from the border off a layer's features, at best: "
        + "; ".join(f"{model} {row['mean']:.2f} in layer {row['layer']} ({row['name']})" for model, row in best.items())
        + ". That the information is there does not yet say that the network uses it."
    )


_WHO_OF_LAYER = {"padding": "padding", "model": "model", "layer": "layer", "name": "name"}
_WHO = {"padding": "padding", "model": "model", "trained_on": "trained on", "tested_on": "tested on"}


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> page.Table:
    """The named columns, then the estimate, n and undefined; the rows' common convention as the note."""
    shown = [
        {name: row[name] for name in columns}
        | {
            "estimate": f"{row['mean']:.2f}"
            if row["interval"] == "none"
            else estimate_text(row["mean"], row["low"], row["high"]),
            "n": row["n"],
            "undefined": row["undefined"],
        }
        for row in rows
    ]
    headers = {**columns, "estimate": "mean [95 % interval]", "n": "n", "undefined": "undefined"}
    return page.Table(title, shown, ". ".join(dict.fromkeys(row["convention"] for row in rows)) + ".", headers)


def _band_table(rows: Sequence[Mapping[str, Any]], padding: str) -> page.Table:
    """Both conventions side by side, on quadrants."""
    shown: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["padding"] != padding or row["tested_on"] != "quadrant":
            continue
        line = shown.setdefault(row["outer_distance_px"], {"distance": row["outer_distance_px"]})
        estimate = estimate_text(row["mean"], row["low"], row["high"])
        if row["convention"] == study.SMOOTH:
            line[f"{row['model']}_smooth"] = estimate
        else:
            line |= {row["model"]: estimate, f"{row['model']}_n": row["n"], f"{row['model']}_empty": row["undefined"]}
    headers = {"distance": "outer edge (px)"}
    for model in study.NAMES.values():
        headers |= {model: model, f"{model}_n": "n", f"{model}_empty": "empty", f"{model}_smooth": f"{model}, smooth=1"}
    return page.Table("Dice by band, quadrants", list(shown.values()), f"{study.DICE}. {study.SMOOTH}.", headers)


def _prior_text(measured: Mapping[study.Run, study.Measures], padding: str) -> str:
    """What M_crop learned of its own: at the border of quadrants lesions are common."""
    marked = {}
    for view, model in study.NAMES.items():
        measures = measured[padding, view]
        without = np.isnan(measures["original_border_recall"])  # no lesion there
        marked[model] = int((without & ~np.isnan(measures["original_border"])).sum())
    return (
        "M_crop is no neutral judge: at the edges of quadrants lesions are common, and it learned that too. On whole "
        f"images it marks lesion at the border of {marked['M_crop']} of the {int(without.sum())} test cases that have "
        f"none there, M_ori of {marked['M_ori']}. What M_ori finds of a lesion does not depend on M_crop."
    )


def _facts(results: study.Tables, padding: str) -> list[tuple[str, str]]:
    wanted = [
        ("M_ori at the border", "M_ori, border of quadrants"),
        ("M_crop at the border", "M_crop, border of quadrants"),
    ]
    wanted += [(study.GAP, "gap at the border"), (study.EXCESS, "excess over the gap inside")]
    rows = {r["quantity"]: r for r in results.border if r["padding"] == padding and r["tested_on"] == "quadrant"}
    facts = [(label, estimate_text(*(rows[name][k] for k in ("mean", "low", "high")))) for name, label in wanted]
    for other in dict.fromkeys(row["padding"] for row in results.border):
        if other != padding:
            row = next(
                r
                for r in results.border
                if (r["padding"], r["tested_on"], r["quantity"]) == (other, "quadrant", study.GAP)
            )
            facts.append((f"gap with {other} padding", estimate_text(row["mean"], row["low"], row["high"])))
    for row in results.moving_window:
        if row["padding"] == padding:
            text = estimate_text(row["mean"], row["low"], row["high"])
            facts.append((f"{row['model']}, agreement of windows", text))
    return facts


def _smooth_text(results: study.Tables, config: ml_collections.ConfigDict) -> str:
    outermost = max(row["outer_distance_px"] for row in results.bands)
    values = {
        (row["model"], row["convention"]): row
        for row in results.bands
        if row["padding"] == config.paddings[0]
        and row["tested_on"] == "quadrant"
        and row["outer_distance_px"] == outermost
    }
    parts = []
    for model in study.NAMES.values():
        ours, theirs = values[model, study.DICE], values[model, study.SMOOTH]
        counted = f"n = {ours['n']}, {ours['undefined']} empty"
        parts.append(f"{model} {ours['mean']:.2f} ({counted}) and {theirs['mean']:.2f} with smooth=1")
    return (
        "Bands that hold no lesion in annotation and prediction are undefined, left out and counted. The authors' code "
        "adds 1 to numerator and denominator, which scores such a band as perfect. In the outermost band of quadrants: "
        + "; ".join(parts)
        + ". Both conventions stand in tables/bands.csv."
    )


def _padding_section(
    config: ml_collections.ConfigDict,
    results: study.Tables,
    figure: Any,
) -> page.Section:
    title = "Padding as a factor"
    if len(config.paddings) == 1:
        return page.Section(
            title,
            [
                f"Only {config.paddings[0]} padding was run. Appending ,padding to the size in --config repeats the "
                "study with zero, reflect, replicate, circular and valid padding."
            ],
            [],
            [],
        )
    text = [
        "The paper supposes that reflection or replication would make the shortcut harder to learn, but not "
        "impossible. Measured on quadrants:",
        *(_padding_text(config, results, padding) for padding in config.paddings),
    ]
    if "valid" in config.paddings:
        margin = checks.build_model(study.run_config(config, "valid", "original"), 2).margin
        text.append(
            f"With valid padding no feature map is padded; the image itself is extended beforehand by {margin} px of "
            "reflection on every side (overlap-tile), and the logits are those of the image. With circular padding a "
            "network cannot tell where the border is, but for the seam that the image's two sides make. What gap is "
            "left in these two modes is no work of zero padding: lesions are larger in quadrants, and cut off."
        )
    rows = [
        r
        for r in results.border
        if r["tested_on"] == "quadrant" and r["quantity"].startswith((study.GAP, study.EXCESS))
    ]
    dots = figure(
        "paddings",
        "The gap by padding mode",
        "Dots with intervals: gap at the border and its excess over the gap inside, for every padding mode.",
        "Quadrants; M_crop minus M_ori; bootstrap over patients, paired. One run per network: the interval does not "
        "cover what another seed would change.",
        "border",
    )
    return page.Section(title, text, [dots], [_table("Gaps", rows, {"padding": "padding", "quantity": "quantity"})])


def _padding_text(config: ml_collections.ConfigDict, results: study.Tables, padding: str) -> str:
    rows = {r["quantity"]: r for r in results.border if (r["padding"], r["tested_on"]) == (padding, "quadrant")}
    text = lambda row: estimate_text(row["mean"], row["low"], row["high"])
    found = [
        f"{rows[f'lesion found at the border by {model}']['mean']:.0%} by {model}" for model in study.NAMES.values()
    ]
    facts = (
        f"{padding.capitalize()}: gap at the border {text(rows[study.GAP])}, excess over the gap inside "
        f"{text(rows[study.EXCESS])}; of the lesion at the border {' and '.join(found)} is found."
    )
    reference = config.paddings[0]
    if padding == reference:
        return facts
    row = rows[f"{study.GAP}, minus that of {reference} padding"]
    if row["high"] < 0:
        change = "smaller than"
    elif row["low"] > 0:
        change = "larger than"
    else:
        change = "not distinguishable from"
    return f"{facts} The gap is {change} that of {reference} padding (difference {text(row)})."
