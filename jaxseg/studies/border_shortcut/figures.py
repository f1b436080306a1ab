"""The figures of the border-shortcut study, from its measures and tables."""

import pathlib
import textwrap
from collections.abc import Mapping

import jax
import numpy as np

from jaxseg import atomic
from jaxseg.data import augment
from jaxseg.report import figures
from jaxseg.results.table import Table
from jaxseg.studies.base import Measures, Overlay, at_even_quantiles, lines
from jaxseg.studies.border_shortcut import moving_window, tables
from jaxseg.studies.border_shortcut.experiment import TEST_VIEWS
from jaxseg.studies.border_shortcut.settings import NAMES, Arm, Evaluation, Run, Settings
from jaxseg.studies.border_shortcut.tables import StudyReport
from jaxseg.training import runs

_SEEN = {"original": "whole images", "quadrant": "quadrants"}
_PANELS = {view: f"Tested on {_SEEN[view]}" for view in reversed(TEST_VIEWS)}
_BAND_AXIS = "outer edge of the band: distance from the centre (px of {grid})"


def draw(report: StudyReport) -> None:
    """Writes all figures of the study; `networks.png` where there is more than one arm.

    Numbers in no table of the study are written to tables of their own: `mask_centre_map` and `border_features`.
    """
    folder, settings, measured, results = report.figures, report.settings, report.measured.of_runs, report.tables
    _draw_bands(folder, settings.evaluation, results.bands.where(network=settings.first.label))
    _draw_band_boxes(folder, settings, measured)
    examples = _examples(settings, report.cases, measured)
    if examples:  # none where no case is defined at the border
        figures.overlays(folder / "examples.png", examples)
    _draw_windows(folder, settings, report.cases, measured)
    _draw_mask_centres(folder, report.measured.mask_centres)
    _draw_position(folder, settings.arms, results.position)
    _draw_features(folder, measured)
    if len(settings.arms) > 1:
        _draw_networks(folder, results.border.where(tested_on="quadrant"))


def _draw_bands(folder: pathlib.Path, evaluation: Evaluation, bands: Table) -> None:
    own = lambda test_view: bands.where(tested_on=test_view, convention=tables.DICE)
    panels = {
        title: lines(own(view), "outer_distance_px", "model", [*NAMES.values()]) for view, title in _PANELS.items()
    }
    half = evaluation.grid // 2
    figures.curves(
        folder / "bands.png",
        panels,
        xlabel=_BAND_AXIS.format(grid=evaluation.grid),
        ylabel="Dice",
        shade=(half - evaluation.border_width, half, "border"),
    )


def _draw_band_boxes(folder: pathlib.Path, settings: Settings, measured: Mapping[Run, Measures]) -> None:
    distances = tables.band_distances(settings.evaluation)
    of = lambda view, test_view: (distances, measured[Run(settings.first, view)][f"{test_view}_bands"])
    figures.boxes(
        folder / "band_boxes.png",
        {title: {name: of(view, test) for view, name in NAMES.items()} for test, title in _PANELS.items()},
        xlabel=_BAND_AXIS.format(grid=settings.evaluation.grid),
        ylabel="Dice per case",
    )


def _examples(settings: Settings, splits: runs.Splits, measured: Mapping[Run, Measures]) -> list[Overlay]:
    """Quadrants at even quantiles of how much better M_crop is at the border, so that nobody chose them."""
    ori, crop = (measured[Run(settings.first, view)] for view in NAMES)
    gain = crop["quadrant_border"] - ori["quadrant_border"]
    test = splits["test"]
    view = jax.jit(augment.testing_view("quadrant", size=settings.run.data.image_size, cases=test.cases))
    rows = []
    for i in at_even_quantiles(gain, settings.evaluation.examples):
        one = test.take(np.array([i]))
        seen = view(one.arrays | {"index": np.array([i])})
        levels = augment.levels(seen["images"], scales=one.scales)
        masks = {name: of["quadrant_predictions"][i] > 0 for name, of in zip(NAMES.values(), (ori, crop), strict=True)}
        name = f"{test.cases[i]}: border {ori['quadrant_border'][i]:.2f} / {crop['quadrant_border'][i]:.2f}"
        rows.append((name, np.asarray(levels[0]), np.asarray(seen["labels"][0]) > 0, masks))
    return rows


def _draw_windows(
    folder: pathlib.Path, settings: Settings, splits: runs.Splits, measured: Mapping[Run, Measures]
) -> None:
    test, starts = splits["test"], moving_window.diagonal_starts(settings)
    case = test.take(np.array([moving_window.pick_case(test.labels)]))
    crops = jax.jit(lambda image: moving_window.cut_windows(image, starts, settings.run.data.image_size))(
        case.images[0]
    )
    scales = None if case.scales is None else case.scales.repeat(len(crops), 0)
    windows = list(np.asarray(augment.levels(crops, scales=scales)))
    rows: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {"window": [(window, None) for window in windows]}
    for view, name in NAMES.items():
        rows[name] = list(zip(windows, measured[Run(settings.first, view)]["windows"] > 0, strict=True))
    figures.strip(folder / "moving_window.png", rows, titles=[f"{start[0]} px" for start in starts])


def _draw_mask_centres(folder: pathlib.Path, centres: Mapping[tuple[str, str], np.ndarray]) -> None:
    maps = {where: _centre_map(of) for where, of in centres.items()}
    figures.heat_maps(
        folder / "mask_centres.png",
        {f"{split}\n{_SEEN[view]}": counts for (split, view), counts in maps.items()},
        extent_label="position in half image sides",
        label="masks per cell",
        shared=False,
    )
    rows = [
        {"split": split, "view": view, "cell_row": y, "cell_column": x, "masks": int(counts[y, x])}
        for (split, view), counts in maps.items()
        for y, x in np.argwhere(counts)
    ]
    atomic.write_csv(folder.parent / "tables" / "mask_centre_map.csv", rows)


def _centre_map(centres: np.ndarray, bins: int = 16) -> np.ndarray:
    """Masks per cell of the image, `[bins, bins]`, rows from the top."""
    defined = centres[~np.isnan(centres).any(1)]
    counts, *_ = np.histogram2d(defined[:, 0], defined[:, 1], bins=bins, range=[[-1, 1], [-1, 1]])
    return counts


def _draw_position(folder: pathlib.Path, arms: tuple[Arm, ...], position: Table) -> None:
    def line(arm: Arm, model: str) -> figures.Series:
        own = position.where(network=arm.label, model=model)
        return figures.Series(arm.label, [row["layer"] for row in own], own.numbers[0])

    figures.curves(
        folder / "position.png",
        {f"trained on {_SEEN[view]}": [line(arm, NAMES[view]) for arm in arms] for view in NAMES},
        xlabel="layer, from input to output",
        ylabel="R² of the distance",
        ylim=None,
    )


def _draw_features(folder: pathlib.Path, measured: Mapping[Run, Measures]) -> None:
    clouds = {
        (NAMES[run.view], run.arm.label): (measures["projection"], measures["projection_distance"])
        for run, measures in measured.items()
    }
    title = lambda model, network: "\n".join((model, *textwrap.wrap(network, 23)))
    figures.scatter(
        folder / "border_features.png",
        {title(*of): cloud for of, cloud in clouds.items()},
        xlabel="first principal component of the last layer's features",
        ylabel="second",
        label="distance from the border (1: the middle)",
    )
    rows = [
        {"model": model, "network": network, "first": float(x), "second": float(y), "border_distance": float(distance)}
        for (model, network), (points, distances) in clouds.items()
        for (x, y), distance in zip(points, distances, strict=True)
    ]
    atomic.write_csv(folder.parent / "tables" / "border_features.csv", rows)


def _draw_networks(folder: pathlib.Path, border: Table) -> None:
    shown = [row for row in border if row["quantity"] in (tables.GAP, tables.EXCESS)]
    dots = [(row["network"], row["quantity"], *row.numbers) for row in shown]
    figures.dots(folder / "networks.png", dots, xlabel="Dice of M_crop minus Dice of M_ori, quadrant images")
