"""Cases in, batches out: no case is ever lost, and a training batch is a function of its step alone.

A batch has one shape. Where cases differ in size they are grouped by it, and every batch is of one group.
"""

import functools
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from jaxseg.data.pipeline.split import Case
from jaxseg.errors import InputError

Batch = dict[str, np.ndarray]
ARRAYS = ("image", "labels", "valid")


class Source(Protocol):
    """Cases that can be read in any order: `pipeline.Split`, `InMemory` and `Listed`.

    One whose cases differ in size has `sizes`, the spatial sizes of every case.
    """

    @property
    def name(self) -> str:
        """Named by errors."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Case: ...


def order(num_cases: int, *, batch_size: int, seed: int, start_step: int = 0) -> Iterator[np.ndarray]:
    """Endless batches of case indices, int32 `[B]`, reshuffled in every epoch.

    Batches continue across the end of an epoch, so every epoch has every case once and no case is dropped; a batch is
    a function of the arguments and its step alone, so that a checkpoint needs to hold the step alone.

    Args:
      num_cases: N.
      batch_size: B, at most N.
      seed: of the order.
      start_step: the first batch is the one of this step.
    """
    return read_ahead(shuffled(num_cases, batch_size, seed)[start_step:])


def shuffled(num_cases: int, batch_size: int, seed: int) -> Any:
    """The batches of `order` as a grain data set, which gives the batch of any step."""
    import grain

    indices = grain.MapDataset.range(num_cases).seed(seed).shuffle().repeat().map(np.int32)
    # An endless stream has no remainder; a length rounded up would, for single cases, not fit into an integer.
    return indices.batch(batch_size, drop_remainder=True)


def order_of(source: Source, batch_size: int, seed: int) -> Any:
    """The training batches of a source as a grain data set of indices `[B]`."""
    sizes = sizes_of(source)
    if sizes is None:
        return shuffled(len(source), batch_size, seed)
    import grain

    return grain.MapDataset.source(_Grouped(groups(sizes), batch_size, seed))


def sizes_of(source: Source) -> Sequence[tuple[int, ...]] | None:
    """The spatial sizes of every case; None where all are alike."""
    return getattr(source, "sizes", None)


def groups(sizes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The indices of the cases of every size, int32, sizes in the order of their first case."""
    members: dict[tuple[int, ...], list[int]] = {}
    for index, size in enumerate(sizes):
        members.setdefault(tuple(size), []).append(index)
    return [np.array(found, np.int32) for found in members.values()]


class _Grouped:
    """Endless batches, each of one group; a group has steps in proportion to its cases, and its own shuffled order.

    A case is seen once an epoch in the mean; a group with fewer cases than a batch repeats them within it.
    """

    def __init__(self, members: Sequence[np.ndarray], batch_size: int, seed: int):
        self._members, self._seed = members, seed
        self._orders = [shuffled(len(group), batch_size, seed) for group in members]
        # in as many steps as there are cases, a group has as many as it has cases
        self._shares = np.repeat(np.arange(len(members)), [len(group) for group in members])

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, step: int) -> np.ndarray:
        number, place = divmod(step, len(self._shares))
        chosen = self._block(number)
        group = chosen[place]
        earlier = number * int(np.count_nonzero(chosen == group)) + int(np.count_nonzero(chosen[:place] == group))
        return self._members[group][self._orders[group][earlier]]

    @functools.lru_cache(maxsize=8)  # noqa: B019  # lives as long as the run
    def _block(self, number: int) -> np.ndarray:
        """The groups of the steps of a block: in every block the same numbers of them, in another order."""
        return np.random.default_rng([self._seed, number]).permutation(self._shares)


def batches(
    source: Source, *, batch_size: int, seed: int, start_step: int = 0, part: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Endless training batches in the order of `order`, read ahead by two threads.

    Args:
      source: the cases.
      batch_size: B, at most the number of cases.
      seed: of the order.
      start_step: the first batch is the one of this step.
      part: `(i, P)`: only the i-th of P equal parts of every batch is read and yielded, as for one of P hosts.

    Yields:
      `{"image": [B/P,H,W,C], "labels": uint8 [B/P,H,W], "index": int32 [B/P]}`, and `valid` where the source has it;
      index is the case's place in `source`.

    Raises:
      InputError: there are fewer cases than the batch size, or it is not positive. Raised here, not by the iterator.
    """
    check_batch_size(source.name, len(source), batch_size)
    own = part_of_batch(batch_size, *part)
    return read_ahead(order_of(source, batch_size, seed)[start_step:].map(lambda index: stack(source, index[own])))


def check_batch_size(name: str, num_cases: int, batch_size: int) -> None:
    """Raises InputError when a batch has no case, or more than the `num_cases` of the split `name`."""
    _check_positive(batch_size)
    if num_cases < batch_size:
        raise InputError(
            f"{name}: has {num_cases} cases, fewer than the batch size {batch_size}; choose a batch size of "
            f"at most {num_cases}"
        )


def whole_batches(num_cases: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All case indices in order as batches of one size, int32 `[M,B]`, and which are not repetitions, bool `[M,B]`.

    The last batch is filled up with the last case.
    """
    _check_positive(batch_size)
    place = np.arange(-(-num_cases // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    return np.minimum(place, num_cases - 1), place < num_cases


def epoch_order(source: Source, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """`whole_batches` of a source: group by group where its cases differ in size."""
    sizes = sizes_of(source)
    if sizes is None:
        return whole_batches(len(source), batch_size)
    parts = [(group, *whole_batches(len(group), batch_size)) for group in groups(sizes)]
    return np.concatenate([group[place] for group, place, _ in parts]), np.concatenate([real for *_, real in parts])


def epoch(
    source: Source,
    *,
    batch_size: int,
    part: tuple[int, int] = (0, 1),
    first: int = 0,
    names: Collection[str] | None = ARRAYS,
) -> Iterator[Batch]:
    """Every case once, in the batches of `epoch_order`.

    Args:
      source: the cases.
      batch_size: B.
      part: as for `batches`.
      first: number of the first batch that is read.
      names: of the arrays of a case that a batch has; None: all, and where a case has an `index`, this is it.

    Yields:
      as `batches`, and `"real"`: bool `[B/P]`, False where a case is a repetition.

    Raises:
      InputError: the batch size is not positive. Raised here, not by the iterator.
    """
    import grain

    index, real = (array[:, part_of_batch(batch_size, *part)] for array in epoch_order(source, batch_size))
    indices = grain.MapDataset.range(first, len(index))
    return read_ahead(indices.map(lambda i: stack(source, index[i], names=names) | {"real": real[i]}))


def in_order(index: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The places of the cases 0, 1, ... in the rows of an epoch, from its indices and which of them are real."""
    places = np.flatnonzero(real.ravel())
    return places[np.argsort(index.ravel()[places], kind="stable")]


def _check_positive(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")


def part_of_batch(batch_size: int, number: int, parts: int) -> slice:
    """Which cases of a batch the part `number` of `parts` has."""
    size = batch_size // parts
    return slice(number * size, (number + 1) * size)


def stack(source: Source, index: np.ndarray, *, names: Collection[str] | None = ARRAYS) -> Batch:
    """The arrays of some cases, without the strings; `names` as for `epoch`."""
    cases = [source[i] for i in index]
    found = [name for name in (cases[0] if names is None else names) if name in cases[0]]
    return {"index": index} | {name: np.stack([case[name] for case in cases]) for name in found}


def read_ahead(dataset: Any) -> Iterator[Any]:
    """The elements of a grain data set, by two threads."""
    import grain

    # an element is a batch, or its indices, so the buffer is short: two being read, two waiting (grain's default is
    # 16 threads and 500 elements: seconds of work, during compilation)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
