"""Photometric domain shifts, beside slow references."""

import functools
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance

from jaxseg.data import augment, shifts
from jaxseg.errors import InputError

STRENGTHS = {
    "brightness": 1.3,
    "contrast": 1.6,
    "saturation": 0.3,
    "uniform_noise": 0.2,
    "gamma": 0.7,
    "gaussian_blur": 1.5,
    "resolution": 2.0,
    "bias_field": 0.4,
}
PAPER_FACTORS = (0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 1.75)


def pictures(b=3, h=10, w=12, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (b, h, w, channels), dtype=np.uint8)


def stored(b=3, **options):
    images = pictures(b, **options)
    return {
        "image": images,
        "labels": images[..., 0] // 128,
        "index": np.arange(b, dtype=np.int32)[::-1].copy(),
    }


def as_seen(images):
    return (images / 127.5 - 1).astype(np.float32)


def run(name, images, strength, key=0):
    """The plain function, compiled."""
    row = shifts.SHIFTS[name]
    if row.draws:
        return np.asarray(jax.jit(lambda key, x: row.function(key, x, strength))(jax.random.key(key), images))
    return np.asarray(jax.jit(lambda x: row.function(x, strength))(images))


def gray(pixel):
    r, g, b = (int(v) for v in pixel)
    return math.floor(Fraction(19595 * r + 38470 * g + 7471 * b, 65536) + Fraction(1, 2))


def grays(image):
    return np.array([[gray(pixel) for pixel in row] for row in image])


def blend(value, towards, factor, rounded=Fraction(1, 2)):
    """The level of `factor value + (1 - factor) towards`, in fractions; Pillow's with `rounded=0`."""
    exact = factor * int(value) + (1 - factor) * towards
    return math.floor(min(max(exact, 0), 255) + rounded)


def decimal(factor):
    return Fraction(str(factor))


@pytest.mark.parametrize("factor", PAPER_FACTORS)
def test_brightness_is_equation_1(factor):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    expected = [blend(v, 0, decimal(factor)) for v in range(256)]
    np.testing.assert_array_equal(run("brightness", images, factor).ravel(), expected)


@pytest.mark.parametrize("factor", (0.0, 0.3, *PAPER_FACTORS, 10.0))
@pytest.mark.parametrize("channels", (1, 3))
def test_contrast_is_equation_2_on_all_levels(factor, channels):
    images = pictures(channels=channels, h=7, w=11)
    images[1] //= 8  # a dark one
    tables = np.asarray(jax.jit(lambda x: shifts.contrast_table(x, factor))(images))
    found = run("contrast", images, factor)
    for image, table, result in zip(images, tables, found, strict=True):
        g = grays(image) if channels == 3 else image[..., 0]
        mean = Fraction(int(g.sum()), g.size)
        assert mean.denominator > 1
        np.testing.assert_array_equal(table, [blend(v, mean, decimal(factor)) for v in range(256)])
        np.testing.assert_array_equal(result, table[image])


def test_the_mean_of_many_pixels_is_not_rounded():
    # 2^22 of them, so that products leave 32 bits; one level more or less in one pixel
    images, pixels = np.full((3, 2048, 2048, 1), 100, np.uint8), 2**22
    images[1, -1, -1], images[2, -1, -1] = 101, 99
    for factor in (Fraction(5001, 10000), Fraction(3, 2)):
        tables = np.asarray(shifts.contrast_table(images, float(factor)))
        for table, extra in zip(tables, (0, 1, -1), strict=True):
            mean = Fraction(100 * pixels + extra, pixels)
            np.testing.assert_array_equal(table, [blend(v, mean, factor) for v in range(256)])
    assert (tables[0] != tables[1]).any()  # odd levels lie half-way between two, and the one pixel decides


@pytest.mark.parametrize("factor", (0.0, 0.25, 0.4, 0.75, 1.3))
def test_saturation_is_equation_3(factor):
    images = pictures()
    found = run("saturation", images, factor)
    for image, result in zip(images, found, strict=True):
        g = grays(image)
        expected = [
            [[blend(image[y, x, c], int(g[y, x]), decimal(factor)) for c in range(3)] for x in range(12)]
            for y in range(10)
        ]
        np.testing.assert_array_equal(result, expected)
    one = pictures(channels=1)
    np.testing.assert_array_equal(run("saturation", one, factor), one)


def test_without_saturation_all_channels_are_the_weighted_sum():
    images = pictures()
    found = run("saturation", images, 0.0)
    np.testing.assert_array_equal(found, np.broadcast_to(found[..., :1], found.shape))
    np.testing.assert_allclose(shifts.GRAY_WEIGHTS, [0.299, 0.587, 0.114], atol=1e-5)
    assert sum(shifts.GRAY_WEIGHTS) == 1
    np.testing.assert_allclose(found[..., 0], images @ [0.299, 0.587, 0.114], atol=0.51)
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    np.testing.assert_array_equal(found[..., 0], pillow)
    seen = run("saturation", as_seen(images), 0.0)
    np.testing.assert_allclose(seen[..., 0], as_seen(images) @ [0.299, 0.587, 0.114], atol=1e-4)


@pytest.mark.parametrize("factor", (0.25, 0.5, 0.75, 1.25, 1.5, 1.75))  # exact in Pillow's float32
@pytest.mark.parametrize(
    "name, enhance",
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_pillow_rounds_down_and_rounds_the_mean(name, enhance, factor):
    images = pictures()
    found = run(name, images, factor)
    for image, result in zip(images, found, strict=True):
        pillow = np.asarray(enhance(Image.fromarray(image)).enhance(factor)).astype(int)
        g = grays(image)
        centre = {"brightness": 0 * g, "contrast": 0 * g + math.floor(g.mean() + 0.5), "saturation": g}[name]
        theirs = [
            [
                [blend(image[y, x, c], int(centre[y, x]), decimal(factor), rounded=0) for c in range(3)]
                for x in range(12)
            ]
            for y in range(10)
        ]
        np.testing.assert_array_equal(pillow, theirs)  # so this is the whole difference
        difference = result.astype(int) - pillow
        assert difference.min() >= 0 and difference.max() <= 1
    assert name == "contrast" or difference.max() == 1  # there the two roundings may cancel


@pytest.mark.parametrize("name", ("brightness", "contrast", "saturation", "gamma"))
def test_float_images_are_shifted_the_same_way(name):
    images = pictures()
    strength = STRENGTHS[name]
    seen, expected = run(name, as_seen(images), strength), as_seen(run(name, images, strength))
    np.testing.assert_allclose(seen, expected, atol=1.3 / 127.5)  # gray and result are rounded on uint8
    assert np.abs(seen).max() <= 1
    assert np.abs(seen - as_seen(images)).max() > 0.05


@pytest.mark.parametrize("exponent", (0.1, 0.7, 2.2, 10.0))
def test_gamma_is_a_power(exponent):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    expected = 255 * (np.arange(256) / 255) ** exponent
    np.testing.assert_allclose(run("gamma", images, exponent).ravel(), expected, atol=0.5 + 1e-9)
    np.testing.assert_allclose(run("gamma", as_seen(images), exponent).ravel(), expected / 127.5 - 1, atol=1e-4)


@pytest.mark.parametrize("name", shifts.SHIFTS)
@pytest.mark.parametrize("shape", ((2, 9, 8, 3), (2, 4, 6, 5, 1)))
def test_shape_and_type_stay_and_the_neutral_strength_changes_no_bit(name, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for given in (images, as_seen(images)):
        same = run(name, given, shifts.SHIFTS[name].neutral)
        assert same.dtype == given.dtype
        np.testing.assert_array_equal(same, given)
        found = run(name, given, STRENGTHS[name])
        assert (found.shape, found.dtype) == (given.shape, given.dtype)
        assert (found != given).any() or (name == "saturation" and shape[-1] == 1)


def test_near_the_neutral_strength_little_changes():
    # not the short cut of the neutral strength itself
    images = pictures(h=32, w=32)
    near = {name: row.neutral + 1e-3 for name, row in shifts.SHIFTS.items() if name not in ("resolution",)}
    near["gaussian_blur"] = 0.1
    for name, strength in near.items():
        assert np.abs(run(name, images, strength).astype(int) - images).max() <= 1, name


@pytest.mark.parametrize("amplitude", (0.1, 0.45))
def test_noise_is_uniform_with_its_amplitude(amplitude):
    gray_images = np.zeros((4, 64, 64, 3), np.float32)
    noise = run("uniform_noise", gray_images, amplitude) / 2  # of the range, which is 2 here
    assert np.abs(noise).max() <= amplitude * (1 + 1e-5)
    assert noise.max() > 0.999 * amplitude and noise.min() < -0.999 * amplitude
    error = amplitude / math.sqrt(3 * noise.size)
    assert abs(noise.mean()) < 4 * error
    counts = np.histogram(noise, 20, (-amplitude, amplitude))[0]
    mean = noise.size / 20
    assert np.sum((counts - mean) ** 2 / mean) < 19 + 5 * math.sqrt(38)  # chi squared
    levels = run("uniform_noise", np.full((4, 64, 64, 3), 128, np.uint8), amplitude).astype(int) - 128
    assert abs(levels.mean()) < 4 * 255 * error + 0.01
    edge = math.ceil(255 * amplitude - 0.5)
    assert (levels.min(), levels.max()) == (-edge, edge)


def test_noise_is_independent_between_pixels_channels_and_images():
    noise = run("uniform_noise", np.zeros((2, 64, 64, 3), np.float32), 0.5)
    pairs = [(noise[0], noise[1]), (noise[..., 0], noise[..., 1]), (noise[:, 1:], noise[:, :-1])]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.06


@pytest.mark.parametrize("name", shifts.SHIFTS)
def test_what_a_sample_gets_does_not_depend_on_how_the_batch_is_cut(name):
    batch = stored(b=6)
    see = jax.jit(shifts.shift(name, strength=STRENGTHS[name]))
    key = jax.random.key(5)
    everything = see(key, batch)["image"]
    with_places = {**batch, "position": np.arange(6, dtype=np.int32)}
    for part in (slice(0, 2), slice(4, 6), slice(1, 6, 2)):
        found = see(key, {field: array[part] for field, array in with_places.items()})
        np.testing.assert_array_equal(found["image"], everything[part])
        for field in ("labels", "index", "position"):
            np.testing.assert_array_equal(found[field], with_places[field][part])
    same = see(key, {field: np.repeat(array[:1], 6, 0) for field, array in batch.items()})
    different = len({np.asarray(image).tobytes() for image in same["image"]})
    assert different == (6 if shifts.SHIFTS[name].draws else 1)
    again = see(jax.random.key(6), batch)["image"]
    assert (np.asarray(again) != everything).any() == shifts.SHIFTS[name].draws


@pytest.mark.parametrize("sigma", (0.6, 2.0, 5.0))
def test_a_blur_is_that_of_scipy(sigma):
    images = as_seen(pictures(b=2, h=24, w=20))
    expected = scipy.ndimage.gaussian_filter(images.astype(np.float64), (0, sigma, sigma, 0), mode="reflect")
    found = run("gaussian_blur", images, sigma)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # at the border too, and with kernels beyond the image
    volume = as_seen(pictures(b=1, h=9, w=8, channels=7))[..., None]
    expected = scipy.ndimage.gaussian_filter(volume.astype(np.float64), (0, *(sigma,) * 3, 0), mode="reflect")
    np.testing.assert_allclose(run("gaussian_blur", volume, sigma), expected, atol=1e-5)
    levels = pictures()
    expected = scipy.ndimage.gaussian_filter(levels.astype(np.float64), (0, sigma, sigma, 0), mode="reflect")
    np.testing.assert_allclose(run("gaussian_blur", levels, sigma), expected, atol=0.501)


def test_a_blur_keeps_the_mean_within_a_constant_border():
    images = np.full((2, 40, 40, 3), -0.2, np.float32)
    images[:, 16:24, 16:24] = as_seen(pictures(b=2, h=8, w=8))
    found = run("gaussian_blur", images, 2.0)
    np.testing.assert_allclose(found.mean((1, 2)), images.mean((1, 2)), atol=1e-5)
    assert found.var() < 0.7 * images.var()


@pytest.mark.parametrize("name, strength", [("gaussian_blur", 3.0), ("resolution", 2.0), ("resolution", 3.3)])
def test_constant_images_stay(name, strength):
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 9, 7, 1))
    np.testing.assert_array_equal(run(name, levels, strength), levels)
    np.testing.assert_allclose(run(name, as_seen(levels), strength), as_seen(levels), atol=1e-5)


@pytest.mark.parametrize("factor, small", [(2.0, (8, 6)), (1.5, (11, 8)), (2.6, (6, 5)), (64.0, (1, 1))])
def test_a_lower_resolution_is_two_resizes_of_pillow(factor, small):
    image = as_seen(pictures(b=1, h=16, w=12, channels=1))[0, ..., 0]
    between = Image.fromarray(image).resize(small[::-1], Image.Resampling.BILINEAR)
    expected = np.asarray(between.resize((12, 16), Image.Resampling.BILINEAR))
    found = run("resolution", image[None, ..., None], factor)[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("shape", ((40, 30), (12, 16, 20)))
@pytest.mark.parametrize("strength", (0.2, 1.0))
def test_a_bias_field_has_mean_one_and_is_smooth(shape, strength):
    keys = jax.random.split(jax.random.key(0), 20)
    draw = functools.partial(shifts.draw_bias_field, shape=shape, strength=strength)
    fields = np.asarray(jax.jit(jax.vmap(draw))(keys))
    assert fields.shape == (20, *shape) and fields.dtype == np.float32
    space = tuple(range(1, fields.ndim))
    np.testing.assert_allclose(fields.mean(space), 1, atol=1e-5)
    np.testing.assert_allclose(np.abs(fields - 1).max(space), strength, rtol=1e-5)
    for axis, size in enumerate(shape, 1):
        # Bernstein's inequality for three half waves; the greatest value may lie between pixels
        assert np.abs(np.diff(fields, axis=axis)).max() < 1.05 * strength * 3 * math.pi / size
    assert (np.abs(fields - 1).mean(space) > 0.1 * strength).all()  # not a peak alone
    assert len({field.tobytes() for field in fields}) == 20


def test_images_are_multiplied_by_their_bias_field():
    key, images = jax.random.key(3), pictures()
    fields = [
        shifts.draw_bias_field(jax.random.fold_in(key, i), (10, 12), 0.4, half_waves=2) for i in range(len(images))
    ]
    expected = np.clip(images * np.stack(fields)[..., None], 0, 255)
    found = shifts.bias_field(key, images, 0.4, half_waves=2)
    np.testing.assert_allclose(found, expected, atol=0.501)
    seen = shifts.bias_field(key, as_seen(images), 0.4, half_waves=2)
    np.testing.assert_allclose(seen, expected / 127.5 - 1, atol=1e-5)
    assert (shifts.draw_bias_field(key, (1, 1), 0.4) == 1).all()
    narrow = shifts.draw_bias_field(key, (1, 2), 0.4)  # one wave fits
    np.testing.assert_allclose(np.sort(narrow), [[0.6, 1.4]], atol=1e-6)


@pytest.mark.parametrize("name", shifts.SHIFTS)
def test_a_shift_goes_before_the_view(name):
    batch = stored(h=16, w=16)
    shifted = shifts.shift(name, strength=STRENGTHS[name])
    see = jax.jit(lambda key, batch: augment.whole(shifted(key, batch), size=8))
    key = jax.random.key(1)
    found, plain = see(key, batch), augment.whole(batch, size=8)
    assert found["images"].dtype == np.float32 and found["images"].shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(found["labels"], plain["labels"])
    assert np.abs(found["images"] - plain["images"]).max() > 0.01
    # what the network sees can be shifted as well
    after = jax.jit(shifted)(key, plain)
    assert set(after) == {"images", "labels"} and (after["images"] != plain["images"]).any()
    np.testing.assert_array_equal(after["labels"], plain["labels"])


def test_the_dispatcher_is_the_plain_function():
    batch, key = stored(), jax.random.key(2)
    for name in ("contrast", "uniform_noise"):
        found = jax.jit(shifts.shift(name, strength=STRENGTHS[name]))(key, batch)
        np.testing.assert_array_equal(found["image"], run(name, batch["image"], STRENGTHS[name], key=2))
    for row in shifts.SHIFTS.values():
        assert row.low <= row.neutral <= row.high and row.meaning


def test_shifts_that_cannot_be_are_named():
    with pytest.raises(InputError) as error:
        shifts.shift("fog", strength=1.0)
    assert str(error.value) == f"shift is 'fog'; choose one of {', '.join(shifts.SHIFTS)}"
    impossible = (-1.0, 1e3, math.nan, math.inf, "much", None, True)
    for name, row in shifts.SHIFTS.items():
        for strength in impossible:
            with pytest.raises(InputError) as error:
                shifts.shift(name, strength=strength)
            message = f"strength of {name} is {strength!r}; it must be a number in {row.low:g} to {row.high:g}"
            assert str(error.value) == message
        for strength in (row.low, row.high):
            shifts.shift(name, strength=strength)
    with pytest.raises(InputError, match="strength of contrast is 11; it must be a number in 0 to 10"):
        shifts.contrast(pictures(), 11)
    with pytest.raises(InputError, match="strength of gamma is a traced array; it must be a number"):
        jax.jit(shifts.gamma)(pictures(), 2.0)


def test_a_strength_of_numpy_is_a_number():
    for name in ("brightness", "uniform_noise", "bias_field"):
        for given in (pictures(), as_seen(pictures())):
            found = run(name, given, np.float64(0.5))
            np.testing.assert_array_equal(found, run(name, given, 0.5))
            assert found.dtype == given.dtype


def test_images_that_cannot_be_shifted_are_named():
    with pytest.raises(ValueError, match=r"brightness needs images .* got int32\(1, 4, 4, 3\)"):
        shifts.brightness(np.zeros((1, 4, 4, 3), np.int32), 0.5)
    with pytest.raises(ValueError, match=r"gamma needs images .* got uint8\(4, 4, 3\)"):
        shifts.gamma(np.zeros((4, 4, 3), np.uint8), 0.5)
    for function in (shifts.contrast, shifts.saturation):
        with pytest.raises(ValueError, match=r"1 or 3 channels, which have a gray, got \(3, 10, 12, 2\)"):
            function(pictures(channels=2), 0.5)
    with pytest.raises(ValueError, match="uint8 images of at most 16843009 pixels, got float32"):
        shifts.contrast_table(as_seen(pictures()), 0.5)
    with pytest.raises(ValueError, match="half_waves is 0"):
        shifts.draw_bias_field(jax.random.key(0), (4, 4), 0.5, half_waves=0)
    with pytest.raises(ValueError, match="needs image or images in the batch, got labels"):
        shifts.shift("gamma", strength=2.0)(jax.random.key(0), {"labels": np.zeros((1, 4, 4), np.uint8)})
