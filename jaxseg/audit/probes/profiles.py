"""Profiles over the layers: what each can do, and what each knows of where it is. Evidence, no findings.

That a layer knows something does not yet say that the network uses it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.analysis import position, prototypes
from jaxseg.audit.answers import Answer, Arrays, NotAskedError, Probe, plain_row, row
from jaxseg.audit.subject import Seen, Subject, evenly
from jaxseg.data import augment, pipeline
from jaxseg.metrics.intervals import bootstrap_mean
from jaxseg.models import capture
from jaxseg.models.layers import crop

ABILITY, POSITION = "ability", "position"


def features_of(subject: Subject, variables: Any, seen: Seen) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Logits, and the layers' activations over the image, without the margin that padding `valid` has.

    Args:
      subject: the network.
      variables: its variables.
      seen: images and labels as it sees them.
    """
    logits, found = capture.capture(subject.model, variables, seen["images"], subject.layers)
    sizes = seen["labels"].shape[1:]
    inside = lambda x: crop(x, sizes) if min(np.subtract(x.shape[1:-1], sizes)) > 0 else x
    return logits, {name: inside(found[name].astype(jnp.float32)) for name in subject.layers}


def measure_ability(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """Segmentation ability of every layer, `scores` `[L,N]` (He et al. 2022, section 4.4)."""

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        logits, found = features_of(subject, variables, seen)
        mask = 1.0 - jax.nn.softmax(logits)[..., 0]
        return {"scores": jnp.stack([prototypes.sa_score(x, mask, seen["labels"]) for x in found.values()], 1)}

    cases = evenly(subject.test, settings.profile_cases)
    return {"scores": subject.asks(question)(cases)["scores"].T, "patients": np.array(cases.patients)}


def tabulate_ability(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """A row per layer."""
    convention = "SA score: Dice of a layer's two-prototype map with the annotation, the network's soft output as mask"
    estimates = [bootstrap_mean(v, arrays["patients"], resamples=settings.resamples) for v in arrays["scores"]]
    pairs = zip(subject.layers, estimates, strict=True)
    return Answer([row(ABILITY, "segmentation ability", estimate, convention, where=name) for name, estimate in pairs])


def measure_position(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """How well the distance from the border can be read off every layer's features, `r2` `[L]`."""
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; the profile is made for pictures")
    cases = evenly(subject.test, settings.profile_cases)
    patients = np.unique(cases.patients, return_inverse=True)[1].astype(np.int32)
    count = len(np.unique(patients))
    if count < 2:
        raise NotAskedError("the cases are of one patient; a cross-validation needs two")
    folds = min(settings.position_folds, count)
    states: dict[str, position.PositionStatistics] = {}
    view = augment.testing_view(subject.view, size=subject.image_size, cases=cases.cases)
    read = jax.jit(lambda variables, batch: features_of(subject, variables, view(batch))[1])
    add = jax.jit(lambda states, found, fold: {k: position.update(states[k], found[k], fold) for k in states})
    for batch in pipeline.epoch(cases, batch_size=subject.batch_size):
        found = read(subject.variables, {name: batch[name] for name in ("image", "labels", "index")})
        states = states or {name: position.init(x.shape[-1], folds=folds) for name, x in found.items()}
        # a number that no fold has leaves the repetitions out
        states = add(states, found, np.where(batch["valid"], patients[batch["index"]] % folds, folds))
    return {"r2": np.array([float(position.compute(states[name])) for name in subject.layers], np.float32)}


def tabulate_position(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """A row per layer."""
    convention = (
        "R^2 of a ridge regression from a pixel's features to its distance from the border, folds over patients"
    )
    n = min(len(subject.test), settings.profile_cases)
    pairs = zip(subject.layers, arrays["r2"], strict=True)
    say = lambda name, r2: plain_row(POSITION, "knowledge of the border", float(r2), convention, where=name, n=n)
    return Answer([say(name, r2) for name, r2 in pairs])


ABILITY_PROBE = Probe(ABILITY, "What can each layer do?", measure_ability, tabulate_ability)
POSITION_PROBE = Probe(POSITION, "What does each layer know of where it is?", measure_position, tabulate_position)
