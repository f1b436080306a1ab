"""Speed and memory, measured side by side with the originals in one run; only ratios are worth quoting."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxseg.benchmarks import analyses, audit, augmentation, data, depths, replicas, training
from jaxseg.errors import InputError

_BENCHMARKS: dict[str, Callable[..., dict[str, Any]]] = {
    "analyses": analyses.run,
    "train": training.run,
    "replicas": replicas.run,
    "data": data.run,
    "depths": depths.run,
    "augmentation": augmentation.run,
    "audit": audit.run,
}


def run(name: str, *, rounds: int, steps: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of a benchmark: name -> row or rows.

    Args:
      name: of the benchmark.
      rounds: how often the sides of a comparison take turns.
      steps: what steps `augmentation` measures, as `augmentation.read_setting` takes them; none means the usual ones.

    Raises:
      InputError: steps that cannot be, or for another benchmark.
    """
    if steps and name != "augmentation":
        raise InputError(f"steps are those of the benchmark augmentation; leave them out for {name}")
    options = {"settings": [augmentation.read_setting(text) for text in steps]} if steps else {}
    return _BENCHMARKS[name](rounds=rounds, **options)


def text(result: dict[str, Any]) -> str:
    """The tables as aligned text."""
    lines = []
    for name, value in result.items():
        if isinstance(value, str):
            lines.append(f"{name}: {value}")
            continue
        rows = value if isinstance(value, list) else [value]
        columns = list(rows[0])
        cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["", name]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
