"""Training images moved: flips, turns, scale, shift, crop and a smooth deformation as one map and one interpolation."""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data.augmentation import sampling
from jaxseg.data.augmentation.settings import Augmentation

_FURTHER, _ELASTIC = 1, 2  # branches of a sample's key; the first draws, of pictures, are made with the key itself


def move(keys: jax.Array, seen: Mapping[str, jax.Array], augmentation: Augmentation) -> dict[str, jax.Array]:
    """What a network sees, moved as `augmentation` says.

    Args:
      keys: `[B]`, of the samples.
      seen: `{"images": [B,*spatial,C], "labels": [B,*spatial]}`, and `"valid": bool [B,*spatial]` or not.
      augmentation: what may happen.
    """
    shape = seen["labels"].shape[1:]
    affine = jax.vmap(lambda key: draw_affine(key, augmentation, shape))(keys)
    displacement = None
    if augmentation.deforms:
        displacement = jax.vmap(lambda key: draw_displacement(key, augmentation, shape))(keys)
    how = {name: getattr(augmentation, name) for name in ("interpolation", "fill", "fill_value")}
    return warp(seen, affine, displacement=displacement, **how)


def draw_affine(key: jax.Array, augmentation: Augmentation, shape: tuple[int, ...]) -> jax.Array:
    """One sample's matrix for `warp`, `[r,r+1]` float32, where r is 2 or 3.

    Args:
      key: of the sample.
      augmentation: what may be drawn.
      shape: the r spatial sizes.
    """
    rank = len(shape)
    # always as many numbers, so that one augmentation's draws do not depend on which others there are
    flip_x, flip_y, turn, zoom, shift_y, shift_x, part, top, left = jax.random.uniform(key, (9,), jnp.float32)
    further = jax.random.uniform(jax.random.fold_in(key, _FURTHER), (10,), jnp.float32)
    rotates, scales, apart, zoom_y, zoom_z, flip_z, tilt_y, tilt_x, shift_z, front = further
    between = lambda u, low, high: low + (high - low) * u
    of_axes = lambda z, y, x: jnp.stack([z, y, x][-rank:])
    flip = of_axes(
        jnp.where(flip_z < augmentation.flip_depth, -1.0, 1.0),
        jnp.where(flip_y < augmentation.flip_vertical, -1.0, 1.0),
        jnp.where(flip_x < augmentation.flip_horizontal, -1.0, 1.0),
    )
    most = (augmentation.rotate, augmentation.tilt, augmentation.tilt)
    angles = [
        jnp.where(rotates < augmentation.rotate_probability, between(u, -1.0, 1.0) * math.radians(degrees), 0.0)
        for u, degrees in zip((turn, tilt_y, tilt_x), most, strict=True)
    ]
    factor = between(zoom, *augmentation.scale)
    if augmentation.scale_per_axis:
        own = of_axes(*(between(u, *augmentation.scale) for u in (zoom_z, zoom_y, zoom)))
        factor = jnp.where(apart < augmentation.scale_per_axis, own, factor)
    factor = jnp.where(scales < augmentation.scale_probability, factor, 1.0)
    back = _turned_back(*angles, rank=rank) * flip[:, None] / (factor[None] if factor.ndim else factor)
    crop = between(part, *augmentation.crop)
    # between the outermost pixels' centres: a crop alone never looks beyond the border
    room = np.array([n - 1 for n in shape], np.float32)
    reach = np.array([2 * augmentation.translate * n for n in shape], np.float32)
    offset = (1 - crop) * room * (of_axes(front, top, left) - 0.5) - reach * (of_axes(shift_z, shift_y, shift_x) - 0.5)
    return jnp.concatenate([back * crop, _product(back, offset)[:, None]], 1)


def draw_displacement(key: jax.Array, augmentation: Augmentation, shape: tuple[int, ...]) -> jax.Array:
    """One sample's deformation for `warp`, `[*shape,r]` float32 in pixels; zero where it has none.

    Control points of a cubic B-spline move by at most 0.4 of their distance, which never folds (Choi and Lee 2000:
    0.48 in the plane, 0.40 in space).

    Args:
      key: of the sample.
      augmentation: what may be drawn.
      shape: the r spatial sizes.
    """
    rank, key = len(shape), jax.random.fold_in(key, _ELASTIC)
    chosen, wide, strong = jax.random.uniform(jax.random.fold_in(key, 0), (3,), jnp.float32)
    low, high = augmentation.elastic_spacing
    spacing = low + (high - low) * wide
    low, high = augmentation.elastic_amplitude
    share = jnp.where(chosen < augmentation.elastic, low + (high - low) * strong, 0.0)
    # of the narrowest grid, with what reaches into the image from beyond; those of a wider one lie farther out
    count = math.floor(1 / augmentation.elastic_spacing[0]) + 4
    control = jax.random.uniform(jax.random.fold_in(key, 1), (*(count,) * rank, rank), jnp.float32, -1, 1)
    for axis, size in enumerate(shape):
        place = (np.arange(size, dtype=np.float32) - (size - 1) / 2) / (spacing * size)
        weights = sampling.cubic_spline(place[:, None] - (np.arange(count, dtype=np.float32) - (count - 1) / 2)[None])
        product = jnp.tensordot(weights, control, ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
        control = jnp.moveaxis(product, 0, axis)
    return control * jnp.reshape(share * spacing * np.array(shape, np.float32), (*(1,) * rank, rank))


def warp(
    seen: Mapping[str, jax.Array],
    affine: jax.Array,
    *,
    fill: str,
    fill_value: float = -1.0,
    interpolation: str = "linear",
    displacement: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Every image and its labels moved, in one interpolation; labels are those of the nearest pixel.

    It works on the images as the network sees them, so enlarging softens a little and shrinking is not
    antialiased: it is meant for factors near 1. The identity returns what it was given, to the bit.

    Args:
      seen: `{"images": [B,*spatial,C], "labels": [B,*spatial]}`, and `"valid": bool [B,*spatial]` or not.
      affine: `[B,r,r+1]`: the pixel p of the result, counted from the centre of the image, is at
        `affine[:, :r] @ (p + displacement[p]) + affine[:, r]` of the source, in pixels from its centre.
      fill: reflect or constant; see `Augmentation`. Beyond the border nothing is valid with the latter.
      fill_value: for constant.
      interpolation: linear or cubic.
      displacement: `[B,*spatial,r]` in pixels; None is none.
    """
    shape = seen["labels"].shape[1:]
    rank, middle = len(shape), [(n - 1) / 2 for n in shape]
    between = sampling.cubic if interpolation == "cubic" else sampling.linear
    plain = jnp.eye(rank, rank + 1, dtype=jnp.float32)

    def one(arrays: dict[str, jax.Array], matrix: jax.Array, shift: jax.Array | None) -> dict[str, jax.Array]:
        grid = jnp.meshgrid(
            *(jnp.arange(n, dtype=jnp.float32) - c for n, c in zip(shape, middle, strict=True)), indexing="ij"
        )
        if shift is not None:
            grid = [line + shift[..., axis] for axis, line in enumerate(grid)]
        places = [
            functools.reduce(jnp.add, (row[axis] * grid[axis] for axis in range(rank))) + row[rank] + c
            for row, c in zip(matrix, middle, strict=True)
        ]
        places = [sampling.within(place, n, fill=fill) for place, n in zip(places, shape, strict=True)]
        moved = {name: sampling.nearest(array, places, fill=fill) for name, array in arrays.items() if name != "images"}
        moved["images"] = between(arrays["images"], places, fill=fill, fill_value=fill_value)
        if interpolation == "cubic":  # which is exact only to rounding
            stays = jnp.all(matrix == plain) & (True if shift is None else jnp.all(shift == 0))
            moved["images"] = jnp.where(stays, arrays["images"], moved["images"])
        return moved

    arrays = {name: seen[name] for name in ("images", "labels", "valid") if name in seen}
    return {**seen, **jax.vmap(one)(arrays, affine, displacement)}


def _turned_back(turn: jax.Array, tilt_y: jax.Array, tilt_x: jax.Array, *, rank: int) -> jax.Array:
    """`[r,r]`: pixels of the result -> those of the source, which is turned in the plane and then tilted."""
    if rank == 2:
        cos, sin = jnp.cos(turn), jnp.sin(turn)
        return jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])

    def about(axis: int, angle: jax.Array) -> jax.Array:
        first, second = (other for other in range(3) if other != axis)
        rows = [[jnp.float32(row == column) for column in range(3)] for row in range(3)]
        rows[first][first], rows[first][second] = jnp.cos(angle), jnp.sin(angle)
        rows[second][first], rows[second][second] = -jnp.sin(angle), jnp.cos(angle)
        return jnp.stack([jnp.stack(row) for row in rows])

    turned = about(0, turn)
    for axis, angle in ((1, tilt_y), (2, tilt_x)):
        turned = _matrix_product(turned, about(axis, angle))
    return turned


def _product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.sum(matrix * vector[None], -1)  # accelerators round the factors of a matrix product


def _matrix_product(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.sum(left[:, :, None] * right[None], 1)
