"""Intensities as a network is given them, against closed forms on drawn files."""

import numpy as np
import pytest

from jaxseg.data import normalisation, raw_cases
from jaxseg.data.normalisation import AsInFile, MeanStd, Percentiles, Range, Statistics, ZScore

SCALING = ("percentiles", 0.5, 99.5)


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(0)
    image = rng.normal((300, -40), (60, 9), (5, 30, 20, 2)) * np.array([1, 2, 3, 4, 5])[:, None, None, None]
    return np.rint(image).astype(np.int16)


def known(image, scaling=SCALING):
    return Statistics(*normalisation.statistics(image, scaling))


def test_range_is_as_the_data_set_is_scaled_also_for_a_slice(volume):
    """A slice is scaled as its volume, so that reading gives the very levels that were stored before."""
    whole = raw_cases.as_uint8(volume, SCALING)
    for z in range(len(volume)):
        found = Range()(volume[z], scaling=SCALING, known=known(volume))
        np.testing.assert_array_equal(found, whole[z])
    assert found.dtype == np.uint8
    window = ("window", -100.0, 400.0)
    found = Range()(volume, scaling=window, known=known(volume, window))
    np.testing.assert_array_equal(found, raw_cases.as_uint8(volume, window))


def test_gray_levels_and_what_was_scaled_before_stay(volume):
    levels = raw_cases.as_uint8(volume, SCALING)
    assert Range()(levels) is levels
    assert Range()(levels, scaling=SCALING) is levels  # prepared by a version that stored 8 bits


def test_z_scores_are_of_the_file_or_of_the_slice(volume):
    of_file = np.concatenate([ZScore()(one[None], known=known(volume)) for one in volume])
    values = volume.astype(float)
    wanted = (values - values.mean((0, 1, 2))) / values.std((0, 1, 2))
    np.testing.assert_allclose(of_file, wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ZScore()(volume), wanted, rtol=1e-3, atol=1e-3)
    of_slices = ZScore(scope="slice")(volume, known=known(volume)).astype(float)
    np.testing.assert_allclose(of_slices.mean((1, 2)), 0, atol=2e-3)
    np.testing.assert_allclose(of_slices.std((1, 2)), 1, atol=2e-3)
    assert of_file.dtype == np.float16


def test_percentiles_are_clipped_to_minus_one_and_one(volume):
    found = Percentiles(low=10, high=90)(volume).astype(float)
    low, high = np.percentile(volume, (10, 90), axis=(0, 1, 2))
    np.testing.assert_allclose(found, np.clip(2 * (volume - low) / (high - low) - 1, -1, 1), atol=1e-3)
    assert (found == -1).mean() == pytest.approx(0.1, abs=0.01)
    first = Percentiles(scope="slice")(volume)[0].astype(float)
    np.testing.assert_allclose(first, Percentiles()(volume[0]).astype(float), atol=1e-6)


def test_given_numbers_are_the_same_for_all_cases(volume):
    found = MeanStd(mean=(100, -50), std=(50, 10), clip=(-80, 700))(volume).astype(float)
    np.testing.assert_allclose(found, (np.clip(volume, -80, 700) - [100, -50]) / [50, 10], rtol=1e-3, atol=1e-3)
    raw = AsInFile()(volume)
    assert raw.dtype == np.float32 and (raw == volume).all()


def test_nothing_becomes_infinite():
    flat = np.full((4, 4, 1), 3, np.int16)
    for how in (ZScore(), Percentiles(), MeanStd(mean=(0,), std=(0,))):
        assert np.isfinite(how(flat).astype(np.float32)).all(), how


def test_the_foreground_of_the_training_cases_says_mean_and_deviation():
    """As nnU-Net: intensities within the percentiles 0.5 and 99.5 of all foreground, which ignored pixels are not."""
    rng = np.random.default_rng(1)
    cases = []
    for level in (100, 200):
        labels = np.zeros((60, 60), np.uint8)
        labels[10:40, 10:40], labels[45:50] = 2, raw_cases.IGNORED
        cases.append((rng.normal(level, 10, (60, 60, 1)) + 1000 * (labels[..., None] != 2), labels))
    found = normalisation.foreground(cases, ignored=raw_cases.IGNORED)
    inside = np.concatenate([image[labels == 2] for image, labels in cases])
    np.testing.assert_allclose(found["clip"], np.percentile(inside, (0.5, 99.5)), rtol=1e-5)
    clipped = np.clip(inside, *found["clip"])
    np.testing.assert_allclose((*found["mean"], *found["std"]), (clipped.mean(), clipped.std()), rtol=1e-5)
    given = normalisation.foreground(cases, ignored=raw_cases.IGNORED, clip=(90.0, 210.0))
    clipped = np.clip(inside, 90, 210)
    np.testing.assert_allclose((*given["mean"], *given["std"]), (clipped.mean(), clipped.std()), rtol=1e-5)
    assert given["clip"] == (90.0, 210.0)


def test_large_cases_are_sampled_alike_each_time_and_many_channels_are_not_clipped():
    rng = np.random.default_rng(2)
    cases = [(rng.normal((5, -5), 1, (150, 150, 2)), np.ones((150, 150), np.uint8))]
    one, again = (normalisation.foreground(cases, ignored=255) for _ in range(2))
    assert one == again and one["clip"] == ()
    np.testing.assert_allclose(one["mean"], (5, -5), atol=0.05)
    with pytest.raises(ValueError, match="no training case has foreground"):
        normalisation.foreground([(np.zeros((3, 3, 1)), np.zeros((3, 3)))], ignored=255)


def test_intensities_are_stored_exactly_where_16_bits_allow():
    assert raw_cases.storage(0, 65535, whole=True) == "uint16"
    assert raw_cases.storage(-1, 32767, whole=True) == "int16"
    assert raw_cases.storage(-1, 32768, whole=True) == "int32"
    assert raw_cases.storage(-0.5, 3000, whole=False) == "float16"
    assert raw_cases.storage(-70000, 1, whole=False) == "float32"
    assert raw_cases.storage(19990, 20010, whole=False) == "float32"  # float16 has 2 levels between them
    assert raw_cases.storage(0, 1e-6, whole=False) == "float32"


def test_of_a_volume_whose_slices_are_cases_each_is_by_itself(volume):
    """Percentiles, of which a slice knows its own alone; z-scores are those of its file."""
    found = Percentiles(low=5).of_slices(volume)
    for z in range(len(volume)):
        np.testing.assert_array_equal(found[z], Percentiles(low=5)(volume[z]))
    assert ZScore().of_slices == ZScore()


SEEN = {
    "percentiles": Percentiles(low=2, high=90),
    "z_score": ZScore(),
    "mean_std": MeanStd(mean=(280, -30), std=(90, 20), clip=(-200, 1400)),
    "one number for all": MeanStd(mean=(280,), std=(90,)),
    "none": AsInFile(),
}


@pytest.mark.parametrize("how", SEEN.values(), ids=SEEN)
@pytest.mark.parametrize("whose", ["file", "slice of a file", "picture of 8 bits"])
def test_levels_of_the_picture_come_back_from_what_a_network_is_given(volume, how, whose):
    """Within what is clipped, to what 16 bits tell apart; and levels become what the network is given, clipped too."""
    given = {"scaling": SCALING, "known": known(volume)}
    image = volume if whose == "file" else volume[2]
    low, high = given["known"].low, given["known"].high
    if whose == "picture of 8 bits":
        image, given, low, high = raw_cases.as_uint8(image, SCALING), {}, 0, 255
    wanted = 255 * (image.astype(float) - low) / (np.asarray(high, float) - low)
    seen, scale = how(image, **given), how.scale(image, **given)
    assert all(part.shape == (2,) and part.dtype == np.float32 for part in scale)
    within = (seen > scale.least) & (seen < scale.most)
    assert within.mean() > 0.5
    step = 255 / (scale.white - scale.black)  # levels in a unit
    off = abs(scale.levels(seen) - wanted) / (step * np.maximum(abs(seen.astype(float)), 1e-2))
    assert off[within].max() < 1e-3
    np.testing.assert_allclose(scale.values(wanted), seen.astype(float), rtol=1e-3, atol=1e-3)


def test_gray_levels_are_their_own_scale(volume):
    levels = Range()(volume, scaling=SCALING, known=known(volume))
    scale = Range().scale(volume, scaling=SCALING, known=known(volume))
    np.testing.assert_array_equal(np.rint(scale.levels(levels / np.float32(127.5) - 1)), levels)
    np.testing.assert_array_equal([part.tolist() for part in scale], [[-1, -1], [1, 1], [-1, -1], [1, 1]])


@pytest.mark.parametrize("how", [ZScore(scope="slice"), Percentiles(scope="slice")])
def test_the_scale_of_slices_by_themselves_is_their_mean(volume, how):
    given = {"scaling": SCALING, "known": known(volume)}
    whole, slices = how.scale(volume, **given), [how.scale(one, **given) for one in volume]
    for name in ("black", "white"):
        mean = np.mean([getattr(one, name) for one in slices], 0)
        np.testing.assert_allclose(getattr(whole, name), mean, rtol=1e-4)


def test_a_scale_of_one_intensity_is_finite():
    flat = np.full((4, 4, 1), 3, np.int16)
    for how in (ZScore(), Percentiles(), MeanStd(mean=(0,), std=(0,)), AsInFile()):
        scale = how.scale(flat, scaling=SCALING, known=known(flat))
        assert np.isfinite(scale.levels(how(flat))).all(), how
        assert np.isfinite(scale.values(np.array([0, 255])[:, None]).astype(np.float16)).all(), how
