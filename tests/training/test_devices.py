"""The same numbers from one device and from many, from `jit`, `pmap` and replicas under `vmap`."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("devices") / "gradients.npz"
    script = pathlib.Path(__file__).with_name("on_eight_devices.py")
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags}
    answer = subprocess.run([sys.executable, script, path], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]
    with np.load(path) as stored:
        return dict(stored)


def of(found, way):
    return {name.partition(":")[2]: value for name, value in found.items() if name.startswith(f"{way}:")}


@pytest.mark.parametrize(
    ("way", "reference"),
    [
        ("jit", "one"),
        ("sharded", "one"),
        ("pmap", "one"),
        ("vmapped_0", "one"),
        ("vmapped_1", "other"),
    ],
)
def test_raw_gradients_agree(found, way, reference):
    ours, theirs = of(found, way), of(found, reference)
    assert ours.keys() == theirs.keys() and len(ours) == 5 + 2 + 2  # parameters, statistics, counts and loss
    for name, expected in theirs.items():
        # float32 sums in another order; gradients here are between 1e-4 and 1
        np.testing.assert_allclose(ours[name], expected, atol=1e-6, rtol=1e-5, err_msg=name)
    assert max(np.abs(value).max() for name, value in theirs.items() if "kernel" in name) > 1e-2


def test_runs_with_other_seeds_differ(found):
    one, other = of(found, "one"), of(found, "other")
    assert one["loss"] != other["loss"]


def test_a_batch_that_the_devices_do_not_divide_is_refused(found):
    assert list(found["messages"]) == [
        "config.training.batch_size is 20; for 8 device(s) it must be a multiple of 8, such as 16 or 24",
        "config.training.batch_size is 3; for 8 device(s) it must be a multiple of 8, such as 8",
        "config.training.batch_size is 24; for 8 device(s) and 2 parts it must be a multiple of 16, such as 16 or 32",
    ]
