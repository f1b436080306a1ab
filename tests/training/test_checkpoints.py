"""Latest and best checkpoints."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.training.checkpoints import Checkpoints


def example(step):
    return {
        "step": jnp.asarray(step),
        "key": jax.random.key(step),
        "w": jnp.full((3, 2), float(step)),
        "m": jnp.zeros(5),
    }


def test_the_newest_and_the_best_are_kept_and_come_back(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: math.nan, 4: 0.1}
    with Checkpoints(tmp_path) as checkpoints:
        for step, dice in scores.items():
            checkpoints.save(example(step), step=step, dice=dice)
    assert sorted(int(folder.name) for folder in tmp_path.iterdir()) == [2, 4]
    with Checkpoints(tmp_path) as checkpoints:
        latest = checkpoints.restore_latest(example(0))
        step, dice, best = checkpoints.restore_best({"w": jnp.zeros((3, 2))})
    assert int(latest["step"]) == 4
    np.testing.assert_array_equal(jax.random.key_data(latest["key"]), jax.random.key_data(jax.random.key(4)))
    assert (step, dice) == (2, 0.9)
    np.testing.assert_array_equal(best["w"], 2.0)


def test_a_run_without_a_defined_score_still_has_a_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(example(1), step=1, dice=math.nan)
    with Checkpoints(tmp_path) as checkpoints:
        step, dice, _ = checkpoints.restore_best({"w": jnp.zeros((3, 2))})
    assert step == 1 and math.isnan(dice)


def test_damage_is_said_in_one_line(tmp_path):
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(example(1), step=1, dice=0.5)
    for path in (tmp_path / "run" / "1" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with Checkpoints(tmp_path / "run") as checkpoints, pytest.raises(InputError, match="cannot be read") as error:
        checkpoints.restore_latest(example(0))
    assert "\n" not in str(error.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file where checkpoints belong"):
        Checkpoints(tmp_path / "file")


def test_no_checkpoint_is_said(tmp_path):
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(InputError, match="holds no checkpoint; train the run first"),
    ):
        checkpoints.restore_best({"w": jnp.zeros(2)})
