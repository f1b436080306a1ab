"""Training images moved: one map, one interpolation, in 2-D and 3-D."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate, ndimage

from jaxseg.data.augmentation import sampling, settings, spatial


def seen(b=3, h=9, w=9, channels=2, seed=0):
    random = np.random.default_rng(seed)
    images = random.uniform(-1, 1, (b, h, w, channels)).astype(np.float32)
    return {"images": images, "labels": random.integers(0, 4, (b, h, w)).astype(np.int32)}


warp = jax.jit(spatial.warp, static_argnames="fill")


def warped(batch, matrix, fill="reflect"):
    affine = np.broadcast_to(np.asarray(matrix, np.float32), (len(batch["labels"]), 2, 3))
    return jax.device_get(warp(batch, affine, fill=fill))


@pytest.fixture(scope="module")
def drawn():
    """Matrices of many samples of 100 pixels a side, for each of some augmentations."""
    options = {
        "turned": {"rotate": 30.0, "scale": (0.5, 2.0)},
        "moved": {"translate": 0.2, "flip_horizontal": 0.25},
        "cropped": {"crop": (0.5, 0.9)},
        "rotated": {"rotate": 20.0},
        "rotated and flipped": {"rotate": 20.0, "flip_vertical": 1.0},
    }
    chosen = {name: settings.check_augmentation(given) for name, given in options.items()}
    draw = lambda key: {name: spatial.draw_affine(key, given, (100, 100)) for name, given in chosen.items()}
    return jax.device_get(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 2000)))


@pytest.mark.parametrize("fill", settings.FILLS)
@pytest.mark.parametrize("n", [8, 9])
def test_the_identity_and_the_flips_are_exact(fill, n):
    batch = seen(h=n, w=n)
    for y, x in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        found = warped(batch, [[y, 0, 0], [0, x, 0]], fill)
        for name in ("images", "labels"):
            np.testing.assert_array_equal(found[name], batch[name][:, ::y, ::x])


@pytest.mark.parametrize("n", [8, 9])
def test_a_rotation_by_90_degrees_is_rot90(n, monkeypatch):
    batch, chosen = seen(h=n, w=n), settings.check_augmentation({"rotate": 90.0})
    # the upper end of every range
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, np.float32(1 - 1e-7)))
    # a function of its own, as JAX would remember what it traced with other draws
    matrix = jax.jit(lambda key: spatial.draw_affine(key, chosen, (n, n)))(jax.random.key(0))
    found = warped(batch, matrix)
    np.testing.assert_array_equal(found["labels"], np.rot90(batch["labels"], axes=(1, 2)))
    np.testing.assert_allclose(found["images"], np.rot90(batch["images"], axes=(1, 2)), atol=1e-5)


def test_beyond_the_border_is_the_mirror_image_or_nothing():
    batch = seen()
    for fill, mode, options in (("reflect", "reflect", {}), ("constant", "constant", {"constant_values": -1})):
        found = warped(batch, [[1, 0, -3], [0, 1, 4]], fill)  # three pixels from above, four beyond the right
        pad = np.pad(batch["images"], ((0, 0), (4, 4), (4, 4), (0, 0)), mode, **options)
        np.testing.assert_array_equal(found["images"], pad[:, 1:10, 8:17])
        pad = np.pad(batch["labels"], ((0, 0), (4, 4), (4, 4)), mode)
        np.testing.assert_array_equal(found["labels"], pad[:, 1:10, 8:17])
    far = warped(batch, [[1, 0, 100], [0, 1, 0]], "constant")
    assert (far["images"] == -1).all() and (far["labels"] == 0).all()


@pytest.mark.parametrize("fill", settings.FILLS)
def test_a_warp_is_the_bilinear_loop(fill):
    batch = seen(b=1, h=6, w=8, channels=1)
    matrix = np.array([[0.8, -0.3, 1.3], [0.4, 0.9, -2.1]], np.float32)
    found = warped(batch, matrix, fill)
    image, labels = batch["images"][0, ..., 0], batch["labels"][0]

    def value(array, y, x, outside):
        if fill == "constant":
            return array[y, x] if 0 <= y < 6 and 0 <= x < 8 else outside
        y, x = abs(y) % 10, abs(x) % 14
        return array[min(y, 10 - y), min(x, 14 - x)]

    for i in range(6):
        for j in range(8):
            y, x = matrix @ [i - 2.5, j - 3.5, 1] + [2.5, 3.5]
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            weights = {(a, b): (1 - abs(y - y0 - a)) * (1 - abs(x - x0 - b)) for a in (0, 1) for b in (0, 1)}
            expected = sum(weight * value(image, y0 + a, x0 + b, -1.0) for (a, b), weight in weights.items())
            np.testing.assert_allclose(found["images"][0, i, j, 0], expected, atol=2e-6)
            assert found["labels"][0, i, j] == value(labels, round(y), round(x), 0)


def test_draws_cover_their_ranges_and_nothing_else(drawn):
    turned, moved, crop = drawn["turned"], drawn["moved"], drawn["cropped"]
    angles = np.degrees(np.arctan2(turned[:, 0, 1], turned[:, 0, 0]))
    np.testing.assert_allclose([angles.min(), angles.max(), angles.mean()], [-30, 30, 0], atol=1.5)
    zoom = 1 / np.hypot(turned[:, 0, 0], turned[:, 0, 1])
    np.testing.assert_allclose([zoom.min(), zoom.max(), zoom.mean()], [0.5, 2, 1.25], atol=0.05)
    np.testing.assert_allclose([moved[..., 2].min(0), moved[..., 2].max(0)], [[-20, -20], [20, 20]], atol=0.2)
    assert abs((moved[:, 1, 1] < 0).mean() - 0.25) < 0.04 and (moved[:, 0, 0] == 1).all()
    share, reach = crop[:, 0, 0], np.abs(crop[..., 2]).max(1) + crop[:, 0, 0] * 49.5
    np.testing.assert_allclose([share.min(), share.max()], [0.5, 0.9], atol=0.01)
    assert 49 < reach.max() < 49.5001  # never beyond the outermost pixels


def test_one_augmentation_draws_the_same_whichever_others_there_are(drawn):
    alone, with_flips = drawn["rotated"], drawn["rotated and flipped"]
    np.testing.assert_allclose(with_flips[:, 0], -alone[:, 0], atol=1e-6)
    np.testing.assert_allclose(with_flips[:, 1], alone[:, 1], atol=1e-6)


def moved_by_scipy(array, order, outside, *, places, fill):
    """One sample's channel at `places [r,...]`, by scipy."""
    if order == 0:
        places = np.floor(places + 0.5)
    if fill == "reflect":
        return ndimage.map_coordinates(array, places, order=order, mode="mirror")
    if order < 3:  # between the outermost pixels and nothing, linearly
        return ndimage.map_coordinates(array, places, order=order, mode="grid-constant", cval=outside)
    sides = np.array(array.shape).reshape(-1, *(1,) * (places.ndim - 1))
    beyond = np.maximum(np.maximum(-places, places - (sides - 1)), 0)
    share = np.prod(np.maximum(1 - beyond, 0), 0)
    return share * ndimage.map_coordinates(array, places, order=3, mode="mirror") + (1 - share) * outside


@pytest.mark.parametrize("fill", settings.FILLS)
@pytest.mark.parametrize("interpolation", settings.INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(9, 12), (6, 7, 9)])
def test_a_warp_is_scipys(shape, interpolation, fill):
    random, rank = np.random.default_rng(1), len(shape)
    batch = {
        "images": random.uniform(-1, 1, (2, *shape, 2)).astype(np.float32),
        "labels": random.integers(0, 4, (2, *shape)).astype(np.int32),
        "valid": random.random((2, *shape)) < 0.7,
    }
    affine = np.concatenate(
        [np.eye(rank) + random.normal(0, 0.2, (2, rank, rank)), random.normal(0, 2, (2, rank, 1))], 2
    )
    shift = random.normal(0, 1, (2, *shape, rank))
    options = {"fill": fill, "fill_value": 0.5, "interpolation": interpolation}
    affine, shift = affine.astype(np.float32), shift.astype(np.float32)
    found = jax.device_get(
        jax.jit(lambda *given: spatial.warp(*given[:2], displacement=given[2], **options))(batch, affine, shift)
    )
    middle = (np.array(shape).reshape(-1, *(1,) * rank) - 1) / 2
    for b in range(2):
        grid = np.indices(shape) - middle + np.moveaxis(shift[b], -1, 0)
        places = np.tensordot(affine[b, :, :rank], grid, 1) + affine[b, :, rank].reshape(-1, *(1,) * rank) + middle
        by_scipy = functools.partial(moved_by_scipy, places=places, fill=fill)
        for c in range(2):
            expected = by_scipy(batch["images"][b, ..., c].astype(float), 3 if interpolation == "cubic" else 1, 0.5)
            np.testing.assert_allclose(found["images"][b, ..., c], expected, atol=3e-5)
        np.testing.assert_array_equal(found["labels"][b], by_scipy(batch["labels"][b], 0, 0))
        np.testing.assert_array_equal(found["valid"][b], by_scipy(batch["valid"][b].astype(int), 0, 0) == 1)
    assert found["valid"].dtype == bool and 0.1 < found["valid"].mean() < 0.9


@pytest.mark.parametrize("shape", [(8, 8), (6, 6, 6)])
def test_cubic_interpolation_leaves_what_stays_to_the_bit(shape):
    batch = {"images": np.random.default_rng(0).normal(size=(2, *shape, 1)).astype(np.float32)}
    batch["labels"] = np.zeros((2, *shape), np.int32)
    affine = np.stack([np.eye(len(shape), len(shape) + 1)] * 2).astype(np.float32)
    affine[1, 0, -1] = 0.25
    found = jax.jit(lambda *given: spatial.warp(*given, fill="reflect", interpolation="cubic"))(batch, affine)
    np.testing.assert_array_equal(found["images"][0], batch["images"][0])
    assert np.abs(found["images"][1] - batch["images"][1]).max() > 0.05


COUNT = 2000


def within_chance(share, probability):
    """Whether a share of `COUNT` draws is what a probability gives, but for one in 100,000."""
    return abs(share - probability) < 4.4 * np.sqrt(probability * (1 - probability) / COUNT)


@pytest.fixture(scope="module")
def drawn_volumes():
    """Matrices of many volumes of 20 pixels a side, for each of some augmentations."""
    options = {
        "flipped": {"flip_depth": 0.3, "flip_vertical": 0.6},
        "rotated": {"rotate": 30.0, "rotate_probability": 0.2},
        "tilted": {"rotate": 30.0, "tilt": 20.0},
        "scaled": {"scale": (0.5, 2.0), "scale_probability": 0.4, "scale_per_axis": 0.3},
        "cropped": {"crop": (0.5, 0.9), "translate": 0.1},
        "tilted and flipped": {"rotate": 30.0, "tilt": 20.0, "flip_depth": 1.0, "scale_probability": 0.5},
    }
    chosen = {name: settings.check_augmentation(given) for name, given in options.items()}
    draw = lambda key: {name: spatial.draw_affine(key, given, (20, 20, 20)) for name, given in chosen.items()}
    return jax.device_get(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(2), COUNT)))


def test_volumes_are_flipped_along_each_axis(drawn_volumes):
    matrices = drawn_volumes["flipped"]
    np.testing.assert_array_equal(np.abs(matrices), np.broadcast_to(np.eye(3, 4), matrices.shape))
    for axis, probability in enumerate((0.3, 0.6)):
        assert within_chance((matrices[:, axis, axis] < 0).mean(), probability)
    assert (matrices[:, 2, 2] == 1).all()


def test_rotations_of_volumes_are_rotations_within_their_angles(drawn_volumes):
    flat, tilted = drawn_volumes["rotated"][:, :, :3], drawn_volumes["tilted"][:, :, :3]
    turned = (flat != np.eye(3)).any((1, 2))
    assert within_chance(turned.mean(), 0.2)
    np.testing.assert_array_equal(flat[:, 0], np.tile([1, 0, 0], (COUNT, 1)))  # slices stay slices
    angles = np.degrees(np.arctan2(flat[turned, 1, 2], flat[turned, 1, 1]))
    np.testing.assert_allclose([angles.min(), angles.max()], [-30, 30], atol=1)
    np.testing.assert_allclose(tilted @ tilted.swapaxes(1, 2), np.broadcast_to(np.eye(3), tilted.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(tilted), 1, atol=1e-6)
    # pixels of the result are turned back: about the second axis last but one, about the third first
    tilts = np.degrees([np.arcsin(-tilted[:, 0, 2]), np.arctan2(tilted[:, 0, 1], tilted[:, 0, 0])])
    np.testing.assert_allclose([tilts.min(1), tilts.max(1)], [[-20, -20], [20, 20]], atol=1)


def test_scaling_has_its_probability_and_that_of_a_factor_for_each_axis(drawn_volumes):
    factors = 1 / np.diagonal(drawn_volumes["scaled"][:, :, :3], axis1=1, axis2=2)
    scaled = (factors != 1).any(1)
    apart = np.ptp(factors, axis=1) > 1e-6
    assert within_chance(scaled.mean(), 0.4) and within_chance(apart.mean(), 0.4 * 0.3)
    np.testing.assert_allclose(factors[apart].min(0), 0.5, atol=0.05)
    np.testing.assert_allclose(factors[apart].max(0), 2, atol=0.05)
    assert np.abs(np.corrcoef(factors[apart].T)[np.triu_indices(3, 1)]).max() < 0.3


def test_crops_of_volumes_reach_every_border_and_no_farther_than_they_are_moved(drawn_volumes):
    matrices = drawn_volumes["cropped"]
    share = matrices[:, 0, 0]
    assert (np.diagonal(matrices[:, :, :3], axis1=1, axis2=2) == share[:, None]).all()
    reach = np.abs(matrices[:, :, 3]) + share[:, None] * 9.5
    assert (reach.max(0) < 9.5 + 2.0001).all() and (reach.max(0) > 10.5).all()


def test_what_volumes_draw_does_not_depend_on_other_augmentations(drawn_volumes):
    np.testing.assert_allclose(
        drawn_volumes["tilted and flipped"], drawn_volumes["tilted"] * np.array([-1, 1, 1])[:, None], atol=1e-6
    )


@pytest.fixture(scope="module")
def deformations():
    """Displacements of many pictures of 40 x 50 pixels, and of some volumes, half of which are deformed."""
    strong = {"elastic": 0.5, "elastic_spacing": (0.2, 0.3), "elastic_amplitude": (0.4, 0.4)}
    chosen = settings.check_augmentation(strong)
    made = {}
    for shape, count in (((40, 50), COUNT), ((16, 16, 16), 64)):
        draw = jax.jit(jax.vmap(lambda key, shape=shape: spatial.draw_displacement(key, chosen, shape)))
        made[len(shape)] = np.asarray(draw(jax.random.split(jax.random.key(3), count)))
    return made


def test_deformations_have_their_probability_and_size(deformations):
    pictures = deformations[2]
    some = np.abs(pictures).max((1, 2, 3)) > 0
    assert within_chance(some.mean(), 0.5)
    strong = pictures[some]
    sides = np.array([40, 50])
    assert (np.abs(strong).max((0, 1, 2)) < 0.4 * 0.3 * sides).all()
    # control points uniform in +-0.4 spacings, each axis weighted by the square of a cubic B-spline: 151 / 315
    spacing = np.sqrt((0.3**3 - 0.2**3) / 3 / 0.1)  # root of the mean square
    expected = 0.4 * spacing * sides / np.sqrt(3) * 151 / 315
    np.testing.assert_allclose(np.sqrt((strong**2).mean((0, 1, 2))), expected, rtol=0.03)
    assert np.abs(strong.mean((0, 1, 2))).max() < 0.05 * expected.max()


@pytest.mark.parametrize("rank", [2, 3])
def test_deformations_are_smooth_and_fold_nothing(deformations, rank):
    fields = deformations[rank]
    gradients = np.stack([np.gradient(fields, axis=axis + 1) for axis in range(rank)], -1)
    folded = np.linalg.det(np.eye(rank) + gradients)
    assert folded.min() > 0 and folded.max() > 1.5
    # second derivatives of a spline are interpolated second differences of its control points: at most 4 x 0.4 spacings
    for axis, side in enumerate(fields.shape[1:-1]):
        bent = np.abs(np.diff(fields, 2, axis=axis + 1)).max((0, *range(1, rank + 1)))
        assert (bent < 1.6 * 0.3 * np.array(fields.shape[1:-1]) / (0.2 * side) ** 2).all()


def test_the_spline_is_the_cubic_b_spline():
    x = np.linspace(-3, 3, 601).astype(np.float32)
    spline = interpolate.BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
    found = jax.jit(sampling.cubic_spline)(x)
    np.testing.assert_allclose(found, np.nan_to_num(spline(x)), atol=1e-6)
