"""The overlay shortcut (Lin, Weng et al. 2024, section 3): which runs, which numbers.

  network      trained on   which are
  baseline     annotated    images with calipers and text
  mitigation   cleaned      the same, with the marks found and filled in
  reference    clean        the images before anything was drawn on them, where they are known

All are tested on all of these, on images restored by other ways of removal, on frozen frames while they are annotated,
and on frames with marks that are not the right ones. Marks are drawn and removed at `data.source_size`; networks see
`data.image_size`, and scores are taken there.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import inference
from jaxseg.analysis import gradcam
from jaxseg.data import augment, overlays, pipeline
from jaxseg.data.synthetic import ultrasound
from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.metrics.intervals import Estimate, bootstrap_contrast
from jaxseg.models import capture
from jaxseg.training import checks, inpainting, runs

SOURCES = ("world", "drawn", "burnt_in")
SPLITS = ("train", "validation", "test")
NETWORKS = {"baseline": "annotated", "mitigation": "cleaned", "reference": "clean"}
MASKS = ("true", "found")  # the marks as they were drawn, and as `overlays.detect` finds them
NOTHING = "none"  # the removal that removes nothing
CHANGES = ("all marks", "no marks", "calipers only", "text only", "other plane's text", "calipers moved")
ALL = "all"

Measures = Mapping[str, np.ndarray]


# Facts of the paper: mean and standard deviation over images of the Dice, in percent.
PAPER_DICE = {
    "annotated": {"head": (76.97, 5.10), "abdomen": (82.06, 6.60), "femur": (93.82, 1.79), "cervix": (76.29, 4.05)},
    "cleaned": {"head": (70.85, 8.24), "abdomen": (78.85, 7.72), "femur": (91.84, 4.87), "cervix": (71.81, 4.86)},
}
PAPER_STABILITY = {
    "baseline": {"head": (89.07, 14.9), "abdomen": (94.75, 12.6), "femur": (91.51, 19.6), "cervix": (82.42, 10.1)},
    "mitigation": {"head": (98.39, 1.3), "abdomen": (98.53, 1.9), "femur": (95.38, 8.9), "cervix": (97.00, 1.2)},
}


def check(config: ml_collections.ConfigDict) -> None:
    """Raises InputError, before anything is computed, when a field of the study cannot work."""
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
    known = capture.layer_names(model, jax.eval_shape(model.init, jax.random.key(0), image), image)
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


# ------------------------------------------------------------------------------------------------------------ images


@dataclasses.dataclass(frozen=True, eq=False)
class Scans:
    """One split, with marks and without.

    Attributes:
      annotated: RGB images with marks.
      clean: the same without; None where nobody knows them.
      marks: bool `[N,S,S]`, where the two differ; None where nobody knows.
    """

    annotated: pipeline.InMemory
    clean: pipeline.InMemory | None
    marks: np.ndarray | None


def load(config: ml_collections.ConfigDict, directory: pathlib.Path) -> dict[str, Scans]:
    """The splits of a prepared data set with and without marks, as `overlays.source` says.

    Raises:
      InputError: the data set has no such domains, no pictures, other than 1 or 3 channels, or no organ to be marked.
    """
    read = lambda *domains: runs.Splits(directory, config.data.source_size, domains)
    if config.overlays.source == "world":
        annotated, clean = read("annotated"), read("clean")
        return {split: _paired(annotated[split], clean[split]) for split in SPLITS}
    splits = read(*config.data.domains)
    checks.check_rank(run_config(config, "baseline"), splits.rank)
    stored = {split: _in_colour(splits[split]) for split in SPLITS}
    if config.overlays.source == "burnt_in":
        return {split: Scans(cases, None, None) for split, cases in stored.items()}
    return {split: _paired(_annotate(cases), cases) for split, cases in stored.items()}


def check_batch(config: ml_collections.ConfigDict, scans: Mapping[str, Scans]) -> None:
    """Raises InputError when a training batch is more than all cases."""
    train = scans["train"].annotated
    if config.training.batch_size > len(train):
        raise InputError(
            f"config.training.batch_size is {config.training.batch_size}, {train.name} has {len(train)} cases to train "
            "on; it can be at most that"
        )


def _paired(annotated: pipeline.InMemory, clean: pipeline.InMemory) -> Scans:
    if annotated.patients != clean.patients:
        raise InputError(
            f"{annotated.name}: has other scans than {clean.name}; config.overlays.source 'world' needs every scan "
            "once in each of both domains"
        )
    return Scans(annotated, clean, (annotated.images != clean.images).any(-1))


def _in_colour(cases: pipeline.InMemory) -> pipeline.InMemory:
    if cases.num_channels not in (1, 3):
        raise InputError(f"{cases.name}: has {cases.num_channels} channels; marks are for pictures with 1 or 3")
    images = np.broadcast_to(cases.images, (*cases.images.shape[:3], 3))
    return dataclasses.replace(cases, images=np.ascontiguousarray(images))


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """All images of the study.

    Attributes:
      scans: split -> with and without marks.
      found: split -> the marks that were found on the annotated images, bool `[N,S,S]`.
      network: split -> annotated images with the found marks filled in by the network, uint8 `[N,S,S,3]`; under
        `test true`, test images with the true marks filled in.
      cleaned: split -> annotated images with the found marks removed as `removal.method` says.
      margin: pixels by which marks are widened before they are removed.
    """

    scans: Mapping[str, Scans]
    found: Mapping[str, np.ndarray]
    network: Mapping[str, np.ndarray]
    cleaned: Mapping[str, pipeline.InMemory]
    margin: int

    def of(self, kind: str, split: str) -> pipeline.InMemory | None:
        """The split as `annotated`, `cleaned` or `clean`."""
        if kind == "cleaned":
            return self.cleaned[split]
        return self.scans[split].annotated if kind == "annotated" else self.scans[split].clean

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those of `NETWORKS` that there are."""
        return tuple(kind for kind in NETWORKS.values() if self.of(kind, "test") is not None)

    def marks(self, which: str) -> np.ndarray:
        """The marks of the test images, one of `MASKS`: bool `[N,S,S]`."""
        true = self.scans["test"].marks
        return self.found["test"] if which == "found" or true is None else true

    def restored(self, method: str, which: str, index: int) -> np.ndarray:
        """A test image without its marks, uint8 `[S,S,3]`.

        Args:
          method: one of `overlays.REMOVALS`, or `NOTHING`.
          which: one of `MASKS`.
          index: of the case.
        """
        image = self.scans["test"].annotated.images[index]
        if method == NOTHING:
            return image
        if method == "network":
            return self.network["test" if which == "found" else "test true"][index]
        return overlays.remove(image, self.marks(which)[index], method=method, margin=self.margin, seed=index)


def clean_up(config: ml_collections.ConfigDict, scans: Mapping[str, Scans], workdir: pathlib.Path) -> Images:
    """Finds the marks of all images, trains a network that fills them in, and removes them.

    The network learns from annotated training images alone, as there are no others in clinics; what the marks that
    were found cover is hidden from it.

    Args:
      config: of the study.
      scans: as `load` gives them.
      workdir: of the study; `runs/inpainting.npz` there is written, or read back.
    """
    removal = config.removal
    stored = _kept(workdir / "runs" / "inpainting.npz", lambda: _inpaint(config, scans))
    found = {split: stored[f"{split}_found"] for split in SPLITS}
    network = {name: stored[f"{name}_network"] for name in (*SPLITS, "test true") if f"{name}_network" in stored}
    cleaned = {}
    for split, both in scans.items():
        images = network[split]
        if removal.method != "network":
            pairs = enumerate(zip(both.annotated.images, found[split], strict=True))
            options = {"method": removal.method, "margin": removal.margin}
            images = np.stack([overlays.remove(image, mask, seed=i, **options) for i, (image, mask) in pairs])
        cleaned[split] = dataclasses.replace(both.annotated, images=images, name=f"{both.annotated.name} cleaned")
    return Images(scans, found, network, cleaned, removal.margin)


def _inpaint(config: ml_collections.ConfigDict, scans: Mapping[str, Scans]) -> dict[str, np.ndarray]:
    removal = config.removal
    detect = functools.partial(overlays.detect, gray_share=removal.gray_share)
    found = {split: np.stack([detect(image) for image in both.annotated.images]) for split, both in scans.items()}
    region = functools.partial(overlays.removed_region, method="network", margin=removal.margin)
    names = ("steps", "batch_size", "crop", "features", "learning_rate")
    inpaint = inpainting.train_inpainter(
        jax.random.key(config.seed),
        scans["train"].annotated.images,
        known_overlays=np.stack([region(mask) for mask in found["train"]]),
        **{name: removal[name] for name in names},
    )

    def fill(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        options = {"method": "network", "margin": removal.margin, "inpaint": inpaint}
        return np.stack([overlays.remove(image, mask, **options) for image, mask in zip(images, masks, strict=True)])

    made = {"losses": inpaint.losses}
    for split, both in scans.items():
        made |= {f"{split}_found": found[split], f"{split}_network": fill(both.annotated.images, found[split])}
    if scans["test"].marks is not None:
        made["test true_network"] = fill(scans["test"].annotated.images, scans["test"].marks)
    return made


def _kept(path: pathlib.Path, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What is stored there; made, and stored, where nothing is or it is damaged."""
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile), np.load(path) as stored:
        return dict(stored)
    made = dict(make())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")  # a killed write must not pass for a result
    np.savez_compressed(partial, allow_pickle=False, **made)
    partial.replace(path)
    return made


# ------------------------------------------------------------------------------------------- marks on clean heads

_COLOURS = (255, 255, 0), (255, 210, 70), (130, 255, 130), (255, 255, 255)
_SIDE_IN_MM = 150.0  # of an image whose pixel size is unknown


@dataclasses.dataclass(frozen=True)
class _Marker:
    """How a machine marks one case: style and colours belong to the machine, places to the organ."""

    case: pipeline.Case

    @functools.cached_property
    def _chance(self) -> tuple[str, tuple[int, int, int]]:
        rng = np.random.default_rng(zlib.crc32(self.case["case"].encode()))
        style = overlays.CALIPER_STYLES[rng.integers(3)]
        return style, _COLOURS[rng.choice(len(_COLOURS), p=(0.5, 0.2, 0.1, 0.2))]

    def draw(self, *, other: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The image with calipers and text, this plane's or another's, and what they cover, bool `[S,S]`."""
        look = self._look | {"text": self._text(other), "colour": self._chance[1], "height": self._tall}
        return overlays.draw_head_calipers(self.case["image"], self.case["labels"] > 0, **look)

    def move(self, image: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
        """Puts the calipers on an image, all moved by so many pixels; what is beyond the border is lost."""
        return overlays.draw_calipers(image, self._points + shift, colour=self._chance[1], **self._look)[0]

    def calipers(self, count: int) -> np.ndarray:
        """What the first so many calipers cover, bool `[S,S]`; dots join two when the second appears."""
        style, blank = self._look["style"], np.zeros(self.case["labels"].shape, np.uint8)
        pairs = count - count % 2 if style == "dotted" else count
        covered = overlays.draw_calipers(blank, self._points[:pairs], **self._look)[1]
        single = overlays.draw_calipers(blank, self._points[pairs:count], **self._look | {"style": "plus"})[1]
        return covered | single

    @property
    def text(self) -> np.ndarray:
        """What the text covers and the calipers do not, bool `[S,S]`."""
        return self.draw()[1] & ~self.calipers(4)

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return np.concatenate(overlays.ellipse_axes(self.case["labels"] > 0))

    @property
    def _tall(self) -> int:
        return max(round(0.06 * len(self.case["labels"])), 5)

    @property
    def _look(self) -> dict[str, Any]:
        thickness = max(round(len(self.case["labels"]) / 200), 1)
        return {"style": self._chance[0], "size": self._tall, "thickness": thickness}

    def _text(self, other: bool) -> str:
        spacing = float(np.mean(self.case["spacing"]))
        scale = spacing if math.isfinite(spacing) else _SIDE_IN_MM / len(self.case["labels"])
        text = "HEAD\n" + overlays.head_measurements(self.case["labels"] > 0, scale)
        for own, others in (("HEAD", "ABDOMEN"), ("BPD", "APD"), ("OFD", "TAD"), ("HC", "AC")) if other else ():
            text = text.replace(own, others)
        return text


def _away(labels: np.ndarray) -> tuple[int, int]:
    """A quarter of the side along both axes, from the organ's centre towards the farther borders."""
    side = len(labels)
    centre = np.argwhere(labels > 0).mean(0)
    y, x = np.where(centre < (side - 1) / 2, 1, -1) * (side // 4)
    return int(y), int(x)


def _annotate(cases: pipeline.InMemory) -> pipeline.InMemory:
    for name, labels in zip(cases.cases, cases.labels, strict=True):
        if not labels.any():
            raise InputError(f"{cases.name}: {name} has an empty mask, so there is nothing to mark; leave it out")
    images = np.stack([_Marker(case).draw()[0] for case in cases])
    return dataclasses.replace(cases, images=images, name=f"{cases.name} annotated")


# -------------------------------------------------------------------------------------------------------------- clips


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Frozen frames while they are annotated, and with marks that are not theirs.

    Attributes:
      frames: uint8 `[M,T,S,S,3]`, the first without marks, the last with all.
      labels: uint8 `[M,S,S]`.
      patients: `[M]`.
      changed: one of `CHANGES` -> uint8 `[M,S,S,3]`; empty where the clean images are not known.
    """

    frames: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    changed: Mapping[str, np.ndarray]


def make_clips(config: ml_collections.ConfigDict, images: Images) -> Clips:
    """Clips of new scans of the world, or of the test cases; where clean images are unknown, cleaned ones begin."""
    test = images.scans["test"]
    if test.clean is None:
        frames = np.stack([images.cleaned["test"].images, test.annotated.images], 1)
        return Clips(frames, test.annotated.labels, np.array(test.annotated.patients), {})
    if config.overlays.source == "world":
        made = [_world_clip(config, number) for number in range(config.evaluation.clips)]
        patients = np.arange(len(made))
    else:
        made = [_drawn_clip(case) for case in test.clean]
        patients = np.array(test.clean.patients)
    frames, labels = np.stack([one[0] for one in made]), np.stack([one[1] for one in made])
    changed = {name: np.stack([one[2][name] for one in made]) for name in CHANGES}
    return Clips(frames, labels, patients, changed)


_Made = tuple[Any, Any, dict[str, np.ndarray]]  # frames, labels, changed


def _world_clip(config: ml_collections.ConfigDict, number: int) -> _Made:
    planes, size = ultrasound.PLANES, config.data.source_size
    plane = planes[number % len(planes)]
    evaluation = config.evaluation
    clip = ultrasound.clip(evaluation.clip_seed, number, size, plane=plane, frames=evaluation.clip_frames)
    first, last = clip[0], clip[-1]
    # every other plane in turn
    other = planes[(number + 1 + number // len(planes) % (len(planes) - 1)) % len(planes)]
    changed = {
        "all marks": last,
        "no marks": first,
        "calipers only": ultrasound.annotate(first, name=False, values=False),
        "text only": ultrasound.annotate(first, calipers=0),
        "other plane's text": ultrasound.annotate(first, text_of=other),
        "calipers moved": ultrasound.annotate(first, points=first.points + _away(first.labels)),
    }
    frames = np.stack([frame.image for frame in clip])
    return frames, first.labels, {name: frame.image for name, frame in changed.items()}


def _drawn_clip(case: pipeline.Case) -> _Made:
    """The text at once, then the calipers one by one."""
    marker, clean = _Marker(case), case["image"]
    marked, text = marker.draw()[0], marker.text
    show = lambda covered: np.where(covered[..., None], marked, clean)
    frames = [clean, *(show(text | marker.calipers(count)) for count in range(5))]
    changed = {
        "all marks": marked,
        "no marks": clean,
        "calipers only": show(marker.calipers(4)),
        "text only": show(text),
        "other plane's text": marker.draw(other=True)[0],
        "calipers moved": marker.move(show(text), _away(case["labels"])),
    }
    return np.stack(frames), case["labels"], changed


# ----------------------------------------------------------------------------------------------------------- measures


class _InMemorySplits(runs.Splits):
    """Splits that no data set has on disk."""

    def __init__(self, parts: Mapping[str, pipeline.InMemory]):
        self._loaded = dict(parts)

    def open(self, split: str) -> pipeline.Split:
        raise ValueError(f"{split} is in memory alone; train with config.data.residence 'device'")

    @property
    def num_classes(self) -> int:
        return self["train"].num_classes

    @property
    def rank(self) -> int:
        return 2


def splits_of(images: Images, network: str) -> runs.Splits:
    """The cases that a network is trained and validated on."""
    parts = {split: images.of(NETWORKS[network], split) for split in SPLITS}
    return _InMemorySplits({split: part for split, part in parts.items() if part is not None})


def train_and_measure(
    config: ml_collections.ConfigDict, images: Images, clips: Clips, workdir: pathlib.Path
) -> dict[str, dict[str, np.ndarray]]:
    """Every network of the study, trained and measured, or read back where that was done before."""
    measured = {}
    for network in networks(config):
        run, folder = run_config(config, network), run_folder(workdir, network)
        runs.train(run, splits_of(images, network), folder)
        make = functools.partial(measure, config, run, folder, images, clips)
        measured[network] = _kept(folder / "measures.npz", make)
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


def planes_of_labels(labels: np.ndarray) -> np.ndarray:
    """The class with the most pixels of every label image, `[N]`; 0 where there is none."""
    classes = int(labels.max(initial=1)) + 1
    pixels = np.stack([(labels == k).sum((1, 2)) for k in range(1, classes)], 1)
    return np.where(pixels.any(1), 1 + pixels.argmax(1), 0)


def removal_measures(images: Images, workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """How well marks were found and images restored, or what was measured before; empty without clean images.

    Returns:
      `METHOD MASK REGION METRIC` float `[N]`: mae in gray levels and psnr in dB, over the region `marks` (what they
      cover) and `image` (all of it); `recall` and `precision` of the found pixels, and what share of the marks'
      pixels is `removed` when the found ones are widened, `[N]`.
    """
    if images.scans["test"].clean is None:
        return {}
    return _kept(workdir / "runs" / "removal.npz", lambda: _measure_removal(images))


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


# -------------------------------------------------------------------------------------------------------------- scores


def organ_dice(counts: np.ndarray) -> np.ndarray:
    """Dice of the organs in the label, mean over them; NaN where there is none. Counts `[...,K,3]` -> `[...]`."""
    both, labelled, predicted = np.moveaxis(np.asarray(counts, float)[..., 1:, :], -1, 0)
    dice = np.where(labelled > 0, 2 * both / np.maximum(labelled + predicted, 1), 0)
    there = (labelled > 0).sum(-1)
    return np.where(there > 0, dice.sum(-1) / np.maximum(there, 1), np.nan)


def area_ratio(counts: np.ndarray) -> np.ndarray:
    """Predicted foreground, of any class, over labelled foreground; NaN where there is no label. `[...,K,3]`."""
    labelled, predicted = (np.asarray(counts, float)[..., 1:, i].sum(-1) for i in (1, 2))
    return np.where(labelled > 0, predicted / np.maximum(labelled, 1), np.nan)


def misnamed(counts: np.ndarray) -> np.ndarray:
    """Share of the predicted foreground that has a class which the label does not have; NaN without a prediction."""
    labelled, predicted = (np.asarray(counts, float)[..., 1:, i] for i in (1, 2))
    total = predicted.sum(-1)
    return np.where(total > 0, np.where(labelled > 0, 0, predicted).sum(-1) / np.maximum(total, 1), np.nan)


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dice of two predictions: pixels agree that both give to one and the same organ; NaN where neither has any.

    Args:
      a: class numbers `[...,n,n]`.
      b: such that the shapes broadcast.
    """
    both = ((a == b) & (a > 0)).sum((-2, -1))
    total = (a > 0).sum((-2, -1)) + (b > 0).sum((-2, -1))
    return np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)


# ------------------------------------------------------------------------------------------------------------- tables


@dataclasses.dataclass(frozen=True)
class Tables:
    """Rows of every table; each row says its convention, n, undefined and interval."""

    dice: list[dict[str, Any]]
    drops: list[dict[str, Any]]
    stability: list[dict[str, Any]]
    clip_frames: list[dict[str, Any]]
    saliency: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    detection: list[dict[str, Any]]
    reconstruction: list[dict[str, Any]]
    downstream: list[dict[str, Any]]
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


DICE = "Dice of the organ per case, mean; a case without the organ is undefined and left out"
STABLE = (
    "Dice of the predictions on the first and on the last frame of a clip, mean over clips; pixels agree that have the "
    "same organ; nothing predicted on both is undefined and left out"
)
_INTERVAL = "bootstrap over patients, 95 %"
_PAIRED = f"{_INTERVAL}, paired"
LOSS = "minus Dice on clean images"
AGAINST_NETWORK = "minus Dice on images restored by network"
SHARE, COVER, ENRICHMENT = "share of saliency on marks", "share of image under marks", "enrichment"
EXCESS = "enrichment, with marks minus without"


def tabulate(
    config: ml_collections.ConfigDict,
    images: Images,
    clips: Clips,
    measured: Mapping[str, Measures],
    removal: Measures,
) -> Tables:
    """All numbers of the study as rows."""
    test = images.scans["test"].annotated
    patients, names = np.array(test.patients), test.class_names
    context = _Context(config.evaluation.resamples, patients, _planes(test.labels, names))
    of_clips = _Context(config.evaluation.resamples, clips.patients, _planes(clips.labels, names))
    return Tables(
        dice=[row for name, m in measured.items() for row in _dice_rows(context, images, name, m)],
        drops=[row for name, m in measured.items() for row in _drop_rows(context, images, name, m)],
        stability=_stability_rows(of_clips, measured),
        clip_frames=[row for name, m in measured.items() for row in _frame_rows(of_clips, name, m)],
        saliency=[row for name, m in measured.items() for row in _saliency_rows(context, images, name, m)],
        changes=[row for name, m in measured.items() for row in _change_rows(of_clips, clips, name, m)],
        detection=_detection_rows(context, removal),
        reconstruction=_reconstruction_rows(context, removal),
        downstream=[row for name, m in measured.items() for row in _downstream_rows(context, images, name, m)],
        training=[
            {
                "network": name,
                "trained_on": NETWORKS[name],
                "best_step": int(m["step"]),
                "validation_dice": float(m[f"validation_{config.training.selection}"]),
                "convention": f"{config.training.selection} of the validation set, on images like those trained on",
            }
            for name, m in measured.items()
        ],
        cases=_case_rows(test, context, images, measured, removal),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Context:
    """Over what means are taken."""

    resamples: int
    patients: np.ndarray
    planes: Mapping[str, np.ndarray]  # name -> which cases, the whole set last

    def row(
        self, who: Mapping[str, Any], terms: Sequence[tuple[float, np.ndarray]], convention: str, plane: str = ALL
    ) -> dict[str, Any]:
        """A weighted sum of means over the cases of a plane."""
        where = self.planes[plane]
        chosen = [(weight, np.asarray(values, float)[where]) for weight, values in terms]
        estimate: Estimate = bootstrap_contrast(chosen, self.patients[where], resamples=self.resamples)
        interval = _PAIRED if len(terms) > 1 else _INTERVAL
        return dict(who) | dataclasses.asdict(estimate) | {"interval": interval, "convention": convention}

    def spread(self, values: np.ndarray, plane: str) -> float:
        """Standard deviation over the defined cases of a plane."""
        defined = values[self.planes[plane]]
        defined = defined[~np.isnan(defined)]
        return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def _planes(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    numbers = planes_of_labels(labels)
    there = {class_names[k]: numbers == k for k in np.unique(numbers[numbers > 0])}
    return (there if len(class_names) > 2 else {class_names[1]: numbers == 1}) | {ALL: np.ones(len(numbers), bool)}


def _paper(numbers: Mapping[str, tuple[float, float]], plane: str) -> dict[str, float]:
    mean, spread = numbers.get(plane, (math.nan, math.nan))
    return {"paper_mean": mean / 100, "paper_sd": spread / 100}


def _dice_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    for plane in context.planes:
        for kind in images.kinds:
            values = organ_dice(measures[f"{kind}_counts"])
            who = {"network": network, "plane": plane, "tested_on": kind}
            facts = PAPER_DICE.get(kind, {}) if network == "baseline" else {}
            row = context.row(who, [(1.0, values)], DICE, plane)
            yield row | {"sd": context.spread(values, plane)} | _paper(facts, plane)


def _drop_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    annotated = organ_dice(measures["annotated_counts"])
    for plane in context.planes:
        for kind in images.kinds[1:]:
            terms = [(1.0, annotated), (-1.0, organ_dice(measures[f"{kind}_counts"]))]
            who = {"network": network, "plane": plane, "drop_to": kind}
            fact = math.nan
            if network == "baseline" and kind == "cleaned" and plane in PAPER_DICE["annotated"]:
                fact = (PAPER_DICE["annotated"][plane][0] - PAPER_DICE["cleaned"][plane][0]) / 100
            yield context.row(who, terms, f"{DICE}; annotated minus {kind}", plane) | {"paper_mean": fact}


def _stability_rows(context: _Context, measured: Mapping[str, Measures]) -> list[dict[str, Any]]:
    values = {
        name: agreement(m["clip_predictions"][:, 0], m["clip_predictions"][:, -1]) for name, m in measured.items()
    }
    rows = []
    for plane in context.planes:
        for name, of_network in values.items():
            who = {"network": name, "plane": plane}
            row = context.row(who, [(1.0, of_network)], STABLE, plane)
            rows.append(row | {"sd": context.spread(of_network, plane)} | _paper(PAPER_STABILITY.get(name, {}), plane))
        gain = [(1.0, values["mitigation"]), (-1.0, values["baseline"])]
        before, after = (PAPER_STABILITY[name].get(plane, (math.nan,))[0] for name in ("baseline", "mitigation"))
        row = context.row({"network": MORE_STABLE, "plane": plane}, gain, STABLE, plane)
        rows.append(row | {"paper_mean": (after - before) / 100})
    return rows


MORE_STABLE = "mitigation minus baseline"


def _frame_rows(context: _Context, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    predictions = measures["clip_predictions"]
    quantities = {
        "Dice with the last frame": (agreement(predictions, predictions[:, -1:]), STABLE),
        "Dice with the annotation": (organ_dice(measures["clip_counts"]), DICE),
    }
    for plane in context.planes:
        for quantity, (values, convention) in quantities.items():
            for frame in range(values.shape[1]):
                who = {"network": network, "plane": plane, "quantity": quantity, "frame": frame}
                yield context.row(who, [(1.0, values[:, frame])], convention.replace("first", "given"), plane)


def _saliency_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    cover, without = measures["cover"].astype(float), images.kinds[-1]
    shares = {kind: measures[f"share_{kind}"].astype(float) for kind in ("annotated", without)}
    ratio = {kind: share / np.where(cover > 0, cover, np.nan) for kind, share in shares.items()}
    said = "Grad-CAM for the organ's own class; images on which it is not predicted are undefined and left out"
    for kind in shares:
        for quantity, values in ((SHARE, shares[kind]), (COVER, cover), (ENRICHMENT, ratio[kind])):
            who = {"network": network, "tested_on": kind, "quantity": quantity}
            yield context.row(who, [(1.0, values)], f"{said}; enrichment: share over share per case, mean")
    who = {"network": network, "tested_on": f"annotated, {without}", "quantity": EXCESS}
    yield context.row(who, [(1.0, ratio["annotated"]), (-1.0, ratio[without])], f"{said}; at the same places")


def _change_rows(context: _Context, clips: Clips, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    quantities = {
        "Dice": (organ_dice, DICE),
        "area": (area_ratio, "predicted area, of any organ, over annotated area, mean over cases"),
        "misnamed": (misnamed, "share of the predicted area with an organ that is not there, mean over cases"),
    }
    for change in clips.changed:
        for quantity, (of_counts, convention) in quantities.items():
            values, usual = (of_counts(measures[f"{name}_counts"]) for name in (change, "all marks"))
            who = {"network": network, "marks": change, "quantity": quantity}
            yield context.row(who, [(1.0, values)], convention)
            if change != "all marks":
                who = who | {"quantity": f"{quantity}, minus that with all marks"}
                yield context.row(who, [(1.0, values), (-1.0, usual)], convention)


def _detection_rows(context: _Context, removal: Measures) -> list[dict[str, Any]]:
    said = {
        "recall": "share of the marks' pixels that were found, mean over images; without marks undefined",
        "removed": "the same with what was found widened by the margin, which is what removal may change",
        "precision": "share of found pixels that are marks, mean over images; where nothing was found undefined; the "
        "machine's own legend counts as no mark",
    }
    return [context.row({"quantity": q}, [(1.0, removal[q])], text) for q, text in said.items() if q in removal]


def _reconstruction_rows(context: _Context, removal: Measures) -> list[dict[str, Any]]:
    units = {"mae": "mean absolute error in gray levels", "psnr": "peak signal-to-noise ratio in dB, of the peak 255"}
    places = {"marks": "over what the marks cover", "image": "over the whole image"}
    rows = []
    for key, values in removal.items():
        method, *rest = key.split(" ")
        if rest:
            which, region, metric = rest
            who = {"method": method, "mask": which, "region": region, "metric": metric}
            rows.append(context.row(who, [(1.0, values)], f"{units[metric]}, {places[region]}, mean over images"))
    return rows


def _downstream_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    if images.scans["test"].clean is None:
        return
    clean = organ_dice(measures["clean_counts"])
    for method in (NOTHING, *overlays.REMOVALS):
        for which in MASKS if method != NOTHING else MASKS[:1]:
            key = "annotated" if method == NOTHING else f"{method} {which}"
            values = organ_dice(measures[f"{key}_counts"])
            who = {"network": network, "method": method, "mask": which}
            yield context.row(who | {"quantity": "Dice"}, [(1.0, values)], DICE)
            yield context.row(who | {"quantity": LOSS}, [(1.0, values), (-1.0, clean)], DICE)
            if method not in (NOTHING, "network"):
                theirs = organ_dice(measures[f"network {which}_counts"])
                yield context.row(who | {"quantity": AGAINST_NETWORK}, [(1.0, values), (-1.0, theirs)], DICE)


def _case_rows(
    test: pipeline.InMemory,
    context: _Context,
    images: Images,
    measured: Mapping[str, Measures],
    removal: Measures,
) -> list[dict[str, Any]]:
    columns = {
        f"{name} on {kind}": organ_dice(m[f"{kind}_counts"]) for name, m in measured.items() for kind in images.kinds
    }
    columns |= {f"{name}, saliency on marks": m["share_annotated"] for name, m in measured.items()}
    columns |= {"image under marks": measured["baseline"]["cover"]} | dict(removal)
    planes = {
        i: plane for plane, where in context.planes.items() if plane != ALL for i in np.flatnonzero(where).tolist()
    }
    return [
        {"case": test.cases[i], "patient": test.patients[i], "plane": planes.get(i, "")}
        | {name: float(values[i]) for name, values in columns.items()}
        for i in range(len(test))
    ]


# ------------------------------------------------------------------------------------------------------------ verdict


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer to "does the network segment by the marks", and to "which removal restores what a network needs"."""

    verdict: str  # yes, partly, no, unclear
    sentence: str
    removal: str


NEGLIGIBLE = 0.02  # of Dice; the smallest drop that the paper calls one (femur, Table 1)


def verdict(results: Tables) -> Verdict:
    """Reads the answers off the tables.

    The baseline's drop from annotated to cleaned test images, over all planes, decides. yes: its whole interval lies
    above 0.02, and on images that never had marks, where they are known, there is a drop too (its interval lies above
    0), so that it is not what removal left behind. partly: above 0, but not all of that. no: the whole interval lies
    below 0.02. unclear: anything else.
    """
    drops = {(row["network"], row["drop_to"]): row for row in results.drops if row["plane"] == ALL}
    dice = {(row["network"], row["tested_on"]): row for row in results.dice if row["plane"] == ALL}
    drop, truly = drops["baseline", "cleaned"], drops.get(("baseline", "clean"))
    stable = {row["network"]: row for row in results.stability if row["plane"] == ALL}
    facts = (
        f"with calipers and text the baseline reaches a Dice of {text(dice['baseline', 'annotated'])}, on the same "
        f"images with the marks removed {text(dice['baseline', 'cleaned'])}: a drop of {text(drop)}"
        + (f", and of {text(truly)} to images that never had marks" if truly else "")
        + f"; while a frozen frame is annotated, its predictions before and after agree to {text(stable['baseline'])}, "
        f"those of the mitigated network to {text(stable['mitigation'])} ({drop['patients']} patients, 95 % intervals)."
    )
    answer, words = _decide(drop, truly)
    return Verdict(answer, f"{words}: {facts}", removal_sentence(results))


def _decide(drop: Mapping[str, Any], truly: Mapping[str, Any] | None) -> tuple[str, str]:
    if math.isnan(drop["mean"]) or math.isnan(drop["low"]):
        return "unclear", "No test case decides"
    if drop["high"] < NEGLIGIBLE:
        return "no", "The baseline segments as well without the marks"
    if drop["low"] <= 0:
        return "unclear", "The intervals are too wide to tell"
    if drop["low"] > NEGLIGIBLE and (truly is None or truly["low"] > 0):
        return "yes", "The baseline leans on the marks"
    return "partly", "The baseline loses a little without the marks, or loses it to the removal alone"


def text(row: Mapping[str, Any], digits: int = 2) -> str:
    """Mean and interval of a row."""
    return "{mean:z.{d}f} [{low:z.{d}f}, {high:z.{d}f}]".format(d=digits, **row)


def removal_sentence(results: Tables) -> str:
    """Which way of removing found marks costs the reference least, and which cannot be told from it."""
    rows = {
        (row["method"], row["quantity"]): row
        for row in results.downstream
        if row["network"] == "reference" and row["mask"] == "found" and row["method"] != NOTHING
    }
    lost = {method: row for (method, quantity), row in rows.items() if quantity == LOSS}
    if not lost:
        return "What is below the marks is not known, so removals cannot be compared."
    order = sorted(lost, key=lambda method: -lost[method]["mean"])
    mae = {
        row["method"]: row
        for row in results.reconstruction
        if (row["mask"], row["region"], row["metric"]) == ("found", "marks", "mae")
    }
    nearest = min((method for method in mae if method != NOTHING), key=lambda method: mae[method]["mean"])
    against = [rows[method, AGAINST_NETWORK] for method in order if method != "network"]
    alike = [row["method"] for row in against if row["low"] <= 0 <= row["high"]]
    worse = [row["method"] for row in against if row["high"] < 0]
    better = [row["method"] for row in against if row["low"] > 0]
    words = lambda methods: ", ".join(name.replace("_", " ") for name in methods)
    compared = [f"{words(group)} {what}" for group, what in (
        (better, "better than the network's filling"), (alike, "not distinguishable from it"), (worse, "worse than it")
    ) if group]  # fmt: skip
    return (
        "For the network trained on clean images, restoring found marks instead changes the Dice by "
        + "; ".join(f"{words([method])} {text(lost[method], 3)}" for method in order)
        + f". Paired: {'; '.join(compared)}. Nearest to the clean pixels under the marks is {words([nearest])} "
        f"(mean absolute error {text(mae[nearest], 1)} gray levels)."
    )
