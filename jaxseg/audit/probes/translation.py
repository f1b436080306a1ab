"""Translation: does an object disappear because it lies at the border? (Lin, Weng et al. 2024, section 4.)

Compared is recall, the share of the object's pixels that are found: of windows as they are cut, and of the same windows
with all painted over that one of them shows alone. What a network makes of background near the border is a number of
its own: new objects there are harm of another kind.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxseg.audit import border_windows, pictures
from jaxseg.audit.probe import BORDER, Answer, Arrays, Candidate, Kind, Probe, number, weakest
from jaxseg.audit.subject import Seen, Subject, strip_width
from jaxseg.metrics.intervals import Estimate
from jaxseg.networks import Network
from jaxseg.results.patients import Patients
from jaxseg.results.text import estimate_text, text_of
from jaxseg.settings import share

FALSE_OBJECTS = Kind("false objects")
_PLACES = ("near", "rest")
_WINDOWS = (*border_windows.WINDOWS, *(f"{one}, the rest painted over" for one in border_windows.WINDOWS))


@dataclasses.dataclass(frozen=True)
class Settings(border_windows.Settings):
    """See configs/audit.py."""

    recall_margin: float = share()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """What the network makes of the same pixels inside a window and at the border of another.

    Returns:
      `found` and `called` `[2,4,N]`: share of the object's pixels, and of the background's, that are called object,
      near the line and further from it, in the two windows and in the painted ones, all sides together; `dice` `[4,N]`
      of those near it; `quarters` of an image's side that windows are long; `cut` bool `[S,N]`, at which sides objects
      were cut; and a few cases as of `pictures.Pairs.arrays`.
    """

    def question(network: Network, seen: Seen, made: border_windows.Cut) -> border_windows.Told:
        four = jnp.concatenate([made.images, made.painted])
        classes = subject.predict(network, four.reshape(-1, *four.shape[2:])).reshape(four.shape[:-1])
        called = jnp.concatenate([made.matched(classes[:2]), made.matched(classes[2:])]) > 0
        there = made.labels[1] > 0
        counts, axes = {}, range(1, there.ndim)
        for place, where in zip(_PLACES, (made.near, made.rest), strict=True):
            for kind, of_kind in (("object", there & where), ("background", ~there & where)):
                counts[f"{place} {kind}"] = jnp.sum(of_kind, axes)
                counts[f"{place} {kind} called"] = jnp.stack([jnp.sum(one & of_kind, axes) for one in called], 1)
        inside, at_border, *_ = counts["near object called"].T
        counts[border_windows.EFFECT] = inside - at_border
        return counts | made.recalled(classes[0]), (made.images, made.labels, classes[:2])

    asked = border_windows.ask(subject, question, settings, with_lines=True)
    answer = asked.counts
    rate = lambda kind: np.stack([_rate(answer[f"{p} {kind} called"], answer[f"{p} {kind}"]) for p in _PLACES])
    found, quarters = rate("object"), np.array(asked.windows.quarters)
    shown = asked.show(pictures.largest(found[0, 0] - found[0, 1], settings.examples)).arrays()
    told = {"found": found, "called": rate("background"), "dice": _dice(answer)}
    return told | {"quarters": quarters, "cut": asked.cut} | shown


def _rate(called: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """`[N,4]` of `[N]` -> `[4,N]`, NaN where there are no pixels."""
    return np.where(pixels, called.T / np.maximum(pixels, 1), np.nan)


def _dice(answer: Arrays) -> np.ndarray:
    """Of the pixels near the line, `[4,N]`."""
    called, wrong = answer["near object called"].T, answer["near background called"].T
    there = answer["near object"]
    return np.where(there, 2 * called / np.maximum(called + wrong + there, 1), np.nan)


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """How much of an object is found near the line in both windows, and what the border takes of it."""
    patients, width = subject.patients(settings.resamples), strip_width(subject, settings.border_share)
    places = (f"within {width} of {subject.shorter} px of the line", "further from it")
    cut_as = border_windows.Windows(subject.sides, width, int(arrays["quarters"]))
    windows = f"{cut_as}; pixels that both show"
    rows = []
    for quantity, name in (("recall", "found"), ("background called object", "called")):
        for values, place in zip(arrays[name], places, strict=True):
            told = {f"{quantity}, {w}": patients.mean(v) for w, v in zip(_WINDOWS, values, strict=True)}
            told[f"{quantity}, inside minus at the border"] = patients.difference(values[0], values[1])
            rows += [number(what, one, f"share of pixels; {windows}", where=place) for what, one in told.items()]
    lost = _lost(patients, arrays)
    painted = f"{windows}; what one window alone shows is painted over in the colour of the background"
    rows.append(number("recall lost, the rest painted over", lost["alike"], painted, where=places[0]))
    rows.append(number("Dice lost", lost["dice"], f"foreground against background; {windows}", where=places[0]))
    candidates = _given_up(subject, settings, arrays, lost, cut_as), _made_up(subject, settings, arrays, width)
    uncut = cut_as.uncut(arrays["cut"])
    return Answer(rows, candidates, text=(uncut,) if uncut else ())


def _lost(patients: Patients, arrays: Arrays) -> dict[str, Estimate]:
    near, rest = arrays["found"]
    return {
        "near": patients.difference(near[0], near[1]),
        "rest": patients.difference(rest[0], rest[1]),
        "alike": patients.difference(near[2], near[3]),
        "dice": patients.difference(*arrays["dice"][:2]),
    }


def _given_up(
    subject: Subject,
    settings: Settings,
    arrays: Arrays,
    lost: Mapping[str, Estimate],
    cut_as: border_windows.Windows,
) -> Candidate:
    near, further = lost["near"], lost["rest"]
    changed = estimate_text(-further.mean, -further.high, -further.low)
    return Candidate(
        kind=BORDER,
        name="translation",
        title="Objects at the image's border are given up",
        sentence=(
            "The same part of an object lies at the border of one window and inside another, of one image and scale. "
            f"Of its pixels within {cut_as.width} px of the border the share that the network finds is {text_of(near)} "
            f"lower at the border; of those further in it changes by {changed}. With all painted over that one of the "
            f"windows shows alone, it is {text_of(lost['alike'])} lower at the border. (Of the two the weaker counts.)"
        ),
        quantity="recall lost near the border",
        # the first may be for what is seen beside it, such as other objects; the second is of pictures that are strange
        estimate=weakest([near, lost["alike"]], settings.recall_margin),
        margin=settings.recall_margin,
        damage=lost["dice"].mean,
        remedy=(
            "Train on views in which objects touch the border: random quadrants (config.data.view=quadrant) or "
            "translations (config.data.augmentation.translate). Padding that does not mark the border "
            "(config.model.padding=reflect or valid) makes the cue harder to learn, not impossible. Until then, check "
            "images whose object touches the border by eye."
        ),
        figure=pictures.figure(
            "translation",
            pictures.of_arrays(arrays),
            subject,
            "the border far away",
            "the border close by",
            parts=(
                f"Two windows of one image, of {cut_as.length}, enlarged to its size. The dashed line runs through the "
                "object: it lies inside the first window, and is the border of the second, at the side that is named. "
                "Of what both windows show, the same pixels are compared."
            ),
        ),
        hidden=_hidden(settings, arrays["found"][0], lost, cut_as),
    )


def _hidden(settings: Settings, found: np.ndarray, lost: Mapping[str, Estimate], cut_as: border_windows.Windows) -> str:
    """Why a loss near the border cannot be told, of recall `[4,N]` there; empty where it can."""
    margin = settings.recall_margin
    inside, _, painted, _ = np.nanmean(found, -1)
    if inside < settings.least_recall:
        of, seen = f"windows of {cut_as.length}, enlarged,", inside
    elif painted < settings.least_recall and lost["near"].high > margin >= lost["alike"].low:
        of, seen = f"windows of {cut_as.length} whose rest is painted over", painted
    else:
        return ""
    return (
        f"of objects in {of} the network finds {seen:.0%} where no border is near, and a loss could be seen from "
        f"{settings.least_recall:.0%} on"
    )


def _made_up(subject: Subject, settings: Settings, arrays: Arrays, width: int) -> Candidate:
    patients = subject.patients(settings.resamples)
    inside, at_border, *_ = arrays["called"][0]
    more = patients.difference(at_border, inside)
    return Candidate(
        kind=FALSE_OBJECTS,
        name="objects at the border",
        title="Background at the image's border is called object",
        sentence=(
            f"Within {width} px of the border {text_of(more)} more of the background is called object than of the same "
            "pixels with the border far away."
        ),
        quantity="share of background near the border that is called object, beyond that inside",
        estimate=more,
        margin=settings.margin,
        damage=patients.difference(*arrays["dice"][:2]).mean,
        remedy="Train on views in which background lies at the border too; check what is found there by eye.",
    )


PROBE = Probe("translation", "Do objects disappear at the border?", "shortcuts", Settings, measure, tabulate)
