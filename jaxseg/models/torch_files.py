"""What `torch.save` wrote -> inert content, without PyTorch.

Such a file holds a pickle, and a pickle may name any function to call. The unpickler here imports nothing and calls
nothing that a pickle names: tensors become records, each checked against its storage when it becomes an array, and
whatever else there is, such as hyper-parameters or a whole module, becomes an object that says what it would have been.
"""

import dataclasses
import functools
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

from jaxseg.errors import InputError

REMEDY = "save the state dict alone: torch.save(model.state_dict(), path)"
_BIG_ENDIAN = "was saved on a big-endian machine; save it again on another"
_LONGEST_NAME = 1000
_STREAM = 0x1950A86A20F9469CFC6C  # begins the format before PyTorch 1.6
Fetch = Callable[[str], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A function or class that a pickle names; the parts are joined only when shown, as there may be many."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(eq=False, slots=True)
class Inert:
    """What a pickle would have created.

    Attributes:
      name: of the function or class; None where that was created, too.
      args: of the call.
      state: that it would have been given, such as the attributes of a module.
      items: that would have been set in it, if it is some kind of dict.
    """

    name: Name | None
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[str | int, Any] | None = None


SETS = (Name("builtins", "set"), Name("__builtin__", "set"))
ORDERED_DICT = Name("collections", "OrderedDict")


class Storage(NamedTuple):
    """The numbers of one or more tensors, all of a type such as torch.FloatStorage."""

    kind: Name
    key: str
    numel: int


class Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Unreadable(NamedTuple):
    """A tensor that is not a plain array of real numbers."""

    reason: str


_DTYPES: dict[Name, np.dtype] = {
    Name("torch", "FloatStorage"): np.dtype("<f4"),
    Name("torch", "DoubleStorage"): np.dtype("<f8"),
    Name("torch", "HalfStorage"): np.dtype("<f2"),
    Name("torch", "BFloat16Storage"): np.dtype(ml_dtypes.bfloat16),
    Name("torch", "LongStorage"): np.dtype("<i8"),
    Name("torch", "IntStorage"): np.dtype("<i4"),
    Name("torch", "ShortStorage"): np.dtype("<i2"),
    Name("torch", "CharStorage"): np.dtype("i1"),
    Name("torch", "ByteStorage"): np.dtype("u1"),
    Name("torch", "BoolStorage"): np.dtype("?"),
}
# of those that are ignored where they hold no wanted tensor
_OTHER_BYTES: dict[Name, int] = {
    Name("torch", "ComplexFloatStorage"): 8,
    Name("torch", "ComplexDoubleStorage"): 16,
    Name("torch", "QInt8Storage"): 1,
    Name("torch", "QUInt8Storage"): 1,
    Name("torch", "QInt32Storage"): 4,
    Name("torch.storage", "UntypedStorage"): 1,
}


class _Unpickler(pickle._Unpickler):
    """Makes dicts, lists, tuples, text, numbers, tensors and `Inert` objects, whatever is named.

    Derived from the unpickler written in Python: ten bytes can make the other one fill 64 GiB. Bytearrays are
    read as bytes, as they would be filled with zeros before their bytes are there. Nothing is hashed but text and
    numbers, as the hash of a nested tuple takes time that grows exponentially with its depth: sets are lists, and
    items under other keys are ignored.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Name:
        if len(module) + len(name) > _LONGEST_NAME:
            raise ValueError("a name that is too long for a function or class")
        return Name(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # a class, with its source text
            return pid[1]
        label, kind, key, _, numel, *view = pid
        if label != "storage" or not isinstance(kind, Name) or type(key) is not str or type(numel) is not int:
            raise ValueError("a storage of a kind that torch.save does not write")
        if any(view):
            raise ValueError("a storage of a kind that torch.save does not write, a view")
        storage = Storage(kind, key, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r:.40} has two types or sizes")
        return storage

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _called(self.stack[-1], args)

    def load_newobj(self) -> None:
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # arguments by keyword
        self.load_reduce()

    def _instantiate(self, named: Any, args: list[Any]) -> None:
        self.append(_called(named, tuple(args)))

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Inert):
            raise ValueError("not a list")

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict):
            raise ValueError("not a dict")
        pairs = zip(items[::2], items[1::2], strict=True)
        target.update((key, value) for key, value in pairs if type(key) in (str, int))

    def load_empty_set(self) -> None:
        self.append(Inert(SETS[0], ([],)))

    def load_additems(self) -> None:
        values, target = self.pop_mark(), self.stack[-1]
        if not isinstance(target, Inert) or target.name != SETS[0]:
            raise ValueError("not a set")
        target.args[0].extend(values)

    def load_frozenset(self) -> None:
        values = self.pop_mark()  # which replaces the stack
        self.append(Inert(SETS[0], (values,)))

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


def _called(named: Any, args: Any) -> Any:
    if not isinstance(args, tuple):
        raise ValueError("a call without arguments")
    if not isinstance(named, Name):
        return Inert(None, args)
    if named in _MADE:
        return _MADE[named](*args)
    if named.module == "torch._utils" and named.name.startswith("_rebuild_"):
        return Unreadable(
            _WHY_NOT.get(named.name, f"is made by {named!s:.80}, which is not known; store it as float32")
        )
    return Inert(named, args)


_WHY_NOT = {
    "_rebuild_qtensor": "is quantised; save the network as it was before, or each tensor's dequantize()",
    "_rebuild_sparse_tensor": "is sparse; save its to_dense()",
    "_rebuild_meta_tensor_no_storage": "has no numbers, as it was on the device meta",
}


def _ordered_dict(*args: Any) -> Any:
    return Inert(ORDERED_DICT, args) if args else {}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor | Unreadable:
    # after requires_grad and hooks come pending operations on the values
    if any(rest[2:]):
        return Unreadable("has a pending negation or conjugation; call resolve_neg() and resolve_conj() before saving")
    if not isinstance(storage, Storage):
        return Unreadable(f"has its numbers elsewhere, as after pickle.dump without torch.save; {REMEDY}")
    return Tensor(storage, offset, size, stride)


def _subclass_of_tensor(rebuild: Any, kind: Any, args: Any, state: Any) -> Any:
    return _called(rebuild, args)


_MADE: dict[Name, Callable[..., Any]] = {
    ORDERED_DICT: _ordered_dict,
    Name("torch", "Size"): lambda size: size,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    Name("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
    Name("torch._tensor", "_rebuild_from_type_v2"): _subclass_of_tensor,
}


def load(file: BinaryIO) -> tuple[Any, Fetch]:
    """The content of a file, and a function from a storage's key to its bytes, for as long as the file is open.

    Raises:
      InputError: not a file of torch.save. On damaged bytes almost any other error is raised.
    """
    is_zip = file.read(2) == b"PK"
    file.seek(0)
    return _load_zip(file) if is_zip else _load_stream(file.read())


def _load_zip(file: BinaryIO) -> tuple[Any, Fetch]:
    """The format since PyTorch 1.6: `<prefix>/data.pkl` and a member `<prefix>/data/<key>` per storage."""
    archive = zipfile.ZipFile(file)
    names = set(archive.namelist())
    prefixes = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(prefixes) != 1:
        raise InputError("is a zip archive, but not one of torch.save, which has one data.pkl")
    prefix = prefixes[0]
    if f"{prefix}constants.pkl" in names:
        raise InputError(
            "is a TorchScript program; save its tensors: torch.save(torch.jit.load(path).state_dict(), path)"
        )
    members, total = archive.infolist(), file.seek(0, os.SEEK_END)
    # a small file must not unpack to a large one
    if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > total:
        raise InputError("has compressed or overlapping members, which torch.save does not write")
    if f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder") != b"little":
        raise InputError(_BIG_ENDIAN)
    content = _Unpickler(io.BytesIO(archive.read(f"{prefix}data.pkl"))).load()
    return content, lambda key: archive.read(f"{prefix}data/{key}")


def _load_stream(raw: bytes) -> tuple[Any, Fetch]:
    """The format before PyTorch 1.6: five pickles, then the number of elements and the bytes of each storage."""
    stream = io.BytesIO(raw)
    first = _Unpickler(stream).load()
    if first != _STREAM:  # another program's pickle; it has no storages
        return first, _no_storage
    if _Unpickler(stream).load() != 1001:
        raise InputError("is in neither of the two formats of torch.save")
    if _Unpickler(stream).load()["little_endian"] is not True:
        raise InputError(_BIG_ENDIAN)
    unpickler = _Unpickler(stream)
    content, keys, spans = unpickler.load(), _Unpickler(stream).load(), {}
    end = stream.tell()
    for key in keys:
        (numel,) = struct.unpack_from("<q", raw, end)
        start, end = end + 8, end + 8 + numel * _bytes_each(unpickler.storages[key].kind)
        if not start <= end <= len(raw):
            raise EOFError(f"storage {key!r:.40} goes beyond the end of the file")
        spans[key] = slice(start, end)
    return content, lambda key: raw[spans[key]]


def _no_storage(key: str) -> bytes:
    raise InputError(f"has no storage {key!r:.40}; {REMEDY}")


def _bytes_each(kind: Name) -> int:
    if kind in _DTYPES:
        return _DTYPES[kind].itemsize
    if kind in _OTHER_BYTES:
        return _OTHER_BYTES[kind]
    raise InputError(f"has numbers of an unknown type, {kind!s:.80}; {REMEDY}")


def arrays(tensors: Mapping[str, Tensor | Unreadable], fetch: Fetch) -> dict[str, np.ndarray]:
    """The numbers of tensors; those that share a storage share memory.

    Raises:
      InputError: a tensor that is not a plain array of real numbers.
      ValueError: a tensor that does not fit its storage.
    """
    fetch = functools.cache(fetch)
    return {name: _array(name, tensor, fetch) for name, tensor in tensors.items()}


def _array(name: str, tensor: Tensor | Unreadable, fetch: Fetch) -> np.ndarray:
    if isinstance(tensor, Unreadable):
        raise InputError(f"the tensor {name!r:.80} {tensor.reason}")
    storage, offset, size, stride = tensor
    if storage.kind not in _DTYPES:
        raise InputError(f"the tensor {name!r:.80} holds no plain real numbers but a {storage.kind!s:.80}; {REMEDY}")
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
