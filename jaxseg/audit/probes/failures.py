"""Failure detection: which score, computed without annotation, says which cases are segmented badly?"""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxseg.audit import profiles
from jaxseg.audit.probe import Answer, Arrays, Figure, Probe, not_asked, number, plain
from jaxseg.audit.subject import Subject
from jaxseg.data import pipeline
from jaxseg.errors import InputError
from jaxseg.metrics import ranking
from jaxseg.metrics.intervals import defined_mean
from jaxseg.models.autoencoder import Autoencoder
from jaxseg.report import figures
from jaxseg.results.table import Row
from jaxseg.scores import compute, registry
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK, LAYERS, Score
from jaxseg.scores.evidence import Asked, Known
from jaxseg.settings import count
from jaxseg.training.brief_fit import fit_autoencoder

_CORRELATION = "rank correlation"


@dataclasses.dataclass(frozen=True)
class Settings:
    """See configs/audit.py."""

    latent: int = count()
    autoencoder_width: int = count()
    autoencoder_steps: int = count()
    seed: int = count(least=0)
    resamples: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """Scores of every test case and its Dice: `dice` `[N,K-1]`, and `[N]` by the key of each score that can be had.

    Also `lacking` and `why` `[L]`, the needs of scores that are not there, and the reasons.
    """
    lacking = _lacking(subject)
    asked, known = Asked(None, subject.layers[-2:], subject.bottleneck), Known((subject.network,))
    if AUTOENCODER not in lacking:
        try:
            made, variables = _autoencoder(subject, settings)
            asked, known = dataclasses.replace(asked, autoencoder=made), known._replace(autoencoder=variables)
        except FloatingPointError as error:
            lacking[AUTOENCODER] = f"{error} (config.autoencoder_steps)"
    if BOTTLENECK not in lacking:
        assert subject.familiar is not None
        known = compute.fit_bottleneck(asked, known, *_seen(subject, subject.familiar))
    scores = registry.computable((AUTOENCODER, BOTTLENECK), without=lacking)
    values = compute.score_cases(asked, known, scores, *_seen(subject, subject.test))
    if subject.tiling:  # the segmentation that is to be judged is not that of the whole case at once
        values["dice"] = subject.dice()
    return values | {"lacking": np.array(list(lacking)), "why": np.array(list(lacking.values()))}


def _seen(subject: Subject, cases: pipeline.InMemory) -> tuple[compute.Batches, compute.View]:
    """Batches of cases, and the network's view of them."""
    return pipeline.epoch(cases, batch_size=subject.batch_size), subject.view_of(cases)


def _lacking(subject: Subject) -> dict[str, str]:
    """What scores need and cannot have of this subject -> why."""
    lacking = {} if subject.layers else {LAYERS: profiles.NO_LAYERS}
    if subject.bottleneck is None:
        return lacking | dict.fromkeys(
            (AUTOENCODER, BOTTLENECK), "the network does not say which layer is its bottleneck"
        )
    if subject.familiar is None:
        return lacking | dict.fromkeys((AUTOENCODER, BOTTLENECK), "there are no cases like those of its training")
    if why := _no_autoencoder(subject, subject.bottleneck):
        lacking[AUTOENCODER] = why
    return lacking


def _no_autoencoder(subject: Subject, bottleneck: str) -> str:
    """Why none can be fitted; empty where it can."""
    network = subject.network
    if network.margin:
        return "with padding 'valid' the bottleneck is larger than the image"
    if not network.differentiable:
        return "the network has no gradient, by which an autoencoder is fitted"
    own: Any = jax.eval_shape(lambda images: network.activations(images, (bottleneck,)), subject.image)
    try:
        jax.eval_shape(network.replaced, subject.image, own)
    except InputError as error:
        return str(error)
    return ""


def _autoencoder(subject: Subject, settings: Settings) -> tuple[Autoencoder, dict[str, Any]]:
    assert subject.familiar is not None
    return fit_autoencoder(
        None,
        subject.network,
        subject.familiar,
        view=subject.view,
        size=subject.resized,
        batch_size=subject.batch_size,
        steps_taken=settings.autoencoder_steps,
        latent=settings.latent,
        width=settings.autoencoder_width,
        seed=settings.seed,
    )


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """The league: rank correlation with the error, and the risk that is left where the worst are set aside."""
    error, patients = 1.0 - defined_mean(arrays["dice"]), subject.patients(settings.resamples)
    league: dict[Score, Row] = {}
    rows = []
    for score in registry.SCORES.values():
        if score.key not in arrays:
            continue
        what, risk = f"{score.risk_meaning}, against 1 - Dice", score.risk(arrays[score.key])
        estimate = patients.spearman(risk, error)
        league[score] = number(_CORRELATION, estimate, f"Spearman; {what}", where=score.name)
        curve = ranking.risk_coverage(risk, error)
        counts = {"n": curve.n, "undefined": curve.undefined}
        rows += [league[score], plain("area under risk and coverage", curve.aurc, what, where=score.name, **counts)]
    why = dict(zip(arrays["lacking"], arrays["why"], strict=True))
    nothing = [
        not_asked("; ".join(why[need] for need in sorted(score.needs) if need in why), where=score.name)
        for score in registry.SCORES.values()
        if score.needs & set(why)
    ]
    return Answer(rows, figures=[_figure(list(league.values()))], advice=_advice(league), not_asked=nothing)


def _figure(league: list[Row]) -> Figure:
    shown = [(row["where"], "", *row.numbers) for row in league]
    return Figure(
        "failures",
        "How well each score orders the failures",
        "Dots with intervals of the rank correlation of every score with 1 - Dice.",
        "Spearman's rank correlation with 1 - Dice; 1 orders all cases rightly, 0 none. After Lennartz, Schultz 2023.",
        lambda path: figures.dots(path, shown, xlabel="rank correlation with 1 - Dice"),
    )


def best_score(league: dict[Score, Row]) -> Score | None:
    """The score that orders failures best, if its interval lies above 0."""
    above = {score: row.estimate.mean for score, row in league.items() if row.estimate.low > 0}
    return max(above, key=above.__getitem__) if above else None


def _advice(league: dict[Score, Row]) -> str:
    best = best_score(league)
    if best is None:
        return "No score orders the failures of this network; do not rely on flags, check a random sample."
    flags = f" ({best.flags})" if best.flags else ""
    return (
        f"Have the cases with the worst {best.name} looked at{flags}: of the scores that need no annotation it orders "
        f"failures best, with a rank correlation of {league[best].text()}."
    )


def _wanted(subject: Subject) -> list[str]:
    return [score.key for score in registry.computable((AUTOENCODER, BOTTLENECK), without=_lacking(subject))]


PROBE = Probe("failures", "Which score predicts failures?", "trust", Settings, measure, tabulate, _wanted)
