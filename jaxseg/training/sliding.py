"""A network for patches on whole cases: a window slides over each, and the overlaps of the result are counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import augment, windows
from jaxseg.metrics import overlap
from jaxseg.networks.base import Network
from jaxseg.networks.linen import network_of

Variables = Mapping[str, Any] | Network
_TILES = 8  # through the network at once


def mean_probabilities(model: nn.Module | None, members: Sequence[Variables], images: jax.Array) -> jax.Array:
    """Class probabilities float32 `[B,*n,K]`; of several members' variables, or of None and networks, the mean."""
    logits = [network_of(model, variables, images).logits(images) for variables in members]
    return jnp.mean(jnp.stack([jax.nn.softmax(one.astype(jnp.float32)) for one in logits]), 0)


class Sliding:
    """A network whose window slides over cases of any size; one program is compiled."""

    def __init__(self, model: nn.Module | None, *, sides: Sequence[int], overlap: float):
        """Compiles nothing yet.

        Args:
          model: `images -> logits`; None where the members are networks.
          sides: of the window.
          overlap: share of it that the next one repeats; weights are Gaussian.
        """
        self._program = jax.jit(lambda members, tiles: mean_probabilities(model, members, _seen(tiles)))
        self._tiling = windows.Tiling(tuple(sides), overlap, "gaussian", _TILES)

    def __call__(self, members: Sequence[Variables], image: np.ndarray) -> np.ndarray:
        """Class probabilities float32 `[*S,K]` of an image `[*S,C]`; of several members' variables, the mean."""

        def network(tiles: np.ndarray) -> tuple[np.ndarray, windows.Scores]:
            filled = np.concatenate([tiles, np.repeat(tiles[-1:], _TILES - len(tiles), 0)])
            return np.asarray(self._program(members, filled))[: len(tiles)], {}

        return windows.sliding(network, image, self._tiling)[0]

    def over_cases(
        self, members: Sequence[Variables], cases: Any
    ) -> Iterator[tuple[int, np.ndarray, Mapping[str, np.ndarray]]]:
        """Of every case of a sequence its place, its probabilities, and the case itself."""
        for place in range(len(cases)):
            case = cases[place]
            yield place, self(members, case["image"]), case


def _seen(tiles: jax.Array) -> jax.Array:
    return augment.whole({"image": tiles, "labels": jnp.zeros(tiles.shape[:-1], jnp.uint8)}, size=None)["images"]


def counts_of_case(truth: Mapping[str, Any], probabilities: np.ndarray, num_classes: int) -> np.ndarray:
    """`overlap.case_counts` of class probabilities `[*S,K]`, by the `labels` and `valid` of a case."""
    return overlap.case_counts(
        truth["labels"], probabilities.argmax(-1), num_classes=num_classes, valid=truth.get("valid")
    )


def make_counts(
    model: nn.Module, num_classes: int, *, sides: Sequence[int], overlap: float
) -> Callable[[Variables, Any], np.ndarray]:
    """`(variables, cases) -> int32 [N,K,3]` of whole cases, for validation; every host counts all of them."""
    slide = Sliding(model, sides=sides, overlap=overlap)

    def counts(variables: Variables, cases: Any) -> np.ndarray:
        answers = slide.over_cases([variables], cases)
        return np.stack([counts_of_case(case, found, num_classes) for _, found, case in answers])

    return counts
