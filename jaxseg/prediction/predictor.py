"""A run's network for images of any size, and what its quality estimates are on its validation cases."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.data import inputs, pipeline
from jaxseg.errors import InputError
from jaxseg.prediction import quality, views
from jaxseg.prediction.network import Repair, Run, compiled
from jaxseg.scores import registry
from jaxseg.scores.base import AUTOENCODER
from jaxseg.training import runs
from jaxseg.training.contract import keep


class Prediction(NamedTuple):
    """Of one input.

    Attributes:
      labels: class numbers uint8 `[*S]`.
      probabilities: float32 `[*S,K]`, or None where they were not asked for.
      scores: name -> of the image, the mean over its tiles or slices, NaN where undefined; see `scores.registry`.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    scores: dict[str, float]


@dataclasses.dataclass(eq=False)
class Predictor:
    """A run's network for images of any size.

    Attributes:
      run: the network.
      tiling: how a window slides over images at their own scale; None: they are squashed as in training.
      repair: an autoencoder, for the score `distortion`.
      batch: slices of a volume at once.
    """

    run: Run
    tiling: views.Tiling | None = None
    repair: Repair | None = None
    batch: int = 8

    def __post_init__(self) -> None:
        if self.tiling is None:
            return
        try:
            views.check(self.tiling)
            side = (self.tiling.size,) * self.run.trained_on.rank
            tile = jax.ShapeDtypeStruct((1, *side, self.run.trained_on.num_channels), jnp.float32)
            jax.eval_shape(self.run.model.apply, self.run.members[0], tile)
        except ValueError as error:
            raise InputError(f"--tile: {error}") from error
        if self.repair and self.tiling.size != self.run.config.data.image_size:
            raise InputError(
                f"--tile_size={self.tiling.size}: the autoencoder is made for {self.run.config.data.image_size}; use "
                "tiles of this size, or no autoencoder"
            )

    @property
    def mode(self) -> str:
        """In words for a file's name: how images come to the network."""
        tiling = self.tiling
        return "squashed" if tiling is None else f"tiles{tiling.size}_{tiling.overlap:g}_{tiling.blend}"

    def predict(self, image: np.ndarray, size: Sequence[int], *, probabilities: bool = False) -> Prediction:
        """Predicts an image, or a volume: as a whole with a network for volumes, else slice by slice.

        Memory beyond the result: the probabilities, 4 K bytes per pixel, and while they are interpolated once more as
        much; of a volume that goes slice by slice, those of `batch` slices, with tiles of one; and what the network
        needs for one batch.

        Args:
          image: uint8 `[*S,C]`, at the size at which the data set stores its images, or for tiles at its own.
          size: spatial sizes of the result.
          probabilities: whether these are wanted too.
        """
        if image.ndim - 1 == self.run.trained_on.rank:
            return self._joined([self._at_once(image[None], size)], probabilities, single=True)
        step = self.batch if self.tiling is None else 1
        parts = (self._at_once(image[z : z + step], size[1:]) for z in range(0, len(image), step))
        return self._joined(parts, probabilities)

    def _at_once(self, images: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, views.Scores]:
        """Of a few images `[B,*S,C]`, whose scores are `[B]`."""
        if self.tiling is None:
            return views.squashed(self._network, images, source_size=self.run.config.data.source_size, size=size)
        (image,) = images
        result, scores = views.sliding(self._network, image, self.tiling)
        return result[None], {name: np.array([quality.mean_defined(values)]) for name, values in scores.items()}

    def _joined(
        self, parts: Iterable[tuple[np.ndarray, views.Scores]], probabilities: bool, *, single: bool = False
    ) -> Prediction:
        labels, kept, of_parts = [], [], []
        for part, scores in parts:
            labels.append(_likeliest(part))
            kept += [part] if probabilities else []
            of_parts.append(scores)
        join = lambda arrays: np.concatenate(arrays)[0] if single else np.concatenate(arrays)
        means = {name: quality.mean_defined(np.concatenate([one[name] for one in of_parts])) for name in of_parts[0]}
        return Prediction(join(labels), join(kept) if probabilities else None, means)

    @functools.cached_property
    def _network(self) -> views.Network:
        size = self.run.config.data.image_size if self.tiling is None else self.tiling.size
        batch = self.batch if self.tiling is None else self.tiling.batch
        return compiled(self.run.model, self.run.members, image_size=size, batch=batch, repair=self.repair)


def _likeliest(probabilities: np.ndarray) -> np.ndarray:
    """Class numbers uint8 `[B,*S]`, row by row: numpy makes eight bytes of each first."""
    labels = np.empty(probabilities.shape[:-1], np.uint8)
    for row in np.ndindex(*labels.shape[:2]):
        labels[row] = np.argmax(probabilities[row], -1)
    return labels


class Reference(NamedTuple):
    """Scores of the validation cases, with which those of new images are compared.

    Attributes:
      cases: name -> `[N]` of the cases as the data set stores them.
      volumes: name -> `[M]` of the volumes that the cases are slices of; the same as `cases` where they are none.
    """

    cases: dict[str, np.ndarray]
    volumes: dict[str, np.ndarray]


def reference(predictor: Predictor, prepare: Callable[[str], pathlib.Path]) -> Reference:
    """Scores of the run's validation cases, computed once for a checkpoint and kept in the run's folder.

    Of a cross-validation these are the cases of the fold that was held out.

    Args:
      predictor: whose scores are to be judged.
      prepare: name of a data set -> its prepared folder; called if need be.

    Raises:
      InputError: the data set is needed and not there.
    """
    run = predictor.run
    extra = f"_{predictor.repair.checksum}" if predictor.repair else ""
    path = run.folder / f"quality_step{'-'.join(map(str, run.steps))}_{predictor.mode}{extra}.json"
    try:
        stored = json.loads(path.read_bytes())
        cases, scores = stored["cases"], {name: _floats(values) for name, values in stored["scores"].items()}
        wanted = {score.key for score in registry.computable({AUTOENCODER} if predictor.repair else ())}
        if not cases or any(len(values) != len(cases) for values in scores.values()) or not wanted <= set(scores):
            raise ValueError("lengths differ, or an earlier version lacks a score")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged
        cases, scores = _validation_scores(predictor, prepare(run.config.data.dataset))
        plain = {
            name: [None if math.isnan(value) else value for value in values.tolist()] for name, values in scores.items()
        }
        keep(path, {"cases": cases, "scores": plain})
    slices = run.trained_on.preparation.volumes and run.trained_on.rank == 2
    return Reference(scores, quality.by_volume(cases, scores) if slices else scores)


def _validation_scores(predictor: Predictor, directory: pathlib.Path) -> tuple[list[str], dict[str, np.ndarray]]:
    names, of_cases = [], []
    for case in _validation_cases(predictor, directory):
        names.append(case["case"])
        of_cases.append(predictor.predict(case["image"], case["labels"].shape).scores)
    return names, {name: np.array([scores[name] for scores in of_cases]) for name in of_cases[0]}


def _validation_cases(predictor: Predictor, directory: pathlib.Path) -> Any:
    config = predictor.run.config
    if config.data.folds:
        splits = runs.Splits(directory, inputs.of_config(config), config.data.domains)
        held_out = runs.Data(config, splits).member(config).validation
        return [held_out.source[int(i)] for i in held_out.index]
    # as they are stored: with tiles, at their own scale
    return pipeline.Split(directory, "validation", domains=tuple(config.data.domains))


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], float)
