"""What every case scores in the distortion study: by one network and its autoencoder, and by an ensemble."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.analysis import distortion, mahalanobis, prototypes, uncertainty
from jaxseg.data import augment, pipeline
from jaxseg.metrics import overlap
from jaxseg.models import autoencoder, capture


@dataclasses.dataclass(frozen=True)
class Score:
    """A number per case that may predict its error; higher means worse.

    Attributes:
      name: short, as in tables and figures.
      key: of the measures.
      meaning: in words.
      of_ensemble: held against the Dice of the ensemble, else against that of its own network.
      in_paper: whether the paper has it.
    """

    name: str
    key: str
    meaning: str
    of_ensemble: bool = False
    in_paper: bool = True


SCORES = (
    Score("SD", "distortion", "segmentation distortion"),
    Score("PM", "pooled", "squared Mahalanobis distance of the pooled activations"),
    Score("LM", "latent", "squared Mahalanobis distance of the autoencoder's latent vector"),
    Score("entropy", "entropy", "entropy of a pixel's class probabilities, mean over pixels"),
    Score("ensemble entropy", "ensemble_entropy", "the same of the ensemble's mean probabilities", of_ensemble=True),
    Score("ensemble Dice", "disagreement", "1 - Dice of every two of the ensemble, mean", of_ensemble=True,
          in_paper=False),
    Score("mean SA", "inability", "1 - mean segmentation ability of the last two layers' units (He et al. 2022)",
          in_paper=False),
    Score("VoG", "gradients", "variance of the logits' gradients over the checkpoints of the training (Agarwal et al. "
          "2022)", in_paper=False),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A network and the autoencoder of its bottleneck.

    Attributes:
      network: `images -> logits`.
      autoencoder: of the activations of `layer`.
      layer: the network's bottleneck.
      variables: of the network.
      autoencoder_variables: of the autoencoder.
    """

    network: nn.Module
    autoencoder: autoencoder.Autoencoder
    layer: str
    variables: Any
    autoencoder_variables: Any


def of_network(
    config: ml_collections.ConfigDict, fitted: Fitted, train: pipeline.InMemory, cases: pipeline.InMemory
) -> dict[str, np.ndarray]:
    """Scores and Dice of every case by one network.

    Args:
      config: of the study.
      fitted: the network and its autoencoder.
      train: the cases it was trained on, from which both Mahalanobis distances are measured.
      cases: what is scored.

    Returns:
      `dice`, `dice_after` `[N,K-1]` of the prediction as it is and with the bottleneck reconstructed; and under the
      `key` of every score of a network `[N]`, but that of VoG, which takes more than one checkpoint.
    """
    network, layer, layers = fitted.network, fitted.layer, tuple(config.evaluation.ability_layers)

    # variables are arguments: as constants, every network would be another program to compile
    def score(known: Any, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        variables, of_autoencoder, pooled, latent = known
        logits, found = capture.capture(network, variables, images, (layer, *layers))
        x = found[layer]
        reconstruction: Any = fitted.autoencoder.apply(of_autoencoder, x)
        after = capture.replace(network, variables, images, {layer: lambda _: reconstruction})
        probabilities = jax.nn.softmax(logits)
        ability = prototypes.mean_sa_score([found[name] for name in layers], 1.0 - probabilities[..., 0])
        return {
            "dice": _dice(labels, logits),
            "dice_after": _dice(labels, after),
            "distortion": distortion.segmentation_distortion(logits, after),
            "pooled": mahalanobis.distance(pooled, x),
            "latent": mahalanobis.distance(latent, _latent(fitted, of_autoencoder, x)),
            "entropy": uncertainty.entropy(probabilities),
            "inability": 1.0 - ability,
        }

    known = (fitted.variables, fitted.autoencoder_variables, *_familiar(config, fitted, train))
    return _over(config, cases, score, known)


def of_ensemble(
    config: ml_collections.ConfigDict, network: nn.Module, members: Sequence[Any], cases: pipeline.InMemory
) -> dict[str, np.ndarray]:
    """Scores and Dice of every case by the mean of several networks.

    Args:
      config: of the study.
      network: what all members are.
      members: the variables of each.
      cases: what is scored.

    Returns:
      `dice` `[N,K-1]` of the class with the highest mean probability; and under the `key` of every score of an
      ensemble `[N]`.
    """

    def score(members: Any, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        logits: Any = [network.apply(variables, images) for variables in members]
        probabilities = jax.nn.softmax(jnp.stack(logits))
        agreement = uncertainty.pairwise_dice(_classes(probabilities), num_classes=probabilities.shape[-1])
        return {
            "dice": _dice(labels, jnp.mean(probabilities, 0)),
            "ensemble_entropy": uncertainty.ensemble_entropy(probabilities),
            "disagreement": 1.0 - agreement,
        }

    return _over(config, cases, score, list(members))


def predictions(
    config: ml_collections.ConfigDict, fitted: Fitted, cases: pipeline.InMemory, chosen: Sequence[int]
) -> dict[str, np.ndarray]:
    """What the network sees, should say and says of a few cases.

    Args:
      config: of the study.
      fitted: the network.
      cases: where they are.
      chosen: their numbers.

    Returns:
      `images` `[n,h,w,C]`, `labels` and `classes` `[n,h,w]`.
    """
    stored = {"image": cases.images[list(chosen)], "labels": cases.labels[list(chosen)]}
    seen = augment.whole({name: jnp.asarray(array) for name, array in stored.items()}, size=config.data.image_size)
    logits: Any = jax.jit(fitted.network.apply)(fitted.variables, seen["images"])
    return {name: np.asarray(array) for name, array in (seen | {"classes": _classes(logits)}).items()}


def _familiar(
    config: ml_collections.ConfigDict, fitted: Fitted, train: pipeline.InMemory
) -> tuple[mahalanobis.Fitted, mahalanobis.Fitted]:
    """What is familiar of activations: the training cases' pooled ones, and their latents."""
    view = augment.testing_view(config.data.view, size=config.data.image_size, cases=train.cases)

    @jax.jit
    def vectors(variables: Any, of_autoencoder: Any, batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        images = view(batch)["images"]
        x = capture.capture(fitted.network, variables, images, (fitted.layer,))[1][fitted.layer]
        return mahalanobis.pool(x), _latent(fitted, of_autoencoder, x)

    moments: list[mahalanobis.Moments] = []
    for batch in pipeline.epoch(train, batch_size=config.training.batch_size):
        both = vectors(fitted.variables, fitted.autoencoder_variables, batch)
        found = [jnp.asarray(np.asarray(v)[batch["valid"]]) for v in both]
        moments = moments or [mahalanobis.init(v.shape[1]) for v in found]
        moments = [mahalanobis.update(m, v) for m, v in zip(moments, found, strict=True)]
    pooled, latent = (mahalanobis.finish(m) for m in moments)
    return pooled, latent


def _over(
    config: ml_collections.ConfigDict,
    cases: pipeline.InMemory,
    score: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]],
    known: Any,
) -> dict[str, np.ndarray]:
    """`score(known, images, labels)` of all cases, in their order."""
    view = augment.testing_view(config.data.view, size=config.data.image_size, cases=cases.cases)

    @jax.jit
    def run(known: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        seen = view(batch)
        return score(known, seen["images"], seen["labels"])

    rows = [
        {name: np.asarray(value)[batch["valid"]] for name, value in run(known, batch).items()}
        for batch in pipeline.epoch(cases, batch_size=config.training.batch_size)
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _latent(fitted: Fitted, variables: Any, activations: jax.Array) -> jax.Array:
    return fitted.autoencoder.apply(variables, activations, method="encode")  # type: ignore[return-value]


def _dice(labels: jax.Array, logits: jax.Array) -> jax.Array:
    return overlap.dice(labels, _classes(logits), num_classes=logits.shape[-1])


def _classes(logits: jax.Array) -> jax.Array:
    return jnp.argmax(logits, -1).astype(jnp.int32)
