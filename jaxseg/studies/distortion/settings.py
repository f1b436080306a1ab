"""What the distortion study needs of its config, which is checked here."""

import dataclasses
import pathlib

import ml_collections

from jaxseg.errors import InputError
from jaxseg.models import tracing
from jaxseg.networks import of_linen
from jaxseg.scores import vog
from jaxseg.settings import count, number, one_of
from jaxseg.studies.base import changed, layer_names, read_settings
from jaxseg.training import autoencoders, checks

UNITS = ("slice", "subject")
BY_NAME, BY_ORDER = "name", "order"  # how classes of another data set become the network's


@dataclasses.dataclass(frozen=True)
class Shifted:
    """The cases that are out-of-distribution; see configs/distortion.py."""

    dataset: str
    manual_dir: str
    splits: tuple[str, ...]
    domains: tuple[str, ...]
    domain_words: int = count(least=0)
    classes: str = one_of(BY_NAME, BY_ORDER)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How scores are computed and judged; see configs/distortion.py."""

    ability_layers: tuple[str, ...]
    unit: str = one_of(*UNITS)
    ensemble_size: int = count(least=2)
    vog_every: int = count()
    keep: float = number(above=0, most=1)
    least_patients: int = count(least=2)
    resamples: int = count()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which networks and autoencoders are trained, and on which cases they are tested."""

    shifted: Shifted
    evaluation: Evaluation
    run: ml_collections.ConfigDict  # config of the networks, replicas with other seeds
    layer: str  # of the networks, whose activations the autoencoders reconstruct
    autoencoder: ml_collections.ConfigDict
    autoencoder_training: ml_collections.ConfigDict  # section `training` of its run

    def of_autoencoder(self, network: pathlib.Path, seed: int) -> ml_collections.ConfigDict:
        """The config of the autoencoder of the network in the folder `network`."""
        fields = self.run.to_dict()
        del fields["model"]
        fields |= {"replicas": 1, "seed": seed, "training": self.autoencoder_training.to_dict()}
        fields |= {"network": str(network), "layer": self.layer, "autoencoder": self.autoencoder.to_dict()}
        return ml_collections.ConfigDict(fields).lock()


def settings(config: ml_collections.ConfigDict) -> Settings:
    """The settings of the study; raises InputError where a field of the config cannot work."""
    made = read_settings(Settings, config, changes_levels=False)
    checks.check(made.run)
    checks.check_common(made.of_autoencoder(pathlib.Path(), made.run.seed))
    vog.check(made.evaluation.vog_every, made.run.training)
    _check_data(made.run, made.shifted)
    _check_layers(made)
    return made


def known(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config by which a work directory is known: raw files may move, as those of --manual_dir may."""
    return changed(config, {"shifted.manual_dir": ""})


def _check_data(run: ml_collections.ConfigDict, shifted: Shifted) -> None:
    for name, value, wanted in (
        ("data.view", run.data.view, "original"),
        ("data.folds", run.data.folds, 0),
        ("vary", run.vary, "seed"),
    ):
        if value != wanted:
            raise InputError(f"config.{name} is {value!r}; the study is of {wanted!r} alone")
    if not shifted.dataset and not run.data.domains:
        raise InputError(
            "config.data.domains is empty, so all domains are trained on and none is out-of-distribution; name those "
            "to train on, or another data set in config.shifted.dataset"
        )
    if not shifted.splits:
        raise InputError("config.shifted.splits is empty; name the splits whose cases are tested, such as ('test',)")


def _check_layers(settings: Settings) -> None:
    names = layer_names(settings.run)
    ability = settings.evaluation.ability_layers
    for field, layers in (("layer", (settings.layer,)), ("evaluation.ability_layers", ability)):
        unknown = [layer for layer in layers if layer not in names]
        if unknown or not layers:
            raise InputError(f"config.{field} names no layer {unknown[:1]}; the network has {', '.join(names)}")
    model, size = checks.build_model(settings.run, 2), settings.run.data.image_size
    network = of_linen(model, tracing.variable_shapes(model, (1, size, size, 3)), image_size=size)
    autoencoders.build(settings.of_autoencoder(pathlib.Path(), 0), network)
