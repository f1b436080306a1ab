"""PyTorch played by NumPy, and clocks that show what they are told."""

import itertools
import types

import pytest

from jaxseg.benchmarks import replicas, timing, training
from tests.benchmarks import numpy_torch


@pytest.fixture
def stand_in(monkeypatch):
    """In place of PyTorch, for the benchmarks; its `calls` has what was asked of it beside the computation."""
    made = numpy_torch.module()
    monkeypatch.setattr(timing, "pytorch", lambda: made)
    return made


@pytest.fixture
def ticking(monkeypatch):
    """`(*seconds)`: whatever is timed from then on takes these, one after the other."""

    def tick(*seconds):
        times = itertools.accumulate(step for one in seconds for step in (7.0, one))
        clock = types.SimpleNamespace(perf_counter=lambda: next(times))
        for module in (replicas, timing, training):
            monkeypatch.setattr(module, "time", clock)

    return tick
