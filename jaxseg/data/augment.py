"""What a network sees of a stored case: on the device, pure, `(key, batch) -> batch` where chance is involved.

A stored batch is `{"image": uint8 [B,S,S,C], "labels": uint8 [B,S,S]}`; what comes out is
`{"images": float32 [B,n,n,C] in [-1,1], "labels": int32 [B,n,n]}`.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError

Batch = Mapping[str, jax.Array]
VIEWS = ("original", "quadrant")


def whole(batch: Batch, *, size: int) -> dict[str, jax.Array]:
    """The whole image, resized to `size`: bilinear with antialiasing, labels nearest."""
    images = batch["image"].astype(jnp.float32) / 127.5 - 1.0
    labels = batch["labels"].astype(jnp.int32)
    b, h, w, c = images.shape
    if (h, w) != (size, size):
        images = jax.image.resize(images, (b, size, size, c), "linear", antialias=True)
        labels = jax.image.resize(labels, (b, size, size), "nearest")
    return {"images": images, "labels": labels}


def quadrant(batch: Batch, corner: jax.Array, *, size: int) -> dict[str, jax.Array]:
    """One quadrant of every image, cut at the image's midpoint *before* it is resized (Lin, Weng et al. 2024, 4.1).

    Args:
      batch: stored cases with even S.
      corner: `[B]` int32 in 0..3: top left, top right, bottom left, bottom right.
      size: n, of the result.
    """
    half = batch["image"].shape[1] // 2
    if batch["image"].shape[1] % 2 or batch["image"].shape[2] != 2 * half:
        raise ValueError(f"quadrants need square images of even size, got {batch['image'].shape}")

    def cut(array: jax.Array, k: jax.Array) -> jax.Array:
        start = (k // 2 * half, k % 2 * half) + (0,) * (array.ndim - 2)
        return jax.lax.dynamic_slice(array, start, (half, half, *array.shape[2:]))

    return whole({name: jax.vmap(cut)(batch[name], corner) for name in ("image", "labels")}, size=size)


def training_view(view: str, *, size: int) -> Callable[[jax.Array, Batch], dict[str, jax.Array]]:
    """`(key, batch) -> batch` for training: the whole image, or a quadrant drawn anew every time."""
    _check_view(view)
    if view == "original":
        return lambda key, batch: whole(batch, size=size)

    def random_quadrant(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        corner = jax.random.randint(key, batch["image"].shape[:1], 0, 4)
        return quadrant(batch, corner, size=size)

    return random_quadrant


def testing_view(view: str, *, size: int, cases: Sequence[str]) -> Callable[[Batch], dict[str, jax.Array]]:
    """`batch -> batch` for validation and testing: the whole image, or the quadrant that belongs to the case.

    Args:
      view: original or quadrant.
      size: of the network's images.
      cases: the ids of all cases; `batch["index"]` points into them.
    """
    _check_view(view)
    if view == "original":
        return lambda batch: whole(batch, size=size)
    corners = jnp.asarray(case_corners(cases))
    return lambda batch: quadrant(batch, corners[batch["index"]], size=size)


def case_corners(cases: Sequence[str]) -> np.ndarray:
    """The quadrant that every case is tested on, `[N]` int32: a checksum of its id, so that no other case matters."""
    return np.array([zlib.crc32(case.encode()) % 4 for case in cases], np.int32)


def _check_view(view: str) -> None:
    if view not in VIEWS:
        raise InputError(f"view is {view!r}; choose one of {', '.join(VIEWS)}")
