"""What the builders of image data sets share: the features of a case, and how cases become shards."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from jaxseg.data.builders import files

T = TypeVar("T")
Example = dict[str, Any]

_Example: Any = tf_example_pb2.Example

# The cases of one shard are held in memory while it is written.
CASES_PER_SHARD = 100


class Builder(tfds.core.ShardBasedBuilder):
    """Base of all our builders: its cases are encoded bytes, so nothing here needs TensorFlow.

    `GeneratorBasedBuilder` would gather a whole split in memory and, above 1000 MiB and whatever the number of shards,
    spill it through TensorFlow. Shard by shard, a split may have any size and keeps its order.
    """

    # We download nothing. TFDS would look for checksums, for which it imports importlib_resources without requiring it.
    url_infos = None

    def _example_writer(self) -> Any:
        return _SortedWriter(super()._example_writer())


class _SortedWriter:
    """Sorts the features of every record: every process would order them anew, and the same data be other bits."""

    def __init__(self, writer: Any):
        self._writer = writer

    def write(self, path: Any, examples: Iterable[tuple[str, bytes]]) -> Any:
        parsed = ((key, _Example.FromString(example)) for key, example in examples)
        return self._writer.write(
            path, ((key, example.SerializeToString(deterministic=True)) for key, example in parsed)
        )


def info(
    builder: tfds.core.DatasetBuilder, class_names: Sequence[str], *, channels: int, encoding: str
) -> tfds.core.DatasetInfo:
    """Describes cases of one image and its labels.

    Args:
      builder: of the data set.
      class_names: the background first; the prepared folder keeps them.
      channels: C, 1 or 3.
      encoding: of the images, png or jpeg; labels are PNG.
    """
    return tfds.core.DatasetInfo(
        builder=builder,
        features=tfds.features.FeaturesDict(
            {
                "case": tfds.features.Text(),
                "patient": tfds.features.Text(),
                "image": tfds.features.Image(shape=(None, None, channels), encoding_format=encoding),
                "labels": tfds.features.LabeledImage(
                    labels=list(class_names), shape=(None, None, 1), encoding_format="png"
                ),
            }
        ),
    )


def shards(
    store: Callable[[T], Example], cases: Sequence[T], description: str, *, threads: bool = True
) -> list[Callable[[], Iterator[tuple[str, Example]]]]:
    """One generator per shard, as `Builder` wants them; the cases keep their order.

    Args:
      store: what is stored of a case.
      cases: of one split.
      description: shown by the progress bar.
      threads: whether `store` spends its time where the interpreter's lock is free.
    """

    def write(first: int) -> Iterator[tuple[str, Example]]:
        part = cases[first : first + CASES_PER_SHARD]
        if threads:
            examples = files.in_threads(store, part, description, first=first, total=len(cases))
        else:
            examples = files.progress(map(store, part), description, first, len(cases))
        for example in examples:
            yield example["case"], example

    return [functools.partial(write, first) for first in range(0, len(cases), CASES_PER_SHARD)]
