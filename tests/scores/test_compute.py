"""Scores of many cases: one program for all networks of a shape."""

import numpy as np

from jaxseg import models
from jaxseg.data import augment, pipeline
from jaxseg.scores import compute, registry
from jaxseg.scores.evidence import Asked, Known


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
