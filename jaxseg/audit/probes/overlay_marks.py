"""Overlays: does the network segment by calipers and text? (Lin, Weng et al. 2024, section 3.)

Two interventions. *Removal*: the coloured marks that are found are filled in; as filling in costs Dice by itself, the
same shapes beside the marks are filled in instead, and only pixels that neither touches are scored. *Insertion*:
calipers are drawn where they would measure an object that is not there, a copy of the object's outline moved aside; as
strange strokes disturb by themselves, the same strokes are gathered in the middle of that place instead, where they
claim little.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.audit.answers import (
    Answer,
    Arrays,
    Candidate,
    NotAskedError,
    Probe,
    amount,
    contrast,
    largest,
    mean_of,
    row,
)
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data import augment, overlays, pipeline
from jaxseg.metrics import regional

NAME = "overlays"
_DIRECTIONS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
_AS_IS, _BESIDE, _REMOVED, _GATHERED, _AROUND = range(5)  # pictures of a case
_TAKEN = "Dice, shapes beside the marks filled in", "Dice, marks filled in"


@dataclasses.dataclass(frozen=True, eq=False)
class _Marked:
    """The pictures of one case: images uint8 `[5,S,S,C]`, what must not be scored, and where the phantom is."""

    images: np.ndarray
    found: np.ndarray
    touched: np.ndarray  # by removal, marks or shapes beside them
    drawn: np.ndarray  # on or near inserted strokes
    phantom: np.ndarray


def measure(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """The network on images whose marks are gone, and with calipers where nothing is.

    Returns:
      `removal` `[3,N]`: Dice of the pixels that no removal touched, as it is, with shapes beside the marks filled in,
      with the marks filled in; NaN where no marks are. `insertion` `[2,N]`: share of the phantom's pixels that are
      called foreground, calipers gathered in its middle and around it. `insertion_dice` `[2,N]`. `marks` `[N]`: share
      of the image that marks cover. `removal_*` and `insertion_*` pictures.
    """
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; marks are drawn on pictures")
    if subject.test.num_channels not in (1, 3):
        raise NotAskedError(f"the images have {subject.test.num_channels} channels; marks are drawn on 1 or 3")
    marked = [_mark(case, i, settings) for i, case in enumerate(subject.test)]

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        classes = subject.predict(variables, seen["images"])
        return {
            "classes": classes.astype(jnp.uint8),
            "labels": seen["labels"].astype(jnp.uint8),
            "images": augment.levels(seen["images"]),
        }

    asked = subject.asks(question)
    answers = [asked(_with_images(subject.test, [one.images[k] for one in marked])) for k in range(5)]
    masks = {name: _seen_masks(subject, [getattr(one, name) for one in marked]) for name in ("touched", "drawn")}
    phantom = _seen_masks(subject, [one.phantom for one in marked], whole=True)
    labels = answers[_AS_IS]["labels"]
    classes = [answer["classes"] for answer in answers]
    score = lambda k, where: regional.dice_from_region_sums(np.asarray(_counts(labels, classes[k], where)))
    has_marks = np.array([one.found.any() for one in marked])
    removal = np.stack([score(k, ~masks["touched"]) for k in (_AS_IS, _BESIDE, _REMOVED)])
    tested = phantom & (labels == 0) & ~masks["drawn"]
    area = tested.sum((1, 2))
    share = lambda k: np.where(area, ((classes[k] > 0) & tested).sum((1, 2)) / np.maximum(area, 1), np.nan)
    arrays = {
        "removal": np.where(has_marks, removal, np.nan),
        "insertion": np.stack([share(k) for k in (_GATHERED, _AROUND)]),
        "insertion_dice": np.stack([score(k, ~masks["drawn"]) for k in (_GATHERED, _AROUND)]),
        "marks": np.array([one.found.mean() for one in marked]),
    }
    effects = {
        "removal": (arrays["removal"][1] - arrays["removal"][2], (_BESIDE, _REMOVED)),
        "insertion": (arrays["insertion"][1] - arrays["insertion"][0], (_GATHERED, _AROUND)),
    }
    for name, (effect, pair) in effects.items():
        arrays |= _pictures(name, [answers[k] for k in pair], largest(effect, settings.examples))
    return arrays


_counts = jax.jit(regional.region_sums)


def _pictures(name: str, pair: Sequence[Arrays], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Of a few cases what the network saw, should say and said, in both pictures."""
    part = lambda what: np.stack([answer[what][chosen] for answer in pair], 1)
    return {
        f"{name}_pictures": part("images"),
        f"{name}_picture_labels": part("labels"),
        f"{name}_picture_classes": part("classes"),
        f"{name}_chosen": chosen,
    }


def _mark(case: pipeline.Case, number: int, settings: ml_collections.ConfigDict) -> _Marked:
    image, labels = case["image"], case["labels"]
    found = _coloured(image, settings)
    region = overlays.removed_region(found, method=settings.removal) if found.any() else found
    fill = lambda mask: overlays.remove(image, mask, method=settings.removal, margin=0) if mask.any() else image
    beside = _beside(region, max(round(settings.beside_share * len(labels)), 2))
    clean = fill(region)
    phantom, points = _phantom(labels, len(labels))
    look = _look(number, len(labels), settings)
    around, covered = overlays.draw_calipers(clean, points, **look)
    middle = points.mean(0) if len(points) else 0.0
    gathered, inside = overlays.draw_calipers(clean, middle + settings.gathered_share * (points - middle), **look)
    near = max(round(settings.stroke_share * len(labels)), 1)
    drawn = overlays.removed_region(covered | inside, method="bilinear", margin=near)
    return _Marked(np.stack([image, fill(beside), clean, gathered, around]), found, region | beside, drawn, phantom)


def _coloured(image: np.ndarray, settings: ml_collections.ConfigDict) -> np.ndarray:
    """The coloured marks of a gray image: bright anatomy can pass for white ones, and its loss is no shortcut."""
    if image.shape[-1] != 3:
        return np.zeros(image.shape[:2], bool)
    chroma = image.max(-1).astype(int) - image.min(-1) >= settings.chroma
    return overlays.detect(image, chroma=settings.chroma, gray_share=settings.gray_share) & chroma


def _look(number: int, size: int, settings: ml_collections.ConfigDict) -> dict[str, Any]:
    colours, styles = settings.colours, overlays.CALIPER_STYLES
    return {
        "colour": colours[number % len(colours)],
        "style": styles[number % len(styles)],
        "size": max(round(settings.caliper_share * size), 5),
        "thickness": max(round(size / 200), 1),
    }


def _moved(mask: np.ndarray, by: Sequence[int]) -> np.ndarray:
    """The mask moved by so many pixels; what leaves the image is lost."""
    moved = np.zeros_like(mask)
    ends = [(max(d, 0), min(n, n + d)) for d, n in zip(by, mask.shape, strict=True)]
    target = tuple(slice(low, high) for low, high in ends)
    source = tuple(slice(low - d, high - d) for (low, high), d in zip(ends, by, strict=True))
    moved[target] = mask[source]
    return moved


def _beside(region: np.ndarray, step: int) -> np.ndarray:
    """The shapes of the marks a step aside, in the direction in which most of them lies clear of the marks."""
    candidates = [_moved(region, (step * y, step * x)) & ~region for y, x in _DIRECTIONS]
    return max(candidates, key=np.count_nonzero)


def _phantom(labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An outline of the object where the least of the object is, and the ends of its axes `[4,2]`."""
    mask = labels > 0
    if not mask.any():
        return np.zeros_like(mask), np.zeros((0, 2))
    moves = [(y * step, x * step) for y, x in _DIRECTIONS for step in (size // 4, 3 * size // 8)]
    best = max(moves, key=lambda by: np.count_nonzero(_moved(mask, by) & ~mask))
    points = np.concatenate(overlays.ellipse_axes(mask)) + best
    return _moved(mask, best), points


def _with_images(cases: pipeline.InMemory, images: Sequence[np.ndarray]) -> pipeline.InMemory:
    return dataclasses.replace(cases, images=np.stack(images))


def _seen_masks(subject: Subject, masks: Sequence[np.ndarray], *, whole: bool = False) -> np.ndarray:
    """Masks as the network sees their places, `[N,n,n]`: what is touched in part counts, unless `whole`."""
    channels = subject.test.num_channels
    images = np.repeat((np.stack(masks) * np.uint8(255))[..., None], channels, -1)
    covered = subject.asks(lambda variables, seen: {"cover": (seen["images"][..., 0] + 1.0) / 2.0})
    cover = covered(dataclasses.replace(subject.test, images=images))["cover"]
    return cover > 0.5 if whole else cover > 1e-3


def tabulate(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """What marks give and what they take, with what filling in and strange strokes do by themselves beside it."""
    removal, insertion = _removal(subject, settings, arrays), _insertion(subject, settings, arrays)
    return Answer([*removal.rows, *insertion.rows], (*removal.candidates, *insertion.candidates))


def _removal(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    with_marks = int(np.count_nonzero(arrays["marks"]))
    shares = mean_of((arrays["marks"] > 0).astype(float), subject, settings)
    rows = [
        row(NAME, "images with marks", shares, "share of the test images on which coloured calipers or text are found")
    ]
    if with_marks < settings.least_cases:
        nothing = mean_of(np.full(len(subject.test), np.nan), subject, settings)
        needed = f"at least {settings.least_cases} are needed, and gray ones are not sought"
        why = f"not asked: {with_marks} images with coloured marks; {needed}"
        return Answer([*rows, row(NAME, "lost with the marks", nothing, why) | {"interval": "none"}])
    where = f"the {with_marks} images with marks, pixels that no filling touches"
    convention = f"{regional.WHAT}; found marks are filled in ({settings.removal}), or shapes like theirs beside them"
    as_is, beside, gone = arrays["removal"]
    lost = contrast([(1.0, beside), (-1.0, gone)], subject, settings)
    rows.append(row(NAME, "Dice, as it is", mean_of(as_is, subject, settings), convention, where=where))
    for name, values in zip(_TAKEN, (beside, gone), strict=True):
        rows.append(row(NAME, name, mean_of(values, subject, settings), convention, where=where))
    rows.append(row(NAME, "lost with the marks", lost, convention, where=where))
    candidate = Candidate(
        kind="overlay",
        probe=f"{NAME}_removal",
        title="Calipers and text help the network",
        sentence=(
            f"When the marks on {with_marks} of {len(subject.test)} images are filled in, the Dice falls by "
            f"{amount(lost)}, counted on pixels that no filling touched and beyond what filling in shapes beside the "
            "marks costs. Images without marks will be segmented that much worse."
        ),
        quantity="Dice lost when marks are filled in, beyond filling in beside them",
        estimate=lost,
        margin=settings.margin,
        damage=lost.mean,
        remedy=(
            "Train on images from which the marks are removed (jaxseg.data.overlays.remove), or on scans without them, "
            "and test on images without marks."
        ),
    )
    return Answer(rows, (candidate,))


def _insertion(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    where = "an empty place, outside the object and away from strokes"
    convention = "share of the pixels that calipers claim, and that are background, which the network calls foreground"
    gathered, around = arrays["insertion"]
    gained = contrast([(1.0, around), (-1.0, gathered)], subject, settings)
    apart, close = arrays["insertion_dice"]
    damage = contrast([(1.0, apart), (-1.0, close)], subject, settings)
    say = lambda name, values: row(NAME, name, mean_of(values, subject, settings), convention, where=where)
    rows = [
        say("called foreground, the strokes in its middle", gathered),
        say("called foreground, calipers at its ends", around),
        row(NAME, "called foreground because calipers enclose it", gained, convention, where=where),
        row(NAME, "Dice lost to calipers around an empty place", damage, f"{regional.WHAT}, pixels away from strokes"),
    ]
    candidate = Candidate(
        kind="overlay",
        probe=f"{NAME}_insertion",
        title="The network believes calipers that measure nothing",
        sentence=(
            f"Calipers drawn around an empty place make the network call {amount(gained)} of that place foreground, as "
            "a share of its pixels and beyond what the same strokes do in its middle."
        ),
        quantity="share of an empty place called foreground because of calipers",
        estimate=gained,
        margin=settings.margin,
        damage=damage.mean,
        remedy=(
            "Train on images without marks, or with calipers drawn at random places (jaxseg.data.overlays), so that "
            "they say nothing about the object."
        ),
    )
    return Answer(rows, (candidate,))


PROBE = Probe(NAME, "Does the network segment by calipers and text?", measure, tabulate)
