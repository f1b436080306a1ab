"""The worlds that networks are trained on, with a cue that tells of the object and, as a twin, with one that does not.

| kind            | planted: the cue                                   | twin: the same cue, harmless              |
| --------------- | -------------------------------------------------- | ----------------------------------------- |
| `border`        | skin lesions in the middle, far from padded zeros  | the same images moved: lesions anywhere   |
| `calipers`      | coloured calipers at the ends of an organ          | the same calipers anywhere                |
| `gray_calipers` | white and gray ones                                | the same                                  |
| `text`          | its name and measure beside it, of the same colours | the same text anywhere                    |
| `scanner`       | all scans of training are of one machine; half of  | half of all scans are of the lighter one  |
|                 | the test scans are of a lighter one                |                                           |

Scans are moved, so that organs lie anywhere: left in the middle they would plant the other shortcut too.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxseg.data import overlays, pipeline
from jaxseg.data.synthetic import dermoscopy, ultrasound
from jaxseg.studies.base import SPLITS
from jaxseg.studies.planted_shortcuts.settings import ARMS, Settings
from jaxseg.training import runs

_DERMOSCOPY, _ULTRASOUND = 1000, 3000  # added to the seed, so that no data set has the same images
_MARKS = 1  # stream of random numbers, beside that of the places
_COLOURED = (255, 255, 0), (255, 210, 70), (130, 255, 130)
_GRAY = (255, 255, 255), (200, 200, 200), (150, 150, 150)
_NAMES = {"head": "HC", "abdomen": "AC"}  # of the circumference, as a machine prints it
_MACHINES = "machine A", "machine B"
_GAMMA, _BLACK = 0.5, 60  # of the second machine
Colours = Sequence[tuple[int, int, int]]


class Picture(NamedTuple):
    """Image uint8 `[S,S,3]`, labels uint8 `[S,S]`, and where it is from."""

    image: np.ndarray
    labels: np.ndarray
    domain: str = ""


Scene = Callable[[Settings, int, int], tuple[Picture, Picture]]  # settings, seed, number -> planted, twin


def draw(settings: Settings, kind: str, seed: int) -> dict[str, runs.InMemorySplits]:
    """Arm -> the world of a kind and a seed, all of the same scenes."""
    parts: dict[str, dict[str, pipeline.InMemory]] = {arm: {} for arm in ARMS}
    first = 0
    for split in SPLITS:
        scenes = range(first, first + getattr(settings.world, split))
        pairs = [_KINDS[kind](settings, seed, scene) for scene in scenes]
        for arm, pictures in zip(ARMS, zip(*pairs, strict=True), strict=True):
            parts[arm][split] = _in_memory(f"{kind} {arm} {seed}/{split}", pictures, scenes)
        first = scenes.stop
    return {arm: runs.InMemorySplits(of_arm) for arm, of_arm in parts.items()}


def _border(settings: Settings, seed: int, scene: int) -> tuple[Picture, Picture]:
    centred = Picture(*dermoscopy.render(_DERMOSCOPY + seed, scene, settings.run.data.image_size))
    return centred, _moved(centred, seed, scene)


def _calipers(settings: Settings, seed: int, scene: int, *, colours: Colours) -> tuple[Picture, Picture]:
    frame, rng = _scan(settings, seed, scene), np.random.default_rng([seed, scene, _MARKS])
    size = len(frame.labels)
    look: dict[str, Any] = {
        "style": overlays.CALIPER_STYLES[rng.integers(len(overlays.CALIPER_STYLES))],
        "colour": colours[int(rng.integers(len(colours)))],
        "size": max(round(0.06 * size), 5),
    }
    anywhere = frame.points - frame.points.mean(0) + rng.uniform(0, size, 2)
    drawn = (overlays.draw_calipers(frame.clean, at, **look)[0] for at in (frame.points, anywhere))
    return _both(frame, drawn, seed, scene)


def _text(settings: Settings, seed: int, scene: int) -> tuple[Picture, Picture]:
    frame, rng = _scan(settings, seed, scene), np.random.default_rng([seed, scene, _MARKS])
    size, colours = len(frame.labels), _COLOURED + _GRAY
    height, colour = max(round(0.2 * size), 5), colours[int(rng.integers(len(colours)))]
    (top, left), (bottom, right) = (end(np.argwhere(frame.labels), axis=0) for end in (np.min, np.max))
    gap, wide = 0.06 * size, 1.5 * height  # from the organ; of two letters
    middle = (top + bottom - height) / 2
    beside = np.array([[middle, right + gap], [middle, left - gap - wide]])
    anywhere = rng.uniform(-height / 2, size - height / 2, (2, 2))
    return _both(frame, (_written(frame, at, colour=colour, height=height) for at in (beside, anywhere)), seed, scene)


def _written(frame: ultrasound.Frame, places: np.ndarray, **look: Any) -> np.ndarray:
    """The scan with name and measure of its organ at two places."""
    image, measure = frame.clean, np.hypot(*(frame.points[1] - frame.points[0])) * frame.spacing
    for text, place in zip((_NAMES[frame.plane], f"{10 * measure:.0f}"[:2]), places, strict=True):
        image, _ = overlays.draw_text(image, text, tuple(place), **look)
    return image


def _scanner(settings: Settings, seed: int, scene: int) -> tuple[Picture, Picture]:
    frame, rng = _scan(settings, seed, scene), np.random.default_rng([seed, scene, _MARKS])
    lighter = np.rint(_BLACK + (255 - _BLACK) * (frame.clean / 255) ** _GAMMA).astype(np.uint8)
    either, tested = rng.integers(2), scene >= settings.world.train + settings.world.validation
    machines = either * tested, either
    pictures = _both(frame, ((frame.clean, lighter)[one] for one in machines), seed, scene)
    planted, twin = (one._replace(domain=_MACHINES[of]) for one, of in zip(pictures, machines, strict=True))
    return planted, twin


def _scan(settings: Settings, seed: int, scene: int) -> ultrasound.Frame:
    return _rendered(settings.run.data.image_size, settings.world.difficulty, seed, scene)


@functools.lru_cache(maxsize=2000)  # of one seed: several kinds have the same scenes
def _rendered(size: int, difficulty: float, seed: int, scene: int) -> ultrasound.Frame:
    """A scan without marks; heads and abdomens take turns."""
    plane, seed = ultrasound.PLANES[scene % 2], _ULTRASOUND + seed
    return ultrasound.render(seed, scene, size, plane=plane, calipers=False, text=False, difficulty=difficulty)


def _both(frame: ultrasound.Frame, images: Iterable[np.ndarray], seed: int, scene: int) -> tuple[Picture, Picture]:
    """Both images of a scan, moved in the same way with what is drawn on them."""
    labels = (frame.labels > 0).astype(np.uint8)
    planted, twin = (_moved(Picture(image, labels), seed, scene) for image in images)
    return planted, twin


def _moved(picture: Picture, seed: int, scene: int) -> Picture:
    return place_anywhere(np.random.default_rng([seed, scene]), picture.image, picture.labels)


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
    return Picture(image, labels)


def _in_memory(name: str, pictures: Sequence[Picture], scenes: range) -> pipeline.InMemory:
    """Pictures as a split, every case a patient of its own."""
    images, labels, domains = zip(*pictures, strict=True)
    stacked, masks = (np.ascontiguousarray(np.stack(of)) for of in (images, labels))
    names = tuple(f"scene{scene:05d}" for scene in scenes)
    _, spacings = pipeline.nowhere(len(names))
    return pipeline.InMemory(name, ("background", "object"), stacked, masks, names, names, domains, spacings)


_KINDS: dict[str, Scene] = {
    "border": _border,
    "calipers": functools.partial(_calipers, colours=_COLOURED),
    "gray_calipers": functools.partial(_calipers, colours=_GRAY),
    "text": _text,
    "scanner": _scanner,
}
