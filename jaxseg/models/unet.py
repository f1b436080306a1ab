"""U-Net (Ronneberger et al. 2015) with five padding modes and skip connections that can be switched off."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import (
    PADDINGS,
    UPSAMPLES,
    Conv,
    ConvBlock,
    Padding,
    TransposedConv,
    Upsample,
    check_choice,
    crop,
    max_pool,
    pad,
    upsampler,
)

Skips = tuple[jax.Array | None, ...]
Doubling = Callable[[jax.Array], jax.Array]


class UNet(nn.Module):
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
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    features: tuple[int, ...] = (64, 128, 256, 512, 512)
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    upsample: Upsample = "bilinear"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self._check_options()
        block = lambda *features: ConvBlock(features, self.padding, self.dtype)
        widths = self.features
        self.encoder = [block(width, width) for width in widths[:-1]]
        self.bottleneck = block(widths[-1], widths[-1])
        if self.upsample == "transpose":
            self.up: Sequence[Callable[[jax.Array], jax.Array]] = [
                TransposedConv(width, self.dtype) for width in widths[:-1]
            ]
            self.decoder = [block(width, width) for width in widths[:-1]]
        else:
            self.up = [upsampler(self.upsample, self.padding)] * self.levels
            self.decoder = [block(width, widths[max(i - 1, 0)]) for i, width in enumerate(widths[:-1])]
        self.head = Conv(self.num_classes, kernel=1, use_bias=True, dtype=self.dtype)

    @property
    def levels(self) -> int:
        """The number of poolings, and of skips."""
        return len(self.features) - 1

    @property
    def margin(self) -> int:
        """Pixels of reflection that are added to every side of the image: 0 unless the padding is valid."""
        return image_margin(self.levels, self._upsample_loss) if self.padding == "valid" else 0

    @property
    def active_skips(self) -> tuple[bool, ...]:
        return (True,) * self.levels if self.skips is None else self.skips

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B,H,W,C]` or `[B,D,H,W,C]` -> logits `[B,...,K]` float32."""
        bottleneck, skips = self.encode(images, train)
        return self.decode(bottleneck, skips, train)

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The bottleneck's activation and the skips, top level first, None where a skip is off.

        Raises:
          ValueError: rank other than 4 or 5, or a size that the poolings do not divide.
        """
        self._check_images(images)
        x = images.astype(self.dtype)
        x = pad(x, self.margin, "reflect") if self.margin else x
        skips: list[jax.Array | None] = []
        for block, active in zip(self.encoder, self.active_skips, strict=True):
            x = block(x, train)
            skips.append(x if active else None)
            x = max_pool(x)
        return self.bottleneck(x, train), tuple(skips)

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        self._check_skips(skips)
        x = bottleneck
        for level in reversed(range(self.levels)):
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
        margin = decoder_margins(self.levels, self._upsample_loss)[-1]
        return [(size - 2 * margin) * 2**self.levels for size in bottleneck.shape[1:-1]]

    def _check_options(self) -> None:
        check_choice("padding", self.padding, PADDINGS)
        check_choice("upsample", self.upsample, UPSAMPLES)
        if self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}; the background counts, so it must be at least 2")
        if len(self.features) < 2 or not all(isinstance(width, int) and width > 0 for width in self.features):
            raise ValueError(
                f"features is {self.features}; give one width above 0 per level and one for the bottleneck"
            )
        if len(self.active_skips) != self.levels:
            raise ValueError(
                f"skips {self.skips} names {len(self.active_skips)} levels, features {self.features} has {self.levels}"
            )
        if self.upsample == "bilinear_aligned" and self.padding in ("circular", "valid"):
            raise ValueError(
                f"bilinear_aligned weights depend on the position in the image, which padding={self.padding!r} is "
                "meant to rule out; use upsample='bilinear'"
            )

    def _check_images(self, images: jax.Array) -> None:
        if images.ndim not in (4, 5):
            raise ValueError(f"images must be [B,H,W,C] or [B,D,H,W,C], got shape {images.shape}")
        unit = 2**self.levels
        sizes = images.shape[1:-1]
        if any(size % unit or not size for size in sizes):
            near = " x ".join(_next_sizes(size, unit) for size in sizes)
            raise ValueError(
                f"{self.levels} poolings need image sizes divisible by {unit}, got {' x '.join(map(str, sizes))}; "
                f"the next sizes are {near}"
            )

    def _check_skips(self, skips: Skips) -> None:
        given = tuple(skip is not None for skip in skips)
        if given != self.active_skips:
            raise ValueError(f"decode was given skips {given}, the network was built with {self.active_skips}")


def _next_sizes(size: int, unit: int) -> str:
    if size % unit == 0 and size:
        return str(size)
    above = (size // unit + 1) * unit
    return str(above) if above == unit else f"{above - unit} or {above}"


def decoder_margins(levels: int, upsample_loss: int) -> list[int]:
    """Context needed on every side of the result of each level's block, in that level's pixels, bottleneck last.

    Going down one level: the block above takes 2 pixels, up-sampling `upsample_loss`, and a pixel below makes two.
    """
    margins = [0]
    for _ in range(levels):
        margins.append(-(-(margins[-1] + 2 + upsample_loss) // 2))
    return margins


def image_margin(levels: int, upsample_loss: int = 1) -> int:
    """Pixels of reflection on every side of the image that `padding="valid"` needs."""
    margin = decoder_margins(levels, upsample_loss)[-1] + 2
    for _ in range(levels):
        margin = 2 * margin + 2
    return margin
