"""What a network sees of a stored case: on the device, pure, `(key, batch) -> batch` where it is random.

A stored batch is `{"image": uint8 [B,S,S,C], "labels": uint8 [B,S,S]}`; what comes out is
`{"images": float32 [B,n,n,C] in [-1,1], "labels": int32 [B,n,n]}`. Volumes have an axis more, and no quadrants.
Augmented images may leave that range. Where only some pixels count, both have `"valid": bool` too, of the labels'
shape, which goes the labels' way.

What is drawn for a sample is a function of the key and of the sample's place in the whole batch, `"position": int32
[B]`, without which the batch is whole: it does not matter how many devices share a batch.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.augmentation import intensity, spatial
from jaxseg.data.augmentation.settings import check_augmentation
from jaxseg.errors import InputError

Batch = Mapping[str, jax.Array]
VIEWS = ("original", "quadrant")


def whole(batch: Batch, *, size: int | None) -> dict[str, jax.Array]:
    """The whole image, or volume, resized to `size` a side: linear with antialiasing, labels nearest; None: as it is.

    Gray levels become -1 to 1; floats are normalised already.
    """
    images = batch["image"].astype(jnp.float32)
    if batch["image"].dtype == jnp.uint8:
        images = images / 127.5 - 1.0
    labels = batch["labels"].astype(jnp.int32)
    sides = labels.shape[1:] if size is None else (size,) * (labels.ndim - 1)
    if labels.shape[1:] != sides:
        images = jax.image.resize(images, (len(images), *sides, images.shape[-1]), "linear", antialias=True)
        labels = jax.image.resize(labels, (len(labels), *sides), "nearest")
    return {"images": images, "labels": labels} | _valid(batch, sides)


def _valid(batch: Batch, sides: Sequence[int]) -> dict[str, jax.Array]:
    if "valid" not in batch:
        return {}
    valid = jnp.asarray(batch["valid"])
    return {"valid": jax.image.resize(valid, (len(valid), *sides), "nearest")}  # of the same size: itself


@jax.jit
def levels(images: jax.Array, *, scales: jax.Array | None = None) -> jax.Array:
    """Images as a network sees them -> gray levels uint8, for pictures.

    Args:
      images: `[B,...,C]`.
      scales: `[B,4,C]`, a `normalisation.Scale` of every case; None: black is -1 in all of them, and white 1.
    """
    if scales is None:
        found = (images + 1.0) * 127.5
    else:
        black, white = (jnp.expand_dims(scales[:, i], range(1, images.ndim - 1)) for i in range(2))
        found = (images - black) * (255 / (white - black))
    return jnp.clip(jnp.round(found), 0, 255).astype(jnp.uint8)


def quadrant(batch: Batch, corner: jax.Array, *, size: int | None) -> dict[str, jax.Array]:
    """One quadrant of every image, cropped at the image's midpoint *before* it is resized (Lin, Weng et al. 2024, 4.1).

    Args:
      batch: stored cases with even S.
      corner: `[B]` int32 in 0..3: top left, top right, bottom left, bottom right.
      size: n, of the result.
    """
    half = batch["image"].shape[1] // 2
    if batch["image"].shape[1] % 2 or batch["image"].shape[2] != 2 * half:
        raise ValueError(f"quadrants need square images of even size, got {batch['image'].shape}")

    def crop(array: jax.Array, k: jax.Array) -> jax.Array:
        start = (k // 2 * half, k % 2 * half) + (jnp.int32(0),) * (array.ndim - 2)
        return jax.lax.dynamic_slice(array, start, (half, half, *array.shape[2:]))

    names = [name for name in ("image", "labels", "valid") if name in batch]
    return whole({name: jax.vmap(crop)(batch[name], corner) for name in names}, size=size)


def training_view(
    view: str, *, size: int | None, augmentation: Mapping[str, Any] | None = None
) -> Callable[[jax.Array, Batch], dict[str, jax.Array]]:
    """`(key, batch) -> batch` for training: the whole image, or a newly drawn quadrant every time; then augmented.

    Args:
      view: original or quadrant.
      size: n, of the network's images; None: cases come as it takes them.
      augmentation: the fields of `Augmentation` that differ from its defaults; what cannot happen costs nothing.

    Raises:
      InputError: an unknown view, or an unknown or impossible augmentation.
    """
    _check_view(view)
    change = check_augmentation(augmentation or {})

    def seen(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        position = batch.get("position", jnp.arange(len(batch["image"]), dtype=jnp.int32))
        # its own branch of the step's key: the objective uses another
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 0), position)
        draw = lambda number, of: jax.vmap(lambda key: of(jax.random.fold_in(key, number)))(keys)
        if view == "quadrant":
            viewed = quadrant(batch, draw(0, lambda key: jax.random.randint(key, (), 0, 4, jnp.int32)), size=size)
        else:
            viewed = whole(batch, size=size)
        branch = lambda number: jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        if change.moves:
            viewed = spatial.move(branch(1), viewed, change)
        if change.intensities:
            viewed = intensity.change(branch(2), viewed, change)
        return viewed

    return seen


def testing_view(view: str, *, size: int | None, cases: Sequence[str]) -> Callable[[Batch], dict[str, jax.Array]]:
    """`batch -> batch` for validation and testing: the whole image, or the quadrant that belongs to the case.

    Args:
      view: original or quadrant.
      size: of the network's images.
      cases: the ids of all cases; `batch["index"]` points into them.
    """
    _check_view(view)
    if view == "original":
        return _whole_view(size)
    corners = jnp.asarray(case_corners(cases))
    return lambda batch: quadrant(batch, corners[batch["index"]], size=size)


@functools.cache  # one function a size, so that what is compiled with it is compiled once
def _whole_view(size: int | None) -> Callable[[Batch], dict[str, jax.Array]]:
    return lambda batch: whole(batch, size=size)


def case_corners(cases: Sequence[str]) -> np.ndarray:
    """The quadrant that every case is tested on, `[N]` int32: a checksum of its id, independent of other cases."""
    return np.array([zlib.crc32(case.encode()) % 4 for case in cases], np.int32)


def _check_view(view: str) -> None:
    if view not in VIEWS:
        raise InputError(f"view is {view!r}; choose one of {', '.join(VIEWS)}")
