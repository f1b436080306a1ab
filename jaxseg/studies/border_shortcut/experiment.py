"""The border shortcut (Lin, Weng et al. 2024, section 4): which runs, which numbers.

One network per padding mode and training view; each is tested on both views of the same test cases:

  training view   name      test views
  original        M_ori     original, quadrant
  quadrant        M_crop    original, quadrant

Scores are taken on a grid of `evaluation.grid` pixels, to which labels and predictions are brought by nearest pixel, so
that a ring 10 pixels wide means the same at every network size.
"""

import functools
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, pipeline
from jaxseg.errors import InputError
from jaxseg.metrics import overlap, regions
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
