"""Devices, hosts and replicas: how one training step is laid out over all of them.

By default a program is compiled by `jit` over a mesh of all devices of all hosts with one axis, `data`: the state is
on every device, a batch is split along its cases, and XLA inserts the communication. Means over the
batch (losses, batch statistics) are those of the global batch. `pmap` gives the same results.
"""

import contextlib
import faulthandler
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import multihost

from jaxseg.errors import InputError, LostProcess

AXIS = "data"
PARALLEL = ("jit", "pmap")
_DAY_SECONDS = 24 * 60 * 60
_HEARTBEAT_SECONDS = 30  # a host that is silent for longer counts as dead


def initialize(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    ask: bool = False,
) -> None:
    """Joins the processes of a run on many hosts; does nothing where there is one process.

    Under SLURM, Open MPI and in Kubernetes TPU pods all arguments are detected; on other TPU pods set `ask`;
    elsewhere give all three. To be called before anything asks for a device.

    Args:
      coordinator: address and port of process 0, as `10.0.0.1:1234`.
      num_processes: of the run.
      process_id: of this process, from 0.
      ask: whether the cluster is asked for the arguments even where nothing in the environment tells of one.

    Raises:
      InputError: some arguments are missing or impossible, or the others cannot be reached.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given):
        if coordinator is None or num_processes is None or process_id is None:
            raise InputError("--coordinator, --num_processes and --process_id belong together; give all three or none")
        if not 0 <= process_id < num_processes:
            raise InputError(f"--process_id is {process_id}; it must be from 0 to {num_processes - 1}")
    elif not (ask or _many_tasks()):
        return
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the processes of this run cannot be joined: {reason}") from error
    # When another process hangs, JAX aborts this one with a message; the stack of an abort would only hide it.
    faulthandler.disable()


def _many_tasks() -> bool:
    """Whether this process was started as one of many by SLURM, Open MPI or a TPU pod."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(count.isdigit() and int(count) > 1 for count in counts) or "," in os.environ.get(
        "TPU_WORKER_HOSTNAMES", ""
    )


def is_main() -> bool:
    """Whether this process writes the log, the config and the messages."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process is here, for as long as they live; each call needs a name of its own."""
    if jax.process_count() > 1:
        # not over the devices: their first contact gives up after half a minute
        everyone = set(range(jax.process_count()))
        multihost.sync_global_processes(name, timeout=_DAY_SECONDS, processes=everyone)


@contextlib.contextmanager
def failures_named() -> Iterator[None]:
    """Within it, what JAX raises when memory is short or another process ends becomes one line.

    Raises:
      InputError: the devices' memory is too small.
      LostProcess: another process of the run has ended.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, TimeoutError) as error:
        text = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" in text:
            raise InputError(
                f"the memory of the device is too small ({text[:120]}); lower config.training.batch_size, raise "
                "config.training.accumulate, or set config.model.remat"
            ) from error
        if jax.process_count() == 1:
            raise
        raise LostProcess(
            "another process of this run has ended; start all of them again with the same command: the run resumes "
            f"from its last checkpoint ({text[:120]})"
        ) from error


@contextlib.contextmanager
def main_first(name: str) -> Iterator[None]:
    """Within it, the main process goes first and the others follow when it has finished."""
    if not is_main():
        barrier(name)
    yield
    if is_main():
        barrier(name)


def mesh() -> Mesh:
    """All devices of all hosts along one axis."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def check_batch(batch_size: int, *, accumulate: int = 1) -> None:
    """Raises InputError when the devices do not divide the batch, or a part of it that is computed at once.

    Args:
      batch_size: over all devices of all hosts.
      accumulate: parts that are computed one after the other.
    """
    unit = jax.device_count() * accumulate
    if batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        sizes = f"{below} or {above}" if below else str(above)
        parts = f" and {accumulate} parts" if accumulate > 1 else ""
        raise InputError(
            f"config.training.batch_size is {batch_size}; for {jax.device_count()} device(s){parts} it must be a "
            f"multiple of {unit}, such as {sizes}"
        )


def place(array: Any, *spec: str | None) -> jax.Array:
    """A host's array on the mesh, split along the axes that are named in `spec` and whole on every device otherwise.

    With many hosts, each gives its own part of an axis that is split, and the whole of all others.
    """
    return jax.make_array_from_process_local_data(NamedSharding(mesh(), PartitionSpec(*spec)), np.asarray(array))


def shard(array: np.ndarray) -> jax.Array:
    """Cases `[N,...]`, of which every device holds an equal part; filled up with zeros."""
    count = jax.device_count()
    rows = -(-len(array) // count)
    own = range(
        jax.process_index() * count // jax.process_count(), (jax.process_index() + 1) * count // jax.process_count()
    )
    filled = np.zeros((rows * len(own), *array.shape[1:]), array.dtype)
    part = array[own.start * rows : own.stop * rows]
    filled[: len(part)] = part
    return place(filled, AXIS)


def take(sharded: jax.Array, index: jax.Array) -> jax.Array:
    """`array[index]` of the cases that `shard` spread; the batch `[B]` is split over the devices as they are.

    Each device gives those of the whole batch that it holds, and gets its own part of it: what is sent is the batch,
    where XLA would gather all cases on every device.
    """

    def of_device(part: jax.Array, own_index: jax.Array) -> jax.Array:
        wanted = jax.lax.all_gather(own_index, AXIS, tiled=True) - jax.lax.axis_index(AXIS) * len(part)
        here = (wanted >= 0) & (wanted < len(part))
        cases = part[jnp.clip(wanted, 0, len(part) - 1)]
        cases = cases.astype(jnp.uint8) if part.dtype == jnp.bool_ else cases
        given = jnp.where(here.reshape(-1, *(1,) * (part.ndim - 1)), cases, jnp.zeros((), cases.dtype))
        return jax.lax.psum_scatter(given, AXIS, tiled=True).astype(part.dtype)

    along = PartitionSpec(AXIS)
    return jax.shard_map(of_device, mesh=mesh(), in_specs=(along, along), out_specs=along)(sharded, index)


def place_state(tree: Any) -> Any:
    """A pytree on every device; each host gives the whole of it."""
    whole = replicated()
    if jax.process_count() == 1:
        return jax.device_put(tree, whole)
    # what one host alone holds has to be shown to the others; what is everywhere already stays
    return jax.tree.map(lambda leaf: leaf if getattr(leaf, "sharding", None) == whole else place(leaf), tree)


def replicated() -> NamedSharding:
    """The whole of an array on every device."""
    return NamedSharding(mesh(), PartitionSpec())


def compile_chunk(
    chunk: Callable[..., Any],
    item_spec: PartitionSpec,
    *,
    store: NamedSharding,
    compiler_options: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """`chunk(state, store, items) -> (state, metrics)` over the mesh; the state's buffers are used again."""
    whole = replicated()
    return jax.jit(
        chunk,
        in_shardings=(whole, store, NamedSharding(mesh(), item_spec)),
        out_shardings=whole,
        donate_argnums=0,
        compiler_options=compiler_options,
    )


def over_replicas(function: Callable[..., Any], in_axes: tuple[Any, ...]) -> Callable[..., Any]:
    """`function` for every replica, in one program; arguments as in `jax.vmap`.

    XLA runs the grouped convolutions that `vmap` makes several times slower than separate ones on CPU (a step of five
    U-Nets of 8 to 64 features at 64 px: 1.75 s against 0.36 s), so there the replicas run one after the other.
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(function, in_axes)

    @functools.wraps(function)
    def one_by_one(*arguments: Any) -> Any:
        axes = zip(arguments, in_axes, strict=True)
        count = next(jax.tree.leaves(argument)[0].shape[0] for argument, axis in axes if axis == 0)
        pick = lambda argument, axis, i: argument if axis is None else jax.tree.map(lambda x: x[i], argument)
        results = [
            function(*(pick(argument, axis, i) for argument, axis in zip(arguments, in_axes, strict=True)))
            for i in range(count)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return one_by_one


def scan(body: Callable[..., Any], carry: Any, items: Any) -> tuple[Any, Any]:
    """`jax.lax.scan`, written out on CPU, where XLA runs the convolutions of a loop's body on one thread.

    A training step of a U-Net with 16 to 128 features took 7.0 s in a loop and 0.4 s outside on two cores. `unroll`
    does not help: what it writes out is still a computation of its own.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.scan(body, carry, items)
    outputs = []
    for i in range(jax.tree.leaves(items)[0].shape[0]):
        carry, output = body(carry, jax.tree.map(lambda x, i=i: x[i], items))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def device_memory() -> float:
    """Bytes that a device has, of which a CPU has all there are."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or host_memory()


def host_memory() -> int:
    """Bytes that this host has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def deterministic_options(wanted: bool) -> dict[str, Any]:
    """What `jax.jit(..., compiler_options=...)` needs for the same bits from every compilation and every run.

    On CPU and TPU nothing. On GPU, XLA then leaves out kernels that add in any order and does not choose between
    algorithms by timing them.
    """
    on_gpu = wanted and jax.default_backend() == "gpu"
    return {"xla_gpu_exclude_nondeterministic_ops": True, "xla_gpu_autotune_level": 0} if on_gpu else {}
