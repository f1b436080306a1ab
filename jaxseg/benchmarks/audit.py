"""Audits of few and of many drawn images, each in a process of its own: peak memory and time."""

import csv
import multiprocessing
import pathlib
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxseg import models
from jaxseg.audit import audit
from jaxseg.benchmarks import timing
from jaxseg.data import builders, overlays
from jaxseg.networks import of_linen
from jaxseg.numerics import in_32_bits

COUNTS = (1000, 10_000)
_TRAINING = 100  # cases like those of its training, for scores that need them
_SCANNERS = {"A": 40, "B": 70}  # gray level of the background


def run(
    *, rounds: int = 1, counts: Sequence[int] = COUNTS, size: int = 64, features: tuple[int, ...] = (8, 16, 32)
) -> dict[str, Any]:
    """The table: all probes of an untrained U-Net, one audit after the other.

    Args:
      rounds: not used; every audit is done once.
      counts: of test images, a row each; the first is what the others' ratio refers to.
      size: of the images, pixels a side.
      features: of the network.
    """
    del rounds
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        data = _prepare(place, max(counts), size)
        rows = []
        for count in counts:
            # a process's peak is that of its whole life
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                seconds, peak = pool.submit(_audited, data, place / str(count), count, size, features).result()
            rows.append({"images": count, "seconds": seconds, "peak_mb": peak / 2**20})
    return {
        "machine": timing.machine(),
        "audit": [row | {"of_first": row["peak_mb"] / rows[0]["peak_mb"]} for row in rows],
    }


@in_32_bits
def _audited(
    data: pathlib.Path, workdir: pathlib.Path, count: int, size: int, features: tuple[int, ...]
) -> tuple[float, int]:
    """Seconds of an audit, and the bytes that this process has taken at most."""
    model = models.build("unet", 2, features=features, skips=(True,) * (len(features) - 1))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, size, size, 3), np.float32))
    began = time.perf_counter()
    audit(of_linen(model, variables, image_size=(size, size), channels=3), data, workdir, cases=count)
    return time.perf_counter() - began, timing.peak_memory()


def _prepare(folder: pathlib.Path, count: int, size: int) -> pathlib.Path:
    """A prepared data set of pictures of two scanners, half of them with calipers."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    with (raw / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case", "image", "mask", "patient", "domain", "split"])
        for number in range(count + _TRAINING):
            name, split = f"c{number:05d}", "test" if number < count else "train"
            scanner = "AB"[number // 2 % 2]
            image, labels = _drawn(number, size, scanner)
            Image.fromarray(image).save(raw / f"{name}.png")
            Image.fromarray(labels).save(raw / f"{name}_mask.png")
            table.writerow([name, f"{name}.png", f"{name}_mask.png", name, scanner, split])
    return builders.prepare("folder/drawn", data_dir=folder / "data", manual_dir=raw)


def _drawn(number: int, size: int, scanner: str) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipse in noise, with yellow calipers at its ends in every other picture."""
    random = np.random.default_rng(number)
    centre, radii = random.uniform(0.35, 0.65, 2) * size, random.uniform(0.12, 0.25, 2) * size
    y, x = (np.arange(size) - middle for middle in centre)
    labels = ((y[:, None] / radii[0]) ** 2 + (x / radii[1]) ** 2 < 1).astype(np.uint8)
    gray = _SCANNERS[scanner] + 110 * labels + random.normal(0, 12, labels.shape)
    image = np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, -1)
    if number % 2:
        ends = np.concatenate(overlays.ellipse_axes(labels > 0))
        image, _ = overlays.draw_calipers(image, ends, colour=(255, 255, 0), style="plus", size=max(size // 12, 5))
    return image, labels
