"""A linen module with its variables, as a network."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.inputs import Inputs
from jaxseg.models import capture
from jaxseg.models.skeleton import Roles, UNetSkeleton, compiler_options
from jaxseg.networks.base import Network, check_sides


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("variables",),
    meta_fields=("model", "sides_seen", "channels_seen", "inputs", "class_names", "notes"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class LinenNetwork(Network):
    """A linen module with its variables, which are its leaves.

    Attributes:
      model: `images -> logits`.
      variables: of it.
      sides_seen: of the images.
      channels_seen: of the images.
      inputs, class_names, notes: as `Network` has them.
    """

    model: nn.Module
    variables: Any
    sides_seen: tuple[int, ...]
    channels_seen: int
    inputs: Inputs | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        if isinstance(self.model, UNetSkeleton):
            return self.model.num_classes
        answer: Any = jax.eval_shape(self.model.apply, self.variables, self._image)
        return answer.shape[-1]

    @property
    def channels(self) -> int:
        return self.channels_seen

    @property
    def sides(self) -> tuple[int, ...]:
        return self.sides_seen

    @property
    def layers(self) -> tuple[str, ...]:
        return capture.layer_names(self.model, self.variables, self._image)

    @property
    def roles(self) -> Roles:
        if isinstance(self.model, UNetSkeleton):
            return self.model.roles
        return Roles(None, (), (), self.layers)

    @property
    def padding(self) -> str:
        return getattr(self.model, "padding", "")

    @property
    def margin(self) -> int:
        return getattr(self.model, "margin", 0)

    @property
    def differentiable(self) -> bool:
        return True

    @property
    def compiler_options(self) -> dict[str, str]:
        """Those of its module."""
        return compiler_options(self.model) if isinstance(self.model, UNetSkeleton) else {}

    @property
    def fingerprint(self) -> str:
        sums = 0
        for path, leaf in jax.tree.leaves_with_path(self.variables):
            sums = zlib.crc32(
                np.ascontiguousarray(leaf).tobytes(), zlib.crc32(jax.tree_util.keystr(path).encode(), sums)
            )
        return f"{sums:08x}"

    def captured(self, images: jax.Array, layers: Sequence[str]) -> tuple[jax.Array, dict[str, jax.Array]]:
        return capture.capture(self.model, self.variables, images, layers)

    def replaced(self, images: jax.Array, activations: Mapping[str, jax.Array]) -> jax.Array:
        given = {name: functools.partial(_instead, array) for name, array in activations.items()}
        return capture.replace(self.model, self.variables, images, given)

    def repadded(self, padding: str) -> Network | None:
        return dataclasses.replace(self, model=self.model.clone(padding=padding)) if self.padding else None

    @property
    def _image(self) -> Any:
        return jax.ShapeDtypeStruct((1, *self.sides_seen, self.channels_seen), jnp.float32)


def of_linen(model: nn.Module, variables: Any, *, image_size: int | Sequence[int], channels: int = 3) -> LinenNetwork:
    """A linen module as a network.

    Args:
      model: `images -> logits`; deterministic when called with images alone.
      variables: of it.
      image_size: side of its square images, `(height, width)`, or `(depth, height, width)`.
      channels: C.

    Raises:
      InputError: not a size.
    """
    return LinenNetwork(model, variables, check_sides(image_size), channels)


def _instead(array: jax.Array, activation: jax.Array) -> jax.Array:
    del activation
    return array
