"""The figures of the border-shortcut study, from its measures and tables."""

import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import atomic
from jaxseg.data import augment
from jaxseg.report import figures
from jaxseg.results.table import Table
from jaxseg.studies.base import Report
from jaxseg.studies.border_shortcut import experiment as study
from jaxseg.studies.border_shortcut import moving_window
from jaxseg.studies.border_shortcut import tables as numbers
from jaxseg.training import runs


def draw(report: Report[runs.Splits, Mapping[study.Run, study.Measures], numbers.Tables]) -> None:
    """Writes all figures of the study; `paddings.png` where more than one padding mode was run.

    Numbers that stand in no table of the study go into tables beside it: `mask_centre_map` and `border_features`.
    """
    folder, config, splits, measured, results = (
        report.figures,
        report.config,
        report.cases,
        report.measured,
        report.tables,
    )
    padding = config.paddings[0]
    evaluation = config.evaluation
    half = evaluation.grid // 2
    border = (half - evaluation.border_width, half, "border")
    figures.curves(
        folder / "bands.png",
        {
            _PANELS[test_view]: [
                _band_series(results.bands.where(padding=padding), model, test_view) for model in study.NAMES.values()
            ]
            for test_view in ("quadrant", "original")
        },
        xlabel=_BAND_AXIS.format(grid=evaluation.grid),
        ylabel="Dice",
        shade=border,
    )
    figures.boxes(
        folder / "band_boxes.png",
        {
            _PANELS[test_view]: {
                study.NAMES[view]: (
                    numbers.band_distances(config),
                    measured[padding, view][f"{test_view}_bands"],
                )
                for view in study.NAMES
            }
            for test_view in ("quadrant", "original")
        },
        xlabel=_BAND_AXIS.format(grid=evaluation.grid),
        ylabel="Dice per case",
    )
    examples = _examples(config, splits, measured, padding)
    if examples:  # none where no case is defined at the border
        figures.overlays(folder / "examples.png", examples)
    rows, titles = _windows(config, splits, measured, padding)
    figures.strip(folder / "moving_window.png", rows, titles=titles)
    _draw_mask_centres(folder, config, splits)
    figures.curves(
        folder / "position.png",
        {
            f"trained on {_SEEN[view]}": [
                _position_series(results.position, padding, study.NAMES[view]) for padding in config.paddings
            ]
            for view in study.NAMES
        },
        xlabel="layer, from input to output",
        ylabel="R² of the distance",
        ylim=None,
    )
    _draw_features(folder, config, measured)
    if len(config.paddings) > 1:
        figures.dots(
            folder / "paddings.png",
            [
                (row["padding"], row["quantity"], *row.numbers)
                for row in results.border.where(tested_on="quadrant")
                if row["quantity"] in (numbers.GAP, numbers.EXCESS)
            ],
            xlabel="Dice of M_crop minus Dice of M_ori, quadrant images",
        )


_PANELS = {"original": "Tested on whole images", "quadrant": "Tested on quadrants"}
_SEEN = {"original": "whole images", "quadrant": "quadrants"}
_BAND_AXIS = "outer edge of the band: distance from the centre (px of {grid})"


def _draw_mask_centres(folder: pathlib.Path, config: ml_collections.ConfigDict, splits: runs.Splits) -> None:
    maps = {where: _centre_map(centres) for where, centres in numbers.mask_centres(config, splits).items()}
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


def _draw_features(
    folder: pathlib.Path, config: ml_collections.ConfigDict, measured: Mapping[study.Run, study.Measures]
) -> None:
    clouds = {
        (study.NAMES[view], padding): (
            measured[padding, view]["projection"],
            measured[padding, view]["projection_distance"],
        )
        for padding in config.paddings
        for view in study.NAMES
    }
    figures.scatter(
        folder / "border_features.png",
        {f"{model}, {padding}": cloud for (model, padding), cloud in clouds.items()},
        xlabel="first principal component of the last layer's features",
        ylabel="second",
        label="distance from the border (1: the middle)",
    )
    rows = [
        {"model": model, "padding": padding, "first": float(x), "second": float(y), "border_distance": float(distance)}
        for (model, padding), (points, distances) in clouds.items()
        for (x, y), distance in zip(points, distances, strict=True)
    ]
    atomic.write_csv(folder.parent / "tables" / "border_features.csv", rows)


def _band_series(bands: Table, model: str, test_view: str) -> figures.Series:
    own = bands.where(model=model, tested_on=test_view, convention=numbers.DICE)
    return figures.Series(model, np.array([row["outer_distance_px"] for row in own], float), *own.numbers)


def _position_series(position: Table, padding: str, model: str) -> figures.Series:
    own = position.where(padding=padding, model=model)
    r2 = own.numbers[0]
    return figures.Series(f"{padding} padding", np.array([row["layer"] for row in own]), r2, r2, r2)


def _examples(
    config: ml_collections.ConfigDict,
    splits: runs.Splits,
    measured: Mapping[study.Run, study.Measures],
    padding: str,
) -> list[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Quadrants at even quantiles of how much better M_crop is at the border, so that nobody chose them."""
    ori, crop = measured[padding, "original"], measured[padding, "quadrant"]
    gain = crop["quadrant_border"] - ori["quadrant_border"]
    order = np.argsort(gain, kind="stable")[: np.sum(~np.isnan(gain))]
    count = min(config.evaluation.examples, len(order))
    chosen = order[((np.arange(count) + 0.5) / count * len(order)).astype(int)] if count else []
    test = splits["test"]
    view = augment.testing_view("quadrant", size=config.data.image_size, cases=test.cases)
    rows = []
    for i in chosen:
        stored = {"image": test.images[i : i + 1], "labels": test.labels[i : i + 1], "index": np.array([i])}
        seen = view({name: jnp.asarray(value) for name, value in stored.items()})
        masks = {name: measured[padding, v]["quadrant_predictions"][i] > 0 for v, name in study.NAMES.items()}
        name = f"{test.cases[i]}: border {ori['quadrant_border'][i]:.2f} / {crop['quadrant_border'][i]:.2f}"
        rows.append((name, np.asarray(augment.levels(seen["images"])[0]), np.asarray(seen["labels"][0]) > 0, masks))
    return rows


def _windows(
    config: ml_collections.ConfigDict,
    splits: runs.Splits,
    measured: Mapping[study.Run, study.Measures],
    padding: str,
) -> tuple[dict[str, list[tuple[np.ndarray, np.ndarray | None]]], list[str]]:
    test = splits["test"]
    starts = moving_window.diagonal_starts(config)
    image = test.images[moving_window.pick_case(test.labels)]
    windows = [
        np.asarray(augment.levels(window))
        for window in moving_window.cut_windows(image, starts, config.data.image_size)
    ]
    rows: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {"window": [(window, None) for window in windows]}
    for view, name in study.NAMES.items():
        rows[name] = list(zip(windows, measured[padding, view]["windows"] > 0, strict=True))
    return rows, [f"{start[0]} px" for start in starts]


def _centre_map(centres: np.ndarray, bins: int = 16) -> np.ndarray:
    """Masks per cell of the image, `[bins, bins]`, rows from the top."""
    defined = centres[~np.isnan(centres).any(1)]
    counts, *_ = np.histogram2d(defined[:, 0], defined[:, 1], bins=bins, range=[[-1, 1], [-1, 1]])
    return counts
