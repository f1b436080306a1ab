"""Photometric domain shifts of images, to see how much a trained network loses: nothing moves, labels stay as they are.

Every shift takes images `[B,*spatial,C]`, with two or three spatial axes, either uint8 (as stored) or float32 in
[-1, 1] (as a network sees them), and returns the same shape and type. Both mean the same gray levels, 0 to 255; results
are clipped to them, and uint8 results rounded to the nearest level, halves up. Strengths are Python numbers, never
traced. The neutral strength returns what it was given, to the bit.

Brightness, contrast and saturation are equations 1 to 3 of Wilm et al. 2024, *Rethinking U-net Skip Connections for
Biomedical Image Segmentation*, section IV.A. On uint8 they are exact: a factor is taken as the nearest fraction whose
denominator is at most 10,000, and the rest is integer arithmetic, so that neither the device nor the compiler
affects rounding. What the paper leaves open, how levels are rounded and how colour becomes gray, is as follows.

- Rounding is to the nearest level. `PIL.ImageEnhance` rounds down, which darkens by half a level on average.
- Gray is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) in 65536ths, on uint8 rounded to a level: Pillow's `convert("L")`.
- All three clip; the paper writes it for contrast alone.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError

Batch = Mapping[str, jax.Array]
_WEIGHTS = (19595, 38470, 7471)
GRAY_WEIGHTS = tuple(weight / 65536 for weight in _WEIGHTS)  # of red, green and blue
_DENOMINATOR = 10_000  # of factors: with a factor of 10, twice 255 times the numerator is far below 2^31
_MOST_PIXELS = (2**32 - 1) // 255  # whose gray levels can be summed in uint32


class Shift(NamedTuple):
    """A row of `SHIFTS`.

    Attributes:
      function: `(images, strength)`, or where `draws`, `(key, images, strength, *, position)`.
      meaning: what the strength is, with its unit.
      neutral: the strength that changes nothing.
      low: the least strength that can be.
      high: the greatest.
      draws: whether chance is involved.
    """

    function: Callable[..., jax.Array]
    meaning: str
    neutral: float
    low: float
    high: float
    draws: bool = False


def shift(name: str, *, strength: float) -> Callable[[jax.Array, Batch], dict[str, jax.Array]]:
    """`(key, batch) -> batch` with the images shifted and everything else unchanged; it goes before `augment.whole`.

    The batch has either stored images, `"image"`, or what a network sees, `"images"`. A shift without chance does not
    look at its key. What one with chance draws for sample i is a function of `fold_in(key, position[i])`, where
    `batch["position"]` is the sample's place in the whole batch (without it the batch is whole), so it does not matter
    how a batch is split. Give the shift its own key: others fold positions into theirs too.

    Args:
      name: a key of `SHIFTS`.
      strength: see `SHIFTS[name].meaning`.

    Raises:
      InputError: an unknown name, or an impossible strength.
      ValueError: from the function, when the batch has no images, or ones of a type or shape that cannot be shifted.
    """
    check_shift(name, strength)
    row = SHIFTS[name]

    def shifted(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        field = next((field for field in ("image", "images") if field in batch), None)
        if field is None:
            raise ValueError(f"a shift needs image or images in the batch, got {', '.join(batch) or 'nothing'}")
        if row.draws:
            images = row.function(key, batch[field], strength, position=batch.get("position"))
        else:
            images = row.function(batch[field], strength)
        return {**batch, field: images}

    return shifted


def check_shift(name: str, strength: Any) -> None:
    """Raises InputError, with the choices or the range, if the shift is unknown or the strength impossible."""
    if name not in SHIFTS:
        raise InputError(f"shift is {name!r}; choose one of {', '.join(SHIFTS)}")
    row = SHIFTS[name]
    # a bool is a number to Python; NaN compares as false
    fits = isinstance(strength, numbers.Real) and not isinstance(strength, bool)
    if not (fits and row.low <= strength <= row.high):
        given = "a traced array" if isinstance(strength, jax.core.Tracer) else repr(strength)
        raise InputError(f"strength of {name} is {given}; it must be a number in {row.low:g} to {row.high:g}")


def brightness(images: jax.Array, factor: float) -> jax.Array:
    """Gray levels times `factor`, clipped (Wilm et al. 2024, equation 1).

    `PIL.ImageEnhance.Brightness` differs in rounding down.

    Args:
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1].
      factor: lambda_b, 0.5 to 1.75 in the paper; 1 is neutral, 0 is black.

    Raises:
      InputError: the factor is not in 0 to 10.
      ValueError: images of another type or with other axes.
    """
    images, factor = _checked("brightness", images, factor)
    if factor == 1:
        return images
    if images.dtype != jnp.uint8:
        return _seen(factor * _levels(images))
    part, of = _fraction(factor)
    return _look_up(_nearest(part * jnp.arange(256, dtype=jnp.int32), of), images)


def contrast(images: jax.Array, factor: float) -> jax.Array:
    """Gray levels pulled to or pushed from the image's mean gray by a lookup table (Wilm et al. 2024, equation 2).

    All channels go through the same table, `contrast_table`; float32 images through the same line, unrounded.
    `PIL.ImageEnhance.Contrast` differs in rounding the mean to a level, which the paper does not, and the result down.

    Args:
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1]; C is 1 or 3.
      factor: lambda_c, 0.5 to 1.75 in the paper; 1 is neutral, 0 is uniformly gray.

    Raises:
      InputError: the factor is not in 0 to 10.
      ValueError: images of another type, with other axes, with other channels or with too many pixels.
    """
    images, factor = _checked("contrast", images, factor, colour=True)
    if factor == 1:
        return images
    if images.dtype == jnp.uint8:
        return jax.vmap(_look_up)(contrast_table(images, factor), images)
    levels = _levels(images)
    mean = jnp.mean(_gray(levels), tuple(range(1, images.ndim)), keepdims=True)
    return _seen(factor * levels + (1 - factor) * mean)


def contrast_table(images: jax.Array, factor: float) -> jax.Array:
    """The lookup table of every image, `[B,256]` uint8 (Wilm et al. 2024, equation 2): exact, the mean not rounded.

    Args:
      images: `[B,*spatial,C]` uint8; C is 1 or 3, and an image has at most 16,843,009 pixels.
      factor: lambda_c.

    Raises:
      InputError: the factor is not in 0 to 10.
      ValueError: images of another type, with other axes, with other channels or with too many pixels.
    """
    images, factor = _checked("contrast", images, factor, colour=True)
    pixels = math.prod(images.shape[1:-1])
    if images.dtype != jnp.uint8 or pixels > _MOST_PIXELS:
        raise ValueError(
            f"a lookup table needs uint8 images of at most {_MOST_PIXELS} pixels, got {images.dtype}{images.shape}"
        )
    part, of = _fraction(factor)
    total = jnp.sum(_gray(images).astype(jnp.uint32), tuple(range(1, images.ndim)), dtype=jnp.uint32)
    mean, rest = (x.astype(jnp.int32)[:, None] for x in jnp.divmod(total, jnp.uint32(pixels)))
    # (part level + (of - part) (mean + rest / pixels)) / of; what the rest adds to twice the numerator is rounded down,
    # which changes no quotient: floor((n + x) / m) = floor((n + floor(x)) / m) for whole n and m
    level = jnp.arange(256, dtype=jnp.int32)[None]
    return _nearest(part * level + (of - part) * mean, of, twice=_floor_of_product(2 * (of - part), rest, pixels))


def saturation(images: jax.Array, factor: float) -> jax.Array:
    """Every pixel between its gray, at 0, and its colour, at 1 (Wilm et al. 2024, equation 3).

    Images with one channel are gray already and stay as they are. `PIL.ImageEnhance.Color` differs in rounding down.

    Args:
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1]; C is 1 or 3, red, green and blue.
      factor: lambda_s, 0 to 0.75 in the paper; 1 is neutral, above it colours become stronger.

    Raises:
      InputError: the factor is not in 0 to 10.
      ValueError: images of another type, with other axes or with other channels.
    """
    images, factor = _checked("saturation", images, factor, colour=True)
    if factor == 1 or images.shape[-1] == 1:
        return images
    if images.dtype == jnp.uint8:
        part, of = _fraction(factor)
        return _nearest(part * images.astype(jnp.int32) + (of - part) * _gray(images), of)
    levels = _levels(images)
    return _seen(factor * levels + (1 - factor) * _gray(levels))


def uniform_noise(
    key: jax.Array, images: jax.Array, amplitude: float, *, position: jax.Array | None = None
) -> jax.Array:
    """Independent noise on every pixel and channel (He et al. 2022, *Segmentation Ability Map*, section 4.8).

    The paper names the greatest value of the noise and neither its distribution nor the scale of the images. Here it is
    uniform in -amplitude to amplitude, as noise in 0 to amplitude would be a shift of brightness too, and the scale is
    the range of the images. What would leave that range is clipped.

    Args:
      key: typed random key; sample i uses `fold_in(key, position[i])`.
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1].
      amplitude: the greatest noise, as a share of the range from black to white, 0.1 to 1 in the paper; 0 is neutral.
      position: `[B]` int32, the places of the samples in the whole batch; by default 0 to B - 1.

    Raises:
      InputError: the amplitude is not in 0 to 1.
      ValueError: images of another type or with other axes.
    """
    images, amplitude = _checked("uniform_noise", images, amplitude)
    if amplitude == 0:
        return images
    shape, most = images.shape[1:], 255.0 * amplitude
    noise = jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32, -most, most))(
        _sample_keys(key, images, position)
    )
    return _as_given(_levels(images) + noise, images)


def gamma(images: jax.Array, exponent: float) -> jax.Array:
    """Gray levels, as shares of white, to the power of `exponent`: above 1 darkens, below 1 lightens; in no paper here.

    Args:
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1].
      exponent: 1 is neutral.

    Raises:
      InputError: the exponent is not in 0.1 to 10.
      ValueError: images of another type or with other axes.
    """
    images, exponent = _checked("gamma", images, exponent)
    if exponent == 1:
        return images
    if images.dtype == jnp.uint8:
        levels = np.floor(255 * (np.arange(256) / 255) ** exponent + 0.5)
        return _look_up(jnp.asarray(levels.astype(np.uint8)), images)
    # a base below 0, from a rounding error below black, has no power
    return _seen(255 * jnp.maximum(_levels(images) / 255, 0) ** exponent)


def gaussian_blur(images: jax.Array, sigma: float) -> jax.Array:
    """Convolution with a Gaussian along every spatial axis; beyond the border the image is mirrored; in no paper here.

    The kernel ends at four sigmas and sums to one, and the mirror stands at the outer edge of the outermost pixels, as
    in `scipy.ndimage.gaussian_filter`.

    Args:
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1].
      sigma: pixels of these images; 0 is neutral.

    Raises:
      InputError: sigma is not in 0 to 100.
      ValueError: images of another type or with other axes.
    """
    images, sigma = _checked("gaussian_blur", images, sigma)
    if sigma == 0:
        return images
    levels = _levels(images)
    for axis in range(1, images.ndim - 1):
        matrix = jnp.asarray(_blur_matrix(images.shape[axis], sigma))
        # otherwise accelerators round the factors of a product
        product = jnp.tensordot(matrix, levels, ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
        levels = jnp.moveaxis(product, 0, axis)
    return _as_given(levels, images)


def resolution(images: jax.Array, factor: float) -> jax.Array:
    """Shrunk by `factor`, with antialiasing, and enlarged again, both bilinear; in no paper here.

    The intermediate size is rounded to the nearest integer and at least 1; the borders stay where they are.

    Args:
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1].
      factor: by which every spatial size is divided; 1 is neutral.

    Raises:
      InputError: the factor is not in 1 to 64.
      ValueError: images of another type or with other axes.
    """
    images, factor = _checked("resolution", images, factor)
    small = tuple(max(1, math.floor(size / factor + 0.5)) for size in images.shape[1:-1])
    if small == images.shape[1:-1]:
        return images
    reduced = jax.image.resize(_levels(images), (len(images), *small, images.shape[-1]), "linear", antialias=True)
    return _as_given(jax.image.resize(reduced, images.shape, "linear"), images)


def bias_field(
    key: jax.Array, images: jax.Array, strength: float, *, position: jax.Array | None = None, half_waves: int = 3
) -> jax.Array:
    """Gray levels times a smooth field per image, the same for all channels, as from a coil; in no paper here.

    Args:
      key: typed random key; sample i uses `fold_in(key, position[i])`.
      images: `[B,*spatial,C]` uint8, or float32 in [-1, 1].
      strength: the field's greatest distance from 1; 0 is neutral.
      position: `[B]` int32, the places of the samples in the whole batch; by default 0 to B - 1.
      half_waves: of `draw_bias_field`.

    Raises:
      InputError: the strength is not in 0 to 1.
      ValueError: images of another type or with other axes, or `half_waves` below 1.
    """
    images, strength = _checked("bias_field", images, strength)
    if strength == 0:
        return images
    draw = lambda key: draw_bias_field(key, images.shape[1:-1], strength, half_waves=half_waves)
    field = jax.vmap(draw)(_sample_keys(key, images, position))
    return _as_given(_levels(images) * field[..., None], images)


def draw_bias_field(key: jax.Array, shape: tuple[int, ...], strength: float, *, half_waves: int = 3) -> jax.Array:
    """One image's field, `shape` float32: mean 1, and `strength` away from it where it is farthest.

    It is a sum of products of cosines, one per axis, with coefficients drawn uniformly in -1 to 1. Each has a mean of
    zero over the pixels.

    Args:
      key: of the sample.
      shape: the spatial sizes.
      strength: see `bias_field`.
      half_waves: the most that a product has, all axes together.

    Raises:
      ValueError: `half_waves` is below 1.
    """
    if half_waves < 1:
        raise ValueError(f"half_waves is {half_waves}; a field that is not constant has at least 1")
    # an axis has no more waves than pixels: further ones would alias to earlier ones
    counts = itertools.product(*(range(min(half_waves + 1, size)) for size in shape))
    orders = [order for order in counts if 1 <= sum(order) <= half_waves]
    if not orders:
        return jnp.ones(shape, jnp.float32)  # of one pixel
    coefficients = jax.random.uniform(key, (len(orders),), jnp.float32, -1, 1)
    waves = [
        np.cos(np.pi * np.arange(half_waves + 1)[:, None] * (np.arange(size) + 0.5) / size).astype(np.float32)
        for size in shape
    ]
    total = jnp.zeros(shape, jnp.float32)
    for coefficient, order in zip(coefficients, orders, strict=True):
        term = coefficient
        for axis, (wave, count) in enumerate(zip(waves, order, strict=True)):
            if count:  # with none the wave is 1
                term = term * np.expand_dims(wave[count], [other for other in range(len(shape)) if other != axis])
        total = total + term
    most = jnp.maximum(jnp.max(jnp.abs(total)), jnp.finfo(jnp.float32).tiny)  # all coefficients may be 0
    return 1 + strength * (total / most)


def _checked(name: str, images: jax.Array, strength: float, *, colour: bool = False) -> tuple[jax.Array, float]:
    """The images as an array and the strength as a Python number, which promotes no type."""
    check_shift(name, strength)
    images = jnp.asarray(images)
    if images.dtype not in (jnp.uint8, jnp.float32) or images.ndim not in (4, 5):
        raise ValueError(
            f"{name} needs images [B,*spatial,C] of uint8 or float32 with two or three spatial axes, "
            f"got {images.dtype}{images.shape}"
        )
    if colour and images.shape[-1] not in (1, 3):
        raise ValueError(f"{name} needs images with 1 or 3 channels to compute gray, got {images.shape}")
    return images, float(strength)


def _sample_keys(key: jax.Array, images: jax.Array, position: jax.Array | None) -> jax.Array:
    places = jnp.arange(len(images), dtype=jnp.int32) if position is None else position
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)


def _levels(images: jax.Array) -> jax.Array:
    """Gray levels in 0 to 255, float32."""
    return images.astype(jnp.float32) if images.dtype == jnp.uint8 else (images + 1) * 127.5


def _as_given(levels: jax.Array, images: jax.Array) -> jax.Array:
    """The gray levels, clipped, in the type of the images."""
    if images.dtype == jnp.uint8:
        return jnp.floor(jnp.clip(levels, 0, 255) + 0.5).astype(jnp.uint8)
    return _seen(levels)


def _seen(levels: jax.Array) -> jax.Array:
    return jnp.clip(levels / 127.5 - 1, -1, 1)


def _gray(values: jax.Array) -> jax.Array:
    """`[B,*spatial,1]`: of uint8, levels as int32; of float32 levels, unrounded."""
    if values.shape[-1] == 1:
        return values.astype(jnp.int32) if values.dtype == jnp.uint8 else values
    colours = values if values.dtype != jnp.uint8 else values.astype(jnp.int32)
    red, green, blue = (colours[..., i : i + 1] for i in range(3))
    if values.dtype != jnp.uint8:
        return GRAY_WEIGHTS[0] * red + GRAY_WEIGHTS[1] * green + GRAY_WEIGHTS[2] * blue
    return (_WEIGHTS[0] * red + _WEIGHTS[1] * green + _WEIGHTS[2] * blue + 32768) >> 16


def _fraction(factor: float) -> tuple[int, int]:
    return Fraction(factor).limit_denominator(_DENOMINATOR).as_integer_ratio()


def _nearest(numerator: jax.Array, denominator: int, twice: jax.Array | None = None) -> jax.Array:
    """The level nearest to `numerator / denominator`, halves up; `twice` is added to twice the numerator."""
    doubled = 2 * numerator + denominator
    doubled = doubled if twice is None else doubled + twice
    # values below 0 are black however they are rounded, and division of the others rounds down
    level = jax.lax.div(jnp.maximum(doubled, 0), jnp.full_like(doubled, 2 * denominator))
    return jnp.minimum(level, 255).astype(jnp.uint8)


def _floor_of_product(factor: int, rest: jax.Array, divisor: int) -> jax.Array:
    """`floor(factor rest / divisor)` for 0 <= rest < divisor, int32, even if the product does not fit into 32 bits."""
    whole, left = jnp.zeros_like(rest), jnp.zeros_like(rest)
    for bit in f"{abs(factor):b}":  # long division, so that nothing is above three times the divisor
        whole, left = 2 * whole, 2 * left + (rest if bit == "1" else 0)
        step = (left >= divisor).astype(jnp.int32) + (left >= 2 * divisor).astype(jnp.int32)
        whole, left = whole + step, left - step * divisor
    return whole if factor >= 0 else -whole - (left > 0).astype(jnp.int32)


def _look_up(table: jax.Array, images: jax.Array) -> jax.Array:
    return table.at[images.astype(jnp.int32)].get(mode="promise_in_bounds")


def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    """`[size, size]` float32: what each pixel of the result takes from those of the image, along one axis."""
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    source = np.mod(np.arange(size)[:, None] + offsets, 2 * size)
    matrix = np.zeros((size, size))
    # several places beyond the border may show the same pixel
    np.add.at(matrix, (np.arange(size)[:, None], np.minimum(source, 2 * size - 1 - source)), kernel / kernel.sum())
    return matrix.astype(np.float32)


SHIFTS: Mapping[str, Shift] = {
    "brightness": Shift(brightness, "factor of the gray levels; the paper: 0.5 to 1.75", 1.0, 0.0, 10.0),
    "contrast": Shift(contrast, "factor of the distances from the mean gray; the paper: 0.5 to 1.75", 1.0, 0.0, 10.0),
    "saturation": Shift(
        saturation, "factor of the distances from a pixel's gray; the paper: 0 to 0.75", 1.0, 0.0, 10.0
    ),
    "uniform_noise": Shift(
        uniform_noise, "greatest noise, of the range from black to white; the paper: 0.1 to 1", 0.0, 0.0, 1.0, True
    ),
    "gamma": Shift(gamma, "exponent of the gray levels as shares of white", 1.0, 0.1, 10.0),
    "gaussian_blur": Shift(gaussian_blur, "sigma in pixels of the image", 0.0, 0.0, 100.0),
    "resolution": Shift(resolution, "factor by which the image is made smaller and enlarged again", 1.0, 1.0, 64.0),
    "bias_field": Shift(bias_field, "greatest distance of the field from 1", 0.0, 0.0, 1.0, True),
}
