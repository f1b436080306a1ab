"""What stands in a run's folder beside its checkpoints: its metrics, and where it was trained."""

import datetime
import json
import math
import re

import jax

from jaxseg.training import provenance
from jaxseg.training.logs import MetricLog


def test_a_log_goes_on_after_the_step_that_was_saved(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 4, "dice": math.nan})
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"loss": 0.1}\n[]\n{"step": 4, "lo')  # rows without a step, and one that a kill truncated
    with MetricLog(tmp_path, 2) as log:
        log.write(7, {"loss": 0.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.25, "dice": None},
        {"step": 2, "loss": 0.5, "dice": None},
        {"step": 7, "loss": 0.5},
    ]


def test_where_a_run_was_trained_is_noted_at_every_start(tmp_path):
    assert provenance.sessions(tmp_path) == []
    for step in (0, 5):
        provenance.record(tmp_path, step)
    first, second = provenance.sessions(tmp_path)
    assert (first.pop("from_step"), second.pop("from_step")) == (0, 5) and first == second
    assert abs(datetime.date.today() - datetime.date.fromisoformat(first["date"])) <= datetime.timedelta(1)
    assert re.fullmatch(r"1 cpu device \(cpu\), \d+ cores, \w+, Python 3\.\S+", first["machine"])
    assert first["versions"]["jax"] == jax.__version__
