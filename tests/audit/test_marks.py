"""Marks of a case: where they are found, removed and drawn, each against a count by hand."""

import dataclasses

import numpy as np
import pytest

from jaxseg.audit import marks
from jaxseg.data import overlays
from tests.drawings import assert_as_stored, kept

LOOK = marks.Look(
    inks=("green", "white", "gray"),
    chroma=60.0,
    gray_share=0.1,
    away_share=0.05,
    removal="black",
    beside_share=0.1,
    stroke_share=0.03,
    caliper_share=0.1,
    gathered_share=0.2,
)


def case(size=48, at=(10, 14), extent=(8, 12), yellow=(), channels=3):
    """A gray image with a brighter box and yellow pixels."""
    random = np.random.default_rng(0)
    labels = np.zeros((size, size), np.uint8)
    labels[at[0] : at[0] + extent[0], at[1] : at[1] + extent[1]] = 1
    gray = random.integers(40, 60, (size, size, 1)) + 100 * labels[..., None]
    image = np.repeat(gray, channels, -1).astype(np.uint8)
    for y, x in yellow:
        image[y : y + 3, x : x + 3] = (230, 220, 20)
    return {"image": image, "labels": labels}


def test_marks_are_coloured_pixels_and_nothing_else_is_filled_in():
    given = case(yellow=[(20, 30), (34, 8)])
    found = marks.mark(given, 0, LOOK)
    yellow = np.zeros((48, 48), bool)
    yellow[20:23, 30:33] = yellow[34:37, 8:11] = True
    np.testing.assert_array_equal(found.marks, yellow)
    as_is, (beside, clean) = given["image"], found.images[:2]
    assert (clean[yellow] == 0).all() and not (beside[yellow] == 0).any()
    region = (clean != as_is).any(-1)
    shifted = (beside != as_is).any(-1)
    assert region.sum() >= yellow.sum() and not (region & shifted).any()
    np.testing.assert_array_equal(found.touched, region | shifted)
    step = round(0.1 * 48)  # the shapes beside are the marks', a step aside
    moves = [(y * step, x * step) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    assert any((np.roll(region, move, (0, 1)) == shifted).all() for move in moves)


def test_without_marks_an_image_is_left_as_it_is():
    for channels in (1, 3):
        given = case(channels=channels)
        found = marks.mark(given, 0, dataclasses.replace(LOOK))
        assert not found.marks.any() and not found.touched.any()
        for k in (marks.BESIDE, marks.REMOVED):
            np.testing.assert_array_equal(found.images[k], given["image"])


@pytest.mark.parametrize("at", [(4, 6), (34, 30), (20, 2), (38, 38), (2, 38)])
def test_a_phantom_is_the_object_moved_to_a_clear_place_that_looks_like_it(at):
    """A quarter or three eighths of the side aside; nearly as much of it is clear as can be."""
    given = case(at=at)
    given["image"][:, 30:] += 60  # on the right it looks more like the object, which is brighter by 100
    size, mask = 48, given["labels"] > 0
    found = marks.mark(given, 0, LOOK)
    places = []
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            for step in (12, 18) if y or x else ():
                moved = np.zeros_like(mask)
                for row, column in np.argwhere(mask):
                    place = row + y * step, column + x * step
                    if all(0 <= p < size for p in place):
                        moved[place] = True
                clear = moved & ~mask
                unlike = abs(given["image"][clear].mean() - given["image"][mask].mean()) if clear.any() else np.inf
                places.append((clear.sum(), unlike, moved))
    most = max(clear for clear, *_ in places)
    _, _, wanted = min((one for one in places if one[0] >= 0.95 * most), key=lambda one: one[1])
    assert most == mask.sum()
    np.testing.assert_array_equal(found.phantom, wanted)
    assert np.argwhere(found.phantom).mean(0)[1] > np.argwhere(mask).mean(0)[1] or at[1] > 18


def test_calipers_stand_at_the_ends_of_the_phantom_or_gather_in_its_middle():
    given = case(size=60, at=(24, 20), extent=(9, 15))
    found = marks.mark(given, 1, LOOK)
    clean, gathered, around = found.images[[marks.REMOVED, marks.gathered(0), marks.around(0)]]
    changed = [np.argwhere((image != clean).any(-1)) for image in (gathered, around)]
    middle = np.argwhere(found.phantom).mean(0)
    assert all(abs(places.mean(0) - middle).max() < 1.5 for places in changed)
    near, far = (abs(places - middle).max(0) for places in changed)
    axes = overlays.ellipse_axes(found.phantom)
    reach = abs(np.concatenate(axes) - middle).max(0)
    half = round(0.1 * 60) / 2 + 1  # of a caliper
    assert (abs(far - reach) <= half).all() and (abs(near - 0.2 * reach) <= half).all() and (near < far).all()
    strokes = (gathered != clean).any(-1) | (around != clean).any(-1)
    assert found.drawn[strokes].all() and found.drawn.sum() > strokes.sum()
    assert tuple(around[tuple(changed[1][0])]) == (130, 255, 130)
    for ink, level in ((1, 255), (2, 150)):  # white and gray ones stand where the coloured do
        for picture, places in zip((marks.gathered(ink), marks.around(ink)), changed, strict=True):
            assert (found.images[picture][tuple(places.T)] == level).all()
            same = np.ones((60, 60), bool)
            same[tuple(places.T)] = False
            np.testing.assert_array_equal(found.images[picture][same], clean[same])
    strokes = np.zeros((60, 60), bool)
    strokes[tuple(changed[1].T)] = True
    np.testing.assert_array_equal(found.strokes, strokes)
    own = np.where(strokes[..., None], np.median(given["image"][given["labels"] > 0], 0).astype(np.uint8), clean)
    np.testing.assert_array_equal(found.images[marks.OWN], own)


def test_coloured_inks_need_three_channels():
    assert LOOK.inks_of(3) == ["green", "white", "gray"] and LOOK.inks_of(1) == ["white", "gray"]
    given, gray = case(), case(channels=1)
    coloured, single = (marks.mark(one, 0, LOOK).images for one in (given, gray))
    assert len(coloured) == 4 + 6 and len(single) == 4 + 4
    for k in (*range(marks.OWN + 1), *(marks.OWN + 1 + k for k in range(4))):
        np.testing.assert_array_equal(single[k][..., 0], coloured[k + 2 * (k > marks.OWN)][..., 0])


@pytest.mark.parametrize("extent", [(9, 15), (2, 2), (1, 7)])
def test_specks_are_squares_of_the_object_where_the_calipers_stand(extent):
    given = case(size=60, at=(24, 20), extent=extent)
    found = marks.mark(given, 0, LOOK)
    clean, specked = found.images[[marks.REMOVED, marks.SPECKS]]
    ends = np.rint(np.concatenate(overlays.ellipse_axes(found.phantom))).astype(int)
    where = np.zeros((60, 60), bool)
    for y, x in ends:
        where[y - 3 : y + 4, x - 3 : x + 4] = True  # a caliper has 0.1 of 60 pixels, and so 7
    np.testing.assert_array_equal(found.specks, where)
    np.testing.assert_array_equal(specked[~where], clean[~where])
    inside = {tuple(v) for v in given["image"][given["labels"] > 0]}
    assert {tuple(v) for v in specked[where]} <= inside


def test_white_strokes_are_marks_away_from_the_object_and_coloured_ones_anywhere():
    random = np.random.default_rng(0)
    labels = np.zeros((64, 64), np.uint8)
    labels[20:40, 20:40] = 1
    clean = np.repeat(random.integers(30, 50, (64, 64, 1)), 3, -1).astype(np.uint8)
    look = dataclasses.replace(LOOK, gray_share=0.5)
    points = np.array([[30.0, 30.0], [50.0, 52.0], [8.0, 8.0], [42.0, 30.0]])  # the last is close to it
    for colour, wanted in (((255, 255, 255), [1, 2]), ((170, 170, 170), [1, 2]), ((255, 255, 0), [0, 1, 2, 3])):
        image, _ = overlays.draw_calipers(clean, points, style="plus", size=7, colour=colour)
        _, covered = overlays.draw_calipers(clean, points[wanted], style="plus", size=7, colour=colour)
        found = marks.found(image, labels, look)
        assert found[covered].mean() > 0.9 and (found & (labels > 0)).any() == (len(wanted) == 4)
        gray = marks.found(image[..., :1], labels, look)
        assert gray[covered & (labels == 0)].mean() > 0.6 and not (gray & (labels > 0)).any()


def test_an_empty_mask_has_no_phantom():
    given = case()
    given["labels"][:] = 0
    found = marks.mark(given, 0, LOOK)
    assert not found.phantom.any() and not found.drawn.any()


def test_pictures_of_marks_stay_as_they_are(request):
    found = {}
    for number, (at, size) in enumerate((((10, 14), 48), ((40, 30), 64), ((3, 50), 210))):
        made = marks.mark(case(size=size, at=at, yellow=[(20, 30), (at[0] + 2, 40)]), number, LOOK)
        columns = {f"image {k}": image for k, image in enumerate(made.images)}
        columns |= {"marks": made.marks, **made.masks}
        flat = {name: np.asarray(values, float).ravel() for name, values in columns.items()}
        found[str(size)] = {name: kept([{"": v} for v in values[::3]]) for name, values in flat.items()}
    assert_as_stored(request.path.parent / "drawn" / "marks.json", found)
