"""The page of the border-shortcut study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.report import estimates, page
from jaxseg.results.claims import FAILS, HOLDS, UNCLEAR, Claim
from jaxseg.results.table import Table, table
from jaxseg.studies.base import Measures, claims_table
from jaxseg.studies.border_shortcut import tables
from jaxseg.studies.border_shortcut.settings import NAMES, VIT, Arm, Run, Settings
from jaxseg.studies.border_shortcut.tables import StudyReport
from jaxseg.training import checks

_WHO = ("network", "model", "trained_on", "tested_on")
_FACTORS = "Network and padding as factors"


def make(report: StudyReport) -> page.Page:
    """What the page says."""
    settings = report.settings
    lead = report.figure(
        "bands",
        "Dice by distance from the centre",
        "Two panels of Dice against distance from the centre, for M_ori and M_crop, on quadrants and on whole images.",
        "Mean over the cases in which annotation or prediction has lesion in the band, with 95 % bootstrap intervals "
        f"over patients; {settings.first.label}; shaded: the border ({settings.evaluation.border_width} px). After "
        "Fig. 4 of Lin, Weng et al. 2024.",
    )
    question = "Did the network learn that pixels near the border are background?"
    sections = (_comparison, _by_distance, _moving_window, _features, _mask_centres, _factors)
    return report.write_up("Border shortcut", question, lead, _facts(report.tables, settings), sections)


def _comparison(report: StudyReport) -> page.Section:
    first, results = report.settings.first, report.tables
    text = [
        f"M_ori was trained on whole images, M_crop on quadrants ({report.origin['data']}). Quadrants are cropped "
        "at the image's midpoint before resizing, and one of the four is sampled each time. Lesions lie in the middle "
        "of whole images and at the edges of quadrants. Both networks are tested on both; the quadrant of a test case "
        "is fixed by its name.",
        "A quadrant shows the lesion twice as large, which M_ori has not seen either. The excess, by how much the gap "
        "between the networks is larger at the border than inside, separates border from scale. How much of it is due "
        "to padding shows only with other padding modes.",
        _prior_text(report.measured.of_runs, first),
    ]
    at_border, columns = results.border.where(network=first.label), ("tested_on", "quantity")
    shown = [
        estimates.table("Dice per case", results.dice, _WHO),
        estimates.table("At the border and inside", at_border, columns),
    ]
    return page.Section("What was compared", text, [], shown)


def _by_distance(report: StudyReport) -> page.Section:
    bands = report.tables.bands.where(network=report.settings.first.label, tested_on="quadrant")
    boxes = report.figure(
        "band_boxes",
        "The same, case by case",
        "Box plots of Dice per case against distance from the centre.",
        "Box: quartiles and median; whiskers to 1.5 interquartile ranges. Empty bands are left out.",
        table="cases",
    )
    examples = report.figure(
        "examples",
        "Quadrants of test images",
        "Rows of skin images with the annotated outline and the predictions of both networks.",
        "White: annotation. Title: Dice at the border of M_ori / M_crop. Cases at even quantiles of the "
        "difference between the two networks at the border.",
        table="cases",
    )
    shown = [boxes, examples][: 1 + (report.figures / "examples.png").exists()]  # none where no case is defined
    return page.Section("By distance from the centre", [_smooth_text(bands)], shown, [_band_table(bands)])


def _moving_window(report: StudyReport) -> page.Section:
    text = (
        "If a network classifies a pixel by its surroundings, its answer stays when the window moves. Agreement is the "
        "Dice of the predictions of all pairs of overlapping windows, mapped back to the image; 1: no pixel changes."
    )
    windows = report.figure(
        "moving_window",
        "A window moves over one image",
        "Windows along the diagonal of one image with the predictions of both networks.",
        "The case with the median lesion area; the offset of the window from the top left corner is in pixels of the "
        "stored image. After Fig. 1 of the paper's appendix.",
    )
    agreement = estimates.table("Agreement of overlapping windows", report.tables.moving_window, _WHO)
    return page.Section("The moving window", [text], [windows], [agreement])


def _features(report: StudyReport) -> page.Section:
    position = report.tables.position
    layers = report.figure(
        "position",
        "What each layer knows of the border",
        "Lines of R squared of the distance from the border by layer, for both networks.",
        "Cross-validated over patients, on whole test images. A network without padding has 0 here, but for what "
        "lesions tell: they lie in the middle.",
    )
    features = report.figure(
        "border_features",
        "Features of pixels near the border",
        "Scatter plots of the last layer's features of many pixels, coloured by distance from the border.",
        "Two largest principal components of the last layer before the logits. After Fig. 5 of the paper.",
    )
    text = _position_text(position.where(network=report.settings.first.label))
    columns = ("network", "model", "layer", "name")
    shown = estimates.table("R² of the distance from the border", position, columns)
    return page.Section("Features near the border", [text], [layers, features], [shown])


def _mask_centres(report: StudyReport) -> page.Section:
    text = "The shortcut can only be learned where lesions avoid the border. 0 is the centre, 1 half a side."
    centres = report.figure(
        "mask_centres",
        "Where the masks lie",
        "Heat maps of the centres of mass of the masks in every split, whole images and quadrants.",
        "Masks per cell, each panel on its own scale; of quadrants, the one that belongs to the case. After Fig. 6.",
        table="mask_centre_map",
    )
    distance = estimates.table("Mean distance from the centre", report.tables.mask_centres, ("split", "view"))
    return page.Section("Where the masks lie", [text], [centres], [distance])


def _position_text(position: Table) -> str:
    parts = []
    for model in NAMES.values():
        best = max(position.where(model=model), key=lambda row: row.estimate.mean)
        parts.append(f"{model} {best.text()} in layer {best['layer']} ({best['name']})")
    return (
        "Zero padding changes the features of pixels whose surroundings reach beyond the image. The best regression of "
        f"the distance from the border on a layer's features: {'; '.join(parts)}. That the information is there does "
        "not mean that the network uses it."
    )


def _band_table(bands: Table) -> page.Table:
    """Both conventions side by side."""
    headers = {"distance": "outer edge (px)"}
    for model in NAMES.values():
        headers |= {model: model, f"{model}_n": "n", f"{model}_empty": "empty", f"{model}_smooth": f"{model}, smooth=1"}
    lines = []
    for distance in bands.values("outer_distance_px"):
        line: dict[str, Any] = {"distance": distance}
        for model in NAMES.values():
            own = bands.where(outer_distance_px=distance, model=model)
            ours, theirs = own.one(convention=tables.DICE), own.one(convention=tables.SMOOTH)
            line |= {model: ours.text(), f"{model}_n": ours.estimate.n, f"{model}_empty": ours.estimate.undefined}
            line |= {f"{model}_smooth": theirs.text()}
        lines.append(line)
    return page.Table("Dice by band, quadrants", lines, f"{tables.DICE}. {tables.SMOOTH}.", headers)


def _prior_text(measured: Mapping[Run, Measures], arm: Arm) -> str:
    """What M_crop learned of its own: at the border of quadrants lesions are common."""
    marked = {}
    for view, model in NAMES.items():
        measures = measured[Run(arm, view)]
        without = np.isnan(measures["original_border_recall"])  # no lesion there
        marked[model] = int((without & ~np.isnan(measures["original_border"])).sum())
    return (
        "M_crop is not neutral: lesions are common at the edges of quadrants, and it learned that too. On "
        f"whole images it predicts lesion at the border of {marked['M_crop']} of the {int(without.sum())} test cases "
        f"that have none there, M_ori of {marked['M_ori']}. What M_ori finds of a lesion does not depend on M_crop."
    )


def _facts(results: tables.Tables, settings: Settings) -> list[tuple[str, str]]:
    """The answer's numbers, and the gaps of the same architecture with other paddings."""
    quadrants, first = results.border.where(tested_on="quadrant"), settings.first
    wanted = {
        "M_ori at the border": "M_ori, border of quadrants",
        "M_crop at the border": "M_crop, border of quadrants",
        tables.GAP: "gap at the border",
        tables.EXCESS: "excess over the gap inside",
    }
    facts = [(label, quadrants.one(network=first.label, quantity=name).text()) for name, label in wanted.items()]
    facts += [
        (f"gap, {arm.label}", quadrants.one(network=arm.label, quantity=tables.GAP).text())
        for arm in settings.arms[1:]
        if arm.network == first.network
    ]
    windows = results.moving_window.where(network=first.label)
    return [*facts, *((f"{row['model']}, agreement of windows", row.text()) for row in windows)]


def _smooth_text(bands: Table) -> str:
    outermost = bands.where(outer_distance_px=max(bands.values("outer_distance_px")))
    parts = []
    for model in NAMES.values():
        ours, theirs = (outermost.one(model=model, convention=name).estimate for name in (tables.DICE, tables.SMOOTH))
        counted = f"n = {ours.n}, {ours.undefined} empty"
        parts.append(f"{model} {ours.mean:.2f} ({counted}) and {theirs.mean:.2f} with smooth=1")
    return (
        "Bands without lesion in annotation and prediction are undefined, left out and counted. The authors' code adds "
        "1 to numerator and denominator, which scores such a band as perfect. In the outermost band of quadrants: "
        f"{'; '.join(parts)}. Both conventions are in tables/bands.csv."
    )


def _factors(report: StudyReport) -> page.Section:
    settings, border = report.settings, report.tables.border.where(tested_on="quadrant")
    if len(settings.arms) == 1:
        more = (
            "Appending ,padding to the size in --config repeats the study with all five padding modes, ,transformer "
            "with a vision transformer too."
        )
        return page.Section(_FACTORS, [f"Only one network was run ({settings.first.label}). {more}"])
    text = [
        "The paper supposes that reflection or replication would make the shortcut harder to learn, but not "
        "impossible.",
        *_valid_text(settings),
        *_transformer_text(settings, report.judgement.claims),
    ]
    shown = {
        tables.GAP,
        tables.EXCESS,
        *map(tables.minus_that_of, filter(None, map(settings.reference, settings.arms))),
    }
    gaps = table(row for row in border if row["quantity"] in shown)
    dots = report.figure(
        "networks",
        "The gap by network and padding",
        "Dots with intervals: gap at the border and its excess over the gap inside, for every network and padding.",
        "Quadrants; M_crop minus M_ori; bootstrap over patients, paired. One run per network: the interval does not "
        "cover what another seed would change.",
        table="border",
    )
    found = [_answers(report), estimates.table("Gaps", gaps, ("network", "quantity"))]
    if report.judgement.claims:
        found.insert(1, claims_table(report.judgement.claims, "bootstrap over patients, differences paired"))
    return page.Section(_FACTORS, text, [dots], found)


def _answers(report: StudyReport) -> page.Table:
    """The answer of every arm, and how its gap compares."""
    border = report.tables.border.where(tested_on="quadrant")
    lines = [
        {"network": arm.label, "answer": verdict.verdict, "sentence": verdict.sentence}
        | {"compared": _compared(border, arm, report.settings.reference(arm))}
        for arm, verdict in zip(report.settings.arms, report.judgement.verdicts, strict=True)
    ]
    columns = {"network": "network", "answer": "answer", "sentence": "by these numbers", "compared": "the gap is"}
    return page.Table("Answers", lines, "Intervals: 95 %, bootstrap over patients, differences paired.", columns)


def _compared(border: Table, arm: Arm, reference: Arm | None) -> str:
    if not reference:
        return ""
    difference = border.one(network=arm.label, quantity=tables.minus_that_of(reference))
    smaller, larger = difference.estimate.high < 0, difference.estimate.low > 0
    change = "smaller than" if smaller else "larger than" if larger else "not distinguishable from"
    return f"{change} that of {reference.label} (difference {difference.text()})"


def _valid_text(settings: Settings) -> list[str]:
    """What is left of the border where nothing is padded, if such a network was run."""
    run = next((run for run in settings.networks if run.arm.padding == "valid"), None)
    if run is None:
        return []
    margin = checks.build_model(settings.of_run(run), 2).margin
    return [
        f"With valid padding no feature map is padded; the image is extended beforehand by {margin} px of "
        "reflection on every side (overlap-tile), and the logits have its size. With circular padding a network "
        "sees of the border only the seam between opposite sides. A gap that is left in these two modes is not due "
        "to zero padding: lesions are larger in quadrants, and truncated."
    ]


def _transformer_text(settings: Settings, claims: Sequence[Claim]) -> list[str]:
    """Whether a transformer's positions tell of the border, if one was run."""
    if not any(arm.network == VIT for arm in settings.arms):
        return []
    text = (
        "Every token of a transformer sees the whole image, and only positions tell it where it is: without them its "
        "layers see a set of patches, and only the padding of the decoder's convolutions can tell of the border. The "
        "paper leaves open whether the encoding of positions carries the shortcut."
    )
    if not claims:
        return [f"{text} That shows only beside a network without positions, which was not run."]
    of = lambda claim: f"{claim.of['positions']} positions with {claim.of['padding']} padding"
    found = {word: [of(claim) for claim in claims if claim.answer == word] for word in (HOLDS, FAILS, UNCLEAR)}
    answers = "; ".join(f"{word} for {', '.join(those)}" for word, those in found.items() if those)
    return [
        f"{text} That it does, by the gaps here: {answers}. A network that is poor at the border whatever it was "
        "trained on has less of a gap to show, so the Dice of M_crop there is to be read beside it. One run per "
        "network is an anecdote: another seed may say otherwise."
    ]
