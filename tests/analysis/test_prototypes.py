"""ProtoSeg: the authors' numbers, a slow reference that up-samples everything, and what empty masks mean."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import prototypes, resampling

SHAPES = {"2d": ((3, 4, 6), (12, 16)), "3d": ((2, 3, 4, 2), (6, 4, 5)), "same": ((2, 8, 8), (8, 8))}


def draw(dims="2d", channels=5, seed=0):
    (batch, *low), high = SHAPES[dims]
    random = np.random.default_rng(seed)
    features = random.normal(size=(batch, *low, channels)).astype(np.float32)
    mask = random.uniform(size=(batch, *high)).astype(np.float32)
    labels = (random.uniform(size=mask.shape) < 0.4).astype(np.int32)
    region = (random.uniform(size=mask.shape) < 0.7).astype(np.float32)
    return features, mask, labels, region


def enlarged(features, sizes):
    """All channels at the mask's size, pixel by pixel, in float64."""
    x = np.asarray(features, np.float64)
    for axis, size in enumerate(sizes, 1):
        weights = resampling.matrix(x.shape[axis], size).astype(np.float64)
        x = np.moveaxis(np.tensordot(weights, x, (1, axis)), 0, axis)
    return x


def slow_probability(features, mask, region):
    """Algorithm 1 on up-sampled features, one image at a time."""
    big = enlarged(features, mask.shape[1:])
    result = []
    for f, m, r in zip(big, mask, region, strict=True):
        flat, m, r = f.reshape(-1, f.shape[-1]), m.ravel().astype(float), r.ravel().astype(float)
        object_centre = (m * r) @ flat / (m * r).sum()
        other_centre = ((1 - m) * r) @ flat / ((1 - m) * r).sum()
        near = -((flat - object_centre) ** 2).sum(-1)
        far = -((flat - other_centre) ** 2).sum(-1)
        result.append((1 / (1 + np.exp(far - near))).reshape(mask.shape[1:]))
    return np.stack(result)


def slow_score(found, truth, inside, score):
    tp, fp = (found & truth & inside).sum(), (found & ~truth & inside).sum()
    fn, tn = (~found & truth & inside).sum(), (~found & ~truth & inside).sum()
    parts = {
        "dice": (2 * tp, 2 * tp + fp + fn),
        "jaccard": (tp, tp + fp + fn),
        "accuracy": (tp + tn, tp + tn + fp + fn),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
    }
    return parts[score][0] / parts[score][1]


def test_the_authors_numbers(oracles):
    with np.load(oracles / "protoseg.npz") as stored:
        features, mask, region = stored["features"], stored["mask"], stored["region"]
        pairs = [
            (prototypes.object_probability(features, mask), stored["object_probability"]),
            (prototypes.object_probability(features, mask, region=region), stored["object_probability_region"]),
            (prototypes.unit_object_probability(features, mask), stored["unit_object_probability"]),
        ]
    with np.load(oracles / "protoseg3d.npz") as stored:
        pairs.append((prototypes.object_probability(stored["features"], stored["mask"]), stored["object_probability"]))
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("dims", SHAPES)
def test_the_object_probability_is_that_of_upsampled_features(dims):
    features, mask, _, region = draw(dims)
    ours = jax.jit(lambda f, m, r: prototypes.object_probability(f, m, region=r))(features, mask, region)
    np.testing.assert_allclose(ours, slow_probability(features, mask, region), atol=1e-5)
    without = prototypes.object_probability(features, mask)
    np.testing.assert_allclose(without, slow_probability(features, mask, np.ones_like(mask)), atol=1e-5)


@pytest.mark.parametrize("dims", SHAPES)
def test_units_are_layers_of_one_channel(dims):
    features, mask, labels, region = draw(dims, channels=19)  # more than a chunk, and no multiple of it
    units = prototypes.unit_object_probability(features, mask, region=region)
    scores = jax.jit(lambda *a: prototypes.unit_sa_scores(*a, region=region))(features, mask, labels)
    heat = prototypes.unit_heat_map(features, mask, region=region)
    for c in range(19):
        alone = features[..., c : c + 1]
        expected = slow_probability(alone, mask, region)
        np.testing.assert_allclose(units[..., c], expected, atol=1e-5)
        one = prototypes.sa_score(alone, mask, labels, region=region)
        np.testing.assert_allclose(scores[:, c], one, atol=1e-6)
    np.testing.assert_allclose(heat, np.mean(np.asarray(units) > 0.5, -1), atol=1e-6)


@pytest.mark.parametrize("score", ["dice", "jaccard", "accuracy", "sensitivity", "specificity"])
@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_the_scores_are_those_of_the_map(score, dims):
    features, mask, labels, region = draw(dims)
    ours = jax.jit(functools.partial(prototypes.sa_score, score=score))(features, mask, labels, region=region)
    found = slow_probability(features, mask, region) > 0.5
    expected = [slow_score(f, t > 0, r > 0, score) for f, t, r in zip(found, labels, region, strict=True)]
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_two_classes_are_the_object_and_the_rest():
    features, mask, labels, region = draw()
    masks = np.stack([1 - mask, mask], -1)
    both = jax.jit(prototypes.class_probabilities)(features, masks, region=region)
    np.testing.assert_allclose(both[..., 1], prototypes.object_probability(features, mask, region=region), atol=1e-5)
    scores = prototypes.class_sa_scores(features, masks, labels, region=region)
    np.testing.assert_allclose(scores[:, 0], prototypes.sa_score(features, mask, labels, region=region), atol=1e-6)


def test_more_classes_are_a_softmax_of_squared_distances():
    features, _, _, _ = draw()
    random = np.random.default_rng(1)
    masks = random.dirichlet(np.ones(4), size=(3, 12, 16)).astype(np.float32)
    big = enlarged(features, (12, 16))
    ours = prototypes.class_probabilities(features, masks)
    for i in range(3):
        flat, weights = big[i].reshape(-1, 5), masks[i].reshape(-1, 4)
        centres = weights.T @ flat / weights.sum(0)[:, None]
        scores = -((flat[:, None] - centres) ** 2).sum(-1)
        expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        np.testing.assert_allclose(ours[i].reshape(-1, 4), expected, atol=1e-5)


def test_a_class_without_a_prototype_has_no_pixels_and_two_are_needed():
    features, mask, labels, _ = draw()
    masks = np.stack([1 - mask, mask, np.zeros_like(mask)], -1)
    found = np.array(prototypes.class_probabilities(features, masks))
    assert (found[..., 2] == 0).all()
    np.testing.assert_allclose(found[..., 1], prototypes.object_probability(features, mask), atol=1e-5)
    masks[1] = [0, 1, 0]  # everything is class 1
    assert np.isnan(prototypes.class_probabilities(features, masks)[1]).all()
    scores = prototypes.class_sa_scores(features, masks, labels)
    assert scores.shape == (3, 2) and np.isnan(scores[1]).all() and not np.isnan(scores[0, 0])


def test_a_feature_that_is_the_annotation_scores_one():
    labels = np.zeros((1, 16, 16), np.int32)
    labels[0, 3:9, 4:12] = 1
    features = 5.0 * labels[..., None].astype(np.float32) - 2
    mask = 0.2 + 0.6 * labels.astype(np.float32)  # soft, but the prototypes are on the right sides
    for score in ("dice", "jaccard", "accuracy", "sensitivity", "specificity"):
        assert float(prototypes.sa_score(features, mask, labels, score=score)[0]) == 1
        assert float(prototypes.sa_score(-features, mask, labels, score=score)[0]) == 1  # low responses separate too
    inverted = prototypes.object_probability(features, 1 - mask)
    np.testing.assert_allclose(inverted, 1 - prototypes.object_probability(features, mask), atol=1e-6)


def test_probabilities_do_not_depend_on_order_shift_or_rotation_of_channels():
    features, mask, _, _ = draw()
    expected = prototypes.object_probability(features, mask)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))
    for changed in (features[..., ::-1], features + 100.0, features @ rotation.astype(np.float32)):
        np.testing.assert_allclose(prototypes.object_probability(changed, mask), expected, atol=2e-4)
    flipped = prototypes.object_probability(features[:, ::-1], mask[:, ::-1])
    np.testing.assert_allclose(flipped[:, ::-1], expected, atol=1e-5)


def test_sides_that_are_empty_are_nan_and_constants_are_undecided():
    features, mask, labels, _ = draw()
    mask[0], mask[1] = 0, 1
    features[2] = 3
    p = prototypes.object_probability(features, mask)
    assert np.isnan(p[:2]).all()
    np.testing.assert_allclose(p[2], 0.5, atol=1e-6)
    scores = prototypes.sa_score(features, mask, labels)
    assert np.isnan(scores[:2]).all() and scores[2] == 0
    assert np.isnan(prototypes.unit_sa_scores(features, mask, labels)[:2]).all()
    assert np.isnan(prototypes.unit_heat_map(features, mask)[:2]).all()


@pytest.mark.parametrize("value", [0.1, 0.2, 7.3, 150.0])
@pytest.mark.parametrize("channels", [1, 40])
def test_constants_are_no_object_whatever_their_rounding(value, channels):
    labels = np.zeros((1, 16, 16), np.int32)
    labels[:, :12, :12] = 1
    features = np.full((1, 8, 8, channels), value, np.float32)
    for mask in (labels, 0.1 + 0.8 * labels.astype(np.float32)):
        assert float(prototypes.sa_score(features, mask, labels)[0]) == 0
        assert not np.any(prototypes.unit_sa_scores(features, mask, labels))
        assert not np.any(prototypes.unit_heat_map(features, mask))


def test_hard_masks_of_any_number_above_0_are_one_mask():
    features, _, labels, _ = draw()
    expected = prototypes.sa_score(features, labels.astype(np.float32), labels)
    for mask in (labels, 255 * labels.astype(np.uint8), labels > 0):
        np.testing.assert_array_equal(prototypes.sa_score(features, mask, labels), expected)


def test_images_with_a_large_mean_lose_no_digits():
    random = np.random.default_rng(0)
    labels = np.zeros((1, 64, 64), np.int32)
    labels[:, 16:40, 20:50] = 1
    images = (0.5 * labels[..., None] + 0.3 * random.normal(size=(1, 64, 64, 3))).astype(np.float32)
    mask = 0.05 + 0.9 * labels.astype(np.float32)
    expected = slow_probability(images.astype(np.float64), mask, np.ones_like(mask))
    np.testing.assert_allclose(prototypes.object_probability(images, mask), expected, atol=2e-6)
    offset = (images + np.float32(1000)).astype(np.float32)
    expected = slow_probability(offset.astype(np.float64), mask, np.ones_like(mask))
    np.testing.assert_allclose(prototypes.object_probability(offset, mask), expected, atol=1e-3)


@pytest.mark.parametrize("logit", [-120.0, -60.0, -50.0, -20.0, 0.0, 20.0])
def test_the_losss_gradient_is_finite_for_certain_networks(logit):
    features, _, labels, _ = draw()
    by_logits = jax.grad(lambda z: prototypes.sa_loss([features], jax.nn.sigmoid(z), labels))
    gradient = by_logits(jnp.full(labels.shape, logit))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e3


def test_class_probabilities_have_gradients_also_where_a_class_is_absent():
    features, mask, _, _ = draw()
    masks = np.stack([1 - mask, mask, np.zeros_like(mask)], -1)
    loss = lambda f, m: jnp.sum(jnp.sin(3 * prototypes.class_probabilities(f, m)))
    for gradient in jax.grad(loss, (0, 1))(features, masks):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_the_loss_counts_the_region_alone():
    features, mask, labels, region = draw("same")
    expected = prototypes.sa_loss([features], mask, labels, region=region)
    outside = np.where(region > 0, labels, 1 - labels)
    np.testing.assert_allclose(prototypes.sa_loss([features], mask, outside, region=region), expected, rtol=1e-6)
    assert abs(float(prototypes.sa_loss([features], mask, labels)) - float(expected)) > 1e-4


def test_no_object_anywhere_is_undefined_and_nan_features_stay_in_their_image_and_unit():
    features, mask, labels, _ = draw(channels=3)
    features[0, 0, 0, 1] = np.nan
    features[1] = 0
    labels[1] = 0
    scores = prototypes.sa_score(features, mask, labels)
    assert np.isnan(scores[:2]).all() and not np.isnan(scores[2])
    units = np.isnan(prototypes.unit_sa_scores(features, mask, labels))
    assert units[0].tolist() == [False, True, False] and units[1].all() and not units[2].any()


def test_the_mean_score_is_over_all_units_of_all_layers():
    first, mask, labels, _ = draw(channels=3)
    second = draw(channels=7, seed=4)[0]
    own = (mask > 0.5).astype(np.int32)
    for reference, given in ((own, None), (labels, labels)):
        units = np.concatenate([prototypes.unit_sa_scores(f, mask, reference) for f in (first, second)], 1)
        ours = jax.jit(prototypes.mean_sa_score)([first, second], mask, given)
        np.testing.assert_allclose(ours, units.mean(1), atol=1e-6)
    first[0, ..., 1] = np.nan  # left out
    left = np.asarray(prototypes.mean_sa_score([first], mask))
    np.testing.assert_allclose(left[0], prototypes.mean_sa_score([first[..., [0, 2]]], mask)[0], atol=1e-6)


def test_the_gain_is_dice_minus_separableness():
    _, mask, labels, _ = draw("same")
    images = labels[..., None].astype(np.float32) + 0.4 * draw("same", 3)[0]
    gain = prototypes.segmentation_gain(images, mask, labels)
    found = mask > 0.5
    own = [slow_score(f, t > 0, np.ones_like(f), "dice") for f, t in zip(found, labels, strict=True)]
    np.testing.assert_allclose(gain, own - np.asarray(prototypes.sa_score(images, mask, labels)), atol=1e-6)


def test_the_difference_under_noise_is_noisy_minus_clean():
    _, mask, labels, _ = draw("same")
    features = labels[..., None].astype(np.float32)
    noisy = features + 3 * draw("same", 1)[0]
    soft = 0.2 + 0.6 * labels.astype(np.float32)
    change = jax.jit(prototypes.sa_difference)(noisy, mask, features, soft, labels)
    np.testing.assert_allclose(change, np.asarray(prototypes.sa_score(noisy, mask, labels)) - 1, atol=1e-6)
    assert (change < 0).all()


def test_the_loss_is_one_minus_the_soft_score():
    features, mask, labels, _ = draw()
    second = draw(channels=2, seed=3)[0]
    terms = []
    for f in (features, second):
        p = slow_probability(f, mask, np.ones_like(mask))
        both, total = (p * labels).sum((1, 2)), p.sum((1, 2)) + labels.sum((1, 2))
        terms.append(1 - np.mean((2 * both + 1) / (total + 1)))
    ours = jax.jit(prototypes.sa_loss)([features, second], mask, labels)
    np.testing.assert_allclose(ours, np.mean(terms), rtol=1e-5)


def test_the_losss_gradient_is_finite_for_empty_masks_and_right_elsewhere():
    features, mask, labels, _ = draw()
    mask[0], mask[1] = 0, 1
    loss = jax.jit(lambda f, m: prototypes.sa_loss([f], m, labels))
    by_features, by_mask = jax.jit(jax.grad(loss, (0, 1)))(features, mask)
    assert np.isfinite(by_features).all() and np.isfinite(by_mask).all()
    assert np.abs(by_features[:2]).max() == 0 < np.abs(by_features[2]).max()
    direction = np.random.default_rng(5).normal(size=features.shape).astype(np.float32)
    step = 1e-2
    numeric = (loss(features + step * direction, mask) - loss(features - step * direction, mask)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(by_features * direction), numeric, rtol=2e-2)
    assert math.isfinite(loss(features, mask))


def test_learning_by_the_loss_raises_the_score():
    features, mask, labels, _ = draw("same")
    mask = 0.25 + 0.5 * labels.astype(np.float32)
    gradient = jax.jit(jax.grad(lambda f: prototypes.sa_loss([f], mask, labels)))
    before = prototypes.sa_score(features, mask, labels).mean()
    x = features
    for _ in range(100):
        x = x - 20 * gradient(x)
    assert prototypes.sa_score(x, mask, labels).mean() > before + 0.2


def test_bfloat16_features_are_summed_in_float32():
    features, mask, _, _ = draw()
    rough = jnp.asarray(features, jnp.bfloat16)
    exact = prototypes.object_probability(rough.astype(jnp.float32), mask)
    np.testing.assert_allclose(prototypes.object_probability(rough, mask), exact, atol=1e-6)


def test_memory_is_a_small_multiple_of_the_features():
    features = jax.ShapeDtypeStruct((2, 16, 16, 512), jnp.float32)
    mask = jax.ShapeDtypeStruct((2, 128, 128), jnp.float32)
    labels = jax.ShapeDtypeStruct((2, 128, 128), jnp.int32)
    size = 4 * math.prod(features.shape)
    needed = lambda f, *args: jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes
    assert needed(prototypes.sa_score, features, mask, labels) < 2 * size
    # up-sampled, the units would take 64 times their memory
    assert needed(prototypes.unit_sa_scores, features, mask, labels) < 12 * size


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": np.zeros((3, 6, 4), np.float32)}, ValueError, r"features \(3, 6, 4\) must be"),
        ({"features": np.zeros((2, 4, 6, 5), np.float32)}, ValueError, r"the mask \(3, 12, 16\) the same batch"),
        (
            {"features": np.zeros((3, 4, 6, 5), np.int32)},
            TypeError,
            "features must be floating-point numbers, got int32",
        ),
        ({"labels": np.zeros((3, 6, 4), np.int32)}, ValueError, r"labels \(3, 6, 4\) and mask \(3, 12, 16\) differ"),
        ({"labels": np.zeros((3, 12, 16), np.float32)}, TypeError, "labels must be integer class numbers, got float32"),
        ({"region": np.zeros((3, 6, 4), np.float32)}, ValueError, r"region \(3, 6, 4\) and mask"),
        ({"score": "f2"}, ValueError, "score is 'f2'; choose one of dice, jaccard"),
        ({"interpolation": "cubic"}, ValueError, "interpolation is 'cubic'"),
    ],
)
def test_arguments_that_cannot_be_are_named(change, error, message):
    features, mask, labels, _ = draw()
    with pytest.raises(error, match=message):
        prototypes.sa_score(**{"features": features, "mask": mask, "labels": labels} | change)
    for layers in ([], jnp.stack([features, features])):
        with pytest.raises(ValueError, match="layers must be a sequence"):
            prototypes.mean_sa_score(layers, mask)
    for masks in (mask, mask[..., None]):
        with pytest.raises(ValueError, match="one channel per class"):
            prototypes.class_probabilities(features, masks)
    with pytest.raises(ValueError, match="must not be empty"):
        prototypes.unit_sa_scores(features[..., :0], mask, labels)
    with pytest.raises(ValueError, match="differ in shape"):
        prototypes.segmentation_gain(np.zeros((3, 12, 16, 1), np.float32), mask, labels[:, :5])
