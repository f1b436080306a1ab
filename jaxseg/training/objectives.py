"""What a training step makes small: `(key, variables, batch) -> (loss, batch_stats)`, for each way of training.

Where a batch has `valid` `[B,...]`, every part of an objective is of the pixels that count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.analysis import cells, distortion, prototypes
from jaxseg.models import capture
from jaxseg.models.autoencoder import Autoencoder
from jaxseg.models.dtu_net import DTUNet
from jaxseg.models.layers import mask_around
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.training import losses, topology

Batch = Mapping[str, jax.Array]
Objective = Callable[[jax.Array, Mapping[str, Any], Batch], tuple[jax.Array, Any]]


def supervised(model: nn.Module, loss_fn: Callable[..., jax.Array], **options: Any) -> Objective:
    """A loss of logits and labels.

    Args:
      model: `images -> logits`.
      loss_fn: `(logits, labels) -> scalar`, with `valid=` where a batch has it.
      **options: of `loss_fn`.
    """

    def objective(key: jax.Array, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Any]:
        logits, updated = model.apply(
            variables, batch["images"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return loss_fn(logits, batch["labels"], **options, **_valid(batch)), updated.get("batch_stats", {})

    return objective


def segmentation_ability(
    model: UNetSkeleton,
    loss_fn: Callable[..., jax.Array],
    *,
    layers: Sequence[str] = (),
    weight: float = 1.0,
    **options: Any,
) -> Objective:
    """A loss of logits and labels plus `weight` times what layers lack in segmentation ability: online ProtoSeg.

    He et al. 2022, section 4.2; `prototypes.sa_loss` says how the addition is meant. The mask that the prototypes are
    made from is the network's own softmax probability of any foreground class, and gradients flow through it too.

    Args:
      model: `images -> logits`.
      loss_fn: `(logits, labels) -> scalar`, with `valid=` where a batch has it.
      layers: names as `capture.layer_names` has them; none means all convolutional layers, as in the paper.
      weight: of the mean over layers and images of one minus the soft score; the paper's is 1.
      **options: of `loss_fn`.

    Raises:
      ValueError: the padding is valid, where layers cover more than the image and cannot be compared with its labels.
        An unknown layer raises when the objective is called.
    """
    if model.padding == "valid":
        raise ValueError("the layers of a network with padding='valid' cover more than the image; choose another one")
    names = tuple(layers) or model.roles.convolutions

    def objective(key: jax.Array, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Any]:
        labels = batch["labels"]
        logits, activations, updated = capture.capture_and_update(
            model, variables, batch["images"], names, mutable=["batch_stats"], train=True, rngs={"dropout": key}
        )
        mask = 1 - jax.nn.softmax(logits.astype(jnp.float32))[..., 0]
        lacking = prototypes.sa_loss([activations[name] for name in names], mask, labels, region=batch.get("valid"))
        loss = loss_fn(logits, labels, **options, **_valid(batch))
        return loss + weight * lacking, updated.get("batch_stats", {})

    return objective


def reconstruction(autoencoder: Autoencoder, layer: str, *, kl_weight: float = 1.0) -> Objective:
    """What fits an autoencoder to a layer's activations of a network that stays as it is: Lennartz and Schultz 2023.

    `distortion.autoencoder_loss` (Eqs. 1 to 3): the reconstruction is to be near the activation, and the logits that
    the network makes of it near its own. Labels are not used, and the network runs as in testing. In one jitted
    step the layers before it are computed once: XLA merges them.

    The objective's `variables["params"]` are the autoencoder's, which has no running statistics;
    `variables["frozen"]` is the network, of any make, and gets no gradient.

    Args:
      autoencoder: for the shape of that layer's activations.
      layer: its name as `capture.layer_names` has it, such as bottleneck or bottleneck/conv_1.
      kl_weight: of the mean over images of the divergence of a variational autoencoder, which is a sum over its latent
        where the rest is a mean over elements. The divergence of the other kinds is 0.

    Raises:
      ValueError: by the objective: an unknown layer, or activations of another shape than the autoencoder's.
    """

    def objective(key: jax.Array, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Any]:
        network, images = jax.lax.stop_gradient(variables["frozen"]), batch["images"]
        logits, activations = network.captured(images, (layer,))
        x = activations[layer]
        fitted = {"params": variables["params"]}
        both: Any = autoencoder.apply(fitted, x, train=True, method="reconstruct", rngs={"noise": key})
        r, divergence = both
        # given from outside rather than computed within the layer: what is traced inside `nn.remat` cannot leave it
        after = network.replaced(images, {layer: r})
        loss = distortion.autoencoder_loss(logits, after, x, r, valid=batch.get("valid"))
        return loss + kl_weight * jnp.mean(divergence), {}

    return objective


def dtu(model: DTUNet, *, fraction: float = 0.2, margin: float = 0.1) -> Objective:
    """The sum of DTU-Net's losses: Dice and focal on coarse and fused, cross-entropy on `T`, triplet on embeddings.

    The anchor of the triplet is the coarse prediction, the positive the annotation, the negative an annotation with
    wrong topology (`topology.corrupt`). Of the three passes through the topology net, the running statistics see the
    anchor's alone, which is what the net reads at test time.

    Args:
      model: that is trained.
      fraction: of patches that are erased and of pixels that are painted for the negative.
      margin: of the triplet loss.
    """

    def places(embedding: jax.Array, valid: jax.Array | None) -> jax.Array | None:
        if valid is None:
            return None
        return cells.counted(mask_around(valid, embedding.shape[1:-1], model.margin), embedding.shape[1:-1])

    def objective(key: jax.Array, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Any]:
        dropout, noise = jax.random.split(key)
        images, labels, valid = batch["images"], batch["labels"], batch.get("valid")

        def apply(number: int, x: jax.Array, method: str) -> Any:
            rngs = {"dropout": jax.random.fold_in(dropout, number)}
            return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs, method=method)

        out, updated = apply(0, images, "outputs")
        one_hot = lambda labels: jax.nn.one_hot(labels, model.num_classes, dtype=jnp.float32)
        options: Any = {"num_classes": model.num_classes, "fraction": fraction, "valid": valid}
        wrong = topology.corrupt(noise, images, labels, **options)
        positive, _ = apply(1, one_hot(labels), "embed")
        negative, _ = apply(2, one_hot(wrong), "embed")
        loss = (
            losses.dice_focal_loss(out.coarse, labels, valid=valid)
            + losses.dice_focal_loss(out.logits, labels, valid=valid)
            + losses.binary_cross_entropy(out.topology, labels > 0, valid=valid)
            + losses.triplet_loss(out.embedding, positive, negative, margin=margin, valid=places(out.embedding, valid))
        )
        return loss, updated["batch_stats"]

    return objective


def _valid(batch: Batch) -> dict[str, jax.Array]:
    """The keyword for a loss, which one of somebody's own need not have."""
    return {"valid": batch["valid"]} if "valid" in batch else {}


# ways of training that need more than logits and labels, by the name in a config
OBJECTIVES: dict[str, Callable[..., Objective]] = {"dtu": dtu}
