"""The figures of an audit, from what its probes measured."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.audit.answers import Arrays, Candidate, Row
from jaxseg.audit.run import Audit
from jaxseg.audit.subject import Subject
from jaxseg.report import figures

# probe of a candidate -> (probe that measured, prefix of its arrays, names of its two pictures)
_PICTURES = {
    "translation": ("translation", "", ("border far away", "border close by")),
    "padding": ("padding", "", ("zero padding", "mirrored features")),
    "overlays_removal": ("overlays", "removal_", ("marks kept, filled in beside them", "marks filled in")),
    "overlays_insertion": ("overlays", "insertion_", ("strokes in the middle", "calipers around an empty place")),
    "gray levels": ("gray levels", "", ("own gray levels", "another domain's")),
}
EVIDENCE = {  # title, alternative text, caption
    "accuracy": (
        "Dice by distance from the centre",
        "Line of Dice against distance from the image's centre.",
        "Mean per case with 95 % bootstrap intervals over patients; square rings counted inwards from the border.",
    ),
    "ability": (
        "Segmentation ability, layer by layer",
        "Line of the segmentation ability score by layer.",
        "How well two prototypes of a layer's features separate the object, as Dice; after He et al. 2022.",
    ),
    "position": (
        "What each layer knows of the border",
        "Line of R squared of the distance from the border by layer.",
        "Cross-validated over patients. After Lin, Weng et al. 2024, Fig. 5.",
    ),
    "distances": (
        "Distance of the domains, layer by layer",
        "Lines of the Hellinger distance by layer, one for each domain and one for halves of one domain.",
        "What halves of one domain differ by is what nothing looks like. After Wilm et al. 2024.",
    ),
    "failures": (
        "How well each score orders the failures",
        "Dots with intervals of the rank correlation of every score with 1 - Dice.",
        "Spearman's rank correlation with 1 - Dice; 1 orders all cases rightly, 0 none. After Lennartz, Schultz 2023.",
    ),
    "calibration": (
        "Confidence and how often it is right",
        "Line of the share of right pixels against confidence, with the diagonal.",
        "All pixels of the test cases in bins of the probability of their most likely class; after Guo et al. 2017.",
    ),
}
_DOMAINS = (
    "Dice in every domain",
    "Dots with intervals of the mean Dice of every domain.",
    "Mean per case with 95 % bootstrap intervals over patients.",
)
_DICE = (
    "Dice of all cases",
    "Dots with intervals of the mean Dice of all cases, and of each class and domain where there are several.",
    "Mean per case with 95 % bootstrap intervals over patients.",
)
_OF_KINDS = {"domain": ("domains", _DOMAINS), "accuracy": ("dice", _DICE)}
_KNOWS = "That a layer knows something does not say that the network uses it: this is evidence, no finding."
WORDS: dict[str, Sequence[str]] = {"position": [_KNOWS], "distances": [_KNOWS], "ability": [_KNOWS]}


def draw(folder: pathlib.Path, subject: Subject, settings: ml_collections.ConfigDict, audit: Audit) -> None:
    """Writes the figures of everything that was measured; those of findings show cases."""
    rows = [
        (one.quantity, "finding" if one.found else "no finding", *_numbers(one))
        for one in audit.candidates
        if not np.isnan(one.estimate.mean)
    ]
    nothing = ("nothing could be asked", "no finding", float("nan"), float("nan"), float("nan"))
    figures.dots(folder / "candidates.png", rows or [nothing], xlabel="number with 95 % interval")
    for finding in audit.found:
        _draw_cases(folder, audit.measured, finding.main, subject)
    for name, make in _MAKERS.items():
        own = [r for r in audit.rows if r["probe"] == name and not r["convention"].startswith("not asked")]
        if name in audit.measured and own:
            make(folder / f"{name}.png", subject, audit.measured[name], own)


def picture_name(candidate: Candidate) -> str:
    """Name of the picture of a finding."""
    if candidate.kind in _OF_KINDS:
        return _OF_KINDS[candidate.kind][0]
    probe = candidate.probe.replace(" ", "_")
    return f"finding_{probe}" if candidate.probe in _PICTURES else probe


def table_name(candidate: Candidate) -> str:
    """Name of the table with the numbers of that picture; of pictures of cases, that of the findings."""
    return "findings" if candidate.probe in _PICTURES else candidate.probe.replace(" ", "_")


def caption(candidate: Candidate) -> tuple[str, str, str]:
    """Title, alternative text and caption of the picture of a finding."""
    if candidate.kind in _OF_KINDS:
        return _OF_KINDS[candidate.kind][1]
    if candidate.probe not in _PICTURES:
        return EVIDENCE[candidate.probe]
    first, second = _PICTURES[candidate.probe][2]
    return (
        f"{first.capitalize()}, and {second}",
        f"Cases twice, {first} and {second}, each with the annotation and the network's prediction.",
        "White: annotation; filled: prediction. The cases stand at the upper and lower quartile of the effect.",
    )


def _numbers(one: Candidate) -> tuple[float, float, float]:
    return one.estimate.mean, one.estimate.low, one.estimate.high


def _draw_cases(folder: pathlib.Path, measured: Mapping[str, Arrays], candidate: Candidate, subject: Subject) -> None:
    if candidate.probe not in _PICTURES:
        return
    probe, prefix, names = _PICTURES[candidate.probe]
    arrays = measured[probe]
    rows: list[tuple[str, Any, Any, Mapping[str, Any]]] = []
    for i, case in enumerate(arrays[f"{prefix}chosen"]):
        for k, name in enumerate(names):
            image, labels, classes = (
                arrays[f"{prefix}{part}"][i, k] for part in ("pictures", "picture_labels", "picture_classes")
            )
            title = f"{subject.test.cases[int(case)]}, {name}"
            rows.append((title, _rgb(image), labels, {"prediction": classes}))
    if rows:
        figures.overlays(folder / f"{picture_name(candidate)}.png", rows)


def _rgb(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)


def _bands(path: pathlib.Path, subject: Subject, arrays: Arrays, rows: Sequence[Row]) -> None:
    dice = [(r["where"], "", r["mean"], r["low"], r["high"]) for r in rows if r["quantity"] == "Dice"]
    figures.dots(path.with_name("dice.png"), dice, xlabel="Dice")
    of_domains = [r for r in rows if r["where"].startswith("domain ")]
    if of_domains:
        shown = [(r["where"], "", r["mean"], r["low"], r["high"]) for r in of_domains]
        figures.dots(path.with_name("domains.png"), shown, xlabel="Dice")
    own = [r for r in rows if r["quantity"] == "Dice by band"]
    if own:
        series = _series("Dice", arrays["outer"], own)
        label = f"distance from the centre (px of {subject.image_size})"
        figures.curves(path, {"": [series]}, xlabel=label, ylabel="Dice")


def _series(label: str, x: Any, rows: Sequence[Row]) -> figures.Series:
    mean, low, high = ([r[k] for r in rows] for k in ("mean", "low", "high"))
    return figures.Series(label, x, mean, low, high)


def _layers(ylabel: str, limits: tuple[float, float] | None) -> Any:
    def make(path: pathlib.Path, subject: Subject, arrays: Arrays, rows: Sequence[Row]) -> None:
        of = {name: [r for r in rows if r["quantity"] == name] for name in dict.fromkeys(r["quantity"] for r in rows)}
        series = [_series(name, np.arange(1, len(own) + 1), own) for name, own in of.items()]
        figures.curves(path, {"": series}, xlabel="layer, input to output", ylabel=ylabel, ylim=limits)

    return make


def _league(path: pathlib.Path, subject: Subject, arrays: Arrays, rows: Sequence[Row]) -> None:
    league = [r for r in rows if r["quantity"] == "rank correlation"]
    shown = [(r["where"], "", r["mean"], r["low"], r["high"]) for r in league]
    figures.dots(path, shown, xlabel="rank correlation with 1 - Dice")


def _reliability(path: pathlib.Path, subject: Subject, arrays: Arrays, rows: Sequence[Row]) -> None:
    pixels, confidence, right = np.moveaxis(arrays["sums"].sum(0, dtype=float), -1, 0)
    there = pixels > 0
    x, y = confidence[there] / pixels[there], right[there] / pixels[there]
    unknown = np.full(len(x), np.nan)
    series = [figures.Series("right", x, y, unknown, unknown), figures.Series("ideal", x, x, unknown, unknown, "--")]
    figures.curves(path, {"": series}, xlabel="confidence", ylabel="share of right pixels")


_MAKERS = {
    "accuracy": _bands,
    "ability": _layers("SA score", (0.0, 1.0)),
    "position": _layers("R²", None),
    "distances": _layers("Hellinger distance", (0.0, 1.0)),
    "failures": _league,
    "calibration": _reliability,
}
