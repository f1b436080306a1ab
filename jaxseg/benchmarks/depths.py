"""Reading of the same slices from files of 8, 16 and float bits, by geometry and normalisation: rate, disk, memory."""

import csv
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import SimpleITK

from jaxseg.benchmarks import timing
from jaxseg.data import builders, grids, normalisation, pipeline
from jaxseg.data.inputs import Inputs
from jaxseg.data.synthetic import cardiac

_SLICES = 8  # of a patient
_BATCH = 16
_SPACING = 1.25  # mm, of the files
# what a file holds of gray levels 0 to 255 of the drawn slices
_FILES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "8": lambda gray: np.rint(gray).astype(np.uint8),
    "16": lambda gray: np.rint(16 * gray).astype(np.uint16),
    "float": lambda gray: (gray / 7 - 3).astype(np.float32),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row: bits of the files, and what becomes of a slice of 256 pixels a side."""

    bits: str
    geometry: str
    inputs: Inputs


_Z_SCORE, _KEPT = normalisation.ZScore(), grids.Keep(256)
SETTINGS = (
    Setting("8", "squash to 256, range", Inputs(grids.Squash(256), normalisation.Range())),
    Setting("16", "squash to 256, range", Inputs(grids.Squash(256), normalisation.Range())),
    Setting("8", "keep, z_score", Inputs(_KEPT, _Z_SCORE)),
    Setting("16", "keep, z_score", Inputs(_KEPT, _Z_SCORE)),
    Setting("float", "keep, z_score", Inputs(_KEPT, _Z_SCORE)),
    Setting("16", "keep at 1.5 mm, z_score", Inputs(grids.Keep(224, spacing=(1.5, 1.5)), _Z_SCORE)),
)


def run(*, rounds: int = 5, settings: Sequence[Setting] = SETTINGS, patients: int = 50, side: int = 256) -> Any:
    """The table: images per second, labels included, on two threads; all rows take turns.

    Args:
      rounds: turns of each row.
      settings: the rows; the first is what the others' ratios refer to.
      patients: of 8 slices each, at least 10.
      side: of the slices in pixels.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        sets = {bits: _prepare(root / f"bits_{bits}", bits, patients, side) for bits in {one.bits for one in settings}}
        splits = [pipeline.Split(sets[one.bits], "train", inputs=one.inputs) for one in settings]
        growth = [_growth(split) for split in splits]
        seconds = timing.turns([_epoch(split) for split in splits], rounds=rounds)
        rows = [
            {
                "file": one.bits,
                "read": one.geometry,
                "images_per_second": len(split) / min(taken),
                "of_first": float(np.median(np.divide(seconds[0], taken))),
                "kb_on_disk": _size(sets[one.bits]) / 1e3 / (patients * _SLICES),
                "kb_in_memory": split.num_bytes / 1e3 / len(split),
                "growth_mb": grown / 2**20,
            }
            for one, split, taken, grown in zip(settings, splits, seconds, growth, strict=True)
        ]
    return {"machine": timing.machine(), "depths": rows}


def _prepare(folder: pathlib.Path, bits: str, patients: int, side: int) -> pathlib.Path:
    """A prepared data set of slices, each a file."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    with (raw / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case", "image", "mask", "patient"])
        for patient in range(patients):
            images, labels, _ = cardiac.volume(0, patient, side, slices=_SLICES)
            noise = np.random.default_rng(patient).uniform(-0.5, 0.5, images.shape)  # below a gray level
            for z, gray in enumerate(np.clip(images + noise, 0, 255)):
                name = f"p{patient:03d}_{z}"
                _save(raw / f"{name}.mha", _FILES[bits](gray))
                _save(raw / f"{name}_mask.mha", labels[z])
                table.writerow([name, f"{name}.mha", f"{name}_mask.mha", f"p{patient:03d}"])
    return builders.prepare(f"folder/bits_{bits}", data_dir=folder / "data", manual_dir=raw)


def _save(path: pathlib.Path, array: np.ndarray) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((_SPACING, _SPACING))
    SimpleITK.WriteImage(image, str(path))


def _epoch(split: pipeline.Split) -> Callable[[], int]:
    return lambda: sum(len(batch["image"]) for batch in pipeline.epoch(split, batch_size=_BATCH))


def _growth(split: pipeline.Split) -> int:
    """Bytes by which the process's peak grows in three epochs after the first."""
    epoch = _epoch(split)
    epoch()
    before = timing.peak_memory()
    for _ in range(3):
        epoch()
    return timing.peak_memory() - before


def _size(folder: pathlib.Path) -> int:
    """Bytes of the records in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.array_record*"))
