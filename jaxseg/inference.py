"""A network and a data set in, per-case numbers out, batch by batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Batch = Mapping[str, Any]
Score = Callable[[jax.Array, jax.Array], dict[str, jax.Array]]


def predict(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Class numbers int32 `[B,H,W]` of images `[B,H,W,C]`."""
    logits: Any = model.apply(variables, images)  # a tuple only where something is mutable
    return jnp.argmax(logits, -1).astype(jnp.int32)


def score_cases(
    model: nn.Module,
    variables: Any,
    batches: Iterator[Batch],
    view: Callable[[Batch], dict[str, jax.Array]],
    score: Score,
) -> dict[str, np.ndarray]:
    """Numbers per case, in the order of the cases; network, view and score run as one compiled program.

    Args:
      model: `images -> logits`.
      variables: its variables.
      batches: stored cases with `valid` [B], as `pipeline.epoch` gives them.
      view: `stored batch -> {"images", "labels"}`.
      score: `(labels, predictions) -> {name: [B,...]}`.

    Returns:
      `{name: [N,...]}`.
    """

    @jax.jit
    def run(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        seen = view(batch)
        return score(seen["labels"], predict(model, variables, seen["images"]))

    rows = [_keep(run(variables, batch), batch["valid"]) for batch in batches]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _keep(values: Mapping[str, jax.Array], valid: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value)[np.asarray(valid)] for name, value in values.items()}
