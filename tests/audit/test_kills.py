"""SIGKILL at random moments of a real audit: the next call goes on, and ends with the same bits."""

import dataclasses
import gc
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import tqdm

from configs import audit as audit_config
from jaxseg.audit import progress, request, subject
from jaxseg.audit import run as audits

# processes of their own that have imported everything
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["configs.audit", "jaxseg.audit.run", "jaxseg.audit.request"])
PROBES = ("accuracy", "calibration", "failures", "translation")


def audited(data, run, workdir, log):
    """One case after the other; of every case that was asked about, a line stands in the log."""

    class Bar(tqdm.tqdm):
        def update(self, n=1):
            with log.open("a") as file:
                file.write("case\n")

    progress.tqdm.tqdm = Bar
    config = audit_config.get_config().unlock()
    config.update(resamples=20, cases=9, probes=PROBES)
    settings = audits.settings(config)
    asked, _ = request.load(request.Request(run=run), settings, lambda name: data)
    return audits.run(dataclasses.replace(asked, familiar=None, batch_size=1), settings, workdir)


def in_a_process(data, run, workdir, log):
    """Every answer is kept at once, every case decoded when it is asked for."""
    gc.disable()
    progress._EVERY = subject._HELD = 0
    audited(data, run, workdir, log)
    os._exit(0)


def lines(log):
    return log.read_text().count("\n") if log.exists() else 0


def measured(workdir):
    assert not [path for path in (workdir / "probes").iterdir() if path.suffix != ".npz" and path.suffix]
    return {path.name: dict(np.load(path)) for path in sorted((workdir / "probes").glob("*.npz"))}


@pytest.fixture
def undisturbed(tiny, tiny_run, tmp_path, monkeypatch):
    """What an audit of cases in memory measures, and how many cases it asks about."""
    monkeypatch.setattr(progress.tqdm, "tqdm", tqdm.tqdm)
    audited(tiny, tiny_run, tmp_path / "undisturbed", tmp_path / "undisturbed.log")
    return measured(tmp_path / "undisturbed"), lines(tmp_path / "undisturbed.log")


def test_an_audit_killed_at_any_moment_measures_the_same_bits(tiny, tiny_run, tmp_path, undisturbed):
    wanted, asked = undisturbed
    log, chance, killed = tmp_path / "killed.log", random.Random(1), 0
    for moment in sorted(chance.sample(range(1, asked - 9), 3)):
        process = PROCESSES.Process(target=in_a_process, args=(tiny, tiny_run, tmp_path / "killed", log))
        process.start()
        while lines(log) < moment and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.01))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 2
    process = PROCESSES.Process(target=in_a_process, args=(tiny, tiny_run, tmp_path / "killed", log))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    found = measured(tmp_path / "killed")
    assert found.keys() == wanted.keys() == {f"{name}.npz" for name in PROBES}
    for name, arrays in wanted.items():
        assert found[name].keys() == arrays.keys()
        for key, values in arrays.items():
            np.testing.assert_array_equal(found[name][key], values, strict=True)
    # what was answered was not asked again: a case may have been answered without a line, or twice, at each kill
    assert abs(lines(log) - asked) <= killed
