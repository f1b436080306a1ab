"""Overlays: does the network segment by calipers and text? (Lin, Weng et al. 2024, section 3.)

Two interventions. *Removal*: the coloured marks that are found are filled in; as filling in costs Dice by itself, the
same shapes beside the marks are filled in instead, and only pixels that neither touches are scored. *Insertion*:
calipers are drawn where they would measure an object that is not there, a copy of the object's outline moved aside; as
strange strokes disturb by themselves, the same strokes are gathered in the middle of that place instead, where they
claim little.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.audit import pictures
from jaxseg.audit.marks import AROUND, AS_IS, BESIDE, GATHERED, REMOVED, Look, Marked, mark
from jaxseg.audit.probe import ALL, OVERLAY, Answer, Arrays, Candidate, NotAskedError, Probe, not_asked, number
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data import augment, pipeline
from jaxseg.metrics import regional
from jaxseg.networks import Network
from jaxseg.results.text import text_of
from jaxseg.settings import count, share


@dataclasses.dataclass(frozen=True)
class Settings(Look):
    """See configs/audit.py."""

    least_cases: int = count()
    margin: float = share()
    examples: int = count()
    resamples: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """The network on images whose marks are gone, and with calipers where nothing is.

    Returns:
      `removal` `[3,N]`: Dice of the pixels that no removal touched, as it is, with shapes beside the marks filled in,
      with the marks filled in; NaN where no marks are. `insertion` `[2,N]`: share of the phantom's pixels that are
      called foreground, calipers gathered in its middle and around it. `insertion_dice` `[2,N]`. `marks` `[N]`: share
      of the image that marks cover. `removal_*` and `insertion_*`: a few cases as of `pictures.Pairs.arrays`.
    """
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; marks are drawn on pictures")
    if subject.test.num_channels not in (1, 3):
        raise NotAskedError(f"the images have {subject.test.num_channels} channels; marks are drawn on 1 or 3")
    marked = [mark(case, i, settings) for i, case in enumerate(subject.test)]

    def question(network: Network, seen: Seen) -> dict[str, jax.Array]:
        classes = subject.predict(network, seen["images"])
        return {
            "classes": classes.astype(jnp.uint8),
            "labels": seen["labels"].astype(jnp.uint8),
            "counted": seen.get("valid", jnp.ones(classes.shape, bool)),
            "images": augment.levels(seen["images"], scales=seen.get("scale")),
        }

    asked = subject.asks(question)
    answers = [asked(_with_images(subject.test.held(), [one.images[k] for one in marked])) for k in range(5)]
    removal = _removal_dice(subject, marked, answers)
    insertion, insertion_dice = _insertion_shares(subject, marked, answers)
    pairs = {
        "removal": (removal[1] - removal[2], (BESIDE, REMOVED)),
        "insertion": (insertion[1] - insertion[0], (GATHERED, AROUND)),
    }
    shown = {
        name: pictures.of_answers([answers[k] for k in pair], pictures.largest(effect, settings.examples))
        for name, (effect, pair) in pairs.items()
    }
    return {
        "removal": removal,
        "insertion": insertion,
        "insertion_dice": insertion_dice,
        "marks": np.array([one.marks.mean() for one in marked]),
    } | {key: array for name, one in shown.items() for key, array in one.arrays(prefix=f"{name}_").items()}


def _removal_dice(subject: Subject, marked: Sequence[Marked], answers: Sequence[Arrays]) -> np.ndarray:
    untouched = ~_seen_masks(subject, [one.touched for one in marked])
    dice = np.stack([_dice(answers[k], untouched) for k in (AS_IS, BESIDE, REMOVED)])
    return np.where([one.marks.any() for one in marked], dice, np.nan)


def _insertion_shares(
    subject: Subject, marked: Sequence[Marked], answers: Sequence[Arrays]
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the empty place that is called foreground, and Dice away from strokes, `[2,N]` both."""
    drawn = _seen_masks(subject, [one.drawn for one in marked])
    phantom = _seen_masks(subject, [one.phantom for one in marked], whole=True)
    empty = phantom & (answers[AS_IS]["labels"] == 0) & ~drawn & answers[AS_IS]["counted"]
    area = empty.sum((1, 2))
    called = lambda k: ((answers[k]["classes"] > 0) & empty).sum((1, 2))
    shares = np.stack([np.where(area, called(k) / np.maximum(area, 1), np.nan) for k in (GATHERED, AROUND)])
    return shares, np.stack([_dice(answers[k], ~drawn) for k in (GATHERED, AROUND)])


def _dice(answer: Arrays, where: np.ndarray) -> np.ndarray:
    counted = _sums(answer["labels"], answer["classes"], where & answer["counted"])
    return regional.dice_from_region_sums(np.asarray(counted))


_sums = jax.jit(regional.region_sums)


def _with_images(cases: pipeline.InMemory, images: Sequence[np.ndarray]) -> pipeline.InMemory:
    return dataclasses.replace(cases, images=np.stack(images))


def _seen_masks(subject: Subject, masks: Sequence[np.ndarray], *, whole: bool = False) -> np.ndarray:
    """Masks as the network sees their places, `[N,*n]`: what is touched in part counts, unless `whole`."""
    channels = subject.test.num_channels
    images = np.repeat((np.stack(masks) * np.uint8(255))[..., None], channels, -1)
    covered = subject.asks(lambda network, seen: {"cover": (seen["images"][..., 0] + 1.0) / 2.0})
    cover = covered(dataclasses.replace(subject.test.held(), images=images))["cover"]
    return cover > 0.5 if whole else cover > 1e-3


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """What marks give and what they take, with what filling in and strange strokes do by themselves beside it."""
    removal, insertion = _removal(subject, settings, arrays), _insertion(subject, settings, arrays)
    candidates = (*removal.candidates, *insertion.candidates)
    return Answer([*removal.rows, *insertion.rows], candidates, not_asked=removal.not_asked)


def _removal(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    patients, with_marks = subject.patients(settings.resamples), int(np.count_nonzero(arrays["marks"]))
    shares = patients.mean((arrays["marks"] > 0).astype(float))
    convention = "share of the test images on which coloured calipers or text are found"
    rows = [number("images with marks", shares, convention)]
    if with_marks < settings.least_cases:
        needed = f"at least {settings.least_cases} are needed, and gray ones are not sought"
        why = f"{with_marks} images with coloured marks; {needed}"
        nothing = not_asked(why, quantity="lost with the marks", where=ALL, undefined=len(subject.test))
        return Answer(rows, not_asked=[nothing])
    where = f"the {with_marks} images with marks, pixels that no filling touches"
    convention = f"{regional.WHAT}; found marks are filled in ({settings.removal}), or shapes like theirs beside them"
    as_is, beside, gone = arrays["removal"]
    lost = patients.contrast([(1.0, beside), (-1.0, gone)])
    told = {
        "Dice, as it is": patients.mean(as_is),
        "Dice, shapes beside the marks filled in": patients.mean(beside),
        "Dice, marks filled in": patients.mean(gone),
        "lost with the marks": lost,
    }
    rows += [number(what, estimate, convention, where=where) for what, estimate in told.items()]
    pairs = pictures.of_arrays(arrays, prefix="removal_")
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
            "overlays_removal", pairs, subject, "marks kept, filled in beside them", "marks filled in"
        ),
    )
    return Answer(rows, (candidate,))


def _insertion(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    patients = subject.patients(settings.resamples)
    where = "an empty place, outside the object and away from strokes"
    convention = "share of the pixels that calipers claim, and that are background, which the network calls foreground"
    gathered, around = arrays["insertion"]
    gained = patients.contrast([(1.0, around), (-1.0, gathered)])
    apart, close = arrays["insertion_dice"]
    damage = patients.contrast([(1.0, apart), (-1.0, close)])
    told = {
        "called foreground, the strokes in its middle": patients.mean(gathered),
        "called foreground, calipers at its ends": patients.mean(around),
        "called foreground because calipers enclose it": gained,
    }
    rows = [number(what, estimate, convention, where=where) for what, estimate in told.items()]
    away = f"{regional.WHAT}, pixels away from strokes"
    rows.append(number("Dice lost to calipers around an empty place", damage, away))
    pairs = pictures.of_arrays(arrays, prefix="insertion_")
    candidate = Candidate(
        kind=OVERLAY,
        name="overlays_insertion",
        title="The network believes calipers that measure nothing",
        sentence=(
            f"Calipers drawn around an empty place make the network call {text_of(gained)} of that place foreground, "
            "as a share of its pixels and beyond what the same strokes do in its middle."
        ),
        quantity="share of an empty place called foreground because of calipers",
        estimate=gained,
        margin=settings.margin,
        damage=damage.mean,
        remedy=(
            "Train on images without marks, or with calipers drawn at random places (jaxseg.data.overlays), so that "
            "they say nothing about the object."
        ),
        figure=pictures.figure(
            "overlays_insertion", pairs, subject, "strokes in the middle", "calipers around an empty place"
        ),
    )
    return Answer(rows, (candidate,))


PROBE = Probe("overlays", "Does the network segment by calipers and text?", "shortcuts", Settings, measure, tabulate)
