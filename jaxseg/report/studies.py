"""Which module makes which study's report."""

import importlib
import pathlib

import ml_collections

from jaxseg.errors import InputError
from jaxseg.numerics import in_32_bits

STUDIES = (
    "border_shortcut",
    "overlay_shortcut",
    "segmentation_ability",
    "skip_pruning",
    "distortion",
    "planted_shortcuts",
)


@in_32_bits
def run(
    config: ml_collections.ConfigDict,
    *,
    workdir: pathlib.Path,
    data_dir: pathlib.Path,
    manual_dir: str | None,
    command: str,
) -> pathlib.Path:
    """Runs the study that `config.study` names, or what is left of it, and writes its report.

    Args:
      config: as the file of that name in configs/ gives it.
      workdir: of the study; created, or with the same config.
      data_dir: of prepared data sets.
      manual_dir: of raw files; None if the data set is embedded or prepared.
      command: that a reader would type to get the same.

    Returns:
      The path of the report page.

    Raises:
      InputError: the config is no study's, or the config, a folder or a raw file is unusable.
    """
    name = config.get("study")
    if name not in STUDIES:
        raise InputError(
            f"the config is not a study's (config.study is {name!r}); give configs/NAME.py with NAME one of "
            f"{', '.join(STUDIES)}, or use launch.train"
        )
    module = importlib.import_module(f"jaxseg.report.{name}")
    return module.run(config, workdir=workdir, data_dir=data_dir, manual_dir=manual_dir, command=command)
