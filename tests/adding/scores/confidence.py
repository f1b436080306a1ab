"""Confidence: the probability of the likeliest class, mean over pixels. A score, as ARCHITECTURE.md says."""

import jax.numpy as jnp

from jaxseg.scores.base import Score

SCORE = Score(
    "confidence",
    "confidence",
    "probability of the likeliest class, mean over pixels",
    lambda evidence: jnp.mean(jnp.max(evidence.probabilities, -1), (1, 2)),
    high_is_good=True,
    flags="launch.predict --score=confidence flags them",
)
