"""Prepares a data set: raw files in, a folder to train and evaluate on out.

    python -m launch.prepare --dataset=dermoscopy/demo
    python -m launch.prepare --dataset=isic2017/256 --manual_dir=ISIC_FOLDER --data_dir=data
    python -m launch.prepare --dataset=folder/wbc --manual_dir=FOLDER_WITH_CASES_CSV --check
    python -m launch.prepare --dataset=folder/elsewhere --manual_dir=FOLDER --like=runs/unet

With --like, volumes are turned and intensities scaled as those that the network of that run was trained on, so that it
can be evaluated on them; else as most of the files suggest.

Every file is checked first. If any has a problem, all problems are listed and nothing is written. --check says all that
the doctor finds, also what is merely to be known, such as shortcuts that a network may learn, and writes nothing; its
exit status is 2 where the data set cannot be used. With --page=FILE.html what it finds is a page too, with pictures of
the marks and text that it found.
"""

import json
import pathlib
import sys

from absl import flags

from jaxseg.data import builders, pipeline
from jaxseg.errors import InputError
from launch import cli

DATASET = flags.DEFINE_string(
    "dataset", None, "data set and config, as isic2017/256; folder/NAME for your own", required=True
)
MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "raw files: a folder, or an archive, for data sets that need them")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of all prepared data sets")
LIKE = flags.DEFINE_string("like", None, "folder of a run: prepare as its own data set was")
CHECK = flags.DEFINE_bool("check", False, "only say what is wrong with the raw files")
JSON = flags.DEFINE_bool("json", False, "say it as JSON, with --check")
PAGE = flags.DEFINE_string("page", None, "say it on this HTML page too, with --check")

_PICTURES = 8  # of images with marks, on a page


def main() -> None:
    """Prepares, and says what there is; or only says what is wrong."""
    like = _preparation(cli.path(LIKE)) if LIKE.value else None
    if CHECK.value or JSON.value or PAGE.value:
        report = builders.check(
            DATASET.value,
            data_dir=DATA_DIR.value,
            manual_dir=MANUAL_DIR.value,
            like=like,
            pictures=_PICTURES if PAGE.value else 0,
        )
        if PAGE.value:
            from jaxseg import checkup  # which starts JAX, as the next
            from jaxseg.training import provenance

            checkup.write(cli.path(PAGE), report, {"command": cli.command(), "reported": provenance.here()})
        print(json.dumps(report.as_json(), indent=1) if JSON.value else report.text())
        sys.exit(2 if report.errors else 0)
    directory = builders.prepare(DATASET.value, data_dir=DATA_DIR.value, manual_dir=MANUAL_DIR.value, like=like)
    print(directory)
    for split, count in pipeline.split_sizes(directory).items():
        print(f"{split}: {count} cases")


def _preparation(run: pathlib.Path) -> pipeline.Preparation:
    from jaxseg.training import contract, runs  # which start JAX

    prepared = lambda name: builders.prepared(name, data_dir=DATA_DIR.value)
    known = contract.of_run(runs.read_config(run), run, prepared)
    if known is None:
        raise InputError(f"--like={run}: neither the run nor {DATA_DIR.value} knows how its data set was prepared")
    return known.preparation


if __name__ == "__main__":
    cli.run(main, cleans_up=True)
