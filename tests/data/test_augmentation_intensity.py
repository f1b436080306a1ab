"""Intensities of training images changed: beside NumPy and scipy, in 2-D and 3-D, with a mask or without."""

import jax
import numpy as np
import pytest
from scipy import ndimage, stats

from jaxseg.data.augmentation import intensity, settings

CHANNELS = 3
SHAPES = {2: (13, 16), 3: (7, 8, 9)}
RANGES = {
    "noise_std": (0.1, 0.4),
    "blur_sigma": (0.5, 1.5),
    "brightness_shift_mean": 0.3,
    "brightness_shift_std": 0.2,
    "gamma_exponent": (0.5, 2.0),
}


def z_scores(b=2, shape=(8, 8), channels=CHANNELS, seed=0):
    random = np.random.default_rng(seed)
    return (3 * random.normal(size=(b, *shape, channels)) + 1).astype(np.float32)


@pytest.fixture(scope="module", params=[(2, False), (2, True), (3, False), (3, True)], ids=str)
def changed(request):
    """Images with channels first, which pixels are valid, the numbers that were drawn, and every change's result."""
    rank, masked = request.param
    random = np.random.default_rng(4)
    images = np.moveaxis(z_scores(shape=SHAPES[rank]), -1, 1)
    valid = random.random((2, 1, *SHAPES[rank])) < 0.6 if masked else np.ones((2, 1, *SHAPES[rank]), bool)
    drawn = random.random((rank, 2, CHANNELS)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    options = settings.check_augmentation(RANGES)

    @jax.jit
    def every(images, valid, drawn, keys):
        given = valid if masked else None
        results = {name: row.function(images, given, drawn, keys, options) for name, row in intensity.CHANGES.items()}
        free = options._replace(gamma_keeps_moments=False, contrast_clip=False, noise_shared=False)
        for name in ("gamma", "contrast", "noise"):
            results[f"free {name}"] = intensity.CHANGES[name].function(images, given, drawn, keys, free)
        return results

    return images, valid, drawn, jax.device_get(every(images, valid, drawn, keys))


def factors(drawn, low, high):
    """As often below 1 as above."""
    return np.where(drawn < 0.5, low + (1 - low) * 2 * drawn, 1 + (high - 1) * (2 * drawn - 1))


def by_channel(images, valid, reference):
    """`reference(channel, its valid pixels, b, c)` of every channel, in double precision."""
    result = images.astype(float)
    for b in range(images.shape[0]):
        for c in range(images.shape[1]):
            result[b, c] = reference(result[b, c], valid[b, 0], b, c)
    return result


def agree(found, expected, valid, atol=1e-5):
    mask = np.broadcast_to(valid, found.shape)
    np.testing.assert_allclose(found[mask], expected[mask], atol=atol, rtol=1e-5)


def normalised(function, channel, valid):
    """A linear filter to which pixels that are not valid are nothing."""
    return function(channel * valid) / np.maximum(function(valid.astype(float)), 1e-30)


def test_noise_has_its_deviation_and_is_shared_by_channels_or_not(changed):
    images, _, drawn, results = changed
    deviation = 0.1 + 0.3 * drawn[0]
    shared, own = results["noise"] - images, results["free noise"] - images
    np.testing.assert_allclose(shared[:, 1:], shared[:, :1].repeat(CHANNELS - 1, 1), atol=2e-6)
    one = np.concatenate([(shared[b, 0] / deviation[b, 0]).ravel() for b in range(2)])
    many = np.concatenate([(own[b, c] / deviation[b, c]).ravel() for b in range(2) for c in range(CHANNELS)])
    for values in (one, many):
        assert stats.kstest(values, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(own[0, 0].ravel(), own[0, 1].ravel())[0, 1]) < 0.3


def test_blur_is_scipys_gaussian_filter(changed):
    images, valid, drawn, results = changed
    rank = images.ndim - 2
    sigma = 0.5 + drawn

    def blurred(channel, b, c):
        for axis in range(rank):
            channel = ndimage.gaussian_filter1d(channel, sigma[axis, b, c], axis, mode="mirror", radius=5)
        return channel

    expected = by_channel(images, valid, lambda x, ok, b, c: normalised(lambda y: blurred(y, b, c), x, ok))
    agree(results["blur"], expected, valid)


def test_brightness_is_a_factor_and_its_shift_a_normal_number(changed):
    images, valid, drawn, results = changed
    scale = factors(drawn[0], 0.75, 1.25)
    agree(results["brightness"], by_channel(images, valid, lambda x, ok, b, c: x * scale[b, c]), valid)
    shift = 0.3 + 0.2 * stats.norm.ppf(drawn[0])
    agree(results["brightness_shift"], by_channel(images, valid, lambda x, ok, b, c: x + shift[b, c]), valid)


@pytest.mark.parametrize("clip", [True, False])
def test_contrast_is_about_the_mean_of_what_is_valid(changed, clip):
    images, valid, drawn, results = changed
    scale = factors(drawn[0], 0.75, 1.25)

    def reference(x, ok, b, c):
        new = x[ok].mean() + scale[b, c] * (x - x[ok].mean())
        return np.clip(new, x[ok].min(), x[ok].max()) if clip else new

    agree(results["contrast" if clip else "free contrast"], by_channel(images, valid, reference), valid)


def test_low_resolution_is_nearest_pixels_and_scipys_linear_zoom(changed):
    images, valid, drawn, results = changed
    scale = 0.5 + 0.5 * drawn[0]
    covered = np.zeros(images.shape, bool)

    def sampled(channel, share):
        sides = [max(round(side * float(share)), 1) for side in channel.shape]
        pixels = [np.floor((np.arange(m) + 0.5) * n / m).astype(int) for m, n in zip(sides, channel.shape, strict=True)]
        small = channel[np.ix_(*pixels)]
        for axis, (m, n) in enumerate(zip(sides, channel.shape, strict=True)):
            zoom = [n / m if other == axis else 1 for other in range(channel.ndim)]
            small = ndimage.zoom(small, zoom, order=1, mode="nearest", grid_mode=True)
        return small

    def reference(x, ok, b, c):
        covered[b, c] = ok & (sampled(ok.astype(float), scale[b, c]) > 1e-6)
        return normalised(lambda y: sampled(y, scale[b, c]), x, ok)

    expected = by_channel(images, valid, reference)
    assert covered.mean() > 0.4
    agree(results["low_resolution"], expected, covered, atol=2e-5)
    agree(results["low_resolution"], images, valid & ~covered)  # from where no valid pixel was sampled


@pytest.mark.parametrize("name", ["gamma", "inverted_gamma", "free gamma"])
def test_gamma_is_a_power_of_the_share_of_the_range(changed, name):
    images, valid, drawn, results = changed
    exponent = factors(drawn[0], 0.5, 2.0)

    def reference(x, ok, b, c):
        x = -x if name == "inverted_gamma" else x
        low, high = x[ok].min(), x[ok].max()
        new = np.clip((x - low) / (high - low), 0, None) ** exponent[b, c] * (high - low) + low
        if name != "free gamma":
            new = (new - new[ok].mean()) / new[ok].std() * x[ok].std() + x[ok].mean()
        return -new if name == "inverted_gamma" else new

    agree(results[name], by_channel(images, valid, reference), valid, atol=5e-5)


def test_constant_images_stay_finite():
    batch = {"images": np.full((2, 8, 8, 1), 2.5, np.float32), "valid": np.zeros((2, 8, 8), bool)}
    batch["valid"][0] = True  # and nothing is valid in the other
    options = settings.check_augmentation(dict.fromkeys(settings.INTENSITIES, 1.0) | {"noise_std": (0.0, 0.0)})
    found = jax.jit(lambda keys: intensity.change(keys, batch, options))(jax.random.split(jax.random.key(0), 2))
    assert np.isfinite(found["images"]).all() and np.ptp(found["images"][0]) < 1e-5
    np.testing.assert_array_equal(found["images"][1], 2.5)


COUNT = 2000


@pytest.fixture(scope="module")
def one_by_one():
    """A picture of two channels many times, and what each change makes of it: by chance, always, in all channels."""
    images = np.broadcast_to(z_scores(b=1, shape=(4, 5), channels=2), (COUNT, 4, 5, 2))
    keys = jax.random.split(jax.random.key(7), COUNT)
    channels = {row.channels: 0.6 for row in intensity.CHANGES.values()}
    ranges = {"contrast_clip": False, "gamma_keeps_moments": False, "low_resolution_scale": (0.5, 0.6)}

    @jax.jit
    def every(images, keys):
        change = lambda given: intensity.change(keys, {"images": images}, settings.check_augmentation(given))["images"]
        alone = {name: change({name: 0.3} | channels | ranges) for name in settings.INTENSITIES}
        always = {name: change({name: 1.0, row.channels: 1.0} | ranges) for name, row in intensity.CHANGES.items()}
        alike = {"channels_alike": True, "noise_shared": False}
        return alone, always, change({"brightness": 0.3, "brightness_channels": 0.6} | alike)

    return images, jax.device_get(every(images, keys))


def within_chance(share, probability):
    """Whether a share of `COUNT` draws is what a probability gives, but for one in 100,000."""
    return abs(share - probability) < 4.4 * np.sqrt(probability * (1 - probability) / COUNT)


@pytest.mark.parametrize("name", settings.INTENSITIES)
def test_changes_have_their_probabilities_by_sample_and_by_channel(one_by_one, name):
    images, (alone, always, _) = one_by_one
    touched = (alone[name] != images).any((1, 2))
    assert within_chance(touched.any(1).mean(), 0.3 * (1 - 0.4**2))
    for channel in range(2):
        assert within_chance(touched[:, channel].mean(), 0.3 * 0.6)
    assert within_chance(touched.all(1).mean(), 0.3 * 0.36)
    assert (always[name] != images).any((1, 2)).mean() > 0.999


def test_changes_are_drawn_independently(one_by_one):
    images, (alone, _, _) = one_by_one
    touched = np.array([(alone[name] != images).any((1, 2, 3)) for name in settings.INTENSITIES])
    assert np.abs(np.corrcoef(touched)[np.triu_indices(len(touched), 1)]).max() < 4.4 / np.sqrt(COUNT)


def test_draws_are_uniform_in_their_ranges_and_differ_between_channels(one_by_one):
    images, (_, always, alike) = one_by_one
    low, high, mean = images[0].min((0, 1)), images[0].max((0, 1)), images[0].mean((0, 1))
    pixel = lambda array: array[:, 1, 2]  # whose share of the range is neither 0 nor 1
    share = lambda array: (pixel(array) - low) / (high - low)
    drawn = {
        "brightness": pixel(always["brightness"]) / pixel(images),
        "contrast": (pixel(always["contrast"]) - mean) / (pixel(images) - mean),
        "gamma": np.log(share(always["gamma"])) / np.log(share(images)),
    }
    for name, (least, most) in {"brightness": (0.75, 1.25), "contrast": (0.75, 1.25), "gamma": (0.7, 1.5)}.items():
        values = drawn[name]
        assert values.min() > least - 1e-3 and values.max() < most + 1e-3
        np.testing.assert_allclose([values.min(), values.max()], [least, most], atol=0.01)
        assert within_chance((values[:, 0] < 1).mean(), 0.5)
        assert stats.kstest(values[values < 1], "uniform", (least, 1 - least)).pvalue > 1e-4
        assert stats.kstest(values[values > 1], "uniform", (1, most - 1)).pvalue > 1e-4
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.1
    assert stats.kstest(pixel(always["brightness_shift"] - images).ravel() / 0.1, "norm").pvalue > 1e-4
    factor = (alike / images).reshape(COUNT, -1)
    np.testing.assert_allclose(factor, factor[:, :1].repeat(40, 1), rtol=1e-5)  # of both channels
    assert within_chance((factor[:, 0] != 1).mean(), 0.3 * 0.6)


def test_one_change_draws_the_same_whichever_others_there_are():
    batch, keys = {"images": z_scores(b=4)}, jax.random.split(jax.random.key(1), 4)
    neutral = {
        **{"noise_std": (0.0, 0.0), "blur_sigma": (0.01, 0.01), "brightness_factor": (1.0, 1.0)},
        **{"brightness_shift_std": 0.0, "contrast_factor": (1.0, 1.0), "low_resolution_scale": (1.0, 1.0)},
        **{"gamma_exponent": (1.0, 1.0)},
    }

    @jax.jit
    def both(keys):
        change = lambda given: intensity.change(keys, batch, settings.check_augmentation(given))["images"]
        others = dict.fromkeys(settings.INTENSITIES, 1.0)
        results = {}
        for name in ("noise", "brightness", "low_resolution", "gamma"):
            still = {
                k: v for k, v in neutral.items() if not k.startswith(name + "_") or k.startswith("brightness_shift")
            }
            if name == "gamma":
                still["inverted_gamma"] = 0.0
            results[name] = change({name: 0.7}), change(others | still | {name: 0.7})
        return results

    for alone, among in jax.device_get(both(keys)).values():
        assert np.abs(alone - batch["images"]).max() > 0.05
        np.testing.assert_allclose(among, alone, atol=1e-4)


@pytest.mark.parametrize("shape", [(9, 10), (6, 7, 5)])
def test_what_is_not_valid_stays_and_has_no_influence(shape):
    random = np.random.default_rng(0)
    valid = random.random((3, *shape)) < 0.7
    images = z_scores(b=3, shape=shape)
    other = np.where(valid[..., None], images, np.float32(1e3))
    options = settings.check_augmentation(dict.fromkeys(settings.INTENSITIES, 1.0) | {"blur_channels": 1.0})
    change = jax.jit(lambda images, keys: intensity.change(keys, {"images": images, "valid": valid}, options)["images"])
    found = [np.asarray(change(given, jax.random.split(jax.random.key(2), 3))) for given in (images, other)]
    for new, given in zip(found, (images, other), strict=True):
        np.testing.assert_array_equal(new[~valid], given[~valid])
        assert (new[valid] != given[valid]).mean() > 0.9
    np.testing.assert_allclose(found[0][valid], found[1][valid], atol=1e-3)
