"""The border shortcut (Lin, Weng et al. 2024, section 4): what is trained and measured.

One network per arm (an architecture with its padding and positions) and training view; each is tested on both views of
the same test cases:

  training view   name      test views
  original        M_ori     original, quadrant
  quadrant        M_crop    original, quadrant

Scores are taken on a grid of `evaluation.grid` pixels, to which labels and predictions are brought by nearest pixel, so
that a ring 10 pixels wide means the same at every network size.
"""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, pipeline
from jaxseg.metrics import overlap, regions
from jaxseg.studies import base
from jaxseg.studies.base import SPLITS, Measures
from jaxseg.studies.border_shortcut import features, moving_window
from jaxseg.studies.border_shortcut.settings import Evaluation, Run, Settings
from jaxseg.training import runs

TEST_VIEWS = ("original", "quadrant")


class Measured(NamedTuple):
    """What the study measures."""

    of_runs: Mapping[Run, Measures]  # as of `measure`
    mask_centres: Mapping[tuple[str, str], np.ndarray]  # (split, view) -> centres of mass `[N,2]`, as of `mask_centres`


def train_and_measure(settings: Settings, splits: runs.Splits, workdir: pathlib.Path) -> Measured:
    """Every run of the study, trained and measured, or read back where that was done before."""
    of_run = lambda run, folder: measure(settings, run, folder, splits)
    of_runs = base.train_and_measure(settings, workdir, lambda _: splits, of_run)
    return Measured(of_runs, mask_centres(settings, splits))


def measure(
    settings: Settings, run: ml_collections.ConfigDict, folder: pathlib.Path, splits: runs.Splits
) -> dict[str, np.ndarray]:
    """The best checkpoint of a run on both test views.

    Returns:
      Per test view V: `V_dice`, `V_border`, `V_interior`, `V_border_recall` `[N]`, `V_bands`, `V_bands_smooth1`
      `[N,R]`, `V_predictions` uint8 `[N,n,n]`; `agreement` `[M]` of the moving window; `windows` uint8 `[W,n,n]`, the
      predictions of the windows along the diagonal of the case that `moving_window.pick_case` names; `step` and
      `validation_dice` of the checkpoint; and what `features.measure` returns.
    """
    test = splits["test"]
    network, best = runs.best_network(run, folder, test.images.shape, splits.num_classes)
    measures: dict[str, np.ndarray] = {name: np.asarray(value) for name, value in best.items()}
    for view in TEST_VIEWS:
        scores = inference.score_cases(
            network,
            pipeline.epoch(test, batch_size=run.training.batch_size),
            augment.testing_view(view, size=run.data.image_size, cases=test.cases),
            lambda labels, predictions, valid=None: score(labels, predictions, settings.evaluation, valid=valid),
        )
        measures |= {f"{view}_{name}": value for name, value in scores.items()}
    measures |= features.measure(settings, network.model, network.variables, test)
    return measures | moving_window.measure(settings, network, test)


def mask_centres(settings: Settings, splits: runs.Splits) -> dict[tuple[str, str], np.ndarray]:
    """Centres of mass `[N,2]` of the masks of every split, in both views (quadrants: the one fixed by the case)."""
    centres = {}
    for view in augment.VIEWS:
        for split in SPLITS:
            source = splits[split]
            seen = augment.testing_view(view, size=settings.run.data.image_size, cases=source.cases)
            of_batch = jax.jit(lambda batch, seen=seen: {"centres": regions.mask_centres(seen(batch)["labels"])})
            batches = pipeline.epoch(source, batch_size=settings.run.training.batch_size)
            centres[split, view] = inference.over_cases(of_batch, batches)["centres"]
    return centres


def score(
    labels: jax.Array, predictions: jax.Array, evaluation: Evaluation, *, valid: jax.Array | None = None
) -> dict[str, jax.Array]:
    """All scores of one batch, `[B,...]`; labels and predictions `[B,n,n]`, and where not all pixels count `valid`."""
    factor = evaluation.grid // labels.shape[1]
    whole = predictions
    if valid is not None:  # without foreground in both, a pixel is in no score
        labels, predictions = jnp.where(valid, labels, 0), jnp.where(valid, predictions, 0)
    a, b = (jnp.repeat(jnp.repeat(x, factor, 1), factor, 2) for x in (labels, predictions))
    rings = regions.band_index(a.shape[1:], evaluation.border_width)
    at_border = jnp.asarray(rings == rings.max())
    foreground = lambda mask, where: jnp.where(where, mask > 0, False)
    inside = lambda where: overlap.dice(foreground(a, where), foreground(b, where), num_classes=2)[:, 0]
    lesion = jnp.sum(foreground(a, at_border), (1, 2))
    overlapped = jnp.sum(foreground(a, at_border) & (b > 0), (1, 2))
    return {
        "dice": inside(True),
        "border": inside(at_border),
        "interior": inside(~at_border),
        "border_recall": jnp.where(lesion > 0, overlapped / jnp.maximum(lesion, 1), jnp.nan),
        "bands": regions.band_dice(a, b, width=evaluation.band_width)[1],
        "bands_smooth1": regions.band_dice(a, b, width=evaluation.band_width, smooth=1.0)[1],
        "predictions": whole.astype(jnp.uint8),
    }
