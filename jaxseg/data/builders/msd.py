"""Medical Segmentation Decathlon: prostate and pancreas (Simpson et al. 2019), as He et al. 2022 use them."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import tensorflow_datasets as tfds

from jaxseg.data.builders import files, records
from jaxseg.data.raw_cases import Contents, Found, RawCase

_LIST = "dataset.json"
_MR = ("percentiles", 0.5, 99.5)
_ABDOMEN = ("window", -160.0, 240.0)  # HU: the radiologists' window for soft tissue, width 400, level 40


class _Task(NamedTuple):
    """A task: its official folder, the prefix of its files, what it shows, and what is in the files."""

    folder: str
    prefix: str
    description: str
    contents: Contents


def _task(folder: str, prefix: str, description: str, names: tuple[str, ...], channels: int, scaling: tuple) -> _Task:
    # both tasks number their two structures 1 and 2; with one name for both they are one class
    values = {value: min(value, len(names)) for value in range(3)}
    return _Task(folder, prefix, description, Contents(("background", *names), values, channels, scaling, volumes=True))


_PROSTATE = ("Task05_Prostate", "prostate_")
_PANCREAS = ("Task07_Pancreas", "pancreas_")
_TASKS = {
    "prostate": _task(*_PROSTATE, "the whole prostate in T2 and ADC", ("prostate",), 2, _MR),
    "prostate-zones": _task(*_PROSTATE, "its two zones in T2 and ADC", ("peripheral zone", "transition zone"), 2, _MR),
    "pancreas": _task(*_PANCREAS, "pancreas and mass as one in CT", ("pancreas",), 1, _ABDOMEN),
    "pancreas-mass": _task(*_PANCREAS, "pancreas and mass in CT", ("pancreas", "mass"), 1, _ABDOMEN),
}


@dataclasses.dataclass(eq=False)
class Config(records.Config):
    """`task`: which one of the tasks, and how its labels are seen."""

    task: str = ""


class Msd(records.Builder):
    """The training cases of two tasks; those for testing have no masks.

    Prostate: T2 and ADC as two channels. Pancreas: portal venous CT, of which the soft tissue window of -160 to 240 HU
    is kept. He et al. 2022, section 4.1, segment the whole prostate, and of the pancreas the parenchyma and the mass,
    each as one object: that is `prostate` and `pancreas`. `prostate-zones` and `pancreas-mass` keep the two structures
    of the files apart. Patients are assigned to splits; every case is one. MR is scaled by volume and channel, from the
    0.5th percentile to the 99.5th.
    """

    VERSION = tfds.core.Version("1.1.0")
    STILL_READ = records.EIGHT_BITS
    BUILDER_CONFIGS: ClassVar = [
        Config(
            name=f"{name}{'-volumes' * volumes}",
            description=f"{task.description}, {'volumes' if volumes else 'every slice along the third axis'}",
            volumes=volumes,
            task=name,
        )
        for name, task in _TASKS.items()
        for volumes in (False, True)
    ]

    @classmethod
    def instructions(cls, config: records.Config) -> str:
        task = _of(config)
        return (
            f"fetch {task.folder}.tar of the Medical Segmentation Decathlon (http://medicaldecathlon.com) into a "
            f"folder, or unpack it there, so that the folder holds {task.folder}/imagesTr and {task.folder}/labelsTr"
        )

    @classmethod
    def find(cls, folder: pathlib.Path, config: records.Config) -> Found:
        task = _of(config)
        inside = next((path for path in (folder / task.folder, folder) if (path / "imagesTr").is_dir()), None)
        if inside is None:
            return Found((), [f"{folder}: holds no {task.folder}; {cls.instructions(config)}"], task.contents)
        names = files.Names(task.prefix, image=".nii.gz", mask=".nii.gz")
        pairs, problems = files.find_pairs(inside / "imagesTr", inside / "labelsTr", names)
        cases = [RawCase(pair.case, (pair.image,), pair.mask, patient=pair.case) for pair in pairs]
        return Found(cases, [*problems, *_not_there(inside)], task.contents)


def _of(config: records.Config) -> _Task:
    assert isinstance(config, Config)
    return _TASKS[config.task]


def _not_there(folder: pathlib.Path) -> Iterator[str]:
    """Cases in the official list that are missing altogether, as after an archive was unpacked in part."""
    path = folder / _LIST
    if not path.exists():
        return
    content, problems = files.read_json(path)
    yield from problems
    if problems:
        return
    try:
        listed = [(folder / case["image"], folder / case["label"]) for case in content["training"]]
    except (KeyError, TypeError):
        yield f"{path}: names no training cases with image and label; fetch it again or move it away"
        return
    for image, label in listed:
        if not image.exists() and not label.exists():  # if only one is missing, `find_pairs` has reported it
            yield f"{image}: is not there, {_LIST} names it; fetch it again"
