"""Comparisons in turns: what is measured, and what the ratio is."""

import time

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.benchmarks import text, timing


def test_the_speedup_is_the_median_over_rounds_of_the_ratio():
    pair = timing.Comparison((1.0, 2.0, 10.0), (4.0, 6.0, 20.0))
    assert pair.speedup == 3.0
    assert pair.best == (1.0, 4.0)


def test_short_sides_are_repeated_and_sides_take_turns():
    calls = []

    def side(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    pair = timing.compare(lambda: side("a", 0.001), lambda: side("b", 0.02), rounds=3, least_seconds=0.01)
    assert len(pair.seconds) == len(pair.baseline_seconds) == 3
    measured = calls[4:]  # after the warm-up and the first timing of both
    assert measured.index("b") > 1 and measured[-1] == "b"
    assert [*dict.fromkeys(measured)] == ["a", "b"]
    assert 2 < pair.speedup < 60


def test_memory_use_counts_the_result():
    x = jnp.zeros((1000, 100))
    assert timing.memory_use(lambda x: x + 1, x) >= x.nbytes
    assert timing.memory_use(lambda x: jnp.sum(x[:2]), x) < 10_000


def test_tables_are_aligned():
    rows = text({"machine": "a CPU", "table": [{"layer": 1, "speedup": 2.0}, {"layer": "all", "speedup": 123.456}]})
    assert rows.splitlines() == ["machine: a CPU", "", "table", "layer  speedup", "    1        2", "  all      123"]


def test_the_machine_names_device_and_versions():
    assert "JAX" in timing.machine() and "Python" in timing.machine()


@pytest.mark.parametrize("rounds", [1])
def test_arrays_are_waited_for(rounds):
    pair = timing.compare(lambda: jnp.zeros(3) + 1, lambda: None, rounds=rounds, least_seconds=0.0)
    assert pair.seconds[0] > 0


def test_seconds_are_those_of_one_call(monkeypatch):
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    calls = []
    assert timing._mean_seconds(lambda: calls.append(1), 3) == 2.0 and len(calls) == 3


def test_a_side_is_repeated_until_it_takes_long_enough(ticking):
    ticking(0.02)
    assert timing._repeats(lambda: 0, 0.07) == 4  # 3.5, to even
    ticking(0.3)
    assert timing._repeats(lambda: 0, 0.05) == 1


def test_a_ceiling_is_the_best_of_five(ticking, monkeypatch):
    ticking(4.0, 2.0, 0.5, 8.0, 1.0, 0.25)  # the sixth is not taken
    arrays = [jnp.zeros((3, 5)), jnp.zeros(50)]
    assert timing.memory_bandwidth(arrays) == 4 * (15 + 50) / 0.5
    ticking(4.0, 2.0, 0.5, 8.0, 1.0, 0.25)
    assert timing.matmul_rate(6, "float32") == 2 * 6**3 / 0.5
    held = []
    monkeypatch.setattr(timing, "_mean_seconds", lambda side, repeats: held.append(side) or 1.0)
    timing.matmul_rate(6, "float32")
    np.testing.assert_allclose(held[0](), np.full((6, 6), 1 / 6), rtol=1e-6)  # a product that stays as large
    assert held[0].args[0].dtype == np.float32
