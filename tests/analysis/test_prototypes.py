"""ProtoSeg: the authors' numbers, a slow reference that up-samples everything, and what empty masks mean."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.analysis import prototypes, resampling

SCORES = ("dice", "jaccard", "accuracy", "sensitivity", "specificity")
SHAPES = {"2d": ((3, 4, 6), (12, 16)), "3d": ((2, 3, 4, 2), (6, 4, 5)), "same": ((2, 8, 8), (8, 8))}


def draw(dims="2d", channels=5, seed=0):
    (batch, *low), high = SHAPES[dims]
    random = np.random.default_rng(seed)
    features = random.normal(size=(batch, *low, channels)).astype(np.float32)
    mask = random.uniform(size=(batch, *high)).astype(np.float32)
    labels = (random.uniform(size=mask.shape) < 0.4).astype(np.int32)
    region = (random.uniform(size=mask.shape) < 0.7).astype(np.float32)
    return features, mask, labels, region


@jax.jit
def everything(features, mask, labels):
    """What a layer's features say, in one program."""
    return {
        "probability": prototypes.object_probability(features, mask),
        "score": prototypes.sa_score(features, mask, labels),
        "units": prototypes.unit_sa_scores(features, mask, labels),
        "heat": prototypes.unit_heat_map(features, mask),
    }


@jax.jit
def all_scores(features, mask, labels, region):
    return {score: prototypes.sa_score(features, mask, labels, region=region, score=score) for score in SCORES}


@jax.jit
def of_classes(features, masks, labels):
    return prototypes.class_probabilities(features, masks), prototypes.class_sa_scores(features, masks, labels)


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
    ours, without = jax.jit(
        lambda f, m, r: (prototypes.object_probability(f, m, region=r), prototypes.object_probability(f, m))
    )(features, mask, region)
    np.testing.assert_allclose(ours, slow_probability(features, mask, region), atol=1e-5)
    np.testing.assert_allclose(without, slow_probability(features, mask, np.ones_like(mask)), atol=1e-5)


def test_it_is_the_same_outside_of_jit():
    features, mask, labels, _ = draw()
    expected = everything(features, mask, labels)
    np.testing.assert_allclose(prototypes.object_probability(features, mask), expected["probability"], atol=1e-6)
    np.testing.assert_allclose(prototypes.sa_score(features, mask, labels), expected["score"], atol=1e-6)


@pytest.mark.parametrize("dims", SHAPES)
def test_units_are_layers_of_one_channel(dims):
    features, mask, labels, region = draw(dims, channels=19)  # more than a chunk, and no multiple of it

    @jax.jit
    def run(features, mask, labels, region):
        alone = lambda channel: prototypes.sa_score(channel[..., None], mask, labels, region=region)
        return (
            prototypes.unit_object_probability(features, mask, region=region),
            prototypes.unit_sa_scores(features, mask, labels, region=region),
            prototypes.unit_heat_map(features, mask, region=region),
            jax.lax.map(alone, jnp.moveaxis(features, -1, 0)),
        )

    units, scores, heat, one_by_one = run(features, mask, labels, region)
    for c in range(19):
        expected = slow_probability(features[..., c : c + 1], mask, region)
        np.testing.assert_allclose(units[..., c], expected, atol=1e-5)
    np.testing.assert_allclose(scores, one_by_one.T, atol=1e-6)
    np.testing.assert_allclose(heat, np.mean(np.asarray(units) > 0.5, -1), atol=1e-6)


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_the_scores_are_those_of_the_map(dims):
    features, mask, labels, region = draw(dims)
    found = slow_probability(features, mask, region) > 0.5
    for score, ours in all_scores(features, mask, labels, region).items():
        expected = [slow_score(f, t > 0, r > 0, score) for f, t, r in zip(found, labels, region, strict=True)]
        np.testing.assert_allclose(ours, expected, atol=1e-6, err_msg=score)


def test_two_classes_are_the_object_and_the_rest():
    features, mask, labels, region = draw()
    masks = np.stack([1 - mask, mask], -1)

    @jax.jit
    def run(region):
        return (
            prototypes.class_probabilities(features, masks, region=region)[..., 1],
            prototypes.class_sa_scores(features, masks, labels, region=region)[:, 0],
            prototypes.object_probability(features, mask, region=region),
            prototypes.sa_score(features, mask, labels, region=region),
        )

    probabilities, scores, of_object, expected = run(region)
    np.testing.assert_allclose(probabilities, of_object, atol=1e-5)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_more_classes_are_a_softmax_of_squared_distances():
    features, _, labels, _ = draw()
    random = np.random.default_rng(1)
    masks = random.dirichlet(np.ones(4), size=(3, 12, 16)).astype(np.float32)
    big = enlarged(features, (12, 16))
    ours, _ = of_classes(features, masks, labels)
    for i in range(3):
        flat, weights = big[i].reshape(-1, 5), masks[i].reshape(-1, 4)
        centres = weights.T @ flat / weights.sum(0)[:, None]
        scores = -((flat[:, None] - centres) ** 2).sum(-1)
        expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        np.testing.assert_allclose(ours[i].reshape(-1, 4), expected, atol=1e-5)


def test_a_class_without_a_prototype_has_no_pixels_and_two_are_needed():
    features, mask, labels, _ = draw()
    nowhere = np.zeros_like(mask)
    masks = np.stack([1 - mask, mask, nowhere, nowhere], -1)
    found, _ = of_classes(features, masks, labels)
    assert not found[..., 2:].any()
    np.testing.assert_allclose(found[..., 1], everything(features, mask, labels)["probability"], atol=1e-5)
    masks[1] = [0, 1, 0, 0]  # everything is class 1
    found, scores = of_classes(features, masks, labels)
    assert np.isnan(found[1]).all()
    assert scores.shape == (3, 3) and np.isnan(scores[1]).all() and not np.isnan(scores[0, 0])


def test_a_feature_that_is_the_annotation_scores_one():
    labels = np.zeros((2, 8, 8), np.int32)
    labels[:, 1:5, 2:6] = 1
    features = 5.0 * labels[..., None].astype(np.float32) - 2
    features[1] *= -1  # low responses separate too
    features = np.tile(features, 5)
    mask = 0.2 + 0.6 * labels.astype(np.float32)  # soft, but the prototypes are on the right sides
    for score, ours in all_scores(features, mask, labels, np.ones_like(mask)).items():
        np.testing.assert_array_equal(ours, 1, err_msg=score)
    inverted = everything(features, 1 - mask, labels)["probability"]
    np.testing.assert_allclose(inverted, 1 - everything(features, mask, labels)["probability"], atol=1e-6)


def test_probabilities_do_not_depend_on_order_shift_or_rotation_of_channels():
    features, mask, labels, _ = draw()
    probability = lambda f, m: everything(f, m, labels)["probability"]
    expected = probability(features, mask)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))
    for changed in (features[..., ::-1], features + 100.0, features @ rotation.astype(np.float32)):
        np.testing.assert_allclose(probability(changed, mask), expected, atol=2e-4)
    flipped = probability(features[:, ::-1], mask[:, ::-1])
    np.testing.assert_allclose(flipped[:, ::-1], expected, atol=1e-5)


def test_sides_that_are_empty_are_nan_and_constants_are_undecided():
    features, mask, labels, _ = draw()
    mask[0], mask[1] = 0, 1
    features[2] = 3
    found = everything(features, mask, labels)
    assert np.isnan(found["probability"][:2]).all()
    np.testing.assert_allclose(found["probability"][2], 0.5, atol=1e-6)
    assert np.isnan(found["score"][:2]).all() and found["score"][2] == 0
    assert np.isnan(found["units"][:2]).all()
    assert np.isnan(found["heat"][:2]).all()


@pytest.mark.parametrize("channels", [1, 40])
def test_constants_are_no_object_whatever_their_rounding(channels):
    labels = np.zeros((4, 16, 16), np.int32)
    labels[:, :12, :12] = 1
    features = np.broadcast_to(np.array([0.1, 0.2, 7.3, 150.0], np.float32)[:, None, None, None], (4, 8, 8, channels))
    for mask in (labels.astype(np.float32), 0.1 + 0.8 * labels.astype(np.float32)):
        found = everything(features, mask, labels)
        for name in ("score", "units", "heat"):
            np.testing.assert_array_equal(found[name], 0, err_msg=name)


def test_hard_masks_of_any_number_above_0_are_one_mask():
    features, _, labels, _ = draw()
    expected = prototypes.sa_score(features, labels.astype(np.float32), labels)
    for mask in (labels, 255 * labels.astype(np.uint8), labels > 0, labels.astype(np.int64) << 32):
        np.testing.assert_array_equal(prototypes.sa_score(features, mask, labels), expected)
    long = labels.astype(np.int64) << 32  # whose lower half is 0
    np.testing.assert_array_equal(prototypes.sa_score(features, labels, long), expected)


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


def test_the_losss_gradient_is_finite_for_certain_networks():
    features, _, labels, _ = draw()
    by_logits = jax.grad(lambda z: prototypes.sa_loss([features], jax.nn.sigmoid(z), labels))
    certain = np.float32([-120, -60, -50, -20, 0, 20])[:, None, None, None]
    for gradient in jax.jit(lambda logits: jax.lax.map(by_logits, logits))(np.tile(certain, labels.shape)):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e3


def test_class_probabilities_have_gradients_also_where_a_class_is_absent():
    features, mask, _, _ = draw()
    masks = np.stack([1 - mask, mask, np.zeros_like(mask)], -1)
    loss = lambda f, m: jnp.sum(jnp.sin(3 * prototypes.class_probabilities(f, m)))
    for gradient in jax.jit(jax.grad(loss, (0, 1)))(features, masks):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_the_loss_counts_the_region_alone():
    features, mask, labels, region = draw("same")
    loss = jax.jit(lambda labels, region: prototypes.sa_loss([features], mask, labels, region=region))
    expected = loss(labels, region)
    outside = np.where(region > 0, labels, 1 - labels)
    np.testing.assert_allclose(loss(outside, region), expected, rtol=1e-6)
    assert abs(float(loss(labels, np.ones_like(region))) - float(expected)) > 1e-4


def test_no_object_anywhere_is_undefined_and_nan_features_stay_in_their_image_and_unit():
    features, mask, labels, _ = draw()
    features[0, 0, 0, 1] = np.nan
    features[1] = 0
    labels[1] = 0
    found = everything(features, mask, labels)
    assert np.isnan(found["score"][:2]).all() and not np.isnan(found["score"][2])
    units = np.isnan(found["units"])
    assert units[0].tolist() == [False, True, False, False, False] and units[1].all() and not units[2].any()


def test_the_mean_score_is_over_all_units_of_all_layers():
    first, mask, labels, _ = draw(channels=3)
    second = draw(channels=7, seed=4)[0]
    own = (mask > 0.5).astype(np.int32)

    @jax.jit
    def run(first, second):
        layers = [first, second]
        units = [
            jnp.concatenate([prototypes.unit_sa_scores(f, mask, reference) for f in layers], 1)
            for reference in (own, labels)
        ]
        return units, [prototypes.mean_sa_score(layers, mask), prototypes.mean_sa_score(layers, mask, labels)]

    for units, ours in zip(*run(first, second), strict=True):
        np.testing.assert_allclose(ours, units.mean(1), atol=1e-6)
    first[0, ..., 1] = np.nan  # left out
    for units, ours in zip(*run(first, second), strict=True):
        assert np.isnan(units[0]).tolist() == [False, True, *[False] * 8]
        np.testing.assert_allclose(ours, np.nanmean(units, 1), atol=1e-6)


def test_the_gain_is_dice_minus_separableness():
    _, mask, labels, _ = draw("same")
    images = labels[..., None].astype(np.float32) + 0.4 * draw("same", 3)[0]
    gain, separableness = jax.jit(lambda *a: (prototypes.segmentation_gain(*a), prototypes.sa_score(*a)))(
        images, mask, labels
    )
    found = mask > 0.5
    own = [slow_score(f, t > 0, np.ones_like(f), "dice") for f, t in zip(found, labels, strict=True)]
    np.testing.assert_allclose(gain, own - np.asarray(separableness), atol=1e-6)


def test_the_difference_under_noise_is_noisy_minus_clean():
    _, mask, labels, _ = draw("same")
    features = labels[..., None].astype(np.float32)
    noisy = features + 3 * draw("same", 1)[0]
    soft = 0.2 + 0.6 * labels.astype(np.float32)

    @jax.jit
    def run(noisy, mask, features, soft):
        change = prototypes.sa_difference(noisy, mask, features, soft, labels)
        return change, prototypes.sa_score(noisy, mask, labels)

    change, under_noise = run(noisy, mask, features, soft)
    np.testing.assert_allclose(change, np.asarray(under_noise) - 1, atol=1e-6)
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
    loss = jax.jit(jax.value_and_grad(lambda f, m: prototypes.sa_loss([f], m, labels), (0, 1)))
    value, (by_features, by_mask) = loss(features, mask)
    assert np.isfinite(by_features).all() and np.isfinite(by_mask).all()
    assert np.abs(by_features[:2]).max() == 0 < np.abs(by_features[2]).max()
    direction = np.random.default_rng(5).normal(size=features.shape).astype(np.float32)
    step = np.float32(1e-2)
    ahead, behind = (float(loss(features + side * direction, mask)[0]) for side in (step, -step))
    np.testing.assert_allclose(np.sum(by_features * direction), (ahead - behind) / (2 * step), rtol=2e-2)
    assert math.isfinite(value)


def test_learning_by_the_loss_raises_the_score():
    features, mask, labels, _ = draw("same")
    mask = 0.25 + 0.5 * labels.astype(np.float32)
    gradient = jax.grad(lambda f: prototypes.sa_loss([f], mask, labels))
    score = lambda x: jnp.mean(prototypes.sa_score(x, mask, labels))

    @jax.jit
    def run(x):
        return score(x), score(jax.lax.fori_loop(0, 100, lambda _, x: x - 20 * gradient(x), x))

    before, after = run(features)
    assert after > before + 0.2


def test_bfloat16_features_are_summed_in_float32():
    features, mask, labels, _ = draw()
    rough = features.astype(jnp.bfloat16)
    exact = everything(rough.astype(np.float32), mask, labels)["probability"]
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
    for layers in ([], np.stack([features, features])):
        with pytest.raises(ValueError, match="layers must be a sequence"):
            prototypes.mean_sa_score(layers, mask)
    for masks in (mask, mask[..., None]):
        with pytest.raises(ValueError, match="one channel per class"):
            prototypes.class_probabilities(features, masks)
    with pytest.raises(ValueError, match="must not be empty"):
        prototypes.unit_sa_scores(features[..., :0], mask, labels)
    with pytest.raises(ValueError, match="differ in shape"):
        prototypes.segmentation_gain(np.zeros((3, 12, 16, 1), np.float32), mask, labels[:, :5])
