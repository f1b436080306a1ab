"""Segmentation distortion: how an autoencoder of the activations changes the output (Lennartz, Schultz 2023, Eq. 4)."""

from jaxseg.analysis import distortion
from jaxseg.scores.base import AUTOENCODER, Score

SCORE = Score(
    "distortion",
    "SD",
    "segmentation distortion, how much the output changes when an autoencoder makes the bottleneck look familiar",
    lambda evidence: distortion.segmentation_distortion(evidence.logits, evidence.logits_after, valid=evidence.valid),
    frozenset({AUTOENCODER}),
    flags="launch.predict --score=distortion flags them, with an --autoencoder of configs/autoencoder.py",
)
