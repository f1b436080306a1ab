"""Pixels that do not count in analyses: what lies there changes nothing, and a padded batch is its cases one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import cells, distortion, gradcam, hellinger, mahalanobis, position, prototypes, uncertainty, vog
from tests import padded

RANDOM = np.random.default_rng(0)


def pixelwise(x):
    """Logits of pixels that do not see each other."""
    return jnp.sin(3 * x) + x


@jax.jit
def of_pixels(before, after, features, mask, labels, other, valid=None):
    """What no more than its pixels decide, of features at the image's size, as one program."""
    p, q = jax.nn.softmax(before), jax.nn.softmax(after)
    members, predictions = jnp.stack([p, q]), jnp.stack([labels, other])
    gradients = [vog.input_gradients(pixelwise, scale * features, valid=valid) for scale in (1.0, 2.0)]
    slopes = gradcam.score_gradients(pixelwise, features, class_index=1, valid=valid)
    saliency = gradcam.gradcam(features, slopes, valid=valid)
    state = vog.init(labels.shape)
    for gradient in gradients:
        state = vog.update(state, gradient)
    return {
        "entropy": uncertainty.entropy(p, valid=valid),
        "ensemble entropy": uncertainty.ensemble_entropy(members, valid=valid),
        "mutual information": uncertainty.mutual_information(members, valid=valid),
        "maximum": uncertainty.maximum_probability(p, valid=valid),
        "pairs": uncertainty.pairwise_dice(predictions, num_classes=3, valid=valid),
        "distortion": distortion.segmentation_distortion(before, after, valid=valid),
        "sum": distortion.segmentation_distortion(before, after, reduction="sum", valid=valid),
        "ability": prototypes.sa_score(features, mask, labels, region=valid),
        "mean ability": prototypes.mean_sa_score([features], mask, region=valid),
        "variance": vog.variance_of_gradients(jnp.stack(gradients), valid=valid),
        "stream": vog.compute(state, valid=valid),
        "share": gradcam.saliency_share(saliency, labels > 0, valid=valid),
        "autoencoder": distortion.autoencoder_loss(before, after, features, pixelwise(features), valid=valid)[None],
    }


NAMES = jax.eval_shape(
    of_pixels, *[jnp.zeros((1, 4, 4, 3))] * 3, jnp.zeros((1, 4, 4)), *[jnp.zeros((1, 4, 4), jnp.int32)] * 2
).keys()


@pytest.fixture(scope="module")
def cases():
    uniform = lambda random, shape: random.uniform(0.1, 0.9, shape).astype(np.float32)
    logits, labels = padded.logits, padded.labels
    return padded.cases(3, before=logits, after=logits, features=logits, mask=uniform, labels=labels, other=labels)


@pytest.fixture(scope="module")
def alone(cases):
    return [jax.device_get(of_pixels(**case)) for case in cases]


def test_a_padded_batch_is_its_cases(cases, alone):
    batch = padded.batch(cases, finite=True)
    batch["other"] = np.where(batch["valid"], batch["other"], 1)
    found = jax.device_get(of_pixels(**batch))
    expected = {name: np.concatenate([own[name] for own in alone]) for name in NAMES}
    expected["autoencoder"] = [np.mean(expected["autoencoder"])]  # a mean over images
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)
    batch["valid"][1] = False
    for name, values in jax.device_get(of_pixels(**batch)).items():
        if name not in ("sum", "autoencoder"):
            assert np.isnan(values).tolist() == [False, True], name
    assert of_pixels(**batch)["sum"][1] == 0
    np.testing.assert_allclose(of_pixels(**batch)["autoencoder"], alone[0]["autoencoder"] / 2, rtol=1e-5)


def test_to_say_that_all_pixels_count_is_to_say_nothing(cases, alone):
    found = of_pixels(**cases[0], valid=np.ones(cases[0]["labels"].shape, bool))
    for name in NAMES:
        np.testing.assert_allclose(found[name], alone[0][name], rtol=2e-6, atol=1e-7, err_msg=name)


def test_probabilities_that_do_not_count_may_be_nan_and_have_no_slope(cases):
    batch = padded.batch([{"p": padded.softmax(case["before"])} for case in cases])
    value, slope = jax.jit(jax.value_and_grad(lambda p, valid: uncertainty.entropy(p, valid=valid).sum()))(
        batch["p"], batch["valid"]
    )
    own = sum(-(p * np.log(p)).sum(-1).mean() for p in (padded.softmax(case["before"]) for case in cases))
    np.testing.assert_allclose(value, own, rtol=1e-5)
    assert np.isfinite(slope).all() and not np.asarray(slope)[~batch["valid"]].any()


def valid_of(*shape, seed=0):
    """A mask that begins and ends somewhere in every image."""
    valid = np.zeros(shape, bool)
    random = np.random.default_rng(seed)
    for one in valid:
        starts = [random.integers(0, size // 2) for size in one.shape]
        one[tuple(slice(a, a + size // 2 + 1) for a, size in zip(starts, one.shape, strict=True))] = True
    return valid


def slow_shares(valid, sizes):
    shares = np.zeros((len(valid), *sizes))
    for place in np.ndindex(*sizes):
        window = [
            slice(i * n // m, -(-(i + 1) * n // m)) for i, n, m in zip(place, valid.shape[1:], sizes, strict=True)
        ]
        shares[:, *place] = valid[:, *window].mean(tuple(range(1, valid.ndim)))
    return shares


@pytest.mark.parametrize(("shape", "sizes"), [((3, 12, 8), (6, 2)), ((3, 9, 10), (4, 3)), ((2, 4, 6, 5), (2, 3, 7))])
def test_a_cell_counts_where_more_than_half_of_its_pixels_do(shape, sizes):
    valid = np.random.default_rng(1).random(shape) < 0.5
    expected = slow_shares(valid, sizes)
    np.testing.assert_allclose(cells.shares(valid, sizes), expected, atol=1e-6)
    np.testing.assert_array_equal(cells.counted(valid, sizes), expected > 0.5 + 1e-9)


def test_vectors_are_means_of_what_counts_in_a_cell():
    valid, activations = valid_of(3, 16, 24), RANDOM.standard_normal((3, 8, 12, 2)).astype(np.float32)
    shares = slow_shares(valid, (8, 12))
    activations[shares == 0] = np.nan
    found = np.asarray(hellinger.pool_vectors(activations, grid=(2, 3), valid=valid)).reshape(3, 2, 3, 2)
    counted = slow_shares(valid, (2, 3)) > 0.5
    assert 0 < counted.sum() < counted.size
    for place in np.ndindex(3, 2, 3):
        image, row, column = place
        cell = np.s_[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        weights = shares[cell][..., None]
        expected = np.nansum(weights * activations[cell], (0, 1)) / max(weights.sum(), 1e-9)
        np.testing.assert_allclose(found[place], expected if counted[place] else np.nan, rtol=1e-4, atol=1e-6)


def test_ranges_histograms_and_halves_leave_vectors_out():
    vectors, valid = RANDOM.standard_normal((4, 5, 3)).astype(np.float32), RANDOM.random((4, 5)) < 0.7
    vectors[~valid] = np.nan
    vectors[0, 1], valid[0, 1] = 9, False
    flat, keep = vectors.reshape(-1, 3), valid.ravel()
    joint = hellinger.update_range(hellinger.init_range(3), flat, valid=keep)
    np.testing.assert_array_equal(joint.low, flat[keep].min(0))
    np.testing.assert_array_equal(joint.high, flat[keep].max(0))
    state = hellinger.update(hellinger.init(*joint, bins=5), flat, valid=keep)
    for channel in range(3):
        np.testing.assert_array_equal(state.counts[channel], np.histogram(flat[keep][:, channel], 5)[0])
    assert not np.any(state.undefined) and not np.any(state.clipped)
    flat[np.flatnonzero(keep)[0], 1] = np.nan  # one that counts still shows
    assert np.asarray(hellinger.update(state, flat, valid=keep).undefined).tolist() == [0, 1, 0]
    null = hellinger.split_half_null(jax.random.key(0), vectors * 0, splits=2, bins=4, valid=valid)
    assert np.isnan(null[:, 1]).any() or (np.asarray(null)[:, [0, 2]] == 0).all()


def test_the_pooled_vector_takes_the_mean_where_nothing_counts():
    valid, activations = valid_of(3, 16, 16, seed=4), RANDOM.standard_normal((3, 8, 8, 4)).astype(np.float32)
    counts = slow_shares(valid, (8, 8)) > 0.5
    filled = np.stack([np.where(c[..., None], a, a[c].mean(0)) for a, c in zip(activations, counts, strict=True)])
    activations[~counts] = np.nan
    np.testing.assert_allclose(
        mahalanobis.pool(activations, valid=valid), mahalanobis.pool(filled), rtol=1e-5, atol=1e-6
    )
    fitted = mahalanobis.fit(activations, valid=valid)
    np.testing.assert_allclose(fitted.mean, np.asarray(mahalanobis.pool(filled)).mean(0), rtol=1e-4, atol=1e-6)
    valid[1] = False
    assert np.isnan(mahalanobis.distance(fitted, activations, valid=valid)[1])
    assert np.isnan(mahalanobis.pool(activations, valid=valid)).any(1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="valid is of activations"):
        mahalanobis.distance(fitted, np.zeros((3, 64), np.float32), valid=valid)


def test_position_is_read_off_the_vectors_that_count():
    valid, features = valid_of(3, 12, 20, seed=5), RANDOM.standard_normal((3, 6, 10, 2)).astype(np.float32) + 3
    counts, distance = slow_shares(valid, (6, 10)) > 0.5, position.border_distance((6, 10))
    counts[2], valid[2] = False, False  # which adds nothing
    features[~counts] = np.nan
    state = position.update(position.init(2, folds=2), features, np.array([0, 1, 1], np.int32), valid=valid)
    for fold in range(2):
        x, y = features[fold][counts[fold]].astype(float), distance[counts[fold]].astype(float)
        assert state.pixels[fold] == len(x)
        x, y, mean, middle = x - x.mean(0), y - y.mean(), x.mean(0), y.mean()
        moments = {"x": mean, "y": middle, "xx": x.T @ x, "xy": x.T @ y, "yy": y @ y}
        for name, expected in moments.items():
            np.testing.assert_allclose(getattr(state, name)[fold], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    everywhere = np.ones((3, 12, 20), bool)
    clean = np.nan_to_num(features)
    same = [position.position_r2(clean, folds=3, valid=mask) for mask in (None, everywhere)]
    np.testing.assert_allclose(*same, rtol=1e-4)


def test_saliency_is_of_the_cells_that_count():
    valid, activations = valid_of(2, 12, 12, seed=6), RANDOM.standard_normal((2, 6, 6, 3)).astype(np.float32)
    gradients = RANDOM.standard_normal((2, 6, 6, 3)).astype(np.float32)
    counts = slow_shares(valid, (6, 6)) > 0.5
    activations[~counts] = gradients[~counts] = np.inf
    found = np.asarray(gradcam.gradcam(activations, gradients, size=(12, 12), normalise=False, valid=valid))
    weights = np.stack([g[c].mean(0) for g, c in zip(gradients, counts, strict=True)])
    small = np.where(
        counts, np.maximum(np.einsum("bhwc,bc->bhw", np.where(counts[..., None], activations, 0), weights), 0), 0
    )
    expected = np.asarray(jax.image.resize(small.astype(np.float32), (2, 12, 12), "linear"))
    np.testing.assert_allclose(found, np.where(valid, expected, 0), rtol=1e-4, atol=1e-6)


def test_no_gradient_is_taken_of_logits_that_do_not_count():
    """Of a network whose logits see the next pixel too, so that gradients reach beyond what counts."""
    images, labels = RANDOM.standard_normal((2, 6, 6, 3)).astype(np.float32), RANDOM.integers(0, 3, (2, 6, 6))
    valid, labels = valid_of(2, 6, 6), labels.astype(np.int32)
    network = lambda x: jnp.sin(x) + jnp.roll(x, 1, 2)

    @jax.jit
    def gradients(valid):
        outside = jnp.where(valid, labels, 255)  # which take a pixel out
        named = jnp.argmax(network(images), -1) == 1
        of_images = functools.partial(vog.input_gradients, network, images)
        of_class = functools.partial(gradcam.score_gradients, network, images, class_index=1)
        return [
            (of_images(labels=labels, valid=valid), of_images(labels=outside)),
            (of_class(valid=valid), of_class(region=named & valid)),
        ]

    for ours, theirs in gradients(valid):
        np.testing.assert_array_equal(ours, theirs)
        assert np.asarray(ours)[~valid].any()


def test_masks_that_do_not_fit_are_named():
    features, valid = np.zeros((2, 4, 4, 3), np.float32), np.ones((3, 8, 8), bool)
    folds = np.zeros(2, np.int32)
    for call in (
        lambda: hellinger.pool_vectors(features, grid=(2, 2), valid=valid),
        lambda: mahalanobis.pool(features, valid=valid),
        lambda: position.update(position.init(3, folds=2), features, folds, valid=valid),
    ):
        with pytest.raises(ValueError, match=r"valid \(3, 8, 8\) must say of every pixel of the images of"):
            jax.eval_shape(call)
    with pytest.raises(ValueError, match="sizes are"):
        cells.counted(valid, (2,))
    with pytest.raises(TypeError, match="valid must be bool"):
        cells.shares(valid.astype(np.int32), (2, 2))
