"""The images of the overlay study: with marks and without, cleaned, restored, and as clips that are being annotated.

Lin, Weng et al. 2024, section 3. Marks are part of a drawn world, drawn on clean heads, or burnt in.
"""

import dataclasses
import functools
import math
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxseg.data import overlays, pipeline
from jaxseg.data.synthetic import ultrasound
from jaxseg.errors import InputError
from jaxseg.results.stored import kept
from jaxseg.training import checks, inpainting, runs

KINDS = ("annotated", "cleaned", "clean")  # of images: with marks; with found marks filled in; before any were drawn
SOURCES = ("world", "drawn", "burnt_in")
SPLITS = ("train", "validation", "test")
MASKS = ("true", "found")  # the marks as they were drawn, and as `overlays.detect` finds them
NOTHING = "none"  # the removal that removes nothing
CHANGES = ("all marks", "no marks", "calipers only", "text only", "other plane's text", "calipers moved")


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
    checks.check_rank(config, splits.rank)
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
        """Those of `KINDS` that there are."""
        return tuple(kind for kind in KINDS if self.of(kind, "test") is not None)

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
    stored = kept(workdir / "runs" / "inpainting.npz", lambda: _inpaint(config, scans))
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


def planes_of_labels(labels: np.ndarray) -> np.ndarray:
    """The class with the most pixels of every label image, `[N]`; 0 where there is none."""
    classes = int(labels.max(initial=1)) + 1
    pixels = np.stack([(labels == k).sum((1, 2)) for k in range(1, classes)], 1)
    return np.where(pixels.any(1), 1 + pixels.argmax(1), 0)
