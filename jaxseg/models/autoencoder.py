"""The autoencoder of activations of Lennartz and Schultz 2023: what would they be, had they come from training data?

Fitted to the bottleneck's activations on training images, it is put after that layer by `capture.replace`; how much
this changes the segmentation is the distortion.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import Conv, check_choice, nearest_double

Kind = Literal["plain", "denoising", "variational"]
KINDS: tuple[Kind, ...] = ("plain", "denoising", "variational")
_BLOCKS = 2  # down blocks, and as many up
_CONVS = 4  # 3x3 convolutions per block
_SLOPE = 0.01  # of the LeakyReLU below zero

Sizes = tuple[int, ...]


class Stage(nn.Module):
    """Convolution, LayerNorm over channels and positions together, LeakyReLU.

    As in PyTorch's `LayerNorm([C, H, W])`: one mean and one variance per case, and a scale and a bias per channel and
    position. The dense layers of the autoencoder fix its size anyway. Unlike a norm per position it keeps the
    contrast between positions, unlike one per channel that between channels.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {"use_bias": True, "dtype": self.dtype}
        x = Conv(self.features, self.kernel, self.stride, **options, name="conv")(x)
        axes = tuple(range(1, x.ndim))
        norm = nn.LayerNorm(epsilon=1e-5, reduction_axes=axes, feature_axes=axes, name="norm")
        x = norm(x.astype(jnp.float32)).astype(self.dtype)
        return nn.leaky_relu(x, _SLOPE)


class Contract(nn.Module):
    """Four stages; the last has stride two and twice the channels, and leaves `ceil(size / 2)` pixels."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(_CONVS - 1):
            x = Stage(self.features, dtype=self.dtype, name=f"stage_{i}")(x)
        return Stage(2 * self.features, stride=2, dtype=self.dtype, name=f"stage_{_CONVS - 1}")(x)


class Expand(nn.Module):
    """The mirror of `Contract`: three stages, then pixels are repeated, and the fourth halves the channels."""

    features: int
    sizes: Sizes
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(_CONVS - 1):
            x = Stage(2 * self.features, dtype=self.dtype, name=f"stage_{i}")(x)
        # the strided convolution is centred on the even pixels, so of an odd size the last one is too many
        x = nearest_double(x)[(slice(None), *(slice(size) for size in self.sizes))]
        return Stage(self.features, dtype=self.dtype, name=f"stage_{_CONVS - 1}")(x)


class Autoencoder(nn.Module):
    """Activations `[B,h,w,C]` or `[B,d,h,w,C]` -> reconstruction of the same shape, float32, through a narrow vector.

    Lennartz and Schultz 2023, section 3.1, and, where it leaves a choice open, the code published with it: a down block
    has `width` channels, and its fourth convolution, that of stride two, doubles them; a stage of 1x1 convolutions goes
    back to `width` before the dense layer; the decoder mirrors all that; the last layer is a 1x1 convolution to C
    channels with neither norm nor activation, so that any real value can be reconstructed. Convolutions have a bias.
    That code up-samples by transposed 3x3 convolutions of stride two; here pixels are repeated before a 3x3
    convolution, which has as many weights and no checkerboard. Every size from 1 on works: an odd one is halved
    upwards, and the decoder restores it.

    Kinds: `plain`; `denoising`, which in training reconstructs from its input plus Gaussian noise; `variational`
    (Kingma and Welling 2014), whose latent in training is drawn by reparameterisation from the Gaussian that the
    encoder gives, and which wants the divergence of `reconstruct` in its loss. In training the latter two take random
    numbers from the stream `noise`: `apply(..., train=True, rngs={"noise": key})`. With `train=False` all are
    deterministic and take none.

    Attributes:
      shape: of one activation, `(h, w, C)` or `(d, h, w, C)`; `for_activations` reads it from the data.
      latent: length of the vector; the paper has 64 (brain, CC-359) and 128 (heart, M&Ms).
      width: channels of the first block; None means C, or 64 if C is more, as in the paper's bottlenecks of 64. The
        parameters grow with its square: at 64 about four million, at 512 more than two hundred million. With few
        channels in few pixels LayerNorm leaves little: use a larger width there.
      kind: plain, denoising or variational.
      noise: of `denoising`: standard deviation of the noise as a fraction of the activations' own, which is taken per
        channel over batch and positions, because channels differ in scale. A channel that is constant gets none.
      dtype: of the computation; parameters, LayerNorm, latent and reconstruction are float32.

    Raises:
      ValueError: in every method: an impossible attribute, or an array of another shape.
    """

    shape: Sizes
    latent: int = 64
    width: int | None = None
    kind: Kind = "plain"
    noise: float = 0.1
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self._check_options()
        # none of these is the name of a network's layer, with which `capture.replace` would confuse it
        widths = [self._width * 2**i for i in range(_BLOCKS)]
        self.contract = [Contract(width, self.dtype) for width in widths]
        self.squeeze = Stage(self._width, kernel=1, dtype=self.dtype)
        self.to_latent = nn.Dense(self.latent, dtype=self.dtype)
        if self.kind == "variational":
            self.to_log_variance = nn.Dense(self.latent, dtype=self.dtype)
        self.from_latent = nn.Dense(math.prod(self._sizes[-1]) * self._width, dtype=self.dtype)
        self.unsqueeze = Stage(2 * widths[-1], kernel=1, dtype=self.dtype)
        self.expand = [Expand(width, size, self.dtype) for width, size in zip(widths, self._sizes[:-1], strict=True)]
        self.last = Conv(self.shape[-1], kernel=1, use_bias=True, dtype=self.dtype)

    def __call__(self, activations: jax.Array, train: bool = False) -> jax.Array:
        """The reconstruction, float32."""
        return self.reconstruct(activations, train)[0]

    def reconstruct(self, activations: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """The reconstruction, and `kl_divergence` `[B]` of the latent's Gaussian: 0 for the kinds that have none."""
        if self.kind != "variational":
            latent = self.encode(activations, train)
            return self.decode(latent), jnp.zeros(latent.shape[0], jnp.float32)
        mean, log_variance = self.encode_distribution(activations)
        latent = mean
        if train:
            latent += jnp.exp(log_variance / 2) * jax.random.normal(self.make_rng("noise"), mean.shape, jnp.float32)
        return self.decode(latent), kl_divergence(mean, log_variance)

    def encode(self, activations: jax.Array, train: bool = False) -> jax.Array:
        """The latent `[B, latent]`, float32: the mean of `variational`; in training, of noisy input in `denoising`."""
        self._check_activations(activations)
        if self.kind == "denoising" and train:
            activations = self._with_noise(activations)
        return self.to_latent(self._features(activations)).astype(jnp.float32)

    def encode_distribution(self, activations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and logarithm of the variance `[B, latent]`, float32, of the Gaussian that `variational` draws from."""
        if self.kind != "variational":
            raise ValueError(f"kind {self.kind!r} has no distribution; kind='variational' has one")
        self._check_activations(activations)
        x = self._features(activations)
        return self.to_latent(x).astype(jnp.float32), self.to_log_variance(x).astype(jnp.float32)

    def decode(self, latent: jax.Array) -> jax.Array:
        """The reconstruction `[B, *shape]`, float32, from the latent `[B, latent]`."""
        if latent.ndim != 2 or latent.shape[1] != self.latent:
            raise ValueError(f"the latent is {latent.shape}; the decoder takes [B, {self.latent}]")
        x = self.from_latent(latent).reshape(-1, *self._sizes[-1], self._width)
        x = self.unsqueeze(x)
        for block in reversed(self.expand):
            x = block(x)
        return self.last(x).astype(jnp.float32)

    @property
    def _width(self) -> int:
        return min(self.shape[-1], 64) if self.width is None else self.width

    @property
    def _sizes(self) -> list[Sizes]:
        """Spatial sizes before and after each down block."""
        sizes = [tuple(self.shape[:-1])]
        for _ in range(_BLOCKS):
            sizes.append(tuple((size + 1) // 2 for size in sizes[-1]))
        return sizes

    def _features(self, activations: jax.Array) -> jax.Array:
        x = activations
        for block in self.contract:
            x = block(x)
        x = self.squeeze(x)
        return x.reshape(x.shape[0], -1)

    def _with_noise(self, activations: jax.Array) -> jax.Array:
        x = activations.astype(jnp.float32)
        # without a gradient, which would be infinite where a channel is constant
        deviation = jax.lax.stop_gradient(jnp.std(x, tuple(range(x.ndim - 1))))
        drawn = jax.random.normal(self.make_rng("noise"), x.shape, jnp.float32)
        return x + self.noise * jnp.expand_dims(deviation, range(x.ndim - 1)) * drawn

    def _check_activations(self, activations: jax.Array) -> None:
        if activations.shape[1:] != tuple(self.shape):
            raise ValueError(
                f"the activations are {activations.shape}; the autoencoder is made for {('B', *self.shape)} and "
                "works for this size alone: crop or resize the images, or fit another one"
            )

    def _check_options(self) -> None:
        check_choice("kind", self.kind, KINDS)
        if len(self.shape) not in (3, 4) or min(self.shape) < 1:
            raise ValueError(f"shape is {self.shape}; give (h, w, C) or (d, h, w, C), all at least 1")
        if self.latent < 1 or self._width < 1:
            raise ValueError(f"latent is {self.latent} and width {self._width}; both must be at least 1")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise is {self.noise}; give a fraction of at least 0")
        if math.prod(self._sizes[-1]) * self._width == 1:
            raise ValueError(
                f"of {self.shape} with width {self._width} one value remains before the latent, and LayerNorm makes "
                "it 0; give a width above 1"
            )


def for_activations(activations: jax.Array, **options: Any) -> Autoencoder:
    """The autoencoder for activations `[B,h,w,C]` or `[B,d,h,w,C]`; a `jax.ShapeDtypeStruct` is enough.

    Args:
      activations: as `capture.capture` gives them.
      **options: the other attributes of `Autoencoder`.

    Raises:
      ValueError: the rank is neither 4 nor 5.
    """
    if len(activations.shape) not in (4, 5):
        raise ValueError(f"the activations are {activations.shape}; give [B,h,w,C] or [B,d,h,w,C]")
    return Autoencoder(tuple(activations.shape[1:]), **options)


def kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence `[B]` from the standard normal to a Gaussian of independent coordinates.

    0.5 sum(mean^2 + variance - log variance - 1), in nats (Kingma and Welling 2014, appendix B).

    Args:
      mean: `[B, latent]`.
      log_variance: `[B, latent]`.

    Raises:
      ValueError: the shapes differ.
    """
    if mean.shape != log_variance.shape:
        raise ValueError(f"mean {mean.shape} and log_variance {log_variance.shape} must have the same shape")
    # expm1, because exp(x) - 1 loses its digits where the variance is near 1
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.expm1(log_variance) - log_variance, -1)
