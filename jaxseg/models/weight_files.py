"""Files with weights -> tensors by name, without PyTorch."""

import os
import pathlib
import struct
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401  tells NumPy what safetensors calls bfloat16
import numpy as np
import safetensors.numpy

from jaxseg.errors import InputError
from jaxseg.models import state_dicts, torch_files

Tensors = dict[str, np.ndarray]
Reader = Callable[[BinaryIO, str | None], Tensors]
_ZIP = b"PK"
_PICKLE = b"\x80"
_KNOWN = "weights are read from .safetensors and .npz files and from what torch.save writes"
_SAFETENSORS = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
# the first bytes of other files with such names
_OTHERS = {
    b"version https://git-lfs": "is a pointer to a file of Git LFS; fetch the file itself with git lfs pull",
    b"<": "is a web page or XML; download the file itself",
    b"\x89HDF": "is an HDF5 file, as Keras writes them",
    b"\x1f\x8b": "is compressed by gzip; unpack it first",
}


def read(path: str | bytes | os.PathLike[str], *, key: str | None = None) -> Tensors:
    """The tensors of a file, by name.

    The content tells what a file is: `.safetensors`, `.npz`, or anything that `torch.save` wrote, under any name
    (`.pth`, `.pt`, `.ckpt`, `.bin`, `.pkl`, `.pth.tar`). There the tensors may be in a dict of dicts, next to other
    objects, or in a module; everything else is ignored and never unpickled. Among several state dicts, such as those of
    a student and a teacher, `key` chooses; a dict with less than half the largest one's tensors needs no choice.

    Args:
      path: of the file.
      key: of the state dict, such as `state_dict_ema`, with dots between keys of dicts in dicts; or what the names of
        the wanted tensors begin with. Empty for the tensors at the root, without copies such as those under `ema.`.

    Returns:
      Arrays in the stored types, some of them read-only. What DataParallel and `torch.compile` put before the names,
      `module.` and `_orig_mod.`, is dropped.

    Raises:
      InputError: another kind of file; a damaged one; one without tensors, with several state dicts and no key, or with
        tensors that are not plain arrays of real numbers.
    """
    return _asked(path, lambda file: state_dicts.unwrapped(_reader(file)(file, key)))


def notes(path: str | bytes | os.PathLike[str], names: Iterable[str]) -> dict[str, Any]:
    """What a file of `torch.save` says under some names, beside its tensors.

    Args:
      path: of the file.
      names: keys of its dict, such as `epoch`, with dots between those of dicts in dicts.

    Returns:
      Name -> text, number, bool, None, or a tuple of these. What is of another kind, or is not there, is left out,
      and so is everything where the file is of another format.

    Raises:
      InputError: as `read`.
    """

    def ask(file: BinaryIO) -> dict[str, Any]:
        if _reader(file) is not _read_torch:
            return {}
        content, _ = torch_files.load(file)
        found = {name: state_dicts.plain_value(content, name) for name in names}
        return {name: value for name, value in found.items() if value is not state_dicts.NOTHING}

    return _asked(path, ask)


def _asked(path: str | bytes | os.PathLike[str], ask: Callable[[BinaryIO], dict[str, Any]]) -> dict[str, Any]:
    """What `ask` says of the open file; its errors name the file."""
    path = pathlib.Path(os.fsdecode(path))
    try:
        with path.open("rb") as file:
            return ask(file)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or _line(error)}") from error
    except Exception as error:  # on damaged bytes, pickle and zipfile raise almost any error
        reason = f"{type(error).__name__}: {_line(error)}"
        raise InputError(f"{path}: damaged, or not a file of weights ({reason})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _reader(file: BinaryIO) -> Reader:
    start, size = file.read(64), file.seek(0, os.SEEK_END)
    file.seek(0)
    if not start:
        raise InputError("is empty")
    if start.startswith(_ZIP):
        return _read_npz if _holds_arrays(file) else _read_torch
    if start.startswith(_PICKLE):
        return _read_torch
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= size - 8:
        return _read_safetensors
    other = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), "is not a file of weights")
    raise InputError(f"{other}; {_KNOWN}")


def _holds_arrays(file: BinaryIO) -> bool:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    file.seek(0)
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_torch(file: BinaryIO, key: str | None) -> Tensors:
    content, fetch = torch_files.load(file)
    by_place = {place: state_dicts.unwrapped(tensors) for place, tensors in state_dicts.find(content).items()}
    return torch_files.arrays(state_dicts.choose(by_place, key), fetch)


def _read_safetensors(file: BinaryIO, key: str | None) -> Tensors:
    with safetensors.safe_open(file.name, "numpy") as stored:
        for name in stored.keys():  # noqa: SIM118  it is not a dict
            if (kind := stored.get_slice(name).get_dtype()) not in _SAFETENSORS:
                raise InputError(f"{name!r:.80} is stored as {kind}; store it as float32")
    return _chosen(safetensors.numpy.load_file(file.name), key)  # its `load` knows no bfloat16


def _read_npz(file: BinaryIO, key: str | None) -> Tensors:
    tensors = {}
    with np.load(file, allow_pickle=False) as stored:
        for name in stored.files:
            array = _plain(stored, name)
            if array is None or array.dtype.kind in "SU":
                continue
            if array.dtype.kind not in "biuf":  # np.savez garbles bfloat16
                raise InputError(f"{name!r:.80} holds no real numbers that NumPy knows; store it as float32")
            tensors[name] = array
    return _chosen(tensors, key)


def _plain(stored: Any, name: str) -> np.ndarray | None:
    """An array of the file; None for objects, which are never unpickled."""
    try:
        array = stored[name]
    except ValueError as error:
        if "Object arrays" in str(error):
            return None
        raise
    if not isinstance(array, np.ndarray):  # a member that is not an array comes as bytes
        raise InputError(f"{name!r:.80} is not an array")
    return array


def _chosen(tensors: Tensors, key: str | None) -> Tensors:
    if not tensors:
        raise InputError("holds no tensors")
    return state_dicts.choose({"": state_dicts.unwrapped(tensors)}, key)
