"""U-Net (Ronneberger et al. 2015) with five padding modes and skip connections that can be switched off."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import (
    NORMS,
    UPSAMPLES,
    Conv,
    ConvBlock,
    Norm,
    Padding,
    TransposedConv,
    Upsample,
    crop,
    max_pool,
    upsampler,
)
from jaxseg.models.skeleton import Roles, Skips, UNetSkeleton, of_blocks


class UNet(UNetSkeleton):
    """Encoder, bottleneck and decoder over `len(features) - 1` poolings, in 2-D and 3-D by the rank of the images.

    The defaults are the network of Lin, Weng et al. 2024: two convolutions per level, batch norm, ReLU, bilinear
    up-sampling, the skip concatenated before the up-sampled features. With interpolating up-sampling a decoder block
    narrows to the width of the level above, as theirs does; with `transpose` the up-sampling itself does.

    `padding="valid"` never pads a feature map: the *image* is padded once by reflection (the overlap-tile strategy of
    Ronneberger et al.), by `image_margin(levels)` pixels on every side, and nothing else in the network knows where
    the border is. Logits have the size of the image in every mode.

    Attributes:
      num_classes: K, background included, at least 2.
      features: channels per level, full resolution first; the last is the bottleneck.
      padding: zero, reflect, replicate, circular or valid.
      skips: one bool per pooling, top level first; None means all on. A skip that is off has no weights.
      upsample: bilinear (half-pixel centres), bilinear_aligned or transpose.
      norm: batch, instance or group.
      remat: computes the activations of each block again in the backward pass instead of keeping them.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    features: tuple[int, ...] = (64, 128, 256, 512, 512)
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    upsample: Upsample = "bilinear"
    norm: Norm = "batch"
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.nowrap
    def check(self) -> None:
        """See `UNetSkeleton`."""
        self.check_features(self.features)
        self.check_options(upsample=(self.upsample, UPSAMPLES), norm=(self.norm, NORMS))
        if self.upsample == "bilinear_aligned" and self.padding in ("circular", "valid"):
            raise ValueError(
                f"bilinear_aligned weights depend on the position in the image, which padding={self.padding!r} is "
                "meant to rule out; use upsample='bilinear'"
            )

    def setup(self) -> None:
        self.check()
        options = {"norm": self.norm, "padding": self.padding, "dtype": self.dtype}
        block = lambda *features: self.block(ConvBlock)(features, **options)
        widths = self.features
        self.encoder = [block(width, width) for width in widths[:-1]]
        self.bottleneck = block(widths[-1], widths[-1])
        if self.upsample == "transpose":
            self.up: Sequence[Callable[[jax.Array], jax.Array]] = [
                TransposedConv(width, dtype=self.dtype) for width in widths[:-1]
            ]
        else:
            self.up = [upsampler(self.upsample, self.padding)] * self.halvings
        self.decoder = [block(*pair) for pair in self.decoder_widths]
        self.head = Conv(self.num_classes, kernel=1, use_bias=True, dtype=self.dtype)

    @property
    def decoder_widths(self) -> tuple[tuple[int, int], ...]:
        """Channels of the two layers of every decoder block, full resolution first."""
        widths = self.features
        if self.upsample == "transpose":
            return tuple((width, width) for width in widths[:-1])
        return tuple((width, widths[max(i - 1, 0)]) for i, width in enumerate(widths[:-1]))

    @property
    def numbered_layers(self) -> tuple[str, ...]:
        """Names of the convolutional layers, as `capture` takes them, in the order of the network.

        With four poolings these are the 18 layers of He et al. 2022 (Fig. 4): their layer n is entry n - 1. Their
        activations are those after normalisation and ReLU.
        """
        return self.roles.convolutions

    @property
    def roles(self) -> Roles:
        """See `UNetSkeleton`."""
        levels = range(self.halvings)
        encoder, decoder = (f"encoder_{i}" for i in levels), (f"decoder_{i}" for i in reversed(levels))
        return of_blocks(tuple(encoder), "bottleneck", tuple(decoder))

    @property
    def layer_groups(self) -> dict[str, tuple[str, ...]]:
        """The numbered layers in the groups of He et al. 2022 (Fig. 4): the first four, the last four, and the rest."""
        names = self.numbered_layers
        return {"early": names[:4], "abstract": names[4:-4], "late": names[-4:]}

    @property
    def halvings(self) -> int:
        """The number of poolings."""
        return len(self.features) - 1

    @property
    def margin(self) -> int:
        """Pixels of reflection on every side of the image: 0 unless the padding is valid."""
        return image_margin(self.halvings, upsample_loss=self._upsample_loss) if self.padding == "valid" else 0

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The bottleneck's activation and the skips, top level first, None where a skip is off.

        Raises:
          ValueError: rank other than 4 or 5, or a size that the poolings do not divide.
        """
        x = self.enter(images)
        features = []
        for block in self.encoder:
            x = block(x, train)
            features.append(x)
            x = max_pool(x)
        return self.bottleneck(x, train), self.keep(features)

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        self.check_skips(skips)
        x = bottleneck
        for level in reversed(range(self.halvings)):
            x = self.up[level](x)
            skip = skips[level]
            if skip is not None:
                skip = crop(skip, x.shape[1:-1]) if self.padding == "valid" else skip
                x = jnp.concatenate([skip, x], -1)
            x = self.decoder[level](x, train)
        if self.padding == "valid":
            x = crop(x, self._image_size(bottleneck))
        return self.head(x).astype(jnp.float32)

    @property
    def _upsample_loss(self) -> int:
        return 0 if self.upsample == "transpose" else 1

    def _image_size(self, bottleneck: jax.Array) -> list[int]:
        margin = decoder_margins(self.halvings, self._upsample_loss)[-1]
        return [(size - 2 * margin) * 2**self.halvings for size in bottleneck.shape[1:-1]]


def decoder_margins(levels: int, upsample_loss: int) -> list[int]:
    """Context needed on every side of the result of each level's block, in that level's pixels, bottleneck last.

    Going down one level: the block above takes 2 pixels, up-sampling `upsample_loss`, and a pixel below makes two.
    """
    margins = [0]
    for _ in range(levels):
        margins.append(-(-(margins[-1] + 2 + upsample_loss) // 2))
    return margins


def image_margin(levels: int, *, upsample_loss: int = 1) -> int:
    """Pixels of reflection on every side of the image that `padding="valid"` needs."""
    margin = decoder_margins(levels, upsample_loss)[-1] + 2
    for _ in range(levels):
        margin = 2 * margin + 2
    return margin
