"""Ability: how well does each layer separate the object? (He et al. 2022, section 4.4.) Evidence, no findings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis import prototypes
from jaxseg.audit import profiles
from jaxseg.audit.probe import Answer, Arrays, Probe, number
from jaxseg.audit.subject import Seen, Subject, evenly
from jaxseg.networks import Network
from jaxseg.results.patients import Patients
from jaxseg.settings import count


@dataclasses.dataclass(frozen=True)
class Settings:
    """See configs/audit.py."""

    profile_cases: int = count()
    resamples: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """Segmentation ability of every layer, `scores` `[L,N]`."""

    profiles.check(subject)

    def question(network: Network, seen: Seen) -> dict[str, jax.Array]:
        logits, activations = subject.features(network, seen)
        mask = 1.0 - jax.nn.softmax(logits)[..., 0]
        score = lambda features: prototypes.sa_score(features, mask, seen["labels"], region=seen.get("valid"))
        return {"scores": jnp.stack([score(features) for features in activations.values()], 1)}

    cases = evenly(subject.test, settings.profile_cases)
    return {"scores": subject.asks(question)(cases)["scores"].T, "patients": np.array(cases.patients)}


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """A row per layer."""
    convention = (
        "SA score, segmentation ability: Dice of a layer's two-prototype map with the annotation, the network's soft "
        "output as mask"
    )
    patients = Patients(arrays["patients"], settings.resamples)
    pairs = zip(subject.layers, arrays["scores"], strict=True)
    rows = [number("segmentation ability", patients.mean(v), convention, where=layer) for layer, v in pairs]
    return profiles.answer(
        "ability",
        rows,
        "Segmentation ability, layer by layer",
        "Line of the segmentation ability score by layer.",
        "SA, segmentation ability: how well two prototypes of a layer's features separate the object, as Dice, 1 is "
        "best; after He et al. 2022.",
        ylabel="SA score",
        limits=(0.0, 1.0),
    )


PROBE = Probe("ability", "What can each layer do?", "layers", Settings, measure, tabulate)
