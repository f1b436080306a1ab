"""The building blocks of the networks: the only code that pads, normalises and resamples.

Arrays are channels-last, `[B,H,W,C]` or `[B,D,H,W,C]`; every block works in both by rank.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Padding = Literal["zero", "reflect", "replicate", "circular", "valid"]
Upsample = Literal["bilinear", "bilinear_aligned", "transpose"]
Norm = Literal["batch", "instance", "group"]
PerAxis = int | tuple[int, ...]  # one number for every spatial axis, or one for each
PADDINGS: tuple[Padding, ...] = ("zero", "reflect", "replicate", "circular", "valid")
NORMS: tuple[Norm, ...] = ("batch", "instance", "group")
UPSAMPLES: tuple[Upsample, ...] = ("bilinear", "bilinear_aligned", "transpose")
_PAD_MODES = {"zero": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


# set while a function is traced; an attribute would have to pass through every block of every network
_BATCH_AXIS: contextvars.ContextVar[str | None] = contextvars.ContextVar("batch_axis", default=None)


@contextlib.contextmanager
def batch_axis(name: str | None) -> Iterator[None]:
    """Within it, batch statistics are also means over the mapped axis `name`, as `pmap` needs; None changes nothing."""
    token = _BATCH_AXIS.set(name)
    try:
        yield
    finally:
        _BATCH_AXIS.reset(token)


def batch_mean(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """The mean over `axes`, and over the parts of the batch that other devices have under `batch_axis`."""
    mean, name = jnp.mean(x, axes), _BATCH_AXIS.get()
    return mean if name is None else jax.lax.pmean(mean, name)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError when `value` is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(str, choices))}")


def spatial_axes(x: jax.Array) -> tuple[int, ...]:
    """The axes between batch and channels."""
    return tuple(range(1, x.ndim - 1))


def per_axis(value: PerAxis, rank: int) -> tuple[int, ...]:
    """One number for each of `rank` spatial axes."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def pad(x: jax.Array, width: PerAxis, padding: Padding) -> jax.Array:
    """Adds `width` pixels on every side in one of the five modes; `valid` adds none."""
    if padding == "valid":
        return x
    widths = [(0, 0), *((w, w) for w in per_axis(width, len(spatial_axes(x)))), (0, 0)]
    return jnp.pad(x, widths, mode=_PAD_MODES[padding])


def crop(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """The central part with the spatial `sizes`; the margins must be even, so that pixel grids stay aligned."""
    for axis, size in zip(spatial_axes(x), sizes, strict=True):
        margin = x.shape[axis] - size
        if margin < 0 or margin % 2:
            raise ValueError(f"cannot crop axis {axis} of {x.shape} to {size}: the margin {margin} is odd or negative")
        x = jax.lax.slice_in_dim(x, margin // 2, margin // 2 + size, axis=axis)
    return x


def over_image(features: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Features `[B,*m,D]` without the margin that padding `valid` leaves around an image of these sizes."""
    wider = all(m > n for m, n in zip(features.shape[1:-1], sizes, strict=True))
    return crop(features, sizes) if wider else features


def mask_around(mask: jax.Array, cells: Sequence[int], margin: int) -> jax.Array:
    """A mask `[B,*S]` of the image, extended as the image is to what a layer covers.

    Args:
      mask: of the image.
      cells: of the layer along every axis; one is a power of two of pixels wide.
      margin: pixels of reflection on every side of the image; with 0 the mask comes back as it is.
    """
    if not margin:
        return mask
    sizes = mask.shape[1:]
    units = [2 ** int(math.log2((size + 2 * margin) / number)) for size, number in zip(sizes, cells, strict=True)]
    wider = [(unit * number - size) // 2 for unit, number, size in zip(units, cells, sizes, strict=True)]
    return jnp.pad(mask, [(0, 0), *((width, width) for width in wider)], "reflect")


class Conv(nn.Module):
    """Convolution whose padding, of `(kernel - 1) // 2` pixels, is one of the five modes (`valid` shrinks)."""

    features: int
    kernel: PerAxis = 3
    stride: PerAxis = 1
    padding: Padding = "zero"
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank = len(spatial_axes(x))
        kernel = per_axis(self.kernel, rank)
        widths = tuple((side - 1) // 2 for side in kernel)
        native = self.padding == "zero"  # XLA pads with zeros inside the convolution, without a copy
        if not native and any(widths):
            x = pad(x, widths, self.padding)
        return nn.Conv(
            self.features,
            kernel,
            strides=per_axis(self.stride, rank),
            padding=[(width, width) for width in widths] if native else "VALID",
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )(x)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) with one-pass statistics, applied as one multiply-add.

    Statistics and parameters are float32 whatever the input; the running averages keep 0.9 of the old value. Under
    `jit` over a mesh the statistics are those of the global batch.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if train:
            axes = (0, *spatial_axes(x))
            wide = x.astype(jnp.float32)
            mean = batch_mean(wide, axes)
            # the difference can fall below zero by rounding where a channel is constant
            var = jnp.maximum(batch_mean(jnp.square(wide), axes) - jnp.square(mean), 0.0)
            if not self.is_initializing():
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * var
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        along = lambda vector: jnp.expand_dims(vector, range(x.ndim - 1))
        # in float32: rounded factors would add to the error of every layer of a bfloat16 network
        return (x.astype(jnp.float32) * along(factor) + along(bias - mean * factor)).astype(x.dtype)


def normalisation(kind: Norm, dtype: Any, name: str) -> Callable[[jax.Array, bool], jax.Array]:
    """The layer `(x, train) -> x` of one of the three kinds; statistics and parameters are float32.

    `instance` (Ulyanov et al. 2016) and `group` (Wu and He 2018, 8 groups, or as many as the channels allow) have no
    running averages: every image is normalised by its own statistics, in training and in testing.
    """
    if kind == "batch":
        return BatchNorm(name=name)

    def apply(x: jax.Array, train: bool) -> jax.Array:
        del train
        groups = x.shape[-1] if kind == "instance" else math.gcd(8, x.shape[-1])
        return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name)(x)

    return apply


class ConvNorm(nn.Module):
    """Convolution, normalisation, activation; its output is a layer as the papers count them.

    The convolution has a bias only before group normalisation: the other two subtract it again.
    """

    features: int
    kernel: PerAxis = 3
    stride: PerAxis = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    norm: Norm = "batch"
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"use_bias": self.norm == "group", "dtype": self.dtype}
        x = Conv(self.features, self.kernel, self.stride, self.padding, **options, name="conv")(x)
        x = normalisation(self.norm, self.dtype, "norm")(x, train)
        return self.activation(x) if self.activation else x


class Dropout(nn.Module):
    """`nn.Dropout` with the mask drawn in float32: under `jax_enable_x64` it would differ."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not train:
            return x
        kept = 1.0 - self.rate
        mask = jax.random.bernoulli(self.make_rng("dropout"), jnp.float32(kept), x.shape)
        return jnp.where(mask, x / kept, jnp.zeros_like(x))


class ConvBlock(nn.Module):
    """Two layers of 3x3 convolutions (Ronneberger et al. 2015, with the norm that is usual today)."""

    features: tuple[int, int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    norm: Norm = "batch"
    dropout: float = 0.0  # between the two
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"activation": self.activation, "norm": self.norm, "padding": self.padding, "dtype": self.dtype}
        x = ConvNorm(self.features[0], **options, name="conv_0")(x, train)
        if self.dropout:
            x = Dropout(self.dropout, name="dropout")(x, train)
        return ConvNorm(self.features[1], **options, name="conv_1")(x, train)


def max_pool(x: jax.Array) -> jax.Array:
    """Halves every spatial axis by the maximum over 2 pixels; the last pixel of an odd size is left out.

    NaN wins, and among equal pixels the first, row by row, has the gradient, as with `nn.max_pool` and in PyTorch. The
    comparisons are written out because the gradient of XLA's windowed maximum takes ten times as long on CPU, where it
    carries the index of every pixel along.
    """
    for axis in reversed(spatial_axes(x)):  # the rows last, for the order of equal pixels
        half = x.shape[axis] // 2
        pairs = jax.lax.slice_in_dim(x, 0, 2 * half, axis=axis)
        pairs = pairs.reshape(*x.shape[:axis], half, 2, *x.shape[axis + 1 :])
        first, second = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
        x = jnp.where((first >= second) | jnp.isnan(first), first, second)
    return x


def double(x: jax.Array, padding: Padding) -> jax.Array:
    """Doubles every spatial axis bilinearly with half-pixel centres; only the neighbours enter.

    Beyond the border lies what the padding mode puts there: the other side in `circular`, else the border pixel
    (as every library does, also with zero-padded convolutions). In `valid` nothing lies there, and the result
    loses the one pixel on every side that would need it.
    """
    for axis in spatial_axes(x):
        x = _double_axis(x, axis, padding == "circular")
    if padding == "valid":
        x = crop(x, [x.shape[axis] - 2 for axis in spatial_axes(x)])
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _double_axis(x: jax.Array, axis: int, wrap: bool) -> jax.Array:
    """`double` along one axis: `[..., n, ...]` -> `[..., 2 n, ...]`.

    Its gradient is written out: XLA on CPU would first put that of every slice below into an image of zeros, and take
    ten times as long.
    """
    size = x.shape[axis]
    part = functools.partial(jax.lax.slice_in_dim, x, axis=axis)
    first, last = part(0, 1), part(size - 1, size)
    before = jnp.concatenate([last if wrap else first, part(0, size - 1)], axis)
    after = jnp.concatenate([part(1, size), first if wrap else last], axis)
    pairs = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    return pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _double_axis_forward(x: jax.Array, axis: int, wrap: bool) -> tuple[jax.Array, None]:
    return _double_axis(x, axis, wrap), None


def _double_axis_backward(axis: int, wrap: bool, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    """Every pixel gave 3/4 of itself to its two halves, and 1/4 to the nearer half of each neighbour."""
    size = gradient.shape[axis] // 2
    pairs = gradient.reshape(*gradient.shape[:axis], size, 2, *gradient.shape[axis + 1 :])
    left, right = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    part = functools.partial(jax.lax.slice_in_dim, axis=axis)
    # a border pixel that stands in for what is beyond it is its own neighbour
    before = jnp.concatenate(
        [part(right, size - 1, size) if wrap else part(left, 0, 1), part(right, 0, size - 1)], axis
    )
    after = jnp.concatenate([part(left, 1, size), part(left, 0, 1) if wrap else part(right, size - 1, size)], axis)
    return (0.75 * (left + right) + 0.25 * (before + after),)


_double_axis.defvjp(_double_axis_forward, _double_axis_backward)


def double_aligned(x: jax.Array) -> jax.Array:
    """Doubles every spatial axis bilinearly with aligned corners (PyTorch's `align_corners=True`).

    Output pixel i reads position i (n - 1) / (2n - 1), so the weights depend on where the pixel is.
    """
    for axis in spatial_axes(x):
        size = x.shape[axis]
        position = jnp.arange(2 * size, dtype=jnp.float32) * ((size - 1) / (2 * size - 1))
        below = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, max(size - 2, 0))
        shape = [-1 if a == axis else 1 for a in range(x.ndim)]
        weight = (position - below.astype(jnp.float32)).astype(x.dtype).reshape(shape)
        above = jnp.minimum(below + 1, size - 1)
        x = (1 - weight) * jnp.take(x, below, axis=axis) + weight * jnp.take(x, above, axis=axis)
    return x


class TransposedConv(nn.Module):
    """Transposed convolution whose kernel is its stride: a 1x1 convolution, then depth to space.

    Exactly the same map, without XLA's slow path for transposed convolutions. The kernel `[in, *stride, features]`
    holds, for every offset inside the enlarged pixel, one 1x1 kernel.
    """

    features: int
    stride: PerAxis = 2
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank = len(spatial_axes(x))
        stride = per_axis(self.stride, rank)
        shape = (x.shape[-1], *stride, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(in_axis=0, out_axis=-1), shape, jnp.float32)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        y = x @ kernel.reshape(x.shape[-1], -1)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + jnp.expand_dims(jnp.tile(bias.astype(y.dtype), math.prod(stride)), range(y.ndim - 1))
        y = y.reshape(*x.shape[:-1], *stride, self.features)
        # [B, h, w, 2, 2, C] -> [B, h, 2, w, 2, C]
        order = [0, *(a for i in range(1, rank + 1) for a in (i, rank + i)), 2 * rank + 1]
        sizes = (size * step for size, step in zip(x.shape[1:-1], stride, strict=True))
        return y.transpose(order).reshape(x.shape[0], *sizes, self.features)


def upsampler(kind: Upsample, padding: Padding) -> Callable[[jax.Array], jax.Array]:
    """The doubling function of one of the two interpolating kinds."""
    return double_aligned if kind == "bilinear_aligned" else lambda x: double(x, padding)


def nearest_double(x: jax.Array) -> jax.Array:
    """Doubles every spatial axis by repeating pixels."""
    for axis in spatial_axes(x):
        x = jnp.repeat(x, 2, axis=axis)
    return x


def mean_pool(x: jax.Array, stride: PerAxis) -> jax.Array:
    """The mean over every block of `stride` pixels, which must divide the sizes."""
    for axis, step in zip(spatial_axes(x), per_axis(stride, len(spatial_axes(x))), strict=True):
        if step > 1:
            blocks = x.reshape(*x.shape[:axis], x.shape[axis] // step, step, *x.shape[axis + 1 :])
            x = jnp.mean(blocks, axis + 1)
    return x


def max_pool_overlapping(x: jax.Array, padding: Padding) -> jax.Array:
    """Halves every spatial axis by the maximum over 3 pixels; in `zero` nothing lies beyond the border."""
    rank = len(spatial_axes(x))
    around = [(1, 1)] * rank if padding == "zero" else "VALID"
    x = x if padding == "zero" else pad(x, 1, padding)
    return nn.max_pool(x, (3,) * rank, strides=(2,) * rank, padding=around)
