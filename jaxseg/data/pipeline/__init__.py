"""Prepared data set in, batches out. A case is never lost, and a training batch is a function of its step alone."""

from jaxseg.data.pipeline.batches import (
    Batch,
    Source,
    batches,
    check_batch_size,
    epoch,
    epoch_order,
    groups,
    in_order,
    order,
    part_of_batch,
    sizes_of,
    whole_batches,
)
from jaxseg.data.pipeline.memory import (
    InMemory,
    Listed,
    in_memory,
    joined,
    listed,
    mapped,
    nowhere,
    on_one_grid,
)
from jaxseg.data.pipeline.split import Case, Preparation, Split, split_sizes

__all__ = [
    "Batch",
    "Case",
    "InMemory",
    "Listed",
    "Preparation",
    "Source",
    "Split",
    "batches",
    "check_batch_size",
    "epoch",
    "epoch_order",
    "groups",
    "in_memory",
    "in_order",
    "joined",
    "listed",
    "mapped",
    "nowhere",
    "on_one_grid",
    "order",
    "part_of_batch",
    "sizes_of",
    "split_sizes",
    "whole_batches",
]
