"""The images of the overlay study: with marks and without, cleaned, and restored (Lin, Weng et al. 2024, section 3).

Marks are part of a synthetic world, drawn on clean heads, or burnt in.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from jaxseg.data import inputs, overlays, pipeline
from jaxseg.errors import InputError
from jaxseg.results.stored import kept
from jaxseg.studies.base import SPLITS, Data
from jaxseg.studies.overlay_shortcut.marker import Marker
from jaxseg.studies.overlay_shortcut.settings import Removal, Settings
from jaxseg.training import checks, inpainting, runs

KINDS = ("annotated", "cleaned", "clean")  # of images: with marks; with found marks filled in; before any were drawn
MASKS = ("true", "found")  # the marks as they were drawn, and as `overlays.detect` finds them
NOTHING = "none"  # the removal that removes nothing
# Method and marks of the test images that are compared: as they are, and restored.
RESTORED = ((NOTHING, "true"), *itertools.product(overlays.REMOVALS, MASKS))


def in_words(method: str) -> str:
    """A way of removal, as pages and figures call it."""
    return "nothing removed" if method == NOTHING else method.replace("_", " ")


@dataclasses.dataclass(frozen=True, eq=False)
class Scans:
    """One split, with marks and without."""

    annotated: pipeline.InMemory  # RGB images with marks
    clean: pipeline.InMemory | None  # the same without; None where they are unknown
    marks: np.ndarray | None  # bool `[N,S,S]`, where the two differ; None where that is unknown


ScansOfSplits = Mapping[str, Scans]


def gather(settings: Settings, data: Data) -> ScansOfSplits:
    """The scans of the study's data set; raises InputError as `load`, or where they are fewer than a batch."""
    scans = load(settings, data.prepare(settings.run.data.dataset))
    check_batch(settings.run.training.batch_size, scans)
    return scans


def load(settings: Settings, directory: pathlib.Path) -> dict[str, Scans]:
    """The splits of a prepared data set with and without marks, as `settings.source` says.

    Raises:
      InputError: the data set has no such domains, no pictures, other than 1 or 3 channels, or no organ to mark.
    """
    read = lambda *domains: runs.Splits(directory, inputs.of_config(settings.run), domains)
    if settings.source == "world":
        annotated, clean = read("annotated"), read("clean")
        return {split: _paired(annotated[split], clean[split]) for split in SPLITS}
    splits = read(*settings.run.data.domains)
    checks.check_rank(settings.run, splits.rank)
    stored = {split: _in_colour(splits[split]) for split in SPLITS}
    if not settings.clean_known:
        return {split: Scans(cases, None, None) for split, cases in stored.items()}
    return {split: _paired(_annotate(cases), cases) for split, cases in stored.items()}


def check_batch(batch_size: int, scans: ScansOfSplits) -> None:
    """Raises InputError when a training batch is more than all cases."""
    train = scans["train"].annotated
    if batch_size > len(train):
        raise InputError(
            f"config.training.batch_size is {batch_size}, {train.name} has {len(train)} cases to train on; it can be "
            "at most that"
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
    """All images of the study."""

    scans: ScansOfSplits  # split -> with and without marks
    found: Mapping[str, np.ndarray]  # split -> the marks that were detected on the annotated images, bool `[N,S,S]`
    # split -> annotated images with the found marks filled in by the network, uint8 `[N,S,S,3]`; under `test true`,
    # test images with the true marks filled in
    network: Mapping[str, np.ndarray]
    # split -> annotated images with the found marks removed as `removal.method` says
    cleaned: Mapping[str, pipeline.InMemory]
    margin: int  # pixels by which marks are widened before they are removed

    def of(self, kind: str, split: str) -> pipeline.InMemory:
        """The split as one of `kinds`."""
        if kind == "cleaned":
            return self.cleaned[split]
        cases = self.scans[split].annotated if kind == "annotated" else self.scans[split].clean
        assert cases is not None
        return cases

    @property
    def clean_known(self) -> bool:
        """Whether it is known what is below the marks."""
        return self.scans["test"].clean is not None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those of `KINDS` that there are."""
        return tuple(kind for kind in KINDS if self.clean_known or kind != "clean")

    @property
    def unmarked(self) -> str:
        """The one of `kinds` that comes nearest to images without marks."""
        return self.kinds[-1]

    def marks(self, which: str) -> np.ndarray:
        """The marks of the test images, one of `MASKS`: bool `[N,S,S]`."""
        true = self.scans["test"].marks
        return self.found["test"] if which == "found" or true is None else true

    def restored(self, method: str, which: str, index: int) -> np.ndarray:
        """A test image uint8 `[S,S,3]` without its marks (`MASKS`), by a method of `overlays.REMOVALS` or `NOTHING`."""
        image = self.scans["test"].annotated.images[index]
        if method == NOTHING:
            return image
        if method == "network":
            return self.network["test" if which == "found" else "test true"][index]
        return overlays.remove(image, self.marks(which)[index], method=method, margin=self.margin, seed=index)


def clean_up(settings: Settings, scans: ScansOfSplits, workdir: pathlib.Path) -> Images:
    """Finds the marks of all images, trains a network that fills them in, and removes them.

    The network learns from annotated training images alone, as clinics have no others; what is under the detected marks
    is hidden from it. `runs/inpainting.npz` in the work directory is written, or read back.
    """
    removal = settings.removal
    stored = kept(workdir / "runs" / "inpainting.npz", lambda: _inpaint(removal, settings.run.seed, scans))
    found = {split: stored[f"{split}_found"] for split in SPLITS}
    network = {name: stored[f"{name}_network"] for name in (*SPLITS, "test true") if f"{name}_network" in stored}
    cleaned = {}
    for split, both in scans.items():
        images = network[split]
        if removal.method != "network":
            remove = functools.partial(overlays.remove, method=removal.method, margin=removal.margin)
            pairs = enumerate(zip(both.annotated.images, found[split], strict=True))
            images = np.stack([remove(image, mask, seed=i) for i, (image, mask) in pairs])
        cleaned[split] = dataclasses.replace(both.annotated, images=images, name=f"{both.annotated.name} cleaned")
    return Images(scans, found, network, cleaned, removal.margin)


def _inpaint(removal: Removal, seed: int, scans: ScansOfSplits) -> dict[str, np.ndarray]:
    detect = functools.partial(overlays.detect, gray_share=removal.gray_share)
    found = {split: np.stack([detect(image) for image in both.annotated.images]) for split, both in scans.items()}
    region = functools.partial(overlays.removed_region, method="network", margin=removal.margin)
    inpaint = inpainting.train_inpainter(
        jax.random.key(seed),
        scans["train"].annotated.images,
        known_overlays=np.stack([region(mask) for mask in found["train"]]),
        steps=removal.steps,
        batch_size=removal.batch_size,
        crop=removal.crop,
        features=removal.features,
        learning_rate=removal.learning_rate,
    )

    remove = functools.partial(overlays.remove, method="network", margin=removal.margin, inpaint=inpaint)
    fill = lambda images, masks: np.stack([remove(image, mask) for image, mask in zip(images, masks, strict=True)])
    made = {"losses": inpaint.losses}
    for split, both in scans.items():
        made |= {f"{split}_found": found[split], f"{split}_network": fill(both.annotated.images, found[split])}
    if scans["test"].marks is not None:
        made["test true_network"] = fill(scans["test"].annotated.images, scans["test"].marks)
    return made


def _annotate(cases: pipeline.InMemory) -> pipeline.InMemory:
    for name, labels in zip(cases.cases, cases.labels, strict=True):
        if not labels.any():
            raise InputError(f"{cases.name}: {name} has an empty mask, so there is nothing to mark; leave it out")
    images = np.stack([Marker(case).draw()[0] for case in cases])
    return dataclasses.replace(cases, images=images, name=f"{cases.name} annotated")


def planes_of_labels(labels: np.ndarray) -> np.ndarray:
    """The class with the most pixels of every label image, `[N]`; 0 where there is none."""
    classes = int(labels.max(initial=1)) + 1
    pixels = np.stack([(labels == k).sum((1, 2)) for k in range(1, classes)], 1)
    return np.where(pixels.any(1), 1 + pixels.argmax(1), 0)
