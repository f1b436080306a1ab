"""Files with weights -> tensors by name, without PyTorch.

A `.pth` file holds a pickle, and a pickle may name any function to call. So the unpickler here knows the few names that
a state dict needs and gives inert records for them; the records become arrays afterwards, each checked against its
storage.
"""

import collections
import functools
import io
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar, NamedTuple

import ml_dtypes  # also tells NumPy what safetensors calls bfloat16
import numpy as np
import safetensors.numpy

from jaxseg.errors import InputError

_ZIP = b"PK\x03\x04"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_REMEDY = "save the state dict alone: torch.save(model.state_dict(), path)"
_BIG_ENDIAN = "was saved on a big-endian machine; save it again on another"


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a file, by name.

    Args:
      path: `.safetensors`, `.npz`, or what `torch.save` wrote (`.pth` or `.pt`): a state dict, alone or in a dict under
        one of the keys `state_dict`, `model_state_dict`, `model`, `net`.

    Returns:
      Arrays in the stored types, some of them read-only. The prefix `module.` that DataParallel gives is dropped.

    Raises:
      InputError: another kind of file; a damaged one; one with other objects than tensors, which are never unpickled.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: weights are read from {', '.join(_READERS)} files only")
    try:
        with path.open("rb") as file:
            tensors = reader(file)
        if not tensors:
            raise InputError("holds no tensors")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or _line(error)}") from error
    except Exception as error:  # on damaged bytes, pickle and zipfile raise nearly anything
        reason = f"{type(error).__name__}: {_line(error)}"
        raise InputError(f"{path}: damaged, or not what a {path.suffix} file of weights holds ({reason})") from error
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): array for name, array in tensors.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(file.name)  # its `load` knows no bfloat16


def _read_npz(file: BinaryIO) -> dict[str, np.ndarray]:
    if file.read(4) != _ZIP:  # np.load would take it for a pickle and advise to trust it
        raise InputError("is no .npz file")
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        tensors = dict(stored)
    for name, array in tensors.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":  # np.savez garbles bfloat16
            raise InputError(f"{name!r:.80} holds no real numbers that NumPy knows; store it as float32")
    return tensors


class _Storage(NamedTuple):
    kind: str
    key: str
    numel: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Unpickler(pickle._Unpickler):
    """Knows the few names that a state dict needs, and calls nothing else.

    Derived from the unpickler written in Python: the other one can be led by ten bytes to fill 64 GiB. Without
    bytearrays, which are filled with zeros before their bytes are there. Without sets, and with dicts whose keys are
    strings or numbers: the hash of a nested tuple takes time that grows exponentially with its depth.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code not in b"".join([pickle.BYTEARRAY8, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.DICT])
    }

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        if not isinstance(target, dict) or any(type(key) not in (str, int) for key in keys):
            raise ValueError("a dict with keys that are neither strings nor numbers")
        target.update(zip(keys, items[1::2], strict=True))

    dispatch |= {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        # a pickle may set attributes of whatever it can name: built-in types refuse, functions are made anew
        match module, name:
            case "collections", "OrderedDict":
                return lambda: collections.OrderedDict()
            case "torch", "Size":
                return tuple
            case "torch", kind if kind in _DTYPES:
                return kind
            case "torch._utils", "_rebuild_tensor_v2":
                return lambda *args: _rebuild_tensor(*args)
            case "torch._utils", "_rebuild_parameter":
                return lambda tensor, requires_grad, hooks: tensor
        found = f"{module}.{name}"
        raise InputError(f"holds more than tensors, namely {found!r:.100}, which is not unpickled; {_REMEDY}")

    def persistent_load(self, pid: Any) -> _Storage:
        label, kind, key, _, numel, *view = pid
        if (
            label != "storage"
            or type(kind) is not str
            or kind not in _DTYPES
            or type(key) is not str
            or type(numel) is not int
            or any(view)
        ):
            raise ValueError("a storage of a kind that torch.save does not write")
        storage = _Storage(kind, key, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r:.40} has two types or sizes")
        return storage


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> _Tensor:
    if metadata:
        raise ValueError("a tensor with a pending negation or conjugation")
    return _Tensor(storage, offset, size, stride)


def _read_torch(file: BinaryIO) -> dict[str, np.ndarray]:
    is_zip = file.read(4) == _ZIP
    file.seek(0)
    return _read_torch_zip(file) if is_zip else _read_torch_stream(file.read())


def _read_torch_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    """The format since PyTorch 1.6: `<prefix>/data.pkl` and a member `<prefix>/data/<key>` per storage."""
    with zipfile.ZipFile(file) as archive:
        members, total = archive.infolist(), file.seek(0, os.SEEK_END)
        # a small file must not unpack to a large one
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > total:
            raise InputError("has compressed or overlapping members, which torch.save does not write")
        prefixes = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(prefixes) != 1:
            raise InputError("is a zip archive, but not one of torch.save, which has one data.pkl")
        prefix = prefixes[0]
        if f"{prefix}byteorder" in archive.namelist() and archive.read(f"{prefix}byteorder") != b"little":
            raise InputError(_BIG_ENDIAN)
        content = _Unpickler(io.BytesIO(archive.read(f"{prefix}data.pkl"))).load()
        return _arrays(_state_dict(content), lambda key: archive.read(f"{prefix}data/{key}"))


def _read_torch_stream(raw: bytes) -> dict[str, np.ndarray]:
    """The format before PyTorch 1.6: five pickles, then the number of elements and the bytes of each storage."""
    stream = io.BytesIO(raw)
    if _Unpickler(stream).load() != 0x1950A86A20F9469CFC6C or _Unpickler(stream).load() != 1001:
        raise InputError("is in neither of the two formats of torch.save")
    if _Unpickler(stream).load()["little_endian"] is not True:
        raise InputError(_BIG_ENDIAN)
    unpickler = _Unpickler(stream)
    content, keys, spans = unpickler.load(), _Unpickler(stream).load(), {}
    end = stream.tell()
    for key in keys:
        (numel,) = struct.unpack_from("<q", raw, end)
        start, end = end + 8, end + 8 + numel * _DTYPES[unpickler.storages[key].kind].itemsize
        if not start <= end <= len(raw):
            raise EOFError(f"storage {key!r:.40} goes beyond the end of the file")
        spans[key] = slice(start, end)
    return _arrays(_state_dict(content), lambda key: raw[spans[key]])


def _state_dict(content: object) -> dict[str, _Tensor]:
    """The one mapping of names to tensors in what was unpickled."""
    if _is_state_dict(content):
        return content  # type: ignore[return-value]
    entries = content if isinstance(content, dict) else {}
    inner = [entries[key] for key in _WRAPPERS if key in entries and _is_state_dict(entries[key])]
    if len(inner) == 1:
        return inner[0]
    found = [f"{key!r:.40}: {_kind(value)}" for key, value in entries.items() if isinstance(key, str)]
    what = f"a dict of {', '.join(found[:5])}{', ...' if found[5:] else ''}" if found else f"a {_kind(content)}"
    raise InputError(
        f"expected names and tensors, alone or under just one of {', '.join(_WRAPPERS)}; found {what}; {_REMEDY}"
    )


def _is_state_dict(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in value.items())


def _kind(value: object) -> str:
    return "tensor" if isinstance(value, _Tensor) else type(value).__name__


def _arrays(tensors: Mapping[str, _Tensor], fetch: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    fetch = functools.cache(fetch)  # tensors may share a storage
    return {name: _array(name, tensor, fetch) for name, tensor in tensors.items()}


def _array(name: str, tensor: _Tensor, fetch: Callable[[str], bytes]) -> np.ndarray:
    storage, offset, size, stride = tensor
    dtype, data = _DTYPES[storage.kind], fetch(storage.key)
    if len(data) != storage.numel * dtype.itemsize:
        raise ValueError(f"storage of {name!r:.80}: {len(data)} bytes for {storage.numel} elements of {dtype}")
    if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise ValueError(f"{name!r:.80} has no valid shape")
    if 0 in size:
        return np.empty(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= storage.numel:
        raise ValueError(f"{name!r:.80} reaches element {last} of a storage of {storage.numel}")
    steps = [step * dtype.itemsize for step in stride]
    return np.ndarray(size, dtype, data, offset * dtype.itemsize, steps)


_READERS: dict[str, Callable[[BinaryIO], dict[str, np.ndarray]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
}
