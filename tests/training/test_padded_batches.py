"""A batch of padded cases beside its cases one by one at their own size: loss, gradient, Dice and SA score."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.analysis import prototypes
from jaxseg.data import augment
from jaxseg.data.grids import Keep
from jaxseg.data.raw_cases import IGNORED
from jaxseg.metrics import overlap
from jaxseg.training import losses, objectives

SIZES = ((40, 56), (56, 48), (48, 40))
GRID = 64
REACH = 12  # of the network below, which halves once: 2 + 2 * 2 + 2 convolutions, pooling and interpolation


class Pixelwise(nn.Module):
    """Reaches no further than its own pixel, so that nothing around a case can matter."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3)(jnp.tanh(nn.Dense(5, name="features")(images)))


def cases():
    rng = np.random.default_rng(0)
    for size in SIZES:
        labels = np.zeros(size, np.uint8)
        labels[4:20, 8:30], labels[25:33, 20:36], labels[-1] = 1, 2, IGNORED
        yield rng.normal(size=(*size, 1)).astype(np.float16) + labels[..., None], labels


def stored(grid):
    """The cases as a batch that is read for that geometry."""
    fitted = [grid.fit(image, labels, (np.nan, np.nan), fill=0) for image, labels in cases()]
    labels = np.stack([one.labels for one in fitted])
    return {
        "image": np.stack([one.image for one in fitted]),
        "labels": np.where(labels == IGNORED, 0, labels),
        "valid": labels != IGNORED,
        "index": np.arange(len(labels)),
    }, [one.placement for one in fitted]


def alone():
    """Every case as a batch of its own, at its own size."""
    for image, labels in cases():
        valid = labels != IGNORED
        yield {"image": image[None], "labels": np.where(valid, labels, 0)[None], "valid": valid[None]}


def seen(batch):
    return augment.testing_view("original", size=None, cases=())(batch)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_loss_and_its_gradient_are_those_of_the_cases_one_by_one(name):
    model = Pixelwise()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    objective = objectives.supervised(model, losses.LOSSES[name])
    of = jax.jit(jax.value_and_grad(lambda v, batch: objective(jax.random.key(1), v, seen(batch))[0]))
    together = of(variables, stored(Keep(GRID))[0])
    one_by_one = [of(variables, batch) for batch in alone()]
    mean = jax.tree.map(lambda *values: sum(values) / len(values), *one_by_one)
    for padded, wanted in zip(jax.tree.leaves(together), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(padded, wanted, rtol=2e-4, atol=2e-6)


def test_dice_and_sa_scores_are_those_of_the_cases_one_by_one():
    rng = np.random.default_rng(1)
    batch, placements = stored(Keep(GRID))
    padded = seen(batch)
    noise = lambda *shape: rng.normal(size=shape).astype(np.float32)
    features, predictions = (
        noise(*padded["labels"].shape, 4),
        rng.integers(0, 3, padded["labels"].shape).astype(np.int32),
    )
    dice = overlap.dice(padded["labels"], predictions, num_classes=3, valid=padded["valid"])
    region = padded["valid"].astype(np.float32)
    mask = (predictions > 0).astype(np.float32)
    scores = prototypes.sa_score(features, mask, padded["labels"], region=region)
    for i, (own, placement) in enumerate(zip(alone(), placements, strict=True)):
        where = (slice(i, i + 1), *placement.inside)
        wanted = seen(own)
        np.testing.assert_array_equal(wanted["labels"], padded["labels"][where])
        one = overlap.dice(wanted["labels"], predictions[where], num_classes=3, valid=wanted["valid"])
        np.testing.assert_allclose(dice[i], one[0], rtol=1e-6)
        of_one = prototypes.sa_score(
            features[where], mask[where], wanted["labels"], region=wanted["valid"].astype(np.float32)
        )
        np.testing.assert_allclose(scores[i], of_one[0], rtol=1e-5)


@pytest.mark.parametrize("padding", ["zero", "circular", "valid"])
def test_logits_differ_only_within_reach_of_what_was_padded(padding):
    """Beside a case a network sees padding, where alone it saw its own: zeros, the other side, or a reflection.

    Zero padding differs as well, although the image is filled with zeros: the layers after the first turn these into
    something else, and pad with zeros only beyond it. Further inside than the network reaches, all is the same.
    """
    model = models.build("unet", 3, features=(2, 3), skips=(True,), padding=padding)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    variables = jax.tree.map(lambda x: x + 0.1, variables)  # biases and means that are not zero
    run = jax.jit(model.apply)
    batch, placements = stored(Keep(GRID))
    logits = run(variables, seen(batch)["images"])
    for i, (own, placement) in enumerate(zip(alone(), placements, strict=True)):
        native = run(variables, seen(own)["images"])[0]
        difference = np.abs(logits[i][placement.inside] - native).max(-1)
        inner = (slice(REACH, -REACH),) * 2
        np.testing.assert_allclose(difference[inner], 0, atol=1e-5)
        assert difference.max() > 1e-3
