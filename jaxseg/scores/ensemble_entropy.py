"""Entropy of an ensemble's mean probabilities: its total uncertainty (Lakshminarayanan et al. 2017)."""

from jaxseg.analysis import uncertainty
from jaxseg.scores.base import ENSEMBLE, Score

SCORE = Score(
    "ensemble_entropy",
    "ensemble entropy",
    "entropy of a pixel's class probabilities, mean over pixels, of the ensemble's mean probabilities",
    lambda evidence: uncertainty.ensemble_entropy(evidence.members, valid=evidence.valid),
    frozenset({ENSEMBLE}),
)
