"""Entropy of the class probabilities: how undecided the output is (Shannon 1948)."""

from jaxseg.analysis import uncertainty
from jaxseg.scores.base import Score

SCORE = Score(
    "entropy",
    "entropy",
    "entropy of a pixel's class probabilities, mean over pixels",
    lambda evidence: uncertainty.entropy(evidence.probabilities, valid=evidence.valid),
    flags="launch.predict --score=entropy flags them",
)
