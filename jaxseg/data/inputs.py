"""What a network is given of a stored case: its geometry and its intensities, by a run's config."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from jaxseg import options, settings
from jaxseg.data import grids, normalisation, raw_cases
from jaxseg.data.augmentation.settings import Augmentation
from jaxseg.data.grids import Fitted, Grid
from jaxseg.data.normalisation import Normalisation, Statistics
from jaxseg.errors import InputError


class Inputs(NamedTuple):
    """What becomes of a stored case on its way to a network; by default nothing.

    Attributes:
      grid: its geometry.
      normalisation: its intensities.
    """

    grid: Grid = Grid()
    normalisation: Normalisation = Normalisation()

    def __call__(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        spacing: np.ndarray,
        *,
        scaling: tuple[str, float, float] | None,
        known: Statistics | None,
    ) -> Fitted:
        """A case as the network is given it.

        Args:
          image: as stored, `[*S,C]`.
          labels: as stored, `[*S]`.
          spacing: mm, `[rank]`.
          scaling: of the data set.
          known: of the file.

        Raises:
          grids.Misfit: the case does not go with the geometry.
        """
        normalised = self.normalisation(image, scaling=scaling, known=known)
        return self.grid.fit(normalised, labels, spacing, fill=self.normalisation.fill)


STORED = Inputs()


def gray_levels(size: int | tuple[int, ...] | None) -> Inputs:
    """Gray levels 0 to 255, squashed to `size` pixels a side or these sides, or on the grid on which they are stored.

    Raises:
      InputError: the size is below 1.
    """
    if size is not None and np.min(size) < 1:
        raise InputError(f"size is {size}; cases need at least one pixel a side")
    return Inputs(grids.Grid() if size is None else grids.Squash(size), normalisation.Range())


def of_config(config: ml_collections.ConfigDict) -> Inputs:
    """What the network of a run is given, by the section `data` of its config.

    Cases that are squashed are read at `source_size`, and resized to `image_size` on the device; the other geometries
    have `image_size` from the start.

    Raises:
      InputError: a geometry, a normalisation or one of their options cannot be.
    """
    data = config.data
    side = data.source_size if data.geometry == "squash" else data.image_size
    grid = _chosen(config, "geometry", grids.GEOMETRIES, side=side)
    for name in ("spacing", "size", "multiple"):
        if not all(0 < value < math.inf for value in getattr(grid, name, ())):
            raise InputError(f"config.data.geometry_options.{name} is {getattr(grid, name)}; give numbers above 0")
    if isinstance(grid, grids.Keep) and grid.size and grid.multiple:
        raise InputError("config.data.geometry_options has a size and a multiple; give one of them")
    if isinstance(grid, grids.Keep) and grid.whole and (grid.spacing or grid.multiple):
        other = "spacing" if grid.spacing else "multiple"
        raise InputError(f"config.data.geometry_options has whole and a {other}; give one of them")
    how = _chosen(config, "normalisation", normalisation.NORMALISATIONS)
    if isinstance(how, normalisation.Percentiles) and how.low >= how.high:
        raise InputError(
            f"config.data.normalisation_options.low is {how.low:g}, high {how.high:g}; give the lower first"
        )
    if isinstance(how, normalisation.MeanStd):
        _check_numbers(how)
    return Inputs(grid, how)


def _check_numbers(how: normalisation.MeanStd) -> None:
    where = "config.data.normalisation_options"
    if len(how.mean) != len(how.std):
        raise InputError(f"{where}: give as many numbers for mean as for std, or none")
    if not all(0 < value < math.inf for value in how.std) or not all(map(math.isfinite, how.mean)):
        raise InputError(f"{where}: mean is {how.mean}, std {how.std}; give finite numbers, std above 0")
    if how.clip and not (len(how.clip) == 2 and how.clip[0] < how.clip[1]):
        raise InputError(f"{where}.clip is {how.clip}; give two ends, the lower first, or none")


def resolved(
    config: ml_collections.ConfigDict, training_cases: Iterable[tuple[np.ndarray, np.ndarray]]
) -> ml_collections.ConfigDict:
    """The config with the numbers of `mean_std`, where it has none: those of the foreground of the training cases.

    Args:
      config: of a run.
      training_cases: image and labels of each, as stored; read if need be. As for nnU-Net's, these are all that are
        for training, whichever fold is held out.

    Raises:
      InputError: no training case has foreground, or one of mean and std is given alone.
    """
    if config.data.normalisation != "mean_std" or config.data.normalisation_options.mean:
        return config
    how = of_config(config).normalisation
    assert isinstance(how, normalisation.MeanStd)
    try:
        found = normalisation.foreground(training_cases, ignored=raw_cases.IGNORED, clip=how.clip)
    except ValueError as error:
        raise InputError(f"{config.data.dataset}: {error}, so config.data.normalisation needs numbers") from error
    made = config.copy_and_resolve_references().unlock()
    made.data.normalisation_options.update(found)
    return made.lock()


def sides(config: ml_collections.ConfigDict, rank: int) -> tuple[int, ...]:
    """Spatial sizes of what the network of a run is built for; it may take others too, where cases keep theirs.

    Raises:
      InputError: sizes are given for another number of axes.
    """
    if config.data.geometry == "squash":
        return (config.data.image_size,) * rank
    try:
        return of_config(config).grid.example(rank)
    except grids.Misfit as error:
        raise InputError(f"config.data.geometry_options: {config.data.dataset} {error}") from error


def check_study(config: ml_collections.ConfigDict, *, changes_levels: bool) -> None:
    """Whether a study can be of such a run; an audit can be of any.

    Args:
      config: of the run.
      changes_levels: the study changes the gray levels of images before a network is given them.

    Raises:
      InputError: cases do not all come as squares, or not as the gray levels that are changed.
    """
    data, grid = config.data, of_config(config).grid
    if not grid.one_size or (isinstance(grid, grids.Keep) and grid.size):
        raise InputError(
            f"config.data.geometry is {data.geometry!r} with several sizes, or with sides that differ; studies take "
            "squares: use 'squash', or 'keep' with image_size alone"
        )
    if changes_levels and data.normalisation != "range":
        raise InputError(
            f"config.data.normalisation is {data.normalisation!r}; this study changes gray levels: use 'range'"
        )


def completed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The section `data` of a run's stored config; what earlier versions did not ask is as they did it."""
    squash: dict[str, Any] = {"geometry": "squash", "geometry_options": _defaults(grids.GEOMETRIES)}
    levels = {"normalisation": "range", "normalisation_options": _defaults(normalisation.NORMALISATIONS)}
    augmentation = json.loads(json.dumps(Augmentation()._asdict()))  # tuples as lists
    made = squash | levels | dict(data)
    return made | {"augmentation": augmentation | made["augmentation"]} if "augmentation" in made else made


def _defaults(known: Mapping[str, Any]) -> dict[str, Any]:
    """The options of all choices by name."""
    fields = [field for choice in known.values() for field in dataclasses.fields(choice) if field.init]
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


def resized_to(config: ml_collections.ConfigDict) -> int | None:
    """To how many pixels a side cases are resized on the device; None: they come as the network takes them."""
    return config.data.image_size if config.data.geometry == "squash" else None


def _chosen(config: ml_collections.ConfigDict, name: str, known: Mapping[str, Any], **made: Any) -> Any:
    """What a field of `data` names, with its options."""
    choice, section = config.data[name], f"data.{name}_options"
    if not isinstance(config.data[f"{name}_options"], ml_collections.ConfigDict):
        raise InputError(f"config.{section} must be a section; configs/train.py shows it")
    options.chosen(f"data.{name}", known, choice, config.data[f"{name}_options"])
    return settings.read(known[choice], config, section, shown_in="configs/train.py", **made)
