"""Probes that change a cue: each finds the network that uses it, and is silent on the one that does not."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxseg.audit import moving
from jaxseg.audit.probe import BORDER, OVERLAY, SCANNER, NotAskedError
from jaxseg.audit.probes import distances, gray_levels, overlay_marks, padding, position, translation
from jaxseg.data import overlays, pipeline
from jaxseg.metrics import regional

# Moving.


@functools.partial(jax.jit, static_argnames="width")
def cut(images, labels, width):
    made = moving.cut(images, labels, width=width)
    return made.images, made.back(made.images[..., 0]), made.visible, made.strip


def test_a_cut_shows_the_same_pixels_twice_at_every_side():
    n, width = 16, 3
    images = np.arange(2 * n * n, dtype=np.float32).reshape(2, n, n, 1)
    labels = np.zeros((2, n, n), np.int32)
    labels[0, 5:10, 6:13] = 1  # centre 7, 9
    pictures, returned, visibles, strips = (np.asarray(x) for x in cut(images, labels, width))
    for side, name in enumerate(moving.SIDES):
        visible = visibles[side, 0]
        # what is visible is where it was, in both pictures
        for picture in range(2):
            np.testing.assert_array_equal(returned[picture, side, 0][visible], images[0, ..., 0][visible])
        line = {"left": np.s_[:, 9:], "right": np.s_[:, :10], "top": np.s_[7:], "bottom": np.s_[:8]}[name]
        wanted = np.zeros((n, n), bool)
        wanted[line] = True
        np.testing.assert_array_equal(visible, wanted)
        assert strips[side, 0].sum() == width * n
    # left: columns 9 ... are moved to 0 ..., and mirrored about the line between 8 and 9
    mirrored, moved = pictures[:, 0, 0, ..., 0]
    np.testing.assert_array_equal(moved[:, :7], images[0, :, 9:, 0])
    np.testing.assert_array_equal(moved[:, 7:], images[0, :, 15:6:-1, 0])  # mirrored at the far border
    np.testing.assert_array_equal(mirrored[:, 2:9], images[0, :, 15:8:-1, 0])


def test_every_side_is_the_left_one_of_a_turned_image():
    n, width = 16, 3
    images = np.random.default_rng(0).random((2, n, n, 1), np.float32)
    labels = np.zeros((2, n, n), np.int32)
    labels[0, 3:10, 6:13], labels[1, 5:14, 2:9] = 1, 2
    turns = {
        "left": lambda x: x,
        "right": lambda x: x[:, :, ::-1],
        "top": lambda x: x.swapaxes(1, 2),
        "bottom": lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1],
    }
    pictures, returned, visible, strips = (np.asarray(x) for x in cut(images, labels, width))
    for side, name in enumerate(moving.SIDES):
        turned = turns[name]
        found = cut(np.ascontiguousarray(turned(images)), np.ascontiguousarray(turned(labels)), width)
        for of_left, own in zip(found[:2], (pictures, returned), strict=True):
            for picture in range(2):
                np.testing.assert_array_equal(np.asarray(of_left)[picture, 0], turned(own[picture, side]))
        for of_left, own in zip(found[2:], (visible, strips), strict=True):
            np.testing.assert_array_equal(np.asarray(of_left)[0], turned(own[side]))


def test_a_line_has_room_for_the_strip_on_both_sides():
    """Centres from 3 to 13 of 16 px are cut for a strip of 3 px; the strip is the first 3 columns from the line on."""
    for centre in range(1, 15):
        labels = np.zeros((2, 16, 16), np.int32)
        labels[0, 6:9, centre - 1 : centre + 2] = 1
        *_, visible, strips = (np.asarray(x) for x in cut(np.zeros((2, 16, 16, 1), np.float32), labels, 3))
        room = 3 <= centre <= 13
        assert visible[0, 0].any() == room and visible[0, 0].sum() == room * 16 * (16 - centre)
        np.testing.assert_array_equal(
            np.flatnonzero(strips[0, 0].any(0)), np.arange(centre, centre + 3) if room else []
        )


@functools.partial(jax.jit, static_argnames="width")
def shown(images, labels, width):
    made = moving.cut(images, labels, width=width)
    return made.shown(made.images), made.images


def test_a_case_is_shown_at_the_side_where_most_of_it_is_cut():
    """An upright bar is cut along its length on the left, one that lies at the top."""
    images = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    labels = np.zeros((2, 16, 16), np.int32)
    labels[0, 2:13, 6:9], labels[1, 6:9, 2:13] = 1, 1
    found, every = (np.asarray(x) for x in shown(images, labels, 3))
    for case, side in enumerate(("left", "top")):
        np.testing.assert_array_equal(found[case], every[:, moving.SIDES.index(side), case])


def test_an_object_near_the_border_or_none_is_not_cut():
    labels = np.zeros((2, 16, 16), np.int32)
    labels[0, :, :2] = 1  # its centre is one pixel from the left
    visible = np.asarray(cut(np.zeros((2, 16, 16, 1), np.float32), labels, 3)[2])
    assert not visible[0, 0].any() and visible[2, 0].any()
    assert not visible[:, 1].any()


# Translation and padding.


def test_a_network_that_is_blind_at_the_border_is_found(networks, subject_of, answer, assert_stays):
    found, arrays = answer(translation.PROBE, subject_of(networks.Threshold(blind=8)))
    assert_stays("translation", found, arrays)
    (candidate,) = found.candidates
    assert candidate.kind == BORDER and candidate.found
    np.testing.assert_allclose(arrays["strip"], [[1.0] * 12, [0.0] * 12])
    # half of a square is 5 px, all of it within the 8 px in which the network sees nothing
    assert candidate.estimate.mean == pytest.approx(1.0) and candidate.damage == pytest.approx(1.0)
    lost = next(r for r in found.rows if r["quantity"] == "lost at the border")
    assert lost.estimate.n == 12 and lost.estimate.undefined == 0 and "mirrored" in lost.convention
    # pictures are the two halves of the same object
    figure = candidate.figure
    assert (figure.name, figure.title) == ("finding_translation", "Border far away, and border close by")
    assert arrays["pictures"].shape == (2, 2, 32, 32, 3) and arrays["pictures"].dtype == np.uint8
    bright = arrays["pictures"][..., 0] > 128
    np.testing.assert_array_equal(bright, arrays["picture_labels"] > 0)
    assert arrays["picture_classes"][:, 0].any() and not arrays["picture_classes"][:, 1].any()


def test_an_equivariant_network_loses_nothing_at_the_border(networks, subject_of, answer):
    found, arrays = answer(translation.PROBE, subject_of(networks.Threshold()))
    assert not found.candidates[0].found and not found.candidates[0].open
    np.testing.assert_array_equal(arrays["visible"][0], arrays["visible"][1])
    assert found.candidates[0].estimate.high == 0


def test_zeros_that_a_network_uses_are_found_by_taking_them_away(networks, subject_of, answer, assert_stays):
    found, arrays = answer(padding.PROBE, subject_of(networks.PaddedSum()))
    assert_stays("padding", found, arrays)
    (candidate,) = found.candidates
    assert candidate.kind == BORDER and candidate.found
    own, swapped = arrays["strip"].mean(1)
    assert own < 0.6 < 0.8 < swapped
    assert candidate.estimate.mean == pytest.approx(swapped - own, abs=1e-6)


def test_a_swap_is_not_asked_where_there_are_no_zeros(networks, subject_of, settings):
    reflecting = networks.PaddedSum(padding="reflect")
    for model, told in ((reflecting, "pads with 'reflect'"), (networks.Threshold(), "does not say")):
        with pytest.raises(NotAskedError, match=told):
            padding.measure(subject_of(model), settings(padding.PROBE))


# Overlays.


def calipers(cases):
    """Yellow plus marks at the squares' corners."""
    images = []
    for case in cases:
        there = np.argwhere(case["labels"])
        ends = np.array([there.min(0), there.max(0)], float)
        images.append(overlays.draw_calipers(case["image"], ends, style="plus", size=3)[0])
    return dataclasses.replace(cases, images=np.stack(images))


def test_a_network_of_calipers_believes_them_where_nothing_is(networks, subject_of, squares, answer, assert_stays):
    cases = squares(size=64, dark=60, bright=60)  # nothing to be seen
    found, arrays = answer(overlay_marks.PROBE, subject_of(networks.BetweenMarks(), cases), colours=((255, 255, 0),))
    assert_stays("overlays_insertion", found, arrays)
    insertion = next(one for one in found.candidates if one.name == "overlays_insertion")
    assert insertion.kind == OVERLAY and insertion.found
    gathered, around = np.nanmean(arrays["insertion"], 1)
    assert around > 0.8 and gathered < 0.4
    assert insertion.estimate.mean == pytest.approx(around - gathered, abs=1e-6)


def test_a_network_of_calipers_loses_all_when_they_are_removed(networks, subject_of, squares, answer, assert_stays):
    cases = calipers(squares(size=64, dark=60, bright=60))
    found, arrays = answer(overlay_marks.PROBE, subject_of(networks.BetweenMarks(), cases))
    assert_stays("overlays_removal", found, arrays)
    assert (arrays["marks"] > 0).all()
    removal = next(one for one in found.candidates if one.name == "overlays_removal")
    as_is, beside, gone = np.nanmean(arrays["removal"], 1)
    assert as_is > 0.85 and beside == pytest.approx(as_is) and gone == 0
    assert removal.found and removal.damage == pytest.approx(beside - gone)


def test_a_network_of_gray_levels_does_not_mind_marks(networks, subject_of, squares, answer):
    cases = calipers(squares(size=64))
    found, arrays = answer(overlay_marks.PROBE, subject_of(networks.Threshold(), cases))
    assert len(found.candidates) == 2 and not any(one.found or one.open for one in found.candidates)
    np.testing.assert_allclose(arrays["insertion"], 0, atol=1e-6)


def test_removal_is_not_asked_where_there_are_no_marks(networks, subject_of, answer):
    found, _ = answer(overlay_marks.PROBE, subject_of(networks.Threshold()))
    assert [one.name for one in found.candidates] == ["overlays_insertion"]
    (why,) = found.not_asked
    assert "0 images with coloured marks; at least 8" in why.convention and np.isnan(why.estimate.mean)


@pytest.mark.parametrize(
    "probe", [translation.PROBE, padding.PROBE, overlay_marks.PROBE, position.PROBE, distances.PROBE]
)
def test_what_is_for_pictures_is_not_asked_of_volumes(networks, subject_of, settings, probe):
    volumes = pipeline.InMemory(
        "v/test", ("a", "b"), np.zeros((2, 8, 8, 8, 1), np.uint8), np.zeros((2, 8, 8, 8), np.uint8),
        ("1", "2"), ("1", "2"), ("A", "B"), np.ones((2, 3), np.float32),
    )  # fmt: skip
    with pytest.raises(NotAskedError, match="the cases are volumes"):
        probe.measure(subject_of(networks.PaddedSum(), volumes), settings(probe))


# Domains.


def two_domains(squares, darker):
    """A and B: the same squares; of B darker by so many levels."""
    one = squares(8, seed=1)
    images = np.concatenate([one.images, np.clip(one.images.astype(int) - darker, 0, 255).astype(np.uint8)])
    names = tuple(f"{d}{i}" for d in "AB" for i in range(8))
    return pipeline.InMemory(
        one.name, one.class_names, images, np.concatenate([one.labels] * 2), names, tuple(n[1:] for n in names),
        tuple(n[0] for n in names), np.concatenate([one.spacings] * 2),
    )  # fmt: skip


def test_a_threshold_depends_on_its_scanners_gray_levels(networks, subject_of, squares, answer, settings, assert_stays):
    cases = two_domains(squares, darker=110)  # squares fall below the threshold at 127
    found, arrays = answer(gray_levels.PROBE, subject_of(networks.Threshold(), cases))
    assert_stays("gray_levels", found, arrays)
    (candidate,) = found.candidates
    assert candidate.kind == SCANNER and candidate.found and candidate.estimate.mean == pytest.approx(1.0)
    assert arrays["names"].tolist() == ["B"] and np.isnan(arrays["own"][8:]).all()
    assert "gray levels of domain B and keep" in candidate.sentence and "on average" not in candidate.sentence
    whole = {"names": np.array(["B", "C"]), "theirs": np.stack([arrays["theirs"][0], arrays["own"]]), "worst": 1}
    several = gray_levels.PROBE.tabulate(
        subject_of(networks.Threshold(), cases), settings(gray_levels.PROBE), arrays | whole
    )
    (told,) = several.candidates
    assert "gray levels of another domain and keep" in told.sentence and told.estimate.mean == pytest.approx(0.5)
    assert "on average over the 2 others; those of C cost most" in told.sentence


def test_domains_that_look_alike_are_silent(networks, subject_of, squares, answer):
    found, arrays = answer(gray_levels.PROBE, subject_of(networks.Threshold(), two_domains(squares, darker=0)))
    assert not found.candidates[0].found and found.candidates[0].estimate.high == 0
    np.testing.assert_array_equal(arrays["own"][:8], arrays["theirs"][0][:8])


def test_one_domain_is_not_asked(networks, subject_of, settings):
    for probe in (gray_levels.PROBE, distances.PROBE):
        with pytest.raises(NotAskedError, match="all cases are of one domain"):
            probe.measure(subject_of(networks.Threshold()), settings(probe))


def test_two_halves_need_four_cases_and_folds_two_patients(networks, subject_of, squares, settings):
    cases = squares(6, domains=("A",) * 3 + ("B",) * 3)
    with pytest.raises(NotAskedError, match="A has fewer than 4 cases, too few for two halves"):
        distances.PROBE.measure(subject_of(networks.Threshold(), cases), settings(distances.PROBE))
    alone = dataclasses.replace(cases, patients=("p",) * 6)
    with pytest.raises(NotAskedError, match="the cases are of one patient; a cross-validation needs two"):
        position.PROBE.measure(subject_of(networks.Threshold(), alone), settings(position.PROBE))


def test_the_gray_map_takes_one_histogram_to_the_other():
    random = np.random.default_rng(0)
    source = random.integers(20, 120, (40, 50, 1)).astype(np.uint8)
    counts, doubled = (gray_levels.histogram([{"image": image}]) for image in (source, (2 * source).astype(np.uint8)))
    levels = gray_levels.gray_map(counts, doubled)[0]
    np.testing.assert_array_equal(levels[20:120], 2 * np.arange(20, 120))
    np.testing.assert_array_equal(gray_levels.gray_map(counts, counts)[0][20:120], np.arange(20, 120))
    assert (np.diff(levels.astype(int)) >= 0).all()


# Counts.


def test_dice_inside_a_region_asks_for_the_right_class():
    labels = np.array([[[1, 2, 0, 1]]])
    predictions = np.array([[[1, 1, 2, 1]]])
    region = np.array([[[True, True, True, False]]])
    counted = np.asarray(jax.jit(regional.region_sums)(labels, predictions, region))
    np.testing.assert_array_equal(counted, [[1, 5]])  # 1 right; 2 labelled and 3 predicted
    assert regional.dice_from_region_sums(counted)[0] == pytest.approx(2 / 5)
    assert np.isnan(regional.dice_from_region_sums(np.zeros((1, 2))))[0]


def test_marks_are_drawn_on_one_or_three_channels(networks, subject_of, squares, settings):
    subject = subject_of(networks.Threshold(), squares(channels=2))
    with pytest.raises(NotAskedError, match="the images have 2 channels; marks are drawn on 1 or 3"):
        overlay_marks.measure(subject, settings(overlay_marks.PROBE))
