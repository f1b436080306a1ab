"""Photometric domain shifts, beside slow references."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
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


def run(images, *wanted, key=0):
    """The plain functions of the wanted `(name, strength)`, compiled as one program."""
    return [np.asarray(found) for found in _run(jax.random.key(key), images, wanted)]


@functools.partial(jax.jit, static_argnums=2)
def _run(key, images, wanted):
    rows = [(shifts.SHIFTS[name], strength) for name, strength in wanted]
    return [row.function(key, images, x) if row.draws else row.function(images, x) for row, x in rows]


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


def test_brightness_is_equation_1():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    found = run(images, *(("brightness", factor) for factor in PAPER_FACTORS))
    for factor, result in zip(PAPER_FACTORS, found, strict=True):
        expected = [blend(v, 0, decimal(factor)) for v in range(256)]
        np.testing.assert_array_equal(result.ravel(), expected)


@pytest.mark.parametrize("channels, factors", [(1, (0.0, 0.3, 1.25)), (3, (0.0, 0.3, *PAPER_FACTORS, 10.0))])
def test_contrast_is_equation_2_on_all_levels(channels, factors):
    images = pictures(channels=channels, h=7, w=11)
    images[1] //= 8  # a dark one
    both = jax.jit(lambda x: [(shifts.contrast_table(x, factor), shifts.contrast(x, factor)) for factor in factors])
    for factor, (tables, found) in zip(factors, both(images), strict=True):
        for image, table, result in zip(images, np.asarray(tables), np.asarray(found), strict=True):
            g = grays(image) if channels == 3 else image[..., 0]
            mean = Fraction(int(g.sum()), g.size)
            assert mean.denominator > 1
            np.testing.assert_array_equal(table, [blend(v, mean, decimal(factor)) for v in range(256)])
            np.testing.assert_array_equal(result, table[image])


def test_the_mean_of_many_pixels_is_not_rounded():
    # 2^22 of them, so that products leave 32 bits; one level more or less in one pixel
    images, pixels = np.full((3, 2048, 2048, 1), 100, np.uint8), 2**22
    images[1, -1, -1], images[2, -1, -1] = 101, 99
    factors = (Fraction(5001, 10000), Fraction(3, 2))
    found = jax.jit(lambda x: [shifts.contrast_table(x, float(factor)) for factor in factors])(images)
    for factor, tables in zip(factors, np.asarray(found), strict=True):
        for table, extra in zip(tables, (0, 1, -1), strict=True):
            mean = Fraction(100 * pixels + extra, pixels)
            np.testing.assert_array_equal(table, [blend(v, mean, factor) for v in range(256)])
    assert (tables[0] != tables[1]).any()  # odd levels lie half-way between two, and the one pixel decides


def test_saturation_is_equation_3():
    images, factors = pictures(), (0.0, 0.25, 0.4, 0.75, 1.3)
    g = [grays(image) for image in images]
    for factor, found in zip(factors, run(images, *(("saturation", factor) for factor in factors)), strict=True):
        expected = [
            [
                [[blend(image[y, x, c], int(gray[y, x]), decimal(factor)) for c in range(3)] for x in range(12)]
                for y in range(10)
            ]
            for image, gray in zip(images, g, strict=True)
        ]
        np.testing.assert_array_equal(found, expected)
        one = pictures(channels=1)
        np.testing.assert_array_equal(shifts.saturation(one, factor), one)


def test_without_saturation_all_channels_are_the_weighted_sum():
    images = pictures()
    (found,) = run(images, ("saturation", 0.0))
    np.testing.assert_array_equal(found, np.broadcast_to(found[..., :1], found.shape))
    np.testing.assert_allclose(shifts.GRAY_WEIGHTS, [0.299, 0.587, 0.114], atol=1e-5)
    assert sum(shifts.GRAY_WEIGHTS) == 1
    np.testing.assert_allclose(found[..., 0], images @ [0.299, 0.587, 0.114], atol=0.51)
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    np.testing.assert_array_equal(found[..., 0], pillow)
    (seen,) = run(as_seen(images), ("saturation", 0.0))
    np.testing.assert_allclose(seen[..., 0], as_seen(images) @ [0.299, 0.587, 0.114], atol=1e-4)


@pytest.mark.parametrize(
    "name, enhance",
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_pillow_rounds_down_and_rounds_the_mean(name, enhance):
    images, factors = pictures(), (0.25, 0.5, 0.75, 1.25, 1.5, 1.75)  # exact in Pillow's float32
    g = np.stack([grays(image) for image in images])
    means = np.broadcast_to(np.floor(g.mean((1, 2), keepdims=True) + 0.5).astype(int), g.shape)
    centre = {"brightness": 0 * g, "contrast": means, "saturation": g}[name]
    for factor, found in zip(factors, run(images, *((name, factor) for factor in factors)), strict=True):
        pillow = np.stack([enhance(Image.fromarray(image)).enhance(factor) for image in images]).astype(int)
        theirs = [
            [blend(value, int(middle), decimal(factor), rounded=0) for value in pixel]
            for pixel, middle in zip(images.reshape(-1, 3), centre.ravel(), strict=True)
        ]
        np.testing.assert_array_equal(pillow.reshape(-1, 3), theirs)  # so this is the whole difference
        difference = found.astype(int) - pillow
        assert difference.min() >= 0 and difference.max() <= 1
        # in contrast the two roundings may cancel
        assert name == "contrast" or (difference[-1].max() == 1)


def test_float_images_are_shifted_the_same_way():
    images = pictures()
    wanted = [(name, STRENGTHS[name]) for name in ("brightness", "contrast", "saturation", "gamma")]
    for (name, _), seen, levels in zip(wanted, run(as_seen(images), *wanted), run(images, *wanted), strict=True):
        # gray and result are rounded on uint8
        np.testing.assert_allclose(seen, as_seen(levels), atol=1.3 / 127.5, err_msg=name)
        assert np.abs(seen).max() <= 1, name
        assert np.abs(seen - as_seen(images)).max() > 0.05, name


def test_gamma_is_a_power():
    images, exponents = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (0.1, 0.7, 2.2, 10.0)
    wanted = [("gamma", exponent) for exponent in exponents]
    for exponent, levels, seen in zip(exponents, run(images, *wanted), run(as_seen(images), *wanted), strict=True):
        expected = 255 * (np.arange(256) / 255) ** exponent
        np.testing.assert_allclose(levels.ravel(), expected, atol=0.5 + 1e-9)
        np.testing.assert_allclose(seen.ravel(), expected / 127.5 - 1, atol=1e-4)


@pytest.mark.parametrize("shape", ((2, 9, 8, 3), (2, 4, 6, 5, 1)))
def test_shape_and_type_stay_and_the_neutral_strength_changes_no_bit(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    neutral = [(name, row.neutral) for name, row in shifts.SHIFTS.items()]
    for given in (images, as_seen(images)):
        for (name, _), same in zip(neutral, run(given, *neutral), strict=True):
            assert same.dtype == given.dtype, name
            np.testing.assert_array_equal(same, given, err_msg=name)
        key = jax.random.key(0)
        for found in jax.eval_shape(lambda key, x: _run(key, x, tuple(STRENGTHS.items())), key, given):
            assert (found.shape, found.dtype) == (given.shape, given.dtype)


def test_volumes_are_shifted():
    images = pictures(b=2, h=4, w=6, channels=5)[..., None]
    for given in (images, as_seen(images)):
        for name, found in zip(STRENGTHS, run(given, *STRENGTHS.items()), strict=True):
            assert (found != given).any() or name == "saturation", name  # one channel is gray already


def test_near_the_neutral_strength_little_changes():
    # not the short cut of the neutral strength itself
    images = pictures(h=32, w=32)
    near = {name: row.neutral + 1e-3 for name, row in shifts.SHIFTS.items() if name not in ("resolution",)}
    near["gaussian_blur"] = 0.1
    for name, found in zip(near, run(images, *near.items()), strict=True):
        assert np.abs(found.astype(int) - images).max() <= 1, name


AMPLITUDES = (0.1, 0.45)
NOISES = [("uniform_noise", amplitude) for amplitude in AMPLITUDES]


@pytest.mark.parametrize("amplitude", AMPLITUDES)
def test_noise_is_uniform_with_its_amplitude(amplitude):
    which = AMPLITUDES.index(amplitude)
    noise = run(np.zeros((4, 64, 64, 3), np.float32), *NOISES)[which] / 2  # of the range, which is 2 here
    assert np.abs(noise).max() <= amplitude * (1 + 1e-5)
    assert noise.max() > 0.999 * amplitude and noise.min() < -0.999 * amplitude
    error = amplitude / math.sqrt(3 * noise.size)
    assert abs(noise.mean()) < 4 * error
    counts = np.histogram(noise, 20, (-amplitude, amplitude))[0]
    mean = noise.size / 20
    assert np.sum((counts - mean) ** 2 / mean) < 19 + 5 * math.sqrt(38)  # chi squared
    levels = run(np.full((4, 64, 64, 3), 128, np.uint8), *NOISES)[which].astype(int) - 128
    assert abs(levels.mean()) < 4 * 255 * error + 0.01
    edge = math.ceil(255 * amplitude - 0.5)
    assert (levels.min(), levels.max()) == (-edge, edge)


def test_noise_is_independent_between_pixels_channels_and_images():
    noise = run(np.zeros((4, 64, 64, 3), np.float32), *NOISES)[1]
    pairs = [(noise[0], noise[1]), (noise[..., 0], noise[..., 1]), (noise[:, 1:], noise[:, :-1])]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.06


def test_what_a_sample_gets_does_not_depend_on_how_the_batch_is_cut():
    batch = stored(b=6)
    every = {name: shifts.shift(name, strength=strength) for name, strength in STRENGTHS.items()}
    see = jax.jit(lambda key, batch: {name: shifted(key, batch) for name, shifted in every.items()})
    key = jax.random.key(5)
    with_places = {**batch, "position": np.arange(6, dtype=np.int32)}
    everything, again = see(key, batch), see(jax.random.key(6), batch)
    same = see(key, {field: np.repeat(array[:1], 6, 0) for field, array in batch.items()})
    parts = [slice(0, 3), slice(3, 6), slice(1, 6, 2)]
    cut = [see(key, {field: array[part] for field, array in with_places.items()}) for part in parts]
    for name, row in shifts.SHIFTS.items():
        whole = np.asarray(everything[name]["image"])
        for part, found in zip(parts, cut, strict=True):
            np.testing.assert_array_equal(found[name]["image"], whole[part], err_msg=name)
            for field in ("labels", "index", "position"):
                np.testing.assert_array_equal(found[name][field], with_places[field][part], err_msg=name)
        different = len({image.tobytes() for image in np.asarray(same[name]["image"])})
        assert different == (6 if row.draws else 1), name
        assert (np.asarray(again[name]["image"]) != whole).any() == row.draws, name


def test_a_blur_is_that_of_scipy():
    sigmas = (0.6, 2.0, 5.0)
    levels, images = pictures(), as_seen(pictures(b=2, h=24, w=20))
    volume = as_seen(pictures(b=1, h=9, w=8, channels=7))[..., None]
    # at the border too, and with kernels beyond the image
    for given, atol in ((images, 1e-5), (volume, 1e-5), (levels, 0.501)):
        for sigma, found in zip(sigmas, run(given, *(("gaussian_blur", sigma) for sigma in sigmas)), strict=True):
            along = (0, *(sigma,) * (given.ndim - 2), 0)
            expected = scipy.ndimage.gaussian_filter(given.astype(np.float64), along, mode="reflect")
            np.testing.assert_allclose(found, expected, atol=atol)


def test_a_blur_keeps_the_mean_within_a_constant_border():
    images = np.full((2, 40, 40, 3), -0.2, np.float32)
    images[:, 16:24, 16:24] = as_seen(pictures(b=2, h=8, w=8))
    (found,) = run(images, ("gaussian_blur", 2.0))
    np.testing.assert_allclose(found.mean((1, 2)), images.mean((1, 2)), atol=1e-5)
    assert found.var() < 0.7 * images.var()


def test_constant_images_stay():
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 9, 7, 1))
    for found in run(levels, ("gaussian_blur", 3.0), ("resolution", 3.3)):
        np.testing.assert_array_equal(found, levels)
    for seen in run(as_seen(levels), ("gaussian_blur", 3.0), ("resolution", 3.3), ("resolution", 2.0)):
        np.testing.assert_allclose(seen, as_seen(levels), atol=1e-5)


def test_a_lower_resolution_is_two_resizes_of_pillow():
    smaller = {1.5: (11, 8), 2.6: (6, 5), 64.0: (1, 1)}
    image = as_seen(pictures(b=1, h=16, w=12, channels=1))[0, ..., 0]
    found = run(image[None, ..., None], *(("resolution", factor) for factor in smaller))
    for small, result in zip(smaller.values(), found, strict=True):
        between = Image.fromarray(image).resize(small[::-1], Image.Resampling.BILINEAR)
        expected = np.asarray(between.resize((12, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(result[0, ..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("shape", ((40, 30), (12, 16, 20)))
def test_a_bias_field_has_mean_one_and_is_smooth(shape):
    keys, strengths = jax.random.split(jax.random.key(0), 20), (0.2, 1.0)
    draw = lambda key: [shifts.draw_bias_field(key, shape, strength) for strength in strengths]
    for strength, fields in zip(strengths, map(np.asarray, jax.jit(jax.vmap(draw))(keys)), strict=True):
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
    images = pictures()

    @jax.jit
    def drawn(key):
        keys = [jax.random.fold_in(key, i) for i in range(len(images))]
        fields = jnp.stack([shifts.draw_bias_field(each, (10, 12), 0.4, half_waves=2) for each in keys])
        shifted = [shifts.bias_field(key, given, 0.4, half_waves=2) for given in (images, as_seen(images))]
        return fields, *shifted, *(shifts.draw_bias_field(key, shape, 0.4) for shape in ((1, 1), (1, 2)))

    fields, found, seen, pixel, narrow = map(np.asarray, drawn(jax.random.key(3)))
    expected = np.clip(images * fields[..., None], 0, 255)
    np.testing.assert_allclose(found, expected, atol=0.501)
    np.testing.assert_allclose(seen, expected / 127.5 - 1, atol=1e-5)
    assert (pixel == 1).all()
    np.testing.assert_allclose(np.sort(narrow), [[0.6, 1.4]], atol=1e-6)  # one wave fits


def test_shifts_go_before_the_view():
    batch, key = stored(h=16, w=16), jax.random.key(1)
    shifted = {name: shifts.shift(name, strength=strength) for name, strength in STRENGTHS.items()}

    @jax.jit
    def see(key, batch):
        plain = augment.whole(batch, size=8)
        # one view of all shifted images, as resizing is slow to compile
        every = [shift(key, batch) for shift in shifted.values()]
        before = augment.whole(jax.tree.map(lambda *parts: jnp.concatenate(parts), *every), size=8)
        return plain, before, {name: shift(key, plain) for name, shift in shifted.items()}

    plain, before, after = jax.device_get(see(key, batch))
    before = {name: {k: v[3 * i : 3 * i + 3] for k, v in before.items()} for i, name in enumerate(shifted)}
    for name in shifts.SHIFTS:
        found = before[name]
        assert found["images"].dtype == np.float32 and found["images"].shape == (3, 8, 8, 3), name
        np.testing.assert_array_equal(found["labels"], plain["labels"])
        assert np.abs(found["images"] - plain["images"]).max() > 0.01, name
        # what the network sees can be shifted as well
        found = after[name]
        assert set(found) == {"images", "labels"} and (found["images"] != plain["images"]).any(), name
        np.testing.assert_array_equal(found["labels"], plain["labels"])


def program(shifted, images):
    return str(jax.make_jaxpr(shifted)(jax.random.key(0), images))


def test_the_dispatcher_is_the_plain_function():
    for name, row in shifts.SHIFTS.items():
        dispatcher, strength = shifts.shift(name, strength=STRENGTHS[name]), STRENGTHS[name]
        for field, images in (("image", pictures()), ("images", as_seen(pictures()))):
            dispatched = program(lambda key, x, field=field, shift=dispatcher: shift(key, {field: x})[field], images)
            plain = lambda key, x, row=row, s=strength: row.function(*((key, x) if row.draws else (x,)), s)
            assert dispatched == program(plain, images), name
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


@pytest.mark.parametrize("name", ("brightness", "uniform_noise", "bias_field"))
def test_a_strength_of_numpy_is_a_number(name):
    for given in (pictures(), as_seen(pictures())):
        numpys, pythons = (shifts.shift(name, strength=number(0.5)) for number in (np.float64, float))
        assert program(numpys, {"image": given}) == program(pythons, {"image": given})
        found = jax.eval_shape(numpys, jax.random.key(0), {"image": given})["image"]
        assert found.dtype == given.dtype


def test_shifts_need_no_compilation_of_theirs():
    images = pictures(b=1, h=3, w=4)
    np.testing.assert_array_equal(shifts.gamma(images, 0.5), run(images, ("gamma", 0.5))[0])


def test_images_that_cannot_be_shifted_are_named():
    with pytest.raises(ValueError, match=r"brightness needs images .* got int32\(1, 4, 4, 3\)"):
        shifts.brightness(np.zeros((1, 4, 4, 3), np.int32), 0.5)
    with pytest.raises(ValueError, match=r"gamma needs images .* got uint8\(4, 4, 3\)"):
        shifts.gamma(np.zeros((4, 4, 3), np.uint8), 0.5)
    for function in (shifts.contrast, shifts.saturation):
        with pytest.raises(ValueError, match=r"1 or 3 channels to compute gray, got \(3, 10, 12, 2\)"):
            function(pictures(channels=2), 0.5)
    with pytest.raises(ValueError, match="uint8 images of at most 16843009 pixels, got float32"):
        shifts.contrast_table(as_seen(pictures()), 0.5)
    with pytest.raises(ValueError, match="half_waves is 0"):
        shifts.draw_bias_field(jax.random.key(0), (4, 4), 0.5, half_waves=0)
    with pytest.raises(ValueError, match="needs image or images in the batch, got labels"):
        shifts.shift("gamma", strength=2.0)(jax.random.key(0), {"labels": np.zeros((1, 4, 4), np.uint8)})
