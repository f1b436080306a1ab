"""U-Net with a ResNet encoder (He et al. 2016), as Wilm et al. 2024 prune its skip connections."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import Conv, ConvBlock, ConvNorm, Padding, max_pool_overlapping, nearest_double
from jaxseg.models.skeleton import Roles, Skips, UNetSkeleton

ENCODERS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
_ENCODER_WIDTHS = (64, 128, 256, 512)
_DECODER_WIDTHS = (256, 128, 64, 32, 16)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, which is a 1x1 convolution where the shape changes."""

    features: int
    stride: int = 1
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"padding": self.padding, "dtype": self.dtype}
        y = ConvNorm(self.features, stride=self.stride, **options, name="conv_0")(x, train)
        y = ConvNorm(self.features, activation=None, **options, name="conv_1")(y, train)
        if self.stride > 1 or x.shape[-1] != self.features:
            shortcut = ConvNorm(self.features, 1, self.stride, activation=None, **options, name="shortcut")
            x = shortcut(x, train)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Basic blocks at one resolution; the first may halve it."""

    features: int
    blocks: int
    stride: int
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = BasicBlock(self.features, stride, self.padding, self.dtype, name=f"block_{i}")(x, train)
        return x


class ResNetUNet(UNetSkeleton):
    """ResNet encoder and the decoder of segmentation_models_pytorch (256, 128, 64, 32, 16 channels).

    Five halvings, so sizes must be divisible by 32. There are four skips, at 1/2, 1/4, 1/8 and 1/16 of the image's
    size, and none at full resolution. Wilm et al. switch off the top one to four: their L1 is
    `skips=(False, True, True, True)`.

    Attributes:
      num_classes: K, background included, at least 2.
      encoder: resnet18 or resnet34.
      padding: zero, reflect, replicate, circular or valid (see `UNetSkeleton`).
      skips: four bools, the skip at half resolution first; None means all on.
      remat: computes the activations of each block again in the backward pass instead of keeping them.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    encoder: str = "resnet18"
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def halvings(self) -> int:
        """The stem, the pooling after it, and three stages."""
        return 5

    @property
    def num_skips(self) -> int:
        """At 1/2, 1/4, 1/8 and 1/16."""
        return 4

    @nn.nowrap
    def check(self) -> None:
        """See `UNetSkeleton`."""
        self.check_options(encoder=(self.encoder, tuple(ENCODERS)))

    def setup(self) -> None:
        self.check()
        inner = {"padding": self.inner_padding, "dtype": self.dtype}
        self.stem = ConvNorm(64, 7, 2, **inner)
        self.stage = [
            self.block(Stage)(width, blocks, 1 if i == 0 else 2, **inner)
            for i, (width, blocks) in enumerate(zip(_ENCODER_WIDTHS, ENCODERS[self.encoder], strict=True))
        ]
        self.decoder = [self.block(ConvBlock)((width, width), **inner) for width in _DECODER_WIDTHS]
        self.head = Conv(self.num_classes, use_bias=True, **inner)

    @property
    def roles(self) -> Roles:
        """See `UNetSkeleton`; the bottleneck is the last stage."""
        stages = tuple(f"stage_{i}" for i in range(len(ENCODERS[self.encoder])))
        decoder = tuple(f"decoder_{i}" for i in range(len(_DECODER_WIDTHS)))
        blocks = [f"stage_{i}/block_{j}" for i, blocks in enumerate(ENCODERS[self.encoder]) for j in range(blocks)]
        convolutions = tuple(f"{block}/conv_{i}" for block in (*blocks, *decoder) for i in range(2))
        return Roles(stages[-1], ("stem", *stages[:-1]), decoder, convolutions)

    @property
    def reach(self) -> int:
        """See `UNetSkeleton`."""
        reach, stride = 3 + 2, 4  # the stem's 7x7 convolution and the pooling after it
        for i, blocks in enumerate(ENCODERS[self.encoder]):
            reach += stride if i else 0  # the first convolution of a stage still reads the size above
            stride *= 2 if i else 1
            reach += stride * (2 * blocks - (1 if i else 0))
        reach += sum(2 * stride >> level for level in range(1, 6)) + 1  # two convolutions a decoder block, and the head
        return reach + stride - 1  # a pixel lies anywhere in its coarse one

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The bottleneck's activation at 1/32, and the skips, top level first, None where a skip is off."""
        x = self.enter(images)
        x = self.stem(x, train)
        features = [x]
        x = max_pool_overlapping(x, self.inner_padding)
        for stage in self.stage:
            x = stage(x, train)
            features.append(x)
        return x, self.keep(features[:-1])

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        self.check_skips(skips)
        x = bottleneck
        for block, skip in zip(self.decoder, [*reversed(skips), None], strict=True):
            x = nearest_double(x)
            x = x if skip is None else jnp.concatenate([x, skip], -1)
            x = block(x, train)
        return self.leave(self.head(x))
