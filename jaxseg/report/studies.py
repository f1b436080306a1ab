"""Which module makes which study's report."""

import importlib
import pathlib
from typing import Any

import ml_collections

from jaxseg.errors import InputError

STUDIES = (
    *("border_shortcut", "distortion", "skip_pruning", "overlay_shortcut", "segmentation_ability"),
    "planted_shortcuts",
)


def run(config: ml_collections.ConfigDict, **places: Any) -> pathlib.Path:
    """Runs the study that `config.study` names, each in the module of its name; see `border_shortcut.run`.

    Raises:
      InputError: the config is no study's, or the study cannot be run.
    """
    name = config.get("study")
    if name not in STUDIES:
        raise InputError(
            f"the config is not a study's (config.study is {name!r}); give configs/NAME.py with NAME one of "
            f"{', '.join(STUDIES)}, or use launch.train"
        )
    return importlib.import_module(f"jaxseg.report.{name}").run(config, **places)
