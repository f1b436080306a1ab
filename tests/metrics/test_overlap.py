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
    a = jnp.array([[[1, 1, 0, 0]]])
    assert overlap.dice(a, a, num_classes=2) == 1
    assert overlap.dice(a, jnp.roll(a, 1, -1), num_classes=2) == 0.5
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
    labels = jnp.zeros((1, 4, 4), jnp.int32)
    with pytest.raises(ValueError, match=r"\(1, 4, 4\) and predictions \(1, 2, 2\) differ"):
        overlap.dice(labels, labels[:, :2, :2], num_classes=2)
    with pytest.raises(TypeError, match="float32; take the argmax"):
        overlap.dice(labels, labels.astype(jnp.float32), num_classes=2)
    with pytest.raises(ValueError, match="add the batch axis"):
        overlap.dice(labels[0], labels[0], num_classes=2)
    with pytest.raises(ValueError, match="at least 2"):
        overlap.dice(labels, labels, num_classes=1)
