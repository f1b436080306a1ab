"""Trains a small network that fills in what calipers and text have covered: the method `network` of `overlays.remove`.

Mikolaj et al. 2023, *Removing confounding information from fetal ultrasound images*, which Lin, Weng et al. 2024
(*Shortcut Learning in Medical Image Segmentation*, section 3) follow. It learns from images of the same kind: holes
shaped like overlays are made where nothing is known to cover the image, and the network predicts what was there.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxseg import models
from jaxseg.data import overlays
from jaxseg.models.skeleton import UNetSkeleton, compiler_options
from jaxseg.numerics import in_32_bits
from jaxseg.training import optim
from jaxseg.training import steps as training_steps
from jaxseg.training.objectives import Batch, Objective
from jaxseg.training.state import create

Report = Callable[[int, float], None]


class Inpainter:
    """Fills in what is hidden: `inpaint(images, masks) -> images`.

    Attributes:
      module: `[B,h,w,C+1] -> [B,h,w,max(2, C)]`: an image with 0 where it is hidden and a channel with 1 there, to gray
        levels in [-1, 1]. A network here has two outputs at least; of an image with one channel, the second is unused.
      variables: of it.
      losses: mean absolute error of each training step, in [-1, 1], float32 `[steps]`.
    """

    def __init__(self, module: UNetSkeleton, variables: Mapping[str, Any], losses: np.ndarray):
        self.module, self.variables, self.losses = module, variables, losses
        self._fill = jax.jit(functools.partial(_predict, module))

    def __call__(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """The images with what is hidden filled in, float32 `[B,H,W,C]`; the rest as it was, to the bit.

        Args:
          images: float32 `[B,H,W,C]` in [-1, 1]; what they have in the masks is not looked at. Sizes that the poolings
            do not divide are extended by reflection.
          masks: bool `[B,H,W]`.

        Raises:
          ValueError: images and masks of different sizes, or by the network, other channels than it was trained for.
        """
        images, masks = np.asarray(images, np.float32), np.asarray(masks, bool)
        if images.ndim != 4 or masks.shape != images.shape[:3]:
            raise ValueError(f"images are {images.shape} and masks {masks.shape}; give [B,H,W,C] and [B,H,W]")
        unit = 2**self.module.halvings
        extra = [(0, 0), *((0, -size % unit) for size in masks.shape[1:])]
        seen = np.pad(np.where(masks[..., None], overlays.HIDDEN, images), [*extra, (0, 0)], "symmetric")
        filled = self._fill(self.variables, seen.astype(np.float32), np.pad(masks, extra, "symmetric"))
        height, width = masks.shape[1:]
        return np.where(masks[..., None], np.asarray(filled)[:, :height, :width, : images.shape[-1]], images)


@in_32_bits
def train_inpainter(
    key: jax.Array,
    images: np.ndarray,
    *,
    known_overlays: np.ndarray | None = None,
    steps: int = 2000,
    batch_size: int = 16,
    crop: int = 64,
    features: tuple[int, ...] = (16, 32, 64),
    learning_rate: float = 2e-3,
    report: Report | None = None,
) -> Inpainter:
    """Trains a U-Net on crops with holes; the loss is the mean absolute error in the holes.

    Adam, with a rate that falls to zero along half a cosine. The same arguments give the same network on the same
    device. What is under a known overlay is hidden from the network and never scored, so it has no influence.

    Args:
      key: typed random key.
      images: uint8 `[N,H,W,C]`.
      known_overlays: bool `[N,H,W]`, such as `overlays.detect` gives, dilated; by default there are none.
      steps: updates.
      batch_size: B crops, drawn from random images, each at a random place.
      crop: side of a crop, at most H and W, divisible by 2 to the number of poolings.
      features: of the U-Net, top level first.
      learning_rate: the highest.
      report: called with the step and its loss after every hundredth.

    Raises:
      ValueError: images that are not uint8 `[N,H,W,C]`, overlays of another shape, or a crop larger than an image or
        not divisible.
      FloatingPointError: the loss is no longer finite; choose a lower learning rate.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise ValueError(f"images must be uint8 [N,H,W,C] with N above 0, got {images.dtype}{images.shape}")
    covered = np.zeros(images.shape[:3], bool) if known_overlays is None else known_overlays
    if covered.shape != images.shape[:3]:
        raise ValueError(f"known_overlays are {covered.shape}, the images {images.shape}; give [N,H,W]")
    if crop > min(images.shape[1:3]):
        raise ValueError(f"crop is {crop}, larger than the images {images.shape[1:3]}; choose a smaller one")
    channels = images.shape[-1]
    module = models.build("unet", max(2, channels), features=features, padding="reflect")
    optimizer = optim.apart(optax.adam(optax.cosine_decay_schedule(learning_rate, steps)))
    init_key, order_key = jax.random.split(key)
    state = jax.jit(lambda key: create(key, module, optimizer, (1, crop, crop, channels + 1)))(init_key)
    step = training_steps.make_train_step(inpainting(module), optimizer, functools.partial(_view, crop=crop))
    # one call a step: in a loop on the device, convolutions would run on one thread of a CPU
    run = jax.jit(step, donate_argnums=0, compiler_options=compiler_options(module))
    order = np.asarray(jax.random.randint(order_key, (steps, batch_size), 0, len(images), jnp.int32))
    losses = []
    for number, index in enumerate(order):
        batch = {"image": images[index], "overlays": covered[index], "index": index}
        state, metrics = run(state, batch)
        losses.append(metrics["loss"])
        if number % 100 == 99 or number == steps - 1:
            loss = float(losses[-1])
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {number + 1}; choose a lower learning rate")
            if report is not None:
                report(number + 1, loss)
    return Inpainter(module, state.variables, np.asarray(jnp.stack(losses)))


def inpainting(module: nn.Module) -> Objective:
    """Mean absolute error over the scored pixels of a batch that `overlays.holes` made.

    Args:
      module: as `Inpainter.module`.
    """

    def objective(key: jax.Array, variables: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Any]:
        del key
        seen = _with_mask(batch["images"], batch["masks"])
        filled, updated = module.apply(variables, seen, train=True, mutable=["batch_stats"])
        error = jnp.abs(filled[..., : batch["targets"].shape[-1]] - batch["targets"])
        scored = jnp.broadcast_to(batch["scored"][..., None], error.shape)
        # where, and not times: what is not scored must not matter, whatever it is
        total = jnp.sum(jnp.where(scored, error, 0.0))
        return total / jnp.maximum(jnp.sum(scored, dtype=jnp.float32), 1.0), updated.get("batch_stats", {})

    return objective


def _view(key: jax.Array, batch: Batch, *, crop: int) -> dict[str, jax.Array]:
    """A random crop of every stored image, in [-1, 1], with holes."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 0), batch["position"])

    def cropped(key: jax.Array, image: jax.Array, covered: jax.Array) -> tuple[jax.Array, jax.Array]:
        room = jnp.array(covered.shape, jnp.int32) - crop + 1
        y, x = jax.random.randint(key, (2,), 0, room, jnp.int32)
        return (
            jax.lax.dynamic_slice(image, (y, x, jnp.int32(0)), (crop, crop, image.shape[-1])),
            jax.lax.dynamic_slice(covered, (y, x), (crop, crop)),
        )

    image, covered = jax.vmap(cropped)(keys, batch["image"], batch["overlays"])
    images = image.astype(jnp.float32) / 127.5 - 1.0
    seen = {"images": images, "overlays": covered, "position": batch["position"]}
    return overlays.holes(jax.random.fold_in(key, 1), seen)


def _with_mask(images: jax.Array, masks: jax.Array) -> jax.Array:
    return jnp.concatenate([images, masks[..., None].astype(images.dtype)], -1)


def _predict(module: nn.Module, variables: Mapping[str, Any], images: jax.Array, masks: jax.Array) -> Any:
    return module.apply(dict(variables), _with_mask(images, masks))
