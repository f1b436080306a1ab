"""The border-shortcut study's measures as tables."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxseg.metrics import regions
from jaxseg.results.patients import Patients, Terms
from jaxseg.results.table import NONE, PAIRED, Row, Table, exact, table
from jaxseg.studies.base import Measures, Report, case_records
from jaxseg.studies.border_shortcut.experiment import TEST_VIEWS, Measured
from jaxseg.studies.border_shortcut.settings import NAMES, Arm, Evaluation, Run, Settings
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


StudyReport = Report[Settings, runs.Splits, Measured, Tables]


def tabulate(settings: Settings, splits: runs.Splits, measured: Measured) -> Tables:
    """All numbers of the study."""
    patients = Patients(np.array(splits["test"].patients), settings.evaluation.resamples)
    of_runs = lambda rows: table(
        row for run, measures in measured.of_runs.items() for row in rows(settings, run, measures, patients)
    )
    return Tables(
        dice=of_runs(_dice_rows),
        bands=of_runs(_band_rows),
        border=table(row for arm in settings.arms for row in _border_rows(settings, arm, measured, patients)),
        moving_window=of_runs(_window_rows),
        position=table(row for run, m in measured.of_runs.items() for row in _position_rows(settings, splits, run, m)),
        mask_centres=table(_centre_rows(settings, splits, measured)),
        training=[_training_record(run, measures) for run, measures in measured.of_runs.items()],
        cases=_case_records(settings, splits, measured),
    )


def _of(run: Run, test_view: str = "") -> dict[str, Any]:
    of = {"network": run.arm.label, "model": NAMES[run.view], "trained_on": run.view}
    return of | {"tested_on": test_view} if test_view else of


def _dice_rows(settings: Settings, run: Run, measures: Measures, patients: Patients) -> Iterator[Row]:
    for test_view in TEST_VIEWS:
        yield patients.row(measures[f"{test_view}_dice"], DICE, **_of(run, test_view))


def _band_rows(settings: Settings, run: Run, measures: Measures, patients: Patients) -> Iterator[Row]:
    for test_view in TEST_VIEWS:
        for name, convention in (("bands", DICE), ("bands_smooth1", SMOOTH)):
            values = measures[f"{test_view}_{name}"]
            for ring, distance in enumerate(band_distances(settings.evaluation)):
                keys: dict[str, Any] = {"band": ring, "outer_distance_px": int(distance), "convention": convention}
                yield patients.row(values[:, ring], convention, **keys, **_of(run, test_view))


def band_distances(evaluation: Evaluation) -> np.ndarray:
    """Outer distance of every band from the centre, in pixels of the grid, `[R]`."""
    return regions.outer_distances((evaluation.grid,) * 2, evaluation.band_width)


def _border_rows(settings: Settings, arm: Arm, measured: Measured, patients: Patients) -> Iterator[Row]:
    """What each model reaches at the border and inside, their gaps, and the gap's excess at the border."""
    for test_view in TEST_VIEWS:
        for quantity, terms in _border_quantities(settings, arm, measured, test_view).items():
            convention = _border_convention(settings, quantity)
            of = {"network": arm.label, "tested_on": test_view, "quantity": quantity}
            yield Row(of, patients.contrast(terms), convention, PAIRED)


def _border_quantities(settings: Settings, arm: Arm, measured: Measured, test_view: str) -> dict[str, Terms]:
    """Each a weighted sum of means per case."""
    of = lambda view, place, arm=arm: measured.of_runs[Run(arm, view)][f"{test_view}_{place}"]
    gap = lambda place, arm=arm, sign=1.0: [(sign, of("quadrant", place, arm)), (-sign, of("original", place, arm))]
    alone = lambda place, name: {name(model): [(1.0, of(view, place))] for view, model in NAMES.items()}
    quantities: dict[str, Terms] = {
        **alone("border", lambda model: f"{model} at the border"),
        **alone("interior", lambda model: f"{model} inside"),
        **{GAP: gap("border"), "gap inside": gap("interior"), EXCESS: gap("border") + gap("interior", sign=-1.0)},
        **alone("border_recall", found_by),
    }
    if reference := settings.reference(arm):
        quantities[minus_that_of(reference)] = gap("border") + gap("border", reference, -1.0)
    return quantities


def found_by(model: str) -> str:
    """The quantity: how much of the lesion at the border a model finds."""
    return f"lesion found at the border by {model}"


def minus_that_of(arm: Arm) -> str:
    """The quantity: how much larger the gap at the border is than that of another arm."""
    return f"{GAP}, minus that of {arm.label}"


def _border_convention(settings: Settings, quantity: str) -> str:
    what = "share of lesion pixels per case, mean" if quantity in map(found_by, NAMES.values()) else DICE
    border = f"within {settings.evaluation.border_width} of {settings.evaluation.grid} px"
    return f"{what}, each mean over its own defined cases; border: {border}; gap: M_crop minus M_ori"


def _window_rows(settings: Settings, run: Run, measures: Measures, patients: Patients) -> Iterator[Row]:
    shown = patients.of(measures["agreement_case"])
    yield shown.row(measures["agreement"], _AGREEMENT, **_of(run, "moving window"))


def _position_rows(settings: Settings, splits: runs.Splits, run: Run, measures: Measures) -> Iterator[Row]:
    layers = checks.build_model(settings.of_run(run), splits["test"].num_classes).roles.convolutions
    convention = f"{_POSITION}, {settings.evaluation.position_folds} folds over patients"
    for number, (name, r2) in enumerate(zip(layers, measures["position"], strict=True), 1):
        keys = {**_of(run), "layer": number, "name": name}
        yield Row(keys, exact(float(r2), len(splits["test"])), convention, NONE)


def _centre_rows(settings: Settings, splits: runs.Splits, measured: Measured) -> Iterator[Row]:
    for (split, view), centres in measured.mask_centres.items():
        patients = Patients(np.array(splits[split].patients), settings.evaluation.resamples)
        yield patients.row(np.linalg.norm(centres, axis=1), _CENTRE, split=split, view=view)


def _training_record(run: Run, measures: Measures) -> dict[str, Any]:
    best = {"best_step": int(measures["step"]), "validation_dice": float(measures["validation_dice"])}
    return {**_of(run), **best, "convention": "mean per case, undefined left out, on the view trained on"}


def _case_records(settings: Settings, splits: runs.Splits, measured: Measured) -> list[dict[str, Any]]:
    records = []
    for (run, measures), test_view in itertools.product(measured.of_runs.items(), TEST_VIEWS):
        columns = {name: measures[f"{test_view}_{name}"] for name in ("dice", "border", "interior", "border_recall")}
        bands = zip(band_distances(settings.evaluation), measures[f"{test_view}_bands"].T, strict=True)
        columns |= {f"band_{distance}": values for distance, values in bands}
        who = {"network": run.arm.label, "model": NAMES[run.view], "tested_on": test_view}
        records += case_records(splits["test"], columns, **who)
    return records
