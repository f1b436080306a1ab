"""Functions of which it is known whether they use a shortcut, and drawn images to ask them about.

    python -m tests.audit.closed_forms                  # audits all, and prints the table of docs/audit.md
    python -m tests.audit.closed_forms anywhere several # of some worlds

Every function is of one uint8 image `[n,n,3]`, bool `[n,n]`, and made for discs of gray level 150 on 60. What happens
at the image's border is part of the truth. `scipy.ndimage` takes what lies beyond for background in all binary
morphology: an erosion eats objects from the border inwards. An opening puts that back with its dilation. A closing does
not, as what its dilation adds beyond the border is cut off before the erosion: with SciPy's defaults it loses objects
at the border. The closing that does not is done in a wider image. A median filter mirrors the image.
"""

import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from scipy import ndimage

from configs import audit as audit_config
from jaxseg.audit import findings
from jaxseg.audit import run as audits
from jaxseg.audit.subject import Subject
from jaxseg.data import overlays, pipeline
from jaxseg.networks import Network, from_function

PROBES = ("translation", "overlays", "gray levels")
OBJECT, BACKGROUND, LEVEL = 150, 60, 110  # gray levels, and the threshold between them
YELLOW, WHITE = (255, 255, 0), (255, 255, 255)

# ------------------------------------------------------------------------------------------------------------ worlds


def _disc(size: int, centre: Sequence[float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def _one_disc(random: np.random.Generator, size: int, *, anywhere: bool) -> np.ndarray:
    radius = random.uniform(0.11, 0.2) * size
    centre = random.uniform(0, size, 2) if anywhere else size * random.uniform(0.45, 0.55, 2)
    return _disc(size, centre, radius)


def _several_discs(random: np.random.Generator, size: int) -> np.ndarray:
    """Two to five, apart from each other, the largest more than twice as wide as the smallest."""
    count = random.integers(2, 6)
    there, near = np.zeros((size, size), bool), np.zeros((size, size), bool)
    for radius in np.linspace(0.17, 0.07, count) * size:
        for centre in random.uniform(0.08 * size, 0.92 * size, (200, 2)):
            if not (near & (one := _disc(size, centre, radius))).any():
                there |= one
                near |= _disc(size, centre, radius + 3)
                break
    return there


def drawn(world: str, count: int = 30, size: int = 64, seed: int = 0) -> pipeline.InMemory:
    """Bright discs in dark images, a patient each.

    Args:
      world: one of `WORLDS`.
      count: of images.
      size: of an image's sides.
      seed: of all.
    """
    random = np.random.default_rng(seed)
    images, labels = [], []
    for i in range(count):
        several = world == "several"
        there = _several_discs(random, size) if several else _one_disc(random, size, anywhere=world == "anywhere")
        gray = np.where(there, OBJECT, BACKGROUND) + random.normal(0, 8, there.shape)
        if world == "machines" and i % 2:
            gray += 75  # all of it is above the threshold
        image = np.clip(gray, 0, 255).astype(np.uint8)[..., None].repeat(3, -1)
        if world == "calipers":
            ends = np.concatenate(overlays.ellipse_axes(there))
            image = overlays.draw_calipers(image, ends, size=max(size // 12, 3), colour=YELLOW)[0]
        images.append(image)
        labels.append(there.astype(np.uint8))
    nowhere, spacings = pipeline.nowhere(count)
    domains = tuple("AB"[i % 2] for i in range(count)) if world == "machines" else nowhere
    names = tuple(f"case{i}" for i in range(count))
    classes = ("background", "disc")
    return pipeline.InMemory(world, classes, np.stack(images), np.stack(labels), names, names, domains, spacings)


WORLDS = {
    "middle": "discs in the middle",
    "anywhere": "anywhere",
    "calipers": "with yellow calipers at their ends",
    "machines": "of two machines, the second brighter",
    "several": "two to five discs",
}

# --------------------------------------------------------------------------------------------------------- functions


def _gray(image: np.ndarray) -> np.ndarray:
    return image.mean(-1)


def threshold(image: np.ndarray) -> np.ndarray:
    """What is bright."""
    return _gray(image) > LEVEL


def _hull(there: np.ndarray) -> np.ndarray:
    places = np.argwhere(there)[:, ::-1].astype(np.int32)
    if len(places) < 3:
        return there
    return cv2.fillConvexPoly(np.zeros(there.shape, np.uint8), cv2.convexHull(places), 1) > 0


def _parts(there: np.ndarray, keep: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Those of the connected parts `[P,n,n]` that are to be kept, bool `[P]`, as their sizes `[P]` and they are."""
    numbered, count = ndimage.label(there)
    if not count:
        return there
    parts = numbered == np.arange(1, count + 1)[:, None, None]
    return parts[keep(parts, parts.sum((1, 2)))].any(0)


def _only(values: np.ndarray) -> np.ndarray:
    """The first of the largest."""
    return np.arange(len(values)) == np.argmax(values)


def _touches(parts: np.ndarray) -> np.ndarray:
    return parts[:, [0, -1]].any((1, 2)) | parts[..., [0, -1]].any((1, 2))


def _is_central(parts: np.ndarray) -> np.ndarray:
    size = parts.shape[-1]
    centres = np.array([np.argwhere(one).mean(0) for one in parts]) / size
    return (abs(centres - 0.5) < 0.25).all(-1)


def _opened(image: np.ndarray) -> np.ndarray:
    return ndimage.binary_fill_holes(ndimage.binary_opening(threshold(image), iterations=_at_least(image, 32)))


def _closed(image: np.ndarray) -> np.ndarray:
    by = _at_least(image, 8)
    wide = np.pad(threshold(image), by + 1)
    return ndimage.binary_closing(wide, iterations=by)[by + 1 : -by - 1, by + 1 : -by - 1]


def _at_least(image: np.ndarray, share: int) -> int:
    return max(len(image) // share, 1)


def _median(image: np.ndarray) -> np.ndarray:
    """Without strokes and noise, levels."""
    width = len(image) // 10 | 1
    return _gray(ndimage.median_filter(image, (width, width, 1)))


def _otsu(image: np.ndarray) -> np.ndarray:
    level, _ = cv2.threshold(np.ascontiguousarray(image[..., 0]), 0, 255, cv2.THRESH_OTSU)
    return image[..., 0] > level


def _standardised(image: np.ndarray) -> np.ndarray:
    gray = _gray(image)
    return (gray - gray.mean()) / max(gray.std(), 1) > 1


def _middle(image: np.ndarray) -> np.ndarray:
    size = len(image)
    return _disc(size, (size / 2, size / 2), 0.16 * size)


def _blind(image: np.ndarray) -> np.ndarray:
    by = _at_least(image, 10)
    return np.pad(threshold(image)[by:-by, by:-by], by)


def _yellow(image: np.ndarray) -> np.ndarray:
    return image[..., 0].astype(int) - image[..., 2] > 60


def _white(image: np.ndarray) -> np.ndarray:
    return image.min(-1) == 255


def _most_yellow(image: np.ndarray) -> np.ndarray:
    inked = lambda parts: (parts & _yellow(image)).sum((1, 2))
    return _parts(threshold(image), lambda parts, _: _only(inked(parts)) & (inked(parts) > 0))


@dataclasses.dataclass(frozen=True)
class Form:
    """A function with its truth.

    Attributes:
      function: an image -> where the object is.
      uses: the kinds of shortcuts that it uses.
      by_level: gray levels decide as they are, so that those of another machine mislead it.
    """

    function: Callable[[np.ndarray], np.ndarray]
    uses: frozenset[str] = frozenset()
    by_level: bool = True

    def truth(self, world: str) -> frozenset[str]:
        """The kinds of findings that are right in a world."""
        return self.uses | ({"scanner"} if self.by_level and world == "machines" else set())


_BORDER, _OVERLAY = frozenset({"border"}), frozenset({"overlay"})
FORMS = {
    "threshold": Form(threshold),
    "threshold, convex hull": Form(lambda image: _hull(threshold(image))),
    "threshold, its largest part": Form(lambda image: _parts(threshold(image), lambda _, sizes: _only(sizes))),
    "threshold, parts of at least half the largest": Form(
        lambda image: _parts(threshold(image), lambda _, sizes: 2 * sizes >= sizes.max())
    ),
    "threshold, opened and holes filled": Form(_opened),
    "threshold, closed in a wider image": Form(_closed),
    "threshold, closed within the image": Form(
        lambda image: ndimage.binary_closing(threshold(image), iterations=_at_least(image, 8)), _BORDER
    ),
    "median filter, threshold": Form(lambda image: _median(image) > LEVEL),
    "Otsu's threshold": Form(_otsu, by_level=False),
    "the brightest tenth": Form(lambda image: _gray(image) > np.quantile(_gray(image), 0.9), by_level=False),
    "threshold after standardisation": Form(_standardised, by_level=False),
    "a disc in the middle, whatever is there": Form(_middle, _BORDER, by_level=False),
    "threshold, blind within a tenth of the border": Form(_blind, _BORDER),
    "threshold, without parts that touch the border": Form(
        lambda image: _parts(threshold(image), lambda parts, _: ~_touches(parts)), _BORDER
    ),
    "threshold, parts whose centre is central": Form(
        lambda image: _parts(threshold(image), lambda parts, _: _is_central(parts)), _BORDER
    ),
    "copies yellow strokes": Form(_yellow, _OVERLAY, by_level=False),
    "copies white strokes": Form(_white, _OVERLAY, by_level=False),
    "median filter, threshold; or yellow": Form(lambda image: (_median(image) > LEVEL) | _yellow(image), _OVERLAY),
    "hull of yellow strokes": Form(lambda image: _hull(_yellow(image)), _OVERLAY, by_level=False),
    "hull of white strokes": Form(lambda image: _hull(_white(image)), _OVERLAY, by_level=False),
    "threshold, the part with most yellow": Form(_most_yellow, _OVERLAY),
    "yellow removed, median filter, threshold": Form(
        lambda image: _median(np.where(_yellow(image)[..., None], np.uint8(BACKGROUND), image)) > LEVEL
    ),
}


def network(name: str, size: int = 64) -> Network:
    """A function of `FORMS` as a network."""
    function = FORMS[name].function

    def probability(images: np.ndarray) -> np.ndarray:
        return np.stack([function(one) for one in np.asarray(images)])[..., None].astype(np.float32)

    return from_function(probability, num_classes=2, image_size=size, output="sigmoids")


# ------------------------------------------------------------------------------------------------------------- table


def _audited(name: str, cases: pipeline.InMemory, folder: pathlib.Path) -> str:
    """What an audit says, beside the truth where that is another."""
    config = audit_config.get_config().unlock()
    config.probes = PROBES
    asked = Subject(network=network(name), test=cases, view="original", batch_size=8)
    candidates = audits.run(asked, audits.settings(config.lock()), folder).candidates
    verdict = findings.verdict(candidates).verdict
    found = {one.kind.name for one in candidates if one.found and one.kind.is_shortcut}
    words = ", ".join([verdict] if not found else [f"{verdict}: {', '.join(sorted(found))}"])
    truth = FORMS[name].truth(cases.name)
    right = found == truth and verdict != "unclear"
    return words if right else f"{words} (in truth {', '.join(sorted(truth)) or 'no'})"


def main(worlds: Sequence[str]) -> None:
    """Prints the table; functions of marks are asked of one disc on one machine."""
    print("", "function", *(WORLDS[world] for world in worlds), "", sep=" | ")
    print("", *["---"] * (1 + len(worlds)), "", sep=" | ")
    for name in FORMS:
        cells = []
        for world in worlds:
            if FORMS[name].uses == _OVERLAY and world in ("machines", "several"):
                cells.append("")
                continue
            with tempfile.TemporaryDirectory() as folder:
                cells.append(_audited(name, drawn(world), pathlib.Path(folder)))
        print("", name, *cells, "", sep=" | ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(WORLDS))
