"""Functions whose truth is known: the audit says what they use, and nothing of those that use nothing."""

import numpy as np
import pytest
from scipy import ndimage

from jaxseg.audit import findings
from jaxseg.audit.probes import gray_levels, overlay_marks, translation
from jaxseg.audit.subject import Subject
from tests.audit import closed_forms

SIZE, CASES = 48, 10


@pytest.mark.parametrize(
    ("name", "world", "probe"),
    [
        ("threshold, its largest part", "several", translation),
        ("threshold, parts of at least half the largest", "several", translation),
        ("threshold, closed within the image", "anywhere", translation),
        ("the brightest tenth", "middle", translation),
        ("threshold, without parts that touch the border", "middle", translation),
        ("threshold, parts whose centre is central", "middle", translation),
        ("Otsu's threshold", "machines", gray_levels),
        ("median filter, threshold; or yellow", "calipers", overlay_marks),
        ("hull of yellow strokes", "middle", overlay_marks),
        ("threshold, the part with most yellow", "calipers", overlay_marks),
    ],
)
def test_what_a_function_uses_is_found_and_nothing_else(answer, name, world, probe):
    cases = closed_forms.drawn(world, CASES, SIZE)
    asked = Subject(network=closed_forms.network(name, SIZE), test=cases, view="original", batch_size=8)
    found, _ = answer(probe.PROBE, asked)
    kinds = {one.kind.name for one in found.candidates if one.found and one.kind.is_shortcut}
    assert kinds == closed_forms.FORMS[name].truth(world)
    assert findings.verdict(found.candidates).verdict == ("yes" if kinds else "no")


@pytest.mark.parametrize("name", ["threshold, its largest part", "threshold, parts of at least half the largest"])
def test_parts_are_kept_by_their_size_alone(name):
    """Whatever their order, and at the border too."""
    areas = {(0, 0, 4, 5): 20, (8, 1, 3, 3): 9, (10, 8, 2, 5): 10, (2, 9, 6, 3): 18}
    image = np.full((16, 16, 3), closed_forms.BACKGROUND, np.uint8)
    for y, x, height, width in areas:
        image[y : y + height, x : x + width] = closed_forms.OBJECT
    numbered, _ = ndimage.label(closed_forms.FORMS[name].function(image))
    kept = sorted(np.bincount(numbered.ravel())[1:].tolist())
    assert kept == ([20] if "largest part" in name else [10, 18, 20])


def test_a_closing_loses_objects_at_the_border_unless_the_image_is_wider():
    image = np.full((16, 16, 3), closed_forms.BACKGROUND, np.uint8)
    image[4:12, :9] = closed_forms.OBJECT
    there = closed_forms.threshold(image)
    wider, within = (
        closed_forms.FORMS[f"threshold, closed {how}"].function(image)
        for how in ("in a wider image", "within the image")
    )
    np.testing.assert_array_equal(wider, there)
    np.testing.assert_array_equal(within, there & (np.arange(16) >= 2))  # by as many pixels as it is eroded
