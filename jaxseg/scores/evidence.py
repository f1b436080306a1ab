"""What networks say of a batch of images, as scores ask for it: every part is computed once, and only if asked for."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.models.autoencoder import Autoencoder
from jaxseg.models.layers import mask_around, over_image
from jaxseg.networks import Network


@dataclasses.dataclass(frozen=True)
class Asked:
    """What networks are asked for; what is compiled belongs to it.

    Attributes:
      quality_layers: whose units are asked for the quality of the output (He et al. 2022, Eq. 12: the last two).
      bottleneck: whose activations the autoencoder takes.
      autoencoder: of these; None where there is none.
    """

    quality_layers: tuple[str, ...]
    bottleneck: str | None = None
    autoencoder: Autoencoder | None = None


class Known(NamedTuple):
    """Who is asked: arguments of a program, as with constants every network would be another one.

    Attributes:
      members: networks of any make; several are an ensemble.
      autoencoder: variables of the autoencoder.
      pooled, latent: what training cases look like at the bottleneck, pooled and as the autoencoder's latent vectors.
    """

    members: tuple[Network, ...]
    autoencoder: Any = None
    pooled: Any = None  # mahalanobis.Fitted, as the next
    latent: Any = None


class Evidence:
    """What networks say of B images, within a compiled program.

    Args:
      asked: for what.
      known: whom.
      images: float32 `[B,*n,C]`.
      valid: bool `[B,*n]`, the pixels that count; None: all. Scores are over these.
    """

    def __init__(self, asked: Asked, known: Known, images: jax.Array, *, valid: jax.Array | None = None) -> None:
        self.asked = asked
        self.known = known
        self.images = images
        self.valid = valid

    @functools.cached_property
    def passes(self) -> list[tuple[jax.Array, Mapping[str, jax.Array]]]:
        """Logits `[B,*n,K]` and activations of every member."""
        layers = dict.fromkeys((*self.asked.quality_layers, *filter(None, [self.asked.bottleneck])))
        return [network.captured(self.images, tuple(layers)) for network in self.known.members]

    @functools.cached_property
    def members(self) -> jax.Array:
        """Class probabilities `[M,B,*n,K]`, member by member."""
        return jax.nn.softmax(jnp.stack([logits.astype(jnp.float32) for logits, _ in self.passes]))

    @functools.cached_property
    def probabilities(self) -> jax.Array:
        """Mean over members, `[B,*n,K]`."""
        return jnp.mean(self.members, 0)

    @property
    def foreground(self) -> jax.Array:
        """Probability of any foreground, `[B,*n]`."""
        return 1.0 - self.probabilities[..., 0]

    @property
    def classes(self) -> jax.Array:
        """The likeliest class, int32 `[B,*n]`; of one member by its logits, whose softmax may round two to one."""
        scores = self.logits if len(self.known.members) == 1 else self.probabilities
        return jnp.argmax(scores, -1).astype(jnp.int32)

    def units(self, member: int) -> list[jax.Array]:
        """Activations of the quality layers over the image, without the margin that padding `valid` leaves."""
        activations = self.passes[member][1]
        return [over_image(activations[name], self.images.shape[1:-1]) for name in self.asked.quality_layers]

    @property
    def logits(self) -> jax.Array:
        """Of the first member, `[B,*n,K]`."""
        return self.passes[0][0]

    @property
    def activations(self) -> jax.Array:
        """At the bottleneck of the first member, `[B,*m,D]`."""
        assert self.asked.bottleneck is not None
        return self.passes[0][1][self.asked.bottleneck]

    @property
    def valid_around(self) -> jax.Array | None:
        """As `valid`, of what the bottleneck covers, which with padding `valid` is more than the image."""
        if self.valid is None:
            return None
        return mask_around(self.valid, self.activations.shape[1:-1], self.known.members[0].margin)

    @functools.cached_property
    def logits_after(self) -> jax.Array:
        """Of the first member with its bottleneck reconstructed by the autoencoder, `[B,*n,K]`."""
        assert self.asked.autoencoder is not None and self.asked.bottleneck is not None
        familiar: Any = self.asked.autoencoder.apply(self.known.autoencoder, self.activations)
        return self.known.members[0].replaced(self.images, {self.asked.bottleneck: familiar})

    @property
    def latent(self) -> jax.Array:
        """The autoencoder's latent vectors, `[B,L]`."""
        assert self.asked.autoencoder is not None
        made: Any = self.asked.autoencoder.apply(self.known.autoencoder, self.activations, method="encode")
        return made
