"""What a network sees of a stored case: on the device, pure, `(key, batch) -> batch` where it is random.

A stored batch is `{"image": uint8 [B,S,S,C], "labels": uint8 [B,S,S]}`; what comes out is
`{"images": float32 [B,n,n,C] in [-1,1], "labels": int32 [B,n,n]}`. Volumes have an axis more and are only resized.
Where only some pixels count, both have `"valid": bool` too, of the labels' shape, which goes the labels' way.

What is drawn for a sample is a function of the key and of the sample's place in the whole batch, `"position": int32
[B]`, without which the batch is whole: it does not matter how many devices share a batch.
"""

import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError

Batch = Mapping[str, jax.Array]
VIEWS = ("original", "quadrant")
FILLS = ("reflect", "constant")
_NO_IMAGE = -1.0  # what `constant` puts beyond the image


class Spatial(NamedTuple):
    """By how much training images are moved; by default not at all. Pairs are the two ends of a uniform draw.

    A sample is flipped, rotated, scaled and translated about its centre, in this order, and then cropped.

    Attributes:
      flip_horizontal: probability of swapping left and right.
      flip_vertical: that of swapping top and bottom.
      rotate: degrees, drawn in -rotate to rotate, counter-clockwise.
      scale: factors of the size of what is seen, above 1 enlarges.
      translate: of the image's height and width, drawn in -translate to translate for both.
      crop: share of the height and of the width that is cropped, anywhere, and resized.
      fill: what is beyond the border: `reflect`, the image and the labels mirrored at the centres of the outermost
        pixels; or `constant`, -1 and label 0.
    """

    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    translate: float = 0.0
    crop: tuple[float, float] = (1.0, 1.0)
    fill: str = "reflect"

    @property
    def moves(self) -> bool:
        """Whether anything can move."""
        return self._replace(fill="reflect") != Spatial()


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
def levels(images: jax.Array) -> jax.Array:
    """Images in [-1, 1] as a network sees them -> gray levels uint8, for pictures."""
    return jnp.clip(jnp.round((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


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
      augmentation: the fields of `Spatial` that differ from its defaults; none, or what moves nothing, costs nothing.

    Raises:
      InputError: an unknown view, or an unknown or impossible augmentation.
    """
    _check_view(view)
    spatial = check_augmentation(augmentation or {})

    def seen(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        position = batch.get("position", jnp.arange(len(batch["image"]), dtype=jnp.int32))
        # its own branch of the step's key: the objective uses another
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, 0), position)
        draw = lambda number, of: jax.vmap(lambda key: of(jax.random.fold_in(key, number)))(keys)
        if view == "quadrant":
            viewed = quadrant(batch, draw(0, lambda key: jax.random.randint(key, (), 0, 4, jnp.int32)), size=size)
        else:
            viewed = whole(batch, size=size)
        if not spatial.moves:
            return viewed
        return warp(
            viewed, draw(1, lambda key: draw_affine(key, spatial, viewed["labels"].shape[1])), fill=spatial.fill
        )

    return seen


def check_augmentation(augmentation: Mapping[str, Any]) -> Spatial:
    """The augmentation with its defaults; raises InputError, naming the field, where one is unknown or invalid."""
    given: dict[str, Any] = dict(augmentation)
    for name, value in given.items():
        where = f"config.data.augmentation.{name}"
        if name not in Spatial._fields:
            raise InputError(f"{where} is unknown; choose from {', '.join(Spatial._fields)}")
        wanted = _wanted(name, value)
        if wanted:
            raise InputError(f"{where} is {value!r}; it must be {wanted}")
    given |= {name: tuple(given[name]) for name in ("scale", "crop") if name in given}  # a config file has lists
    return Spatial(**given)


def draw_affine(key: jax.Array, spatial: Spatial, size: int) -> jax.Array:
    """One sample's matrix for `warp`, `[2,3]` float32.

    Args:
      key: of the sample.
      spatial: what may be drawn.
      size: n, pixels a side.
    """
    # always as many numbers, so that one augmentation's draws do not depend on which others there are
    flip_x, flip_y, turn, zoom, *shift, part, top, left = jax.random.uniform(key, (9,), jnp.float32)
    sign = lambda u, probability: jnp.where(u < probability, -1.0, 1.0)
    between = lambda u, low, high: low + (high - low) * u
    around = lambda u: jnp.stack(u) - 0.5
    angle = between(turn, -1.0, 1.0) * math.radians(spatial.rotate)
    crop = between(part, *spatial.crop)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    flip = jnp.stack([sign(flip_y, spatial.flip_vertical), sign(flip_x, spatial.flip_horizontal)])
    back = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])]) * flip[:, None] / between(zoom, *spatial.scale)
    # between the outermost pixels' centres: a crop alone never looks beyond the border
    offset = (1 - crop) * (size - 1) * around([top, left]) - 2 * spatial.translate * size * around(shift)
    return jnp.concatenate([back * crop, _product(back, offset)[:, None]], 1)


def warp(seen: Batch, affine: jax.Array, *, fill: str) -> dict[str, jax.Array]:
    """Every image and its labels moved by an affine map, in one interpolation: bilinear, labels nearest.

    It works on the images as the network sees them, so enlarging softens a little and shrinking is not
    antialiased: it is meant for factors near 1. The identity returns what it was given, to the bit.

    Args:
      seen: `{"images": [B,h,w,C], "labels": [B,h,w]}`.
      affine: `[B,2,3]`: the pixel (y, x) of the result, counted from the centre of the image, is at
        `affine[:, :2] @ (y, x) + affine[:, 2]` of the source, in pixels from its centre.
      fill: reflect or constant; see `Spatial`.
    """
    shape = seen["labels"].shape[1:]
    middle = [(n - 1) / 2 for n in shape]

    def one(image: jax.Array, labels: jax.Array, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
        grid = jnp.meshgrid(
            *(jnp.arange(n, dtype=jnp.float32) - c for n, c in zip(shape, middle, strict=True)), indexing="ij"
        )
        y, x = (row[0] * grid[0] + row[1] * grid[1] + row[2] + c for row, c in zip(matrix, middle, strict=True))
        return _sample(image, labels, y, x, fill)

    images, labels = jax.vmap(one)(seen["images"], seen["labels"], affine)
    return {"images": images, "labels": labels}


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


def _wanted(name: str, value: Any) -> str | None:
    """What the value of that augmentation must be; None where it is valid."""
    if name == "fill":
        return None if value in FILLS else f"one of {', '.join(FILLS)}"
    if name in ("scale", "crop"):
        low, high = value if isinstance(value, (tuple, list)) and len(value) == 2 else (math.nan, math.nan)
        upper = 1.0 if name == "crop" else math.inf
        fits = _is_number(low) and _is_number(high) and 0 < low <= high <= upper and high < math.inf
        return (
            None if fits else f"a pair of numbers above 0{' and at most 1' if name == 'crop' else ''}, the lower first"
        )
    upper = 180.0 if name == "rotate" else 1.0
    return None if _is_number(value) and 0 <= value <= upper else f"a number in 0 to {upper:g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.sum(matrix * vector[None], -1)  # accelerators round the factors of a matrix product


def _sample(image: jax.Array, labels: jax.Array, y: jax.Array, x: jax.Array, fill: str) -> tuple[jax.Array, jax.Array]:
    """`image [h,w,C]` and `labels [h,w]` at `y, x [h,w]`, which may lie between pixels and beyond the border."""
    h, w = labels.shape
    if fill == "reflect":
        y, x = _mirrored(y, h), _mirrored(x, w)
    else:
        y, x = jnp.clip(y, -1, h), jnp.clip(x, -1, w)  # beyond that nothing of the image is left
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]

    def at(array: jax.Array, y: jax.Array, x: jax.Array, outside: float) -> jax.Array:
        row, column = (jnp.clip(i, 0, n - 1).astype(jnp.int32) for i, n in ((y, h), (x, w)))
        values = array.at[row, column].get(mode="promise_in_bounds")
        if fill == "reflect":
            return values
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        inside = inside.reshape(inside.shape + (1,) * (values.ndim - 2))
        return jnp.where(inside, values, jnp.asarray(outside, values.dtype))

    def row(y: jax.Array) -> jax.Array:
        near, far = at(image, y, left, _NO_IMAGE), at(image, y, left + 1, _NO_IMAGE)
        return near * (1 - right) + far * right

    images = row(top) * (1 - down) + row(top + 1) * down
    return images, at(labels, jnp.floor(y + 0.5), jnp.floor(x + 0.5), 0)


def _mirrored(position: jax.Array, size: int) -> jax.Array:
    """The place in 0 to `size - 1` that a position beyond the border shows."""
    last = max(size - 1, 1)
    return last - jnp.abs(jnp.mod(position, 2 * last) - last)
