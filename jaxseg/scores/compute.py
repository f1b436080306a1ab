"""Quality scores of many cases, batch by batch; one program per network shape, view and choice of scores."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import inference
from jaxseg.analysis import mahalanobis
from jaxseg.metrics import overlap
from jaxseg.scores.base import Score
from jaxseg.scores.evidence import Asked, Evidence, Known

Batch = Mapping[str, Any]
Batches = Iterator[Batch]
View = Callable[[Batch], dict[str, jax.Array]]
Further = Callable[[Evidence, jax.Array], dict[str, jax.Array]]


def dice(evidence: Evidence, labels: jax.Array) -> dict[str, jax.Array]:
    """Dice per case and foreground class, `dice` `[B,K-1]`."""
    num_classes = evidence.probabilities.shape[-1]
    return {"dice": overlap.dice(labels, evidence.classes, num_classes=num_classes, valid=evidence.valid)}


def score_cases(
    asked: Asked,
    known: Known,
    scores: Iterable[Score],
    batches: Batches,
    view: View,
    *,
    further: Further = dice,
) -> dict[str, np.ndarray]:
    """Scores of N cases, and what else a forward pass tells of them.

    Args:
      asked: for what.
      known: whom.
      scores: that can be computed with these.
      batches: stored cases with `real` [B], as `pipeline.epoch` gives them.
      view: `stored batch -> {"images", "labels"}`, with `"valid"` where not all pixels count; scores are of those.
      further: `(evidence, labels) -> {name: [B,...]}`.

    Returns:
      `[N]` under the key of every score, and what `further` gives, `[N,...]`.
    """
    run = program(asked, tuple(scores), view, further=further)
    return inference.over_cases(lambda batch: run(known, batch), batches)


@functools.lru_cache(maxsize=16)  # networks of one shape, and data sets of one view, share a program
def program(asked: Asked, scores: tuple[Score, ...], view: View, *, further: Further = dice) -> Callable[..., Any]:
    """What `score_cases` runs: `(known, stored batch) -> {name: [B,...]}`."""
    computed = [(score.key, score.compute) for score in scores if score.compute]

    @jax.jit
    def run(known: Known, batch: Batch) -> dict[str, jax.Array]:
        seen = view(batch)
        evidence = Evidence(asked, known, seen["images"], valid=seen.get("valid"))
        return {key: compute(evidence) for key, compute in computed} | further(evidence, seen["labels"])

    return run


def fit_bottleneck(asked: Asked, known: Known, batches: Batches, view: View) -> Known:
    """`known` with what the activations of these cases look like at the bottleneck: of training cases.

    Args:
      asked: for what; the latent vectors are those of its autoencoder, if it has one.
      known: whom.
      batches: stored cases with `real` [B].
      view: `stored batch -> {"images", "labels"}`, with `"valid"` where not all pixels count; a case without any is
        left out.
    """
    vectors = _vectors(asked, view)
    moments: dict[str, Any] = {}
    for batch in batches:
        found, some = vectors(known, batch)
        kept = batch["real"] & np.asarray(some)
        for name, rows in found.items() if kept.any() else ():
            defined = jnp.asarray(np.asarray(rows)[kept])
            before = moments.get(name) or mahalanobis.init(defined.shape[1])
            moments[name] = mahalanobis.update(before, defined)
    fitted: dict[str, Any] = {name: mahalanobis.finish(of) for name, of in moments.items()}
    return known._replace(**fitted)


@functools.lru_cache(maxsize=16)
def _vectors(asked: Asked, view: View) -> Callable[..., tuple[dict[str, jax.Array], jax.Array]]:
    @jax.jit
    def vectors(known: Known, batch: Batch) -> tuple[dict[str, jax.Array], jax.Array]:
        """The vectors, and which cases have a pixel that counts."""
        seen = view(batch)
        evidence, valid = Evidence(asked, known, seen["images"], valid=seen.get("valid")), seen.get("valid")
        pooled = {"pooled": mahalanobis.pool(evidence.activations, valid=evidence.valid_around)}
        some = jnp.ones(len(seen["images"]), bool) if valid is None else jnp.any(valid, tuple(range(1, valid.ndim)))
        return pooled | ({"latent": evidence.latent} if asked.autoencoder else {}), some

    return vectors
