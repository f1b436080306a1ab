"""Audits of runs whose images are no squares of gray levels: other units, sides that differ, padding, windows."""

import dataclasses

import numpy as np
import pytest

from jaxseg.audit import marks
from jaxseg.audit.probes import accuracy, calibration, gray_levels, overlay_marks, padding, translation
from jaxseg.data import overlays
from jaxseg.data.normalisation import MeanStd
from jaxseg.data.windows import Tiling

UNITS = MeanStd(mean=(100, 90, 80), std=(50, 60, 40))


def in_units(cases):
    """The same cases as a run with this normalisation has them."""
    scales = np.stack([np.stack(UNITS.scale(image)) for image in cases.images])
    return dataclasses.replace(cases, images=np.stack([UNITS(image) for image in cases.images]), scales=scales)


def marked(cases):
    """Yellow plus marks at the squares' corners, and every second case of another domain, which is darker."""
    images = []
    for number, case in enumerate(cases):
        there = np.argwhere(case["labels"])
        image = case["image"] - np.uint8(20 * (number % 2))
        images.append(overlays.draw_calipers(image, np.array([there.min(0), there.max(0)]), style="plus", size=3)[0])
    domains = tuple("AB"[number % 2] for number in range(len(cases)))
    return dataclasses.replace(cases, images=np.stack(images), domains=domains)


def assert_same(found, wanted, *, levels=0):
    """All arrays of a probe, pictures to so many levels."""
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if name.endswith("pictures"):
            assert abs(values.astype(int) - found[name].astype(int)).max() <= levels, name
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("probe", [accuracy, gray_levels, overlay_marks, translation], ids=lambda probe: probe.__name__)
def test_a_threshold_is_judged_alike_in_all_units(networks, subject_of, squares, answer, probe):
    """Case by case the same numbers and the same pictures, whether a network is given levels or something else."""
    cases = marked(squares(8, size=48))
    model = {False: networks.Threshold(), True: networks.Threshold(level=(127.5 - 100) / 50)}
    of_levels, of_units = (
        answer(probe.PROBE, subject_of(model[other], in_units(cases) if other else cases))[1] for other in (False, True)
    )
    assert_same(of_units, of_levels, levels=1)  # half a level is rounded either way
    if probe is overlay_marks:
        assert np.isfinite(of_units["removal"]).all() and (of_units["insertion_dice"] > 0.9).all()


def test_what_no_change_touches_stays_to_the_bit(squares, settings):
    cases = in_units(marked(squares(2, size=48)))
    for number, case in enumerate(cases):
        case["image"] = (case["image"] + 0.003).astype(np.float16)  # no whole levels
        made = marks.mark(case, number, settings(overlay_marks.PROBE))
        changed = (made.images != case["image"]).any(-1)
        assert made.images.dtype == np.float16
        assert 0 < changed[marks.REMOVED].sum() <= np.count_nonzero(made.touched)
        assert not (changed[marks.REMOVED] & ~made.touched).any()
        around = made.images[marks.around(0)]
        strokes = (around != made.images[marks.REMOVED]).any(-1)
        assert strokes.any() and not (strokes & ~made.drawn).any()
        drawn = around[strokes]
        wanted = (np.array(marks.INKS["yellow"]) - UNITS.mean) / UNITS.std
        np.testing.assert_allclose(drawn.astype(float), np.broadcast_to(wanted, drawn.shape), rtol=1e-3)


def test_gray_levels_of_floats_move_as_those_of_bytes_and_stay_where_the_map_does_nothing():
    random = np.random.default_rng(0)
    image = random.integers(20, 200, (30, 20, 3)).astype(np.uint8)
    other = np.clip(image.astype(int) ** 2 // 200, 0, 255).astype(np.uint8)
    counts = lambda case: gray_levels.histograms([case | {"labels": np.zeros((30, 20), np.uint8)}]).sum(0)
    own, theirs = (counts({"image": one}) for one in (image, other))
    levels = gray_levels.gray_map(own, theirs)
    case = {"image": UNITS(image), "scale": np.stack(UNITS.scale(image))}
    np.testing.assert_array_equal(counts(case), own)
    found = gray_levels.mapped(case, levels, own > 0).astype(float)
    wanted = gray_levels.mapped({"image": image}, levels, own > 0)
    np.testing.assert_allclose(found * UNITS.std + UNITS.mean, wanted, atol=0.1)
    same = gray_levels.gray_map(own, own)
    between = (case["image"] + 0.003).astype(np.float16)  # no whole levels
    np.testing.assert_array_equal(gray_levels.mapped(case | {"image": between}, same, own > 0), between)
    ordered = np.argsort(between[..., 0], axis=None)
    moved = gray_levels.mapped(case | {"image": between}, levels, own > 0)[..., 0].ravel()[ordered]
    assert (np.diff(moved.astype(float)) >= 0).all()


# Sides that differ.


def wide(cases, *, transposed=False):
    """Squares of 48 px as images of 40 x 56 px, which lie elsewhere in each; or these transposed."""
    random = np.random.default_rng(0)
    cut = {"images": [], "labels": []}
    for number in range(len(cases)):
        shift = random.integers(-8, 9)
        for name, arrays in cut.items():
            whole = np.roll(getattr(cases, name)[number][4:-4], shift, 1)
            whole = np.concatenate([whole, whole[:, :1].repeat(8, 1)], 1)
            arrays.append(whole.swapaxes(0, 1) if transposed else whole)
    return dataclasses.replace(cases, **{name: np.stack(arrays) for name, arrays in cut.items()})


@pytest.mark.parametrize(
    ("probe", "names"), [(translation, ("found", "called", "dice")), (padding, ("strip", "changed")), (accuracy, ())]
)
def test_transposed_images_have_the_same_numbers(networks, subject_of, squares, answer, probe, names):
    model = networks.PaddedSum() if probe is padding else networks.Threshold(blind=6)
    cases = squares(8, size=48)
    (lying, arrays), (upright, others) = (
        answer(probe.PROBE, subject_of(model, wide(cases, transposed=transposed))) for transposed in (False, True)
    )
    for name in names or arrays:
        np.testing.assert_allclose(arrays[name], others[name], rtol=1e-6, err_msg=name)
    told = lambda made: [(row.keys, row.estimate.n) for row in made.rows]
    assert told(lying) == told(upright)
    if probe is translation:
        assert 0 < lying.candidates[0].estimate.mean < 1
        assert "within 5 of 40 px of the line" in lying.rows[0]["where"]
    if probe is accuracy:
        assert [row["where"] for row in lying.rows][-1] == "ring up to 20 px from the centre"


@pytest.mark.parametrize("part", [np.s_[20:60], np.s_[:, 20:60]])
def test_an_empty_place_is_aside_by_a_share_of_the_shorter_side(squares, settings, part):
    cut = {name: array[part] for name, array in squares(1, size=80)[0].items() if name in ("image", "labels")}
    cut["labels"] = cut["labels"] * 0
    cut["labels"][17:23, 17:23] = 1
    made = marks.mark(cut, 0, settings(overlay_marks.PROBE))
    moved = np.argwhere(made.phantom).mean(0) - np.argwhere(cut["labels"]).mean(0)
    assert made.phantom.sum() == 36 and set(abs(moved)) <= {0, 10, 15}  # a quarter or three eighths of 40 px


# Padding.


def padded(cases, grid=(64, 80), fill=7):
    """The cases in the middle of a grid; what is around them counts nowhere and holds something."""
    count, height, width = cases.labels.shape
    top, left = (grid[0] - height) // 2, (grid[1] - width) // 2
    images = np.full((count, *grid, cases.num_channels), fill, np.uint8)
    labels = np.zeros((count, *grid), np.uint8)
    valid = np.zeros((count, *grid), bool)
    part = np.s_[:, top : top + height, left : left + width]
    images[part], labels[part], valid[part] = cases.images, cases.labels, True
    insides = np.array([[[top, left], [top + height, left + width]]] * count, np.int32)
    return dataclasses.replace(cases, images=images, labels=labels, valid=valid, insides=insides)


@pytest.mark.parametrize(
    ("probe", "names"),
    [
        (overlay_marks, ("removal", "insertion", "insertion_dice")),
        (gray_levels, ("own", "theirs")),
        (calibration, ("sums", "brier")),
    ],
)
def test_what_is_padded_counts_nowhere(networks, subject_of, squares, answer, probe, names):
    """Also where the network calls it foreground."""
    cases = marked(wide(squares(8, size=48)))
    (_, wanted), (_, found) = (
        answer(probe.PROBE, subject_of(networks.Threshold(), some)) for some in (cases, padded(cases, fill=250))
    )
    for name in names:
        assert not np.isnan(wanted[name]).all()
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)


def test_marks_are_neither_sought_nor_drawn_in_padding(squares, settings):
    case = wide(squares(1, size=48))
    case.images[0, :2, :9] = (255, 255, 0)
    whole = padded(case, fill=7)
    made = marks.mark(whole[0], 0, settings(overlay_marks.PROBE))
    alone = marks.mark(case[0], 0, settings(overlay_marks.PROBE))
    outside = ~whole.valid[0]
    assert (made.images[:, outside] == 7).all()
    for name in ("marks", "touched", "drawn", "phantom"):
        assert not getattr(made, name)[outside].any()
        np.testing.assert_array_equal(getattr(made, name)[~outside], getattr(alone, name).ravel())
    np.testing.assert_array_equal(made.images[:, ~outside], alone.images.reshape(len(made.images), -1, 3))


def test_padding_has_no_gray_levels_that_could_be_mapped(squares):
    whole = padded(wide(squares(1, size=48)), fill=90)
    case, every = whole[0], np.ones((3, 256), bool)
    mapped = gray_levels.mapped(case, np.full((3, 256), 4, np.uint8), every)
    assert (mapped[~case["valid"]] == 90).all() and (mapped[case["valid"]] == 4).all()
    of_units = case | {"image": UNITS(case["image"]), "scale": np.stack(UNITS.scale(case["image"]))}
    mapped = gray_levels.mapped(of_units, np.full((3, 256), 4, np.uint8), every)
    np.testing.assert_array_equal(mapped[~case["valid"]], of_units["image"][~case["valid"]])
    np.testing.assert_allclose(mapped[case["valid"]] * UNITS.std + UNITS.mean, 4, atol=0.1)


def test_an_empty_place_is_where_pixels_count(squares, settings):
    """Eight places are as good as each other, and in one direction alone there is annotation."""
    case = squares(1, size=48)[0]
    valid = case["labels"] > 0
    valid[:, 24:] = True
    made = marks.mark(case | {"valid": valid}, 0, settings(overlay_marks.PROBE))
    left, right = np.argwhere(made.phantom)[:, 1].min(), np.argwhere(case["labels"])[:, 1].min()
    assert left >= right + 12


def test_pixels_without_annotation_are_not_scored(networks, subject_of, squares, answer):
    """A frame that a network wrongly calls foreground, in every picture, and whose levels no other image has."""
    cases = marked(squares(8, size=48))
    frame = np.ones(cases.labels.shape, bool)
    frame[:, 10:-10, 10:-10] = False
    cases.images[frame] = 255
    perfect, spoilt = {}, {}
    for name, wanted in (("valid", perfect), ("all", spoilt)):
        valid = ~frame if name == "valid" else np.ones(frame.shape, bool)
        some = dataclasses.replace(cases, valid=valid)
        for probe in (overlay_marks, gray_levels):
            wanted |= answer(probe.PROBE, subject_of(networks.Threshold(), some))[1]
    for name in ("insertion_dice", "removal", "own"):  # calipers take some of a square
        assert np.nanmin(perfect[name]) > 0.98 and np.nanmax(spoilt[name]) < 0.9, name
    assert np.nanmax(perfect["insertion"]) == 0 < 0.1 < np.nanmin(spoilt["insertion"])
    case = dataclasses.replace(cases, valid=~np.all(cases.images == 255, -1))[0]
    assert gray_levels.histograms([case])[:, 2, 255].sum() == 0  # of blue, which no caliper has
    assert gray_levels.histograms([case | {"valid": np.ones_like(case["valid"])}])[0, 2, 255] == 48**2 - 28**2


# Patches.


@pytest.mark.parametrize("probe", [accuracy, calibration, translation], ids=lambda probe: probe.__name__)
def test_a_window_over_a_network_of_single_pixels_changes_nothing(networks, subject_of, squares, answer, probe):
    subject = subject_of(networks.Threshold(), marked(wide(squares(8, size=48))))
    slid = dataclasses.replace(subject, tiling=Tiling((16, 24), 0.5, "gaussian", 64))
    whole, tiled = (answer(probe.PROBE, one)[1] for one in (subject, slid))
    for name, values in whole.items():
        np.testing.assert_allclose(tiled[name], values, atol=1e-5, err_msg=name)
