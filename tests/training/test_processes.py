"""Two processes with two devices each, over loopback: real processes of the real launcher, some of them killed."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxseg.data import builders
from jaxseg.training import runs

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = [
    "--config=configs/train.py:tiny",
    "--config.model.features=(2,4)",
    "--config.model.skips=(True,)",
    "--config.data.image_size=8",
    "--config.training.save_every=1",
]  # as that of `tiny_run`, but for the checkpoints


def pair(folder, data, *more):
    """Both processes of the run in `folder / "two"`, of launchers as they are called from a shell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),  # not the session's: a kill may leave half an entry
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [
        sys.executable,
        "-m",
        "launch.train",
        *RECIPE,
        *more,
        f"--data_dir={data}",
        f"--workdir={folder / 'two'}",
    ]
    command += [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    processes = []
    for i in range(2):
        with (folder / f"{i}.log").open("a") as log:
            one = subprocess.Popen(
                [*command, f"--process_id={i}"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        processes.append(one)
    return processes


def ended(processes):
    return [process.wait(240) for process in processes]


def params(folder, step):
    config = runs.read_config(folder)
    model = runs.checks.build_model(config, 2)
    like = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    with runs.Checkpoints(folder / "checkpoints", read_only=True) as store:
        return jax.device_get(store.restore(step, dict(like))[0])


def fit(config, data, folder):
    """In this process, which has one device."""
    directory = builders.prepared(config.data.dataset, data_dir=data)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runs.train(config, runs.Splits(directory, config.data.source_size), folder)


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        (1, signal.SIGKILL),
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_when_one_of_two_ends_the_other_does_and_the_next_start_ends_with_the_parameters_of_one_process(
    tmp_path, drawn_data, tiny_run, victim, number
):
    data, run, checkpoints = drawn_data("dermoscopy/tiny"), tmp_path / "two", tmp_path / "two" / "checkpoints"
    # quadrants drawn on two hosts, which take a comparison of their own, where there is more time
    view = "original" if (victim, number) == (1, signal.SIGKILL) else "quadrant"
    start = lambda: pair(tmp_path, data, f"--config.data.view={view}")
    processes = start()
    deadline = time.monotonic() + 180
    while not any(path.name.isdigit() and int(path.name) >= 2 for path in checkpoints.glob("*")):
        assert time.monotonic() < deadline and processes[0].poll() is None, (tmp_path / "0.log").read_text()
        time.sleep(0.02)
    processes[victim].send_signal(number)
    began = time.monotonic()
    other = processes[1 - victim].wait(90)
    assert time.monotonic() - began < 90
    text = (tmp_path / f"{1 - victim}.log").read_text()
    if number == signal.SIGTERM:  # all agree to stop at the same step
        assert ended(processes) == [0, 0]
        assert re.search(r"asked to stop: saved at step \d+ of 6; the same command resumes from there", text)
    else:
        assert other == 75 or "another task died" in text, text[-2000:]
        assert other != 0 and processes[victim].wait(90) == -number
    with runs.Checkpoints(checkpoints) as store:
        reached = store.steps[-1]

    assert ended(start()) == [0, 0], (tmp_path / "0.log").read_text()
    sessions = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    assert sessions[0]["from_step"] == 0 and sessions[1]["from_step"] >= reached - 1 > 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]  # one log
    assert "step/s" not in (tmp_path / "1.log").read_text()  # the other process shows no progress

    config = runs.read_config(run)
    alone = tiny_run
    if view != "original":
        alone = tmp_path / "alone"
        fit(config, data, alone)
    ours, expected = params(run, 6), params(alone, 6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)
    # what one host began, another number of devices can resume: the checkpoint of both is opened here, on one
    fit(config, data, run)
