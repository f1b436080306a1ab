"""Dice against a loop, closed forms and its conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics import overlap


def slow_dice(labels, predictions, num_classes, empty, smooth):
    rows = []
    for a, b in zip(labels, predictions, strict=True):
        row = []
        for k in range(1, num_classes):
            both = total = 0
            for x, y in zip(a.ravel(), b.ravel(), strict=True):
                both += (x == k) and (y == k)
                total += int(x == k) + int(y == k)
            row.append((2 * both + smooth) / (total + smooth) if total + smooth else empty)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 3, 4, 2)])
@pytest.mark.parametrize("options", [{"empty": np.nan}, {"empty": 1.0}, {"empty": np.nan, "smooth": 1.0}])
def test_dice_is_the_loop(shape, options):
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 4, (2, *shape), dtype=np.int32)
    labels[0], predictions[0] = 0, np.minimum(predictions[0], 1)  # a case without most classes
    expected = slow_dice(labels, predictions, 5, options["empty"], options.get("smooth", 0.0))
    fast = jax.jit(lambda a, b: overlap.dice(a, b, num_classes=5, **options))(labels, predictions)
    np.testing.assert_allclose(fast, expected, rtol=1e-6)


def test_dice_of_known_masks():
    a = np.array([[[1, 1, 0, 0]]], np.int32)
    assert overlap.dice(a, a, num_classes=2) == 1
    assert overlap.dice(a, np.roll(a, 1, -1), num_classes=2) == 0.5
    assert overlap.dice(a, 0 * a, num_classes=2) == 0
    assert np.isnan(overlap.dice(0 * a, 0 * a, num_classes=2))


def test_dice_is_symmetric_and_blind_to_the_order_of_pixels():
    random = np.random.default_rng(1)
    a, b = random.integers(0, 3, (2, 4, 6, 6), dtype=np.int32)
    scores = overlap.dice(a, b, num_classes=3)
    np.testing.assert_array_equal(scores, overlap.dice(b, a, num_classes=3))
    order = random.permutation(36)
    shuffled = (x.reshape(4, 36)[:, order].reshape(4, 6, 6) for x in (a, b))
    np.testing.assert_array_equal(scores, overlap.dice(*shuffled, num_classes=3))


def test_what_dice_cannot_score_is_named():
    labels = np.zeros((1, 4, 4), np.int32)
    with pytest.raises(ValueError, match=r"\(1, 4, 4\) and predictions \(1, 2, 2\) differ"):
        overlap.dice(labels, labels[:, :2, :2], num_classes=2)
    with pytest.raises(TypeError, match="float32; take the argmax"):
        overlap.dice(labels, labels.astype(np.float32), num_classes=2)
    with pytest.raises(ValueError, match="add the batch axis"):
        overlap.dice(labels[0], labels[0], num_classes=2)
    with pytest.raises(ValueError, match="at least 2"):
        overlap.dice(labels, labels, num_classes=1)


def slow_counts(labels, predictions, num_classes):
    counts = np.zeros((len(labels), num_classes, 3), int)
    for i, (a, b) in enumerate(zip(labels, predictions, strict=True)):
        for x, y in zip(a.ravel(), b.ravel(), strict=True):
            counts[i, x, 0] += x == y
            counts[i, x, 1] += 1
            counts[i, y, 2] += 1
    return counts


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 3, 4, 2)])
def test_counts_are_the_loop_and_give_dice_to_the_bit(shape):
    random = np.random.default_rng(2)
    labels, predictions = random.integers(0, 4, (2, *shape), dtype=np.int32)
    labels[0], predictions[0] = 0, np.minimum(predictions[0], 1)
    counts = jax.jit(lambda a, b: overlap.class_counts(a, b, num_classes=5))(labels, predictions)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, slow_counts(labels, predictions, 5))
    for options in ({}, {"empty": 1.0}, {"smooth": 1.0}):
        dice = overlap.dice(labels, predictions, num_classes=5, **options)
        np.testing.assert_array_equal(overlap.dice_from_counts(counts, **options), dice)


def test_the_iou_of_a_set_is_that_of_all_its_pixels():
    random = np.random.default_rng(3)
    labels, predictions = random.integers(0, 3, (2, 6, 5, 4), dtype=np.int32)
    labels[0], predictions[0] = 0, 0
    counts = overlap.class_counts(labels, predictions, num_classes=4)  # class 3 is nowhere
    expected = [((labels == k) & (predictions == k)).sum() / ((labels == k) | (predictions == k)).sum() for k in (1, 2)]
    iou = overlap.mean_iou(counts)
    np.testing.assert_allclose(iou.classes, [*expected, np.nan], rtol=1e-12)
    np.testing.assert_allclose(iou.mean, np.mean(expected), rtol=1e-12)
    parts = overlap.mean_iou([counts[:4], counts[4:]])
    np.testing.assert_array_equal(parts.classes, iou.classes)
    # per case, IoU and Dice are functions of each other
    cases, dice = overlap.iou_from_counts(counts), overlap.dice(labels, predictions, num_classes=4)
    np.testing.assert_allclose(2 * cases / (1 + cases), dice, rtol=1e-6)
    assert np.isnan(cases[0]).all()


def test_a_large_set_does_not_overflow_and_an_empty_one_is_named():
    counts = np.broadcast_to(np.array([2**29, 2**30, 2**30], np.int32), (6, 2, 3))
    np.testing.assert_allclose(overlap.mean_iou(counts).mean, 1 / 3, rtol=1e-15)
    empty = overlap.mean_iou(np.zeros((2, 3, 3), np.int32))
    assert np.isnan(empty.classes).all() and np.isnan(empty.mean)
    with pytest.raises(ValueError, match="at least one case"):
        overlap.mean_iou([])


SMALL_COUNTS = np.array([[[0, 0, 0], [90, 120, 100]]])
LARGE_COUNTS = np.array([[[0, 0, 0], [30_000, 40_000, 40_000]]])


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float16])
def test_counts_in_small_types_are_added_in_large_ones(dtype, place):
    for counts in (SMALL_COUNTS, LARGE_COUNTS):
        if (counts.astype(dtype) != counts).any():
            continue
        ours, (both, labelled, predicted) = place(counts.astype(dtype)), counts[0, 1].tolist()
        assert overlap.dice_from_counts(ours).item() == pytest.approx(2 * both / (labelled + predicted))
        iou = pytest.approx(both / (labelled + predicted - both))
        assert overlap.iou_from_counts(ours).item() == iou
        assert overlap.mean_iou([ours, ours, ours]).mean == iou


@pytest.mark.parametrize(("dtype", "count"), [(np.int32, 2**31 - 1), (np.uint32, 2**32 - 1), (np.int64, 2**40)])
def test_counts_at_the_end_of_their_type_are_added_beyond_it(dtype, count):
    counts = np.full((1, 2, 3), count, dtype)
    assert overlap.dice_from_counts(counts).item() == 1
    if dtype != np.int64:
        assert overlap.dice_from_counts(jnp.asarray(counts)).item() == 1


def test_counts_of_64_bits_on_a_device_are_added_in_64_bits():
    with jax.enable_x64(True):
        counts = jnp.asarray(np.array([[[0, 0, 0], [2**40, 2**40, 3 * 2**40]]]))
        assert counts.dtype == jnp.int64 and overlap.dice_from_counts(counts).item() == 0.5


def test_counts_that_overflowed_before_they_came_are_named():
    for score in (overlap.dice_from_counts, overlap.iou_from_counts, lambda counts: overlap.mean_iou([counts])):
        with pytest.raises(ValueError, match=r"counts hold -76, .* int64"):
            score((2 * SMALL_COUNTS).astype(np.uint8).astype(np.int8))


def test_counts_of_soft_masks_keep_their_fractions():
    counts = np.array([[[0, 0, 0], [0.5, 0.75, 0.5]]], np.float32)
    assert overlap.iou_from_counts(counts).item() == pytest.approx(0.5 / 0.75)


def test_one_number_of_several_classes():
    random = np.random.default_rng(0)
    labels = np.zeros((4, 12, 12), np.int32)
    labels[0, 2:8, 3:9], labels[1, 1:4, 1:4], labels[2, 5:11, 5:11] = 2, 1, 3
    predictions = random.integers(0, 4, labels.shape, dtype=np.int32)
    predictions[1] = 0
    counts, dice = slow_counts(labels, predictions, 4), slow_dice(labels, predictions, 4, np.nan, 0.0)
    expected = [dice[0, 1], 0.0, dice[2, 2], np.nan]  # of the class that is there; the last case has none
    np.testing.assert_allclose(overlap.labelled_dice(counts), expected, rtol=1e-6)
    areas = (predictions > 0).sum((1, 2))
    np.testing.assert_allclose(overlap.area_ratio(counts), [areas[0] / 36, 0, areas[2] / 36, np.nan])
    wrong = [((predictions[i] > 0) & (predictions[i] != k)).sum() for i, k in enumerate((2, 1, 3, 0))]
    shares = [wrong[0] / areas[0], np.nan, wrong[2] / areas[2], 1.0]
    np.testing.assert_allclose(overlap.absent_class_share(counts), shares)


def test_the_mean_iou_is_over_the_classes_that_are_somewhere():
    counts = np.array([[[9, 9, 9], [2, 4, 2], [3, 6, 9], [0, 0, 0]], [[9, 9, 9], *[[0, 0, 0]] * 3]])
    np.testing.assert_allclose(overlap.class_mean_iou(counts), [(0.5 + 0.25) / 2, np.nan])
    np.testing.assert_allclose(overlap.class_mean_iou(counts, classes=(2, 3)), [0.25, np.nan])
    np.testing.assert_allclose(overlap.class_mean_iou(counts.sum(0)), overlap.mean_iou(counts).mean)
    for classes in ((0,), (4,), ()):
        with pytest.raises(ValueError, match=r"have the classes 1 to 3"):
            overlap.class_mean_iou(counts, classes=classes)


SUMS = np.zeros((1, 2, 3), np.int32)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda: overlap.dice_from_sums(np.ones(3), np.ones(4), empty=0, smooth=0), r"\(3,\) and total \(4,\) must be"),
        (lambda: overlap.dice_from_counts(SUMS[0]), r"counts must be \[B,K,3\], got \(2, 3\)"),
        (lambda: overlap.iou_from_counts(SUMS[0, 0]), r"of two classes or more, got \(3,\)"),
        (lambda: overlap.iou_from_counts(SUMS[..., :2]), r"of two classes or more, got \(1, 2, 2\)"),
        (lambda: overlap.iou_from_counts(SUMS[:, :1]), r"of two classes or more, got \(1, 1, 3\)"),
    ],
)
def test_what_are_no_counts_is_named(score, message):
    with pytest.raises(ValueError, match=message):
        score()


def test_counts_of_one_set_are_two_classes_of_three_numbers_and_no_bools():
    assert np.isnan(overlap.iou_from_counts(SUMS[0])).tolist() == [True]
    with pytest.raises(TypeError, match="numbers of pixels, got bool"):
        overlap.iou_from_counts(SUMS > 0)


def test_labels_without_pixels_are_named_and_a_batch_without_cases_is_not():
    labels = np.zeros((2, 3, 0), np.int32)
    with pytest.raises(ValueError, match=r"labels \(2, 3, 0\) has an empty axis"):
        overlap.dice(labels, labels, num_classes=2)
    assert overlap.dice(labels.reshape(0, 2, 3), labels.reshape(0, 2, 3), num_classes=2).shape == (0, 1)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6)])
def test_counts_of_a_case_are_those_of_a_batch_of_one(shape):
    random = np.random.default_rng(len(shape))
    labels, predictions = random.integers(0, 4, (2, *shape)).astype(np.uint8)
    valid = random.random(shape) < 0.6
    options = {"num_classes": 5}
    wanted = overlap.class_counts(labels[None], predictions[None], valid=valid[None], **options)
    np.testing.assert_array_equal(overlap.case_counts(labels, predictions, valid=valid, **options), wanted[0])
    labels[~valid] = 255  # what does not count need be no class
    np.testing.assert_array_equal(overlap.case_counts(labels, predictions, valid=valid, **options), wanted[0])
    with pytest.raises(ValueError, match="must hold class numbers below 5 where pixels count"):
        overlap.case_counts(labels, predictions, **options)
    with pytest.raises(ValueError, match="must have one shape"):
        overlap.case_counts(labels[1:], predictions, **options)
