"""Which processes are joined, who waits for whom, and how a batch is laid out; other hosts and devices are told of."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.errors import InputError, LostProcess
from jaxseg.training import parallel

CLUSTER = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES")


@pytest.fixture
def joined(monkeypatch):
    """What JAX was asked to join; nothing in the environment tells of a cluster."""
    asked = []
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **options: asked.append((given, options)))
    monkeypatch.setattr(parallel.faulthandler, "disable", lambda: asked.append("no stacks"))
    return asked


@pytest.mark.parametrize("process", [0, 1])
def test_processes_are_joined_with_what_was_given(joined, process):
    parallel.initialize(coordinator="10.0.0.1:1234", num_processes=2, process_id=process)
    assert joined == [(("10.0.0.1:1234", 2, process), {"heartbeat_timeout_seconds": 30}), "no stacks"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("x:1", None, None), "--coordinator, --num_processes and --process_id belong together; give all three"),
        (("x:1", 2, None), "belong together"),
        (("x:1", 2, 2), "--process_id is 2; it must be from 0 to 1"),
        (("x:1", 2, -1), "--process_id is -1; it must be from 0 to 1"),
    ],
)
def test_what_cannot_be_joined_is_named(joined, given, message):
    with pytest.raises(InputError, match=message):
        parallel.initialize(**dict(zip(("coordinator", "num_processes", "process_id"), given, strict=True)))
    assert joined == []


@pytest.mark.parametrize(
    ("variable", "value", "many"),
    [
        ("SLURM_STEP_NUM_TASKS", "2", True),
        ("SLURM_STEP_NUM_TASKS", "1", False),
        ("SLURM_STEP_NUM_TASKS", "many", False),
        ("OMPI_COMM_WORLD_SIZE", "16", True),
        ("TPU_WORKER_HOSTNAMES", "a,b", True),
        ("TPU_WORKER_HOSTNAMES", "a", False),
        (None, None, False),
    ],
)
def test_a_cluster_is_asked_where_the_environment_tells_of_one(joined, monkeypatch, variable, value, many):
    if variable:
        monkeypatch.setenv(variable, value)
    parallel.initialize()
    assert bool(joined) == many
    parallel.initialize(ask=True)
    assert len(joined) == 2 * (1 + many)


def test_what_keeps_processes_from_joining_is_one_short_line(joined, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no answer\n  from " + 300 * "x")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError) as error:
        parallel.initialize(ask=True)
    said = f"no answer from {300 * 'x'}"[:200]
    assert str(error.value) == f"the processes of this run cannot be joined: {said}"


def of(monkeypatch, count, index=0):
    """The calls by which this process, one of so many, waits."""
    waits = []
    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    wait = lambda name, **options: waits.append((name, options))
    monkeypatch.setattr(parallel.multihost, "sync_global_processes", wait)
    return waits


def test_processes_wait_a_day_for_all(monkeypatch):
    waits = of(monkeypatch, 3)
    parallel.barrier("here")
    assert waits == [("here", {"timeout": 86_400, "processes": {0, 1, 2}})]
    waits = of(monkeypatch, 1)
    parallel.barrier("alone")
    assert waits == []


@pytest.mark.parametrize("index", [0, 1])
def test_the_main_process_goes_first(monkeypatch, index):
    waits = of(monkeypatch, 2, index)
    assert parallel.is_main() == (index == 0)
    with parallel.main_first("done"):
        assert len(waits) == index
    assert len(waits) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_failures_are_named(monkeypatch, count):
    of(monkeypatch, count)
    with pytest.raises(InputError, match="memory of the device is too small") as error, parallel.failures_named():
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED:\n {200 * 'x'}")
    assert f"({f'RESOURCE_EXHAUSTED: {200 * chr(120)}'[:120]}); lower config.training.batch_size" in str(error.value)
    wanted = LostProcess if count > 1 else TimeoutError
    with pytest.raises(wanted) as error, parallel.failures_named():
        raise TimeoutError(300 * "y")
    if count > 1:
        assert f"({120 * 'y'})" in str(error.value)


def test_a_batch_is_divided_by_devices_and_parts(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    parallel.check_batch(24, accumulate=3)
    for batch, parts, message in (
        (20, 2, r"batch_size is 20; for 4 device\(s\) and 2 parts it must be a multiple of 8, such as 16 or 24$"),
        (5, 2, "multiple of 8, such as 8$"),
        (6, 1, r"4 device\(s\) it must be a multiple of 4, such as 4 or 8$"),
    ):
        with pytest.raises(InputError, match=message):
            parallel.check_batch(batch, accumulate=parts)


def test_with_many_hosts_what_is_everywhere_stays_and_the_rest_is_shown_to_the_others(monkeypatch):
    everywhere = jax.device_put(np.float32([1, 2]), parallel.replicated())
    here = np.float32([3])
    shown = []
    monkeypatch.setattr(parallel, "place", lambda leaf: shown.append(leaf) or "placed")
    assert parallel.place_state({"a": here})["a"].sharding == parallel.replicated() and shown == []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    placed = parallel.place_state({"a": everywhere, "b": here})
    assert placed["a"] is everywhere and placed["b"] == "placed" and shown[0] is here


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_replicas_and_steps_give_the_same_one_by_one_and_at_once(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    store, states, items = np.float32([10, 20]), np.float32([1, 2, 3]), np.float32([[4, 0], [5, 0], [6, 0]])
    function = parallel.over_replicas(lambda store, state, item: (state * item[0] + store[1], state), (None, 0, 0))

    def body(carry, item):
        return carry * item[0], carry + item[0]

    def both(store, states, items):
        return function(store, states, items), parallel.scan(body, jnp.float32(2), items)

    text = jax.jit(both).lower(store, states, items).as_text()
    assert ("while" in text) == (backend == "gpu")
    (found, before), (last, seen) = jax.jit(both)(store, states, items)
    np.testing.assert_array_equal(found, [24, 30, 38])
    np.testing.assert_array_equal(before, states)
    assert last == 240
    np.testing.assert_array_equal(seen, [6, 13, 46])


def test_the_memory_of_a_device(monkeypatch):
    devices = [types.SimpleNamespace(memory_stats=lambda given=given: given) for given in ({"bytes_limit": 5}, None)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert parallel.device_memory() == 5
    monkeypatch.setattr(jax, "local_devices", lambda: devices[::-1])
    [line] = [line for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")]
    assert parallel.device_memory() == pytest.approx(1024 * int(line.split()[1]), rel=0.01)


@pytest.mark.parametrize(("backend", "wanted", "many"), [("cpu", True, 0), ("gpu", True, 2), ("gpu", False, 0)])
def test_determinism_has_its_price_on_gpus_alone(monkeypatch, backend, wanted, many):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert len(parallel.deterministic_options(wanted)) == many
