"""The benchmark of augmentation in its smallest size: what it measures; how fast that is is not asserted."""

import jax
import pytest

from jaxseg import benchmarks
from jaxseg.benchmarks import augmentation
from jaxseg.data.augmentation.settings import INTENSITIES, check_augmentation
from jaxseg.errors import InputError


@pytest.mark.parametrize("rank", [2, 3])
def test_everything_is_all_that_there_is(rank):
    kinds = augmentation.kinds(rank)
    everything = check_augmentation(kinds["everything"])
    assert everything.intensities == INTENSITIES and everything.deforms
    assert set(INTENSITIES) < set(kinds) and len(kinds) == len(INTENSITIES) + 3
    assert (everything.tilt > 0) == (rank == 3)


def test_both_steps_and_every_kind_are_measured(monkeypatch):
    alone = augmentation.kinds(2)
    monkeypatch.setattr(augmentation, "kinds", lambda rank: {name: alone[name] for name in ("everything", "gamma")})
    setting = augmentation.Setting(1, 16, 2)
    with jax.numpy_dtype_promotion("standard"):
        result = augmentation.run(rounds=1, settings=[setting])
    (row,) = result["step with all augmentations"]
    assert row["step"] == "width 1, 16 x 16, batch 2" and row["ratio"] > 0
    assert 0 < row["bare_mb"] <= row["augmented_mb"] < 100
    assert [part["augmentation"] for part in result["each alone"]] == ["everything", "gamma"]


def test_steps_of_ones_own_are_read_and_refused_by_name():
    assert augmentation.read_setting("8,32,2,3") == augmentation.Setting(8, 32, 2, rank=3)
    assert augmentation.read_setting("16,128,8") == augmentation.Setting(16, 128, 8)
    for text in ("16,128", "16,128,8,4", "16,x,8", "0,128,8"):
        with pytest.raises(InputError, match=f"step is '{text}'; it must be WIDTH,SIZE,BATCH"):
            benchmarks.run("augmentation", rounds=1, steps=[text])
    with pytest.raises(InputError, match="benchmark augmentation; leave them out for data"):
        benchmarks.run("data", rounds=1, steps=["16,128,8"])
