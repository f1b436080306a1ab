"""Domains: does the network read the scanner's gray levels, and how far apart are its activations?

The intervention: images of one domain get the gray levels of another, by the monotone map that takes the one domain's
histogram to the other's. Anatomy stays as it is, pixel by pixel, so that harder cases in a domain cannot pass for it.
But a histogram also tells how much of what is in the images: between domains that differ in that, or in their marks,
the number is not of the scanner alone.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.analysis import hellinger
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
    plain_row,
    row,
)
from jaxseg.audit.probes.accuracy import reference_domain
from jaxseg.audit.subject import Seen, Subject, evenly
from jaxseg.data import augment
from jaxseg.metrics import regional
from jaxseg.models import capture

SCANNER, DISTANCES = "gray levels", "distances"


def _reference(subject: Subject) -> str:
    reference = reference_domain(subject)
    if reference is None:
        raise NotAskedError("all cases are of one domain")
    return reference


def gray_map(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The monotone map of 256 gray levels that takes one histogram to another, per channel.

    A level goes to the target's quantile at the middle of its own step of the cumulated histogram, so that equal
    histograms map to themselves.

    Args:
      source: uint8 `[...,C]`.
      target: uint8 `[...,C]`.

    Returns:
      uint8 `[C,256]`.
    """
    maps = []
    for channel in range(source.shape[-1]):
        counts = [np.bincount(x[..., channel].ravel(), minlength=256).astype(float) for x in (source, target)]
        shares = [count / count.sum() for count in counts]
        middle = np.cumsum(shares[0]) - shares[0] / 2
        ends = np.cumsum(shares[1])
        maps.append(np.clip(np.searchsorted(ends, middle), 0, 255))
    return np.stack(maps).astype(np.uint8)


def measure_scanner(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """The reference domain's cases in the gray levels of the others.

    Returns:
      `names` `[D]`, the other domains; `own` `[N]` and `theirs` `[D,N]`: Dice with own and with their gray levels, NaN
      for cases of other domains; pictures of the worst.
    """
    reference = _reference(subject)
    domains = np.array(subject.test.domains)
    here = domains == reference
    own_images = subject.test.images[here]

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        classes = subject.predict(variables, seen["images"])
        everywhere = jnp.ones(classes.shape, bool)
        return {
            "counts": regional.region_sums(seen["labels"], classes, everywhere),
            "classes": classes.astype(jnp.uint8),
            "labels": seen["labels"].astype(jnp.uint8),
            "images": augment.levels(seen["images"]),
        }

    asked = subject.asks(question)
    own = asked(subject.test)
    names = [name for name in sorted(set(subject.test.domains)) if name != reference]
    answers = []
    for name in names:
        levels = gray_map(own_images, subject.test.images[domains == name])
        mapped = np.stack([levels[c][subject.test.images[..., c]] for c in range(levels.shape[0])], -1)
        answers.append(asked(dataclasses.replace(subject.test, images=mapped)))
    of_here = lambda answer: np.where(here, regional.dice_from_region_sums(answer["counts"]), np.nan)
    theirs = np.stack([of_here(answer) for answer in answers])
    lost = of_here(own) - theirs
    worst = int(np.argmax(np.nan_to_num(np.nanmean(lost, 1), nan=-np.inf)))
    pictures = {"chosen": np.zeros(0, int)}
    if subject.rank == 2:
        chosen = largest(lost[worst], settings.examples)
        part = lambda what: np.stack([own[what][chosen], answers[worst][what][chosen]], 1)
        pictures = {"chosen": chosen, "pictures": part("images")} | {
            f"picture_{name}": part(name) for name in ("labels", "classes")
        }
    return {"names": np.array(names), "own": of_here(own), "theirs": theirs, "worst": np.array(worst)} | pictures


def tabulate_scanner(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """What the gray levels of every other domain cost, and of all of them on average."""
    reference = _reference(subject)
    convention = (
        f"{regional.WHAT}; cases of {reference} whose gray levels are mapped so that their histogram is that of "
        "the other domain"
    )
    own, theirs = arrays["own"], arrays["theirs"]
    rows = [row(SCANNER, "Dice, own gray levels", mean_of(own, subject, settings), convention, where=reference)]
    for name, values in zip(arrays["names"], theirs, strict=True):
        where = f"{reference}, gray levels of {name}"
        rows.append(row(SCANNER, "Dice", mean_of(values, subject, settings), convention, where=where))
        rows.append(row(SCANNER, "lost", difference(own, values, subject, settings), convention, where=where))
    lost = difference(own, theirs.mean(0), subject, settings)
    where = f"{reference}, mean over the gray levels of the others"
    rows.append(row(SCANNER, "lost", lost, convention, where=where))
    worst = arrays["names"][int(arrays["worst"])]
    several = len(theirs) > 1
    whose = "another domain" if several else f"domain {worst}"
    told = f" on average over the {len(theirs)} others; those of {worst} cost most" if several else ""
    candidate = Candidate(
        kind="scanner",
        probe=SCANNER,
        title="The network relies on its scanner's gray levels",
        sentence=(
            f"When images of domain {reference} get the gray levels of {whose} and keep their anatomy, the Dice falls "
            f"by {amount(lost)}{told}. (These are gray levels of whole images, which also tell how much of what is in "
            "them.)"
        ),
        quantity="Dice lost to another domain's gray levels",
        estimate=lost,
        margin=settings.margin,
        damage=lost.mean,
        remedy=(
            "Train on cases of more scanners, or vary brightness, contrast and gamma in training; otherwise bring new "
            "images to the training set's histogram first."
        ),
    )
    return Answer(rows, (candidate,))


def measure_distances(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """Hellinger distance of every other domain's activations from the reference's (Wilm et al. 2024, Eqs. 4 to 10).

    Returns:
      `names` `[D]`; `distance` `[D,L]` of every layer, mean over channels; `null` `[L]`, the mean distance of random
      halves of the reference domain.
    """
    reference = _reference(subject)
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; activations are pooled from pictures")
    cases = evenly(subject.test, settings.profile_cases)
    domains = np.array(cases.domains)
    if (domains == reference).sum() < 4:
        raise NotAskedError(f"{reference} has fewer than 4 cases, too few for two halves")
    names = sorted(set(cases.domains) - {reference})
    side = max(subject.image_size // settings.grid_share, 1)

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        found = capture.capture(subject.model, variables, seen["images"], subject.layers)[1]
        pooled = [hellinger.pool_vectors(found[name], grid=(side, side)) for name in subject.layers]
        # channels are independent: all layers side by side are one program
        return {"vectors": jnp.concatenate(pooled, -1).reshape(len(seen["images"]), side * side, -1)}

    vectors = subject.asks(question)(cases)["vectors"]
    of = lambda name: jnp.asarray(vectors[domains == name].reshape(-1, vectors.shape[-1]))
    channels = [np.asarray(hellinger.hellinger_distance(of(reference), of(name))) for name in names]
    halves = hellinger.split_half_null(jax.random.key(0), jnp.asarray(vectors[domains == reference]), splits=20)
    ends = np.cumsum(_widths(subject))
    layers = lambda values: np.stack([part.mean(-1) for part in np.split(np.asarray(values), ends[:-1], -1)], -1)
    return {"names": np.array(names), "distance": layers(np.stack(channels)), "null": layers(halves).mean(0)}


def _widths(subject: Subject) -> list[int]:
    """Channels of every layer."""
    read = lambda variables, images: capture.capture(subject.model, variables, images, subject.layers)[1]
    found: Any = jax.eval_shape(read, subject.variables, subject.image)
    return [found[name].shape[-1] for name in subject.layers]


def tabulate_distances(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """A row per domain and layer, with the null of the layer."""
    reference = _reference(subject)
    n = min(len(subject.test), settings.profile_cases)
    convention = "Hellinger distance of pooled activations, 100 bins over the joint range, mean over channels"
    say = lambda name, value, where: plain_row(DISTANCES, name, float(value), convention, where=where, n=n)
    rows = [
        say(f"distance of {domain} from {reference}", value, layer)
        for domain, values in zip(arrays["names"], arrays["distance"], strict=True)
        for layer, value in zip(subject.layers, values, strict=True)
    ]
    pairs = zip(subject.layers, arrays["null"], strict=True)
    return Answer(rows + [say(f"between halves of {reference}", value, layer) for layer, value in pairs])


SCANNER_PROBE = Probe(SCANNER, "Does it rely on its scanner's gray levels?", measure_scanner, tabulate_scanner)
DISTANCES_PROBE = Probe(
    DISTANCES, "How far apart are the domains in its activations?", measure_distances, tabulate_distances
)
