"""Failure prediction: which score, computed without annotation, says which cases are segmented badly?"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from jaxseg.analysis import prototypes, uncertainty
from jaxseg.audit.answers import Answer, Arrays, NotAskedError, Probe, plain_row, row
from jaxseg.audit.probes import profiles
from jaxseg.audit.probes.accuracy import per_case
from jaxseg.audit.subject import Seen, Subject
from jaxseg.data import augment, pipeline
from jaxseg.metrics import overlap, ranking
from jaxseg.models import autoencoder, capture
from jaxseg.models.skeleton import UNetSkeleton, compiler_options
from jaxseg.prediction.network import quality_layers
from jaxseg.scores import cases as distortion_scores
from jaxseg.training import objectives, state
from jaxseg.training import steps as training_steps

NAME = "failures"
_OF_NETWORK = ("distortion", "pooled", "entropy", "inability")


def measure(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """Scores of every test case and its Dice: `dice` `[N,K-1]`, and `[N]` by the key of each score.

    Segmentation distortion and the Mahalanobis distance need cases like those of training; where there are none, or no
    bottleneck, only entropy and mean SA are computed.
    """
    if _missing(subject):
        return _simple(subject)
    assert subject.familiar is not None and isinstance(subject.model, UNetSkeleton)
    config = ml_collections.ConfigDict(
        {
            "data": {"view": subject.view, "image_size": subject.image_size},
            "training": {"batch_size": subject.batch_size},
            "evaluation": {"ability_layers": quality_layers(subject.model)},
        }
    )
    fitted = fit_autoencoder(subject, settings)
    return distortion_scores.of_network(config, fitted, subject.familiar, subject.test)


def _missing(subject: Subject) -> str:
    """Why distortion and distance cannot be asked; empty where they can."""
    if subject.rank != 2:
        return "the cases are volumes; autoencoders are for activations of pictures"
    if subject.bottleneck is None or not isinstance(subject.model, UNetSkeleton):
        return "the network does not say which layer is its bottleneck"
    if subject.model.margin:
        return "with padding 'valid' the bottleneck is larger than the image"
    if subject.familiar is None:
        return "there are no cases like those of its training"
    return ""


def _simple(subject: Subject) -> Arrays:
    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        logits, found = profiles.features_of(subject, variables, seen)
        probabilities = jax.nn.softmax(logits.astype(jnp.float32))
        mask = 1.0 - probabilities[..., 0]
        predictions = jnp.argmax(logits, -1).astype(jnp.int32)
        return {
            "dice": overlap.dice(seen["labels"], predictions, num_classes=subject.test.num_classes),
            "entropy": uncertainty.entropy(probabilities),
            "inability": 1.0 - prototypes.mean_sa_score([found[name] for name in subject.layers[-2:]], mask),
        }

    return subject.asks(question)(subject.test)


def fit_autoencoder(subject: Subject, settings: ml_collections.ConfigDict) -> distortion_scores.Fitted:
    """An autoencoder of the bottleneck, trained on the spot (Lennartz and Schultz 2023, Eqs. 1 to 3).

    A fixed number of steps with Adam at 1e-3, on the familiar cases; nothing is selected.
    """
    layer, familiar = subject.bottleneck, subject.familiar
    assert layer is not None and familiar is not None
    read = lambda variables, images: capture.capture(subject.model, variables, images, (layer,))[1][layer]
    shape: Any = jax.eval_shape(read, subject.variables, subject.image)
    made = autoencoder.for_activations(shape, latent=settings.latent, width=settings.autoencoder_width)
    optimizer = optax.adam(1e-3)
    shapes = (1, *made.shape)
    # all from one program, so that the first step finds its state placed as the second does and both are one program
    create = jax.jit(lambda key, frozen: state.create(key, made, optimizer, shapes).replace(frozen=frozen))
    fresh = create(jax.random.key(settings.seed), dict(subject.variables))
    view = augment.training_view(subject.view, size=subject.image_size)
    step = training_steps.make_train_step(objectives.reconstruction(subject.model, made, layer), optimizer, view)
    options = compiler_options(subject.model) if isinstance(subject.model, UNetSkeleton) else {}
    # one call a step: in a loop on the device, convolutions would run on one thread of a CPU
    run = jax.jit(step, compiler_options=options)
    batch_size = min(subject.batch_size, len(familiar))
    order = pipeline.order(len(familiar), batch_size=batch_size, seed=settings.seed)
    for _ in range(settings.autoencoder_steps):
        index = next(order)
        batch = {"image": familiar.images[index], "labels": familiar.labels[index], "index": index}
        # Adam's bias correction raises a float to an integer power
        with jax.numpy_dtype_promotion("standard"):
            fresh, metrics = run(fresh, batch)
    if not np.isfinite(float(metrics["loss"])):
        raise NotAskedError("the autoencoder's loss is not finite; lower config.autoencoder_steps")
    return distortion_scores.Fitted(subject.model, made, layer, subject.variables, {"params": fresh.params})


def tabulate(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """The league: rank correlation with the error, and the risk that is left where the worst are set aside."""
    risk = 1.0 - per_case(arrays["dice"])
    scores = {score.key: score for score in distortion_scores.SCORES}
    rows = []
    for key in _OF_NETWORK:
        if key not in arrays:
            continue
        what = f"{scores[key].meaning}, against 1 - Dice"
        options = {"resamples": min(settings.resamples, 1000)}
        estimate = ranking.spearman_estimate(arrays[key], risk, subject.patients, **options)
        rows.append(row(NAME, "rank correlation", estimate, f"Spearman; {what}", where=scores[key].name))
        curve = ranking.risk_coverage(arrays[key], risk)
        area = plain_row(NAME, "area under risk and coverage", curve.aurc, what, where=scores[key].name, n=curve.n)
        rows.append(area | {"undefined": curve.undefined})
    if why := _missing(subject):
        nothing = plain_row(NAME, "not asked", float("nan"), f"not asked: {why}", where="SD and PM", n=0)
        rows.append(nothing)
    return Answer(rows)


def best_score(rows: Any) -> dict[str, Any] | None:
    """The row of the score that orders failures best, if its interval lies above 0."""
    league = [r for r in rows if r["probe"] == NAME and r["quantity"] == "rank correlation" and r["low"] > 0]
    return max(league, key=lambda r: r["mean"]) if league else None


PROBE = Probe(NAME, "Which score predicts failures?", measure, tabulate)
