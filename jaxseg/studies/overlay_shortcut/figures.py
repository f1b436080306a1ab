"""The figures of the overlay-shortcut study, from its images, measures and tables."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import ml_collections
import numpy as np

from jaxseg.data import overlays
from jaxseg.report import figures
from jaxseg.studies.base import Report
from jaxseg.studies.overlay_shortcut import experiment as study
from jaxseg.studies.overlay_shortcut import images as marked
from jaxseg.studies.overlay_shortcut import tables as numbers

_COMPARED = ("baseline", "mitigation")
_METHODS = (marked.NOTHING, *overlays.REMOVALS)
_MASKS = {"true": "true marks", "found": "found marks"}
_SHORT = ("all", "none", "calipers", "text", "other text", "moved")  # of marked.CHANGES, above images
_Cells = Sequence[tuple[Any, Any]]  # image and mask of every column


def draw(report: Report[ml_collections.ConfigDict, Mapping[str, marked.Scans], study.Measured, numbers.Tables]) -> None:
    """Writes all figures of the study; those of changed marks and removals if clean images are known."""
    folder, config, results = report.figures, report.settings, report.tables
    images, clips, measured = report.measured.images, report.measured.clips, report.measured.networks
    figures.dots(
        folder / "drops.png",
        [
            _points(row, row["plane"], row["network"])
            for row in _sorted(results.drops, "plane", list(dict.fromkeys(row["plane"] for row in results.drops)))
            if row["drop_to"] == "cleaned" and row["network"] in _COMPARED
        ],
        xlabel="Dice with marks minus marks removed (points, 0.01)",
    )
    figures.curves(
        folder / "clips.png",
        {
            plane: [_clip_series(results.clip_frames, network, plane) for network in _COMPARED]
            for plane in dict.fromkeys(row["plane"] for row in results.clip_frames)
        },
        xlabel="frame of the clip: the first without marks, the last with all",
        ylabel="Dice with the prediction of the last frame",
        ylim=None,
    )
    _draw_clip(folder / "clip_example.png", clips, measured)
    _draw_saliency(folder / "saliency.png", config, images, measured)
    if not clips.changed:
        return
    figures.dots(
        folder / "changes.png",
        [
            _dot(row, row["marks"], row["network"])
            for row in _sorted(results.changes, "marks", marked.CHANGES)
            if row["quantity"] == "Dice" and row["network"] in _COMPARED
        ],
        xlabel="Dice",
        zero=False,
    )
    _draw_changes(folder / "changes_example.png", clips, measured)
    _draw_removals(folder / "removals.png", config, images, results)
    figures.dots(
        folder / "reconstruction.png",
        [
            _dot(row, _spoken(row["method"]), _MASKS[row["mask"]])
            for row in _sorted(results.reconstruction, "method", _METHODS)
            if (row["region"], row["metric"]) == ("marks", "mae")
        ],
        xlabel="mean absolute error under the marks (gray levels)",
    )
    for network in ("reference", "baseline"):
        figures.dots(
            folder / f"downstream_{network}.png",
            [
                _points(row, _spoken(row["method"]), _MASKS[row["mask"]])
                for row in _sorted(results.downstream, "method", _METHODS)
                if (row["quantity"], row["network"]) == (numbers.LOSS, network)
            ],
            xlabel="Dice on restored minus clean images (points, 0.01)",
        )


def _spoken(method: str) -> str:
    return "nothing removed" if method == marked.NOTHING else method.replace("_", " ")


def _sorted(rows: Sequence[Mapping[str, Any]], column: str, order: Sequence[str]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: order.index(row[column]))


def _dot(row: Mapping[str, Any], label: str, group: str) -> tuple[str, str, float, float, float]:
    return label, group, row["mean"], row["low"], row["high"]


def _points(row: Mapping[str, Any], label: str, group: str) -> tuple[str, str, float, float, float]:
    """In hundredths, as the differences are small."""
    return label, group, 100 * row["mean"], 100 * row["low"], 100 * row["high"]


def _clip_series(rows: Sequence[Mapping[str, Any]], network: str, plane: str) -> figures.Series:
    wanted = (network, plane, "Dice with the last frame")
    chosen = [row for row in rows if (row["network"], row["plane"], row["quantity"]) == wanted]
    column = lambda name: np.array([row[name] for row in chosen], float)
    return figures.Series(network, column("frame"), column("mean"), column("low"), column("high"))


def _quantiles(values: np.ndarray, count: int) -> list[int]:
    """Cases at even quantiles of a number, so that nobody chose them; none where it is nowhere defined."""
    order = np.argsort(values, kind="stable")[: np.sum(~np.isnan(values))]
    count = min(count, len(order))
    return order[((np.arange(count) + 0.5) / max(count, 1) * len(order)).astype(int)].tolist()


def _at_size(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _with_predictions(
    shown: Sequence[np.ndarray], predictions: Mapping[str, np.ndarray], labels: np.ndarray
) -> dict[str, _Cells]:
    """Rows of a strip: images, what the networks made of them, and the annotation."""
    rows: dict[str, _Cells] = {"image": [(image, None) for image in shown]}
    for network, masks in predictions.items():
        rows[network] = [(image, _at_size(mask, image)) for image, mask in zip(shown, masks, strict=True)]
    return rows | {"annotation": [(image, labels) for image in shown]}


def _draw_clip(path: pathlib.Path, clips: marked.Clips, measured: Mapping[str, study.Measures]) -> None:
    """The clip in which the baseline's predictions agree least, and the mitigated network's on it."""
    frames = measured["baseline"]["clip_predictions"]
    agreement = numbers.agreement(frames[:, 0], frames[:, -1])
    lowest = int(np.nanargmin(agreement)) if not np.isnan(agreement).all() else 0
    predictions = {network: measured[network]["clip_predictions"][lowest] for network in _COMPARED}
    rows = _with_predictions(clips.frames[lowest], predictions, clips.labels[lowest])
    figures.strip(path, rows, titles=[str(frame) for frame in range(frames.shape[1])])


def _draw_changes(path: pathlib.Path, clips: marked.Clips, measured: Mapping[str, study.Measures]) -> None:
    """The scan whose baseline's Dice with moved calipers is the median."""
    dice = numbers.organ_dice(measured["baseline"]["calipers moved_counts"])
    scan = next(iter(_quantiles(dice, 1)), 0)
    predictions = {
        network: np.stack([measured[network][f"{change}_predictions"][scan] for change in marked.CHANGES])
        for network in _COMPARED
    }
    shown = [clips.changed[change][scan] for change in marked.CHANGES]
    figures.strip(path, _with_predictions(shown, predictions, clips.labels[scan]), titles=_SHORT)


def _draw_saliency(
    path: pathlib.Path,
    config: ml_collections.ConfigDict,
    images: marked.Images,
    measured: Mapping[str, study.Measures],
) -> None:
    test, without = images.scans["test"].annotated, images.kinds[-1]
    other = images.of(without, "test")
    assert other is not None
    share = np.asarray(measured["baseline"]["share_annotated"], float)
    chosen = _quantiles(share, config.evaluation.examples) or [0]
    rows: dict[str, _Cells] = {}
    for i in chosen:
        maps = [
            _heat(other.images[i], measured["baseline"][f"saliency_{without}"][i]),
            *(_heat(test.images[i], measured[network]["saliency_annotated"][i]) for network in _COMPARED),
        ]
        name = f"{test.cases[i]}: {share[i]:.0%} of the baseline's saliency on marks"
        rows[name] = [(test.images[i], None), *((shown, None) for shown in maps)]
    figures.strip(path, rows, titles=["with marks", f"baseline, {without}", "baseline", "mitigation"])


def _heat(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Saliency over an image: transparent at 0, so that the image shows where nothing speaks for the organ."""
    strength = cv2.resize(saliency.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
    colours = matplotlib.colormaps["inferno"](strength[..., 0])[..., :3] * 255
    share = 0.7 * np.sqrt(np.clip(strength, 0, 1))
    return np.rint((1 - share) * image + share * colours).astype(np.uint8)


def _draw_removals(
    path: pathlib.Path, config: ml_collections.ConfigDict, images: marked.Images, results: numbers.Tables
) -> None:
    """The part of an image that has most marks, as every removal leaves it; found marks."""
    test = images.scans["test"]
    assert test.clean is not None and test.marks is not None
    errors = np.array([row["network found marks mae"] for row in results.cases])
    rows: dict[str, _Cells] = {}
    for i in _quantiles(errors, config.evaluation.examples):
        place = _most_marks(test.marks[i])
        restored = [images.restored(method, "found", i) for method in overlays.REMOVALS]
        shown = [test.annotated.images[i], test.clean.images[i], *restored]
        rows[f"{test.annotated.cases[i]}: network off by {errors[i]:.0f} gray levels"] = [
            (np.ascontiguousarray(image[place]), None) for image in shown
        ]
    if rows:
        figures.strip(path, rows, titles=["marks", "clean", *(_spoken(method) for method in overlays.REMOVALS)])


def _most_marks(marks: np.ndarray) -> tuple[slice, slice]:
    """The window of half the image's side that holds most marks."""
    half = len(marks) // 2
    sums = np.pad(marks.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[half:, half:] - sums[:-half, half:] - sums[half:, :-half] + sums[:-half, :-half]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(y), int(y) + half), slice(int(x), int(x) + half)
