"""What the border-shortcut study needs of its config, which is checked here."""

import dataclasses

import ml_collections

from jaxseg.data import augment
from jaxseg.errors import InputError
from jaxseg.models.layers import PADDINGS
from jaxseg.settings import count, some_of
from jaxseg.studies.base import changed, read_settings
from jaxseg.training import checks

NAMES = {"original": "M_ori", "quadrant": "M_crop"}  # of networks, by the view that they are trained on
Run = tuple[str, str]  # padding, training view


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Sizes in pixels of the grid, and how many of what is sampled; see configs/border_shortcut.py."""

    grid: int = count()
    band_width: int = count()
    border_width: int = count()
    windows_per_side: int = count(least=2)  # fewer cannot be compared
    window_images: int = count()
    position_folds: int = count(least=2)
    feature_pixels: int = count()
    examples: int = count()
    resamples: int = count()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks are trained, and how they are tested."""

    evaluation: Evaluation
    run: ml_collections.ConfigDict  # config of a training run, whatever its padding and view
    paddings: tuple[str, ...] = some_of(*PADDINGS)  # padding modes; the first is that of the answer
    views: tuple[str, ...] = some_of(*augment.VIEWS, every=True)  # that networks are trained on
    seed: int = count(least=0)

    @property
    def padding(self) -> str:
        """Of the answer."""
        return self.paddings[0]

    @property
    def networks(self) -> tuple[Run, ...]:
        """All networks, by the runs that train them."""
        return tuple((padding, view) for padding in self.paddings for view in self.views)

    def of_run(self, run: Run) -> ml_collections.ConfigDict:
        """The config of one training run."""
        return changed(self.run, {"model.padding": run[0], "data.view": run[1]})


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    made = read_settings(Settings, config, changes_levels=False)
    evaluation, size = made.evaluation, made.run.data.image_size
    for one in made.networks:
        checks.check(made.of_run(one))
    if evaluation.grid % size:
        raise InputError(
            f"config.evaluation.grid is {evaluation.grid}; it must be a multiple of config.data.image_size ({size})"
        )
    if not evaluation.band_width <= evaluation.border_width < evaluation.grid // 2:
        raise InputError(
            f"config.evaluation.band_width {evaluation.band_width} and border_width {evaluation.border_width} must "
            f"rise and stay below half the grid ({evaluation.grid // 2})"
        )
    return made
