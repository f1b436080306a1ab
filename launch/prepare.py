"""Prepares a data set: raw files in, a folder to train and evaluate on out.

    python -m launch.prepare --dataset=dermoscopy/demo
    python -m launch.prepare --dataset=isic2017/256 --manual_dir=ISIC_FOLDER --data_dir=data

Every file is checked first. If any has a problem, all problems are listed and nothing is written.
"""

from absl import flags

from jaxseg.data import builders, pipeline
from launch import cli

DATASET = flags.DEFINE_string("dataset", None, "data set and config, as isic2017/256", required=True)
MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "folder of the raw files, for data sets that need them")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of all prepared data sets")


def main() -> None:
    """Prepares, and says what there is."""
    directory = builders.prepare(DATASET.value, data_dir=DATA_DIR.value, manual_dir=MANUAL_DIR.value)
    print(directory)
    for split, count in pipeline.split_sizes(directory).items():
        print(f"{split}: {count} cases")


if __name__ == "__main__":
    cli.run(main)
