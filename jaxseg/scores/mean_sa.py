"""Mean segmentation ability of the units against the network's own output (He et al. 2022, Eq. 12 and section 4.6)."""

import jax
import jax.numpy as jnp

from jaxseg.analysis import prototypes
from jaxseg.scores.base import LAYERS, Score
from jaxseg.scores.evidence import Evidence


def _compute(evidence: Evidence) -> jax.Array:
    """Of an ensemble, the mean over its members, each by its own units and the ensemble's output."""
    mask, members = evidence.foreground, range(len(evidence.known.members))
    score = lambda member: prototypes.mean_sa_score(evidence.units(member), mask, region=evidence.valid)
    return jnp.mean(jnp.stack([score(member) for member in members]), 0)


SCORE = Score(
    "mean_sa",
    "mean SA",
    "mean segmentation ability, how well single units of the last two layers separate what is segmented",
    _compute,
    frozenset({LAYERS}),
    high_is_good=True,
    flags="launch.predict flags them",
)
