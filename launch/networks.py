"""Flags that name a trained network of no run, for every launcher that takes one, with their checks."""

import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from launch import cli

_WEIGHTS = flags.DEFINE_string("weights", None, "File with PyTorch tensors, or FILE:KEY; with --config.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Of a run, for --weights: which network, and its input."
)
_NETWORK = flags.DEFINE_string("network", None, "FILE.py:NAME, a network or a function in the file.")
_IMAGE_SIZE = flags.DEFINE_list(
    "image_size", None, "Of --network, unless it has its own: one number, or height,width, or depth,height,width."
)
_NNUNET = flags.DEFINE_string("nnunet", None, "Folder of a trained nnU-Net 2, with plans.json.")
_FOLD = flags.DEFINE_string("fold", "0", "Of --nnunet: its number, or all.")

_OTHERS = (_WEIGHTS, _NETWORK, _NNUNET)
_RECIPES = pathlib.Path(__file__).parents[1] / "configs"
_INPUT = ("geometry", "normalisation", "image_size")  # of config.data


def source(
    run: flags.FlagHolder, dataset: flags.FlagHolder, *, is_place: bool = False, alone: bool = False
) -> dict[str, Any]:
    """What these flags, or that of a run, name: fields of `jaxseg.training.trained.Source`.

    Args:
      run: the flag of a run's folder.
      dataset: the flag of a data set.
      is_place: whether the flag of a run also says where the results of another network go.
      alone: whether a network that knows by itself what it takes needs no data set.

    Raises:
      InputError: two networks are named or none, a flag is missing or stands without the one that it belongs to, or the
        config of weights does not say what they were given.
    """
    from jaxseg.errors import InputError

    choices = _OTHERS if is_place else (run, *_OTHERS)
    chosen, *others = [flag for flag in choices if flag.value is not None] or [run]
    if others or (chosen is run and not is_place and run.value is None):
        raise InputError(f"give one of {', '.join(f'--{flag.name}' for flag in choices)} (see --help)")
    for flag, owner in ((_CONFIG, _WEIGHTS), (_IMAGE_SIZE, _NETWORK), (_FOLD, _NNUNET)):
        if flag.present and chosen is not owner:
            raise InputError(f"--{flag.name} belongs to --{owner.name}, not to --{chosen.name}")
    named = {"dataset": dataset.value}
    if chosen is run:
        return named | {"run": cli.path(run)}
    if dataset.value is None and (chosen is _WEIGHTS or not alone):
        raise InputError(f"--{dataset.name} is missing; --{chosen.name} does not say what it was trained on")
    if chosen is _WEIGHTS:
        return named | {"weights": cli.path(_WEIGHTS), "config": _config()}
    return named | {"network": _of_file() if chosen is _NETWORK else _of_nnunet(), "name": chosen.value}


def _config() -> Any:
    """The config of the weights, which has to say what they were given: tensors fit whatever the size."""
    from jaxseg.errors import InputError

    if _CONFIG.value is None:
        raise InputError("--config is missing; it says which network the weights are of, and what it sees")
    config, flag = cli.config(_CONFIG), flags.FLAGS[_CONFIG.name]
    said = config_flags.get_override_values(flag)
    file = pathlib.Path(config_flags.get_config_filename(flag).partition(":")[0])  # what follows is the size
    unsaid = [name for name in _INPUT if f"data.{name}" not in said]
    if unsaid and file.resolve().parent == _RECIPES.resolve():
        wanted = " ".join(f"--{_CONFIG.name}.data.{name}=..." for name in unsaid)
        here = ", ".join(f"{name} {config.data[name]}" for name in unsaid)
        raise InputError(
            f"--{_CONFIG.name}={file}: is a recipe of trainings (with {here}), and does not say what "
            f"{_WEIGHTS.value} was given in its own; say so with {wanted}, or in a config file of its own"
        )
    return config


def _of_nnunet() -> Callable[..., Any]:
    from jaxseg.networks import from_nnunet

    return lambda known: from_nnunet(cli.required(_NNUNET), fold=_FOLD.value)


def _of_file() -> Callable[..., Any]:
    """What makes the network for what a data set has, if one is named."""
    from jaxseg.errors import InputError
    from jaxseg.networks import files

    given = _IMAGE_SIZE.value or []
    try:
        sizes = [int(size) for size in given]
    except ValueError as error:
        raise InputError(f"--image_size is {','.join(given)}; give whole numbers") from error
    size = sizes[0] if len(sizes) == 1 else sizes or None

    def make(known: Any) -> Any:
        taken = {} if known is None else {"num_classes": len(known.class_names), "channels": known.num_channels}
        return files.from_file(cli.required(_NETWORK), image_size=size, **taken)

    return make
