"""The overlay shortcut (Lin, Weng et al. 2024, section 3): what is trained and measured.

  network      trained on   which are
  baseline     annotated    images with calipers and text
  mitigation   cleaned      the same, with the marks found and filled in
  reference    clean        the images before anything was drawn on them, where they are known

All are tested on all of these, on images restored by other ways of removal, on frozen frames while they are annotated,
and on frames with wrong marks. Marks are drawn and removed at `data.source_size`; networks see
`data.image_size`, and scores are taken there.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, pipeline
from jaxseg.metrics import overlap, regional
from jaxseg.networks import Network
from jaxseg.studies import base
from jaxseg.studies.base import SPLITS, Measures
from jaxseg.studies.overlay_shortcut import restoration, saliency
from jaxseg.studies.overlay_shortcut.clips import Clips, make_clips
from jaxseg.studies.overlay_shortcut.images import NOTHING, RESTORED, Images, Scans, clean_up
from jaxseg.studies.overlay_shortcut.settings import NETWORKS, Settings
from jaxseg.training import runs


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What was measured, and on what."""

    images: Images  # with and without marks
    clips: Clips  # frames of an annotation
    networks: Mapping[str, Measures]  # per network, as `measure` gives it
    agreement: Measures  # per network, as `agreement_with_last` gives it of the clips
    removal: Measures  # as `restoration.measure` gives it


def train_and_measure(settings: Settings, scans: Mapping[str, Scans], workdir: pathlib.Path) -> Measured:
    """Images, clips and every network of the study, made and measured, or read back where that was done before."""
    images = clean_up(settings, scans, workdir)
    clips = make_clips(settings, images)
    trained_on = lambda network: runs.InMemorySplits({split: images.of(NETWORKS[network], split) for split in SPLITS})
    of_run = lambda run, folder: measure(settings, run, folder, images, clips)
    measured = base.train_and_measure(settings, workdir, trained_on, of_run)
    agreement = {name: agreement_with_last(measures["clip_predictions"]) for name, measures in measured.items()}
    return Measured(images, clips, measured, agreement, restoration.measure(images, workdir))


def measure(
    settings: Settings, run: ml_collections.ConfigDict, folder: pathlib.Path, images: Images, clips: Clips
) -> dict[str, np.ndarray]:
    """The best checkpoint of a run on all images of the study.

    Returns:
      Pixels of each class in both, in the labels, in the predictions: per kind of test images `K_counts`, per removal
      `METHOD MASK_counts` int32 `[N,K,3]`, per change `CHANGE_counts` and for clips `clip_counts`, `[M,K,3]` and
      `[M,T,K,3]`. Class indices uint8: `K_predictions` `[N,n,n]`, `CHANGE_predictions` `[M,n,n]`, `clip_predictions`
      `[M,T,n,n]`. What `saliency.measure` returns. `step` and `validation_dice` of the checkpoint.
    """
    test = images.scans["test"].annotated
    network, best = runs.best_network(run, folder, test.images.shape, test.num_classes)
    tested = functools.partial(predict_and_count, network, run)
    measures: dict[str, np.ndarray] = {name: np.asarray(value) for name, value in best.items()}
    for kind in images.kinds:
        source = images.of(kind, "test")
        measures[f"{kind}_counts"], measures[f"{kind}_predictions"] = tested(source.images, source.labels)
    for method, mask in RESTORED if images.clean_known else ():
        if method != NOTHING:
            restored = np.stack([images.restored(method, mask, i) for i in range(len(test))])
            measures[restored_counts(method, mask)], _ = tested(restored, test.labels)
    for name, changed in clips.changed.items():
        measures[f"{name}_counts"], measures[f"{name}_predictions"] = tested(changed, clips.labels)
    frames = [tested(clips.frames[:, t], clips.labels) for t in range(clips.frames.shape[1])]
    measures["clip_counts"], measures["clip_predictions"] = (np.stack(part, 1) for part in zip(*frames, strict=True))
    return measures | saliency.measure(settings, network.model, network.variables, images)


def restored_counts(method: str, mask: str) -> str:
    """The name of the counts of restored test images, of those without any removal too."""
    return "annotated_counts" if method == NOTHING else f"{method} {mask}_counts"


def agreement_with_last(predictions: np.ndarray) -> np.ndarray:
    """Dice of the predictions `[M,T,n,n]` on every frame with that on the last, `[M,T]`; NaN where both are empty."""
    return regional.foreground_dice(predictions, np.broadcast_to(predictions[:, -1:], predictions.shape))


def predict_and_count(
    network: Network, run: ml_collections.ConfigDict, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A network's predictions on images uint8 `[N,S,S,C]`, and how they overlap with labels `[N,S,S]`.

    Returns:
      Counts `[N,K,3]`, as of `overlap.class_counts`, and class indices uint8 `[N,n,n]`.
    """
    places = zip(*pipeline.whole_batches(len(images), run.training.batch_size), strict=True)
    batches = ({"image": images[i], "labels": labels[i], "real": real} for i, real in places)
    count = functools.partial(_predict_and_count, network, size=run.data.image_size)
    found = inference.over_cases(count, batches)
    return found["counts"], found["predictions"]


@functools.partial(jax.jit, static_argnames="size")  # networks of one shape share this program
def _predict_and_count(network: Network, batch: inference.Batch, *, size: int) -> dict[str, jax.Array]:
    seen = augment.whole(batch, size=size)
    predictions = inference.predict(network, seen["images"])
    counts = overlap.class_counts(seen["labels"], predictions, num_classes=network.num_classes)
    return {"counts": counts, "predictions": predictions.astype(jnp.uint8)}
