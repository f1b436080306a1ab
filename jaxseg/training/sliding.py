"""A network for patches on whole cases: a window slides over each, and the overlaps of the result are counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import augment, windows
from jaxseg.metrics import overlap
from jaxseg.networks import Network, host, of_linen
from jaxseg.training import parallel

TILES = 8  # through the network at once
_MOST_GROUPS = 16  # that are compiled one by one on CPU, where more go through at once instead


def mean_probabilities(members: Sequence[Network], images: jax.Array) -> jax.Array:
    """Class probabilities float32 `[B,*n,K]`; of several networks, the mean."""
    logits = [network.logits(images) for network in members]
    return jnp.mean(jnp.stack([jax.nn.softmax(one.astype(jnp.float32)) for one in logits]), 0)


class Sliding:
    """Networks whose window slides over cases of any size; one program is compiled for those of one shape."""

    def __init__(self, *, sides: Sequence[int], overlap: float):
        """Compiles nothing yet.

        Args:
          sides: of the window.
          overlap: share of it that the next one repeats; weights are Gaussian.
        """
        self._program = jax.jit(lambda members, tiles: mean_probabilities(members, _seen(tiles)))
        self._tiling = windows.Tiling(tuple(sides), overlap, "gaussian", TILES)

    def __call__(self, members: Sequence[Network], image: np.ndarray) -> np.ndarray:
        """Class probabilities float32 `[*S,K]` of an image `[*S,C]`; of several networks, the mean."""

        def network(tiles: np.ndarray) -> tuple[np.ndarray, windows.Scores]:
            filled = np.concatenate([tiles, np.repeat(tiles[-1:], TILES - len(tiles), 0)])
            return np.asarray(self._program(members, filled))[: len(tiles)], {}

        with host.plainly():
            return windows.sliding(network, image, self._tiling)[0]

    def over_cases(
        self, members: Sequence[Network], cases: Any
    ) -> Iterator[tuple[int, np.ndarray, Mapping[str, np.ndarray]]]:
        """Of every case of a sequence its place, its probabilities, and the case itself."""
        for place in range(len(cases)):
            case = cases[place]
            yield place, self(members, case["image"]), case


def _seen(tiles: jax.Array) -> jax.Array:
    return augment.whole({"image": tiles, "labels": jnp.zeros(tiles.shape[:-1], jnp.uint8)}, size=None)["images"]


def probabilities(network: Callable[[jax.Array], jax.Array], images: jax.Array, tiling: windows.Tiling) -> jax.Array:
    """What `windows.sliding` gives, within a compiled program, where images have one size.

    Args:
      network: tiles `[T,*side,C]` -> class probabilities float32 `[T,*side,K]`.
      images: as a network sees them, `[B,*n,C]`.
      tiling: how the window slides; its `batch` is how many tiles go through the network at once, unless these were
        too many programs.

    Returns:
      Class probabilities float32 `[B,*n,K]`.
    """
    rank = images.ndim - 2
    axes = [windows.slides(n, side, tiling) for n, side in zip(images.shape[1:-1], tiling.sides(rank), strict=True)]
    tiles = images
    for axis, along in enumerate(axes):  # [B,T,side,T,side,...,C]
        tiles = jnp.take(tiles, along.seen, axis=1 + 2 * axis)
    tiles = jnp.moveaxis(tiles, range(1, 1 + 2 * rank, 2), range(1, 1 + rank))
    grid = tiles.shape[: 1 + rank]
    found = _in_groups(network, tiles.reshape(-1, *tiles.shape[1 + rank :]), tiling.batch)
    found = found.reshape(*grid, *found.shape[1:])
    for axis, along in reversed(list(enumerate(axes))):  # of the axes behind it tiles are added up already
        found = _added(found, along, tiles=1 + axis, pixels=2 + 2 * axis)
    return found


def _in_groups(network: Callable[[jax.Array], jax.Array], tiles: jax.Array, size: int) -> jax.Array:
    """The network on so many tiles at once; the last group is filled up."""
    if jax.default_backend() == "cpu":
        size = max(size, -(-len(tiles) // _MOST_GROUPS))
    if len(tiles) <= size:
        return network(tiles)
    groups = -(-len(tiles) // size)
    filled = jnp.concatenate([tiles, jnp.repeat(tiles[-1:], groups * size - len(tiles), 0)])
    of_group = lambda carry, group: (carry, network(group))
    _, found = parallel.scan(of_group, (), filled.reshape(groups, size, *tiles.shape[1:]))
    return found.reshape(groups * size, *found.shape[2:])[: len(tiles)]


def _added(found: jax.Array, along: windows.Slides, *, tiles: int, pixels: int) -> jax.Array:
    """Tiles along an axis, weighed and added up where they lie: from an axis of tiles and one of their pixels, one."""
    apart = jnp.moveaxis(found, (tiles, pixels), (0, 1))  # [T,side,...]
    length, rest = len(along.total), apart.shape[2:]
    of_axis = lambda vector: jnp.asarray(vector).reshape(-1, *(1,) * len(rest))
    total = jnp.zeros((length, *rest), jnp.float32)
    for tile, start in enumerate(along.starts):
        low, high = max(-start, 0), min(len(along.window), length - start)
        weighed = apart[tile, low:high] * of_axis(along.window[low:high])
        total = total.at[start + low : start + high].add(weighed)
    return jnp.moveaxis(total / of_axis(along.total), 0, pixels - 1)


def counts_of_case(truth: Mapping[str, Any], probabilities: np.ndarray, num_classes: int) -> np.ndarray:
    """`overlap.case_counts` of class probabilities `[*S,K]`, by the `labels` and `valid` of a case."""
    return overlap.case_counts(
        truth["labels"], probabilities.argmax(-1), num_classes=num_classes, valid=truth.get("valid")
    )


def make_counts(
    model: nn.Module, num_classes: int, *, shape: Sequence[int], overlap: float
) -> Callable[[Mapping[str, Any], Any], np.ndarray]:
    """`(variables, cases) -> int32 [N,K,3]` of whole cases, for validation; every host counts all of them.

    Args:
      model: `images -> logits`, whose variables change.
      num_classes: K.
      shape: of its images, `(1, *side, C)`, which are the window's.
      overlap: as of `Sliding`.
    """
    slide = Sliding(sides=shape[1:-1], overlap=overlap)

    def counts(variables: Mapping[str, Any], cases: Any) -> np.ndarray:
        network = of_linen(model, variables, image_size=shape[1:-1], channels=shape[-1])
        answers = slide.over_cases([network], cases)
        return np.stack([counts_of_case(case, found, num_classes) for _, found, case in answers])

    return counts
