"""A trained network for images of any size, and what its quality estimates are on its validation cases."""

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

from jaxseg.data import formats, pipeline, windows
from jaxseg.data.grids import Grid, Misfit, Patches, Placement
from jaxseg.data.inputs import Inputs
from jaxseg.errors import InputError
from jaxseg.prediction import quality
from jaxseg.prediction.network import Repair, compiled, scores_of
from jaxseg.scores.base import Score
from jaxseg.training import runs
from jaxseg.training.contract import keep
from jaxseg.training.trained import Trained


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
    """A trained network for images of any size.

    Attributes:
      trained: the network.
      tiling: how a window slides over images at their own scale; None: they come as in training.
      repair: an autoencoder, for the score `distortion`.
      batch: slices of a volume at once.
    """

    trained: Trained
    tiling: windows.Tiling | None = None
    repair: Repair | None = None
    batch: int = 8

    def __post_init__(self) -> None:
        if self.tiling is None:
            return
        try:
            windows.check(self.tiling)
            sides = self.tiling.sides(self.trained.trained_on.rank)
            tile = jax.ShapeDtypeStruct((1, *sides, self.trained.trained_on.num_channels), jnp.float32)
            jax.eval_shape(lambda network, tile: network.logits(tile), self.trained.members[0], tile)
        except ValueError as error:
            raise InputError(f"--tile: {error}") from error
        if self.repair and sides != (seen := self.trained.members[0].sides):
            raise InputError(
                f"--tile_size={self.tiling.size}: the autoencoder is made for {seen[0]}; use tiles of this size, or no "
                "autoencoder"
            )

    @property
    def mode(self) -> str:
        """In words for a file's name: how images come to the network."""
        tiling, grid = self.tiling, self.trained.given.grid
        if tiling is None:
            return "squashed" if self.trained.squashes else type(grid).__name__.lower()
        return f"tiles{tiling.size}_{tiling.overlap:g}_{tiling.blend}"

    @functools.cached_property
    def inputs(self) -> Inputs:
        """What becomes of an image on its way to the network; with tiles, its intensities alone."""
        given = self.trained.given
        return given if self.tiling is None else given._replace(grid=Grid())

    @property
    def scores(self) -> tuple[Score, ...]:
        """What is computed of an image beside its mask."""
        return scores_of(self.trained.members, repair=self.repair)

    @functools.cached_property
    def _window(self) -> windows.Tiling | None:
        """How a window slides: as was asked for, or as over the cases of a network that was trained on patches."""
        grid = self.inputs.grid
        if self.tiling is None and isinstance(grid, Patches):
            return windows.Tiling(grid.example(self.trained.trained_on.rank), grid.overlap)
        return self.tiling

    def predict(
        self,
        image: np.ndarray,
        size: Sequence[int],
        *,
        spacing: Sequence[float] | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Predicts an image, or a volume: as a whole with a network for volumes, else slice by slice.

        Memory beyond the result: the probabilities, 4 K bytes per pixel, and while they are interpolated once more as
        much; of a volume that goes slice by slice, those of `batch` slices, with tiles of one; and what the network
        needs for one batch.

        Args:
          image: `[*S,C]`, normalised, at the size at which the data set stores its images, or for tiles at its own.
          size: spatial sizes of the result.
          spacing: mm along its axes; None where unknown.
          probabilities: whether these are wanted too.

        Raises:
          Unusable: the image does not go with the network's geometry.
        """
        rank = self.trained.trained_on.rank
        steps = (math.nan,) * rank if spacing is None else tuple(spacing)[-rank:]
        try:
            placement = self.inputs.grid.placement(image.shape[-rank - 1 : -1], steps)
        except Misfit as error:
            raise formats.Unusable(str(error)) from error
        if image.ndim - 1 == rank:
            return self._joined([self._at_once(image[None], placement, size)], probabilities, single=True)
        step = self.batch if self._window is None else 1
        parts = (self._at_once(image[z : z + step], placement, size[1:]) for z in range(0, len(image), step))
        return self._joined(parts, probabilities)

    def _at_once(
        self, images: np.ndarray, placement: Placement, size: Sequence[int]
    ) -> tuple[np.ndarray, windows.Scores]:
        """Of a few images `[B,*S,C]`, whose scores are `[B]`."""
        network = self._network if self._window is None else self._slid
        return windows.on_grid(network, images, placement, fill=self.inputs.normalisation.fill, size=size)

    def _slid(self, images: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, windows.Scores]:
        """A window slides over the one image; its scores are means over the tiles."""
        assert self._window is not None
        (image,) = images
        result, scores = windows.sliding(self._network, image, self._window, valid=None if valid is None else valid[0])
        return result[None], {name: np.array([quality.mean_defined(values)]) for name, values in scores.items()}

    def _joined(
        self, parts: Iterable[tuple[np.ndarray, windows.Scores]], probabilities: bool, *, single: bool = False
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
    def _network(self) -> windows.Network:
        size = self.trained.resized if self._window is None else None
        batch = self.batch if self._window is None else self._window.batch
        return compiled(self.trained.members, image_size=size, batch=batch, repair=self.repair)


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


def reference(predictor: Predictor, prepare: Callable[[str], pathlib.Path]) -> Reference | None:
    """Scores of validation cases; of a run computed once for a checkpoint, and kept in its folder.

    Of a cross-validation these are the cases of the fold that was held out.

    Args:
      predictor: whose scores are to be judged.
      prepare: name of a data set -> its prepared folder; called if need be.

    Returns:
      None where no data set is known with cases like those of the network's training, or it has none for validation.

    Raises:
      InputError: the data set of a run is needed and not there.
    """
    trained = predictor.trained
    if trained.dataset is None:
        return None
    if len(trained.members) > 1 and trained.config is not None and trained.config.vary == "fold":
        raise InputError(
            f"{trained.name}: its replicas share no validation cases; name one, as {trained.name}/replica_0"
        )
    if trained.folder is None:
        directory = prepare(trained.dataset)
        there = "validation" in pipeline.split_sizes(directory)
        return _of_cases(trained, *_validation_scores(predictor, directory)) if there else None
    extra = f"_{predictor.repair.checksum}" if predictor.repair else ""
    path = trained.folder / f"quality_step{'-'.join(map(str, trained.steps))}_{predictor.mode}{extra}.json"
    try:
        stored = json.loads(path.read_bytes())
        cases, scores = stored["cases"], {name: _floats(values) for name, values in stored["scores"].items()}
        wanted = {score.key for score in predictor.scores}
        if not cases or any(len(values) != len(cases) for values in scores.values()) or not wanted <= set(scores):
            raise ValueError("lengths differ, or an earlier version lacks a score")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged
        cases, scores = _validation_scores(predictor, prepare(trained.dataset))
        plain = {
            name: [None if math.isnan(value) else value for value in values.tolist()] for name, values in scores.items()
        }
        keep(path, {"cases": cases, "scores": plain})
    return _of_cases(trained, cases, scores)


def _of_cases(trained: Trained, cases: Sequence[str], scores: dict[str, np.ndarray]) -> Reference:
    slices = trained.trained_on.preparation.volumes and trained.trained_on.rank == 2
    return Reference(scores, quality.by_volume(cases, scores) if slices else scores)


def _validation_scores(predictor: Predictor, directory: pathlib.Path) -> tuple[list[str], dict[str, np.ndarray]]:
    names, of_cases = [], []
    for case in _validation_cases(predictor, directory):
        names.append(case["case"])
        of_cases.append(predictor.predict(case["image"], case["labels"].shape, spacing=case["spacing"]).scores)
    return names, {name: np.array([scores[name] for scores in of_cases]) for name in of_cases[0]}


def _validation_cases(predictor: Predictor, directory: pathlib.Path) -> Any:
    trained = predictor.trained
    config = trained.config if trained.folder is not None else None  # else it is of no data set that is here
    domains = () if config is None else tuple(config.data.domains)
    # on the grid on which they are stored: with tiles, at their own scale
    stored = Inputs(normalisation=trained.given.normalisation)
    read = lambda split: pipeline.Split(directory, split, inputs=stored, domains=domains)
    if config is None or not config.data.folds:
        return read("validation")
    splits = runs.Splits(directory, trained.given, domains)
    held_out = runs.Data(config, splits).member(config).validation
    train, validation = read("train"), read("validation")  # the pool of folds, in this order
    return [train[i] if i < len(train) else validation[i - len(train)] for i in held_out.index.tolist()]


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], float)
