"""Do features know where the border is? (Lin, Weng et al. 2024, Fig. 5.)

How well a regression predicts a pixel's distance from the border from the features of each layer (`analysis.position`),
and the last layer's features in the plane of their two largest principal components, where pixels near the border
separate if padding marks them.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis import cells, position, projection
from jaxseg.data import augment, pipeline
from jaxseg.models import capture
from jaxseg.models.layers import mask_around
from jaxseg.models.skeleton import UNetSkeleton
from jaxseg.studies.border_shortcut.settings import Settings


def measure(settings: Settings, model: nn.Module, variables: Any, test: pipeline.InMemory) -> dict[str, np.ndarray]:
    """Whole test images through a network.

    Returns:
      `position`: `[L]` R^2 of the distance from the border, cross-validated over patients, of all layers that `roles`
      calls convolutions;
      `projection`: `[P,2]` the largest principal components of the last layer's features at pixels sampled from all
      test images; `projection_distance`: `[P]` their distances from the border, 1 in the middle; `projection_share`:
      `[2]` of the variance.
    """
    assert isinstance(model, UNetSkeleton)  # which says what its layers are
    evaluation, layers = settings.evaluation, model.roles.convolutions
    folds = np.unique(test.patients, return_inverse=True)[1].astype(np.int32) % evaluation.position_folds
    view = augment.testing_view("original", size=settings.run.data.image_size, cases=test.cases)

    @jax.jit
    def run(variables: Any, batch: Any) -> tuple[dict[str, jax.Array], dict[str, jax.Array | None]]:
        """Features, and which pixels count of what each layer covers."""
        seen = view(batch)
        features = capture.capture(model, variables, seen["images"], layers)[1]
        around = lambda array: mask_around(seen["valid"], array.shape[1:-1], model.margin) if "valid" in seen else None
        return features, {layer: around(features[layer]) for layer in layers}

    @jax.jit
    def add(states: Any, features: dict[str, jax.Array], fold: jax.Array, valid: dict[str, jax.Array | None]) -> Any:
        wide = {layer: features[layer].astype(jnp.float32) for layer in layers}
        return {layer: position.update(states[layer], wide[layer], fold, valid=valid[layer]) for layer in layers}

    states: Any = None
    sampled, distances = [], []
    random = np.random.default_rng(settings.seed)
    each = -(-evaluation.feature_pixels // len(test))
    for batch in pipeline.epoch(test, batch_size=settings.run.training.batch_size):
        features, valid = run(variables, batch)
        if states is None:
            states = {name: position.init(features[name].shape[-1], folds=evaluation.position_folds) for name in layers}
        # an index that is no fold's leaves the repetitions out
        fold = np.where(batch["real"], folds[batch["index"]], evaluation.position_folds)
        states = add(states, features, fold, valid)
        last = np.asarray(features[layers[-1]], np.float32)[batch["real"]]
        distance = position.border_distance(last.shape[1:-1]).ravel()
        counts = _counted(valid[layers[-1]], last.shape[1:-1], batch["real"])
        for image, where in zip(last.reshape(len(last), -1, last.shape[-1]), counts, strict=True):
            chosen = where[random.choice(len(where), min(each, len(where)), replace=False)]
            sampled.append(image[chosen])
            distances.append(distance[chosen])
    plane, share = projection.principal_components(np.concatenate(sampled))
    return {
        "position": np.array([float(_score(states[layer])) for layer in layers], np.float32),
        "projection": plane,
        "projection_distance": np.concatenate(distances),
        "projection_share": share,
    }


_score = jax.jit(position.compute)  # layers of as many channels share a program


def _counted(valid: jax.Array | None, sizes: Sequence[int], real: np.ndarray) -> list[np.ndarray]:
    """Per image the numbers of the pixels of a layer that count."""
    if valid is None:
        return [np.arange(math.prod(sizes))] * int(np.sum(real))
    return [np.flatnonzero(one) for one in np.asarray(cells.counted(valid, sizes))[real]]
