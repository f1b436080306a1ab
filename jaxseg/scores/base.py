"""What a quality score is: a number per case, computed without annotation, that may predict the case's error.

Every file beside this one that has a `SCORE` is a score (`registry`); studies, audits and predictions ask for it by its
key, and compute it where they have what it needs.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from jaxseg.scores.evidence import Evidence

LAYERS = "layers"  # whose activations can be asked for
AUTOENCODER = "autoencoder"  # of the bottleneck's activations
BOTTLENECK = "bottleneck"  # activations of training cases at the bottleneck, pooled or as latent vectors
ENSEMBLE = "ensemble"  # several networks
CHECKPOINTS = "checkpoints"  # of the course of a training; such a score is computed in `vog`, not of a forward pass


@dataclasses.dataclass(frozen=True)
class Score:
    """A quality score.

    Attributes:
      key: of its values where they are stored.
      name: short, as in tables and figures.
      meaning: in words, with the source.
      compute: of what networks say of B images, `[B]`, over the pixels that count (`evidence.valid`); NaN where
        undefined.
      needs: of a network and its training cases, beside the images.
      high_is_good: whether a high score predicts a good segmentation.
      flags: how `launch.predict` is told to flag cases by it; empty where it cannot.
    """

    key: str
    name: str
    meaning: str
    compute: Callable[[Evidence], jax.Array] | None
    needs: frozenset[str] = frozenset()
    high_is_good: bool = False
    flags: str = ""

    def risk(self, values: np.ndarray) -> np.ndarray:
        """The values so that higher means worse."""
        return 1.0 - values if self.high_is_good else values

    @property
    def risk_meaning(self) -> str:
        """What `risk` is, in words."""
        return f"1 - {self.meaning}" if self.high_is_good else self.meaning
