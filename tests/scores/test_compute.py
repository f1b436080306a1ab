"""Scores of many cases: one program for all networks of a shape."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import models
from jaxseg.data import augment, pipeline
from jaxseg.models import tracing
from jaxseg.scores import compute, registry
from jaxseg.scores.evidence import Asked, Evidence, Known


def test_networks_of_one_shape_share_a_program(drawn_variables):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 8, 8, 1), np.uint8)
    labels = random.integers(0, 2, (5, 8, 8)).astype(np.uint8)
    names = tuple("abcde")
    cases = pipeline.InMemory("random/test", ("a", "b"), images, labels, names, names, *pipeline.nowhere(5))
    model = models.build("unet", 2, features=(2, 4), skips=(True,))
    asked, scores = Asked(model, model.roles.convolutions[-2:]), registry.computable(())
    compute._program.cache_clear()
    found = []
    for seed in range(2):
        known = Known((drawn_variables(model, np.zeros((1, 8, 8, 1), np.float32), seed),))
        view = augment.testing_view("original", size=8, cases=cases.cases)
        found.append(compute.score_cases(asked, known, scores, pipeline.epoch(cases, batch_size=2), view))
    assert compute._program.cache_info().misses == 1
    assert set(found[0]) == {"dice", "entropy", "mean_sa"} and found[0]["entropy"].shape == (5,)
    assert (found[0]["entropy"] != found[1]["entropy"]).any()


class Constant(nn.Module):
    """The same logits at every pixel."""

    @nn.compact
    def __call__(self, images, train=False):
        logits = self.param("logits", nn.initializers.zeros, (2,))
        return jnp.broadcast_to(logits, (*images.shape[:-1], 2))


def test_classes_are_those_of_the_mean_probability_or_of_one_networks_logits():
    images = np.zeros((1, 2, 2, 1), np.float32)
    member = lambda *logits: {"params": {"logits": np.array(logits, np.float32)}}
    # a very sure member outvotes two others by the mean of the logits, not by that of the probabilities
    members = (member(40.0, 0.0), member(0.0, 2.0), member(0.0, 2.0))
    classes = jax.jit(lambda known: Evidence(Asked(Constant(), ()), known, images).classes)
    assert (np.asarray(classes(Known(members))) == 1).all()
    # whose softmax rounds both to 1 and 0 alike
    sure = jax.jit(lambda known: Evidence(Asked(Constant(), ()), known, images).classes)(Known((member(1e-9, 2e-9),)))
    assert (np.asarray(sure) == 1).all()


def test_units_lie_over_the_image_whatever_the_padding():
    model = models.build("unet", 2, features=(2, 4), skips=(True,), padding="valid")
    image = jax.ShapeDtypeStruct((1, 8, 12, 1), jnp.float32)
    variables = tracing.variable_shapes(model, image.shape)
    asked = Asked(model, model.roles.convolutions[-2:])
    shapes = jax.eval_shape(lambda one, images: Evidence(asked, Known((one,)), images).units(0), variables, image)
    assert [unit.shape[1:-1] for unit in shapes] == [(8, 12), (8, 12)]
