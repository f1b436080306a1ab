"""Reading of prepared data, decode and resize, beside PyTorch's DataLoader on the same JPEG files."""

import csv
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from jaxseg.benchmarks import timing
from jaxseg.data import builders, pipeline
from jaxseg.data.synthetic import dermoscopy

_CASES = 400
_DRAWN = 40  # scenes; the others are these, flipped and darkened, so that no two files are the same
_BATCH = 16
_WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row: width and height of the JPEG files, side of what is read."""

    width: int
    height: int
    size: int = 256


SETTINGS = (Setting(256, 256), Setting(512, 512), Setting(1022, 767))


def run(*, rounds: int = 5, settings: tuple[Setting, ...] = SETTINGS, cases: int = _CASES) -> dict[str, Any]:
    """The table: images per second, labels included, on two threads beside two worker processes.

    Args:
      rounds: how often the two sides take turns.
      settings: the rows.
      cases: files of each row, at least 10.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = [_compare(setting, pathlib.Path(folder), rounds, cases) for setting in settings]
    return {"machine": timing.machine(), "data": rows}


def _compare(setting: Setting, folder: pathlib.Path, rounds: int, count: int) -> dict[str, Any]:
    raw = _write(folder / f"raw{setting.width}", setting, count)
    directory = builders.prepare(f"folder/jpeg{setting.width}", data_dir=folder / "data", manual_dir=raw)
    split = pipeline.Split(directory, "train", size=setting.size)
    paths = [raw / "images" / f"{case}.jpg" for case in split.cases]

    def read() -> int:
        return sum(len(batch["image"]) for batch in pipeline.epoch(split, batch_size=_BATCH))

    read()
    before = timing.peak_memory()
    for _ in range(rounds):
        read()
    growth = timing.peak_memory() - before
    pair = timing.compare(read, _loader(paths, setting.size), rounds=rounds)
    ours, theirs = pair.best
    return {
        "jpeg": f"{setting.width}x{setting.height}",
        "read_at": setting.size,
        "images_per_second": len(split) / ours,
        "images_per_second_pytorch": len(split) / theirs,
        "ratio": pair.speedup,
        "growth_mb": growth / 2**20,
    }


def _write(folder: pathlib.Path, setting: Setting, count: int) -> pathlib.Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    scenes = [dermoscopy.render(0, i, max(setting.width, setting.height)) for i in range(min(_DRAWN, count))]
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case", "image", "mask", "domain", "patient"])
        for i in range(count):
            image, labels = (array[: setting.height, : setting.width] for array in scenes[i % len(scenes)])
            turn = i // len(scenes)
            image, labels = (array[:: 1 - 2 * (turn % 2)] for array in (image, labels))
            case = f"case{i:04d}"
            darker = np.maximum(image, turn) - np.uint8(turn)
            Image.fromarray(darker).save(folder / f"images/{case}.jpg", quality=90)
            Image.fromarray(labels * 255).save(folder / f"masks/{case}.png")
            table.writerow([case, f"images/{case}.jpg", f"masks/{case}.png", "", case])
    return folder


def _loader(paths: list[pathlib.Path], size: int) -> Callable[[], int]:
    """An epoch of a DataLoader with two processes."""
    torch = timing.pytorch()
    # forked workers and JAX's threads do not go together
    options = {"multiprocessing_context": "spawn", "persistent_workers": True}
    loader = torch.utils.data.DataLoader(_Files(paths, size), _BATCH, num_workers=_WORKERS, **options)
    return lambda: sum(len(images) for images, _ in loader)


class _Files:
    """A PyTorch data set as research code writes it: Pillow, bilinear, nearest."""

    def __init__(self, paths: list[pathlib.Path], size: int):
        self._paths = paths
        self._size = (size, size)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        torch = timing.pytorch()
        path = self._paths[index]
        with Image.open(path) as file:
            image = np.array(file.convert("RGB").resize(self._size, Image.Resampling.BILINEAR))
        with Image.open(path.parents[1] / "masks" / f"{path.stem}.png") as file:
            labels = np.array(file.convert("L").resize(self._size, Image.Resampling.NEAREST)) // 255
        return torch.from_numpy(image), torch.from_numpy(labels)
