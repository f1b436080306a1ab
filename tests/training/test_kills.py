"""SIGKILL and SIGTERM at random moments of real runs: the next call goes on, and ends with the same bits."""

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time
import unicodedata

import jax
import pytest

from configs import train
from jaxseg import inference
from jaxseg.data import builders
from jaxseg.errors import Preempted
from jaxseg.training import runs

# processes of their own that have imported everything, so that a hundred of them do not take an hour
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["configs.train", "jaxseg.training.runs", "jaxseg.data.builders"])


def config(replicas=1):
    """Twelve steps, a validation and a checkpoint behind every third, further checkpoints behind every second."""
    config = train.get_config("tiny").unlock()
    config.model.features = (2, 4)
    config.model.skips = (True,)
    config.data.image_size = 8
    config.data.augmentation.flip_horizontal = 0.5
    config.training.epochs = 4
    config.training.save_every = 2
    config.replicas, config.seed = replicas, replicas - 1
    config.training.patience = 1 if replicas > 1 else 3  # of the seeds 1 and 2, the first stops early
    return config.lock()


def run(directory, folder, cache, replicas):
    """In a process of its own: exit status 0 when finished or asked to stop."""
    sys.stderr = (folder.parent / f"{folder.name}.log").open("a")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        runs.train(config(replicas), runs.Splits(directory, config().data.source_size), folder)
    except Preempted as stop:
        print(stop, file=sys.stderr)
    sys.stderr.flush()
    os._exit(0)


def start(directory, folder, cache, replicas=1):
    process = PROCESSES.Process(target=run, args=(directory, folder, cache, replicas))
    process.start()
    return process


def result(folder):
    """The final state, bit by bit, and the log without its timings."""
    with runs.Checkpoints(folder / "checkpoints") as checkpoints:
        last = checkpoints.steps[-1]
        stored = json.loads((folder / "checkpoints" / str(last) / "values" / "metadata").read_text())
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["steps_per_second"]
    return last, stored["checksums"], stored["values"]["progress"], rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    directory = builders.prepare("dermoscopy/tiny", data_dir=folder / "data", manual_dir=None)
    seconds = []
    for name in ("first", "second"):  # the second has everything compiled, and must have the same bits
        began = time.monotonic()
        process = start(directory, folder / name, folder / "cache")
        process.join(300)
        assert process.exitcode == 0, (folder / f"{name}.log").read_text()[-2000:]
        seconds.append(time.monotonic() - began)
    assert result(folder / "first") == result(folder / "second")
    return directory, folder, seconds[-1]


def after(moment):
    """Waits that long from the start of the process."""
    return lambda process, log: time.sleep(moment)


def step(number):
    """Waits until the progress bar has come to that step: on a slow machine as on a fast one."""

    def wait(process, log):
        while process.is_alive():
            shown = re.findall(r" (\d+)/12 \[", log.read_text()) if log.exists() else []
            if any(int(done) >= number for done in shown):
                return
            time.sleep(0.01)

    return wait


def killed_and_finished(undisturbed, name, moments, number=signal.SIGKILL, replicas=1):
    directory, folder, _ = undisturbed
    place = folder / name
    for moment in moments:
        process = start(directory, place, folder / "cache", replicas)
        moment(process, folder / f"{name}.log")
        with contextlib.suppress(ProcessLookupError):  # it had little left to do, and is through
            os.kill(process.pid, number)
        process.join(300)
        assert process.exitcode in (0, -number)
    process = start(directory, place, folder / "cache", replicas)
    process.join(300)
    assert process.exitcode == 0, (folder / f"{name}.log").read_text()[-2000:]
    assert not [path for path in place.rglob("*") if "tmp" in path.name or path.suffix == ".part"]
    return [result(place / f"replica_{i}") for i in range(replicas)] if replicas > 1 else result(place)


@pytest.mark.parametrize("number", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(undisturbed, number):
    chance = random.Random(number)
    expected = result(undisturbed[1] / "first")
    # several kills a run: each goes on from what the one before left
    for group in range(number // 10):
        moments = [after(chance.uniform(0, undisturbed[2])) for _ in range(10)]
        assert killed_and_finished(undisturbed, f"killed_{number}_{group}", moments) == expected


def test_a_run_asked_to_stop_saves_where_it_is_and_goes_on(undisturbed):
    moments = [step(1), step(5), step(9)]
    assert killed_and_finished(undisturbed, "stopped", moments, signal.SIGTERM) == result(undisturbed[1] / "first")
    log = (undisturbed[1] / "stopped.log").read_text()
    assert "asked to stop: saved at step" in log and "the same command goes on from there" in log


def test_replicas_of_which_one_stops_early_end_with_the_same_bits_too(undisturbed):
    chance = random.Random(0)
    expected = killed_and_finished(undisturbed, "replicas", [], replicas=2)
    stopped = [progress["stopped"] for _, _, progress, _ in expected]
    assert stopped == [True, False] or stopped == [False, True]
    moments = [after(chance.uniform(0.3, 1) * 1.5 * undisturbed[2]) for _ in range(5)]
    assert killed_and_finished(undisturbed, "killed_replicas", moments, replicas=2) == expected


# between them every printable character that a name can have, and more: patterns, addresses, accents composed and not
NAMES = [
    "run[lr=0.001] {a,b}**?!%41@3",
    "-x '\"\\$;|<>&~#^`()+,:_.=*0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz",
    "äöüß" + unicodedata.normalize("NFD", "äöü") + "漢字" + "x" * 180,
]


@pytest.mark.parametrize("name", NAMES, ids=["patterns", "printable", "long"])
def test_a_path_is_never_a_pattern(undisturbed, name):
    directory, folder, seconds = undisturbed
    own = builders.prepare("dermoscopy/tiny", data_dir=folder / name / "data[0:5]", manual_dir=None)
    assert own.is_relative_to(folder / name)
    there = own, folder, seconds
    assert killed_and_finished(there, f"{name}/run", [step(5)]) == result(folder / "first")
    evaluated = lambda place, data: inference.evaluate_run(config(), place, data, split="test", view="quadrant")
    assert evaluated(folder / name / "run", own) == evaluated(folder / "first", directory)
