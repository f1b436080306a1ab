"""Surface distances against a loop over all pairs, closed forms and their conventions."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics import surface


def slow_faces(mask, spacing):
    """Surface pixels of a mask with the area of their exposed faces, pixel by pixel and face by face."""
    faces = {}
    for at in np.ndindex(mask.shape):
        if not mask[at]:
            continue
        area = 0.0
        for axis in range(mask.ndim):
            for step in (-1, 1):
                there = list(at)
                there[axis] += step
                inside = 0 <= there[axis] < mask.shape[axis] and mask[tuple(there)]
                area += 0.0 if inside else np.prod([s for i, s in enumerate(spacing) if i != axis])
        if area:
            faces[at] = area
    return faces


def slow_nearest(faces, others, spacing):
    """Distance to the nearest of the others and area, per surface pixel, in order of distance."""

    def nearest(at):
        return min(np.sqrt(sum(((i - j) * s) ** 2 for i, j, s in zip(at, o, spacing, strict=True))) for o in others)

    return sorted((nearest(at), area) for at, area in faces.items())


def slow_scores(a, b, spacing, tolerance):
    a, b = slow_faces(a, spacing), slow_faces(b, spacing)
    if not a and not b:
        return np.nan, np.nan
    if not a or not b:
        return np.inf, 0.0
    sides = slow_nearest(a, b, spacing), slow_nearest(b, a, spacing)
    directed = []
    for side in sides:
        total = sum(area for _, area in side)
        reached = 0.0
        for distance, area in side:
            reached += area
            if reached >= 0.95 * total - 1e-9:
                directed.append(distance)
                break
    within = sum(area for side in sides for distance, area in side if distance <= tolerance + 1e-9)
    return max(directed), within / sum(area for side in sides for _, area in side)


@pytest.mark.parametrize(
    ("shape", "spacing", "share"),
    [((3, 9, 8), (1.0, 1.0), 0.6), ((3, 9, 8), (0.7, 2.5), 0.3), ((2, 4, 5, 6), (5.0, 1.0, 1.5), 0.2)],
)
def test_they_are_the_loop_over_all_pairs(shape, spacing, share):
    random = np.random.default_rng(0)
    labels, predictions = (random.random((2, *shape)) < share) * random.integers(1, 3, (2, *shape))
    predictions[0] = labels[0]
    predictions[0][labels[0] == 2] = 0  # class 2 is missed
    options = {"num_classes": 4, "spacing": spacing}  # class 3 is nowhere
    hausdorff = surface.hausdorff95(labels, predictions, **options)
    dice = surface.surface_dice(labels, predictions, **options, tolerance=1.5)
    assert hausdorff.shape == dice.shape == (shape[0], 3)
    for i in range(shape[0]):
        for k in (1, 2, 3):
            expected = slow_scores(labels[i] == k, predictions[i] == k, spacing, 1.5)
            np.testing.assert_allclose([hausdorff[i, k - 1], dice[i, k - 1]], expected, rtol=1e-12)
    assert np.isinf(hausdorff[0, 1]) and np.isnan(hausdorff[:, 2]).all()


def squares(shift, side=10, size=40):
    masks = np.zeros((2, 1, size, size), np.int32)
    masks[0, 0, 12 : 12 + side, 5 : 5 + side] = 1
    masks[1, 0, 12 : 12 + side, 5 + shift : 5 + shift + side] = 1
    return masks


def test_two_shifted_squares():
    a, b = squares(3)
    # the columns 5 to 7 of the first lie beside the second: 3 mm for the outermost, which is more than 5 % of its edge
    assert surface.hausdorff95(a, b, num_classes=2, spacing=(1, 1)) == 3
    assert surface.hausdorff95(a, b, num_classes=2, spacing=(1, 0.5)) == 1.5
    assert surface.surface_dice(a, b, num_classes=2, spacing=(1, 1), tolerance=3) == 1
    # on the other's surface lie, above and below, 7 pixels and one corner's second face, of 40 faces
    dice = surface.surface_dice(a, b, num_classes=2, spacing=(1, 1), tolerance=0)
    assert dice == pytest.approx(2 * (7 + 1) / 40)


def test_concentric_discs():
    y, x = np.mgrid[-50:51, -50:51]
    radius = np.hypot(y, x)
    small, large = ((radius <= r).astype(np.int32)[None] for r in (20, 30))
    assert surface.hausdorff95(small, large, num_classes=2, spacing=(1, 1))[0, 0] == pytest.approx(10, abs=1)
    assert surface.hausdorff95(small, large, num_classes=2, spacing=(0.2, 0.2))[0, 0] == pytest.approx(2, abs=0.2)
    options = {"num_classes": 2, "spacing": (1, 1)}
    assert surface.surface_dice(small, large, **options, tolerance=11)[0, 0] == 1
    assert surface.surface_dice(small, large, **options, tolerance=8.5)[0, 0] == 0


def test_the_boxes_of_a_stack_weigh_by_their_area():
    # a box of 4 x 6 x 6 voxels of 10 x 1 x 1 mm, and the same without its uppermost slice
    box = np.zeros((1, 8, 10, 10), np.int32)
    box[:, 2:6, 2:8, 2:8] = 1
    cut = box.copy()
    cut[:, 2] = 0
    options = {"num_classes": 2, "spacing": (10, 1, 1)}
    caps, slice_sides = 36, 6 * 4 * 10
    # the uppermost cap and sides of the box are 10 mm off; of the cut one's cap, all that is not its sides too
    far = caps + slice_sides + 16
    total = (2 * caps + 4 * slice_sides) + (2 * caps + 3 * slice_sides)
    dice = surface.surface_dice(box, cut, **options, tolerance=0)
    assert dice[0, 0] == pytest.approx(1 - far / total)
    assert surface.hausdorff95(box, cut, **options) == 10


def test_five_percent_of_a_surface_may_lie_anywhere():
    square = np.zeros((1, 50, 50), np.int32)
    square[:, 1:31, 1:31] = 1  # 120 faces
    one, two = square.copy(), square.copy()
    one[0, 45, 15] = two[0, 45, 15] = two[0, 45, 20] = 1  # 4 of 124 faces, 8 of 128
    options = {"num_classes": 2, "spacing": (1, 1)}
    assert surface.hausdorff95(square, one, **options) == 0
    assert surface.hausdorff95(square, two, **options) == 15
    assert surface.hausdorff95(two, square, **options) == 15


@pytest.mark.parametrize("step", [1.0, 0.1, 0.3, 0.7])
def test_a_share_of_exactly_95_percent_is_enough(step):
    square = np.zeros((1, 50, 50), np.int32)
    square[:, 1:20, 1:20] = 1  # 76 faces
    stray = square.copy()
    stray[0, 45, 10] = 1  # 4 more
    assert surface.hausdorff95(square, stray, num_classes=2, spacing=(step, step)) == 0


def test_what_is_in_one_or_none_has_its_value():
    empty, full = np.zeros((1, 4, 4), np.int32), np.ones((1, 4, 4), np.int32)
    options = {"num_classes": 2, "spacing": (1, 1)}
    for a, b in ((empty, full), (full, empty)):
        assert surface.hausdorff95(a, b, **options) == np.inf
        assert surface.hausdorff95(a, b, **options, missing=5.5) == 5.5
        assert surface.surface_dice(a, b, **options, tolerance=1e6) == 0
    assert np.isnan(surface.hausdorff95(empty, empty, **options, missing=5.5))
    assert np.isnan(surface.surface_dice(empty, empty, **options, tolerance=1))
    assert surface.hausdorff95(full, full, **options) == 0
    assert surface.surface_dice(full, full, **options, tolerance=0) == 1


@pytest.fixture(scope="module")
def masks():
    random = np.random.default_rng(1)
    return (random.random((2, 2, 7, 9)) < 0.3).astype(np.int32)


def scores(a, b, spacing, tolerance=1.0):
    options = {"num_classes": 2, "spacing": spacing}
    return np.stack([surface.hausdorff95(a, b, **options), surface.surface_dice(a, b, **options, tolerance=tolerance)])


def test_they_are_symmetric_and_know_neither_place_nor_axis(masks):
    a, b = masks
    expected = scores(a, b, (1.0, 2.0))
    np.testing.assert_array_equal(scores(b, a, (1.0, 2.0)), expected)
    widths = ((0, 0), (3, 1), (0, 4))  # a mask at the border ends there
    np.testing.assert_array_equal(scores(np.pad(a, widths), np.pad(b, widths), (1.0, 2.0)), expected)
    np.testing.assert_allclose(scores(a.mT, b.mT, (2.0, 1.0)), expected, rtol=1e-12)


def test_they_scale_with_the_spacing(masks):
    near, far = scores(*masks, (1.0, 2.0)), scores(*masks, (3.0, 6.0), tolerance=3.0)
    np.testing.assert_allclose(far, near * np.array([3.0, 1.0])[:, None, None], rtol=1e-12)


def test_every_case_may_have_its_spacing(masks):
    a, b = masks
    both = scores(a, b, np.array([[1.0, 2.0], [0.5, 0.7]]))
    np.testing.assert_array_equal(both[:, :1], scores(a[:1], b[:1], (1.0, 2.0)))
    np.testing.assert_array_equal(both[:, 1:], scores(a[1:], b[1:], (0.5, 0.7)))


def test_jax_arrays_and_bools_are_taken(masks):
    a, b = masks
    np.testing.assert_array_equal(scores(jnp.asarray(a) > 0, jnp.asarray(b) > 0, (1, 1)), scores(a, b, (1, 1)))


def test_a_tolerance_forgives_rounding():
    a, b = squares(3)
    assert surface.surface_dice(a, b, num_classes=2, spacing=(0.1, 0.1), tolerance=0.3) == 1  # 3 * 0.1 > 0.3


def test_what_they_cannot_score_is_named(masks):
    a, b = masks
    options = {"num_classes": 2, "spacing": (1, 1)}
    for score in (surface.hausdorff95, lambda *x, **o: surface.surface_dice(*x, **o, tolerance=1)):
        with pytest.raises(ValueError, match="differ in shape"):
            score(a, b[:1], **options)
        with pytest.raises(ValueError, match="add the batch axis"):
            score(a[0], b[0], **options)
        with pytest.raises(TypeError, match="take the argmax"):
            score(a, b * 0.5, **options)
        with pytest.raises(ValueError, match="at least 2"):
            score(a, b, num_classes=1, spacing=(1, 1))
        with pytest.raises(ValueError, match=r"spacing \(3,\) does not fit labels \(2, 7, 9\); give 2 numbers"):
            score(a, b, num_classes=2, spacing=(1, 1, 1))
        with pytest.raises(ValueError, match="must be positive"):
            score(a, b, num_classes=2, spacing=(1, 0))
    for tolerance in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"tolerance is {tolerance} mm"):
            surface.surface_dice(a, b, **options, tolerance=tolerance)
