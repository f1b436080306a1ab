"""What the skip-pruning study needs of its config, which is checked here."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import ml_collections

from jaxseg.data import shifts
from jaxseg.errors import InputError
from jaxseg.models.resnet_unet import ENCODERS
from jaxseg.settings import count
from jaxseg.studies.base import changed, read_settings
from jaxseg.training import checks


class Network(NamedTuple):
    """A network by its encoder, or its name where it has but one, and by how many of the top skips it lacks."""

    encoder: str
    pruned: int

    @property
    def architecture(self) -> str:
        """As the paper names it."""
        return architecture(self.pruned)


def architecture(pruned: int) -> str:
    """The paper's name of a network without the top skips."""
    return f"L{pruned}-pruned" if pruned else "baseline"


def difference(more: int, less: int) -> str:
    """How the tables name the network with `more` pruned skips minus that with `less`."""
    return f"{architecture(more)} minus {architecture(less)}"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How the networks are tested; see configs/skip_pruning.py."""

    classes: tuple[str, ...]
    distance_shift: str
    distance_strength: float
    bins: int = count()
    halvings: int = count()
    distance_resamples: int = count()
    resamples: int = count()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks are trained, and under which conditions they are tested."""

    evaluation: Evaluation
    run: ml_collections.ConfigDict  # config of a training run, with all skips; a replica per fold
    encoders: tuple[str, ...]  # each is a network of its own; none: the network of `run` as it stands
    pruned: tuple[int, ...]  # how many of the top skips are removed, rising; 0 is the baseline
    shifts: Mapping[str, tuple[float, ...]]  # name -> strengths

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """What distinguishes networks besides their skips: encoders, or the network's name."""
        return self.encoders or (self.run.model.name,)

    @property
    def networks(self) -> tuple[Network, ...]:
        """All networks, by encoder."""
        return tuple(Network(name, pruned) for name in self.encoder_names for pruned in self.pruned)

    def of_run(self, network: Network) -> ml_collections.ConfigDict:
        """The config of the run that trains a network."""
        skips = (False,) * network.pruned + (True,) * (len(self.run.model.skips) - network.pruned)
        encoder = {"model.encoder": network.encoder} if self.encoders else {}
        return changed(self.run, {"model.skips": skips, **encoder})


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    made = read_settings(Settings, config, changes_levels=True)
    checks.check(made.run)
    made = dataclasses.replace(made, shifts=dict(made.shifts.items()))
    _check_networks(made)
    _check_shifts(made)
    for network in made.networks:
        checks.check(made.of_run(network))
    return made


def _check_networks(made: Settings) -> None:
    encoders, pruned, model = made.encoders, made.pruned, made.run.model
    if "skips" not in model:
        raise InputError("config.model.skips is missing; configs/skip_pruning.py shows every field")
    if encoders and model.name != "resnet_unet":
        raise InputError(f"config.encoders are for resnet_unet, config.model.name is {model.name!r}; leave none")
    if len(set(encoders)) < len(encoders) or set(encoders) - set(ENCODERS):
        raise InputError(f"config.encoders is {encoders!r}; give some of {', '.join(ENCODERS)}, each once")
    levels = len(model.skips)
    if not {0, 1} <= set(pruned) or list(pruned) != sorted(set(pruned)) or pruned[-1] > levels:
        raise InputError(
            f"config.pruned is {pruned!r}; give rising numbers of removed skips, up to {levels}, with 0 (the baseline) "
            "and 1 among them"
        )


def _check_shifts(made: Settings) -> None:
    for name, strengths in made.shifts.items():
        for strength in strengths:
            shifts.check_shift(name, strength)
        if len(set(strengths)) < len(strengths) or shifts.SHIFTS[name].draws:
            raise InputError(
                f"config.shifts.{name} is {strengths!r}; give each strength once, of a shift without chance"
            )
    if not made.shifts and not made.run.data.domains:
        raise InputError("there is no shift: fill config.shifts, or name in config.data.domains what is trained on")
    name, strength = made.evaluation.distance_shift, made.evaluation.distance_strength
    if made.shifts and strength not in made.shifts.get(name, ()):
        raise InputError(
            f"config.evaluation.distance_shift {name!r} with distance_strength {strength} is none of config.shifts; "
            "the distance is taken of one that is tested"
        )
