"""Translation: does an object disappear because it lies at the border? (Lin, Weng et al. 2024, section 4.)"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.audit import moving, pictures
from jaxseg.audit.probe import BORDER, Answer, Arrays, Candidate, NotAskedError, Probe, number
from jaxseg.audit.subject import Seen, Subject, counted, strip_width
from jaxseg.data import augment
from jaxseg.metrics import regional
from jaxseg.metrics.intervals import Estimate
from jaxseg.results.text import text_of

_VARIANTS = len(moving.SIDES) * len(moving.PICTURES)
_REGIONS = ("strip", "rest", "visible")


def measure(subject: Subject, settings: moving.Settings) -> Arrays:
    """What the network makes of objects that are cut off, with the border close by and without.

    Returns:
      `strip`, `rest` `[2,N]`: Dice of the visible pixels near the line and of the others, mirrored and moved, the four
      sides together; `visible` `[2,N]` of all visible ones; and a few cases as of `pictures.Pairs.arrays`.
    """
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; moving is made for pictures")
    width = strip_width(subject, settings.border_share)

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        made = moving.cut(seen["images"], seen["labels"], width=width)
        flat = made.images.reshape(-1, *made.images.shape[3:])
        classes = subject.predict(variables, flat).reshape(made.images.shape[:-1])
        returned = made.back(classes)
        shape = returned.shape
        labels = jnp.broadcast_to(made.labels[0], shape)
        sums = lambda region: regional.region_sums(labels, returned, jnp.broadcast_to(region, shape))
        regions = {"strip": made.strip, "rest": made.visible & ~made.strip, "visible": made.visible}
        # sides are added up, cases come first
        of_region = lambda region: jnp.moveaxis(jnp.sum(sums(counted(seen, region)), 1), 1, 0)
        return {name: of_region(region) for name, region in regions.items()} | {
            "images": augment.levels(made.shown(made.images), scales=seen.get("scale")),
            "labels": made.shown(made.labels.astype(jnp.uint8)),
            "classes": made.shown(classes.astype(jnp.uint8)),
        }

    answer = subject.asks(question, batch_size=max(subject.batch_size // _VARIANTS, 1))(subject.test)
    scores = {name: regional.dice_from_region_sums(answer[name]).T for name in _REGIONS}
    chosen = pictures.largest(scores["strip"][0] - scores["strip"][1], settings.examples)
    return scores | pictures.of_pairs(answer, chosen).arrays()


def tabulate(subject: Subject, settings: moving.Settings, arrays: Arrays) -> Answer:
    """The Dice near the line in both pictures, and what the border takes of it."""
    patients, width = subject.patients(settings.resamples), strip_width(subject, settings.border_share)
    convention = (
        f"{regional.WHAT}; images are cut at a line through the object's centre, along each of four sides in turn; "
        "mirrored: beyond the line stands the mirror image; moved: the line is the image's border"
    )
    rows, lost = [], {}
    for name, place in _places(subject, width).items():
        mirrored, moved = arrays[name]
        lost[name] = patients.difference(mirrored, moved)
        told = {"Dice, mirrored": patients.mean(mirrored), "Dice, moved to the border": patients.mean(moved)}
        told["lost at the border"] = lost[name]
        rows += [number(what, estimate, convention, where=place) for what, estimate in told.items()]
    return Answer(rows, (_candidate(subject, settings, arrays, lost, width),))


def _places(subject: Subject, width: int) -> dict[str, str]:
    """Regions of the image, in words."""
    near = f"visible pixels within {width} of {subject.shorter} px of the line"
    return {"strip": near, "rest": "the other visible pixels", "visible": "all visible pixels"}


def _candidate(
    subject: Subject, settings: moving.Settings, arrays: Arrays, lost: Mapping[str, Estimate], width: int
) -> Candidate:
    all_visible, near, inside = (text_of(lost[name]) for name in ("visible", "strip", "rest"))
    return Candidate(
        kind=BORDER,
        name="translation",
        title="Objects at the image's border are given up",
        sentence=(
            f"Pushed against the image's border, objects lose {all_visible} of Dice on what is left of them, and "
            f"{near} within {width} px of the border ({inside} further inside), although the network sees as much of "
            "them as before: compared are two pictures of the same half of the object, one with the border close by "
            "and one with the border far away."
        ),
        quantity="Dice lost at the border",
        estimate=lost["visible"],
        margin=settings.margin,
        damage=lost["visible"].mean,
        remedy=(
            "Train on views in which objects touch the border: random quadrants (config.data.view=quadrant) or "
            "translations (config.data.augmentation.translate). Padding that does not mark the border "
            "(config.model.padding=reflect or valid) makes the cue harder to learn, not impossible. Until then, check "
            "images whose object touches the border by eye."
        ),
        figure=pictures.figure(
            "translation", pictures.of_arrays(arrays), subject, "border far away", "border close by"
        ),
    )


PROBE = Probe("translation", "Do objects disappear at the border?", "shortcuts", moving.Settings, measure, tabulate)
