"""Confidence: the probability of the likeliest class, mean over pixels. A score, as ARCHITECTURE.md says."""

from jaxseg.analysis import uncertainty
from jaxseg.scores.base import Score

SCORE = Score(
    "confidence",
    "confidence",
    "probability of the likeliest class, mean over pixels",
    lambda evidence: uncertainty.maximum_probability(evidence.probabilities, valid=evidence.valid),
    high_is_good=True,
    flags="launch.predict --score=confidence flags them",
)
