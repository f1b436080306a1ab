"""Newest and best checkpoints, and what happens to damaged ones."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.training import checkpoints
from jaxseg.training.checkpoints import Checkpoints, restore_newest


def example(step):
    return {
        "step": jnp.asarray(step),
        "key": jax.random.key(step),
        "w": jnp.full((3, 2), float(step)),
        "b": jnp.arange(5, dtype=jnp.bfloat16),
        "m": jnp.zeros(5),
    }


def save_all(folder, scores):
    with Checkpoints(folder) as store:
        for step, score in scores.items():
            store.save(example(step), {"progress": {"note": step}}, step=step, score=score)


def test_the_two_newest_and_the_best_are_kept_and_come_back(tmp_path):
    save_all(tmp_path, {1: 0.2, 2: 0.9, 3: None, 4: 0.1, 5: None})
    with Checkpoints(tmp_path) as store:
        assert store.steps == [2, 4, 5]
        assert store.progress(5) == {"note": 5}
        latest, values = store.restore(5, example(0))
        step, best, _ = store.restore_best({"w": jnp.zeros((3, 2))})
    assert int(latest["step"]) == 5 and values == {"progress": {"note": 5}}
    np.testing.assert_array_equal(jax.random.key_data(latest["key"]), jax.random.key_data(jax.random.key(5)))
    np.testing.assert_array_equal(latest["b"], np.arange(5))
    assert step == 2 and best.keys() == {"w"}
    np.testing.assert_array_equal(best["w"], 2.0)


def test_a_run_without_a_defined_score_still_has_a_checkpoint(tmp_path):
    save_all(tmp_path, {1: None})
    with Checkpoints(tmp_path) as store:
        assert store.restore_best({"w": jnp.zeros((3, 2))})[0] == 1


def test_a_checksum_sees_every_change_of_one_word():
    before = checkpoints.checksums(example(1))
    for name, other in (("w", example(1)["w"].at[2, 1].add(1e-7)), ("b", example(1)["b"].at[0].set(-0.0))):
        after = checkpoints.checksums({**example(1), name: other})
        assert [key for key in before if before[key] != after[key]] == [name]
    swapped = checkpoints.checksums({**example(1), "b": example(1)["b"][::-1]})
    assert swapped["b"] != before["b"]
    assert checkpoints.checksums({**example(1), "key": jax.random.key(2)})["key"] != before["key"]


def emptied(folder):
    for path in (folder / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def flipped(folder):
    """Overwrites the values of one array with others of the same size, in a file that can be read."""
    save_all(folder.parent.parent / "other", {int(folder.name): None})
    other = folder.parent.parent / "other" / folder.name
    with Checkpoints(folder.parent.parent / "other") as store:
        changed = {**example(int(folder.name)), "m": jnp.ones(5)}
        store.save(changed, {"progress": {}}, step=99, score=None)
        store.wait()
    subprocess.run(["rm", "-rf", folder / "state"], check=True)
    (other.parent / "99" / "state").rename(folder / "state")


def without_values(folder):
    (folder / "values" / "metadata").write_text("{")


@pytest.mark.parametrize("damage", [emptied, flipped, without_values])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path, capsys, damage):
    save_all(tmp_path / "run", {1: None, 2: None, 3: None})
    damage(tmp_path / "run" / "3")
    with Checkpoints(tmp_path / "run") as store:
        [(state, values)], step = restore_newest([store], example(0))
        assert (step, int(state["step"]), values) == (2, 2, {"progress": {"note": 2}})
        assert store.steps == [2]
        store.save(example(3), {}, step=3, score=None)  # its place is free again
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and f"{tmp_path / 'run' / '3'}: is damaged" in message
    assert "it is now damaged_3, and the run goes on from step 2" in message
    assert (tmp_path / "run" / "damaged_3").is_dir()


def test_the_only_checkpoint_is_left_where_it_is_when_damaged(tmp_path):
    save_all(tmp_path / "run", {1: 0.5})
    emptied(tmp_path / "run" / "1")
    with Checkpoints(tmp_path / "run") as store, pytest.raises(InputError, match=r"run/1: is damaged \(") as error:
        restore_newest([store], example(0))
    assert "\n" not in str(error.value) and (tmp_path / "run" / "1").is_dir()


def test_replicas_go_on_from_the_newest_step_that_all_have(tmp_path):
    save_all(tmp_path / "a", {2: None, 4: None})
    save_all(tmp_path / "b", {2: None})
    with Checkpoints(tmp_path / "a") as a, Checkpoints(tmp_path / "b") as b:
        assert restore_newest([a, b], example(0))[1] == 2
        assert a.steps == [2]  # 4 is about to be made again
    save_all(tmp_path / "c", {4: None})
    with Checkpoints(tmp_path / "a") as a, Checkpoints(tmp_path / "c") as c:
        assert restore_newest([a, c], example(0)) == ([], 0)
        assert a.steps == c.steps == []


def test_no_checkpoint_is_said(tmp_path):
    with Checkpoints(tmp_path / "run") as store, pytest.raises(InputError, match="holds no checkpoint; train the run"):
        store.restore_best({"w": jnp.zeros(2)})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file where checkpoints belong"):
        Checkpoints(tmp_path / "file")


FULL = """
import pathlib, resource, signal, sys
import jax, jax.numpy as jnp
from jaxseg.errors import InputError
from jaxseg.training.checkpoints import Checkpoints

state = lambda step: {"w": jax.random.normal(jax.random.key(step), (1 << 20,))}
folder = pathlib.Path(sys.argv[1])
with Checkpoints(folder) as store:
    store.save(state(1), {}, step=1, score=0.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))  # no file above 1 MB, as on a full disk
try:
    with Checkpoints(folder) as store:
        store.save(state(2), {}, step=2, score=0.0)
except InputError as error:
    print(error)
else:
    raise SystemExit("it was saved")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with Checkpoints(folder) as store:
    assert store.steps == [1], store.steps
    store.restore(1, state(0))
    store.save(state(2), {}, step=2, score=0.0)
"""


def test_what_cannot_be_written_is_said_in_one_line_and_the_checkpoint_before_stays(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "run"], capture_output=True, text=True, env=os.environ
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.count("\n") == 1
    assert f"{tmp_path / 'run'}: a checkpoint cannot be written (File too large); make room there" in answer.stdout
