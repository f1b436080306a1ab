"""Weights from files: what was saved comes back, and nothing in a file is ever run."""

import os
import pickle
import re
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxseg.errors import InputError
from jaxseg.models import weight_files

# ---------------------------------------------------------------------------------------------------------------------
# What torch.save writes, without PyTorch


class Global(str):
    """`module name`, by which a pickle names a function or class."""


class Call(tuple):
    """A function and its arguments."""


class Persistent(tuple):
    """A persistent id."""


class Build(tuple):
    """An object and the state that it is given."""


def encode(value):
    """The opcodes of a value, in protocol 2."""
    match value:
        case Global():
            return b"c" + value.replace(" ", "\n").encode() + b"\n"
        case Call():
            return encode(value[0]) + encode(tuple(value[1:])) + b"R"
        case Persistent():
            return encode(tuple(value)) + b"Q"
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
            case tuple():
                return type(value)(map(persistent, value))
        return value

    info = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    heads = (0x1950A86A20F9469CFC6C, 1001, info, persistent(content), list(storages))
    parts = [struct.pack("<q", np.size(data)) + np.asarray(data).tobytes() for data in storages.values()]
    path.write_bytes(b"".join([*map(dump, heads), *parts]))
    return path


WRITERS = pytest.mark.parametrize("write", [write_zip, write_stream])
NUMBERS = np.arange(12, dtype=np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture
def plain(path):
    """Content and storages of a small state dict."""
    content = {
        "conv.weight": tensor(storage("Float", "0", 12), (2, 3), (3, 1), 6),
        "bn.num_batches_tracked": tensor(storage("Long", "1", 1), (), ()),
    }
    return content, {"0": NUMBERS, "1": np.array([7])}


def refused(path, *words):
    with pytest.raises(InputError) as error:
        weight_files.read(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    for word in words:
        assert word in text
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Files of torch.save, hand-made


@WRITERS
def test_a_state_dict_comes_back(write, path, plain):
    tensors = weight_files.read(write(path, *plain))
    assert list(tensors) == ["conv.weight", "bn.num_batches_tracked"]
    np.testing.assert_array_equal(tensors["conv.weight"], [[6, 7, 8], [9, 10, 11]])
    assert tensors["conv.weight"].dtype == np.float32
    assert tensors["bn.num_batches_tracked"] == 7 and tensors["bn.num_batches_tracked"].shape == ()


@WRITERS
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Float", np.float32),
        ("Double", np.float64),
        ("Half", np.float16),
        ("BFloat16", ml_dtypes.bfloat16),
        ("Long", np.int64),
        ("Int", np.int32),
        ("Short", np.int16),
        ("Char", np.int8),
        ("Byte", np.uint8),
        ("Bool", np.bool_),
    ],
)
def test_every_type_is_read(write, path, kind, dtype):
    values = np.array([0, 1, 1, 0, 1, 0]).astype(dtype)
    content = {
        "x": tensor(storage(kind, "0", 6), (2, 2), (1, 2), 2),
        "none": tensor(storage(kind, "1", 0), (0, 3), (3, 1)),
    }
    tensors = weight_files.read(write(path, content, {"0": values, "1": values[:0]}))
    assert tensors["x"].dtype == dtype and tensors["none"].shape == (0, 3)
    np.testing.assert_array_equal(tensors["x"].astype(float), [[1, 1], [0, 0]])


def test_a_storage_is_read_once_and_only_where_it_is_wanted(path):
    shared = storage("Float", "0", 12)
    content = {
        "state_dict": {"a": tensor(shared, (3, 4), (1, 3)), "b": tensor(shared, (12,), (1,))},
        "momentum": [tensor(storage("Float", "not there", 3), (3,), (1,))],
    }
    tensors = weight_files.read(write_zip(path, content, {"0": NUMBERS}))
    np.testing.assert_array_equal(tensors["a"], NUMBERS.reshape(4, 3).T)
    assert np.shares_memory(tensors["a"], tensors["b"])


@WRITERS
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_wrapped_state_dicts_are_found_and_lose_the_prefix_of_dataparallel(write, path, plain, key):
    content, storages = plain
    inner = {f"module.{name}": value for name, value in content.items()}
    wrapped = {"epoch": 3, "best": 0.5, "name": "x", "scheduler": None, "losses": [1.5, 2.5], key: inner}
    assert list(weight_files.read(write(path, wrapped, storages))) == list(content)


def test_a_prefix_that_not_all_names_have_stays(path, plain):
    (first, second), storages = plain[0].items(), plain[1]
    content = {f"module.{first[0]}": first[1], second[0]: second[1]}
    assert list(weight_files.read(write_zip(path, content, storages))) == list(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], ["found a list"]),
        ({}, ["found a dict"]),
        (tensor(storage("Float", "0", 12), (12,), (1,)), ["found a tensor"]),
        ({"epoch": 3, "weights": {}}, ["found a dict of 'epoch': int, 'weights': dict"]),
        ({"w": tensor(storage("Float", "0", 12), (12,), (1,)), "n": 3}, ["'w': tensor", "'n': int"]),
        ({key: {"w": tensor(storage("Float", "0", 12), (12,), (1,))} for key in ("net", "model")}, ["just one of"]),
        ({"model": {}}, ["'model': dict"]),
    ],
)
def test_what_is_no_state_dict_is_named(path, content, words):
    refused(write_zip(path, content, {"0": NUMBERS}), *words, "torch.save(model.state_dict(), path)")


class Payload:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "executed"),)


def bare_pickle(path, content, storages):
    path.write_bytes(dump(content))
    return path


@pytest.mark.parametrize("write", [write_zip, write_stream, bare_pickle])
@pytest.mark.parametrize(
    "content",
    [
        lambda folder: Payload(folder),
        lambda folder: {"state_dict": {}, "extra": Payload(folder)},
        lambda folder: Call((Global("os system"), f"mkdir {folder}/executed")),
        lambda folder: Call((Global("builtins eval"), f"__import__('os').mkdir('{folder}/executed')")),
        lambda folder: Call((Global("torch._utils os.mkdir"), f"{folder}/executed")),
        lambda folder: Call((Global("torch load"), "x")),
        lambda folder: Call((Global("numpy dtype"), "f4")),
    ],
)
def test_nothing_in_a_pickle_is_executed(tmp_path, path, write, content):
    write(path, content(tmp_path), {})
    text = refused(path, "which is not unpickled", "torch.save(model.state_dict(), path)")
    assert re.search(r"(posix|nt|os|builtins|torch|torch\._utils|numpy)\.\w+", text)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "target",
    [
        Global("torch._utils _rebuild_tensor_v2"),
        Global("collections OrderedDict"),
        Global("torch Size"),
        Global("torch FloatStorage"),
        storage("Float", "0", 12),
        tensor(storage("Float", "0", 12), (12,), (1,)),
    ],
)
@pytest.mark.parametrize("state", [(None, {"__defaults__": (1,)}), {"keys": 1}, (None, {"kind": "x"})])
def test_a_pickle_changes_nothing_that_it_names(tmp_path, path, plain, target, state):
    evil = write_zip(tmp_path / "evil.pth", {"x": Build((target, state))}, {})
    refused(evil)
    assert len(weight_files.read(write_zip(path, *plain))) == 2


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02Nr\x00\x00\x00\x01.",  # an entry far out in the memo
        b"\x80\x05\x96" + struct.pack("<Q", 2**28) + b".",  # a bytearray
        b"\x80\x05\x8e" + struct.pack("<Q", 2**28) + b".",  # bytes
        b"\x80\x04\x95" + struct.pack("<Q", 2**28) + b".",  # a frame
        b"\x80\x02\x82\x01.",  # an extension
        b"\x80\x02" + 20_000 * b"]" + 19_999 * b"a" + b".",
        b"",
    ],
)
def test_small_pickles_cannot_ask_for_much(path, pickled):
    write_zip(path, None, {}, pickled=pickled)
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("store", [b"K\x01s", b"K\x01u", b"K\x01d"], ids=["SETITEM", "SETITEMS", "DICT"])
def test_a_nested_tuple_as_a_key_is_not_hashed(path, store):
    """Its hash would take twice as long for every level, and there are 200."""
    nested = b"K\x01" + b"2\x86" * 200
    opening = {b"s": b"}", b"u": b"}(", b"d": b"("}[store[-1:]]
    write_zip(path, None, {}, pickled=b"\x80\x02" + opening + nested + store + b".")
    refused(path)


@WRITERS
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((13,), (1,), 0),
        ((12,), (1,), 1),
        ((2, 2), (11, 1), 0),
        ((2,), (2**62,), 0),
        ((2**62, 2**62), (0, 0), 0),
        ((4,), (-1,), 3),
        ((4,), (1,), -1),
        ((-4,), (1,), 0),
        ((4, 1), (1,), 0),
        ((1.0,), (1,), 0),
        ("ab", (1, 1), 0),
        (3, 1, 0),
        (70 * (1,), 70 * (1,), 0),
        ((0, 2**63), (1, 1), 0),
    ],
)
def test_views_beyond_their_storage_are_refused(write, path, size, stride, offset):
    content = {"x": tensor(storage("Float", "0", 12), size, stride, offset)}
    refused(write(path, content, {"0": NUMBERS}), "damaged")


@WRITERS
@pytest.mark.parametrize(
    "stored",
    [
        storage("Float", "0", 11),
        storage("Float", "0", 13),
        storage("Double", "0", 12),
        storage("Float", "1", 12),
        storage("Float", "0", -12),
        storage("QInt8", "0", 12),
        Persistent(("module", Global("torch FloatStorage"), "0", "cpu", 12)),
        Persistent(("storage", Global("torch FloatStorage"), 0, "cpu", 12)),
        Persistent(("storage", "0")),
        (1, 2, 3),
        None,
    ],
)
def test_storages_that_are_not_what_they_should_be_are_refused(write, path, stored):
    refused(write(path, {"x": tensor(stored, (2,), (1,))}, {"0": NUMBERS}))


def test_views_of_storages_are_refused(path):
    stored = Persistent(("storage", Global("torch FloatStorage"), "0", "cpu", 12, ("1", 0, 12)))
    refused(write_zip(path, {"x": tensor(stored, (2,), (1,))}, {"0": NUMBERS}), "a storage of a kind")


def test_a_storage_of_two_types_is_refused(path):
    content = {kind: tensor(storage(kind, "0", 12), (2,), (1,)) for kind in ("Float", "Int")}
    refused(write_zip(path, content, {"0": NUMBERS}), "two types or sizes")


def test_pending_operations_are_refused(path):
    hooks = Call((Global("collections OrderedDict"),))
    parts = (Global("torch._utils _rebuild_tensor_v2"), storage("Float", "0", 12), 0, (2,), (1,), False, hooks)
    refused(write_zip(path, {"x": Call((*parts, {"neg": True}))}, {"0": NUMBERS}), "negation")


@WRITERS
def test_truncated_files_are_refused(write, path, plain):
    whole = write(path, *plain).read_bytes()
    for length in [*range(0, len(whole), 5), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path)


def test_damaged_storages_are_noticed(path, plain):
    whole = write_zip(path, *plain).read_bytes()
    place = whole.index(NUMBERS.tobytes())
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    refused(path, "CRC")


@WRITERS
def test_damage_anywhere_gives_tensors_or_one_line(write, path, plain):
    random = np.random.default_rng(0)
    whole = write(path, *plain).read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + random.bytes(1) + whole[place + 1 :])
        try:
            weight_files.read(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_compressed_and_repeated_members_are_refused(path, plain):
    refused(write_zip(path, *plain, compression=zipfile.ZIP_DEFLATED), "compressed")
    content, storages = plain
    whole = write_zip(path, content, storages | {"big": np.zeros(10**4)}).read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("archive/data/big").file_size
    path.write_bytes(whole.replace(struct.pack("<LL", size, size), struct.pack("<LL", 2 * size, 2 * size)))
    refused(path, "compressed or overlapping")


def test_big_endian_files_are_refused(path, plain):
    refused(write_zip(path, *plain, byteorder=b"big"), "big-endian")
    refused(write_stream(path, *plain, little_endian=False), "big-endian")


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html>", b"version https://git-lfs", bytes(1000), dump(3), b"PK\x03\x04"]
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".npz", ".safetensors"])
def test_other_files_under_these_names_are_refused(tmp_path, data, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(data)
    assert "allow_pickle" not in refused(path)


def test_other_zip_archives_are_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", "")
    refused(path, "not one of torch.save")


# ---------------------------------------------------------------------------------------------------------------------
# Other files


def test_npz_files_are_read(tmp_path):
    stored = {"module.a": NUMBERS.reshape(3, 4), "module.n": np.array(3)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "weights.npz", **stored)
        tensors = weight_files.read(tmp_path / "weights.npz")
        np.testing.assert_array_equal(tensors["a"], stored["module.a"])
        assert tensors["n"] == 3


@pytest.mark.parametrize(
    "array", [np.array(["text"]), NUMBERS.astype(ml_dtypes.bfloat16), np.array([{}]), NUMBERS.astype(complex)]
)
def test_npz_files_with_other_things_are_refused(tmp_path, array):
    np.savez(tmp_path / "weights.npz", a=array)
    refused(tmp_path / "weights.npz")


def test_npz_files_run_nothing(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.array([Payload(tmp_path)], object))
    refused(tmp_path / "weights.npz")
    assert not (tmp_path / "executed").exists()


def test_safetensors_files_are_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    stored = {
        f"module.{dtype}": np.ones((2, 3), dtype) for dtype in ("float32", "float16", "bfloat16", "int64", "bool")
    }
    safetensors.numpy.save_file(stored, path)
    tensors = weight_files.read(path)
    assert sorted(tensors) == sorted(name.removeprefix("module.") for name in stored)
    for name, array in tensors.items():
        assert array.dtype == name and array.shape == (2, 3) and (array == np.ones((), name)).all()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_truncated_files_of_other_kinds_are_refused(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, a=NUMBERS)
    else:
        safetensors.numpy.save_file({"a": NUMBERS}, path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 5), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path)


def test_empty_files_of_tensors_are_refused(tmp_path):
    safetensors.numpy.save_file({}, tmp_path / "weights.safetensors")
    refused(tmp_path / "weights.safetensors", "no tensors")


def test_files_of_other_kinds_and_missing_ones_are_refused(tmp_path):
    refused(tmp_path / "weights.h5", ".safetensors, .npz, .pth, .pt")
    refused(tmp_path / "weights.pth", "No such file")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "directory")


# ---------------------------------------------------------------------------------------------------------------------
# With PyTorch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=[True, False], ids=["zip", "stream"])
def save(request, torch, path):
    def save(content, **options):
        torch.save(content, path, _use_new_zipfile_serialization=request.param, **options)
        return path

    return save


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert str(value.dtype) == f"torch.{ours[name].dtype}"
        assert ours[name].shape == tuple(value.shape)
        np.testing.assert_array_equal(ours[name].astype(np.float64), value.detach().double().numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pytorchs_network(torch, save, protocol):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 5))
    same(weight_files.read(save(network.state_dict(), pickle_protocol=protocol)), network.state_dict())
    same(weight_files.read(save(dict(network.named_parameters()))), dict(network.named_parameters()))


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_pytorchs_types_and_views(torch, save, dtype):
    base = torch.arange(24).to(getattr(torch, dtype)).reshape(4, 6)
    views = {
        "whole": base,
        "transposed": base.T,
        "strided": base[1::2, ::3],
        "row": base[2],
        "scalar": base[3, 4],
        "expanded": base[1:2].expand(5, 6),
        "none": base[:0],
        "empty": torch.empty(0, dtype=base.dtype),
    }
    same(weight_files.read(save(views)), views)


def test_pytorchs_wrapped_network(torch, save):
    network = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    stored = {f"module.{name}": value for name, value in network.state_dict().items()}
    wrapped = {"epoch": 3, "model": stored, "optimizer": optimizer.state_dict(), "best": 0.5, "args": None}
    same(weight_files.read(save({**wrapped, "shape": torch.Size([1, 2])})), network.state_dict())


def test_pytorchs_whole_network_is_refused(torch, save):
    refused(save(torch.nn.Linear(2, 3)), "torch.nn.modules.linear.Linear", "model.state_dict()")


def test_pytorchs_rare_types_are_refused(torch, save):
    refused(save({"x": torch.ones(2, dtype=torch.complex64)}), "torch.ComplexFloatStorage")
    refused(save({"x": torch.ones(2, dtype=torch.uint16)}), "torch._utils._rebuild_tensor_v3")


def test_pytorchs_truncated_file_is_refused(torch, save):
    path = save(torch.nn.Linear(2, 3).state_dict())
    whole = path.read_bytes()
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        refused(path)
