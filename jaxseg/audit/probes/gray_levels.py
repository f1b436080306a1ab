"""Gray levels: does the network rely on those of its scanner?

The intervention: images of one domain get the gray levels of another, by the monotone map that takes the one domain's
histogram to the other's. Anatomy stays as it is, pixel by pixel, so that harder cases in a domain cannot pass for it.
As a histogram also tells how much of what is in the images, the other domain's is made of those of its objects and of
its background, as much of each as the first domain has: larger objects in a domain cannot pass for its scanner. Nor can
a label on its images, as the darkest and the brightest pixels of the background are left out of both histograms. What
is not annotated, larger labels, and noise, which widens a histogram, still can.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxseg.audit import levels, pictures
from jaxseg.audit.probe import SCANNER, Answer, Arrays, Candidate, NotAskedError, Probe, number
from jaxseg.audit.probes.accuracy import reference_domain
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data import pipeline
from jaxseg.metrics import regional
from jaxseg.metrics.intervals import Estimate
from jaxseg.networks import Network
from jaxseg.results.text import text_of
from jaxseg.settings import count, share

_TRIMMED = 0.05  # of the background's pixels at each end of its histogram, more than labels take


@dataclasses.dataclass(frozen=True)
class Settings:
    """See configs/audit.py."""

    margin: float = share()
    examples: int = count()
    resamples: int = count()


def gray_map(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The monotone map of 256 gray levels that takes one histogram to another, per channel.

    A level goes to the target's quantile at the middle of its own step of the cumulated histogram, so that equal
    histograms map to themselves; one that the source does not have is moved as its neighbours are.

    Args:
      source: pixels of every level, `[C,256]`.
      target: the same.

    Returns:
      uint8 `[C,256]`.
    """
    maps = []
    for counts in zip(source, target, strict=True):
        shares = [count / count.sum() for count in counts]
        middle = np.cumsum(shares[0]) - shares[0] / 2
        there, everything = np.flatnonzero(counts[0]), np.arange(256)
        goes = np.clip(np.searchsorted(np.cumsum(shares[1]), middle[there]), 0, 255)
        maps.append(np.rint(everything + np.interp(everything, there, goes - there)))
    return np.clip(maps, 0, 255).astype(np.uint8)


def histograms(cases: Iterable[pipeline.Case]) -> np.ndarray:
    """How many pixels of background and object that count have every gray level, float `[2,C,256]`."""
    totals: Any = 0.0
    for case in cases:
        found, valid = levels.of_case(case), case.get("valid", np.ones(case["labels"].shape, bool))
        parts = (found[valid & (there == (case["labels"] > 0))] for there in (False, True))
        totals += np.array([[np.bincount(channel, minlength=256) for channel in part.T] for part in parts], float)
    return totals


def trimmed(counts: np.ndarray) -> np.ndarray:
    """Of `histograms`, without the ends of the background's."""
    background, objects = counts
    total = background.sum(-1, keepdims=True)
    below = np.clip(np.cumsum(background, -1), _TRIMMED * total, (1 - _TRIMMED) * total)
    return np.stack([np.diff(below, axis=-1, prepend=_TRIMMED * total), objects])


def as_composed(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """A domain's gray levels `[C,256]`, with as much of object and background as another has.

    Args:
      target: of `histograms`, `[2,C,256]`.
      source: the same of the other domain; what the target has nothing of is taken from its whole.
    """
    amounts = target.sum(-1, keepdims=True)
    whole = target.sum(0) / target.sum((0, 2))[:, None]
    shares = np.where(amounts > 0, target / np.maximum(amounts, 1), whole)
    return (shares * source.sum(-1, keepdims=True)).sum(0)


def mapped(case: pipeline.Case, mapping: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The image of a case in other gray levels; what is padded stays.

    Between levels, and of images with more of them than 256, the map is the line from one level that it was made of to
    the next; a level that it leaves alone stays as it is, to the bit.

    Args:
      case: as a network is given it, with `scale` unless it is uint8, and `inside` unless it covers its grid.
      mapping: of `gray_map`, uint8 `[C,256]`.
      known: bool `[C,256]`, the levels that it was made of.
    """
    place, scale, channels = levels.place(case), levels.scale(case), range(len(mapping))
    image = case["image"].copy()
    inside = image[place]
    if scale is None:
        image[place] = np.stack([mapping[c][inside[..., c]] for c in channels], -1)
        return image
    before = scale.levels(inside)
    shifts = np.stack([_shift(before[..., c], mapping[c], known[c]) for c in channels], -1)
    image[place] = np.clip(inside + shifts * (scale.white - scale.black) / 255, scale.least, scale.most)
    return image


def _shift(before: np.ndarray, mapping: np.ndarray, known: np.ndarray) -> np.ndarray:
    """By how many levels values move; beyond the outermost levels, as these."""
    there = np.flatnonzero(known)
    return np.interp(before, there, mapping[there].astype(float) - there).astype(np.float32)


def measure(subject: Subject, settings: Settings) -> Arrays:
    """The reference domain's cases in the gray levels of the others.

    Returns:
      `names` `[D]`, the other domains; `own` `[N]` and `theirs` `[D,N]`: Dice with own and with their gray levels, NaN
      for cases of other domains; `worst`, the number of the costliest domain, and a few cases in its gray levels.
    """
    reference = reference_domain(subject)
    if reference is None:
        raise NotAskedError("all cases are of one domain")
    domains = np.array(subject.test.domains)
    names = [name for name in sorted(set(subject.test.domains)) if name != reference]
    here = np.flatnonzero(domains == reference)
    of_domain = lambda name: trimmed(histograms(subject.test.take(np.flatnonzero(domains == name))))
    own, *others = map(of_domain, (reference, *names))
    maps = [gray_map(own.sum(0), as_composed(one, own)) for one in others]

    def question(network: Network, seen: Seen) -> dict[str, Any]:
        images = jnp.concatenate([seen["images"][:, None], seen["made"]], 1)
        classes = subject.predict(network, images.reshape(-1, *images.shape[2:])).reshape(images.shape[:-1])
        several = lambda array: jnp.broadcast_to(array[:, None], classes.shape)
        region = several(seen["valid"]) if "valid" in seen else jnp.ones(classes.shape, bool)
        sums = regional.region_sums(several(seen["labels"]), classes, region)
        told = pictures.told(seen, images, several(seen["labels"]), classes)
        return {"sums": sums.sum(tuple(range(2, sums.ndim - 1))), "pictures": told}  # over the slices of a volume

    def made(case: pipeline.Case, place: int) -> dict[str, np.ndarray]:
        return {"images": np.stack([mapped(case, one, own.sum(0) > 0) for one in maps])}

    asked, cases = subject.asks(question, batch_size=_batch(subject, len(names)), make=made), subject.test.take(here)
    dice = np.full((1 + len(names), len(domains)), np.nan)
    dice[:, here] = regional.dice_from_region_sums(asked(cases)["sums"]).T
    lost = dice[0] - dice[1:]
    worst = int(np.argmax(np.nan_to_num(np.nanmean(lost, 1), nan=-np.inf)))
    chosen = pictures.largest(lost[worst, here], settings.examples)
    pairs = dataclasses.replace(pictures.of(asked, cases, chosen, both=(0, 1 + worst)), chosen=here[chosen])
    return {"names": np.array(names), "own": dice[0], "theirs": dice[1:], "worst": np.array(worst)} | pairs.arrays()


def _batch(subject: Subject, others: int) -> int:
    return max(subject.batch_size // (1 + others), 1)


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """What the gray levels of every other domain cost, and of all of them on average."""
    reference, patients = reference_domain(subject), subject.patients(settings.resamples)
    convention = (
        f"{regional.WHAT}; cases of {reference} whose gray levels are mapped so that their histogram is that of "
        f"the other domain, with as much of object and background as they have, {_TRIMMED:.0%} at each end of the "
        "background's left out"
    )
    own, theirs = arrays["own"], arrays["theirs"]
    rows = [number("Dice, own gray levels", patients.mean(own), convention, where=str(reference))]
    for name, values in zip(arrays["names"], theirs, strict=True):
        where = f"{reference}, gray levels of {name}"
        rows.append(number("Dice", patients.mean(values), convention, where=where))
        rows.append(number("Dice lost", patients.difference(own, values), convention, where=where))
    lost = patients.difference(own, theirs.mean(0))
    rows.append(number("Dice lost", lost, convention, where=f"{reference}, mean over the gray levels of the others"))
    return Answer(rows, (_candidate(subject, settings, arrays, lost),))


def _candidate(subject: Subject, settings: Settings, arrays: Arrays, lost: Estimate) -> Candidate:
    names, reference = arrays["names"], reference_domain(subject)
    worst = names[int(arrays["worst"])]
    whose = "another domain" if len(names) > 1 else f"domain {worst}"
    told = f" on average over the {len(names)} others; those of {worst} cost most" if len(names) > 1 else ""
    return Candidate(
        kind=SCANNER,
        name="gray levels",
        title="The network relies on its scanner's gray levels",
        sentence=(
            f"When images of domain {reference} get the gray levels of {whose} and keep their anatomy, the Dice falls "
            f"by {text_of(lost)}{told}."
        ),
        quantity="Dice lost to another domain's gray levels",
        estimate=lost,
        margin=settings.margin,
        damage=lost.mean,
        remedy=(
            "Train on cases of more scanners, or vary brightness, contrast and gamma in training; otherwise bring new "
            "images to the training set's histogram first."
        ),
        figure=pictures.figure(
            "gray levels", pictures.of_arrays(arrays), subject, "own gray levels", "another domain's"
        ),
    )


PROBE = Probe("gray levels", "Does it rely on its scanner's gray levels?", "shortcuts", Settings, measure, tabulate)
