"""The border-shortcut study's measures as tables."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxseg.data import augment, pipeline
from jaxseg.metrics import regions
from jaxseg.metrics.intervals import bootstrap_contrast, bootstrap_mean
from jaxseg.results.table import NONE, PAIRED, Row, Table, exact, table
from jaxseg.studies.base import SPLITS
from jaxseg.studies.border_shortcut.experiment import NAMES, TEST_VIEWS, Measures, Run, run_config
from jaxseg.training import checks, runs

DICE = "Dice per case, mean; empty in label and prediction is undefined and left out"
SMOOTH = "Dice per case with smooth=1 (the authors' code: an empty band is 1), mean"
GAP = "gap at the border"
EXCESS = "excess gap at the border"
_AGREEMENT = "Dice of the overlaps of all pairs of windows, accumulated per image, mean over images"
_POSITION = "R^2 of a ridge regression from a pixel's features to its distance from the border, on whole test images"
_CENTRE = "distance of the mask's centre of mass from the image's centre, 1 is half a side; empty masks are undefined"


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    dice: Table
    bands: Table
    border: Table
    moving_window: Table
    position: Table
    mask_centres: Table
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


def tabulate(config: ml_collections.ConfigDict, splits: runs.Splits, measured: Mapping[Run, Measures]) -> Tables:
    """All numbers of the study."""
    patients = np.array(splits["test"].patients)
    of_runs = lambda rows: table(
        row for run, measures in measured.items() for row in rows(config, run, measures, patients)
    )
    return Tables(
        dice=of_runs(_dice_rows),
        bands=of_runs(_band_rows),
        border=table(row for padding in config.paddings for row in _border_rows(config, padding, measured, patients)),
        moving_window=of_runs(_window_rows),
        position=table(row for run, m in measured.items() for row in _position_rows(config, splits, run, m)),
        mask_centres=table(_centre_rows(config, splits)),
        training=[_training_record(run, measures) for run, measures in measured.items()],
        cases=_case_records(config, splits["test"], measured),
    )


def _of(run: Run, test_view: str) -> dict[str, Any]:
    padding, view = run
    return {"padding": padding, "model": NAMES[view], "trained_on": view, "tested_on": test_view}


def _dice_rows(config: ml_collections.ConfigDict, run: Run, measures: Measures, patients: np.ndarray) -> Iterator[Row]:
    for test_view in TEST_VIEWS:
        estimate = bootstrap_mean(measures[f"{test_view}_dice"], patients, resamples=config.evaluation.resamples)
        yield Row(_of(run, test_view), estimate, DICE)


def _band_rows(config: ml_collections.ConfigDict, run: Run, measures: Measures, patients: np.ndarray) -> Iterator[Row]:
    for test_view in TEST_VIEWS:
        for name, convention in (("bands", DICE), ("bands_smooth1", SMOOTH)):
            values = measures[f"{test_view}_{name}"]
            for ring, distance in enumerate(band_distances(config)):
                estimate = bootstrap_mean(values[:, ring], patients, resamples=config.evaluation.resamples)
                keys = {"band": ring, "outer_distance_px": int(distance), "convention": convention}
                yield Row(keys | _of(run, test_view), estimate, convention)


def band_distances(config: ml_collections.ConfigDict) -> np.ndarray:
    """Outer distance of every band from the centre, in pixels of the grid, `[R]`."""
    grid = config.evaluation.grid
    return regions.outer_distances((grid, grid), config.evaluation.band_width)


def _border_rows(
    config: ml_collections.ConfigDict, padding: str, measured: Mapping[Run, Measures], patients: np.ndarray
) -> Iterator[Row]:
    """What each model reaches at the border and inside, their gaps, and the gap's excess at the border."""
    for test_view in TEST_VIEWS:
        for quantity, terms in _border_quantities(config, padding, measured, test_view).items():
            estimate = bootstrap_contrast(terms, patients, resamples=config.evaluation.resamples)
            keys = {"padding": padding, "tested_on": test_view, "quantity": quantity}
            yield Row(keys, estimate, _border_convention(config, quantity), PAIRED)


Terms = list[tuple[float, np.ndarray]]


def _border_quantities(
    config: ml_collections.ConfigDict, padding: str, measured: Mapping[Run, Measures], test_view: str
) -> dict[str, Terms]:
    """Each a weighted sum of means per case."""
    of = lambda view, place, padding=padding: measured[padding, view][f"{test_view}_{place}"]
    gap = lambda place, padding=padding: [
        (1.0, of("quadrant", place, padding)),
        (-1.0, of("original", place, padding)),
    ]
    quantities: dict[str, Terms] = {
        "M_ori at the border": [(1.0, of("original", "border"))],
        "M_crop at the border": [(1.0, of("quadrant", "border"))],
        "M_ori inside": [(1.0, of("original", "interior"))],
        "M_crop inside": [(1.0, of("quadrant", "interior"))],
        GAP: gap("border"),
        "gap inside": gap("interior"),
        EXCESS: gap("border") + _negative(gap("interior")),
        found_by("M_ori"): [(1.0, of("original", "border_recall"))],
        found_by("M_crop"): [(1.0, of("quadrant", "border_recall"))],
    }
    reference = config.paddings[0]
    if padding != reference:
        quantities[minus_that_of(reference)] = gap("border") + _negative(gap("border", reference))
    return quantities


def found_by(model: str) -> str:
    """The quantity: how much of the lesion at the border a model finds."""
    return f"lesion found at the border by {model}"


def minus_that_of(padding: str) -> str:
    """The quantity: how much larger the gap at the border is than with another padding."""
    return f"{GAP}, minus that of {padding} padding"


def _negative(terms: Terms) -> Terms:
    return [(-weight, values) for weight, values in terms]


def _border_convention(config: ml_collections.ConfigDict, quantity: str) -> str:
    what = "share of lesion pixels per case, mean" if quantity in map(found_by, NAMES.values()) else DICE
    evaluation = config.evaluation
    return (
        f"{what}, each mean over its own defined cases; border: within {evaluation.border_width} of {evaluation.grid} "
        "px; gap: M_crop minus M_ori"
    )


def _window_rows(
    config: ml_collections.ConfigDict, run: Run, measures: Measures, patients: np.ndarray
) -> Iterator[Row]:
    of_windows = patients[measures["agreement_case"]]
    estimate = bootstrap_mean(measures["agreement"], of_windows, resamples=config.evaluation.resamples)
    yield Row(_of(run, "moving window"), estimate, _AGREEMENT)


def _position_rows(
    config: ml_collections.ConfigDict, splits: runs.Splits, run: Run, measures: Measures
) -> Iterator[Row]:
    padding, view = run
    layers = checks.build_model(run_config(config, padding, view), splits["test"].num_classes).roles.convolutions
    convention = f"{_POSITION}, {config.evaluation.position_folds} folds over patients"
    for number, (name, r2) in enumerate(zip(layers, measures["position"], strict=True), 1):
        keys = {"padding": padding, "model": NAMES[view], "trained_on": view, "layer": number, "name": name}
        yield Row(keys, exact(float(r2), len(splits["test"])), convention, NONE)


def _centre_rows(config: ml_collections.ConfigDict, splits: runs.Splits) -> Iterator[Row]:
    for (split, view), centres in mask_centres(config, splits).items():
        distance = np.linalg.norm(centres, axis=1)
        patients = np.array(splits[split].patients)
        estimate = bootstrap_mean(distance, patients, resamples=config.evaluation.resamples)
        yield Row({"split": split, "view": view}, estimate, _CENTRE)


def mask_centres(config: ml_collections.ConfigDict, splits: runs.Splits) -> dict[tuple[str, str], np.ndarray]:
    """Centres of mass `[N,2]` of the masks of every split, in both views (quadrants: the one fixed by the case)."""
    centres = {}
    for view in augment.VIEWS:
        for split in SPLITS:
            source = splits[split]
            seen = augment.testing_view(view, size=config.data.image_size, cases=source.cases)
            of_batch = jax.jit(lambda batch, seen=seen: regions.mask_centres(seen(batch)["labels"]))
            batches = pipeline.epoch(source, batch_size=config.training.batch_size)
            values = [np.asarray(of_batch(batch))[np.asarray(batch["valid"])] for batch in batches]
            centres[split, view] = np.concatenate(values)
    return centres


def _training_record(run: Run, measures: Measures) -> dict[str, Any]:
    padding, view = run
    return {
        "padding": padding,
        "model": NAMES[view],
        "trained_on": view,
        "best_step": int(measures["step"]),
        "validation_dice": float(measures["validation_dice"]),
        "convention": "mean per case, undefined left out, on the view trained on",
    }


def _case_records(
    config: ml_collections.ConfigDict, test: pipeline.InMemory, measured: Mapping[Run, Measures]
) -> list[dict[str, Any]]:
    bands = [f"band_{distance}" for distance in band_distances(config)]
    return [
        {"case": test.cases[i], "patient": test.patients[i], "padding": padding, "model": NAMES[view]}
        | {"tested_on": test_view}
        | {name: float(m[f"{test_view}_{name}"][i]) for name in ("dice", "border", "interior", "border_recall")}
        | dict(zip(bands, m[f"{test_view}_bands"][i].tolist(), strict=True))
        for (padding, view), m in measured.items()
        for test_view in TEST_VIEWS
        for i in range(len(test.cases))
    ]
