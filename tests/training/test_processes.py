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

from jaxseg.training import runs

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = [
    "--config=configs/train.py:tiny",
    "--config.model.features=(2,4)",
    "--config.model.skips=(True,)",
    "--config.data.image_size=8",
    "--config.data.view=quadrant",
]


def start(folder, name, *flags, devices=2, **environment):
    """A launcher as it is called from a shell."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }
    command = [sys.executable, "-m", "launch.train", *RECIPE, f"--data_dir={folder / 'data'}", *flags]
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def pair(folder, name, *flags):
    """Both processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2", f"--workdir={folder / name}", *flags]
    return [start(folder, f"{name}_{i}", *joined, f"--process_id={i}") for i in range(2)]


def ended(processes):
    return [process.wait(240) for process in processes]


def params(folder, step):
    config = runs.read_config(folder)
    model = runs.checks.build_model(config, 2)
    like = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    with runs.Checkpoints(folder / "checkpoints") as store:
        return jax.device_get(store.restore(step, dict(like))[0])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with one device, five steps; its folder also has the prepared data."""
    folder = tmp_path_factory.mktemp("processes")
    one = start(folder, "alone", f"--workdir={folder / 'alone'}", "--config.training.save_every=5", devices=1)
    assert one.wait(240) == 0, (folder / "alone.log").read_text()[-2000:]
    return folder


def test_two_processes_give_the_same_parameters_one_log_and_one_checkpoint(alone):
    assert ended(pair(alone, "two", "--config.training.save_every=5")) == [0, 0], (alone / "two_0.log").read_text()
    ours, expected = params(alone / "two", 5), params(alone / "alone", 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)
    rows = [json.loads(line) for line in (alone / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    # what one host began, another number of devices can go on with: the checkpoint of both is opened here, on one
    again = start(alone, "again", f"--workdir={alone / 'two'}", "--config.training.save_every=5", devices=1)
    assert again.wait(240) == 0 and str(alone / "two") in (alone / "again.log").read_text()
    assert "step/s" not in (alone / "two_1.log").read_text()  # the other process shows no progress


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        (1, signal.SIGKILL),
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_when_one_process_ends_the_others_do_and_the_next_start_goes_on(alone, victim, number):
    name = f"lost_{victim}_{number}"
    long = ["--config.training.epochs=2000", "--config.training.save_every=1"]
    processes = pair(alone, name, *long)
    log = alone / name / "checkpoints"
    deadline = time.monotonic() + 180
    while not any(path.name.isdigit() and int(path.name) > 3 for path in log.glob("*")):
        assert time.monotonic() < deadline and processes[0].poll() is None, (alone / f"{name}_0.log").read_text()
        time.sleep(0.1)
    processes[victim].send_signal(number)
    began = time.monotonic()
    other = processes[1 - victim].wait(90)
    assert time.monotonic() - began < 90
    text = (alone / f"{name}_{1 - victim}.log").read_text()
    if number == signal.SIGTERM:  # all agree to stop at the same step
        assert ended(processes) == [0, 0]
        assert re.search(r"asked to stop: saved at step \d+ of 6000; the same command goes on from there", text)
    else:
        assert other == 75 or "another task died" in text, text[-2000:]
        assert other != 0 and processes[victim].wait(90) == -number
    with runs.Checkpoints(log) as store:
        reached = store.steps[-1]
    again = pair(alone, name, *long)
    while not any(path.name.isdigit() and int(path.name) > reached + 2 for path in log.glob("*")):
        assert time.monotonic() < deadline + 180 and again[0].poll() is None, (alone / f"{name}_0.log").read_text()
        time.sleep(0.1)
    for process in again:
        process.kill()
        process.wait(90)
    sessions = [json.loads(line) for line in (alone / name / "sessions.jsonl").read_text().splitlines()]
    assert sessions[0]["from_step"] == 0 and sessions[1]["from_step"] >= reached - 1 > 0


def test_flags_that_belong_together_are_asked_for(alone):
    for flags, message in (
        (["--num_processes=2"], "--coordinator, --num_processes and --process_id belong together"),
        (["--coordinator=x:1", "--num_processes=2", "--process_id=2"], "--process_id is 2; it must be from 0 to 1"),
    ):
        process = start(alone, "flags", f"--workdir={alone / 'flags'}", *flags)
        assert process.wait(120) == 2
        assert message in (alone / "flags.log").read_text().splitlines()[-1]
