"""What the segmentation-ability study needs of its config, which is checked here."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import ml_collections

from jaxseg.data import shifts
from jaxseg.errors import InputError
from jaxseg.models.unet import UNet
from jaxseg.scores import vog
from jaxseg.settings import count, number
from jaxseg.studies.base import changed, read_settings
from jaxseg.training import checks

NETWORKS = ("offline", "online")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """See configs/segmentation_ability.py."""

    noise_levels: Sequence[float]
    coverages: Sequence[float]
    inert_sweep: Sequence[float]
    inert_below: float
    vog_every: int
    buckets: int = count()
    examples: int = count()
    ranked: int = count()
    rounds: int = count()
    resamples: int = count()


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """Which networks are trained, and what is asked of them."""

    evaluation: Evaluation
    run: ml_collections.ConfigDict  # config of a training run, without the SA score in its loss
    online_weight: float = number(above=0)  # of the SA score in the loss of the online network
    replicas: int = number(least=1, most=1)  # the study trains one network of each kind
    networks: ClassVar[tuple[str, ...]] = NETWORKS

    def of_run(self, network: str) -> ml_collections.ConfigDict:
        """The config of one training run."""
        return changed(self.run, {"training.ability_weight": float(self.online_weight) * (network == "online")})

    @functools.cached_property
    def model(self) -> UNet:
        """A network of the study, for two classes; the names of its layers do not depend on their number."""
        model = checks.build_model(self.run, 2)
        if not isinstance(model, UNet) or model.norm == "group" or model.halvings < 2:
            raise InputError(
                "config.model must be a unet of at least two poolings without group norm: its layers are numbered as "
                "the paper's, and units of its last layer can be taken out"
            )
        return model

    @property
    def layers(self) -> tuple[str, ...]:
        """The numbered layers of the networks."""
        return self.model.roles.convolutions

    @property
    def layer_groups(self) -> dict[str, tuple[int, ...]]:
        """Early, abstract and late layers (Fig. 4), as places in `layers`."""
        groups = self.model.layer_groups.items()
        return {group: tuple(self.layers.index(name) for name in members) for group, members in groups}

    @property
    def first_of_decoder(self) -> int:
        """Which of the layers is the decoder's first."""
        block = f"{self.model.roles.decoder[0]}/"
        return next(i for i, name in enumerate(self.layers) if name.startswith(block))


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    made = read_settings(Settings, config, changes_levels=False)
    if weight := made.run.training.ability_weight:
        raise InputError(
            f"config.training.ability_weight is {weight}; it must be 0, as the networks differ in it: online_weight is "
            "that of the online network"
        )
    _check_evaluation(made.evaluation, made.run)  # the quickest first
    for network in NETWORKS:
        checks.check(made.of_run(network))
    _ = made.model
    return made


def _check_evaluation(evaluation: Evaluation, run: ml_collections.ConfigDict) -> None:
    for name, most in (("noise_levels", 1.0), ("coverages", 1.0), ("inert_sweep", math.inf)):
        values = getattr(evaluation, name)
        if not values or len(set(values)) < len(values) or not all(0 < value <= most for value in values):
            raise InputError(f"config.evaluation.{name} is {values!r}; give numbers above 0 and up to {most:g}, once")
    for level in evaluation.noise_levels:
        shifts.check_shift("uniform_noise", level)
    if evaluation.inert_below not in evaluation.inert_sweep:
        raise InputError(
            f"config.evaluation.inert_below is {evaluation.inert_below}; it must be one of inert_sweep "
            f"{evaluation.inert_sweep!r}"
        )
    vog.check(evaluation.vog_every, run.training)
