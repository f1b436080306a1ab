"""How far a shift moves the layers of the skip-pruning study's networks, as tables."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from jaxseg.results.resampled import Resampled, weighted_sum
from jaxseg.results.table import Row
from jaxseg.studies.base import Measures
from jaxseg.studies.skip_pruning.conditions import Condition, compared
from jaxseg.studies.skip_pruning.settings import Network, Settings, architecture, difference
from jaxseg.training import checks

# Quantities of differences.
EARLY = "first layer minus all after it"
DEEPEST = "first layer minus bottleneck"
DECODER = "mean of the decoder"
_INTERVAL = "bootstrap over patients within domains, 95 %, centred on the estimate: resampling itself adds distance"
_DISTANCE = (
    "Hellinger distance per channel, {bins} bins over the joint range, mean over channels and folds; activations "
    "averaged to the grid of the deepest layer"
)
_LAYERS = (
    f"{_DISTANCE}; null: of the halves of the unshifted test set, mean and 97.5th percentile; channels that are "
    "constant (mean number over folds) count with their 0"
)


def layer_rows(settings: Settings, tested: Sequence[Condition], measured: Mapping[Network, Measures]) -> Iterator[Row]:
    """The distance of every layer of every network, for every compared condition."""
    convention = _LAYERS.format(bins=settings.evaluation.bins)
    for network, measures in measured.items():
        layers, decoder = measures["layers"].tolist(), _decoder(settings, network)
        for condition in compared(settings.evaluation, tested):
            null = measures[f"{condition.name}/null"].mean(0)  # over folds, [L,S]
            constant = measures[f"{condition.name}/constant"].mean(0)
            for i, layer in enumerate(layers):
                distance = _weighted(measures, condition, np.eye(len(layers))[i])
                channels = measures[f"{condition.name}/distance/{layer}"]
                quartiles = map(float, np.percentile(channels, [25, 50, 75]))
                keys = {"encoder": network.encoder, "architecture": network.architecture}
                keys |= {"compared": condition.name, "layer": layer}
                keys |= {"part": "decoder" if layer in decoder else "encoder"}
                more = distance.over_folds
                more |= {"null": float(null[i].mean()), "null_high": float(np.percentile(null[i], 97.5))}
                more |= dict(zip(("quartile_1", "median", "quartile_3"), quartiles, strict=True))
                more |= {"channels": channels.shape[1], "constant": float(constant[i])}
                yield Row(keys, distance.estimate, convention, _INTERVAL, more)


def difference_rows(
    settings: Settings,
    pairs: Sequence[tuple[int, int]],
    tested: Sequence[Condition],
    measured: Mapping[Network, Measures],
) -> Iterator[Row]:
    """Differences of layers within a network, and of the decoders of two networks that differ in pruned skips."""
    convention = _DISTANCE.format(bins=settings.evaluation.bins)
    for encoder, condition in itertools.product(settings.encoder_names, compared(settings.evaluation, tested)):
        own = {pruned: measured[Network(encoder, pruned)] for pruned in settings.pruned}
        decoder = _decoder(settings, Network(encoder, 0))
        for networks, quantity, distance in _differences(own, pairs, condition, decoder):
            keys = {"encoder": encoder, "compared": condition.name, "networks": networks, "quantity": quantity}
            yield Row(keys, distance.estimate, convention, f"{_INTERVAL}; paired", distance.over_folds)


def _differences(
    measured: Mapping[int, Measures], pairs: Sequence[tuple[int, int]], condition: Condition, decoder: Collection[str]
) -> Iterator[tuple[str, str, Resampled]]:
    """Networks, quantity and distance; networks by their removed skips."""
    layers = measured[0]["layers"].tolist()
    *_, bottleneck = (layer for layer in layers if layer not in decoder)
    first, of_decoder = _mean_weights(layers[:1], layers), _mean_weights(decoder, layers)
    within = {EARLY: first - _mean_weights(layers[1:], layers), DEEPEST: first - _mean_weights([bottleneck], layers)}
    for (pruned, measures), (quantity, weights) in itertools.product(measured.items(), within.items()):
        yield architecture(pruned), quantity, _weighted(measures, condition, weights)
    for more, less in pairs:
        of = lambda pruned: _weighted(measured[pruned], condition, of_decoder)
        yield difference(more, less), DECODER, weighted_sum([(1.0, of(more)), (-1.0, of(less))])


def _decoder(settings: Settings, network: Network) -> tuple[str, ...]:
    """The layers of a network's decoder."""
    return checks.build_model(settings.of_run(network), 2).roles.decoder


def _weighted(measures: Measures, condition: Condition, weights: np.ndarray) -> Resampled:
    """A weighted sum `[L]` of the layers' distances, mean over folds."""
    distances, of_draws = layer_distances(measures, condition)
    folds = distances @ weights
    cases, undefined = condition.cases, int(np.isnan(folds).sum())
    return Resampled(
        float(folds.mean()), (weights @ of_draws).mean(0), folds, len(cases), undefined, len(set(cases.patients))
    )


def layer_distances(measures: Measures, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
    """Distances `[F,L]` of the layers, and `[F,L,R]` of resampled patients, the latter centred on the former.

    A resample has some patients twice and others not at all, which adds distance as a smaller test set would; only its
    spread is of interest.
    """
    name = condition.name
    values = [measures[f"{name}/distance/{layer}"].mean(1, dtype=np.float64) for layer in measures["layers"]]
    estimate, of_draws = np.stack(values, 1), measures[f"{name}/drawn"].astype(np.float64)
    return estimate, of_draws - of_draws.mean(-1, keepdims=True) + estimate[..., None]


def _mean_weights(chosen: Collection[str], layers: Sequence[str]) -> np.ndarray:
    """`[L]`, of the mean of the chosen layers."""
    return np.array([layer in chosen for layer in layers], float) / len(chosen)
