"""A network that inpaints: it learns, from what it may see alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data import overlays
from jaxseg.training import inpainting

SMALL = {"crop": 16, "features": (4, 6), "batch_size": 4}


def pictures(count=6, channels=1, seed=0):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.standard_normal((count, 40, 48, channels)), (0, 4, 4, 0))
    return np.clip(128 + 600 * smooth, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def trained():
    seen = []
    inpaint = inpainting.train_inpainter(
        jax.random.key(0),
        pictures(),
        steps=150,
        learning_rate=5e-3,
        report=lambda step, loss: seen.append((step, loss)),
        crop=32,
        features=(8, 12),
        batch_size=4,
    )
    assert [step for step, _ in seen] == [100, 150]
    assert seen[-1][1] == inpaint.losses[-1]
    return inpaint


def test_the_loss_falls(trained):
    assert trained.losses.shape == (150,)
    assert trained.losses[-20:].mean() < 0.4 * trained.losses[:5].mean()


def test_holes_in_unseen_images_are_filled_in(trained):
    errors, flat = [], []
    for clean in pictures(seed=1)[..., 0]:
        drawn, mask = overlays.draw_calipers(clean, np.array([(12, 14), (28, 30)]), style="plus", colour=(255,) * 3)
        removed = overlays.remove(drawn, mask, method="network", inpaint=trained)
        errors.append(overlays.reconstruction_error(clean, removed, mask).mae)
        flat.append(np.abs(clean[mask] - clean[~mask].mean()).mean())
        region = overlays.removed_region(mask, method="network")
        np.testing.assert_array_equal(removed[~region], drawn[~region])
    assert np.mean(errors) < 0.5 * np.mean(flat)


def test_what_is_hidden_is_not_looked_at_and_the_rest_stays(trained):
    images = (pictures(2)[:, :37, :45] / 127.5 - 1).astype(np.float32)  # sizes that no pooling divides
    masks = np.random.default_rng(0).random((2, 37, 45)) < 0.1
    filled = trained(images, masks)
    assert filled.shape == images.shape and filled.dtype == np.float32
    np.testing.assert_array_equal(filled[~masks], images[~masks])
    other = np.where(masks[..., None], np.float32(1), images)
    np.testing.assert_array_equal(trained(other, masks), filled)


def test_pixels_under_known_overlays_have_no_influence():
    images = pictures(channels=3)
    covered = np.zeros(images.shape[:3], bool)
    covered[:, 10:14, 5:40] = covered[:, 20:30, 22:25] = True
    garbage = np.where(covered[..., None], np.uint8(255), images)
    train = lambda images: inpainting.train_inpainter(
        jax.random.key(1), images, known_overlays=covered, steps=3, **SMALL
    )
    one, other = train(images), train(garbage)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    # so the same arguments give the same network, and three channels work
    np.testing.assert_array_equal(one.losses, other.losses)
    assert (one.losses > 0).all()
    assert one(np.zeros((1, 8, 8, 3), np.float32), np.ones((1, 8, 8), bool)).shape == (1, 8, 8, 3)


def test_the_loss_is_the_mean_error_where_it_is_scored():
    class Constant:
        def apply(self, variables, seen, train, mutable):
            return np.full((*seen.shape[:3], 2), 0.25, np.float32), {}

    targets = np.arange(8, dtype=np.float32).reshape(1, 2, 4, 1)
    scored = np.zeros((1, 2, 4), bool)
    scored[0, 0, 1] = scored[0, 1, 2] = True  # targets 1 and 6
    batch = {"images": targets, "targets": targets, "masks": scored, "scored": scored}
    loss, _ = inpainting.inpainting(Constant())(jax.random.key(0), {}, batch)
    assert loss == pytest.approx((0.75 + 5.75) / 2)
    nothing, _ = inpainting.inpainting(Constant())(jax.random.key(0), {}, {**batch, "scored": scored & False})
    assert nothing == 0


def test_arguments_that_cannot_be_are_named(trained):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"images must be uint8 \[N,H,W,C\] with N above 0, got float64"):
        inpainting.train_inpainter(key, pictures() / 255)
    with pytest.raises(ValueError, match=r"known_overlays are \(1, 40, 48\), the images \(6, 40, 48, 1\)"):
        inpainting.train_inpainter(key, pictures(), known_overlays=np.zeros((1, 40, 48), bool))
    with pytest.raises(ValueError, match="crop is 64, larger than the images"):
        inpainting.train_inpainter(key, pictures())
    with pytest.raises(ValueError, match="divisible"):
        inpainting.train_inpainter(key, pictures(), crop=33, features=(4, 4))
    with pytest.raises(ValueError, match=r"images are \(40, 48, 1\) and masks \(40, 48\)"):
        trained(np.zeros((40, 48, 1), np.float32), np.zeros((40, 48), bool))


def test_a_loss_that_is_not_finite_ends_the_training(monkeypatch):
    diverge = lambda *_: lambda state, batch: (state, {"loss": jnp.float32(jnp.nan)})
    monkeypatch.setattr(inpainting.training_steps, "make_train_step", diverge)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 100; choose a lower learning rate"):
        inpainting.train_inpainter(jax.random.key(0), pictures(), steps=120, **SMALL)


def test_images_are_extended_to_what_the_poolings_divide_and_only_the_hidden_is_filled():
    class Echo:
        """The extended image, darker by a half, and whether it was hidden."""

        halvings = 3

        def apply(self, variables, seen):
            assert seen.shape == (2, 16, 24, 2)  # of 13 and 18
            return jnp.stack([seen[..., 0] - 0.5, seen[..., 1]], -1)

    images = np.random.default_rng(0).uniform(0, 1, (2, 13, 18, 1)).astype(np.float32)
    masks = np.random.default_rng(1).random((2, 13, 18)) < 0.3
    filled = inpainting.Inpainter(Echo(), {}, np.zeros(1))(images, masks)
    hidden = np.full_like(images, overlays.HIDDEN - 0.5)
    np.testing.assert_array_equal(filled, np.where(masks[..., None], hidden, images))


def test_crops_are_drawn_from_all_places_and_scaled():
    images = np.arange(2 * 5 * 7, dtype=np.uint8).reshape(2, 5, 7, 1)
    batch = {
        "image": np.repeat(images, 40, 0),
        "overlays": np.zeros((80, 5, 7), bool),
        "position": np.arange(80, dtype=np.int32),
    }
    seen = jax.jit(lambda key: inpainting._view(key, batch, crop=4))(jax.random.key(0))
    places = set()
    for number, crop in enumerate(np.round((np.asarray(seen["targets"])[..., 0] + 1) * 127.5).astype(int)):
        y, x = divmod(crop[0, 0] - 35 * (number // 40), 7)
        np.testing.assert_array_equal(crop, images[number // 40, y : y + 4, x : x + 4, 0])
        places.add((y, x))
    assert places == {(y, x) for y in range(2) for x in range(4)}


@pytest.mark.parametrize(
    ("images", "crop", "message"),
    [
        (np.zeros((0, 8, 8, 1), np.uint8), 8, "images must be uint8"),
        (np.zeros((8, 8, 1), np.uint8), 8, "images must be uint8"),
        (np.zeros((1, 9, 8, 1), np.uint8), 9, r"crop is 9, larger than the images \(9, 8\)"),
        (np.zeros((1, 8, 9, 1), np.uint8), 9, r"crop is 9, larger than the images \(8, 9\)"),
    ],
)
def test_images_that_no_crop_can_be_drawn_from_are_refused(images, crop, message):
    with pytest.raises(ValueError, match=message):
        inpainting.train_inpainter(jax.random.key(0), images, crop=crop)


def test_an_image_may_be_as_large_as_a_crop_and_every_hundredth_loss_is_told(monkeypatch):
    count = lambda *_: lambda state, batch: (state, {"loss": jnp.mean(batch["index"].astype(jnp.float32))})
    monkeypatch.setattr(inpainting.training_steps, "make_train_step", count)
    told = []
    made = inpainting.train_inpainter(
        jax.random.key(0), pictures(3)[:, :16, :16], steps=201, report=lambda *of: told.append(of), **SMALL
    )
    assert [step for step, _ in told] == [100, 200, 201] and made.losses.shape == (201,)
    assert [loss for _, loss in told] == [made.losses[i] for i in (99, 199, 200)]
    assert 0.8 < made.losses.mean() < 1.2 and made.losses.min() >= 0 and made.losses.max() <= 2  # of three images
    assert made.module.num_classes == 2 and made.module.padding == "reflect"
