"""How far the autoencoder's latent vector lies from those of training cases (Lennartz and Schultz 2023, section 3).

Pixels that do not count are in it too: an encoder reads all activations at once, and was fitted to them as they are.
"""

from jaxseg.analysis import mahalanobis
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK, Score

SCORE = Score(
    "latent_mahalanobis",
    "LM",
    "squared Mahalanobis distance of the autoencoder's latent vector from training cases",
    lambda evidence: mahalanobis.distance(evidence.known.latent, evidence.latent),
    frozenset({AUTOENCODER, BOTTLENECK}),
)
