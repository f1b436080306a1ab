"""Failure detection: which score, computed without annotation, says which cases are segmented badly?"""

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np

from jaxseg.audit import profiles
from jaxseg.audit.probe import Answer, Arrays, Figure, Probe, not_asked, number, plain
from jaxseg.audit.subject import Subject
from jaxseg.errors import InputError
from jaxseg.metrics import ranking
from jaxseg.metrics.intervals import defined_mean
from jaxseg.models.autoencoder import Autoencoder
from jaxseg.report import figures
from jaxseg.results.table import Row
from jaxseg.scores import compute, registry
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK, CHECKPOINTS, ENSEMBLE, LAYERS, Score
from jaxseg.scores.evidence import Asked, Known
from jaxseg.settings import count
from jaxseg.training.brief_fit import fit_autoencoder

_CORRELATION, _AREA = "rank correlation", "1 - Dice of what is kept (0 is best)"
_SPEARMAN = "Spearman's rank correlation of a score, turned so that high is bad, with 1 - Dice: 1 is best, 0 is chance"
_RISK = "Mean 1 - Dice of the cases that are kept if the worst by a score are set aside, over all shares that are kept"


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
    asked, known = Asked(subject.layers[-2:], subject.bottleneck), Known((subject.network,))
    if AUTOENCODER not in lacking:
        try:
            made, variables = _autoencoder(subject, settings)
            asked, known = dataclasses.replace(asked, autoencoder=made), known._replace(autoencoder=variables)
        except FloatingPointError as error:
            lacking[AUTOENCODER] = f"{error} (config.autoencoder_steps)"
    if BOTTLENECK not in lacking:
        assert subject.familiar is not None
        view = subject.view_of(subject.familiar)
        known = compute.fit_bottleneck(asked, known, subject.batches(subject.familiar), view)
    alone, together = _scores(lacking)
    values = _values(subject, asked, known, alone, compute.dice)
    if together:  # of their outputs alone; the Dice is that of the audited network
        values |= _values(subject, Asked(()), Known(subject.ensemble), together, lambda *_: {})
    if subject.tiling:  # the segmentation that is to be judged is not that of the whole case at once
        values["dice"] = subject.dice()
    return values | {"lacking": np.array(list(lacking)), "why": np.array(list(lacking.values()))}


def _values(
    subject: Subject, asked: Asked, known: Known, scores: Sequence[Score], further: compute.Further
) -> dict[str, np.ndarray]:
    """Scores of the test cases, as of `compute.score_cases`."""
    run = compute.program(asked, tuple(scores), subject.view_of(subject.test), further=further)
    return subject.progress.over_cases(functools.partial(run, known), subject.test, batch_size=subject.batch_size)


def _scores(lacking: Collection[str]) -> tuple[list[Score], list[Score]]:
    """Those of the network, and those of an ensemble."""
    of = registry.computable((AUTOENCODER, BOTTLENECK, ENSEMBLE), without=lacking)
    return [one for one in of if ENSEMBLE not in one.needs], [one for one in of if ENSEMBLE in one.needs]


def _lacking(subject: Subject) -> dict[str, str]:
    """What scores need and cannot have of this subject -> why."""
    lacking = {CHECKPOINTS: "it is of the checkpoints of a training, and one network is audited"}
    if not subject.ensemble:
        lacking[ENSEMBLE] = "the network is no ensemble's"
    if not subject.layers:
        lacking[LAYERS] = profiles.NO_LAYERS
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
        what, risk = f"{score.name}: {score.risk_meaning}", score.risk(arrays[score.key])
        estimate = patients.spearman(risk, error)
        league[score] = number(_CORRELATION, estimate, f"{_SPEARMAN}. {what}", where=score.name)
        curve = ranking.risk_coverage(risk, error)
        counts = {"n": curve.n, "undefined": curve.undefined}
        rows += [league[score], plain(_AREA, curve.aurc, f"{_RISK}. {what}", where=score.name, **counts)]
    why = dict(zip(arrays["lacking"], arrays["why"], strict=True))
    nothing = [
        not_asked("; ".join(dict.fromkeys(why[need] for need in sorted(score.needs & set(why)))), where=score.name)
        for score in registry.SCORES.values()
        if score.needs & set(why)
    ]
    return Answer(rows, figures=[_figure(list(league.values()))], advice=_advice(league), not_asked=nothing)


def _figure(league: list[Row]) -> Figure:
    shown = [(row["where"], "", *row.numbers) for row in league]
    explained = registry.explained([row["where"] for row in league])
    return Figure(
        "failures",
        "How well each score orders the failures",
        "Dots with intervals of the rank correlation of every score with 1 - Dice.",
        f"Spearman's rank correlation with 1 - Dice, after Lennartz and Schultz 2023. {explained}.",
        lambda path: figures.dots(path, shown, xlabel="rank correlation with the error (1: right order)"),
    )


def best_score(league: dict[Score, Row]) -> Score | None:
    """The score that orders failures best, if its interval lies above 0."""
    above = {score: row.estimate.mean for score, row in league.items() if row.estimate.low > 0}
    return max(above, key=above.__getitem__) if above else None


def _advice(league: dict[Score, Row]) -> str:
    best = best_score(league)
    if best is None:
        return "No score orders the failures of this network; do not rely on flags, check a random sample."
    return (
        f"Have the cases with the worst {best.name} looked at ({'; '.join(filter(None, (best.meaning, best.flags)))}): "
        "of the scores that need no annotation it orders failures best, with a rank correlation of "
        f"{league[best].text()}."
    )


def _wanted(subject: Subject) -> list[str]:
    return [score.key for scores in _scores(_lacking(subject)) for score in scores]


PROBE = Probe("failures", "Which score predicts failures?", "trust", Settings, measure, tabulate, _wanted)
