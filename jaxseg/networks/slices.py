"""A network for pictures, as one for volumes: it is given every slice along their first axis by itself."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxseg.data import grids
from jaxseg.data.inputs import Inputs, gray_levels
from jaxseg.errors import InputError
from jaxseg.models.layers import over_image
from jaxseg.models.skeleton import Roles
from jaxseg.networks.base import Network, Wrapped


@functools.partial(jax.tree_util.register_dataclass, data_fields=("network",), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class Sliced(Wrapped):
    """A network for pictures on the slices of volumes, of which there may be any number.

    Attributes:
      network: for pictures.
    """

    network: Network

    @property
    def sides(self) -> tuple[int, ...]:
        return (1, *self.network.sides)

    @property
    def roles(self) -> Roles:
        """Those of the network; with padding `valid` its bottleneck shows more than the slices, and is not named."""
        roles = self.network.roles
        return roles._replace(bottleneck=None) if self.network.margin else roles

    @property
    def inputs(self) -> Inputs:
        """Those of the network, in the plane of the slices."""
        given = self.network.inputs or gray_levels(self.network.sides)
        return given._replace(grid=grids.in_plane(given.grid))

    @property
    def margin(self) -> int:
        """None: what slices show beyond the volume is cut off."""
        return 0

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.network.notes, "The network is one for pictures: it is given volumes slice by slice.")

    def repadded(self, padding: str) -> Network | None:
        other = self.network.repadded(padding)
        return other and Sliced(other)

    def captured(self, images: jax.Array, layers: Sequence[str]) -> tuple[jax.Array, dict[str, jax.Array]]:
        found: tuple[jax.Array, dict[str, jax.Array]] = self._flat(self.network.captured, images, layers)
        return found

    def replaced(self, images: jax.Array, activations: Mapping[str, jax.Array]) -> jax.Array:
        given = {name: _slices(array) for name, array in activations.items()}
        made: jax.Array = self._flat(lambda slices: self.network.replaced(slices, given), images)
        return made

    def logits(self, images: jax.Array) -> jax.Array:
        """`[B,D,H,W,K]` of volumes `[B,D,H,W,C]`."""
        made: jax.Array = self._flat(self.network.logits, images)
        return made

    def _flat(self, ask: Callable[..., Any], volumes: jax.Array, *more: Any) -> Any:
        """What the network says of all slices, with that of every volume together again."""
        if volumes.ndim != 5:
            raise ValueError(f"images are {volumes.shape}, and the network takes volumes [B,D,H,W,C]")

        def together(array: jax.Array) -> jax.Array:
            seen = over_image(array, volumes.shape[2:-1])
            return seen.reshape(*volumes.shape[:2], *seen.shape[1:])

        return jax.tree.map(together, ask(_slices(volumes), *more))


def slice_by_slice(network: Network) -> Network:
    """A network for pictures as one for volumes.

    Volumes are prepared as the network's pictures are, in the plane of their slices; how many slices they have stays.

    Raises:
      InputError: it is one for volumes already.
    """
    if len(network.sides) != 2:
        raise InputError(f"the network takes images of {len(network.sides)} axes; give one that takes pictures")
    return Sliced(network)


def _slices(volumes: jax.Array) -> jax.Array:
    return volumes.reshape(-1, *volumes.shape[2:])
