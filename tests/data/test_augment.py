"""What the network sees of a stored case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.data import augment
from jaxseg.errors import InputError

whole = jax.jit(augment.whole, static_argnames="size")
quadrant = jax.jit(augment.quadrant, static_argnames="size")


def stored(b=4, size=8, seed=0):
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (b, size, size, 3), dtype=np.uint8),
        "labels": random.integers(0, 2, (b, size, size), dtype=np.uint8),
        "index": np.arange(b, dtype=np.int32),
    }


def test_images_are_scaled_to_minus_one_and_one():
    batch = stored()
    batch["image"][0, 0, 0], batch["image"][0, 0, 1] = 0, 255
    seen = augment.whole(batch, size=8)
    assert seen["images"][0, 0, 0, 0] == -1 and seen["images"][0, 0, 1, 0] == 1
    np.testing.assert_array_equal(seen["labels"], batch["labels"])
    assert (seen["images"].dtype, seen["labels"].dtype) == (np.float32, np.int32)


def test_halving_is_antialiased_and_keeps_label_values():
    batch = stored(size=16)
    seen = whole(batch, size=8)
    constant = whole({**batch, "image": np.full_like(batch["image"], 51)}, size=8)["images"]
    np.testing.assert_allclose(constant, 51 / 127.5 - 1, atol=1e-6)
    assert set(np.unique(seen["labels"])) <= {0, 1}
    # a triangle filter averages checkerboards away; picking pixels would keep them
    board = np.broadcast_to((np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None], (4, 16, 16, 3))
    assert np.abs(np.asarray(whole({**batch, "image": board}, size=8)["images"])[:, 1:-1, 1:-1]).max() < 0.01


@pytest.mark.parametrize("corner", range(4))
def test_a_quadrant_is_cut_at_the_midpoint_before_resizing(corner):
    batch = stored()
    y, x = corner // 2 * 4, corner % 2 * 4
    corners = np.full(4, corner, np.int32)
    seen = quadrant(batch, corners, size=4)
    np.testing.assert_array_equal(seen["labels"], batch["labels"][:, y : y + 4, x : x + 4])
    np.testing.assert_allclose(seen["images"], batch["image"][:, y : y + 4, x : x + 4] / 127.5 - 1, atol=1e-6)
    # resized after the cut: nothing from beyond the midpoint leaks in
    other = {**batch, "image": batch["image"].copy()}
    outside = np.ones((8, 8), bool)
    outside[y : y + 4, x : x + 4] = False
    other["image"][:, outside] = 0
    enlarged = [quadrant(b, corners, size=8)["images"] for b in (batch, other)]
    np.testing.assert_array_equal(*enlarged)


def test_training_draws_each_quadrant_equally_often_and_anew():
    batch = stored(b=64)
    view = jax.jit(augment.training_view("quadrant", size=4))
    numbered = np.indices((2, 2)).reshape(2, 4).T @ [2, 1]
    batch["labels"][:] = np.kron(numbered.reshape(2, 2), np.ones((4, 4), int))
    drawn = np.stack([np.asarray(view(jax.random.key(i), batch)["labels"])[:, 0, 0] for i in range(20)])
    counts = np.bincount(drawn.ravel(), minlength=4)
    assert (np.abs(counts - 320) < 4 * np.sqrt(1280 * 3 / 16)).all()
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(drawn[3], np.asarray(view(jax.random.key(3), batch)["labels"])[:, 0, 0])


def test_the_test_quadrant_belongs_to_the_case_and_not_to_its_place():
    cases = [f"ISIC_{i:07d}" for i in range(100)]
    corners = augment.case_corners(cases)
    np.testing.assert_array_equal(augment.case_corners(cases[::-1]), corners[::-1])
    assert (np.bincount(corners, minlength=4) > 10).all()
    batch = {**stored(), "index": np.array([7, 3, 99, 0], np.int32)}
    seen = jax.jit(augment.testing_view("quadrant", size=4, cases=cases))(batch)
    expected = quadrant(batch, corners[[7, 3, 99, 0]], size=4)
    np.testing.assert_array_equal(seen["images"], expected["images"])


def test_views_that_cannot_be_are_named():
    with pytest.raises(InputError, match="view is 'half'; choose one of original, quadrant"):
        augment.training_view("half", size=4)
    with pytest.raises(ValueError, match="square images of even size"):
        augment.quadrant(stored(size=7), np.zeros(4, int), size=4)


EVERYTHING = {
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "rotate": 15.0,
    "scale": (0.9, 1.1),
    "translate": 0.1,
    "crop": (0.8, 1.0),
}


def seen(b=3, h=9, w=9, channels=2, seed=0):
    random = np.random.default_rng(seed)
    images = random.uniform(-1, 1, (b, h, w, channels)).astype(np.float32)
    return {"images": images, "labels": random.integers(0, 4, (b, h, w)).astype(np.int32)}


warp = jax.jit(augment.warp, static_argnames="fill")


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
    spatial = {name: augment.check_augmentation(given) for name, given in options.items()}
    draw = lambda key: {name: augment.draw_affine(key, given, 100) for name, given in spatial.items()}
    return jax.device_get(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 2000)))


@pytest.mark.parametrize("view", augment.VIEWS)
def test_no_augmentation_is_the_plain_view(view):
    batch, key = stored(size=16), jax.random.key(0)
    plain = augment.training_view(view, size=8)
    for nothing in ({}, {"rotate": 0.0, "scale": [1.0, 1.0], "fill": "constant"}):
        same = augment.training_view(view, size=8, augmentation=nothing)
        # nothing is interpolated
        assert str(jax.make_jaxpr(same)(key, batch)) == str(jax.make_jaxpr(plain)(key, batch))


@pytest.mark.parametrize("fill", augment.FILLS)
@pytest.mark.parametrize("n", [8, 9])
def test_the_identity_and_the_flips_are_exact(fill, n):
    batch = seen(h=n, w=n)
    for y, x in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        found = warped(batch, [[y, 0, 0], [0, x, 0]], fill)
        for name in ("images", "labels"):
            np.testing.assert_array_equal(found[name], batch[name][:, ::y, ::x])


@pytest.mark.parametrize("n", [8, 9])
def test_a_rotation_by_90_degrees_is_rot90(n, monkeypatch):
    batch, spatial = seen(h=n, w=n), augment.check_augmentation({"rotate": 90.0})
    # the upper end of every range
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.ones(shape))
    # a function of its own, as JAX would remember what it traced with other draws
    matrix = jax.jit(lambda key: augment.draw_affine(key, spatial, n))(jax.random.key(0))
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


@pytest.mark.parametrize("fill", augment.FILLS)
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


@pytest.mark.parametrize("view", augment.VIEWS)
def test_what_a_sample_draws_depends_on_its_place_and_not_on_how_the_batch_is_cut(view):
    batch = stored(b=6, size=16 if view == "quadrant" else 8)  # so that nothing is resized
    see = jax.jit(augment.training_view(view, size=8, augmentation=EVERYTHING))
    key = jax.random.key(5)
    everything = jax.device_get(see(key, batch))
    assert np.abs(everything["images"] - whole(batch, size=8)["images"]).max() > 0.1
    position = np.arange(6, dtype=np.int32)
    for part in (slice(0, 3), slice(3, 6), slice(1, 6, 2)):
        cut = {name: array[part] for name, array in {**batch, "position": position}.items()}
        found = see(key, cut)
        np.testing.assert_array_equal(found["labels"], everything["labels"][part])
        np.testing.assert_allclose(found["images"], everything["images"][part], atol=1e-6)
    # equal cases are seen in different ways
    same = see(key, {name: np.repeat(array[:1], 6, 0) for name, array in batch.items()})
    assert len({image.tobytes() for image in np.asarray(same["images"])}) == 6


@pytest.mark.parametrize("fill", augment.FILLS)
def test_images_and_labels_stay_together_and_labels_stay_classes(fill):
    y, x = np.mgrid[:32, :32]
    disc = ((y - 12) ** 2 + (x - 18) ** 2 < 64).astype(np.uint8)
    batch = {"image": np.tile(255 * disc[None, ..., None], (8, 1, 1, 1)), "labels": np.tile(2 * disc, (8, 1, 1))}
    options = {**EVERYTHING, "fill": fill}
    found = jax.jit(augment.training_view("original", size=32, augmentation=options))(jax.random.key(0), batch)
    image, labels = np.asarray(found["images"])[..., 0], np.asarray(found["labels"])
    assert set(np.unique(labels)) == {0, 2}
    inside = image > 1 - 1e-5
    assert inside.sum() > 8 * 100 and (labels[inside] == 2).all()
    assert (labels[image < -1 + 1e-5] == 0).all()
    # bilinear and nearest draw the border in the same place
    assert ((image > 0) != (labels == 2)).mean() < 0.005
    assert found["images"].dtype == np.float32 and found["labels"].dtype == np.int32
    assert np.abs(image).max() <= 1 + 1e-6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shear": 1.0}, "shear is unknown; choose from flip_horizontal, "),
        ({"flip_vertical": 1.5}, "flip_vertical is 1.5; it must be a number in 0 to 1"),
        ({"rotate": -1.0}, "rotate is -1.0; it must be a number in 0 to 180"),
        ({"translate": "far"}, "translate is 'far'; it must be a number in 0 to 1"),
        ({"scale": 1.1}, "scale is 1.1; it must be a pair of numbers above 0, the lower first"),
        ({"scale": (1.1, 0.9)}, "scale is (1.1, 0.9); it must be a pair"),
        ({"crop": (0.5, 1.5)}, "crop is (0.5, 1.5); it must be a pair of numbers above 0 and at most 1"),
        ({"fill": "wrap"}, "fill is 'wrap'; it must be one of reflect, constant"),
    ],
)
def test_augmentations_that_cannot_be_are_named(options, message):
    with pytest.raises(InputError) as error:
        augment.training_view("original", size=8, augmentation=options)
    assert str(error.value).startswith(f"config.data.augmentation.{message}")


def masked(size=8):
    """Stored cases of which some pixels count."""
    batch = stored(size=size)
    return batch | {"valid": np.random.default_rng(1).random((4, size, size)) < 0.5}


@pytest.mark.parametrize("size", [8, 4, 12])
def test_which_pixels_count_goes_the_way_of_the_labels(size):
    batch = masked()
    seen = whole(batch | {"labels": batch["valid"].astype(np.uint8)}, size=size)
    assert seen["valid"].dtype == bool
    np.testing.assert_array_equal(seen["valid"], np.asarray(seen["labels"]) == 1)
    if size == 8:
        np.testing.assert_array_equal(seen["valid"], batch["valid"])


@pytest.mark.parametrize("view", augment.VIEWS)
def test_views_hand_on_which_pixels_count(view):
    batch = masked()
    batch["labels"] = batch["valid"].astype(np.uint8)
    training = jax.jit(augment.training_view(view, size=4))(jax.random.key(0), batch)
    testing = jax.jit(augment.testing_view(view, size=4, cases=("a", "b", "c", "d")))(batch)
    for seen in (training, testing):
        np.testing.assert_array_equal(seen["valid"], np.asarray(seen["labels"]) == 1)
    del batch["valid"]
    assert "valid" not in jax.eval_shape(augment.training_view(view, size=4), jax.random.key(0), batch)
