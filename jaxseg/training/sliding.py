"""A network for patches on whole cases: a window slides over each, and the overlaps of the result are counted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import augment, windows

Variables = Mapping[str, Any]


def make_network(model: nn.Module, *, batch: int) -> Callable[[Sequence[Variables], np.ndarray], np.ndarray]:
    """`(members, tiles [B,*n,C]) -> probabilities float32 [B,*n,K]`, B at most `batch`; one compiled program.

    Args:
      model: `images -> logits`.
      batch: tiles at once; fewer are filled up.
    """

    @jax.jit
    def program(members: Sequence[Variables], tiles: jax.Array) -> jax.Array:
        labels = jnp.zeros(tiles.shape[:-1], jnp.uint8)
        images = augment.whole({"image": tiles, "labels": labels}, size=None)["images"]
        logits: list[Any] = [model.apply(dict(variables), images) for variables in members]
        return jnp.mean(jnp.stack([jax.nn.softmax(one.astype(jnp.float32)) for one in logits]), 0)

    def network(members: Sequence[Variables], tiles: np.ndarray) -> np.ndarray:
        filled = np.concatenate([tiles, np.repeat(tiles[-1:], batch - len(tiles), 0)])
        return np.asarray(program(members, filled))[: len(tiles)]

    return network


def make_probabilities(
    model: nn.Module, *, sides: Sequence[int], overlap: float, batch: int = 8
) -> Callable[[Sequence[Variables], np.ndarray], np.ndarray]:
    """`(members, image [*S,C]) -> probabilities float32 [*S,K]`, of several members the mean.

    Args:
      model: `images -> logits`.
      sides: of the window.
      overlap: share of it that the next one repeats; weights are Gaussian.
      batch: windows at once.
    """
    network = make_network(model, batch=batch)
    tiling = windows.Tiling(tuple(sides), overlap, "gaussian", batch)

    def probabilities(members: Sequence[Variables], image: np.ndarray) -> np.ndarray:
        return windows.sliding(lambda tiles: (network(members, tiles), {}), image, tiling)[0]

    return probabilities


def class_counts(
    labels: np.ndarray, predictions: np.ndarray, *, num_classes: int, valid: np.ndarray | None = None
) -> np.ndarray:
    """`overlap.class_counts` of one case of any size, on the host: int32 `[K,3]`."""
    chosen = slice(None) if valid is None else valid
    pairs = num_classes * labels[chosen].astype(np.int64).ravel() + predictions[chosen].ravel()
    table = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    return np.stack([np.diag(table), table.sum(1), table.sum(0)], -1).astype(np.int32)


def make_counts(
    model: nn.Module, num_classes: int, *, sides: Sequence[int], overlap: float
) -> Callable[[Variables, Any], np.ndarray]:
    """`(variables, cases) -> int32 [N,K,3]` of whole cases, for validation; every host counts all of them."""
    probabilities = make_probabilities(model, sides=sides, overlap=overlap)

    def counts(variables: Variables, cases: Any) -> np.ndarray:
        rows = []
        for number in range(len(cases)):
            case = cases[number]
            predictions = probabilities([variables], case["image"]).argmax(-1)
            rows.append(class_counts(case["labels"], predictions, num_classes=num_classes, valid=case.get("valid")))
        return np.stack(rows)

    return counts
