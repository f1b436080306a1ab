"""What all U-shaped networks share: the checks, input and output, and what `valid` padding means."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxseg.models.layers import PADDINGS, Padding, check_choice, crop, pad

Skips = tuple[jax.Array | None, ...]
# what XLA on CPU leaves to its library by default, except convolutions
_LIBRARY_OPERATIONS = tuple(f"LIBRARY_FUSION_TYPE_{kind}" for kind in ("DOT", "REDUCE", "INDIVIDUAL_DOT"))


class Roles(NamedTuple):
    """The layers of a network by role: names as `capture` knows them, input to output.

    Attributes:
      bottleneck: the layer whose activation `encode` returns; None where the network has none of its own.
      encoder: the blocks before it.
      decoder: the blocks after it, without the head.
      convolutions: the convolutional layers of all blocks, with their normalisation and nonlinearity.
    """

    bottleneck: str | None
    encoder: tuple[str, ...]
    decoder: tuple[str, ...]
    convolutions: tuple[str, ...]


def of_blocks(encoder: tuple[str, ...], bottleneck: str, decoder: tuple[str, ...]) -> Roles:
    """The roles in a network all of whose blocks have two convolutions."""
    blocks = (*encoder, bottleneck, *decoder)
    return Roles(bottleneck, encoder, decoder, tuple(f"{block}/conv_{i}" for block in blocks for i in range(2)))


class UNetSkeleton(nn.Module):
    """A network `images -> logits` that is `decode(*encode(images))`.

    `padding="valid"` means that nothing tells the network where the border is: the image is extended once by reflection
    (the overlap-tile strategy of Ronneberger et al. 2015), by `margin` pixels on every side, and the logits are those
    of the image. A network may then run without any padding, as `unet` does, or, as here, with zeros beyond the margin,
    which is at least as wide as its receptive field reaches: no logit of the image depends on a padded zero.

    A derived class has the fields `num_classes`, `padding`, `skips`, `remat` and `dtype`, and says how often it halves
    its input, how many skips it has, how far it reaches, and what its layers are.
    """

    num_classes: int
    padding: Padding = "zero"
    skips: tuple[bool, ...] | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Images `[B,H,W,C]` or `[B,D,H,W,C]` -> logits `[B,...,K]` float32."""
        bottleneck, skips = self.encode(images, train)
        return self.decode(bottleneck, skips, train)

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Skips]:
        """The bottleneck's activation and the skips, top level first, None where a skip is off."""
        raise NotImplementedError

    def decode(self, bottleneck: jax.Array, skips: Skips, train: bool = False) -> jax.Array:
        """The logits, float32, from what `encode` returned."""
        raise NotImplementedError

    @property
    def halvings(self) -> int:
        """How often the image is halved."""
        raise NotImplementedError

    @property
    def num_skips(self) -> int:
        """How many skips there are: one per halving, unless a network says otherwise."""
        return self.halvings

    @property
    def rank(self) -> int | None:
        """The number of spatial axes that its options are for; None where they are for any."""
        return None

    @nn.nowrap
    def units(self, rank: int) -> tuple[int, ...]:
        """What the size of an image must be a multiple of, along each of `rank` axes.

        Raises:
          ValueError: the network is for images of another rank.
        """
        return (2**self.halvings,) * rank

    @property
    def reach(self) -> int:
        """How many pixels away a logit can depend on the image, at most."""
        raise NotImplementedError

    @property
    def roles(self) -> Roles:
        """Its layers by role."""
        raise NotImplementedError

    @property
    def margin(self) -> int:
        """Pixels of reflection on every side of the image: 0 unless the padding is valid."""
        if self.padding != "valid":
            return 0
        unit = math.lcm(*self.units(self.rank or 2))
        return -(-self.reach // unit) * unit

    @property
    def inner_padding(self) -> Padding:
        """How the feature maps are padded."""
        return "zero" if self.padding == "valid" else self.padding

    @property
    def active_skips(self) -> tuple[bool, ...]:
        """One bool per skip, top level first."""
        return (True,) * self.num_skips if self.skips is None else self.skips

    @nn.nowrap
    def check(self) -> None:
        """Raises ValueError when an attribute cannot work; called by `build` and by `setup`."""
        raise NotImplementedError

    @nn.nowrap
    def check_options(self, **choices: tuple[Any, Sequence[Any]]) -> None:
        """Raises ValueError when an option cannot work; `choices` are further options with their known values."""
        check_choice("padding", self.padding, PADDINGS)
        for name, (value, known) in choices.items():
            check_choice(name, value, known)
        if self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}; the background counts, so it must be at least 2")
        if len(self.active_skips) != self.num_skips:
            raise ValueError(f"skips {self.skips} names {len(self.active_skips)} levels, there are {self.num_skips}")

    def block(self, kind: type[nn.Module]) -> Any:
        """The class of blocks `(x, train) -> x` that setup makes: `kind`, recomputed in the backward pass if asked.

        On CPU a gradient saves memory by it only when compiled with `compiler_options`.
        """
        return nn.remat(kind, static_argnums=(2,)) if self.remat else kind

    @nn.nowrap
    def check_features(self, features: tuple[int, ...]) -> None:
        """Raises ValueError unless `features` are channels per level."""
        if len(features) < 2 or not all(isinstance(width, int) and width > 0 for width in features):
            raise ValueError(f"features is {features}; give one width above 0 per level and one for the bottleneck")

    def check_skips(self, skips: Skips) -> None:
        """Raises ValueError when `skips` come from a network with other skips."""
        given = tuple(skip is not None for skip in skips)
        if given != self.active_skips:
            raise ValueError(f"decode was given skips {given}, the network was built with {self.active_skips}")

    def enter(self, images: jax.Array) -> jax.Array:
        """The images, checked, in the type of the computation and with their margin."""
        if images.ndim not in (4, 5):
            raise ValueError(f"images must be [B,H,W,C] or [B,D,H,W,C], got shape {images.shape}")
        sizes = images.shape[1:-1]
        units = self.units(len(sizes))
        if any(size % unit or not size for size, unit in zip(sizes, units, strict=True)):
            near = " x ".join(map(_next_sizes, sizes, units))
            unit = units[0] if len({*units}) == 1 else " x ".join(map(str, units))
            raise ValueError(
                f"{self.halvings} halvings need image sizes divisible by {unit}, got {' x '.join(map(str, sizes))}; "
                f"the next sizes are {near}"
            )
        x = images.astype(self.dtype)
        return pad(x, self.margin, "reflect") if self.margin else x

    def keep(self, features: list[jax.Array]) -> Skips:
        """The features of the skips that are on."""
        return tuple(x if on else None for x, on in zip(features, self.active_skips, strict=True))

    def leave(self, logits: jax.Array) -> jax.Array:
        """The logits of the image, without its margin, float32."""
        sizes = [size - 2 * self.margin for size in logits.shape[1:-1]]
        return (crop(logits, sizes) if self.margin else logits).astype(jnp.float32)


def compiler_options(module: UNetSkeleton) -> dict[str, str]:
    """What `jax.jit(..., compiler_options=...)` needs for a gradient through `module`; nothing but on CPU.

    XLA on CPU gives most float32 convolutions to a library that runs those with few channels on one core. Its own run
    on all: on two cores a training step of a U-Net takes 0.76 of the time with 16 features, 0.97 with 64.

    It also takes away the barriers that `remat` put around what is to be computed again, and then merges it with what
    was computed before: more work, and no memory saved. The second option keeps the barriers.
    """
    if jax.default_backend() != "cpu":
        return {}
    # experimental, so a later version may not know it, or not need it
    known = jax.__version_info__ < (0, 11)
    options = {"xla_cpu_experimental_ynn_fusion_type": ",".join(_LIBRARY_OPERATIONS)} if known else {}
    return options | ({"xla_disable_hlo_passes": "cse_barrier_expander"} if module.remat else {})


def _next_sizes(size: int, unit: int) -> str:
    if size % unit == 0 and size:
        return str(size)
    above = (size // unit + 1) * unit
    return str(above) if above == unit else f"{above - unit} or {above}"
