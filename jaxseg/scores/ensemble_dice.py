"""How much the members of an ensemble agree, by the Dice of every two of them (Roy et al. 2019)."""

import jax
import jax.numpy as jnp

from jaxseg.analysis import uncertainty
from jaxseg.scores.base import ENSEMBLE, Score
from jaxseg.scores.evidence import Evidence


def _compute(evidence: Evidence) -> jax.Array:
    classes = jnp.argmax(evidence.members, -1).astype(jnp.int32)
    return uncertainty.pairwise_dice(classes, num_classes=evidence.members.shape[-1], valid=evidence.valid)


SCORE = Score(
    "ensemble_dice",
    "ensemble Dice",
    "Dice of every two of the ensemble, mean",
    _compute,
    frozenset({ENSEMBLE}),
    high_is_good=True,
)
