"""Drawn scenes look as they did when `drawn_worlds.json` was made: results of earlier versions are of the same images.

Where a world is to look otherwise, its data sets are others, and `python -m tests.data.test_drawn_worlds` notes them.
"""

import itertools
import json
import pathlib

import cv2
import numpy as np
import pytest

from jaxseg.data import overlays
from jaxseg.data.synthetic import cardiac, dermoscopy, smear, smear_drawn, ultrasound

NOTED = pathlib.Path(__file__).with_name("drawn_worlds.json")
SIDE, GRID = 96, 6
ROUNDED = 2  # machines round a pixel in ten thousand otherwise, and a sum is noted to one


def dermoscopy_scenes():
    for index in (*range(11), 60):  # the last is larger than the image
        yield f"dermoscopy {index}", *dermoscopy.render(0, index, SIDE)


def ultrasound_scenes():
    for index, plane in itertools.product(range(3), ultrasound.PLANES):
        frame = ultrasound.render(0, index, SIDE, plane=plane, difficulty=(0.2, 0.6, 1.0)[index])
        yield f"ultrasound {plane} {index}", frame.image, frame.labels + 10 * frame.overlay
    for step, frame in enumerate(ultrasound.clip(1, 0, SIDE)):
        yield f"ultrasound clip {step}", frame.image, frame.labels + 10 * frame.overlay


def cardiac_scenes():
    """All vendors, from the base to the apex; ten patients have all conditions."""
    for patient in range(20):
        vendor, position = cardiac.VENDORS[patient % 4], (0.01, 0.1, 0.3, 0.6, 0.9)[patient % 5]
        yield f"cardiac {vendor} {patient}", *cardiac.render(0, patient, position, SIDE, vendor=vendor)


def smear_scenes():
    """Two sets of templates, which have every parasite and artifact between them, and images of one."""
    for seed in range(2):
        templates = smear_drawn.drawn_templates(seed)
        for name, patches in (("cell", templates.cells), ("artifact", templates.artifacts)):
            for number, patch in enumerate(patches):
                yield f"smear {seed} {name} {number}", *patch
        yield f"smear {seed}", *smear.render(0, seed, SIDE, templates=templates, stain=0.5 * seed)[:2]


def overlay_scenes():
    """Where marks are found, with colours and in gray, and what is there once they are removed."""
    for index, method in enumerate(("black", "noise", "bilinear", "fast_marching")):
        rng, colour = np.random.default_rng(index), ((255, 255, 0), (255, 255, 255))[index % 2]
        # integers alone, as a level more or less may decide whether a component is a stroke
        speckle = cv2.resize(rng.integers(0, 130, (40, 40), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        image, points = np.repeat(speckle[..., None], 3, -1), rng.integers(5, SIDE - 5, (2, 2))
        style = overlays.CALIPER_STYLES[index % 3]
        image, _ = overlays.draw_calipers(image, points, style=style, colour=colour, thickness=1 + index // 2)
        image, _ = overlays.draw_text(image, f"HC {index}.7 cm", (20 * index, 30), colour=colour)
        found, in_gray = overlays.detect(image), overlays.detect(image[..., 1], dilation=1)
        yield f"marks, {method}", overlays.remove(image, found, method=method), found + 2 * in_gray


SCENES = dermoscopy_scenes, ultrasound_scenes, cardiac_scenes, smear_scenes, overlay_scenes


def sums(image, labels):
    """Of gray levels and of class numbers, in every block of a grid."""
    height, width = (side // GRID for side in labels.shape)
    total = lambda array: array.reshape(GRID, height, GRID, width).sum((1, 3))
    gray = image.reshape(*labels.shape, -1).mean(-1)
    return np.rint([total(gray), total(labels.astype(float))]).astype(int)


@pytest.fixture(scope="module")
def noted():
    return json.loads(NOTED.read_text())


@pytest.mark.parametrize("scenes", SCENES)
def test_scenes_look_as_they_did(noted, scenes):
    drawn = {name: sums(image, labels) for name, image, labels in scenes()}
    assert drawn.keys() == noted[scenes.__name__].keys()
    for name, found in drawn.items():
        np.testing.assert_allclose(found, noted[scenes.__name__][name], rtol=0, atol=ROUNDED, err_msg=name)


if __name__ == "__main__":
    found = {scenes.__name__: {name: sums(*scene).tolist() for name, *scene in scenes()} for scenes in SCENES}
    NOTED.write_text(json.dumps(found, separators=(",", ":")).replace("]],", "]],\n") + "\n")
