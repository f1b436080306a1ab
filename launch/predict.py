"""A trained network and new images in; masks, a table with quality estimates, and the cases to look at out.

    python -m launch.predict --workdir=runs/unet --inputs=scans --output=predictions
    python -m launch.predict --workdir=runs/unet --inputs=a.png --inputs=b.nii.gz --output=predictions --tile
    python -m launch.predict --network=mine.py:segment --image_size=256 --inputs=scans --output=predictions
    python -m launch.predict --nnunet=nnUNetTrainer__nnUNetPlans__2d --dataset=folder/mine --inputs=scans --output=out
    python -m launch.predict --weights=model.pth --config=theirs.py --dataset=hc18/256 --inputs=scans --output=out

The network is the best checkpoint of a run, or named as for launch.audit. What is said here of the data set of a run
is, of another network, that of `--dataset`: its classes and channels, how files are read, the validation cases. Without
one, files are read as they are, nothing is flagged, and a function is taken for one of RGB images and two classes.

Inputs are PNG, JPEG, BMP, TIFF, NIfTI, NRRD, MetaImage and DICOM files, folders of them, and folders with the DICOM
files of one series; a network for pictures predicts volumes slice by slice. Each is read as the data set of the run
was, volumes in its orientation, however they are stored. A mask has its input's size, orientation and place: NIfTI of
NIfTI, NRRD of NRRD, MetaImage of MetaImage, TIFF of TIFF, PNG of other pictures and of single DICOM files, NIfTI of
DICOM series and of files with many frames (not DICOM SEG); of replicas it is that of their ensemble. Inputs are only
read. What looks like a mask of an image beside it, by cases.csv, by what it is (DICOM SEG), by its folder (masks,
labels) or its name (a_mask.png beside a.png), is left out, which is said; --pattern takes exactly the names that it
asks for.

Images come to the network as in training: squashed, at their own pixels, or under a sliding window where it was trained
on patches (config.data.geometry). --tile slides a window of the network's size over images at
their own scale instead, for networks that were trained on such tiles. Memory is then 4 bytes per pixel and class, of a
volume that goes slice by slice per pixel of a slice, and what the network takes for 8 windows.

OUTPUT/predictions.csv has a row for every input: mask, size, area per class; mean SA score (He et al. 2022, section
4.6), entropy, and with --autoencoder segmentation distortion (Lennartz and Schultz 2023), each with the per cent of the
run's validation cases that look better. Where that is the share --coverage or more, the image is flagged, and
OUTPUT/flagged.png shows it. What the validation cases score is computed at the first call and kept in the run's folder.

Exit status: 0, all inputs were predicted; 3, some could not be read, each named on stderr and in the table; 2, nothing
was done, as a flag is wrong.
"""

import pathlib
import sys

from absl import flags

from launch import cli, networks

_FAILED = 3

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run, as launch.train leaves it.")
_DATASET = flags.DEFINE_string("dataset", None, "Of another network: a data set with cases like those of its training.")
_INPUTS = flags.DEFINE_multi_string("inputs", None, "A file or a folder; may be given more than once.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results: new, or that of an earlier prediction.")
_PATTERN = flags.DEFINE_string("pattern", "*", "Names of the files that are wanted from folders, like '*_HC.png'.")
_TILE = flags.DEFINE_bool("tile", False, "For runs that squash: slide a window over images at their own scale.")
_TILE_SIZE = flags.DEFINE_integer(
    "tile_size", 0, "Side of the window in pixels; 0: that of the network.", lower_bound=0
)
_OVERLAP = flags.DEFINE_float("overlap", 0.5, "Share of the window that the next one repeats.")
_BLEND = flags.DEFINE_enum("blend", "gaussian", ["gaussian", "linear"], "Weight of a window's pixels by their place.")
_PROBABILITIES = flags.DEFINE_bool("probabilities", False, "Write the probability of every class too.")
_SCORE = flags.DEFINE_string("score", "mean_sa", "By what images are flagged: a score of jaxseg/scores, as entropy.")
_COVERAGE = flags.DEFINE_float("coverage", 0.8, "Share of the validation cases that would not be flagged; 0 flags all.")
_AUTOENCODER = flags.DEFINE_string("autoencoder", None, "Folder of an autoencoder of the run's network.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", "data", "Folder of prepared data sets, of which the run's own is needed once."
)
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Folder of its raw files, if it is not prepared yet.")


def main() -> None:
    source = networks.source(_WORKDIR, _DATASET, alone=True)
    output, paths = cli.path(_OUTPUT), [pathlib.Path(path) for path in cli.required(_INPUTS)]
    from jaxseg.data import builders, windows
    from jaxseg.errors import InputError
    from jaxseg.prediction import page as predictions
    from jaxseg.training.trained import Source

    of_run = "run" in source
    belongs = "networks that are of no run" if of_run else "runs"
    if (foreign := _DATASET if of_run else _AUTOENCODER).present:
        raise InputError(f"--{foreign.name} is for {belongs}; leave it out")
    judging = [flag.name for flag in (_SCORE, _COVERAGE) if flag.present]
    if judging and not (of_run or _DATASET.present):
        raise InputError(f"--{judging[0]} needs validation cases to judge by; give the --dataset that has them")
    unused = [flag.name for flag in (_TILE_SIZE, _OVERLAP, _BLEND) if flag.present and not _TILE.value]
    if unused:
        raise InputError(f"--{unused[0]}: says how a window slides; give --tile too")
    options = predictions.Options(
        pattern=_PATTERN.value,
        tiling=windows.Tiling(_TILE_SIZE.value, _OVERLAP.value, _BLEND.value) if _TILE.value else None,
        probabilities=_PROBABILITIES.value,
        score=_SCORE.value,
        coverage=_COVERAGE.value,
        autoencoder=cli.path(_AUTOENCODER) if _AUTOENCODER.value else None,
    )
    prepare = lambda name: builders.prepare(name, data_dir=_DATA_DIR.value, manual_dir=_MANUAL_DIR.value)
    outcome = predictions.run(
        source=Source(**source), paths=paths, output=output, options=options, prepare=prepare, command=cli.command()
    )
    print(f"{outcome.predicted} predicted, {outcome.flagged} of them flagged; {outcome.failed} could not be")
    print("\n".join(str(path) for path in (outcome.table, outcome.sheet) if path))
    sys.exit(_FAILED if outcome.failed else 0)


if __name__ == "__main__":
    cli.run(main)
