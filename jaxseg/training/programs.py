"""What the loop runs on the devices: many training steps in one call, and a whole validation, for one run or several.

A program has `members`: one run, or replicas that are trained together and each give what a run of their own would.
Cases either stay on the devices and are read by index, or stream from disk or from the host's memory.
"""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxseg.data import pipeline
from jaxseg.data.grids import Patches
from jaxseg.data.patches import Sampler
from jaxseg.training import parallel
from jaxseg.training.state import TrainState
from jaxseg.training.steps import Batch, TrainStep

EvalStep = Callable[[Mapping[str, Any], Batch], jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """Some cases of a source in a fixed order.

    Attributes:
      source: where they are.
      index: their indices there, int32 `[N]`.
      patches: that training sees of them; None: they are seen whole.
      resident: whether the source is kept on the devices.
    """

    source: pipeline.InMemory | pipeline.Listed | pipeline.Split
    index: np.ndarray
    patches: Patches | None = None

    @property
    def name(self) -> str:
        """Of the source."""
        return self.source.name

    @property
    def sizes(self) -> Sequence[tuple[int, ...]] | None:
        """The spatial sizes of every case; None where all are alike."""
        sizes = pipeline.sizes_of(self.source)
        return None if sizes is None else [sizes[i] for i in self.index]

    @property
    def resident(self) -> bool:
        """Whether the source is arrays in memory, so that the devices can have it."""
        return isinstance(self.source, pipeline.InMemory)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> pipeline.Case:
        return self.source.read(int(self.index[number]))


@dataclasses.dataclass(frozen=True)
class Member:
    """One run: which cases it sees, in which order."""

    train: Cases
    validation: Cases
    seed: int


class Program:
    """Compiled training and validation of all members.

    Attributes:
      members: the runs, at least one.
    """

    def __init__(
        self,
        members: Sequence[Member],
        train_step: TrainStep,
        eval_step: EvalStep,
        *,
        batch_size: int,
        layout: str = "jit",
        sharded: bool = False,
        whole_cases: Callable[[Mapping[str, Any], Cases], np.ndarray] | None = None,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        """Compiles nothing yet.

        Args:
          members: the runs; several only where their cases are in memory.
          train_step: `(state, stored batch) -> (state, metrics)`; under `pmap` made for the axis `parallel.AXIS`.
          eval_step: `(variables, stored batch) -> [B,...]`.
          batch_size: of a member, over all devices of all hosts.
          layout: `jit` or `pmap`.
          sharded: every device holds a part of the cases in memory, instead of all of them; for one run, under `jit`.
          whole_cases: `(variables, cases) -> [N,...]` of validation cases of any size, instead of `eval_step`.
          compiler_options: for XLA, of the training program.
        """
        self.members = tuple(members)
        self._batch_size = batch_size
        self._whole_cases = whole_cases
        self._pmap = layout == "pmap"
        options = dict(compiler_options or {})
        self._resident = self.members[0].train.resident
        # folds share one source, which is then on the devices once
        sources = {id(source.source): source.source for m in self.members for source in (m.train, m.validation)}
        self._stores = {key: _store(source, sharded) for key, source in sources.items()}
        take = parallel.take if sharded else operator.getitem
        step: Callable[..., Any] = functools.partial(_on_cases, train_step, take)
        evaluate: Callable[..., Any] = functools.partial(_on_cases, eval_step, take)
        if len(self.members) > 1:
            step = parallel.over_replicas(step, (None, 0, 0))
            evaluate = parallel.over_replicas(evaluate, (None, 0, 0))

        def chunk(state: TrainState, store: Any, items: Any) -> tuple[TrainState, dict[str, jax.Array]]:
            return parallel.scan(lambda state, item: step(store, state, item), state, items)

        cases = (None,) * (len(self.members) > 1)  # axes before that of the cases of a batch
        self._item_spec, self._eval_spec = (None, *cases, parallel.AXIS), (*cases, parallel.AXIS)
        whole = parallel.replicated()
        stored = NamedSharding(parallel.mesh(), PartitionSpec(parallel.AXIS)) if sharded else whole
        if self._pmap:
            axes: Any = {"in_axes": (0, None, 1), "out_axes": 0}
            self._run = jax.pmap(chunk, axis_name=parallel.AXIS, donate_argnums=0, **axes)
        else:
            spec = PartitionSpec(*self._item_spec)
            self._run = parallel.compile_chunk(chunk, spec, store=stored, compiler_options=options)
        self._evaluate = jax.jit(
            lambda store, variables, item: evaluate(store, variables, item),
            in_shardings=(stored, whole, NamedSharding(parallel.mesh(), PartitionSpec(*self._eval_spec))),
            out_shardings=whole,
        )
        self._split = jax.jit(lambda tree, i: jax.tree.map(lambda x: x[i], tree), out_shardings=whole)

    def join(self, states: Sequence[TrainState]) -> TrainState:
        """The states of the members, as the devices hold them."""
        if self._pmap:
            copies = jax.device_count()
            spread = NamedSharding(parallel.mesh(), PartitionSpec(parallel.AXIS))
            copy = lambda tree: jax.tree.map(lambda x: jnp.broadcast_to(x[None], (copies, *x.shape)), tree)
            return jax.jit(copy, out_shardings=spread)(states[0])
        if len(states) == 1:
            return parallel.place_state(states[0])
        stack = lambda *trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        return jax.jit(stack, out_shardings=parallel.replicated())(*map(parallel.place_state, states))

    def split(self, state: TrainState) -> list[TrainState]:
        """The state of every member."""
        if len(self.members) == 1 and not self._pmap:
            return [state]
        return [self._split(state, np.int32(i)) for i in range(len(self.members))]

    def items(self, start_step: int) -> Iterator[Any]:
        """What `run` takes for every step from `start_step` on: indices of cases, or the cases."""
        orders = [self._order(member, start_step) for member in self.members]
        if len(orders) == 1:
            return orders[0]
        return (np.stack(step) for step in zip(*orders, strict=True))

    def run(self, state: TrainState, items: Sequence[Any]) -> tuple[TrainState, dict[str, jax.Array]]:
        """As many steps as there are `items`, begun; metrics have the shape `[steps, members, ...]`, once fetched.

        The buffers of `state` are used again.
        """
        calls = [list(alike) for _, alike in itertools.groupby(items, _shape)]
        parts = []
        for call in calls:
            state, metrics = self._call(state, call)
            parts.append(metrics)
        if len(parts) == 1:
            return state, parts[0]
        return state, {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _call(self, state: TrainState, items: Sequence[Any]) -> tuple[TrainState, dict[str, jax.Array]]:
        """`run` of batches of one shape."""
        stacked = jax.tree.map(lambda *parts: np.stack(parts), *items)
        store = self._stores[id(self.members[0].train.source)]
        if self._pmap:
            spread = lambda x: x.reshape(len(items), jax.device_count(), -1, *x.shape[2:])
            state, metrics = self._run(state, store, jax.tree.map(spread, stacked))
            metrics = {name: value[0] for name, value in metrics.items()}
        else:
            placed = jax.tree.map(lambda x: parallel.place(x, *self._item_spec), stacked)
            state, metrics = self._run(state, store, placed)
        return state, metrics

    def fetch(self, metrics: dict[str, jax.Array]) -> dict[str, np.ndarray]:
        """Metrics of `run` on this host, `[steps, members, ...]`; waits for them."""
        fetched = jax.device_get(metrics)
        return fetched if len(self.members) > 1 else {name: value[:, None] for name, value in fetched.items()}

    def evaluate(self, state: TrainState) -> list[np.ndarray]:
        """What `eval_step` gives for every validation case of every member, `[N,...]` each."""
        if self._pmap:
            state = self.split(state)[0]
        if self._whole_cases:
            return [self._whole_cases(state.variables, self.members[0].validation)]
        variables = state.variables
        store = self._stores[id(self.members[0].validation.source)]
        scores = []
        for item in self._validation_items():
            placed = jax.tree.map(lambda x: parallel.place(x, *self._eval_spec), item)
            scores.append(self._evaluate(store, variables, placed))
        stacked = np.concatenate(jax.device_get(scores), 1 if len(self.members) > 1 else 0)
        if len(self.members) == 1:
            order = pipeline.in_order(*pipeline.epoch_order(self.members[0].validation, self._batch_size))
            return [stacked[order]]
        # after the cases there are only repetitions of the last one, which fill up the last batches
        return [rows[: len(m.validation)] for rows, m in zip(stacked, self.members, strict=True)]

    def _order(self, member: Member, start_step: int) -> Iterator[Any]:
        options = {"batch_size": self._batch_size, "seed": member.seed, "start_step": start_step}
        if not self._resident:
            part = (jax.process_index(), jax.process_count())
            if grid := member.train.patches:
                sides = grid.example(member.train[0]["labels"].ndim)
                return Sampler(member.train, sides=sides, foreground=grid.foreground).batches(part=part, **options)
            return pipeline.batches(member.train, part=part, **options)
        order = pipeline.order(len(member.train), **options)
        own = pipeline.part_of_batch(self._batch_size, jax.process_index(), jax.process_count())
        return (member.train.index[batch][own] for batch in order)

    def _validation_items(self) -> Iterator[Any]:
        part = (jax.process_index(), jax.process_count())
        if not self._resident:
            for batch in pipeline.epoch(self.members[0].validation, batch_size=self._batch_size, part=part):
                yield {name: value for name, value in batch.items() if name != "real"}
            return
        longest = max(len(member.validation) for member in self.members)
        batches, _ = pipeline.whole_batches(longest, self._batch_size)
        own = pipeline.part_of_batch(self._batch_size, *part)
        for batch in batches:
            chosen = [m.validation.index[np.minimum(batch, len(m.validation) - 1)][own] for m in self.members]
            yield np.stack(chosen) if len(chosen) > 1 else chosen[0]


def _store(source: pipeline.InMemory | pipeline.Listed | pipeline.Split, sharded: bool) -> dict[str, jax.Array]:
    """A source in memory on the devices, as it is stored; nothing of one on disk."""
    if not isinstance(source, pipeline.InMemory):
        return {}
    return {name: (parallel.shard if sharded else parallel.place)(array) for name, array in source.arrays.items()}


def _shape(item: Any) -> tuple[int, ...]:
    """What the programs of batches differ in."""
    return item["image"].shape if isinstance(item, Mapping) else ()


def _on_cases(step: Callable[..., Any], take: Callable[..., Any], store: Any, first: Any, item: Any) -> Any:
    """`step(first, batch)`, where `item` is the batch, or the indices of its cases, by which `take` reads the store."""
    if not isinstance(item, Mapping):
        item = {name: take(array, item) for name, array in store.items()} | {"index": item}
    return step(first, item)
