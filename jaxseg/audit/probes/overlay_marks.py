"""Overlays: does the network segment by calipers and text? (Lin, Weng et al. 2024, section 3.)

Two interventions. *Removal*: the marks that are found are filled in; as filling in costs Dice by itself, the same
shapes beside the marks are filled in instead, and only pixels that neither touches are scored. *Insertion*: calipers of
several inks, coloured, white and gray, are drawn where they would measure an object that is not there, a copy of the
object's outline moved aside. As strange strokes disturb by themselves, the same strokes are gathered in the middle of
that place instead, where they claim little; and as a network may join or fill whatever looks like the object, bits of
the object are put where the calipers were. What calipers do counts only where it is more than what either of these
does. A network that takes strokes themselves for the object is told from one that takes all strokes, or all that is
bright, by the same strokes in the object's own colour; one that loses the object where something else is marked, by
the Dice away from the strokes beside that with bits of the object in their place.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.audit import levels, marks, pictures
from jaxseg.audit.marks import BESIDE, MASKS, OWN, REMOVED, SPECKS, Look, around, gathered
from jaxseg.audit.probe import ALL, OVERLAY, Answer, Arrays, Candidate, NotAskedError, Probe, not_asked, number, weakest
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data import pipeline
from jaxseg.metrics import regional
from jaxseg.metrics.intervals import Estimate
from jaxseg.networks import Network
from jaxseg.results.text import text_of
from jaxseg.settings import count, share

_SHOWN = 6  # cases in the picture of marks
_TOUCHED = 1e-3  # share of a pixel
_SPECKLED, _GATHERED, _AROUND = range(3)  # places in it


@dataclasses.dataclass(frozen=True)
class Settings(Look):
    """See configs/audit.py."""

    least_cases: int = count()
    margin: float = share()
    copied_margin: float = share()
    left_margin: float = share()
    examples: int = count()
    resamples: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """The network on images whose marks are gone, and with calipers where nothing is.

    Returns:
      `removal` `[3,N]`: Dice of the pixels that no removal touched, as it is, with shapes beside the marks filled in,
      with the marks filled in; NaN where no marks are. `insertion` `[I,3,N]`: for every ink, share of the phantom's
      pixels that are called foreground, with specks of the object at its ends, calipers gathered in its middle, and
      calipers at its ends; `insertion_dice` the same, Dice away from what is drawn. `copied` `[1+I,N]`: share of the
      pixels of calipers outside the object that are called foreground, in the object's own colour and in every ink.
      `marks` `[N]`: share of the image that marks cover. `removal_*`, `insertion_*`: a few cases as of
      `pictures.Pairs.arrays`, insertion of the ink number `shown`.
    """
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; marks are drawn on pictures")
    if subject.test.num_channels not in (1, 3):
        raise NotAskedError(f"the images have {subject.test.num_channels} channels; marks are drawn on 1 or 3")

    def question(network: Network, seen: Seen) -> dict[str, Any]:
        images = jnp.concatenate([seen["images"][:, None], seen["made"]], 1)
        classes = subject.predict(network, images.reshape(-1, *images.shape[2:])).reshape(images.shape[:-1])
        labels = jnp.broadcast_to(seen["labels"][:, None], classes.shape)
        shown = pictures.told(seen, images, labels, classes)
        return _counts(seen, classes) | {"share": seen["share"], "pictures": shown}

    def made(case: pipeline.Case, place: int) -> dict[str, np.ndarray]:
        found = marks.mark(case, place, settings)
        share = np.asarray(found.marks.mean(), np.float32)
        return {"images": found.images, "masks": np.stack(list(found.masks.values())), "share": share}

    asked = subject.asks(
        question, batch_size=max(subject.batch_size // (1 + around(len(settings.inks) - 1)), 1), make=made
    )
    answer = asked(subject.test)
    removal = np.where(answer["share"] > 0, regional.dice_from_region_sums(answer["removal"]).T, np.nan)
    insertion = np.moveaxis(_rate(answer["called"], answer["empty"]), 0, -1)
    effect = insertion[:, _AROUND] - np.fmax(insertion[:, _SPECKLED], insertion[:, _GATHERED])
    shown = int(np.argmax([np.nansum(one) for one in effect]))
    few = lambda effect, both: pictures.of(
        asked, subject.test, pictures.largest(effect, settings.examples), both=tuple(1 + k for k in both)
    )
    pairs = {
        "removal": few(removal[1] - removal[2], (BESIDE, REMOVED)),
        "insertion": few(effect[shown], (gathered(shown), around(shown))),
    }
    return {
        "removal": removal,
        "insertion": insertion,
        "insertion_dice": np.moveaxis(regional.dice_from_region_sums(answer["apart"]), 0, -1),
        "copied": np.moveaxis(_rate(answer["drawn_called"], answer["drawn"]), 0, -1),
        "marks": answer["share"],
        "shown": np.array(shown),
        **_found(subject, settings, np.flatnonzero(answer["share"])),
    } | {key: array for name, one in pairs.items() for key, array in one.arrays(prefix=f"{name}_").items()}


def _found(subject: Subject, settings: Settings, marked: np.ndarray) -> dict[str, np.ndarray]:
    """A few of the marked cases, evenly over them, for the picture of what was found."""
    chosen = marked[np.linspace(0, len(marked) - 1, min(len(marked), _SHOWN)).astype(int)]
    cases = [subject.test[place] for place in chosen.tolist()]
    masks = [marks.mark(case, place, settings).marks for place, case in zip(chosen.tolist(), cases, strict=True)]
    told = {"found": chosen, "found_images": [levels.of_case(case) for case in cases], "found_masks": masks}
    return {name: np.array(values) for name, values in told.items()}


def _counts(seen: Seen, classes: jax.Array) -> dict[str, jax.Array]:
    """Of class maps `[B,1+4+2I,*n]`, that of the case as it is first: pixels, and sums for Dice."""
    covered = dict(zip(MASKS, jnp.moveaxis(seen["masks"], 1, 0), strict=True))
    labels, counted = seen["labels"], seen.get("valid", jnp.ones(seen["labels"].shape, bool))
    background = (labels == 0) & counted
    untouched, undrawn = (counted & (covered[name] <= _TOUCHED) for name in ("touched", "drawn"))
    empty = background & undrawn & (covered["phantom"] > 0.5)
    strokes = background & _most_of(covered["strokes"])
    inks = range((classes.shape[1] - 1 - gathered(0)) // 2)
    inserted = classes[:, 1 + np.array([[SPECKS, gathered(ink), around(ink)] for ink in inks])]
    drawn = classes[:, 1 + np.array([OWN, *map(around, inks)])]
    pixels = lambda mask: jnp.sum(mask, (-2, -1))
    return {
        "removal": _sums(labels, classes[:, np.array([0, 1 + BESIDE, 1 + REMOVED])], untouched),
        "empty": pixels(empty),
        "called": pixels((inserted > 0) & empty[:, None, None]),
        "apart": _sums(labels, inserted, undrawn),
        "drawn": pixels(strokes),
        "drawn_called": pixels((drawn > 0) & strokes[:, None]),
    }


def _most_of(cover: jax.Array) -> jax.Array:
    """Pixels `[B,H,W]` that are covered at least half as much as any; of thin strokes in a small image, little is."""
    return (cover > _TOUCHED) & (cover >= 0.5 * jnp.max(cover, (1, 2), keepdims=True))


def _sums(labels: jax.Array, classes: jax.Array, where: jax.Array) -> jax.Array:
    """`region_sums` of several class maps `[B,...,H,W]` of every image."""
    several = lambda array: jnp.broadcast_to(
        array.reshape(len(array), *(1,) * (classes.ndim - 3), *array.shape[1:]), classes.shape
    )
    return regional.region_sums(several(labels), classes, several(where))


def _rate(called: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Share of the pixels, NaN where there are none; a number of pixels stands for all of a case."""
    pixels = np.broadcast_to(pixels.reshape(*pixels.shape, *(1,) * (called.ndim - pixels.ndim)), called.shape)
    return np.where(pixels, called / np.maximum(pixels, 1), np.nan)


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """What marks give and what they take, with what filling in and strange strokes do by themselves beside it."""
    told = [_removal(subject, settings, arrays)]
    inks = settings.inks_of(subject.test.num_channels)
    told += [_insertion(subject, settings, arrays, number, ink) for number, ink in enumerate(inks)]
    told += [_copied(subject, settings, arrays, inks), _left(subject, settings, arrays, inks)]
    every = lambda part: [one for answer in told for one in getattr(answer, part)]
    figures = []
    if len(found := arrays["found"]):
        names = [subject.test.cases[int(place)] for place in found]
        shown = arrays["found_images"], arrays["found_masks"], names
        figures.append(pictures.marks_figure(PROBE.name, *shown, table=PROBE.name))
    return Answer(every("rows"), every("candidates"), figures, not_asked=every("not_asked"))


def _removal(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    patients, with_marks = subject.patients(settings.resamples), int(np.count_nonzero(arrays["marks"]))
    shares = patients.mean((arrays["marks"] > 0).astype(float))
    convention = (
        "share of the test images on which calipers or text are found: coloured, or bright away from the object"
    )
    rows = [number("images with marks", shares, convention)]
    if with_marks < settings.least_cases:
        why = f"{with_marks} images with marks; at least {settings.least_cases} are needed"
        nothing = not_asked(why, quantity="Dice lost with the marks", where=ALL, undefined=len(subject.test))
        return Answer(rows, not_asked=[nothing])
    where = f"the {with_marks} images with marks, pixels that no filling touches"
    convention = f"{regional.WHAT}; found marks are filled in ({settings.removal}), or shapes like theirs beside them"
    as_is, beside, gone = arrays["removal"]
    lost = patients.difference(beside, gone)
    told = {
        "Dice, as it is": patients.mean(as_is),
        "Dice, shapes beside the marks filled in": patients.mean(beside),
        "Dice, marks filled in": patients.mean(gone),
        "Dice lost with the marks": lost,
    }
    rows += [number(what, estimate, convention, where=where) for what, estimate in told.items()]
    candidate = Candidate(
        kind=OVERLAY,
        name="overlays_removal",
        title="Calipers and text help the network",
        sentence=(
            f"When the marks on {with_marks} of {len(subject.test)} images are filled in, the Dice falls by "
            f"{text_of(lost)}, counted on pixels that no filling touched and beyond what filling in shapes beside the "
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
        figure=pictures.figure(
            "overlays_removal",
            pictures.of_arrays(arrays, prefix="removal_"),
            subject,
            "marks kept, filled in beside them",
            "marks filled in",
        ),
    )
    return Answer(rows, (candidate,))


def _insertion(subject: Subject, settings: Settings, arrays: Arrays, place: int, ink: str) -> Answer:
    patients = subject.patients(settings.resamples)
    where = f"an empty place, outside the object and away from what is drawn; {ink} calipers"
    convention = "share of the pixels that calipers claim, and that are background, which the network calls foreground"
    of_object, middle, ends = arrays["insertion"][place]
    gained = weakest([patients.difference(ends, one) for one in (middle, of_object)], settings.margin)
    _, middle_dice, ends_dice = arrays["insertion_dice"][place]
    damage = patients.difference(middle_dice, ends_dice)
    told = {
        "called foreground, bits of the object at its ends": patients.mean(of_object),
        "called foreground, the strokes in its middle": patients.mean(middle),
        "called foreground, calipers at its ends": patients.mean(ends),
        "called foreground because calipers enclose it": gained,
    }
    rows = [number(what, estimate, convention, where=where) for what, estimate in told.items()]
    rows.append(number("Dice lost to calipers around it", damage, f"{regional.WHAT}, away from strokes", where=where))
    shown = place == int(arrays["shown"])
    candidate = Candidate(
        kind=OVERLAY,
        name=f"overlays_insertion_{ink.replace(' ', '_')}",
        title="The network believes calipers that measure nothing",
        sentence=(
            f"Calipers in {ink} drawn around an empty place make the network call {text_of(gained)} of that place "
            "foreground, as a share of its pixels and beyond what the same strokes do in its middle and what bits of "
            "the object do in their place."
        ),
        quantity=f"share of an empty place called foreground because of {ink} calipers",
        estimate=gained,
        margin=settings.margin,
        damage=damage.mean,
        remedy=(
            "Train on images without marks, or with calipers drawn at random places (jaxseg.data.overlays), so that "
            "they say nothing about the object."
        ),
        figure=pictures.figure(
            "overlays_insertion",
            pictures.of_arrays(arrays, prefix="insertion_"),
            subject,
            "strokes in the middle",
            "calipers around an empty place",
        )
        if shown
        else None,
    )
    return Answer(rows, (candidate,))


def _copied(subject: Subject, settings: Settings, arrays: Arrays, inks: Sequence[str]) -> Answer:
    patients = subject.patients(settings.resamples)
    convention = "share of the pixels outside the object that the network calls foreground"
    own, *others = arrays["copied"]
    rows = [number("called foreground", patients.mean(own), convention, where="strokes in the object's own colour")]
    beyond = {}
    for ink, strokes in zip(inks, others, strict=True):
        where = f"strokes of {ink} calipers"
        beyond[ink] = patients.difference(strokes, own)
        rows.append(number("called foreground", patients.mean(strokes), convention, where=where))
        rows.append(number("called foreground, beyond the object's own colour", beyond[ink], convention, where=where))
    name, most = _largest(beyond)
    candidate = Candidate(
        kind=OVERLAY,
        name="overlays_copied",
        title="Strokes of marks are segmented as the object",
        sentence=(
            f"Of the strokes of {name} calipers on the background the network calls {text_of(most)} foreground, as a "
            "share of their pixels and beyond what it does with the same strokes in the object's own colour."
        ),
        quantity="share of a mark's strokes called foreground, beyond strokes in the object's colour",
        estimate=most,
        margin=settings.copied_margin,
        damage=np.nan,
        remedy="Train on images with marks that say nothing about the object, and check masks for strokes by eye.",
    )
    return Answer(rows, (candidate,))


def _left(subject: Subject, settings: Settings, arrays: Arrays, inks: Sequence[str]) -> Answer:
    patients, places = subject.patients(settings.resamples), arrays["insertion_dice"]
    lost = {ink: patients.difference(dice[0], dice[2]) for ink, dice in zip(inks, places, strict=True)}
    convention = f"{regional.WHAT}, away from strokes; bits of the object, or calipers, around an empty place"
    rows = [number("Dice lost", one, convention, where=f"{ink} calipers in place of bits") for ink, one in lost.items()]
    name, most = _largest(lost)
    candidate = Candidate(
        kind=OVERLAY,
        name="overlays_left",
        title="Marks beside the object make the network lose it",
        sentence=(
            f"Calipers in {name} around an empty place cost {text_of(most)} of Dice on the object, which they do not "
            "touch, beyond what bits of the object do in their place."
        ),
        quantity="Dice lost to calipers around an empty place, beyond bits of the object there",
        estimate=most,
        margin=settings.left_margin,
        damage=most.mean,
        remedy=(
            "Train on images with marks that say nothing about the object (jaxseg.data.overlays); until then, segment "
            "images before they are measured."
        ),
    )
    return Answer(rows, (candidate,))


def _largest(of_inks: dict[str, Estimate]) -> tuple[str, Estimate]:
    """The ink whose interval begins highest."""
    return max(of_inks.items(), key=lambda one: -np.inf if np.isnan(one[1].low) else one[1].low)


PROBE = Probe("overlays", "Does the network segment by calipers and text?", "shortcuts", Settings, measure, tabulate)
