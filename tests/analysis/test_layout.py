"""Features with their channels first are refused where shapes can tell, and legitimate ones never."""

import fractions
import itertools

import numpy as np
import pytest

from jaxseg.analysis import gradcam, hellinger, layout, prototypes, vog
from jaxseg.analysis.layout import check_channels_last
from jaxseg.models import unet

# spatial sizes of the mask, and of features that a network may well have for it
MAPS = {
    "halved": ((256, 256), (32, 32)),
    "one pixel": ((256, 256), (1, 1)),
    "odd sides rounded up and down": ((127, 160), (15, 20)),
    "odd sides, deep": ((127, 160), (3, 5)),
    "strides that differ": ((320, 128), (10, 8)),
    "margin of valid": ((192, 256), (2 * 110 + 192, 2 * 110 + 256)),
    "margin of valid, deep": ((192, 256), (26, 30)),
    "square margin": ((64, 64), (284, 284)),
    "image and scan lines": ((64, 512), (8, 64)),
    "volume": ((32, 96, 128), (8, 24, 32)),
    "volume of thick slices": ((16, 128, 128), (16, 32, 32)),
    "volume, deep": ((20, 160, 160), (5, 5, 5)),
}


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8, 16, 32, 64, 128, 512])
@pytest.mark.parametrize("name", MAPS)
def test_channels_last_pass_whatever_their_number(name, channels):
    sizes, sides = MAPS[name]
    check_channels_last("features", (2, *sides, channels), sizes, "the mask")


@pytest.mark.parametrize("channels", [3, 64, 512])
@pytest.mark.parametrize(
    "name", ["halved", "odd sides rounded up and down", "margin of valid", "square margin", "volume"]
)
def test_channels_first_do_not(name, channels):
    sizes, sides = MAPS[name]
    with pytest.raises(ValueError, match=r"jnp.moveaxis\(features, 1, -1\)"):
        check_channels_last("features", (2, channels, *sides), sizes, "the mask")


def test_where_both_readings_fit_or_neither_nothing_is_claimed():
    for shape in ((2, 32, 32, 32), (2, 31, 32, 32), (2, 64, 16, 7)):
        check_channels_last("features", shape, (256, 256), "the mask")


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((2, 24, 24, 32), (24, 32)),
        ((2, 24, 24, 32), (96, 128)),
        ((2, 24, 24, 32), (72, 96)),
        ((2, 24, 24, 32), (3, 4)),
        ((2, 16, 16, 20), (127, 160)),
        ((2, 64, 64, 32), (512, 256)),
        ((2, 8, 4, 8, 8), (16, 32, 32)),
        ((2, 16, 16, 32, 32), (16, 32, 32)),
    ],
)
def test_square_maps_are_channels_and_a_side_where_the_rest_fits_the_image_to_a_pixel(shape, sizes):
    with pytest.raises(ValueError, match=r"moveaxis.*; if they are last, resize features to \("):
        check_channels_last("features", shape, sizes, "the mask")
    check_channels_last("features", (shape[0], *sizes, shape[-1]), sizes, "the mask")  # what the message advises


def test_margins_of_valid_networks_nearly_always_pass():
    margin, refused, cases = unet.image_margin(4), 0, 0
    for sizes in itertools.product(range(128, 513, 64), repeat=2):
        for level, channels in itertools.product(range(5), (16, 32, 64, 128, 256, 512)):
            sides, cases = [(size + 2 * margin) >> level for size in sizes], cases + 1
            try:
                check_channels_last("features", (2, *sides, channels), sizes, "the mask")
            except ValueError:
                refused += 1
    assert refused <= cases / 500  # by a chance that the message speaks of


@pytest.fixture(scope="module")
def channels_first():
    return np.random.default_rng(0).standard_normal((2, 8, 5, 5)).astype(np.float32)


def test_every_analysis_that_has_a_size_to_compare_refuses_channels_first(channels_first):
    mask = np.full((2, 20, 20), 0.3, np.float32)
    labels = (np.indices(mask.shape)[2] > 9).astype(np.int32)
    calls = [
        lambda x: prototypes.sa_score(x, mask, labels),
        lambda x: prototypes.unit_heat_map(x, mask),
        lambda x: prototypes.mean_sa_score([x], mask),
        lambda x: prototypes.sa_loss([x], mask, labels),
        lambda x: hellinger.pool_vectors(x, image_shape=(160, 160)),
        lambda x: hellinger.pool_vectors(x, grid=(2, 2)),
        lambda x: gradcam.gradcam(x, x, size=(20, 20)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\(2, 8, 5, 5\) .*channels last.*moveaxis"):
            call(channels_first)
        call(np.moveaxis(channels_first, 1, -1))


def test_images_that_a_wrapped_network_turns_are_refused(channels_first):
    with pytest.raises(ValueError, match=r"images \(2, 8, 5, 5\) .*the logits \(5, 5\)"):
        vog.input_gradients(lambda x: np.float32(2) * x.transpose(0, 2, 3, 1), channels_first)


def test_one_cell_says_nothing_of_proportions():
    activations = np.random.default_rng(1).standard_normal((2, 32, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(
        hellinger.pool_vectors(activations, grid=(1, 1)), activations.mean((1, 2)), rtol=1e-4, atol=1e-6
    )


def test_proportions_of_small_sides_are_those_of_fractions():
    share, strides = fractions.Fraction, (1, 2, 3, 4, 6, 8, 12, 16)
    for sides, sizes in itertools.product(itertools.product(range(1, 7), repeat=2), repeat=2):
        axes = list(zip(sides, sizes, strict=True))
        least, most = (max(share(n - 1, of) for n, of in axes), min(share(n + 1, of) for n, of in axes))
        assert layout._proportional(sides, sizes) == (least <= most)
        shrunk = any(all(abs(n - share(of, stride)) < 1 for n, of in axes) for stride in strides)
        grown = any(all(n == times * of for n, of in axes) for times in range(1, 7))
        assert layout._strided(sides, sizes) == (shrunk or grown)
        (long, longer), (short, shorter) = sorted(axes, key=lambda axis: axis[1], reverse=True)
        between = [(long, longer, short, shorter)] + [(short, shorter, long, longer)] * (longer == shorter)
        within = (a >= b - 2 and share(a - 1, b + 1) <= share(c, d) for a, c, b, d in between)
        assert layout._between(sides, sizes) == all(within)
