"""The bytes of one checkpoint: read under their own dtypes, sealed when known to be good, proven to be damaged.

A seal holds a digest of every file of a checkpoint. With it, whether the files are what was written does not depend on
what a library of another version, a full memory or another network makes of them.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
import tensorstore

_ARRAYS = ("jax.Array", "np.ndarray", "scalar")
_SEAL = "seal.json"
_WRITER = "orbax-checkpoint"
# what tensorstore says of bytes that it cannot decode or that are not there; it raises ValueError for nearly everything
_UNDECODABLE = re.compile("DATA_LOSS|NOT_FOUND|OUT_OF_RANGE|INVALID_ARGUMENT|FAILED_PRECONDITION")


class Changed(Exception):
    """An array is not what was saved; the message says which."""


def name(path: Any) -> str:
    """Of an array by its path in a pytree; the same for a part of a state as for the whole."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def score(step: pathlib.Path) -> Any:
    """What orbax reads as the metrics of a step; None without."""
    try:
        return json.loads((step / "metrics" / "metrics").read_bytes())
    except FileNotFoundError:
        return None


def values(step: pathlib.Path) -> dict[str, Any]:
    """`{"values", "checksums"}` of a checkpoint."""
    return json.loads((step / "values" / "metadata").read_bytes())


def arrays(step: pathlib.Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint by name, on the host, with the dtypes that they were written with; keys as their words.

    tensorstore is asked directly: orbax's own reading gives up at the first error and leaves the rest to a closed event
    loop, which complains on stderr.

    Args:
      step: folder of the checkpoint, under a name that no library expands.
      wanted: names; those that are not there are left out. None means all.
    """
    described = json.loads((step / "state" / "_METADATA").read_bytes())
    context = tensorstore.Context()
    opened = {}
    for parts in _paths(described):
        if wanted is None or "/".join(parts) in wanted:
            spec = _spec(step / "state", described, ".".join(parts))
            opened["/".join(parts)] = tensorstore.open(spec, read=True, context=context)
    begun = {key: array.result().read() for key, array in opened.items()}
    return {key: np.asarray(array.result()) for key, array in begun.items()}


def _paths(described: Mapping[str, Any]) -> list[list[str]]:
    """Of the arrays of the tree that orbax describes; its other entries are empty parts."""
    entries = described["tree_metadata"].values()
    arrays = [entry for entry in entries if entry["value_metadata"]["value_type"] in _ARRAYS]
    return [[str(key["key"]) for key in entry["key_metadata"]] for entry in arrays]


def _spec(state: pathlib.Path, described: Mapping[str, Any], array: str) -> dict[str, Any]:
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}, "path": f"{array}/"}
    return {"driver": "zarr3" if described.get("use_zarr3") else "zarr", "kvstore": store}


def checksum(x: np.ndarray) -> int:
    """As `checkpoints.checksums` computes it on the device."""
    words = np.ravel(x).view(f"uint{8 * min(x.dtype.itemsize, 4)}").astype(np.uint32)
    words *= 2 * np.arange(words.size, dtype=np.uint32) + 1
    return int(np.sum(words, dtype=np.uint32))


def check(found: Mapping[str, np.ndarray], checksums: Mapping[str, int]) -> None:
    """Raises Changed when one of the arrays is not what was saved."""
    for key, x in found.items():
        if checksums[key] != checksum(x):
            raise Changed(f"{key} is not what was saved")


def seal(step: pathlib.Path) -> None:
    """Notes a digest of every file of a checkpoint that is known to be good."""
    digests = {str(path.relative_to(step)): _digest(path) for path in sorted(step.rglob("*")) if path.is_file()}
    (step / _SEAL).write_text(json.dumps(digests, indent=0) + "\n")  # cut short by a kill, it counts as none


def damage(step: pathlib.Path, error: Exception) -> str | None:
    """What proves that the bytes of a checkpoint are not what was written; None without proof.

    Args:
      step: its folder.
      error: what was raised when it was read.
    """
    try:
        digests = _sealed(step)
        if digests is None:
            return _unsealed_damage(step, error)
        for key, digest in digests.items():
            if not (step / key).is_file():
                (step / key).parent.stat()  # raises where the folder is what cannot be reached
                return f"{key} is missing"
            if _digest(step / key) != digest:
                return f"{key} is not what was written"
    except FileNotFoundError as missing:
        return f"{pathlib.Path(missing.filename).relative_to(step)} is missing" if step.is_dir() else None
    except (OSError, MemoryError):
        return None
    return None


def other_writer(step: pathlib.Path) -> tuple[str, str] | None:
    """The version of orbax that wrote a checkpoint, and the one that is here, if they differ."""
    try:
        written = values(step)["values"]["versions"][_WRITER]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    here = importlib.metadata.version(_WRITER)
    return (written, here) if written != here else None


def _unsealed_damage(step: pathlib.Path, error: Exception) -> str | None:
    """The same of a checkpoint of an earlier version, or of one whose process was killed right behind its save."""
    for path in step.rglob("*"):
        if path.is_file():
            _digest(path)  # raises where the file cannot be read here
    for key in ("values/metadata", "state/_METADATA", "state/manifest.ocdbt"):
        if not (step / key).is_file():
            return f"{key} is missing"
    try:
        values(step)["checksums"]
    except (ValueError, KeyError, TypeError):
        return "values/metadata holds no values"
    if isinstance(error, OSError | MemoryError) or other_writer(step):
        return None
    if isinstance(error, Changed):
        return str(error)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return "state/_METADATA cannot be decoded"
    return "its arrays cannot be decoded" if _UNDECODABLE.match(str(error)) else None


def _sealed(step: pathlib.Path) -> dict[str, str] | None:
    try:
        digests = json.loads((step / _SEAL).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return digests if isinstance(digests, dict) else None


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
