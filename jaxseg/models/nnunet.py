"""The networks of nnU-Net 2 (Isensee et al. 2021, 2024): a plain U-Net, and one with a residual encoder."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import Conv, ConvNorm, Norm, Padding, PerAxis, TransposedConv, mean_pool, per_axis
from jaxseg.models.skeleton import Roles, Skips, UNetSkeleton

ENCODERS = ("plain", "residual")
_NORMS: tuple[Norm, ...] = ("instance", "batch")


class PlainStage(nn.Module):
    """Convolutions at one resolution, the first of which may lower it."""

    features: int
    depth: int
    kernel: PerAxis = 3
    stride: PerAxis = 1
    slope: float = 0.01
    norm: Norm = "instance"
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"norm": self.norm, "padding": self.padding, "dtype": self.dtype, "activation": _leaky(self.slope)}
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            x = ConvNorm(self.features, self.kernel, stride, **options, name=f"conv_{i}")(x, train)
        return x


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut: the mean over the stride, then a 1x1 convolution where the width changes."""

    features: int
    kernel: PerAxis = 3
    stride: PerAxis = 1
    slope: float = 0.01
    norm: Norm = "instance"
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"norm": self.norm, "padding": self.padding, "dtype": self.dtype}
        leaky = _leaky(self.slope)
        y = ConvNorm(self.features, self.kernel, self.stride, activation=leaky, **options, name="conv_0")(x, train)
        y = ConvNorm(self.features, self.kernel, activation=None, **options, name="conv_1")(y, train)
        x = mean_pool(x, self.stride)
        if x.shape[-1] != self.features:
            x = ConvNorm(self.features, 1, activation=None, **options, name="shortcut")(x, train)
        return leaky(x + y)


class ResidualStage(nn.Module):
    """Residual blocks at one resolution, the first of which may lower it."""

    features: int
    depth: int
    kernel: PerAxis = 3
    stride: PerAxis = 1
    slope: float = 0.01
    norm: Norm = "instance"
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"norm": self.norm, "padding": self.padding, "dtype": self.dtype, "slope": self.slope}
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            x = ResidualBlock(self.features, self.kernel, stride, **options, name=f"block_{i}")(x, train)
        return x


class NNUNet(UNetSkeleton):
    """nnU-Net's `PlainConvUNet` and `ResidualEncoderUNet`, in 2-D and 3-D.

    Stages are at full resolution first, the last is the bottleneck; the decoder has one fewer. What is given by stage
    is one number for all axes, or one for each. Up-sampling is a transposed convolution whose kernel is its stride, and
    its result comes before the skip. There is one head, at full resolution: nnU-Net's others serve its training alone.

    Convolutions have no bias, as each is followed by a norm that subtracts it. With instance norm every logit depends
    on all of the image, through its means and variances; with `padding="valid"` also on the margin.

    Attributes:
      num_classes: K, background included, at least 2.
      encoder: plain, or residual with nnU-Net's blocks D.
      features: channels per stage.
      kernels: odd sides of the kernels per stage; None means 3.
      strides: of the first convolution per stage, 1 in the first stage; None means 2 in all others.
      depths: convolutions, or residual blocks, per stage of the encoder; None means 2.
      decoder_depths: convolutions per stage of the decoder, full resolution first; None means 2.
      up_bias: whether the transposed convolutions have a bias, nnU-Net's `conv_bias`.
      norm: instance or batch.
      negative_slope: of the leaky ReLUs.
      padding: zero, reflect, replicate, circular or valid (see `UNetSkeleton`).
      skips: one bool per stage of the decoder, full resolution first; None means all on. A skip that is off has no
        weights.
      remat: computes the activations of each stage again in the backward pass instead of keeping them.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    encoder: str = "plain"
    features: tuple[int, ...] = (32, 64, 128, 256, 512)
    kernels: tuple[PerAxis, ...] | None = None
    strides: tuple[PerAxis, ...] | None = None
    depths: tuple[int, ...] | None = None
    decoder_depths: tuple[int, ...] | None = None
    up_bias: bool = True
    norm: Norm = "instance"
    negative_slope: float = 0.01
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def halvings(self) -> int:
        """How often the resolution is lowered, along some axes at least."""
        return len(self.features) - 1

    @property
    def stage_kernels(self) -> tuple[PerAxis, ...]:
        """Sides of the kernels per stage."""
        return (3,) * len(self.features) if self.kernels is None else self.kernels

    @property
    def stage_strides(self) -> tuple[PerAxis, ...]:
        """Strides per stage."""
        return (1, *(2,) * self.halvings) if self.strides is None else self.strides

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Convolutions or blocks per stage of the encoder."""
        return (2,) * len(self.features) if self.depths is None else self.depths

    @property
    def decoder_stage_depths(self) -> tuple[int, ...]:
        """Convolutions per stage of the decoder, full resolution first."""
        return (2,) * self.halvings if self.decoder_depths is None else self.decoder_depths

    @property
    def rank(self) -> int | None:
        """The spatial axes that kernels and strides name; None where they name none."""
        return next((len(one) for one in (*self.stage_kernels, *self.stage_strides) if isinstance(one, tuple)), None)

    @nn.nowrap
    def units(self, rank: int) -> tuple[int, ...]:
        """See `UNetSkeleton`."""
        if self.rank not in (None, rank):
            raise ValueError(f"kernels and strides are for {self.rank} axes, the images have {rank}")
        return tuple(map(math.prod, zip(*(per_axis(stride, rank) for stride in self.stage_strides), strict=True)))

    @property
    def roles(self) -> Roles:
        """See `UNetSkeleton`; the bottleneck is the last stage."""
        stages = [f"stage_{i}" for i in range(len(self.features))]
        decoder = [f"decoder_{i}" for i in reversed(range(self.halvings))]
        convolutions = []
        for stage, depth in zip(stages, self.stage_depths, strict=True):
            inner = [f"block_{j}/conv_{i}" for j in range(depth) for i in range(2)]
            inner = inner if self.encoder == "residual" else [f"conv_{i}" for i in range(depth)]
            convolutions += [f"{stage}/{name}" for name in inner]
        for stage, depth in zip(decoder, reversed(self.decoder_stage_depths), strict=True):
            convolutions += [f"{stage}/conv_{i}" for i in range(depth)]
        stem = ["stem"] if self.encoder == "residual" else []
        return Roles(stages[-1], (*stem, *stages[:-1]), tuple(decoder), tuple(convolutions))

    @property
    def reach(self) -> int:
        """See `UNetSkeleton`; as if images had no means and variances, which instance norm takes."""
        return max(self._reach_along(axis) for axis in range(self.rank or 1))

    def _reach_along(self, axis: int) -> int:
        along = lambda values: [per_axis(value, self.rank or 1)[axis] for value in values]
        radii, strides = [(side - 1) // 2 for side in along(self.stage_kernels)], along(self.stage_strides)
        per_unit = 2 if self.encoder == "residual" else 1
        reach = radii[0] if self.encoder == "residual" else 0  # of the stem
        pixels: list[int] = []
        for radius, stride, depth in zip(radii, strides, self.stage_depths, strict=True):
            above = pixels[-1] if pixels else 1  # the first convolution of a stage still reads the size above
            pixels.append(above * stride)
            reach += radius * (above + (per_unit * depth - 1) * pixels[-1])
        reach += sum(r * p * d for r, p, d in zip(radii, pixels, self.decoder_stage_depths, strict=False))
        return reach + pixels[-1] - 1  # a pixel lies anywhere in its coarse one

    @nn.nowrap
    def check(self) -> None:
        """See `UNetSkeleton`."""
        self.check_features(self.features)
        self.check_options(encoder=(self.encoder, ENCODERS), norm=(self.norm, _NORMS))
        stages = len(self.features)
        self._check_stages("kernels", self.stage_kernels, stages, odd=True)
        self._check_stages("strides", self.stage_strides, stages)
        self._check_stages("depths", self.stage_depths, stages)
        self._check_stages("decoder_depths", self.decoder_stage_depths, stages - 1)
        ranks = {len(one) for one in (*self.stage_kernels, *self.stage_strides) if isinstance(one, tuple)}
        if len(ranks) > 1 or ranks - {2, 3}:
            raise ValueError(f"kernels and strides are for {sorted(ranks)} axes; give 2 or 3 numbers, always as many")
        if math.prod(per_axis(self.stage_strides[0], 1)) != 1:
            raise ValueError(f"strides begin with {self.stage_strides[0]}; the first stage is at full resolution, 1")
        if self.padding == "valid" and any(unit & (unit - 1) for unit in self.units(self.rank or 2)):
            raise ValueError(f"strides are {self.stage_strides}; padding 'valid' is for powers of two")

    @nn.nowrap
    def _check_stages(self, name: str, values: tuple[PerAxis, ...], count: int, *, odd: bool = False) -> None:
        flat = [number for value in values for number in (value if isinstance(value, tuple) else (value,))]
        fit = (isinstance(n, int) and not isinstance(n, bool) and n > 0 and (n % 2 or not odd) for n in flat)
        if len(values) != count or not all(fit):
            raise ValueError(
                f"{name} is {values}; give {'an odd' if odd else 'a'} whole number above 0 per stage, {count} of them "
                f"for {len(self.features)} features"
            )

    def setup(self) -> None:
        self.check()
        options = {"norm": self.norm, "padding": self.inner_padding, "dtype": self.dtype}
        stage = self.block(ResidualStage if self.encoder == "residual" else PlainStage)
        per_stage = zip(self.features, self.stage_depths, self.stage_kernels, self.stage_strides, strict=True)
        if self.encoder == "residual":
            leaky = _leaky(self.negative_slope)
            self.stem = ConvNorm(self.features[0], self.stage_kernels[0], activation=leaky, **options)
        self.stage = [stage(*one, slope=self.negative_slope, **options) for one in per_stage]
        self.up = [
            TransposedConv(width, stride, self.up_bias, self.dtype)
            for width, stride in zip(self.features[:-1], self.stage_strides[1:], strict=True)
        ]
        levels = zip(self.features[:-1], self.decoder_stage_depths, self.stage_kernels[:-1], strict=True)
        self.decoder = [self.block(PlainStage)(*one, slope=self.negative_slope, **options) for one in levels]
        self.head = Conv(self.num_classes, kernel=1, use_bias=True, dtype=self.dtype)

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The last stage's activation, and the skips, top stage first, None where a skip is off."""
        x = self.enter(images)
        if self.encoder == "residual":
            x = self.stem(x, train)
        features = []
        for stage in self.stage:
            x = stage(x, train)
            features.append(x)
        return x, self.keep(features[:-1])

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        self.check_skips(skips)
        x = bottleneck
        for up, block, skip in reversed([*zip(self.up, self.decoder, skips, strict=True)]):
            x = up(x)
            x = x if skip is None else jnp.concatenate([x, skip], -1)
            x = block(x, train)
        return self.leave(self.head(x))


@functools.cache
def _leaky(slope: float) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(nn.leaky_relu, negative_slope=slope)
