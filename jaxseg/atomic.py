"""Files that are there whole or not at all: bytes, JSON, CSV."""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxseg.errors import InputError

PathLike = str | os.PathLike[str]


def write_csv(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as UTF-8 CSV.

    The columns are the union of all keys, in the order in which they first appear. Floats get 6 significant digits;
    NaN, None and missing keys become empty cells, booleans `true` and `false`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = columns(rows)
    writer.writerow(keys)
    writer.writerows([_cell(row.get(key)) for key in keys] for row in rows)
    replace(path, _encoded(text.getvalue()))


def write_json(path: PathLike, value: Any, *, sort_keys: bool = False) -> None:
    """Writes JSON, indented by 2, keys in their order or sorted.

    NaN and infinities become null (JSON has neither); numpy and JAX scalars and arrays, tuples, dataclasses and paths
    become what JSON has for them. Raises TypeError for anything else.
    """
    text = json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False, sort_keys=sort_keys)
    replace(path, _encoded(f"{text}\n"))


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The union of the keys of all rows, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def replace(path: PathLike, content: bytes) -> None:
    """Writes a file at once: readers see the old content or all of the new one. Creates the parent folders."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another name for every writer, in the same folder: a rename is atomic only within one file system. Not the file's
    # own with something more, which could be too long.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as partial:
        try:
            partial.write(content)
            partial.close()
            os.chmod(partial.name, 0o666 & ~_umask())  # temporary files are private, results are not
            os.replace(partial.name, path)
        except BaseException:
            os.unlink(partial.name)
            raise


@contextlib.contextmanager
def writing(workdir: pathlib.Path) -> Iterator[None]:
    """Turns an error of writing there into an InputError that says what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or workdir}: cannot be written ({error.strerror}); free it, and repeat"
        ) from error


def scalar(value: Any) -> Any:
    """Numpy and JAX scalars (arrays of rank 0) as Python numbers; everything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _encoded(text: str) -> bytes:
    """UTF-8, with `\\udcff` for bytes of a file name that are none."""
    return text.encode("utf-8", "backslashreplace")


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _cell(value: Any) -> str:
    value = scalar(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    value = scalar(value)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return _plain(value.tolist()) if hasattr(value, "tolist") else value
