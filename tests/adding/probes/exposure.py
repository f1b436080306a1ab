"""Exposure: does the network depend on how bright an image is? A probe in one file, as ARCHITECTURE.md says."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxseg.audit import pictures
from jaxseg.audit.probe import Answer, Arrays, Candidate, Kind, NotAskedError, Probe, number
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data import augment
from jaxseg.metrics import overlap
from jaxseg.metrics.intervals import defined_mean
from jaxseg.networks import Network
from jaxseg.results.text import text_of
from jaxseg.settings import count, share

EXPOSURE = Kind("exposure", is_shortcut=True)


@dataclasses.dataclass(frozen=True)
class Settings:
    """By which factor images are darkened, beside what every probe reads."""

    darker: float = share(default=0.5)
    margin: float = share()
    examples: int = count()
    resamples: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """Dice `[2,N]` as it is and darkened, and a few cases."""
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; exposure is of pictures")

    def question(network: Network, seen: Seen) -> dict[str, Any]:
        images = jnp.stack([seen["images"], settings.darker * (seen["images"] + 1.0) - 1.0], 1)
        classes = jnp.stack([subject.predict(network, images[:, i]) for i in range(2)], 1)
        dice = [overlap.dice(seen["labels"], classes[:, i], num_classes=subject.test.num_classes) for i in range(2)]
        labels = jnp.stack([seen["labels"]] * 2, 1).astype(jnp.uint8)
        shown = {"images": augment.levels(images), "labels": labels, "classes": classes.astype(jnp.uint8)}
        return {"dice": jnp.stack(dice, 1), "pictures": shown}

    asked = subject.asks(question)
    dice = defined_mean(asked(subject.test)["dice"]).T
    chosen = pictures.largest(dice[0] - dice[1], settings.examples)
    return {"dice": np.asarray(dice)} | pictures.of(asked, subject.test, chosen).arrays()


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """What darkness costs."""
    lost = subject.patients(settings.resamples).difference(*arrays["dice"])
    candidate = Candidate(
        kind=EXPOSURE,
        name="exposure",
        title="The network depends on exposure",
        sentence=f"In darker images the Dice falls by {text_of(lost)}.",
        quantity="Dice lost in darker images",
        estimate=lost,
        margin=settings.margin,
        damage=lost.mean,
        remedy="Vary brightness in training.",
        figure=pictures.figure("exposure", pictures.of_arrays(arrays), subject, "as it is", "darker"),
    )
    return Answer([number("lost", lost, "Dice as it is minus that of darker images")], (candidate,))


PROBE = Probe("exposure", "Does it depend on exposure?", "shortcuts", Settings, measure, tabulate)
