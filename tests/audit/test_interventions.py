"""Probes that change a cue: each finds the network that uses it, and is silent on the one that does not."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.audit.marks import INKS
from jaxseg.audit.probe import OVERLAY, SCANNER, NotAskedError
from jaxseg.audit.probes import distances, gray_levels, overlay_marks, position
from jaxseg.data import overlays, pipeline
from jaxseg.metrics import regional

# Overlays.


def calipers(cases):
    """Yellow plus marks at the squares' corners."""
    images = []
    for case in cases:
        there = np.argwhere(case["labels"])
        ends = np.array([there.min(0), there.max(0)], float)
        images.append(overlays.draw_calipers(case["image"], ends, style="plus", size=3)[0])
    return dataclasses.replace(cases, images=np.stack(images))


def found_of(answer):
    return {one.name for one in answer.candidates if one.found}


@pytest.mark.parametrize("ink", ["yellow", "white", "light gray"])
def test_a_network_of_calipers_believes_them_where_nothing_is(ink, networks, subject_of, squares, answer, assert_stays):
    cases = squares(size=64, dark=60, bright=60)  # nothing to be seen
    found, arrays = answer(overlay_marks.PROBE, subject_of(networks.BetweenMarks(ink), cases))
    if ink == "yellow":
        assert_stays("overlays_insertion", found, arrays)
    name = f"overlays_insertion_{ink.replace(' ', '_')}"
    assert found_of(found) == {name, "overlays_copied"}
    place = list(INKS).index(ink)
    of_object, gathered, around = np.nanmean(arrays["insertion"][place], 1)
    assert around > 0.8 and gathered < 0.4 and of_object == 0
    insertion = next(one for one in found.candidates if one.name == name)
    assert insertion.kind == OVERLAY and insertion.estimate.mean == pytest.approx(around - gathered, abs=1e-6)
    assert insertion.figure is not None and arrays["shown"] == place


@pytest.mark.parametrize("ink", ["yellow", "white", "light gray"])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("also", ["", "bright and thick"])
def test_a_network_that_copies_marks_is_found(ink, marked, also, networks, subject_of, squares, answer):
    """Whether it finds objects beside or not."""
    cases = squares(size=64, bright=150)
    cases = calipers(cases) if marked else cases
    found, arrays = answer(overlay_marks.PROBE, subject_of(networks.Copied(ink, also), cases))
    assert found_of(found) >= {"overlays_copied"}
    own, *strokes = np.nanmean(arrays["copied"], 1)
    assert own < 0.1 and strokes[list(INKS).index(ink)] == 1


class Led(nn.Module):
    """What is bright, but nothing of it as soon as there is more of an ink than its `most` pixels."""

    ink: str = "yellow"
    most: int = 0
    padding: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        inked = (images[..., 0] > 0.5) & (images[..., -1] < -0.5)
        led = jnp.sum(inked, (1, 2), keepdims=True) > self.most
        z = jnp.where((images[..., 0] > 0) & ~inked & ~led, 40.0, -40.0)
        return jnp.stack([jnp.zeros_like(z), z], -1)


@pytest.mark.parametrize(("most", "lost"), [(0, 1.0), (64 * 64, 0.0)])
def test_a_network_that_loses_the_object_to_marks_beside_it_is_found(most, lost, subject_of, squares, answer):
    found, _ = answer(overlay_marks.PROBE, subject_of(Led(most=most), squares(size=64)))
    (candidate,) = (one for one in found.candidates if one.name == "overlays_left")
    assert candidate.kind == OVERLAY and candidate.estimate.mean == pytest.approx(lost, abs=0.01)
    assert candidate.found == (most == 0) and not candidate.open
    if candidate.found:
        assert "Calipers in yellow around an empty place cost 1.00" in candidate.sentence
        assert found_of(found) == {"overlays_left"}


def test_a_threshold_that_is_filled_to_a_box_is_no_shortcut(networks, subject_of, squares, answer):
    """It is led on by whatever looks like the object, calipers among it."""
    for cases in (squares(size=64), calipers(squares(size=64))):
        found, arrays = answer(overlay_marks.PROBE, subject_of(networks.BetweenMarks("bright"), cases))
        _, gathered, around = np.nanmean(arrays["insertion"], 2).T
        assert (around > 0.8).all() and (around - gathered > 0.3).any()  # without bits of the object it would be one
        assert not any(one.found or one.open for one in found.candidates)


def test_a_network_of_calipers_loses_all_when_they_are_removed(networks, subject_of, squares, answer, assert_stays):
    cases = calipers(squares(size=64, dark=60, bright=60))
    found, arrays = answer(overlay_marks.PROBE, subject_of(networks.BetweenMarks(), cases))
    assert_stays("overlays_removal", dataclasses.replace(found, figures=()), arrays)
    assert (arrays["marks"] > 0).all()
    np.testing.assert_array_equal(arrays["found"], [0, 2, 4, 6, 8, 11])
    for place, image, mask in zip(arrays["found"], arrays["found_images"], arrays["found_masks"], strict=True):
        np.testing.assert_array_equal(image, cases.images[place])
        np.testing.assert_array_equal(mask, np.ptp(image.astype(int), axis=-1) > 0)
    assert [one.name for one in found.figures] == ["overlays_marks"]
    removal = next(one for one in found.candidates if one.name == "overlays_removal")
    as_is, beside, gone = np.nanmean(arrays["removal"], 1)
    assert as_is > 0.85 and beside == pytest.approx(as_is) and gone == 0
    assert removal.found and removal.damage == pytest.approx(beside - gone)


def test_a_network_of_gray_levels_does_not_mind_marks(networks, subject_of, squares, answer):
    cases = calipers(squares(size=64))
    found, arrays = answer(overlay_marks.PROBE, subject_of(networks.Threshold(), cases))
    assert len(found.candidates) == 8 and not any(one.found or one.open for one in found.candidates)
    np.testing.assert_allclose(arrays["insertion"], 0, atol=1e-6)


def test_removal_is_not_asked_where_there_are_no_marks(networks, subject_of, answer):
    found, _ = answer(overlay_marks.PROBE, subject_of(networks.Threshold()))
    names = [*(f"overlays_insertion_{ink.replace(' ', '_')}" for ink in INKS), "overlays_copied", "overlays_left"]
    assert [one.name for one in found.candidates] == names
    (why,) = found.not_asked
    assert "0 images with marks; at least 8" in why.convention and np.isnan(why.estimate.mean)


@pytest.mark.parametrize("probe", [overlay_marks.PROBE, position.PROBE])
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


def test_larger_objects_in_a_domain_are_not_its_scanner(networks, subject_of, squares, answer):
    """Gray levels are the same in both domains, but there is more of the object's in one of them."""
    small, large = squares(8, size=64, half=6), squares(8, size=64, half=15)
    cases = pipeline.InMemory(
        small.name, small.class_names, *(np.concatenate([getattr(one, of) for one in (small, large)]) for of in
        ("images", "labels")), *[tuple(map(str, range(16)))] * 2, ("A",) * 8 + ("B",) * 8,
        np.concatenate([small.spacings] * 2),
    )  # fmt: skip
    found, arrays = answer(gray_levels.PROBE, subject_of(networks.Threshold(), cases))
    np.testing.assert_array_equal(arrays["own"][:8], arrays["theirs"][0][:8])
    assert not found.candidates[0].found and not found.candidates[0].open
    counts = [gray_levels.histograms(list(one)) for one in (small, large)]
    levels = gray_levels.gray_map(*(one.sum(0) for one in counts))  # of the whole images, background would turn bright
    assert (levels[0, :127][counts[0].sum(0)[0, :127] > 0] > 127).any()
    np.testing.assert_allclose(gray_levels.as_composed(counts[1], counts[0]).sum(), counts[0].sum())


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("labelled", ["A", "B"])
def test_a_label_on_the_images_of_a_domain_is_not_its_scanner(networks, subject_of, squares, answer, level, labelled):
    cases = two_domains(squares, darker=0)
    images, where = cases.images.copy(), np.flatnonzero(np.array(cases.domains) == labelled)
    side = images.shape[1] // 5
    images[where, 1 : 1 + side, 1 : 1 + side] = level  # in a corner, 4 % of the image
    assert not cases.labels[:, : 1 + side, : 1 + side].any()
    cases = dataclasses.replace(cases, images=images)
    found, _ = answer(gray_levels.PROBE, subject_of(networks.Threshold(), cases))
    candidate = found.candidates[0]
    assert not candidate.found and not candidate.open and candidate.estimate.high < 0.01


def test_the_ends_of_the_background_are_left_out_of_a_histogram():
    counts = np.zeros((2, 1, 256))
    counts[0, 0, [3, 50, 60, 200]], counts[1, 0, 100] = (30, 500, 450, 20), 7
    wanted = np.zeros((2, 1, 256))
    wanted[0, 0, [50, 60]], wanted[1, 0, 100] = (480, 420), 7  # of 1,000 pixels 50 at each end
    np.testing.assert_allclose(gray_levels.trimmed(counts), wanted, atol=1e-9)


def test_what_a_domain_has_nothing_of_is_taken_from_its_whole():
    target, source = np.zeros((2, 1, 256)), np.zeros((2, 1, 256))
    target[0, 0, :4], source[0, 0, 7], source[1, 0, 9] = 1, 30, 10
    np.testing.assert_allclose(gray_levels.as_composed(target, source)[0, :5], [10, 10, 10, 10, 0])


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
    labels = np.zeros((40, 50), np.uint8)
    of = lambda image: gray_levels.histograms([{"image": image, "labels": labels}]).sum(0)
    counts, doubled = of(source), of((2 * source).astype(np.uint8))
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
