"""What a training step makes small: `(key, variables, batch) -> (loss, batch_stats)`, for each way of training."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.dtu_net import DTUNet
from jaxseg.training import losses, topology

Batch = Mapping[str, jax.Array]
Objective = Callable[[jax.Array, Mapping[str, Any], Batch], tuple[jax.Array, Any]]


def supervised(model: nn.Module, loss_fn: Callable[..., jax.Array], **options: Any) -> Objective:
    """A loss of logits and labels.

    Args:
      model: `images -> logits`.
      loss_fn: `(logits, labels) -> scalar`.
      **options: of `loss_fn`.
    """

    def objective(key: jax.Array, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Any]:
        logits, updated = model.apply(
            variables, batch["images"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return loss_fn(logits, batch["labels"], **options), updated.get("batch_stats", {})

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

    def objective(key: jax.Array, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Any]:
        dropout, noise = jax.random.split(key)
        images, labels = batch["images"], batch["labels"]

        def apply(number: int, x: jax.Array, method: str) -> Any:
            rngs = {"dropout": jax.random.fold_in(dropout, number)}
            return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs, method=method)

        out, updated = apply(0, images, "outputs")
        one_hot = lambda labels: jax.nn.one_hot(labels, model.num_classes, dtype=jnp.float32)
        wrong = topology.corrupt(noise, images, labels, num_classes=model.num_classes, fraction=fraction)
        positive, _ = apply(1, one_hot(labels), "embed")
        negative, _ = apply(2, one_hot(wrong), "embed")
        loss = (
            losses.dice_focal_loss(out.coarse, labels)
            + losses.dice_focal_loss(out.logits, labels)
            + losses.binary_cross_entropy(out.topology, labels > 0)
            + losses.triplet_loss(out.embedding, positive, negative, margin=margin)
        )
        return loss, updated["batch_stats"]

    return objective
