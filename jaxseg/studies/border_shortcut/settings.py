"""What the border-shortcut study needs of its config, which is checked here."""

import dataclasses
from typing import NamedTuple

import ml_collections

from jaxseg import models
from jaxseg.data import augment
from jaxseg.errors import InputError
from jaxseg.models.layers import PADDINGS
from jaxseg.models.vit import POSITIONS
from jaxseg.settings import count, read, some_of
from jaxseg.studies.base import changed, read_settings
from jaxseg.training import checks

NAMES = {"original": "M_ori", "quadrant": "M_crop"}  # of networks, by the view that they are trained on
UNET, VIT = "unet", "vit"
WITHOUT = "none"  # no positions
_TITLES = {UNET: "U-Net", VIT: "ViT"}


class Arm(NamedTuple):
    """An architecture with its padding and, where its tokens have them, positions; trained on both views."""

    network: str
    padding: str
    position: str = ""

    def __str__(self) -> str:
        """In names of folders."""
        return "_".join(filter(None, (self.network, self.position, self.padding)))

    @property
    def label(self) -> str:
        """In words, as tables and pages have it."""
        positions = f"{'no' if self.position == WITHOUT else self.position} positions" if self.position else ""
        return ", ".join(filter(None, (_TITLES[self.network], positions, f"{self.padding} padding")))


class Run(NamedTuple):
    """A training run."""

    arm: Arm
    view: str


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
class Factors:
    """What networks differ in."""

    networks: tuple[str, ...] = some_of(UNET, VIT)
    paddings: tuple[str, ...] = some_of(*PADDINGS)
    positions: tuple[str, ...] = some_of(*POSITIONS)  # of a transformer

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All combinations."""
        positions = {UNET: ("",), VIT: self.positions}
        return tuple(
            Arm(network, padding, position)
            for network in self.networks
            for padding in self.paddings
            for position in positions[network]
        )


@dataclasses.dataclass(frozen=True)
class Transformer:
    """The options of `ViT` that are no factors."""

    patch: int = count()
    width: int = count()
    depth: int = count()
    heads: int = count()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks are trained, and how they are tested."""

    evaluation: Evaluation
    run: ml_collections.ConfigDict  # config of a training run of the U-Net, whatever its padding and view
    arms: tuple[Arm, ...]
    vit: Transformer
    views: tuple[str, ...] = some_of(*augment.VIEWS, every=True)  # that networks are trained on
    seed: int = count(least=0)

    @property
    def first(self) -> Arm:
        """That of the answer."""
        return self.arms[0]

    @property
    def networks(self) -> tuple[Run, ...]:
        """All networks, by the runs that train them."""
        return tuple(Run(arm, view) for arm in self.arms for view in self.views)

    def of_run(self, run: Run) -> ml_collections.ConfigDict:
        """The config of one training run."""
        made = changed(self.run, {"model.padding": run.arm.padding, "data.view": run.view})
        if run.arm.network == UNET:
            return made
        common = {name: made.model[name] for name in ("padding", "remat", "dtype")}
        options = dataclasses.asdict(self.vit) | {"position": run.arm.position, "pretrained": None}
        return ml_collections.ConfigDict(made.to_dict() | {"model": {"name": VIT} | common | options}).lock()

    def reference(self, arm: Arm) -> Arm | None:
        """With what the gap of an arm is compared; None: it is what others are compared with."""
        alike = arm._replace(position=WITHOUT)
        found = alike if arm.position not in ("", WITHOUT) and alike in self.arms else self.first
        return None if found == arm else found


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    factors = read(Factors, config, shown_in="configs/border_shortcut.py")
    made = read_settings(Settings, config, changes_levels=False, arms=factors.arms)
    evaluation, size = made.evaluation, made.run.data.image_size
    _check_models(made)
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


def _check_models(made: Settings) -> None:
    if made.run.model.name != UNET:
        raise InputError(
            f"config.model.name is {made.run.model.name!r}; config.model is that of {UNET}, config.networks lists what "
            "is trained"
        )
    for arm in (arm for arm in made.arms if arm.network == VIT):
        try:
            models.build(VIT, 2, padding=arm.padding, position=arm.position, **dataclasses.asdict(made.vit))
        except ValueError as error:
            raise InputError(f"config.vit with config.paddings: {error}") from error
