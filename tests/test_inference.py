"""Ensembles, and what is counted per case; networks whose answer is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import inference
from jaxseg.metrics import overlap
from jaxseg.networks import of_linen
from jaxseg.training import sliding


class Constant(nn.Module):
    """The same logits at every pixel, `variables["params"]["logits"]`."""

    @nn.compact
    def __call__(self, images):
        logits = self.param("logits", nn.initializers.zeros, (2,))
        return jnp.broadcast_to(logits, (*images.shape[:-1], 2))


def member(*logits):
    return of_linen(Constant(), {"params": {"logits": np.array(logits, np.float32)}}, image_size=2, channels=1)


def test_an_ensemble_decides_by_its_mean_probability():
    images = np.zeros((1, 2, 2, 1), np.float32)
    predict = jax.jit(lambda members: jnp.argmax(sliding.mean_probabilities(members, images), -1))
    # a very sure member outvotes two others by the mean of the logits, not by that of the probabilities
    members = [member(40.0, 0.0), member(0.0, 2.0), member(0.0, 2.0)]
    assert (np.asarray(predict(members)) == 1).all()
    assert (np.asarray(jax.jit(lambda one: inference.predict(one, images))(members[0])) == 0).all()


def test_values_of_cases_that_fill_up_a_batch_are_left_out():
    batches = [
        {"real": np.array([True, True]), "x": np.array([1, 2])},
        {"real": np.array([True, False]), "x": np.array([3, 3])},
    ]
    found = inference.over_cases(lambda batch: {"twice": jnp.asarray(2 * batch["x"])}, iter(batches))
    assert found["twice"].tolist() == [2, 4, 6]


def test_a_score_is_told_which_pixels_count_where_the_view_says():
    random = np.random.default_rng(0)
    labels, valid = random.integers(0, 2, (3, 4, 4)).astype(np.int32), random.random((3, 4, 4)) < 0.5
    batch = {"images": np.zeros((3, 4, 4, 1), np.float32), "labels": labels, "real": np.array([True, True, False])}
    everywhere = member(0.0, 1.0)  # is foreground

    def run(batch, score):
        view = lambda stored: {name: array for name, array in stored.items() if name != "real"}
        return inference.score_cases(everywhere, iter([batch]), view, score)["counts"]

    count = lambda a, b, valid=None: {"counts": overlap.class_counts(a, b, num_classes=2, valid=valid)}
    expected = [
        [(one == 1)[there].sum(), (one == 1)[there].sum(), there.sum()]
        for one, there in zip(labels, valid, strict=True)
    ]
    np.testing.assert_array_equal(run(batch | {"valid": valid}, count)[:, 1], expected[:2])
    of_all = [[one.sum(), one.sum(), 16] for one in labels]
    np.testing.assert_array_equal(run(batch, lambda a, b: count(a, b))[:, 1], of_all[:2])
