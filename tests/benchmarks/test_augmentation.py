"""The benchmark of augmentation in its smallest size: what it measures; how fast that is is not asserted."""

import jax
import pytest

from jaxseg.benchmarks import augmentation
from jaxseg.data.augmentation.settings import INTENSITIES, check_augmentation


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
    assert [part["augmentation"] for part in result["each alone"]] == ["everything", "gamma"]
