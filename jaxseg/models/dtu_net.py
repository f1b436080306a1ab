"""DTU-Net (Lin et al. 2023): a texture U-Net, and a second network that reads its output for topology.

`x` are features; `S` is the summed foreground probability, `T` the topology net's probability of foreground.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import Conv, ConvBlock, ConvNorm, Padding, max_pool, nearest_double, pad
from jaxseg.models.skeleton import Roles, Skips, UNetSkeleton, of_blocks

_DROPOUT = 0.2
_FUSION_WIDTH = 32


class Outputs(NamedTuple):
    """What training needs besides the logits.

    Attributes:
      logits: log of the fused probabilities, `[B,...,K]`.
      coarse: logits of the texture net, `[B,...,K]`.
      topology: logit of `T`, `[B,...]`.
      embedding: of the coarse probabilities, as `DTUNet.embed` gives it.
    """

    logits: jax.Array
    coarse: jax.Array
    topology: jax.Array
    embedding: jax.Array


class Encoder(nn.Module):
    """Conv blocks with a pooling between any two; returns the features of every level, full resolution first."""

    features: tuple[int, ...]
    block: type[nn.Module]
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> list[jax.Array]:
        levels = []
        for i, width in enumerate(self.features):
            x = max_pool(x) if i else x
            x = _block(self.block, width, self.padding, self.dtype, f"level_{i}")(x, train)
            levels.append(x)
        return levels


class Decoder(nn.Module):
    """From the bottleneck upwards: nearest up-sampling, the skip before the up-sampled features, a conv block."""

    features: tuple[int, ...]
    block: type[nn.Module]
    outputs: int
    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skips: Sequence[jax.Array | None], train: bool) -> jax.Array:
        for i in reversed(range(len(self.features) - 1)):
            x, skip = nearest_double(x), skips[i]
            x = x if skip is None else jnp.concatenate([skip, x], -1)
            x = _block(self.block, self.features[i], self.padding, self.dtype, f"level_{i}")(x, train)
        return Conv(self.outputs, kernel=1, use_bias=True, dtype=self.dtype, name="head")(x).astype(jnp.float32)


def _block(kind: type[nn.Module], width: int, padding: Padding, dtype: Any, name: str) -> Any:
    options = {"activation": nn.leaky_relu, "dropout": _DROPOUT, "padding": padding, "dtype": dtype}
    return kind((width, width), **options, name=name)


class ChannelAttention(nn.Module):
    """Every channel times a weight in (0, 1) that depends on all channels' means (Hu et al. 2018)."""

    reduction: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        squeezed = jnp.mean(x.astype(jnp.float32), tuple(range(1, x.ndim - 1)), keepdims=True)
        y = nn.Dense(max(channels // self.reduction, 1), dtype=self.dtype, name="squeeze")(squeezed)
        y = nn.Dense(channels, dtype=self.dtype, name="excite")(nn.leaky_relu(y))
        return x * nn.sigmoid(y).astype(x.dtype)


class FusionWeights(nn.Module):
    """Log of the two weights per pixel, which sum to one, from image, coarse probabilities and `T`."""

    padding: Padding = "zero"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        options = {"padding": self.padding, "dtype": self.dtype}
        for i in range(2):
            x = ConvNorm(_FUSION_WIDTH, activation=nn.leaky_relu, **options, name=f"conv_{i}")(x, train)
        x = Conv(2, use_bias=True, **options, name="head")(x)
        return jax.nn.log_softmax(x.astype(jnp.float32))


class DTUNet(UNetSkeleton):
    """Texture U-Net and topology net, fused; at test time an ordinary network `images -> logits`.

    The texture net's probabilities are coarse. The topology net reads them alone, so it sees shapes and no gray values,
    and gives `T`, one channel: foreground or not. The logits are the log of the fused probabilities: background
    `S (w1 bg + w2 (1 - T))` and foreground `fg (w1 S + w2 T)`, normalised.

    `encode` and `decode` meet at the texture net's bottleneck. With learned fusion, the image is passed as one more
    entry after the skips. Applying it with `train=True` needs the random stream `dropout`.

    Attributes:
      num_classes: K, background included, at least 2.
      features: channels per level of the texture net; the last is the bottleneck.
      topology_features: the same of the topology net, whose skips are always on.
      fusion: fixed, by `fusion_weights`; or learned, a softmax per pixel over image, coarse probabilities and `T`.
      fusion_weights: `(w1, w2)` of texture and topology, above 0; divided by their sum.
      padding: zero, reflect, replicate, circular or valid (see `UNetSkeleton`).
      skips: one bool per pooling of the texture net, top level first; None means all on.
      remat: computes the activations of each block again in the backward pass instead of keeping them.
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    num_classes: int
    features: tuple[int, ...] = (64, 128, 256, 512, 1024)
    topology_features: tuple[int, ...] = (64, 128, 256, 512)
    fusion: str = "fixed"
    fusion_weights: tuple[float, float] = (0.5, 0.5)
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @property
    def halvings(self) -> int:
        """The poolings of the deeper of the two networks."""
        return max(len(self.features), len(self.topology_features)) - 1

    @property
    def num_skips(self) -> int:
        """One per pooling of the texture net."""
        return len(self.features) - 1

    @property
    def roles(self) -> Roles:
        """See `UNetSkeleton`; the encoder is the texture net's, and everything after its bottleneck decodes."""
        texture, topology = len(self.features), len(self.topology_features)
        names = lambda part, levels: tuple(f"{part}/level_{i}" for i in levels)
        *encoder, bottleneck = names("texture_encoder", range(texture))
        decoder = (
            *names("texture_decoder", reversed(range(texture - 1))),
            *names("topology_encoder", range(topology)),
            *names("topology_decoder", reversed(range(topology - 1))),
        )
        return of_blocks(tuple(encoder), bottleneck, decoder)

    @property
    def reach(self) -> int:
        """See `UNetSkeleton`."""
        fusion = 3 if self.fusion == "learned" else 0
        return _reach(len(self.features) - 1) + _reach(len(self.topology_features) - 1) + fusion

    @nn.nowrap
    def check(self) -> None:
        """See `UNetSkeleton`."""
        self.check_features(self.features)
        self.check_features(self.topology_features)
        self.check_options(fusion=(self.fusion, ("fixed", "learned")))
        if len(self.fusion_weights) != 2 or not all(weight > 0 for weight in self.fusion_weights):
            raise ValueError(f"fusion_weights is {self.fusion_weights!r}; give two weights above 0")

    def setup(self) -> None:
        self.check()
        inner = {"padding": self.inner_padding, "dtype": self.dtype}
        block = self.block(ConvBlock)
        self.texture_encoder = Encoder(self.features, block, **inner)
        self.texture_decoder = Decoder(self.features, block, self.num_classes, **inner)
        self.topology_encoder = Encoder(self.topology_features, block, **inner)
        self.topology_decoder = Decoder(self.topology_features, block, 1, **inner)
        self.attention = ChannelAttention(dtype=self.dtype)
        if self.fusion == "learned":
            self.weights = FusionWeights(**inner)

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The texture net's bottleneck, and the skips, top level first, None where a skip is off."""
        x = self.enter(images)
        *features, bottleneck = self.texture_encoder(x, train)
        skips = self.keep(features)
        return bottleneck, (*skips, x) if self.fusion == "learned" else skips

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        return self._outputs(bottleneck, skips, train).logits

    def outputs(self, images: jax.Array, train: bool = False) -> Outputs:
        """The logits and what else training needs."""
        return self._outputs(*self.encode(images, train), train)

    def embed(self, probabilities: jax.Array, train: bool = False) -> jax.Array:
        """The topology net's bottleneck, weighted by channel attention.

        Args:
          probabilities: `[B,...,K]`: coarse ones, or a one-hot annotation.
          train: whether dropout and the statistics of the batch are used.

        Returns:
          `[B,...,C]`, float32, with the spatial axes of the bottleneck.
        """
        x = pad(probabilities.astype(self.dtype), self.margin, "reflect") if self.margin else probabilities
        return self._attend(self.topology_encoder(x.astype(self.dtype), train)[-1])

    def _attend(self, bottleneck: jax.Array) -> jax.Array:
        return self.attention(bottleneck).astype(jnp.float32)

    def _outputs(self, bottleneck: jax.Array, skips: Skips, train: bool) -> Outputs:
        if len(skips) != self.num_skips + (self.fusion == "learned"):
            raise ValueError(
                f"decode was given {len(skips)} skips; with {self.fusion} fusion encode returns {self.num_skips}"
                + (" and the image after them" if self.fusion == "learned" else "")
            )
        self.check_skips(skips[: self.num_skips])
        coarse = self.texture_decoder(bottleneck, skips[: self.num_skips], train)
        probabilities = jax.nn.softmax(coarse).astype(self.dtype)
        *features, deep = self.topology_encoder(probabilities, train)
        topology = self.topology_decoder(deep, features, train)
        logits = fuse(coarse, topology, self._log_weights(skips, probabilities, topology, train))
        return Outputs(self.leave(logits), self.leave(coarse), self.leave(topology)[..., 0], self._attend(deep))

    def _log_weights(self, skips: Skips, probabilities: jax.Array, topology: jax.Array, train: bool) -> jax.Array:
        if self.fusion == "fixed":
            return jnp.log(jnp.asarray(self.fusion_weights, jnp.float32) / sum(self.fusion_weights))
        image = skips[-1]
        assert image is not None  # put there by encode
        read = [image, probabilities, nn.sigmoid(topology).astype(self.dtype)]
        return self.weights(jnp.concatenate(read, -1), train)


def fuse(coarse: jax.Array, topology: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Log of the fused probabilities, computed in logarithms, so that confident networks give no 0 / 0.

    Args:
      coarse: logits of the texture net, `[B,...,K]` float32.
      topology: logit of `T`, `[B,...,1]` float32.
      log_weights: log of `w1` and `w2`, `[2]` or `[B,...,2]`.

    Returns:
      `[B,...,K]`, whose exponentials sum to one.
    """
    log_weights = jnp.expand_dims(log_weights, range(coarse.ndim - log_weights.ndim))
    w1, w2 = log_weights[..., :1], log_weights[..., 1:]
    background, foreground = jnp.split(jax.nn.log_softmax(coarse), [1], -1)
    total = jax.nn.logsumexp(foreground, -1, keepdims=True)
    inside, outside = jax.nn.log_sigmoid(topology), jax.nn.log_sigmoid(-topology)
    fused = [
        total + jnp.logaddexp(w1 + background, w2 + outside),
        foreground + jnp.logaddexp(w1 + total, w2 + inside),
    ]
    return jax.nn.log_softmax(jnp.concatenate(fused, -1))


def _reach(poolings: int) -> int:
    levels = [2**level for level in range(poolings + 1)]
    return 2 * sum(levels) + 2 * sum(levels[:-1]) + levels[-1] - 1  # a pixel lies anywhere in its coarse one
