"""A paper's study: config in; runs, tables, figures and one report page out. Called again, it resumes.

python -m launch.study --config=configs/border_shortcut.py:demo --workdir=runs/demo
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from launch import cli

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Study and size, like configs/border_shortcut.py:demo.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for runs, tables, figures and the report; reused if it is there."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets; the study's own is prepared in it.")
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of raw files, for data sets that need them.")


def main() -> None:
    config, workdir = cli.config(_CONFIG), cli.path(_WORKDIR)
    from jaxseg.studies import runner  # not before the flags are known to be good: it starts JAX

    page = runner.run(
        config,
        workdir=workdir,
        data_dir=pathlib.Path(_DATA_DIR.value),
        manual_dir=_MANUAL_DIR.value,
        command=cli.command(),
    )
    print(page)


if __name__ == "__main__":
    cli.run(main, resumes=True)
