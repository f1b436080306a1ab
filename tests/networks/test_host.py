"""Calls of the host from compiled programs: they end, and what the host refuses is one sentence."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import inference, networks
from jaxseg.errors import InputError
from jaxseg.networks import host
from jaxseg.networks.host_call import host_call

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 1)).astype(np.float32)
ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, numpy as np
from jaxseg.networks.host_call import host_call
twice = lambda x: host_call(lambda x: 2 * x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
print(float(jnp.max(jax.jit(lambda x: twice(x + 1) + twice(x))(np.ones((1 << 20,), np.float32)))))
"""


def test_two_calls_of_large_arrays_end_on_one_core():
    done = subprocess.run([sys.executable, "-c", ONE_CORE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "6.0"


def test_under_vmap_all_arguments_and_results_have_one_more_axis():
    shapes = []

    def add(x, given):
        shapes.append((x.shape, given["y"].shape))
        return {"sum": x + given["y"]}

    call = lambda x, y: host_call(add, {"sum": jax.ShapeDtypeStruct((3,), jnp.float32)}, x, {"y": y})["sum"]
    x, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([10, 20, 30], np.float32)
    found = jax.jit(jax.vmap(call, (1, None)))(x, y)
    np.testing.assert_array_equal(found, x.T + y)
    assert shapes == [((2, 3), (2, 3))]


@pytest.fixture
def moody():
    """A network that gives NaN for dark images, which the trial does not have."""

    def answer(levels):
        values = np.asarray(levels, np.float32) - 300
        return np.where(values.mean((1, 2, 3), keepdims=True) < -299, np.nan, values)

    return networks.from_function(answer, num_classes=2, image_size=4, channels=1)


def test_what_the_host_refuses_is_its_sentence(moody):
    sentence = "the function answer gave NaN; look at its weights and at how its images are normalised"
    batch = {
        "image": np.full((1, 4, 4, 1), -1, np.float32),
        "labels": np.zeros((1, 4, 4), int),
        "real": np.ones(1, bool),
    }
    assert np.isfinite(moody.logits(IMAGES)).all()
    with pytest.raises(InputError, match=f"^{sentence}"):
        moody.logits(batch["image"])
    view = lambda stored: {"images": stored["image"], "labels": stored["labels"]}
    score = lambda labels, predictions: {"sum": jnp.sum(labels + predictions, (1, 2))}
    with pytest.raises(InputError, match=f"^{sentence}"):
        inference.score_cases(moody, iter([batch]), view, score)


def test_other_errors_of_programs_stay_as_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="memory"), host.plainly():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
