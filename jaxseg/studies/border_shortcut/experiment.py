"""The border shortcut (Lin, Weng et al. 2024, section 4): which runs, which numbers.

One network per padding mode and training view; each is tested on both views of the same test cases:

  training view   name      test views
  original        M_ori     original, quadrant
  quadrant        M_crop    original, quadrant

Scores are taken on a grid of `evaluation.grid` pixels, to which labels and predictions are brought by nearest pixel, so
that a ring 10 pixels wide means the same at every network size.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, pipeline
from jaxseg.errors import InputError
from jaxseg.metrics import overlap, regions
from jaxseg.metrics.intervals import Estimate, bootstrap_contrast, bootstrap_mean
from jaxseg.models.layers import PADDINGS
from jaxseg.results.stored import kept
from jaxseg.studies.border_shortcut import features as border_features
from jaxseg.studies.border_shortcut import moving_window
from jaxseg.training import checks, runs

NAMES = {"original": "M_ori", "quadrant": "M_crop"}
TEST_VIEWS = ("original", "quadrant")
Measures = Mapping[str, np.ndarray]
Run = tuple[str, str]  # padding, training view


def check(config: ml_collections.ConfigDict) -> None:
    """Raises InputError, before anything is computed, when a field of the study cannot work."""
    if config.get("study") != "border_shortcut":
        raise InputError("the config is not a study's; give configs/border_shortcut.py, or use launch.train")
    for name in ("paddings", "views", "data", "model", "training", "evaluation"):
        if name not in config:
            raise InputError(f"config.{name} is missing; configs/border_shortcut.py shows every field")
    for name, known in (("paddings", PADDINGS), ("views", augment.VIEWS)):
        values = config[name]
        if not values or len(set(values)) < len(values) or set(values) - set(known):
            raise InputError(f"config.{name} is {values!r}; give some of {', '.join(known)}, each once")
    if set(config.views) != set(augment.VIEWS):
        raise InputError(f"config.views is {config.views!r}; the study compares {' with '.join(augment.VIEWS)}")
    for padding in config.paddings:
        for view in config.views:
            checks.check(run_config(config, padding, view))
    evaluation = config.evaluation
    if evaluation.grid % config.data.image_size:
        raise InputError(
            f"config.evaluation.grid is {evaluation.grid}; it must be a multiple of config.data.image_size "
            f"({config.data.image_size})"
        )
    if not 0 < evaluation.band_width <= evaluation.border_width < evaluation.grid // 2:
        raise InputError(
            f"config.evaluation.band_width {evaluation.band_width} and border_width {evaluation.border_width} must "
            f"rise and stay below half the grid ({evaluation.grid // 2})"
        )
    for name in ("window_images", "examples", "resamples", "feature_pixels"):
        if evaluation[name] < 1:
            raise InputError(f"config.evaluation.{name} is {evaluation[name]}; it must be at least 1")
    if evaluation.position_folds < 2:
        raise InputError("config.evaluation.position_folds must be at least 2, for a cross-validation")
    if evaluation.windows_per_side < 2:
        raise InputError("config.evaluation.windows_per_side must be at least 2, for windows to be compared")


def run_config(config: ml_collections.ConfigDict, padding: str, view: str) -> ml_collections.ConfigDict:
    """The config of one training run of the study."""
    run = ml_collections.ConfigDict(checks.run_fields(config))
    run.model.padding = padding
    run.data.view = view
    return run.lock()


def run_folder(workdir: pathlib.Path, padding: str, view: str) -> pathlib.Path:
    """Where a run of the study keeps its checkpoints, metrics and measures."""
    return workdir / "runs" / f"{padding}_{view}"


def train_and_measure(
    config: ml_collections.ConfigDict, splits: runs.Splits, workdir: pathlib.Path
) -> dict[Run, dict[str, np.ndarray]]:
    """Every run of the study, trained and measured, or read back where that was done before."""
    measured = {}
    for padding in config.paddings:
        for view in config.views:
            run, folder = run_config(config, padding, view), run_folder(workdir, padding, view)
            runs.train(run, splits, folder)
            make = functools.partial(measure, config, run, folder, splits)
            measured[padding, view] = kept(folder / "measures.npz", make)
    return measured


def measure(
    config: ml_collections.ConfigDict, run: ml_collections.ConfigDict, folder: pathlib.Path, splits: runs.Splits
) -> dict[str, np.ndarray]:
    """The best checkpoint of a run on both test views.

    Returns:
      Per test view V: `V_dice`, `V_border`, `V_interior`, `V_border_recall` `[N]`, `V_bands`, `V_bands_smooth1`
      `[N,R]`, `V_predictions` uint8 `[N,n,n]`; `agreement` `[M]` of the moving window; `windows` uint8 `[W,n,n]`, the
      predictions of the windows along the diagonal of the case that `moving_window.pick_case` names; `step` and
      `validation_dice` of the checkpoint; and what `border_features.measure` returns.
    """
    test = splits["test"]
    model, variables, best = runs.load_best(run, folder, test.images.shape, splits.num_classes)
    measures: dict[str, np.ndarray] = {name: np.asarray(value) for name, value in best.items()}
    for view in TEST_VIEWS:
        scores = inference.score_cases(
            model,
            variables,
            pipeline.epoch(test, batch_size=config.training.batch_size),
            augment.testing_view(view, size=config.data.image_size, cases=test.cases),
            lambda labels, predictions: score(labels, predictions, config.evaluation),
        )
        measures |= {f"{view}_{name}": value for name, value in scores.items()}
    measures |= border_features.measure(config, model, variables, test)
    return measures | moving_window.measure(config, model, variables, test)


def score(labels: jax.Array, predictions: jax.Array, evaluation: ml_collections.ConfigDict) -> dict[str, jax.Array]:
    """All numbers of one batch, `[B,...]`; labels and predictions `[B,n,n]`."""
    factor = evaluation.grid // labels.shape[1]
    a, b = (jnp.repeat(jnp.repeat(x, factor, 1), factor, 2) for x in (labels, predictions))
    rings = regions.band_index(a.shape[1:], evaluation.border_width)
    at_border = jnp.asarray(rings == rings.max())
    foreground = lambda mask, where: jnp.where(where, mask > 0, False)
    inside = lambda where: overlap.dice(foreground(a, where), foreground(b, where), num_classes=2)[:, 0]
    lesion = jnp.sum(foreground(a, at_border), (1, 2))
    found = jnp.sum(foreground(a, at_border) & (b > 0), (1, 2))
    return {
        "dice": inside(True),
        "border": inside(at_border),
        "interior": inside(~at_border),
        "border_recall": jnp.where(lesion > 0, found / jnp.maximum(lesion, 1), jnp.nan),
        "bands": regions.band_dice(a, b, width=evaluation.band_width)[1],
        "bands_smooth1": regions.band_dice(a, b, width=evaluation.band_width, smooth=1.0)[1],
        "predictions": predictions.astype(jnp.uint8),
    }


# ----------------------------------------------------------------------------------------------------------- tables


@dataclasses.dataclass(frozen=True)
class Tables:
    """Rows of every table; each row says its convention, n, undefined and interval."""

    dice: list[dict[str, Any]]
    bands: list[dict[str, Any]]
    border: list[dict[str, Any]]
    moving_window: list[dict[str, Any]]
    position: list[dict[str, Any]]
    mask_centres: list[dict[str, Any]]
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


def tabulate(config: ml_collections.ConfigDict, splits: runs.Splits, measured: Mapping[Run, Measures]) -> Tables:
    """All numbers of the study as rows."""
    patients = np.array(splits["test"].patients)
    resamples = config.evaluation.resamples
    return Tables(
        dice=[
            _row(padding, view, test_view, bootstrap_mean(m[f"{test_view}_dice"], patients, resamples=resamples), DICE)
            for (padding, view), m in measured.items()
            for test_view in TEST_VIEWS
        ],
        bands=[row for run, m in measured.items() for row in _band_rows(config, run, m, patients)],
        border=[row for padding in config.paddings for row in _border_rows(config, padding, measured, patients)],
        moving_window=[_window_row(config, run, m, patients) for run, m in measured.items()],
        position=[row for run, m in measured.items() for row in _position_rows(config, splits, run, m)],
        mask_centres=_centre_rows(config, splits),
        training=[
            {
                "padding": padding,
                "model": NAMES[view],
                "trained_on": view,
                "best_step": int(m["step"]),
                "validation_dice": float(m["validation_dice"]),
                "convention": "mean per case, undefined left out, on the view trained on",
            }
            for (padding, view), m in measured.items()
        ],
        cases=_case_rows(config, splits["test"], measured),
    )


DICE = "Dice per case, mean; empty in label and prediction is undefined and left out"
SMOOTH = "Dice per case with smooth=1 (the authors' code: an empty band is 1), mean"
_AGREEMENT = "Dice of the overlaps of all pairs of windows, accumulated per image, mean over images"


def _row(padding: str, view: str, test_view: str, estimate: Estimate, convention: str) -> dict[str, Any]:
    who = {"padding": padding, "model": NAMES[view], "trained_on": view, "tested_on": test_view}
    return who | dataclasses.asdict(estimate) | {"interval": "bootstrap over patients, 95 %", "convention": convention}


def _band_rows(
    config: ml_collections.ConfigDict, run: Run, measures: Measures, patients: np.ndarray
) -> list[dict[str, Any]]:
    padding, view = run
    rows = []
    for test_view in TEST_VIEWS:
        for key, convention in (("bands", DICE), ("bands_smooth1", SMOOTH)):
            values = measures[f"{test_view}_{key}"]
            for ring, distance in enumerate(band_distances(config)):
                estimate = bootstrap_mean(values[:, ring], patients, resamples=config.evaluation.resamples)
                row = _row(padding, view, test_view, estimate, convention)
                rows.append({"band": ring, "outer_distance_px": int(distance)} | row)
    return rows


def band_distances(config: ml_collections.ConfigDict) -> np.ndarray:
    """Outer distance of every band from the centre, in pixels of the grid, `[R]`."""
    grid = config.evaluation.grid
    return regions.outer_distances((grid, grid), config.evaluation.band_width)


def _border_rows(
    config: ml_collections.ConfigDict, padding: str, measured: Mapping[Run, Measures], patients: np.ndarray
) -> list[dict[str, Any]]:
    """What each model reaches at the border and inside, their gaps, and the gap's excess at the border."""
    rows = []
    for test_view in TEST_VIEWS:
        ori, crop = (
            {
                place: measured[padding, view][f"{test_view}_{place}"]
                for place in ("border", "interior", "border_recall")
            }
            for view in ("original", "quadrant")
        )
        gap = {place: [(1.0, crop[place]), (-1.0, ori[place])] for place in ("border", "interior")}
        quantities: dict[str, list[tuple[float, np.ndarray]]] = {
            "M_ori at the border": [(1.0, ori["border"])],
            "M_crop at the border": [(1.0, crop["border"])],
            "M_ori inside": [(1.0, ori["interior"])],
            "M_crop inside": [(1.0, crop["interior"])],
            GAP: gap["border"],
            "gap inside": gap["interior"],
            EXCESS: gap["border"] + _negative(gap["interior"]),
            "lesion found at the border by M_ori": [(1.0, ori["border_recall"])],
            "lesion found at the border by M_crop": [(1.0, crop["border_recall"])],
        }
        reference = config.paddings[0]
        if padding != reference:
            key = f"{test_view}_border"
            theirs = [(1.0, measured[reference, "quadrant"][key]), (-1.0, measured[reference, "original"][key])]
            quantities[f"{GAP}, minus that of {reference} padding"] = gap["border"] + _negative(theirs)
        for quantity, terms in quantities.items():
            estimate = bootstrap_contrast(terms, patients, resamples=config.evaluation.resamples)
            rows.append(
                {"padding": padding, "tested_on": test_view, "quantity": quantity}
                | dataclasses.asdict(estimate)
                | {
                    "interval": "bootstrap over patients, 95 %, paired",
                    "convention": _convention(config, quantity),
                }
            )
    return rows


GAP = "gap at the border"
EXCESS = "excess gap at the border"


def _negative(terms: Sequence[tuple[float, np.ndarray]]) -> list[tuple[float, np.ndarray]]:
    return [(-weight, values) for weight, values in terms]


def _convention(config: ml_collections.ConfigDict, quantity: str) -> str:
    what = "share of lesion pixels per case, mean" if "found" in quantity else DICE
    evaluation = config.evaluation
    return (
        f"{what}, each mean over its own defined cases; border: within {evaluation.border_width} of {evaluation.grid} "
        "px; gap: M_crop minus M_ori"
    )


def _window_row(
    config: ml_collections.ConfigDict, run: Run, measures: Measures, patients: np.ndarray
) -> dict[str, Any]:
    estimate = bootstrap_mean(
        measures["agreement"], patients[measures["agreement_case"]], resamples=config.evaluation.resamples
    )
    return _row(*run, "moving window", estimate, _AGREEMENT)


def _position_rows(
    config: ml_collections.ConfigDict, splits: runs.Splits, run: Run, measures: Measures
) -> list[dict[str, Any]]:
    padding, view = run
    layers = checks.build_model(run_config(config, padding, view), splits["test"].num_classes).numbered_layers
    return [
        {"padding": padding, "model": NAMES[view], "trained_on": view, "layer": number, "name": name}
        | {"mean": float(r2), "low": math.nan, "high": math.nan, "n": len(splits["test"]), "undefined": 0}
        | {"interval": "none", "convention": f"{_POSITION}, {config.evaluation.position_folds} folds over patients"}
        for number, (name, r2) in enumerate(zip(layers, measures["position"], strict=True), 1)
    ]


_POSITION = "R^2 of a ridge regression from a pixel's features to its distance from the border, on whole test images"


def _centre_rows(config: ml_collections.ConfigDict, splits: runs.Splits) -> list[dict[str, Any]]:
    rows = []
    for (split, view), centres in mask_centres(config, splits).items():
        patients = np.array(splits[split].patients)
        distance = np.linalg.norm(centres, axis=1)
        estimate = bootstrap_mean(distance, patients, resamples=config.evaluation.resamples)
        rows.append(
            {"split": split, "view": view}
            | dataclasses.asdict(estimate)
            | {
                "interval": "bootstrap over patients, 95 %",
                "convention": "distance of the mask's centre of mass from the image's centre, 1 is half a side; "
                "empty masks are undefined",
            }
        )
    return rows


def mask_centres(config: ml_collections.ConfigDict, splits: runs.Splits) -> dict[tuple[str, str], np.ndarray]:
    """Centres of mass `[N,2]` of the masks of every split, in both views (quadrants: the one fixed by the case)."""
    centres = {}
    for view in augment.VIEWS:
        for split in ("train", "validation", "test"):
            source = splits[split]
            seen = augment.testing_view(view, size=config.data.image_size, cases=source.cases)
            of_batch = jax.jit(lambda batch, seen=seen: regions.mask_centres(seen(batch)["labels"]))
            batches = pipeline.epoch(source, batch_size=config.training.batch_size)
            values = [np.asarray(of_batch(batch))[np.asarray(batch["valid"])] for batch in batches]
            centres[split, view] = np.concatenate(values)
    return centres


def _case_rows(
    config: ml_collections.ConfigDict, test: pipeline.InMemory, measured: Mapping[Run, Measures]
) -> list[dict[str, Any]]:
    bands = [f"band_{distance}" for distance in band_distances(config)]
    return [
        {
            "case": test.cases[i],
            "patient": test.patients[i],
            "padding": padding,
            "model": NAMES[view],
            "tested_on": test_view,
        }
        | {name: float(m[f"{test_view}_{name}"][i]) for name in ("dice", "border", "interior", "border_recall")}
        | dict(zip(bands, m[f"{test_view}_bands"][i].tolist(), strict=True))
        for (padding, view), m in measured.items()
        for test_view in TEST_VIEWS
        for i in range(len(test.cases))
    ]


# ----------------------------------------------------------------------------------------------------------- verdict


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer to "is there a shortcut, how large, with what interval", for one padding mode."""

    padding: str
    verdict: str  # yes, partly, no, unclear
    sentence: str


_NEGLIGIBLE = 0.05  # a gap whose whole interval lies below this is called none


def verdict(config: ml_collections.ConfigDict, rows: Sequence[Mapping[str, Any]], padding: str) -> Verdict:
    """Reads the answer off the border table.

    yes: on quadrants M_ori is below M_crop at the border, and by more than inside; the intervals of both exclude 0.
    partly: below at the border, but not by more than inside. no: the gap's whole interval lies below 0.05. unclear:
    anything else. The answer is about where M_ori fails; what padding has to do with it, only other padding modes tell.
    """
    by_name = {r["quantity"]: r for r in rows if r["padding"] == padding and r["tested_on"] == "quadrant"}
    text = lambda name: "{mean:z.2f} [{low:z.2f}, {high:z.2f}]".format(**by_name[name])
    found = lambda model: "{mean:.0%}".format(**by_name[f"lesion found at the border by {model}"])
    gap, excess = by_name[GAP], by_name[EXCESS]
    share = f"{config.evaluation.border_width} of {config.evaluation.grid} px"
    facts = (
        f"within {share} of the border of quadrants, M_ori (trained on whole images) reaches a Dice of "
        f"{text('M_ori at the border')} and finds {found('M_ori')} of the lesion, M_crop (trained on quadrants) "
        f"{text('M_crop at the border')} and {found('M_crop')}: a gap of {text(GAP)}, against {text('gap inside')} "
        f"further inside ({padding} padding, {gap['patients']} patients, 95 % intervals)."
    )
    if math.isnan(gap["mean"]) or math.isnan(gap["low"]):
        return Verdict(padding, "unclear", f"No test case decides: {facts}")
    if gap["high"] < _NEGLIGIBLE:
        return Verdict(padding, "no", f"M_ori loses nothing at the border that M_crop keeps: {facts}")
    if gap["low"] <= 0:
        return Verdict(padding, "unclear", f"The intervals are too wide to tell: {facts}")
    if excess["low"] <= 0:
        return Verdict(
            padding, "partly", f"The networks differ at the border, but not clearly more than inside: {facts}"
        )
    return Verdict(padding, "yes", f"M_ori gives up lesions at the border: {facts}")
