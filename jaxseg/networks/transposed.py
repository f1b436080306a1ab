"""A network whose images have their axes in another order than the cases that it is asked about."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.networks.base import Network, Wrapped

_Number = TypeVar("_Number", int, float)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("network",), meta_fields=("axes",))
@dataclasses.dataclass(frozen=True, eq=False)
class Transposed(Wrapped):
    """A network on images whose axes are put in its order before it, and back behind it.

    Attributes:
      network: on images of its own order; its `inputs` are of cases in theirs.
      axes: which spatial axis of a case is its first, second, third.
    """

    network: Network
    axes: tuple[int, ...]

    @property
    def sides(self) -> tuple[int, ...]:
        return in_cases(self.network.sides, self.axes)

    def repadded(self, padding: str) -> Network | None:
        other = self.network.repadded(padding)
        return other and Transposed(other, self.axes)

    def captured(self, images: jax.Array, layers: Sequence[str]) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, activations = self.network.captured(self._there(images), layers)
        return self._back(logits), {name: self._back(array) for name, array in activations.items()}

    def replaced(self, images: jax.Array, activations: Mapping[str, jax.Array]) -> jax.Array:
        given = {name: self._there(array) for name, array in activations.items()}
        return self._back(self.network.replaced(self._there(images), given))

    def _there(self, array: jax.Array) -> jax.Array:
        """`[B,*n,C]` of a case -> of the network."""
        return _permuted(array, self.axes)

    def _back(self, array: jax.Array) -> jax.Array:
        return _permuted(array, np.argsort(self.axes))


def in_cases(values: Sequence[_Number], axes: Sequence[int]) -> tuple[_Number, ...]:
    """What a network has along its axes, along those of a case."""
    return tuple(values[place] for place in np.argsort(axes))


def _permuted(array: jax.Array, axes: Sequence[int] | np.ndarray) -> jax.Array:
    return jnp.transpose(array, (0, *(int(axis) + 1 for axis in axes), array.ndim - 1))
