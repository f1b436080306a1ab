"""A vision transformer (Dosovitskiy et al. 2021) for segmentation, whose tokens are told their place in four ways."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.models.layers import Conv, ConvBlock, Padding, double
from jaxseg.models.skeleton import Roles, Skips, UNetSkeleton

Position = Literal["learned", "sinusoidal", "relative", "none"]
POSITIONS: tuple[Position, ...] = ("learned", "sinusoidal", "relative", "none")


class Attention(nn.Module):
    """Multi-head self-attention of tokens `[B,*n,D]`; of `relative`, with a learned bias per head and offset.

    The bias is that of Liu et al. 2021 (Swin), of every offset along every axis together. Offsets that did not occur at
    initialisation, on a smaller image, have the bias of the nearest one that did.
    """

    heads: int
    relative: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        sizes, width = x.shape[1:-1], x.shape[-1]
        tokens = x.reshape(len(x), -1, width)
        parts = nn.Dense(3 * width, dtype=self.dtype, name="parts")(tokens)
        parts = parts.reshape(*tokens.shape[:2], 3, self.heads, width // self.heads)
        query, key, value = (jax.lax.index_in_dim(parts, i, 2, keepdims=False) for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = scores / math.sqrt(width // self.heads)
        weights = jax.nn.softmax(scores + self._bias(sizes) if self.relative else scores).astype(value.dtype)
        seen = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return nn.Dense(width, dtype=self.dtype, name="out")(seen.reshape(tokens.shape)).reshape(x.shape)

    def _bias(self, sizes: Sequence[int]) -> jax.Array:
        """`[1,heads,N,N]` for the N tokens of a grid of these sizes."""
        here = (self.heads, *(2 * n - 1 for n in sizes))
        table = _stored(self, "bias", nn.initializers.truncated_normal(0.02), here)
        places = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
        offsets = places[:, None] - places[None]
        most = (np.array(table.shape[1:]) - 1) // 2
        at = np.clip(offsets, -most, most) + most
        return table[(slice(None), *np.moveaxis(at, -1, 0))][None]


class Layer(nn.Module):
    """Attention and a perceptron of one hidden layer, each after a layer norm and added to its input."""

    heads: int
    relative: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        width = x.shape[-1]
        y = _normalised(x, "attention_norm")
        x = x + Attention(self.heads, self.relative, self.dtype, name="attention")(y)
        y = _normalised(x, "perceptron_norm")
        y = nn.gelu(nn.Dense(4 * width, dtype=self.dtype, name="hidden")(y))
        return x + nn.Dense(width, dtype=self.dtype, name="out")(y)


def _normalised(x: jax.Array, name: str) -> jax.Array:
    """Layer norm in float32."""
    return nn.LayerNorm(epsilon=1e-6, name=name)(x.astype(jnp.float32)).astype(x.dtype)


class Patches(nn.Module):
    """Every patch as a token `[B,*n,D]`, and with `learned` or `sinusoidal` positions where it lies.

    Learned positions are interpolated linearly for images of other sizes than that of initialisation.
    """

    side: int
    width: int
    position: Position
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for axis in range(1, images.ndim - 1):  # [B, h, side, ...] -> the patches' pixels last
            x = x.reshape(*x.shape[:axis], x.shape[axis] // self.side, self.side, *x.shape[axis + 1 :])
            x = jnp.moveaxis(x, axis + 1, -1)
        x = x.reshape(*x.shape[: images.ndim - 1], -1)
        x = nn.Dense(self.width, dtype=self.dtype, name="embedding")(x)
        if self.position == "learned":
            here = x.shape[1:]
            place = _stored(self, "position", nn.initializers.truncated_normal(0.02), here)
            x = x + (place if place.shape == here else jax.image.resize(place, here, "linear"))[None].astype(x.dtype)
        if self.position == "sinusoidal":
            x = x + jnp.asarray(sinusoids(x.shape[1:-1], self.width), x.dtype)[None]
        return x


def sinusoids(sizes: Sequence[int], width: int) -> np.ndarray:
    """Sines and cosines of the place along every axis, with the frequencies of Vaswani et al. 2017, `[*n,D]`.

    Every axis has an equal share of the channels; what does not divide is 0.
    """
    count = width // (2 * len(sizes))  # frequencies
    angles = [np.arange(n)[:, None] / 10000 ** (np.arange(count) / count) for n in sizes]
    waves = [np.concatenate([np.sin(angle), np.cos(angle)], -1) for angle in angles]
    found = np.zeros((*sizes, width), np.float32)
    for i, wave in enumerate(waves):
        along = [1] * len(sizes) + [2 * count]
        along[i] = sizes[i]
        found[..., 2 * count * i : 2 * count * (i + 1)] = wave.reshape(along)
    return found


def _stored(module: nn.Module, name: str, init: Any, shape: tuple[int, ...]) -> jax.Array:
    """A parameter, made in this shape, or as it was made for images of another size."""
    known = module.has_variable("params", name)
    return module.param(name, init, module.get_variable("params", name).shape if known else shape)


class ViT(UNetSkeleton):
    """Patches, transformer layers of one width, and a decoder that doubles until pixels are reached.

    A decoder level is a bilinear doubling and two 3x3 convolutions with batch norm, the first of which halves the
    channels, as in SETR-PUP (Zheng et al. 2021). There are no skips. Without positions the layers see a set of patches;
    the decoder's padding alone can tell of the border then.

    Attributes:
      num_classes: K, background included, at least 2.
      patch: pixels a side of a patch, a power of two.
      width: channels of a token.
      depth: transformer layers.
      heads: of attention; they divide `width`.
      position: learned, sinusoidal, relative or none.
      padding: of the decoder: zero, reflect, replicate or circular. As every token sees the whole image, there is no
        `valid`.
      skips: none there are, `()`.
      remat: computes the activations of each block again in the backward pass instead of keeping them.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    patch: int = 16
    width: int = 192
    depth: int = 12
    heads: int = 3
    position: Position = "learned"
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def halvings(self) -> int:
        """How often a patch is halved down to a pixel."""
        return int(math.log2(self.patch))

    @property
    def num_skips(self) -> int:
        """None."""
        return 0

    @property
    def roles(self) -> Roles:
        """See `UNetSkeleton`; the bottleneck is what the last layer gives, normalised."""
        encoder = ("patches", *(f"layer_{i}" for i in range(self.depth)))
        decoder = tuple(f"up_{i}" for i in reversed(range(self.halvings)))
        convolutions = (*encoder, "bottleneck", *(f"{block}/conv_{i}" for block in decoder for i in range(2)))
        return Roles("bottleneck", encoder, decoder, convolutions)

    @nn.nowrap
    def check(self) -> None:
        """See `UNetSkeleton`."""
        self.check_options(position=(self.position, POSITIONS))
        if self.padding == "valid":
            raise ValueError("padding 'valid' is for networks that see a part of the image; a token of vit sees all")
        if self.patch < 2 or 2**self.halvings != self.patch:
            raise ValueError(f"patch is {self.patch}; give a power of two from 2 on")
        if self.depth < 1 or self.heads < 1 or self.width < 2 ** (self.halvings + 1) or self.width % self.heads:
            raise ValueError(
                f"width {self.width}, depth {self.depth} and heads {self.heads}: heads must divide the width, which is "
                f"halved {self.halvings} times, and none may be below 1"
            )

    def setup(self) -> None:
        self.check()
        self.patches = Patches(self.patch, self.width, self.position, self.dtype)
        relative = self.position == "relative"
        self.layer = [self.block(Layer)(self.heads, relative, self.dtype) for _ in range(self.depth)]
        self.bottleneck = nn.LayerNorm(epsilon=1e-6)
        options = {"padding": self.padding, "dtype": self.dtype}
        widths = [self.width >> (self.halvings - level) for level in range(self.halvings)]
        self.up = [self.block(ConvBlock)((width, width), **options) for width in widths]
        self.head = Conv(self.num_classes, kernel=1, use_bias=True, dtype=self.dtype)

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The last layer's tokens `[B,*n,width]`, normalised, and no skips."""
        x = self.patches(self.enter(images))
        for layer in self.layer:
            x = layer(x, train)
        return self.bottleneck(x.astype(jnp.float32)).astype(self.dtype), ()

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        self.check_skips(skips)
        x = bottleneck
        for block in reversed(self.up):
            x = block(double(x, self.padding), train)
        return self.leave(self.head(x))
