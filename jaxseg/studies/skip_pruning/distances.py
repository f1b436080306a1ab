"""How far a shift moves the activations of every block of a network (Wilm et al. 2024, section IV.B), by patient."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxseg.analysis import cells, hellinger
from jaxseg.data import augment
from jaxseg.metrics import draws
from jaxseg.models import capture
from jaxseg.models.layers import mask_around
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.studies.skip_pruning.conditions import Condition, Shifter, compared, patient_draws
from jaxseg.studies.skip_pruning.settings import Settings

_SEED = 0  # of the halves


def block_layers(model: UNetSkeleton) -> tuple[str, ...]:
    """The blocks of a network as `capture` names them, input to output, without the head."""
    roles = model.roles
    return tuple(name for name in (*roles.encoder, roles.bottleneck, *roles.decoder) if name)


def measure(
    settings: Settings, model: UNetSkeleton, members: Sequence[Any], tested: Sequence[Condition], shifter: Shifter
) -> dict[str, np.ndarray]:
    """Hellinger distances between the unshifted test set and every compared condition (section IV.B).

    Activations are averaged over the cells of a grid of the size of the deepest layer (with five halvings the paper's,
    one cell per 32 pixels). Images are streamed twice, for the joint range and for histograms, which are kept per
    patient: their sums give the distance, sums over resampled patients its interval, and sums over two halves of the
    unshifted test set the distance without a shift, all with the same bins.

    Returns:
      `layers` `[L]` str, input to output; per compared condition C: `C/distance/LAYER` `[F,D]`, `C/drawn` and `C/null`
      `[F,L,R]` and `[F,L,S]` of the layer, and `C/constant` int `[F,L]`, channels with one value in both sets.
    """
    size, original, evaluation = settings.run.data.image_size, tested[0], settings.evaluation
    layers = block_layers(model)
    grid = (max(size // 2**model.halvings, 1),) * 2

    @jax.jit
    def vectors(variables: Any, batch: Mapping[str, jax.Array]) -> Vectors:
        seen = augment.whole(batch, size=size)
        activations = capture.capture(model, variables, seen["images"], layers)[1]
        return {name: _pooled(activations[name], grid, model.margin, seen.get("valid")) for name in activations}

    def read(condition: Condition, variables: Any) -> Iterator[tuple[np.ndarray, Vectors]]:
        for batch in shifter.batches(condition):
            stored = {name: batch[name] for name in ("image", "labels", "valid") if name in batch}
            # the case that fills up the last batch comes again, at its end, and must not count twice
            yield batch["index"][np.asarray(batch["real"])], vectors(variables, stored)

    measures: dict[str, list[Any]] = {}
    resamples = patient_draws(tested, evaluation.distance_resamples)
    for condition in compared(evaluation, tested):
        drawn_p, drawn_q = (resamples.of_patients(c.cases.patients) for c in (original, condition))
        for variables in members:
            ranges = _ranges(itertools.chain(read(original, variables), read(condition, variables)))
            p, q = (_patient_histograms(c, read(c, variables), ranges, evaluation.bins) for c in (original, condition))
            values = _distances(p, q, ranges, drawn_p, drawn_q, evaluation.halvings)
            for name in layers:
                distance, *_ = values[name]
                measures.setdefault(f"{condition.name}/distance/{name}", []).append(distance)
            for i, key in enumerate(("drawn", "null", "constant"), 1):
                measures.setdefault(f"{condition.name}/{key}", []).append([values[name][i] for name in layers])
    return {name: np.array(value) for name, value in measures.items()} | {"layers": np.array(layers)}


Ranges = dict[str, hellinger.Range]
Vectors = dict[str, tuple[jax.Array, jax.Array | None]]  # per layer `[B,n,D]`, and which count, `[B,n]`; None: all


def _pooled(
    activations: jax.Array, grid: tuple[int, ...], margin: int, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """One of `Vectors`."""
    count = len(activations)
    around = None if valid is None else mask_around(valid, activations.shape[1:-1], margin)
    pooled = hellinger.pool_vectors(activations, grid=grid, valid=around)
    counted = None if around is None else cells.counted(around, grid).reshape(count, -1)
    return pooled.reshape(count, -1, pooled.shape[-1]), counted


def _ranges(batches: Iterable[tuple[Any, Vectors]]) -> Ranges:
    """Of all vectors; a case that comes again changes no range."""
    ranges: Ranges = {}
    for _, vectors in batches:
        ranges = ranges or {name: hellinger.init_range(array.shape[-1]) for name, (array, _) in vectors.items()}
        ranges = _widened(ranges, vectors)
    return ranges


@jax.jit
def _widened(ranges: Ranges, vectors: Vectors) -> Ranges:
    def widened(so_far: hellinger.Range, array: jax.Array, counted: jax.Array | None) -> hellinger.Range:
        flat = array.reshape(-1, array.shape[-1])
        return hellinger.update_range(so_far, flat, valid=None if counted is None else counted.ravel())

    return {name: widened(so_far, *vectors[name]) for name, so_far in ranges.items()}


def _patient_histograms(
    condition: Condition, batches: Iterable[tuple[np.ndarray, Vectors]], ranges: Ranges, bins: int
) -> dict[str, np.ndarray]:
    """Per layer, int32 `[P,D,bins]`: the histograms of every patient."""
    names, patient = np.unique(condition.cases.patients, return_inverse=True)
    counts = {name: np.zeros((len(names), len(r.low), bins), np.int32) for name, r in ranges.items()}
    for index, vectors in batches:
        for name, of_images in _image_histograms(vectors, ranges, bins=bins).items():
            np.add.at(counts[name], patient[index], np.asarray(of_images)[: len(index)])
    return counts


@functools.partial(jax.jit, static_argnames="bins")
def _image_histograms(vectors: Vectors, ranges: Ranges, *, bins: int) -> dict[str, jax.Array]:
    """Per layer, counts int32 `[B,D,bins]` of vectors `[B,n,D]`."""

    def count(image: jax.Array, counted: jax.Array | None, joint: hellinger.Range) -> jax.Array:
        return hellinger.update(hellinger.init(*joint, bins=bins), image, valid=counted).counts

    return {name: jax.vmap(count, (0, 0, None))(*pair, ranges[name]) for name, pair in vectors.items()}


def _distances(
    p: Mapping[str, np.ndarray],
    q: Mapping[str, np.ndarray],
    ranges: Ranges,
    drawn_p: np.ndarray,
    drawn_q: np.ndarray,
    halvings: int,
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Per layer: distance per channel `[D]`, the layer's by resample `[R]`, of halves `[S]`, constant channels.

    Args:
      p, q: histograms per patient, `[P,D,bins]` and `[Q,D,bins]`.
      ranges: that the bins divide.
      drawn_p, drawn_q: how often each patient is in a resample, `[R,P]` and `[R,Q]`.
      halvings: S.
    """
    first, second = draws.halves(len(next(iter(p.values()))), halvings, _SEED)
    of_layers = {}
    for name, r in ranges.items():
        between = functools.partial(hellinger.weighted_distances, r)
        everyone = (np.vstack([np.ones(drawn.shape[1]), drawn]) for drawn in (drawn_p, drawn_q))
        channels, drawn = between(p[name], q[name], *everyone)
        _, null = between(p[name], p[name], first, second)
        of_layers[name] = channels[0], drawn[1:], null, int(np.sum(np.asarray(r.low) == np.asarray(r.high)))
    return of_layers
