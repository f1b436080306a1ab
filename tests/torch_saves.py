"""What torch.save writes, in both of its formats, without PyTorch."""

import pickle
import struct
import zipfile

import numpy as np


class Global(str):
    """`module name`, by which a pickle names a function or class."""


class Call(tuple):
    """A function and its arguments."""


class Persistent(tuple):
    """A persistent id."""


class Build(tuple):
    """An object and the state that it is given."""


class NewObject(tuple):
    """A class and the arguments of its `__new__`."""


class Items(tuple):
    """An object and the items that are set in it."""


def encode(value):
    """The opcodes of a value, in protocol 2."""
    match value:
        case Global():
            return b"c" + value.replace(" ", "\n").encode() + b"\n"
        case Call():
            return encode(value[0]) + encode(tuple(value[1:])) + b"R"
        case Persistent():
            return encode(tuple(value)) + b"Q"
        case NewObject():
            return encode(value[0]) + encode(tuple(value[1:])) + b"\x81"
        case Items():
            return encode(value[0]) + encode(value[1])[1:]
        case Build():
            return encode(value[0]) + encode(value[1]) + b"b"
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(encode(part) for pair in value.items() for part in pair) + b"u"
    return pickle.dumps(value, 2)[2:-1]  # without the header and the end


def dump(value):
    return b"\x80\x02" + encode(value) + b"."


def storage(kind, key, numel):
    return Persistent(("storage", Global(f"torch {kind}Storage"), key, "cpu", numel))


def tensor(stored, size, stride, offset=0):
    hooks = Call((Global("collections OrderedDict"),))
    return Call((Global("torch._utils _rebuild_tensor_v2"), stored, offset, size, stride, False, hooks))


def write_zip(path, content, storages, *, byteorder=b"little", compression=zipfile.ZIP_STORED, pickled=None):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", dump(content) if pickled is None else pickled)
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", np.asarray(data).tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def write_stream(path, content, storages, *, little_endian=True):
    def persistent(value):  # here a storage's id has a sixth part
        match value:
            case Persistent():
                return Persistent((*value, None))
            case dict():
                return {key: persistent(part) for key, part in value.items()}
            case tuple() | list():
                return type(value)(map(persistent, value))
        return value

    info = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    heads = (0x1950A86A20F9469CFC6C, 1001, info, persistent(content), list(storages))
    parts = [struct.pack("<q", np.size(data)) + np.asarray(data).tobytes() for data in storages.values()]
    path.write_bytes(b"".join([*map(dump, heads), *parts]))
    return path
