"""SIGKILL and SIGTERM at random moments of real runs: the next call resumes, and ends with the same bits."""

import contextlib
import dataclasses
import gc
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
import tqdm

from configs import train
from jaxseg import inference
from jaxseg.data import builders
from jaxseg.errors import Preempted
from jaxseg.training import checks, runs, trained
from tests.shallow import shallow_model

# processes of their own that have imported everything, so that a hundred of them do not take an hour
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["configs.train", "jaxseg.training.runs", "jaxseg.data.builders", "tests.shallow"])


def config(replicas=1):
    """Twelve steps, a validation and a checkpoint after every third, further checkpoints after every second."""
    config = train.get_config("tiny").unlock()
    config.model.features = (2, 4)
    config.model.skips = (True,)
    config.data.image_size = 8
    config.data.augmentation.flip_horizontal = 0.5
    config.training.epochs = 4
    config.training.save_every = 2
    config.replicas = replicas
    config.training.patience = 1 if replicas > 1 else 3  # of the seeds 0 and 1, the first stops early
    return config.lock()


class SlowBar(tqdm.tqdm):
    """Shows every step at once and waits a little: there is time for a signal on a fast machine too."""

    def update(self, n=1):
        super().update(n)
        self.refresh()
        time.sleep(0.05)


def run(directory, folder, cache, replicas):
    """In a process of its own: exit status 0 when finished or asked to stop."""
    gc.disable()
    tqdm.tqdm = SlowBar
    sys.stderr = (folder.parent / f"{folder.name}.log").open("a")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    checks.build_model = shallow_model
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
def undisturbed(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("kills")
    finished(tiny, folder / "undisturbed")
    return folder / "undisturbed"


def finished(directory, place, replicas=1):
    """One more process, which is left alone to its end."""
    process = start(directory, place, cache_of(place), replicas)
    process.join(300)
    assert process.exitcode == 0, log_of(place).read_text()[-2000:]
    assert not [path for path in place.rglob("*") if "tmp" in path.name or path.suffix == ".part"]


def cache_of(place):
    """Of compiled programs, apart from the session's: a kill may leave half an entry."""
    return next(parent for parent in place.parents if parent.name.startswith("kills")) / "cache"


def log_of(place):
    return place.parent / f"{place.name}.log"


@dataclasses.dataclass
class Kill:
    """A signal so many seconds after the progress bar comes to a step, or after the start."""

    step: int | None
    seconds: float
    signal: int = signal.SIGKILL

    def await_and_send(self, process, log, seen):
        """Goes by the steps that this process has shown, after the first `seen` characters of the log."""
        while self.step is not None and process.is_alive():
            shown = re.findall(r" (\d+)/12 \[", log.read_text()[seen:]) if log.exists() else []
            if any(int(done) >= self.step for done in shown):
                break
            time.sleep(0.01)
        time.sleep(self.seconds)
        with contextlib.suppress(ProcessLookupError):  # it had little left to do, and is through
            os.kill(process.pid, self.signal)


def kills(chance, signals=(signal.SIGKILL,)):
    """In the start, in the compilation, after each of the validations but the last."""
    waits = [(None, 1.5), (0, 0.5), (3, 0.3), (6, 0.3), (9, 0.3)]
    return [Kill(step, chance.uniform(0, longest), chance.choice(signals)) for step, longest in waits]


def killed_and_finished(directory, place, kills, replicas=1):
    log, struck = log_of(place), 0
    for kill in kills:
        seen = len(log.read_text()) if log.exists() else 0
        process = start(directory, place, cache_of(place), replicas)
        kill.await_and_send(process, log, seen)
        process.join(300)
        assert process.exitcode in (0, -kill.signal)
        struck += process.exitcode == -signal.SIGKILL
    wanted = sum(kill.signal == signal.SIGKILL for kill in kills)
    assert struck >= wanted / 2  # a signal may come late, but most must not
    finished(directory, place, replicas)
    return [result(place / f"replica_{i}") for i in range(replicas)] if replicas > 1 else result(place)


# between them every printable character that a name can have, and more: patterns, addresses, accents composed and not
NAMES = (
    "run[lr=0.001] {a,b}**?!%41@3",
    "-x '\"\\$;|<>&~#^`()+,:_.=*0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz",
    "äöüß" + unicodedata.normalize("NFD", "äöü") + "漢字" + "x" * 180,
)


@pytest.fixture(scope="module")
def killed(undisturbed):
    """Data and run in a folder of those names, and what the run ended with: killed, and once asked to stop."""
    folder = undisturbed.parent.joinpath(*NAMES)
    own = builders.prepare("dermoscopy/tiny", data_dir=folder / "data[0:5]", manual_dir=None)
    assert own.is_relative_to(folder)
    moments = kills(random.Random(0))[:4]
    moments[2] = Kill(2, 0.0, signal.SIGTERM)
    return own, folder / "run", killed_and_finished(own, folder / "run", moments)


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(undisturbed, killed):
    assert killed[2] == result(undisturbed)


@pytest.mark.slow
def test_a_hundred_kills_leave_the_same_bits(undisturbed, tiny):
    chance = random.Random(100)
    for group in range(20):  # several kills a run: each resumes from what the one before left
        moments = kills(chance, (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        assert killed_and_finished(tiny, undisturbed.parent / f"killed_{group}", moments) == result(undisturbed)


def test_a_run_asked_to_stop_saves_where_it_is_and_goes_on(killed):
    log = log_of(killed[1]).read_text()
    assert "asked to stop: saved at step" in log and "the same command resumes from there" in log


def test_a_path_is_never_a_pattern(shallow_runs, undisturbed, tiny, killed):
    own, run, _ = killed
    asked = lambda place, data: trained.of_run(place, lambda name: data)
    evaluated = lambda place, data: inference.evaluate(asked(place, data), data, split="test", view="quadrant")
    assert evaluated(run, own) == evaluated(undisturbed, tiny)


def test_replicas_of_which_one_stops_early_end_with_the_same_bits_too(undisturbed, tiny):
    expected = killed_and_finished(tiny, undisturbed.parent / "replicas", [], replicas=2)
    stopped = [progress["stopped"] for _, _, progress, _ in expected]
    assert stopped == [True, False] or stopped == [False, True]
    chance = random.Random(0)
    moments = [Kill(step, chance.uniform(0, 0.3)) for step in (3, 9)]  # of both, and of the one that is left
    assert killed_and_finished(tiny, undisturbed.parent / "killed_replicas", moments, replicas=2) == expected
