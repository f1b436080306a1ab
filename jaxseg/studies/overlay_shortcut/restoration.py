"""How well marks are found, and how close restored images are to the clean ones."""

import itertools
import pathlib

import numpy as np

from jaxseg.data import overlays
from jaxseg.results.stored import kept
from jaxseg.studies.overlay_shortcut.images import RESTORED, Images

REGIONS, METRICS = ("marks", "image"), ("mae", "psnr")  # over which, and by what restored images are judged


def error_name(method: str, mask: str, region: str, metric: str) -> str:
    """How an error of `measure` is called."""
    return f"{method} {mask} {region} {metric}"


def measure(images: Images, workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """How well marks were found and images restored, or what was measured before; empty without clean images.

    Returns:
      Per `error_name`, float `[N]`: mae in gray levels and psnr in dB, over the region `marks` (what they cover) and
      `image` (all of it); `recall` and `precision` of the found pixels, and what share of the marks' pixels is
      `removed` when the found ones are widened, `[N]`.
    """
    if not images.clean_known:
        return {}
    return kept(workdir / "runs" / "removal.npz", lambda: _errors(images) | _detection(images))


def _errors(images: Images) -> dict[str, np.ndarray]:
    test = images.scans["test"]
    assert test.clean is not None and test.marks is not None
    measures = {}
    for method, mask in RESTORED:
        errors = []
        for i, (clean, marks) in enumerate(zip(test.clean.images, test.marks, strict=True)):
            restored = images.restored(method, mask, i)
            regions = (marks, np.ones_like(marks))
            errors.append([overlays.reconstruction_error(clean, restored, region) for region in regions])
        values = np.array(errors)  # [N, region, metric]
        for (r, region), (m, metric) in itertools.product(enumerate(REGIONS), enumerate(METRICS)):
            # without any error the ratio is not finite: undefined, and counted as such
            defined = np.isfinite(values[:, r, m])
            measures[error_name(method, mask, region, metric)] = np.where(defined, values[:, r, m], np.nan)
    return measures


def _detection(images: Images) -> dict[str, np.ndarray]:
    marks, found = images.marks("true"), images.marks("found")
    widened = np.stack([overlays.removed_region(mask, method="network", margin=images.margin) for mask in found])
    pixels = lambda where: where.sum((1, 2)).astype(float)
    share = lambda part, whole: np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
    return {
        "recall": share(pixels(marks & found), pixels(marks)),
        "removed": share(pixels(marks & widened), pixels(marks)),
        "precision": share(pixels(marks & found), pixels(found)),
    }
