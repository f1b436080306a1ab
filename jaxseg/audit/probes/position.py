"""Position: what does each layer know of where it is? (Lin, Weng et al. 2024, Fig. 5.) Evidence, no findings."""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxseg.analysis import position
from jaxseg.audit import profiles
from jaxseg.audit.probe import Answer, Arrays, NotAskedError, Probe, plain
from jaxseg.audit.subject import Subject, evenly
from jaxseg.networks import Network
from jaxseg.settings import count


@dataclasses.dataclass(frozen=True)
class Settings:
    """See configs/audit.py."""

    profile_cases: int = count()
    position_folds: int = count(least=2)


def measure(subject: Subject, settings: Settings) -> Arrays:
    """How well the distance from the border can be read off every layer's features, `r2` `[L]`."""
    if subject.rank != 2:
        raise NotAskedError("the cases are volumes; the profile is made for pictures")
    cases = evenly(subject.test, settings.profile_cases)
    patients = np.unique(cases.patients, return_inverse=True)[1].astype(np.int32)
    if not patients.any():
        raise NotAskedError("the cases are of one patient; a cross-validation needs two")
    profiles.check(subject)
    folds = min(settings.position_folds, patients.max() + 1)
    states: dict[str, position.PositionStatistics] = {}
    view = subject.view_of(cases)

    @jax.jit
    def read(network: Network, batch: Any) -> tuple[dict[str, jax.Array], jax.Array | None]:
        seen = view(batch)
        return subject.features(network, seen)[1], seen.get("valid")

    @jax.jit
    def add(states: Any, features: dict[str, jax.Array], fold: jax.Array, valid: jax.Array | None) -> Any:
        return {name: position.update(states[name], features[name], fold, valid=valid) for name in states}

    for batch in subject.batches(cases):
        features, valid = read(subject.network, batch)
        states = states or {name: position.init(x.shape[-1], folds=folds) for name, x in features.items()}
        # a number that no fold has leaves the repetitions out
        states = add(states, features, np.where(batch["real"], patients[batch["index"]] % folds, folds), valid)
    return {"r2": np.array([float(position.compute(states[name])) for name in subject.layers], np.float32)}


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """A row per layer."""
    convention = "R² of a ridge regression from a pixel's features to its distance from the border, folds over patients"
    n, pairs = min(len(subject.test), settings.profile_cases), zip(subject.layers, arrays["r2"], strict=True)
    rows = [plain("knowledge of the border", r2, convention, where=name, n=n) for name, r2 in pairs]
    return profiles.answer(
        "position",
        rows,
        "What each layer knows of the border",
        "Line of R squared of the distance from the border by layer.",
        "How much of a pixel's distance from the border a linear map reads off its features: 1 is all, 0 nothing. "
        "Cross-validated over patients. After Lin, Weng et al. 2024, Fig. 5.",
        ylabel="R² of the distance",
    )


PROBE = Probe("position", "What does each layer know of where it is?", "layers", Settings, measure, tabulate)
