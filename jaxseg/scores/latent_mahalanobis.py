"""How far the autoencoder's latent vector lies from those of training cases (Lennartz and Schultz 2023, section 3)."""

from jaxseg.analysis import mahalanobis
from jaxseg.scores.base import AUTOENCODER, BOTTLENECK, Score

SCORE = Score(
    "latent_mahalanobis",
    "LM",
    "squared Mahalanobis distance of the autoencoder's latent vector",
    lambda evidence: mahalanobis.distance(evidence.known.latent, evidence.latent),
    frozenset({AUTOENCODER, BOTTLENECK}),
)
