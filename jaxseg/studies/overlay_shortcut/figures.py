"""The figures of the overlay-shortcut study, from its images, measures and tables."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np

from jaxseg.data import overlays
from jaxseg.metrics import overlap
from jaxseg.report import figures
from jaxseg.results.table import Row, Table
from jaxseg.studies.base import Measures, at_even_quantiles, lines
from jaxseg.studies.overlay_shortcut import restoration, tables
from jaxseg.studies.overlay_shortcut.clips import CHANGES, Clips
from jaxseg.studies.overlay_shortcut.experiment import Measured
from jaxseg.studies.overlay_shortcut.images import NOTHING, Images, in_words
from jaxseg.studies.overlay_shortcut.settings import COMPARED
from jaxseg.studies.overlay_shortcut.tables import StudyReport

_METHODS = (NOTHING, *overlays.REMOVALS)
_MASKS = {"true": "true marks", "found": "found marks"}
_SHORT = ("all", "none", "calipers", "text", "other text", "moved")  # of CHANGES, above images
_Cells = Sequence[tuple[Any, Any]]  # image and mask of every column


def draw(report: StudyReport) -> None:
    """Writes all figures of the study; those of changed marks and removals if clean images are known."""
    folder, examples = report.figures, report.settings.evaluation.examples
    measured, results = report.measured, report.tables
    _draw_drops(folder, results.drops.where(drop_to="cleaned"))
    _draw_clips(folder, results.clip_frames.where(quantity=tables.WITH_LAST))
    _draw_clip(folder, measured)
    _draw_saliency(folder, measured.images, measured.networks, examples)
    if not report.settings.clean_known:
        return
    _draw_changes(folder, results.changes.where(quantity="Dice"))
    _draw_changed_scan(folder, measured.clips, measured.networks)
    _draw_removals(folder, measured, examples)
    errors = _by_method(results.reconstruction.where(region="marks", metric="mae"), 1)
    figures.dots(folder / "reconstruction.png", errors, xlabel="mean absolute error under the marks (gray levels)")
    for network in ("reference", "baseline"):
        losses = _by_method(results.downstream.where(network=network, quantity=tables.LOSS), 100)
        label = "Dice on restored minus clean images (points, 0.01)"
        figures.dots(folder / f"downstream_{network}.png", losses, xlabel=label)


def _draw_drops(folder: pathlib.Path, drops: Table) -> None:
    rows = [row for plane in drops.values("plane") for row in drops.where(plane=plane) if row["network"] in COMPARED]
    dots = [(row["plane"], row["network"], *_scaled(row)) for row in rows]
    figures.dots(folder / "drops.png", dots, xlabel="Dice with marks minus marks removed (points, 0.01)")


def _draw_clips(folder: pathlib.Path, frames: Table) -> None:
    of_plane = lambda plane: lines(frames.where(plane=plane), "frame", "network", COMPARED)
    figures.curves(
        folder / "clips.png",
        {plane: of_plane(plane) for plane in frames.values("plane")},
        xlabel="frame of the clip: the first without marks, the last with all",
        ylabel="Dice with the prediction of the last frame",
        ylim=None,
    )


def _draw_changes(folder: pathlib.Path, changes: Table) -> None:
    rows = [row for change in CHANGES for row in changes.where(marks=change) if row["network"] in COMPARED]
    dots = [(row["marks"], row["network"], *row.numbers) for row in rows]
    figures.dots(folder / "changes.png", dots, xlabel="Dice", zero=False)


def _by_method(rows: Table, times: float) -> list[tuple[str, str, float, float, float]]:
    """Dots by method and marks, in parts of a unit where it is large."""
    ordered = [row for method in _METHODS for row in rows.where(method=method)]
    return [(in_words(row["method"]), _MASKS[row["mask"]], *_scaled(row, times)) for row in ordered]


def _scaled(row: Row, times: float = 100) -> tuple[float, float, float]:
    mean, low, high = row.numbers
    return times * mean, times * low, times * high


def _at_size(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _with_predictions(
    shown: Sequence[np.ndarray], predictions: Mapping[str, np.ndarray], labels: np.ndarray
) -> dict[str, _Cells]:
    """Rows of a strip: images, what the networks predict on them, and the annotation."""
    rows: dict[str, _Cells] = {"image": [(image, None) for image in shown]}
    for network, masks in predictions.items():
        rows[network] = [(image, _at_size(mask, image)) for image, mask in zip(shown, masks, strict=True)]
    return rows | {"annotation": [(image, labels) for image in shown]}


def _draw_clip(folder: pathlib.Path, measured: Measured) -> None:
    """The clip in which the baseline's predictions agree least, and the mitigated network's on it."""
    clips, agreement = measured.clips, measured.agreement["baseline"][:, 0]
    lowest = int(np.nanargmin(agreement)) if not np.isnan(agreement).all() else 0
    predictions = {network: measured.networks[network]["clip_predictions"][lowest] for network in COMPARED}
    rows = _with_predictions(clips.frames[lowest], predictions, clips.labels[lowest])
    figures.strip(folder / "clip_example.png", rows, titles=[str(frame) for frame in range(clips.frames.shape[1])])


def _draw_changed_scan(folder: pathlib.Path, clips: Clips, measured: Mapping[str, Measures]) -> None:
    """The scan whose baseline's Dice with moved calipers is the median."""
    dice = overlap.labelled_dice(measured["baseline"]["calipers moved_counts"])
    scan = next(iter(at_even_quantiles(dice, 1)), 0)
    predictions = {
        network: np.stack([measured[network][f"{change}_predictions"][scan] for change in CHANGES])
        for network in COMPARED
    }
    shown = [clips.changed[change][scan] for change in CHANGES]
    rows = _with_predictions(shown, predictions, clips.labels[scan])
    figures.strip(folder / "changes_example.png", rows, titles=_SHORT)


def _draw_saliency(folder: pathlib.Path, images: Images, measured: Mapping[str, Measures], examples: int) -> None:
    test, unmarked = images.scans["test"].annotated, images.unmarked
    others = images.of(unmarked, "test").images
    share = np.asarray(measured["baseline"]["share_annotated"], float)
    rows: dict[str, _Cells] = {}
    for i in at_even_quantiles(share, examples) or [0]:
        maps = [
            _heat(others[i], measured["baseline"][f"saliency_{unmarked}"][i]),
            *(_heat(test.images[i], measured[network]["saliency_annotated"][i]) for network in COMPARED),
        ]
        name = f"{test.cases[i]}: {share[i]:.0%} of the baseline's saliency on marks"
        rows[name] = [(test.images[i], None), *((shown, None) for shown in maps)]
    titles = ["with marks", f"baseline, {unmarked}", "baseline", "mitigation"]
    figures.strip(folder / "saliency.png", rows, titles=titles)


def _heat(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Saliency over an image, transparent at 0, so that the image shows where nothing indicates the organ."""
    strength = cv2.resize(saliency.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
    colours = matplotlib.colormaps["inferno"](strength[..., 0])[..., :3] * 255
    share = 0.7 * np.sqrt(np.clip(strength, 0, 1))
    return np.rint((1 - share) * image + share * colours).astype(np.uint8)


def _draw_removals(folder: pathlib.Path, measured: Measured, examples: int) -> None:
    """The part of an image with most marks, as every removal of found marks leaves it."""
    images, test = measured.images, measured.images.scans["test"]
    assert test.clean is not None and test.marks is not None
    errors = measured.removal[restoration.error_name("network", "found", "marks", "mae")]
    rows: dict[str, _Cells] = {}
    for i in at_even_quantiles(errors, examples):
        place = _most_marks(test.marks[i])
        restored = [images.restored(method, "found", i) for method in overlays.REMOVALS]
        shown = [test.annotated.images[i], test.clean.images[i], *restored]
        rows[f"{test.annotated.cases[i]}: network off by {errors[i]:.0f} gray levels"] = [
            (np.ascontiguousarray(image[place]), None) for image in shown
        ]
    if rows:
        titles = ["marks", "clean", *map(in_words, overlays.REMOVALS)]
        figures.strip(folder / "removals.png", rows, titles=titles)


def _most_marks(marks: np.ndarray) -> tuple[slice, slice]:
    """The window of half the image's side that holds most marks."""
    half = len(marks) // 2
    sums = np.pad(marks.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[half:, half:] - sums[:-half, half:] - sums[half:, :-half] + sums[:-half, :-half]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(y), int(y) + half), slice(int(x), int(x) + half)
