"""Removes units from a trained U-Net's last layer: a network that is narrower there, with the weights of the rest.

He et al. 2022, section 4.5: what inert units add to the logits is almost constant (Eq. 11), so it can go into the
bias. Here it is their mean, and the result is exactly the network in which each of them always has its mean.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.models.unet import UNet

LAST_LAYER = "decoder_0/conv_1"  # of a U-Net, before its head


class NarrowedUNet(UNet):
    """A U-Net whose last layer has `last_width` channels, whatever its other layers have."""

    last_width: int = 1

    @nn.nowrap
    def check(self) -> None:
        """See `UNetSkeleton`."""
        super().check()
        if self.last_width < 1:
            raise ValueError(f"last_width is {self.last_width}; the last layer needs at least one unit")

    @property
    def decoder_widths(self) -> tuple[tuple[int, int], ...]:
        """See `UNet`."""
        (first, _), *others = super().decoder_widths
        return ((first, self.last_width), *others)


def prune_last_layer(
    model: UNet, variables: Mapping[str, Any], keep: np.ndarray, means: np.ndarray
) -> tuple[NarrowedUNet, dict[str, Any]]:
    """The network without some units of its last layer.

    Args:
      model: with batch or instance norm, whose channels do not depend on each other.
      variables: of it.
      keep: bool `[C]`, which units of the last layer stay; at least one.
      means: `[C]` the value of each removed unit at every pixel, such as its mean over validation images.

    Returns:
      The narrower network and its variables: its logits are those of `model` with every removed unit at its mean.

    Raises:
      ValueError: `keep` or `means` do not fit the last layer, nothing stays, or the norm is group norm.
    """
    block, layer = LAST_LAYER.split("/")
    width = model.decoder_widths[0][1]
    if keep.shape != (width,) or means.shape != (width,):
        raise ValueError(f"keep {keep.shape} and means {means.shape} must have one entry per unit, [{width}]")
    if not keep.any():
        raise ValueError("keep names no unit; the last layer needs at least one")
    if model.norm == "group":
        raise ValueError("a group norm mixes the units of a layer; without some of them the others would change")
    kept = np.flatnonzero(keep)
    select = lambda leaf: jnp.asarray(leaf)[..., kept]  # output channels come last in kernels, vectors are per channel
    pruned = jax.tree.map(lambda leaf: leaf, dict(variables))  # new dictionaries, the same arrays
    for collection in pruned.values():
        if layer in collection.get(block, {}):
            collection[block][layer] = jax.tree.map(select, collection[block][layer])
    head = pruned["params"]["head"]["conv"]
    kernel = jnp.asarray(head["kernel"])
    constant = jnp.einsum("...ck,c->k", kernel, jnp.asarray(np.where(keep, 0, means), kernel.dtype))
    head["kernel"], head["bias"] = kernel[..., kept, :], head["bias"] + constant
    fields = {name: getattr(model, name) for name in UNet.__dataclass_fields__ if name not in ("parent", "name")}
    return NarrowedUNet(**fields, last_width=len(kept)), pruned
