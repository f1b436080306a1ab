"""U-Net of pre-activation residual blocks (Shirokikh et al. 2020), which Lennartz and Schultz 2023 build on."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import BatchNorm, Conv, Padding, TransposedConv
from jaxseg.models.skeleton import Roles, Skips, UNetSkeleton

_BLOCKS = 3  # residual blocks per level, on the way down and on the way up


class PreActivation(nn.Module):
    """Batch norm, ReLU, convolution."""

    features: int
    kernel: int = 3
    use_bias: bool = False
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.relu(BatchNorm(name="norm")(x, train))
        options = {"use_bias": self.use_bias, "padding": self.padding, "dtype": self.dtype}
        return Conv(self.features, self.kernel, **options, name="conv")(x)


class ResidualBlock(nn.Module):
    """Two pre-activated convolutions of the same width, added to their input."""

    kernel: int = 3
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = x
        for i in range(2):
            conv = PreActivation(x.shape[-1], self.kernel, padding=self.padding, dtype=self.dtype, name=f"conv_{i}")
            y = conv(y, train)
        return x + y


class Down(nn.Module):
    """Batch norm, strided 2x2 convolution, ReLU, residual blocks; at the top a 3x3 convolution begins."""

    features: int
    top: bool
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.top:
            x = Conv(self.features, padding=self.padding, dtype=self.dtype, name="conv")(x)
        else:
            x = BatchNorm(name="norm")(x, train)
            x = Conv(self.features, kernel=2, stride=2, dtype=self.dtype, name="conv")(x)
        x = nn.relu(x)
        for i in range(_BLOCKS):
            x = ResidualBlock(padding=self.padding, dtype=self.dtype, name=f"block_{i}")(x, train)
        return x


class Up(nn.Module):
    """Residual blocks, batch norm, transposed 2x2 convolution, ReLU."""

    features: int
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(_BLOCKS):
            x = ResidualBlock(padding=self.padding, dtype=self.dtype, name=f"block_{i}")(x, train)
        x = BatchNorm(name="norm")(x, train)
        x = TransposedConv(self.features, use_bias=False, dtype=self.dtype, name="up")(x)
        return nn.relu(x)


class Head(nn.Module):
    """A residual block of 1x1 convolutions, a pre-activated 1x1 convolution to the classes, batch norm."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ResidualBlock(kernel=1, dtype=self.dtype, name="block")(x, train)
        x = PreActivation(self.num_classes, kernel=1, use_bias=True, dtype=self.dtype, name="conv")(x, train)
        return BatchNorm(name="norm")(x, train)


class ResidualUNet(UNetSkeleton):
    """Per level three residual blocks down and three up; skips go through 1x1 convolutions and are added.

    Attributes:
      num_classes: K, background included, at least 2.
      features: channels per level, full resolution first; the last is the bottleneck. The paper's initial width is 8.
      padding: zero, reflect, replicate, circular or valid (see `UNetSkeleton`).
      skips: one bool per halving, top level first; None means all on. A skip that is off has no weights.
      remat: computes the activations of each block again in the backward pass instead of keeping them.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    features: tuple[int, ...] = (8, 16, 32, 64)
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def halvings(self) -> int:
        """How often the image is halved."""
        return len(self.features) - 1

    @property
    def roles(self) -> Roles:
        """See `UNetSkeleton`; the bottleneck is the last block on the way down."""
        down = tuple(f"down_{i}" for i in range(len(self.features)))
        up = tuple(f"up_{i}" for i in reversed(range(self.halvings)))
        blocks = [f"{block}/block_{i}" for block in (*down, *up) for i in range(_BLOCKS)]
        convolutions = tuple(f"{block}/conv_{i}" for block in (*blocks, "head/block") for i in range(2))
        return Roles(down[-1], down[:-1], up, convolutions)

    @property
    def reach(self) -> int:
        """See `UNetSkeleton`."""
        blocks = 2 * _BLOCKS  # 3x3 convolutions per level and direction
        levels = [2**level for level in range(self.halvings + 1)]
        down = 1 + blocks * sum(levels)
        up = blocks * sum(levels[1:])
        return down + up + levels[-1] - 1  # a pixel lies anywhere in its coarse one

    @nn.nowrap
    def check(self) -> None:
        """See `UNetSkeleton`."""
        self.check_features(self.features)
        self.check_options()

    def setup(self) -> None:
        self.check()
        inner = {"padding": self.inner_padding, "dtype": self.dtype}
        self.down = [self.block(Down)(width, top=i == 0, **inner) for i, width in enumerate(self.features)]
        self.up = [self.block(Up)(width, **inner) for width in self.features[:-1]]
        self.shortcut = [Conv(width, kernel=1, use_bias=True, dtype=self.dtype) for width in self.features[:-1]]
        self.head = Head(self.num_classes, self.dtype)

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The bottleneck's activation, and the features that the shortcuts read, None where a skip is off."""
        x = self.enter(images)
        features = []
        for block in self.down:
            x = block(x, train)
            features.append(x)
        return x, self.keep(features[:-1])

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        self.check_skips(skips)
        x = bottleneck
        for block, shortcut, skip in reversed([*zip(self.up, self.shortcut, skips, strict=True)]):
            x = block(x, train)
            if skip is not None:
                x = x + shortcut(skip)
        return self.leave(self.head(x, train))
