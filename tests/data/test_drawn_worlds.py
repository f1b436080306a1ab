"""Drawn scenes look as they did when `drawn_worlds.json` was made: results of earlier versions are of the same images.

Where a world is to look otherwise, its data sets are others, and `python -m tests.data.test_drawn_worlds` notes them.
"""

import json
import pathlib

import numpy as np
import pytest

from jaxseg.data.synthetic import cardiac, dermoscopy, smear, smear_drawn, ultrasound

NOTED = pathlib.Path(__file__).with_name("drawn_worlds.json")
SIDE, BLOCK = 96, 8


def scenes():
    """Name -> image and labels, of every kind of scene of every world."""
    for index in range(4):
        yield f"dermoscopy {index}", *dermoscopy.render(0, index, SIDE)
    for plane in ultrasound.PLANES:
        for index in range(3):
            frame = ultrasound.render(0, index, SIDE, plane=plane)
            yield f"ultrasound {plane} {index}", frame.image, frame.labels
    for vendor in cardiac.VENDORS:
        for patient in range(2):
            yield f"cardiac {vendor} {patient}", *cardiac.render(0, patient, 0.4 + 0.3 * patient, SIDE, vendor=vendor)
    templates = smear_drawn.drawn_templates(0)
    for index in range(2):
        yield f"smear {index}", *smear.render(0, index, SIDE, templates=templates)[:2]


def blocks(image, labels):
    """Mean gray level, and share of labelled pixels in percent, of every block."""
    gray = image.reshape(*labels.shape, -1).mean(-1)
    mean = lambda array: array.reshape(SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK).mean((1, 3))
    return np.stack([mean(gray), 100 * mean((labels > 0).astype(float))])


@pytest.fixture(scope="module")
def noted():
    return {name: np.array(numbers, float) for name, numbers in json.loads(NOTED.read_text()).items()}


@pytest.fixture(scope="module")
def drawn():
    return {name: blocks(image, labels) for name, image, labels in scenes()}


def test_scenes_look_as_they_did(noted, drawn):
    assert noted.keys() == drawn.keys()
    for name, found in drawn.items():
        # noted to a level; machines may round a pixel in a thousand otherwise
        np.testing.assert_allclose(found, noted[name], rtol=0, atol=0.6, err_msg=name)


if __name__ == "__main__":
    NOTED.write_text(
        json.dumps({name: blocks(image, labels).round().astype(int).tolist() for name, image, labels in scenes()})
    )
