"""The overlay shortcut (Lin, Weng et al. 2024, section 3): which runs, which numbers.

  network      trained on   which are
  baseline     annotated    images with calipers and text
  mitigation   cleaned      the same, with the marks found and filled in
  reference    clean        the images before anything was drawn on them, where they are known

All are tested on all of these, on images restored by other ways of removal, on frozen frames while they are annotated,
and on frames with marks that are not the right ones. Marks are drawn and removed at `data.source_size`; networks see
`data.image_size`, and scores are taken there.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.analysis import gradcam
from jaxseg.data import augment, overlays, pipeline
from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.models import capture, tracing
from jaxseg.results.stored import kept
from jaxseg.studies.overlay_shortcut.images import MASKS, NOTHING, SOURCES, SPLITS, Clips, Images, planes_of_labels
from jaxseg.training import checks, runs

NETWORKS = {"baseline": "annotated", "mitigation": "cleaned", "reference": "clean"}
Measures = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What was measured, and on what.

    Attributes:
      images: with and without marks.
      clips: frames of an annotation.
      networks: per network, as `measure` gives it.
      removal: as `removal_measures` gives it.
    """

    images: Images
    clips: Clips
    networks: Mapping[str, Measures]
    removal: Measures


def check(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config; raises InputError, before anything is computed, when a field of the study cannot work."""
    if config.get("study") != "overlay_shortcut":
        raise InputError("the config is not this study's; give configs/overlay_shortcut.py, or use launch.train")
    for name in ("data", "model", "training", "overlays", "removal", "evaluation"):
        if name not in config:
            raise InputError(f"config.{name} is missing; configs/overlay_shortcut.py shows every field")
    for name, known in (("overlays.source", SOURCES), ("removal.method", overlays.REMOVALS)):
        if checks.field(config, name) not in known:
            raise InputError(f"config.{name} is {checks.field(config, name)!r}; choose one of {', '.join(known)}")
    checks.check(run_config(config, "baseline"))  # the others differ in their images alone
    if config.data.view != "original" or config.data.folds or config.replicas > 1 or config.data.residence == "stream":
        raise InputError(
            "the study trains on whole images in memory; leave config.data.view, folds, residence and config.replicas "
            "at their defaults"
        )
    if config.overlays.source == "world" and config.data.domains:
        raise InputError("config.data.domains must be empty: a world has the domains annotated and clean")
    least = {"removal.margin": 0, "evaluation.clip_frames": 2, "evaluation.clip_seed": 0}
    for name in ("removal.steps", "removal.batch_size", "removal.crop", *(f"evaluation.{n}" for n in _COUNTS)):
        least[name] = 1
    for name, value in least.items():
        if checks.field(config, name) < value:
            raise InputError(f"config.{name} is {checks.field(config, name)}; it must be at least {value}")
    _check_inpainter(config)
    _check_layer(config)
    return config


_COUNTS = ("clips", "examples", "resamples")


def _check_inpainter(config: ml_collections.ConfigDict) -> None:
    removal, unit = config.removal, 2 ** (len(config.removal.features) - 1)
    if removal.crop > config.data.source_size or removal.crop % unit:
        raise InputError(
            f"config.removal.crop is {removal.crop}; it must be at most config.data.source_size "
            f"({config.data.source_size}) and divisible by {unit}, as the features halve it"
        )
    if not 0 <= removal.gray_share <= 1:
        raise InputError(f"config.removal.gray_share is {removal.gray_share}; it must be in 0 to 1")
    if not removal.learning_rate > 0:
        raise InputError(f"config.removal.learning_rate is {removal.learning_rate}; it must be above 0")


def _check_layer(config: ml_collections.ConfigDict) -> None:
    model, size = checks.build_model(config, 2), config.data.image_size
    image: Any = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    layer = config.evaluation.saliency_layer
    known = capture.layer_names(model, tracing.variable_shapes(model, image.shape), image)
    if layer not in known:
        shown = ", ".join(name for name in known if name.count("/") == 1)
        raise InputError(f"config.evaluation.saliency_layer is {layer!r}; the network has {shown}")


def networks(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Network -> the images that it is trained on; without the reference where nobody knows the clean images."""
    known = config.overlays.source != "burnt_in"
    return {name: images for name, images in NETWORKS.items() if known or images != "clean"}


def run_config(config: ml_collections.ConfigDict, network: str) -> ml_collections.ConfigDict:
    """The config of one training run of the study; the images that it is trained on stand as its domain."""
    run = ml_collections.ConfigDict(checks.run_fields(config))
    run.data.domains = (NETWORKS[network],)
    run.data.residence = "device"
    return run.lock()


def run_folder(workdir: pathlib.Path, network: str) -> pathlib.Path:
    """Where a run of the study keeps its checkpoints, metrics and measures."""
    return workdir / "runs" / network


def splits_of(images: Images, network: str) -> runs.Splits:
    """The cases that a network is trained and validated on."""
    parts = {split: images.of(NETWORKS[network], split) for split in SPLITS}
    return runs.InMemorySplits({split: part for split, part in parts.items() if part is not None})


def train_and_measure(
    config: ml_collections.ConfigDict, images: Images, clips: Clips, workdir: pathlib.Path
) -> dict[str, dict[str, np.ndarray]]:
    """Every network of the study, trained and measured, or read back where that was done before."""
    measured = {}
    for network in networks(config):
        run, folder = run_config(config, network), run_folder(workdir, network)
        runs.train(run, splits_of(images, network), folder)
        make = functools.partial(measure, config, run, folder, images, clips)
        measured[network] = kept(folder / "measures.npz", make)
    return measured


def measure(
    config: ml_collections.ConfigDict,
    run: ml_collections.ConfigDict,
    folder: pathlib.Path,
    images: Images,
    clips: Clips,
) -> dict[str, np.ndarray]:
    """The best checkpoint of a run on all images of the study.

    Returns:
      Pixels of each class in both, in the labels, in the predictions: per kind of test images `K_counts`, per removal
      `METHOD MASK_counts` int32 `[N,K,3]`, per change `CHANGE_counts` and for clips `clip_counts`, `[M,K,3]` and
      `[M,T,K,3]`. Class numbers uint8: `K_predictions` `[N,n,n]`, `CHANGE_predictions` `[M,n,n]`, `clip_predictions`
      `[M,T,n,n]`. Saliency float16 `saliency_K` `[N,n,n]` on annotated and clean (or cleaned) images, the share of
      it that lies on the marks' places `share_K` `[N]`, and the share of the image that they cover, `cover` `[N]`.
      `step` and `validation_dice` of the checkpoint.
    """
    test = images.scans["test"].annotated
    model, variables, best = runs.load_best(run, folder, test.images.shape, test.num_classes)
    judge = Judge(model, variables, config, test.num_classes)
    measures: dict[str, np.ndarray] = {name: np.asarray(value) for name, value in best.items()}
    for kind in images.kinds:
        source = images.of(kind, "test")
        assert source is not None
        measures[f"{kind}_counts"], measures[f"{kind}_predictions"] = judge(source.images, source.labels)
    if images.scans["test"].clean is not None:
        for method in overlays.REMOVALS:
            for which in MASKS:
                restored = np.stack([images.restored(method, which, i) for i in range(len(test))])
                measures[f"{method} {which}_counts"], _ = judge(restored, test.labels)
    for name, changed in clips.changed.items():
        measures[f"{name}_counts"], measures[f"{name}_predictions"] = judge(changed, clips.labels)
    frames = [judge(clips.frames[:, t], clips.labels) for t in range(clips.frames.shape[1])]
    measures["clip_counts"], measures["clip_predictions"] = (np.stack(part, 1) for part in zip(*frames, strict=True))
    return measures | _saliency(config, model, variables, images)


class Judge:
    """A network's predictions for images in memory, and how they overlap with labels."""

    def __init__(self, model: nn.Module, variables: Any, config: ml_collections.ConfigDict, num_classes: int):
        self._run = functools.partial(_judge, model, variables, size=config.data.image_size, num_classes=num_classes)
        self._batch_size = config.training.batch_size

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts `[N,K,3]` and class numbers uint8 `[N,n,n]` of uint8 images `[N,S,S,C]` with labels `[N,S,S]`."""
        parts = []
        for index, valid in _batches(len(images), self._batch_size):
            parts.append([np.asarray(x)[valid] for x in self._run(images[index], labels[index])])
        counts, predictions = (np.concatenate(part) for part in zip(*parts, strict=True))
        return counts, predictions


# networks of one shape share these programs, as the module is part of what they are compiled for
@functools.partial(jax.jit, static_argnames=("model", "size", "num_classes"))
def _judge(
    model: nn.Module, variables: Any, image: jax.Array, labels: jax.Array, *, size: int, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    seen = augment.whole({"image": image, "labels": labels}, size=size)
    predictions = inference.predict(model, variables, seen["images"])
    counts = overlap.class_counts(seen["labels"], predictions, num_classes=num_classes)
    return counts, predictions.astype(jnp.uint8)


def _batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(*pipeline.whole_batches(count, batch_size), strict=True)


def _saliency(
    config: ml_collections.ConfigDict, model: nn.Module, variables: Any, images: Images
) -> dict[str, np.ndarray]:
    """Grad-CAM of every test image for the class of its own organ, with marks and, at the same places, without.

    What lies near the organ's outline, as calipers do, has saliency of its own. The same places on the same image
    without marks tell how much.
    """
    size, batch_size = config.data.image_size, config.training.batch_size
    run = functools.partial(_explain, model, variables, layer=config.evaluation.saliency_layer, size=size)
    test, marks = images.scans["test"].annotated, images.marks("true")
    planes = planes_of_labels(test.labels)
    n = len(test)
    measures: dict[str, np.ndarray] = {"cover": np.zeros(n, np.float32)}
    for kind in ("annotated", images.kinds[-1]):
        source = images.of(kind, "test")
        assert source is not None
        saliency, share = np.zeros((n, size, size), np.float16), np.full(n, np.nan, np.float32)
        for plane in np.unique(planes[planes > 0]):
            cases = np.flatnonzero(planes == plane)
            for index, valid in _batches(len(cases), batch_size):
                chosen = cases[index]
                answer = run(source.images[chosen], marks[chosen], jnp.asarray(plane, jnp.int32))
                maps, shares, cover = (np.asarray(x)[valid] for x in answer)
                saliency[chosen[valid]], share[chosen[valid]] = maps, shares
                measures["cover"][chosen[valid]] = cover
        measures |= {f"saliency_{kind}": saliency, f"share_{kind}": share}
    return measures


@functools.partial(jax.jit, static_argnames=("model", "layer", "size"))
def _explain(
    model: nn.Module,
    variables: Any,
    image: jax.Array,
    marks: jax.Array,
    class_index: Any,
    *,
    layer: str,
    size: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Saliency `[B,n,n]`, the share of it on the marks `[B]`, and the share of the image under them `[B]`."""
    seen = augment.whole({"image": image, "labels": marks}, size=size)["images"]
    covered = jax.image.resize(marks.astype(jnp.float32), (len(marks), size, size), "linear")
    activations = capture.capture(model, variables, seen, [layer])[1][layer]
    rest = lambda x: capture.replace(model, variables, seen, {layer: lambda _: x})
    gradients = gradcam.score_gradients(rest, activations, class_index=class_index)
    saliency = gradcam.gradcam(activations, gradients, size=(size, size))
    return saliency, gradcam.saliency_share(saliency, covered), jnp.mean(covered, (1, 2))


def removal_measures(images: Images, workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """How well marks were found and images restored, or what was measured before; empty without clean images.

    Returns:
      `METHOD MASK REGION METRIC` float `[N]`: mae in gray levels and psnr in dB, over the region `marks` (what they
      cover) and `image` (all of it); `recall` and `precision` of the found pixels, and what share of the marks'
      pixels is `removed` when the found ones are widened, `[N]`.
    """
    if images.scans["test"].clean is None:
        return {}
    return kept(workdir / "runs" / "removal.npz", lambda: _measure_removal(images))


def _measure_removal(images: Images) -> dict[str, np.ndarray]:
    test = images.scans["test"]
    assert test.clean is not None and test.marks is not None
    measures: dict[str, np.ndarray] = {}
    for method in (NOTHING, *overlays.REMOVALS):
        for which in MASKS if method != NOTHING else MASKS[:1]:
            errors = []
            for i, (clean, marks) in enumerate(zip(test.clean.images, test.marks, strict=True)):
                restored = images.restored(method, which, i)
                regions = (marks, np.ones_like(marks))
                errors.append([overlays.reconstruction_error(clean, restored, region) for region in regions])
            values = np.array(errors)  # [N, region, metric]
            for r, region in enumerate(("marks", "image")):
                for m, metric in enumerate(("mae", "psnr")):
                    # no error at all has no finite ratio: undefined, and counted as that
                    measures[f"{method} {which} {region} {metric}"] = np.where(
                        np.isfinite(values[:, r, m]), values[:, r, m], np.nan
                    )
    found = images.found["test"]
    widened = np.stack([overlays.removed_region(mask, method="network", margin=images.margin) for mask in found])
    pixels = lambda where: where.sum((1, 2)).astype(float)
    share = lambda part, whole: np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
    return measures | {
        "recall": share(pixels(test.marks & found), pixels(test.marks)),
        "removed": share(pixels(test.marks & widened), pixels(test.marks)),
        "precision": share(pixels(test.marks & found), pixels(found)),
    }
