"""The benchmark of replicas in its smallest size: its two sides do the same."""

import jax

from jaxseg.benchmarks import replicas


def test_both_sides_take_the_same_step():
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
        found = replicas.run(rounds=1, settings=(replicas.Setting((2, 4), 8, 4),), folds=2)
    [row] = found["replicas"]
    assert row["largest_difference"] < 1e-5
    assert row["ratio"] > 0 and row["network"] == "2-4, 8 px, batch 4"
