"""How far activations lie from those of training cases, pooled over the image (Lennartz, Schultz 2023, section 3)."""

from jaxseg.analysis import mahalanobis
from jaxseg.scores.base import BOTTLENECK, Score

SCORE = Score(
    "mahalanobis",
    "PM",
    "squared Mahalanobis distance of the bottleneck's activations, pooled over the image, from training cases",
    lambda evidence: mahalanobis.distance(evidence.known.pooled, evidence.activations, valid=evidence.valid_around),
    frozenset({BOTTLENECK}),
)
