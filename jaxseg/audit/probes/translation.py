"""Translation: does an object disappear because it lies at the border? (Lin, Weng et al. 2024, section 4.)"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxseg.audit import moving
from jaxseg.audit.answers import (
    Answer,
    Arrays,
    Candidate,
    NotAskedError,
    Probe,
    amount,
    difference,
    largest,
    mean_of,
    row,
)
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data import augment
from jaxseg.metrics import regional

NAME = "translation"
_VARIANTS = len(moving.SIDES) * len(moving.PICTURES)


def strip_width(subject: Subject, settings: ml_collections.ConfigDict) -> int:
    """Pixels of the network's image that count as near the border."""
    return max(round(settings.border_share * subject.image_size), 2)


def check_pictures(subject: Subject) -> None:
    """Raises NotAskedError unless images can be cut and moved."""
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; moving is made for pictures")


def measure(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """What the network makes of objects that are cut off, with the border close by and without.

    Returns:
      `strip`, `rest` `[2,N]`: Dice of the visible pixels near the line and of the others, mirrored and moved, the four
      sides together; `visible` `[2,N]` of all visible ones; `pictures` uint8 `[E,2,n,n,C]`, `picture_labels` and
      `picture_classes` `[E,2,n,n]` of a few cases, and `chosen` `[E]` their numbers.
    """
    check_pictures(subject)
    width = strip_width(subject, settings)

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        made = moving.cut(seen["images"], seen["labels"], width=width)
        flat = made.images.reshape(-1, *made.images.shape[3:])
        classes = subject.predict(variables, flat).reshape(made.images.shape[:-1])
        returned = made.back(classes)
        shape = returned.shape
        labels = jnp.broadcast_to(made.labels[0], shape)
        count = lambda region: regional.region_sums(labels, returned, jnp.broadcast_to(region, shape))
        regions = {"strip": made.strip, "rest": made.visible & ~made.strip, "visible": made.visible}
        # sides are added up, cases come first
        counted = {name: jnp.moveaxis(jnp.sum(count(region), 1), 1, 0) for name, region in regions.items()}
        return counted | {
            "pictures": made.shown(augment.levels(made.images)),
            "picture_labels": made.shown(made.labels.astype(jnp.uint8)),
            "picture_classes": made.shown(classes.astype(jnp.uint8)),
        }

    asked = subject.asks(question, batch_size=max(subject.batch_size // _VARIANTS, 1))
    found = asked(subject.test)
    scores = {name: regional.dice_from_region_sums(found[name]).T for name in ("strip", "rest", "visible")}
    chosen = largest(scores["strip"][0] - scores["strip"][1], settings.examples)
    pictures = {name: found[name][chosen] for name in ("pictures", "picture_labels", "picture_classes")}
    return scores | pictures | {"chosen": chosen}


def tabulate(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """The Dice near the line in both pictures, and what the border takes of it."""
    width = strip_width(subject, settings)
    place = f"visible pixels within {width} of {subject.image_size} px of the line"
    convention = (
        f"{regional.WHAT}; images are cut at a line through the object's centre, along each of four sides in turn; "
        "mirrored: beyond the line stands the mirror image; moved: the line is the image's border"
    )
    say = lambda name, values, where: row(NAME, name, mean_of(values, subject, settings), convention, where=where)
    rows = []
    for name, where in (("strip", place), ("rest", "the other visible pixels"), ("visible", "all visible pixels")):
        mirrored, moved = arrays[name]
        rows += [say("Dice, mirrored", mirrored, where), say("Dice, moved to the border", moved, where)]
        rows.append(say("lost at the border", mirrored - moved, where))
    lost, rest, visible = (
        difference(arrays[name][0], arrays[name][1], subject, settings) for name in ("strip", "rest", "visible")
    )
    sentence = (
        f"Pushed against the image's border, objects lose {amount(visible)} of Dice on what is left of them, and "
        f"{amount(lost)} within {width} px of the border ({amount(rest)} further inside), although the network sees as "
        "much of them as before: compared are two pictures of the same half of the object, one with the border close "
        "by and one with the border far away."
    )
    candidate = Candidate(
        kind="border",
        probe=NAME,
        title="Objects at the image's border are given up",
        sentence=sentence,
        quantity="Dice lost at the border",
        estimate=visible,
        margin=settings.margin,
        damage=visible.mean,
        remedy=(
            "Train on views in which objects touch the border: random quadrants (config.data.view=quadrant) or "
            "translations (config.data.augmentation.translate). Padding that does not mark the border "
            "(config.model.padding=reflect or valid) makes the cue harder to learn, not impossible. Until then, check "
            "images whose object touches the border by eye."
        ),
    )
    return Answer(rows, (candidate,))


PROBE = Probe(NAME, "Do objects disappear at the border?", measure, tabulate)
