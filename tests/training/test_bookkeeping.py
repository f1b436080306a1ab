"""What the loop writes and keeps of runs whose numbers are known: no network, no device, a clock that is told."""

import itertools
import json
import math
import types

import numpy as np
import pytest

from jaxseg.errors import InputError, Preempted
from jaxseg.training import checkpoints, loop
from jaxseg.training.loop import Loop, Progress

NAN = math.nan


class Program:
    """Two members; the loss of step i, counted from 1, is i and 10 i, the score a table's."""

    def __init__(self, scores, bad=()):
        self.scores, self.bad, self.calls = scores, bad, []

    def join(self, states):
        return 0

    def items(self, start):
        return itertools.count(start + 1)

    def run(self, state, items):
        self.calls.append(list(items))
        return state + len(items), list(items)

    def fetch(self, steps):
        loss = np.array([[float(i), 10.0 * i] for i in steps])
        finite = np.ones((len(steps), 2, 5), bool)
        for step, member, *tensors in self.bad:
            if step in steps:
                finite[steps.index(step), member, list(tensors)] = False
        return {"loss": loss, "grad_norm": loss / 4, "finite": finite}

    def evaluate(self, state):
        return [np.array(table[state]) for table in self.scores]

    def split(self, state):
        return [types.SimpleNamespace(saved=f"state {i} at {state}") for i in range(2)]


class Store:
    """Notes what is saved."""

    def __init__(self, name):
        self.name, self.saved, self.waited = name, [], 0

    @property
    def steps(self):
        return [step for step, *_ in self.saved]

    def save(self, state, values, *, step, score):
        self.saved.append((step, score, state, values))

    def wait(self):
        self.waited += 1


def of(program, **changes):
    options = {
        "summarise": lambda cases: {"loss": float(cases)},
        "selection": ("loss", -1),
        "patience": 0,
        "total_steps": 7,
        "evaluate_every": 3,
        "save_every": 0,
        "steps_per_call": 2,
        "learning_rate": lambda update: 0.5**update,
        "skip_nonfinite": False,
        "tensors": ("the loss", "a", "b", "c", "d"),
        "name": "drawn",
    }
    return Loop(program=program, **options | changes)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`(loop, asked) -> stores, rows of both members`; every look at the clock is two seconds after the last."""

    def call(asked_to_run, asked=()):
        clock = itertools.count(0, 2)
        monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
        monkeypatch.setattr(loop.provenance, "record", lambda folder, step: None)
        folders = [tmp_path / name for name in "ab"]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        stores, answers = [Store(name) for name in "ab"], iter([*asked, *itertools.repeat(False, 99)])
        request = types.SimpleNamespace(agreed=lambda: next(answers))
        call.stores = stores
        fresh = [types.SimpleNamespace(saved=None) for _ in folders]
        loop._fit(asked_to_run, fresh, folders, [{"own": i} for i in range(2)], stores, request)
        rows = [
            [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in folders
        ]
        return stores, rows, [json.loads((folder / "summary.json").read_text()) for folder in folders]

    return call


def test_rows_are_means_since_the_last_validation(run):
    program = Program([{3: 0.9, 6: 0.4, 7: 0.4}, {3: NAN, 6: 0.2, 7: 0.3}])
    stores, rows, summaries = run(of(program))
    assert program.calls == [[1, 2], [3], [4, 5], [6], [7]]  # no call beyond a validation
    row = {"loss": 2.0, "grad_norm": 0.5, "skipped_steps": 0, "learning_rate": 0.25, "validation_loss": 0.9}
    assert rows[0] == [
        {"step": 3, "steps_per_second": 1.5, **row},
        {"step": 6, "steps_per_second": 1.5, **row}
        | {"loss": 5, "grad_norm": 1.25, "learning_rate": 2.0**-5, "validation_loss": 0.4},
        {"step": 7, "steps_per_second": 0.5, **row}
        | {"loss": 7, "grad_norm": 1.75, "learning_rate": 2.0**-6, "validation_loss": 0.4},
    ]
    assert [row["loss"] for row in rows[1]] == [20, 50, 70]
    assert [row["validation_loss"] for row in rows[1]] == [None, 0.2, 0.3]
    # less is better; of equals, the first; undefined is never the best
    assert [saved[:3] for saved in stores[0].saved] == [
        (3, -0.9, "state 0 at 3"), (6, -0.4, "state 0 at 6"), (7, None, "state 0 at 7")
    ]  # fmt: skip
    assert [saved[:2] for saved in stores[1].saved] == [(3, None), (6, -0.2), (7, None)]
    progress = stores[0].saved[-1][3]["progress"]
    assert (progress["best"], progress["best_step"], progress["since_best"], progress["updates"]) == (-0.4, 6, 1, 7)
    assert stores[1].saved[0][3]["own"] == 1
    assert summaries[0] == {"last_step": 7, "best_step": 6, "best_validation_loss": 0.4, "stopped_early": False}


def test_a_member_that_has_ended_is_neither_saved_nor_logged(run):
    program = Program([{3: 0.9, 6: 0.9, 7: 0.1}, {3: 0.5, 6: 0.4, 7: 0.3}])
    stores, rows, summaries = run(of(program, patience=1))
    assert stores[0].steps == [3, 6] and stores[1].steps == [3, 6, 7]
    assert [row["step"] for row in rows[0]] == [3, 6] and [row["step"] for row in rows[1]] == [3, 6, 7]
    assert summaries[0] == {"last_step": 6, "best_step": 3, "best_validation_loss": 0.9, "stopped_early": True}
    assert summaries[1]["stopped_early"] is False and summaries[1]["best_step"] == 7
    program = Program([{3: 0.9, 6: 0.9, 7: 0.1}] * 2)
    assert run(of(program, patience=1))[0][0].steps == [3, 6]
    assert program.calls[-1] == [6]  # with all of them the run


def test_saves_between_validations_have_no_score(run):
    stores, rows, _ = run(of(Program([{3: 0.9, 6: 0.4, 7: 0.4}] * 2), save_every=2, steps_per_call=5))
    assert [saved[:2] for saved in stores[0].saved] == [(2, None), (3, -0.9), (4, None), (6, -0.4), (7, None)]
    assert [row["loss"] for row in rows[0]] == [2, 5, 7]


def test_asked_to_stop_a_run_saves_after_the_call_under_way(run):
    with pytest.raises(Preempted, match="asked to stop: saved at step 5 of 7; the same command resumes from there"):
        run(of(Program([{3: 0.9}] * 2)), asked=(False, False, True))
    assert run.stores[0].steps == [3, 5] and run.stores[0].waited == run.stores[1].waited == 1
    progress = run.stores[1].saved[-1][3]["progress"]
    assert progress["sums"] == {"loss": 90.0, "grad_norm": 22.5} and progress["count"] == 2
    # at its end it has nothing to stop
    stores, _, _ = run(of(Program([{3: 0.9, 6: 0.4, 7: 0.4}] * 2)), asked=(False, False, False, False, True))
    assert stores[0].steps == [3, 6, 7]


def test_what_is_not_finite_is_named_with_its_step(run, tmp_path):
    scores = [{3: 0.9, 6: 0.4, 7: 0.4}] * 2
    with pytest.raises(InputError) as error:
        run(of(Program(scores, bad=[(5, 1, 0, 1, 3, 4)])))
    wanted = f"{tmp_path / 'b'}: not finite at step 5: the loss, a, c and 1 more (of 4 gradients); the last checkpoint"
    assert str(error.value).startswith(wanted)
    with pytest.raises(InputError, match=r"a: not finite at step 2: a, b, c \(of 4 gradients\)"):
        run(of(Program(scores, bad=[(2, 0, 1, 2, 3)])))
    with pytest.raises(InputError, match=r"b: no step since the last validation was finite, up to step 6; lower"):
        run(of(Program(scores, bad=[(i, 1, 2) for i in (4, 5, 6)]), skip_nonfinite=True))
    _, rows, _ = run(of(Program(scores, bad=[(1, 1, 2), (5, 1, 0)]), skip_nonfinite=True))
    assert [row["skipped_steps"] for row in rows[1]] == [1, 1, 0]
    assert [row["loss"] for row in rows[1]] == [25, 50, 70]
    assert [row["learning_rate"] for row in rows[1]] == [0.5, 0.5**3, 0.5**4]  # by the steps that were taken
    assert [row["loss"] for row in rows[0]] == [2, 5, 7]


def test_the_progress_bar_shows_the_loss_and_what_was_validated():
    row = {"loss": 0.12345, "grad_norm": 3.0, "validation_dice": 0.5}
    assert loop._shown(row) == {"loss": "0.123", "dice": "0.500"}


def test_errors_of_the_system_say_that_the_run_resumes(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(loop, "_fit", full)
    with pytest.raises(InputError, match=r"^metrics.jsonl: No space left on device; fix that and give the same"):
        loop.fit(of(None), [], [tmp_path], [])
    assert checkpoints.has_steps(tmp_path / "checkpoints") is False


def test_a_run_that_has_ended_early_or_is_complete_does_no_step(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(loop, "_Trainer", lambda *_: begun.append(1))
    store = Store("a")
    for step, stopped in ((3, True), (7, False)):
        store.saved = [(step, None, None, None)]
        held = ([types.SimpleNamespace(saved=None)], [Progress(stopped=stopped, best=-0.5, best_step=2)], step, {})
        monkeypatch.setattr(loop, "_resume", lambda *_, held=held: held)
        loop._fit(of(None), [], [tmp_path], [{}], [store], None)
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary == {"last_step": step, "best_step": 2, "best_validation_loss": 0.5, "stopped_early": stopped}
        (tmp_path / "summary.json").unlink()
    assert begun == []
