"""The worlds that networks are trained on, with the cue and, as a twin, without it.

kind      planted                                       twin
border    lesions in the middle, zero padding           the same images moved, lesions anywhere
overlay   scans with calipers and text of the organ,    the same scans without marks
          moved, so that they lie anywhere
"""

from collections.abc import Sequence

import numpy as np

from jaxseg.data import pipeline
from jaxseg.data.synthetic import dermoscopy, ultrasound
from jaxseg.studies.base import SPLITS
from jaxseg.studies.planted_shortcuts.settings import ARMS, Settings
from jaxseg.training import runs

_CLASSES = {"border": ("background", "lesion"), "overlay": ("background", "head")}
_DERMOSCOPY, _ULTRASOUND = 1000, 3000  # added to the seed, so that no data set has the same images
Picture = tuple[np.ndarray, np.ndarray]  # image and labels


def draw(settings: Settings, kind: str, seed: int) -> dict[str, runs.InMemorySplits]:
    """Arm -> the world of a kind and a seed, all of the same scenes."""
    parts: dict[str, dict[str, pipeline.InMemory]] = {arm: {} for arm in ARMS}
    first = 0
    for split in SPLITS:
        scenes = range(first, first + getattr(settings.worlds.of[kind], split))
        pairs = [_scene(settings, kind, seed, scene) for scene in scenes]
        for arm, pictures in zip(ARMS, zip(*pairs, strict=True), strict=True):
            parts[arm][split] = _in_memory(f"{kind} {arm} {seed}/{split}", _CLASSES[kind], pictures, scenes)
        first = scenes.stop
    return {arm: runs.InMemorySplits(of_arm) for arm, of_arm in parts.items()}


def _scene(settings: Settings, kind: str, seed: int, scene: int) -> tuple[Picture, Picture]:
    """One scene with the cue and without."""
    size = settings.run.data.image_size
    moved = lambda image, labels: place_anywhere(np.random.default_rng([seed, scene]), image, labels)
    if kind == "border":
        centred = dermoscopy.render(_DERMOSCOPY + seed, scene, size)
        return centred, moved(*centred)
    difficulty = settings.worlds.difficulty
    frame = ultrasound.render(_ULTRASOUND + seed, scene, size, plane="head", difficulty=difficulty)
    labels = (frame.labels > 0).astype(np.uint8)
    # left where they are, in the middle, heads would plant the other shortcut too
    return moved(frame.image, labels), moved(frame.clean, labels)


def place_anywhere(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> Picture:
    """The image uint8 `[S,S,C]` moved so that the object's centre lies anywhere in it, mirrored where there is none.

    The place is uniform over the image. With empty labels uint8 `[S,S]` the image's own centre is moved.
    """
    size = len(labels)
    pixels = np.argwhere(labels)
    centre = pixels.mean(0) if len(pixels) else np.full(2, (size - 1) / 2)
    for axis, shift in enumerate(np.round(rng.uniform(0, size, 2) - 0.5 - centre).astype(int)):
        wanted = np.mod(np.arange(size) - shift, 2 * size)
        wanted = np.where(wanted < size, wanted, 2 * size - 1 - wanted)
        image, labels = image.take(wanted, axis), labels.take(wanted, axis)
    return image, labels


def _in_memory(name: str, classes: tuple[str, ...], pictures: Sequence[Picture], scenes: range) -> pipeline.InMemory:
    """Pictures as a split, every case a patient of its own."""
    images, labels = (np.ascontiguousarray(np.stack(arrays)) for arrays in zip(*pictures, strict=True))
    names = tuple(f"scene{scene:05d}" for scene in scenes)
    return pipeline.InMemory(name, classes, images, labels, names, names, *pipeline.nowhere(len(names)))
