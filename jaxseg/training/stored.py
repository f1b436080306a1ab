"""The bytes of one checkpoint: read under their own dtypes, sealed when known to be good, proven to be damaged.

A seal holds a digest of every file of a checkpoint. With it, whether the files are what was written does not depend on
what a library of another version, a full memory or another network makes of them.
"""

import errno
import hashlib
import importlib.metadata
import io
import json
import math
import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
import tensorstore

_ARRAYS = ("jax.Array", "np.ndarray", "scalar")
_SEAL = "seal.json"
_VALUES = "values/metadata"
_TREE = "state/_METADATA"
_WRITER = "orbax-checkpoint"
UNDEFINED = -1e300  # the score in orbax's own file of a step that was not validated, or has no defined Dice

# what the system says, in libraries' words: room, rights, descriptors, names, memory, a server that is gone
_CODES = ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EMFILE", "ENFILE", "EACCES", "EPERM", "ESTALE", "EIO", "ENOMEM"]
_CODES += ["EAGAIN", "EBUSY", "EINTR", "ELOOP", "ENAMETOOLONG", "ENODEV", "ENOLCK", "ENOTCONN", "ENXIO", "ETIMEDOUT"]
_SYSTEM = tuple(os.strerror(getattr(errno, code)) for code in _CODES)
# tensorstore raises ValueError for nearly everything; with these codes it is not about the bytes that it was given
_NO_PROOF = re.compile(
    "ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|PERMISSION_DENIED|RESOURCE_EXHAUSTED|UNAUTHENTICATED|UNAVAILABLE"
    "|UNIMPLEMENTED|UNKNOWN"
)


class Changed(Exception):
    """A part of a checkpoint is not what was saved; the message says which."""


def by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their paths; names are the same in a part of a state as in the whole."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def score(step: pathlib.Path) -> float | None:
    """What a checkpoint's state scored; None where that is undefined, or unknown as its own file is damaged.

    It is one of the values. Earlier versions left it to orbax, and in the progress of the run.

    Raises:
      Exception: the values cannot be read.
    """
    held = values(step)
    if "score" in held:
        return _number(held["score"])
    progress = held["values"].get("progress", {})
    if "best_step" in progress:
        return _number(progress["best"]) if progress["best_step"] == int(step.name) else None
    try:
        return _number(json.loads(_content(step, "metrics/metrics"))["score"])
    except (OSError, ValueError, LookupError, TypeError, Changed):
        return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and UNDEFINED < value < math.inf else None


def values(step: pathlib.Path) -> dict[str, Any]:
    """`{"values", "checksums", "score"}` of a checkpoint; of an earlier version, without a score.

    Raises:
      Changed: they are not what was sealed.
      OSError, ValueError: they cannot be read.
    """
    return json.loads(_content(step, _VALUES))


def _content(step: pathlib.Path, key: str) -> bytes:
    """Of a small file; raises Changed where the seal proves it wrong."""
    content = (step / key).read_bytes()
    digests = _sealed(step)
    if digests and digests.get(key) != _digest(io.BytesIO(content)):
        raise Changed(f"{key} is not what was written")
    return content


def arrays(step: pathlib.Path, *, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint by name, on the host, with the dtypes that they were written with; keys as their words.

    tensorstore is asked directly: orbax's own reading gives up at the first error and leaves the rest to a closed event
    loop, which complains on stderr.

    Args:
      step: folder of the checkpoint, under a name that no library expands.
      wanted: names; those that are not there are left out. None means all.
    """
    context = tensorstore.Context()
    opened = {
        key: tensorstore.open(spec, read=True, context=context)
        for key, spec in _specs(step).items()
        if wanted is None or key in wanted
    }
    begun = {key: array.result().read() for key, array in opened.items()}
    return {key: np.asarray(array.result()) for key, array in begun.items()}


def _specs(step: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What tensorstore needs to know of each array of the tree that orbax describes."""
    try:
        described = json.loads(_content(step, _TREE))
        # the other entries of the tree are empty parts
        entries = described["tree_metadata"].values()
        arrays = [entry for entry in entries if entry["value_metadata"]["value_type"] in _ARRAYS]
        paths = [[str(key["key"]) for key in entry["key_metadata"]] for entry in arrays]
        return {"/".join(parts): _spec(step / "state", described, ".".join(parts)) for parts in paths}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Changed(f"{_TREE} cannot be decoded") from error


def _spec(state: pathlib.Path, described: Mapping[str, Any], array: str) -> dict[str, Any]:
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}, "path": f"{array}/"}
    return {"driver": "zarr3" if described.get("use_zarr3") else "zarr", "kvstore": store}


def checksum(x: np.ndarray) -> int:
    """As `checkpoints.checksums` computes it on the device."""
    words = np.ravel(x).view(f"uint{8 * min(x.dtype.itemsize, 4)}").astype(np.uint32)
    words *= 2 * np.arange(words.size, dtype=np.uint32) + 1
    return int(np.sum(words, dtype=np.uint32))


def check(
    read: Mapping[str, np.ndarray], checksums: Mapping[str, int], *, wanted: Collection[str] | None = None
) -> None:
    """Raises Changed when one of the arrays is not what was saved, or is not there.

    Args:
      read: the arrays, by name.
      checksums: of all arrays that were saved.
      wanted: names of what was to be read; None means all.
    """
    for key, expected in checksums.items():
        if key not in read:
            if wanted is None or key in wanted:
                raise Changed(f"{key} is not there")
        elif expected != checksum(read[key]):
            raise Changed(f"{key} is not what was saved")
    if unknown := sorted(read.keys() - checksums.keys()):
        raise Changed(f"{unknown[0]} has no checksum")


def seal(step: pathlib.Path) -> None:
    """Notes a digest of every file of a checkpoint that is known to be good, and one of these digests."""
    digests = {}
    for path in sorted(path for path in step.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digests[str(path.relative_to(step))] = _digest(file)
    # truncated by a kill, or damaged itself, it counts as none
    (step / _SEAL).write_text(json.dumps({**digests, _SEAL: _of_digests(digests)}, indent=0) + "\n")


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
            with (step / key).open("rb") as file:
                if _digest(file) != digest:
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


def reason_of_system(text: str) -> str | None:
    """What the system said, within the long text that a library made of it."""
    return next((words for words in _SYSTEM if words in text), None)


def _unsealed_damage(step: pathlib.Path, error: Exception) -> str | None:
    """The same of a checkpoint of an earlier version, or of one whose process was killed right after its save."""
    for path in step.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                _digest(file)  # raises where the file cannot be read here
    for key in (_VALUES, _TREE, "state/manifest.ocdbt"):
        if not (step / key).is_file():
            return f"{key} is missing"
    try:
        held = values(step)
        readable = isinstance(held["values"], dict) and isinstance(held["checksums"], dict)
    except (ValueError, LookupError, TypeError):
        readable = False
    if not readable:
        return f"{_VALUES} holds no values"
    if isinstance(error, OSError | MemoryError) or other_writer(step):
        return None
    if isinstance(error, Changed):
        return str(error)
    text = str(error)
    blameless = reason_of_system(text) or _NO_PROOF.match(text)
    return "its arrays cannot be decoded" if isinstance(error, ValueError) and not blameless else None


def _sealed(step: pathlib.Path) -> dict[str, str] | None:
    """The digest of each file; None where there is no intact seal."""
    try:
        digests = json.loads((step / _SEAL).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(digests, dict) and digests.pop(_SEAL, None) == _of_digests(digests)
    return digests if whole else None


def _of_digests(digests: Mapping[str, str]) -> str:
    return _digest(io.BytesIO(json.dumps(digests, sort_keys=True).encode()))


def _digest(file: io.BufferedIOBase) -> str:
    return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
