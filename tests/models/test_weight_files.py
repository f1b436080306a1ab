"""Weights from files: what was saved comes back, and nothing in a file is ever run."""

import os
import re
import struct
import sys
import time
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxseg.errors import InputError
from jaxseg.models import weight_files
from tests.torch_saves import (
    Build,
    Call,
    Global,
    Items,
    NewObject,
    Persistent,
    dump,
    encode,
    storage,
    tensor,
    write_stream,
    write_zip,
)

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
        ({"model": Call((Global("torch Generator"),))}, ["'model': torch.Generator (which is not unpickled)"]),
        ({"optimizer": {"w": tensor(storage("Float", "0", 12), (12,), (1,))}}, ["'optimizer': dict"]),
        ({"model": {}}, ["'model': dict"]),
    ],
)
def test_what_is_no_state_dict_is_named(path, content, words):
    refused(write_zip(path, content, {"0": NUMBERS}), *words, "torch.save(model.state_dict(), path)")


W = tensor(storage("Float", "0", 12), (3, 4), (4, 1))
SCORE = tensor(storage("Float", "0", 12), (), ())
DTYPE = Build((Call((Global("numpy dtype"), "f8", False, True)), (3, "<", None, None, None, -1, -1, 0)))
NAMESPACE = Build((NewObject((Global("argparse Namespace"),)), {"lr": 0.1, "loss": Global("torch.nn MSELoss")}))
ATTRIBUTES = Items((NewObject((Global("lightning.parsing AttributeDict"),)), {"lr": 0.1}))
THREE = {"w": W, "v": W, "u": W}


def scalar(module):
    """A NumPy number, as protocol 2 pickles it."""
    return Call((Global(f"{module} scalar"), DTYPE, Call((Global("_codecs encode"), "\0\0", "latin1"))))


BESIDE = {
    "grays of a mask": {"mask_values": [0, 255]},
    "grays of a mask, several channels": {"mask_values": [[0, 0, 0], [255, 255, 255]]},
    "NumPy 1": {"best": scalar("numpy.core.multiarray")},
    "NumPy 2": {"logging": {"dice": [scalar("numpy._core.multiarray")]}},
    "a namespace": {"args": NAMESPACE},
    "a dict with attributes": {"hparams": ATTRIBUTES},
    "functions": {"f": Global("os system"), "g": Call((Call((Global("builtins getattr"), Global("os x"), "y")),))},
    "keys of other kinds": {(1, 2): 3, None: 4, Global("torch float32"): 5, 6: 7, 1.5: 8},
    "a device and a type": {"device": Call((Global("torch device"), "cuda", 0)), "type": Global("torch float32")},
    "a set": {"set": Call((Global("__builtin__ set"), [1, 2]))},
}


@WRITERS
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_is_no_tensor_is_passed_over(write, path, beside):
    for content in ({"w": W} | beside, {"state_dict": {"w": W}} | beside, {"state_dict": {"w": W} | beside}):
        tensors = weight_files.read(write(path, content, {"0": NUMBERS}))
        assert list(tensors) == ["w"]
        np.testing.assert_array_equal(tensors["w"], NUMBERS.reshape(3, 4))


@WRITERS
@pytest.mark.parametrize(
    "content",
    [
        {
            "epoch": 1,
            "pytorch-lightning_version": "2.6",
            "state_dict": {"w": W, "v": SCORE},
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": SCORE, "best_k_models": {}}},
            "optimizer_states": [{"state": {0: {"exp_avg": W, "step": W}}, "param_groups": [{"lr": 0.1}]}],
            "lr_schedulers": [],
            "hyper_parameters": {"cfg": NAMESPACE},
        },
        {
            "network_weights": {"w": W, "v": W},
            "optimizer_state": {"state": {0: {"momentum_buffer": W}}, "param_groups": []},
            "grad_scaler_state": {"scale": 65536.0},
            "logging": {"ema_fg_dice": [scalar("numpy._core.multiarray")]},
            "_best_ema": scalar("numpy.core.multiarray"),
            "current_epoch": 1000,
            "init_args": {"plans": {"a": [1]}, "device": Call((Global("torch device"), "cuda"))},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1),
        },
        {"network": THREE, "loss": THREE | {"x": W}, "lr_scheduler": THREE | {"y": W}},
        {"model_state": THREE, "class_weights": W, "center": {"w": W}},
    ],
    ids=["Lightning", "nnU-Net", "loss and schedule", "few others"],
)
def test_a_training_checkpoint_gives_its_network(write, path, content):
    tensors = weight_files.read(write(path, content, {"0": NUMBERS}))
    assert list(tensors) == ["w", "v", "u"][: len(tensors)] and len(tensors) >= 2


def module(kind, parameters=(), buffers=(), modules=(), passing=()):
    """A module as torch.save writes it whole."""
    state = {"training": False, "_parameters": dict(parameters), "_buffers": dict(buffers), "_modules": dict(modules)}
    state["_non_persistent_buffers_set"] = Call((Global("__builtin__ set"), list(passing)))
    return Build((NewObject((Global(f"networks {kind}"),)), state))


@WRITERS
def test_a_whole_module_is_its_tensors(write, path):
    norm = module("BatchNorm", {"weight": W}, {"running_mean": W, "grid": W}, passing=["grid"])
    whole = module("Net", {"bias": None}, modules={"conv": module("Conv", {"weight": W, "bias": W}), "norm": norm})
    for content in (whole, {"epoch": 3, "model": module("DataParallel", modules={"module": whole})}):
        tensors = weight_files.read(write(path, content, {"0": NUMBERS}))
        assert list(tensors) == ["conv.weight", "conv.bias", "norm.weight", "norm.running_mean"]
        np.testing.assert_array_equal(tensors["norm.running_mean"], NUMBERS.reshape(3, 4))


def test_a_class_with_its_source_text_is_passed_over(path):
    """As the format before PyTorch 1.6 has them."""
    kind = Persistent(("module", Global("networks Net"), "net.py", "import os"))
    content = Build((NewObject((kind,)), {"_parameters": {"w": W}, "_buffers": {}, "_modules": {}}))
    assert list(weight_files.read(write_zip(path, content, {"0": NUMBERS}))) == ["w"]


def test_an_ordered_dict_of_python_2_is_read(path):
    content = Call((Global("collections OrderedDict"), [["w", W], ["v", W]]))
    assert list(weight_files.read(write_zip(path, content, {"0": NUMBERS}))) == ["w", "v"]


def test_among_several_networks_a_key_chooses(path):
    double = tensor(storage("Double", "1", 2), (1, 2), (2, 1))
    content = {"student": {"w": W, "head.b": double}, "callbacks": {"EMA": {"w": double, "head.b": double}}}
    write_zip(path, content, {"0": NUMBERS, "1": np.arange(2.0)})
    refused(path, "several networks, under student, callbacks.EMA", "FILE:student")
    assert weight_files.read(path, key="student")["w"].shape == (3, 4)
    assert weight_files.read(path, key="callbacks.EMA")["w"].dtype == np.float64
    assert list(weight_files.read(path, key="student.head")) == ["b"]
    with pytest.raises(InputError, match=r"no tensors under 'teacher'; there are some under student, callbacks.EMA"):
        weight_files.read(path, key="teacher")


def test_an_empty_key_is_the_network_at_the_root_without_copies_of_it(tmp_path):
    network = {"conv.weight": np.ones((2, 2)), "conv.bias": np.ones(2), "block.conv.weight": np.ones((3, 3))}
    copy = {f"ema.{name}": 2 * array for name, array in network.items()}
    path = tmp_path / "both.npz"
    for start in ("", "model.", "module."):
        tensors = {f"{start}{name}": array for name, array in (network | copy).items()}
        np.savez(path, **tensors)
        key = start.removesuffix(".") if start == "model." else ""
        read = weight_files.read(path, key=key)
        assert {name: array.max() for name, array in read.items()} == dict.fromkeys(network, 1)
        read = weight_files.read(path, key=f"{key}.ema" if key else "ema")
        assert {name: array.max() for name, array in read.items()} == dict.fromkeys(network, 2)


def test_the_networks_own_parts_are_no_copies_of_others(tmp_path):
    names = [f"{part}{i}.weight" for part in ("", "layer1.0.", "layer1.1.", "layer2.0.") for i in ("conv1", "conv2")]
    np.savez(tmp_path / "resnet.npz", **{f"model.{name}": np.ones((2, 2)) for name in names if name != "conv2.weight"})
    assert len(weight_files.read(tmp_path / "resnet.npz", key="model")) == 7


def test_a_path_may_be_bytes(tmp_path):
    path = tmp_path / "n\u00e4me.npz"
    np.savez(path, w=np.ones(2))
    assert list(weight_files.read(os.fsencode(path))) == ["w"]


@pytest.mark.parametrize(
    ("wrapped", "plain"),
    [
        ("module.module.{}", "{}"),
        ("_orig_mod.{}", "{}"),
        ("module._orig_mod.{}", "{}"),
        ("_orig_mod.module.{}", "{}"),
        ("model._orig_mod.module.{}", "model.module.{}"),
        ("encoder._orig_mod.{}", "encoder.{}"),
        ("a._fsdp_wrapped_module._checkpoint_wrapped_module.{}", "a.{}"),
    ],
)
def test_what_wrappers_put_before_names_is_dropped(path, wrapped, plain):
    content = {wrapped.format(name): W for name in ("w", "conv.v")}
    assert list(weight_files.read(write_zip(path, content, {"0": NUMBERS}))) == [
        plain.format("w"),
        plain.format("conv.v"),
    ]


def test_names_that_would_be_the_same_without_a_wrapper_stay(path):
    content = {"_orig_mod.w": W, "w": W}
    assert list(weight_files.read(write_zip(path, content, {"0": NUMBERS}))) == ["_orig_mod.w", "w"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("_rebuild_qtensor", "'x' is quantised"),
        ("_rebuild_sparse_tensor", "'x' is sparse; save its to_dense()"),
        ("_rebuild_meta_tensor_no_storage", "'x' has no numbers"),
        ("_rebuild_tensor_v3", "'x' is made by torch._utils._rebuild_tensor_v3"),
    ],
)
def test_a_tensor_that_is_no_plain_array_is_named(path, name, words):
    odd = Call((Global(f"torch._utils {name}"), storage("QInt8", "1", 3)))
    refused(write_zip(path, {"w": W, "x": odd}, {"0": NUMBERS}), words)
    assert list(weight_files.read(write_zip(path, {"model": {"w": W}, "extra": odd}, {"0": NUMBERS}))) == ["w"]


@WRITERS
def test_storages_of_rare_types_matter_only_where_they_are_wanted(write, path):
    complex_numbers = np.ones(3, np.complex64)
    odd = tensor(storage("ComplexFloat", "c", 3), (3,), (1,))
    content = {"model": {"w": W, "v": W, "u": W}, "spectrum": odd}
    assert len(weight_files.read(write(path, content, {"c": complex_numbers, "0": NUMBERS}))) == 3
    refused(write(path, {"w": W, "x": odd}, {"c": complex_numbers, "0": NUMBERS}), "'x'", "torch.ComplexFloatStorage")


def test_parameters_and_subclasses_of_tensors_are_tensors(path):
    hooks = Call((Global("collections OrderedDict"),))
    parts = (Global("torch._utils _rebuild_tensor_v2"), tuple(W[1:]), {"affine": W})
    content = {
        "p": Call((Global("torch._utils _rebuild_parameter"), W, True, hooks)),
        "s": Call((Global("torch._utils _rebuild_parameter_with_state"), W, True, hooks, {"a": 1})),
        "m": Call((Global("torch._tensor _rebuild_from_type_v2"), parts[0], Global("monai MetaTensor"), *parts[1:])),
    }
    for array in weight_files.read(write_zip(path, content, {"0": NUMBERS})).values():
        np.testing.assert_array_equal(array, NUMBERS.reshape(3, 4))


@pytest.mark.parametrize("suffix", ["", ".ckpt", ".bin", ".pkl", ".pth.tar", ".model", ".safetensors", ".npz", ".PTH"])
def test_the_content_tells_what_a_file_is(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    with_torch = weight_files.read(write_zip(path, {"w": W}, {"0": NUMBERS}))
    write_stream(path, {"w": W}, {"0": NUMBERS})
    as_text = weight_files.read(str(path))
    with path.open("wb") as file:
        np.savez(file, w=NUMBERS.reshape(3, 4))
    from_npz = weight_files.read(path)
    path.write_bytes(safetensors.numpy.save({"w": NUMBERS.reshape(3, 4)}))
    from_safetensors = weight_files.read(os.fsencode(path).decode())
    for tensors in (with_torch, as_text, from_npz, from_safetensors):
        np.testing.assert_array_equal(tensors["w"], NUMBERS.reshape(3, 4))


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


CALLS = {
    "REDUCE": b"cTHIS\nmkdir\n(X\x01\0\0\0xtR",
    "INST": b"(X\x01\0\0\0xiTHIS\nmkdir\n",
    "OBJ": b"(cTHIS\nmkdir\nX\x01\0\0\0xo",
    "NEWOBJ": b"cTHIS\nmkdir\n(X\x01\0\0\0xt\x81",
    "NEWOBJ_EX": b"cTHIS\nmkdir\n(X\x01\0\0\0xt}\x92",
    "STACK_GLOBAL": b"X\x04\0\0\0THISX\x05\0\0\0mkdir\x93(X\x01\0\0\0xtR",
    "BUILD": b"cTHIS\nmkdir\n}X\x08\0\0\0__code__Nsb",
    "SETITEM": b"cTHIS\nmkdir\nX\x01\0\0\0xNs",
    "APPEND": b"cTHIS\nmkdir\n)RNa",
    "a set": b"\x8f(K\x01K\x02\x90",
    "a frozen set": b"(K\x01K\x02\x91",
    "a bytearray": b"\x96\x02\0\0\0\0\0\0\0ab",
}


@pytest.mark.parametrize("name", ["os", "not_imported", "builtins", "jaxseg.models.weight_files"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_passed_over_is_neither_imported_nor_called_nor_changed(tmp_path, path, monkeypatch, call, name):
    """It stands beside a tensor, which comes back."""
    (tmp_path / "not_imported.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    length = struct.pack("<L", len(name))
    call = call.replace(b"X\x04\0\0\0THIS", b"X" + length + name.encode()).replace(b"THIS", name.encode())
    content = b"\x80\x04}(X\x01\0\0\0a" + call + b"X\x01\0\0\0w" + encode(W) + b"u."
    if call.endswith(b"Ns") and b"R" not in call:  # a function has no items
        refused(write_zip(path, None, {"0": NUMBERS}, pickled=content))
    else:
        assert list(weight_files.read(write_zip(path, None, {"0": NUMBERS}, pickled=content))) == ["w"]
    assert "not_imported" not in sys.modules and not (tmp_path / "x").exists()


def nested_modules(levels, width, leaf):
    """Modules of which every level has the one below it `width` times: there would be `width**levels` names."""
    head, children = b"cnetworks\nNet\n)\x81}(X\x0b\0\0\0_parameters}X\x01\0\0\0wNsX\x08\0\0\0_modules}(", b""
    content = leaf
    for level in range(levels):
        put = b"r" + struct.pack("<L", 10 + level)
        get = b"j" + struct.pack("<L", 10 + level)
        children = b"".join(b"X\x04\0\0\0" + b"%04d" % i + get for i in range(width))
        content = content + put + b"0" + head + children + b"uub"
    return b"\x80\x02" + content + b"."


@pytest.mark.parametrize(
    "pickled",
    [
        nested_modules(30, 50, b"cnetworks\nNet\n)\x81}X\x0b\0\0\0_parameters}X\x01\0\0\0wNssb"),
        nested_modules(2000, 1, b"cnetworks\nNet\n)\x81}X\x0b\0\0\0_parameters}X\x01\0\0\0wNssb"),
        # a long text under two letters of the memo, joined to the name of a thousand classes
        b"\x80\x04X" + struct.pack("<L", 2**20) + 2**20 * b"a" + b"q\x000" + 1000 * b"h\x00h\x00\x930" + b"N.",
        # dicts in dicts, every one twice
        b"\x80\x02}q\x00" + b"".join(b"0}(X\1\0\0\0ah%cX\1\0\0\0bh%cuq%c" % (i, i, i + 1) for i in range(200)) + b".",
        b"\x80\x02" + 50_000 * b"}X\x01\0\0\0a" + b"N" + 50_000 * b"s" + b".",
    ],
    ids=["modules", "deep modules", "names", "dicts", "deep dicts"],
)
def test_small_pickles_cannot_ask_for_much_of_what_is_made_of_them(path, pickled):
    write_zip(path, None, {}, pickled=pickled)
    tracemalloc.start()
    start = time.process_time()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 60


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


@pytest.mark.parametrize(
    ("size", "stride", "offset", "words"),
    [
        ((12,), (1,), 1, "reaches element 12 of a storage of 12"),
        ((2, 2), (11, 1), 0, "reaches element 12 of a storage of 12"),
        ((4,), (-1,), 3, "has no valid shape"),
        ((4,), (1,), -1, "has no valid shape"),
        ((True,), (1,), 0, "has no valid shape"),
    ],
)
def test_what_is_wrong_with_a_view_is_said(path, size, stride, offset, words):
    refused(write_zip(path, {"x": tensor(storage("Float", "0", 12), size, stride, offset)}, {"0": NUMBERS}), words)


@pytest.mark.parametrize(("numel", "words"), [(11, "48 bytes for 11 elements"), (13, "48 bytes for 13 elements")])
def test_storages_of_another_size_than_is_said_are_refused(path, numel, words):
    refused(write_zip(path, {"x": tensor(storage("Float", "0", numel), (2,), (1,))}, {"0": NUMBERS}), words)


def test_storages_of_a_kind_that_is_never_written_are_refused(path):
    for pid in (("module of", Global("torch FloatStorage"), "0", "cpu", 12), ("storage", "0", "0", "cpu", 12)):
        refused(write_zip(path, {"x": tensor(Persistent(pid), (2,), (1,))}, {"0": NUMBERS}), "a storage of a kind")


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


def test_what_a_stream_lacks_is_said(path, plain):
    whole = write_stream(path, *plain).read_bytes()
    path.write_bytes(whole[:-1])
    refused(path, "storage '1' goes beyond the end of the file")
    path.write_bytes(whole.replace(dump(1001), dump(1002), 1))
    refused(path, "is in neither of the two formats of torch.save")
    path.write_bytes(b"")
    refused(path, "is empty")


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
        archive.writestr("weights.txt", "")
    refused(path, "not one of torch.save")


# ---------------------------------------------------------------------------------------------------------------------
# Other files


@pytest.mark.parametrize(("module", "name"), [(600, 401), (1, 1000), (1000, 1)])
def test_names_of_more_than_a_thousand_letters_are_damage(path, module, name):
    refused(write_zip(path, {"x": Global(f"{module * 'a'} {name * 'b'}")}, {}), "a name that is too long")


def test_programs_of_torchscript_are_refused(path, plain):
    with zipfile.ZipFile(write_zip(path, *plain), "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    refused(path, "is a TorchScript program")


@pytest.mark.parametrize(
    ("opcodes", "words"),
    [
        (b"K\x01K\x02a", "not a list"),
        (b"](K\x01\x90", "not a set"),
        (b"K\x01(K\x02K\x03u", "not a dict"),
        (b"cbuiltins\nset\nK\x01R", "a call without arguments"),
    ],
)
def test_what_is_put_into_another_thing_than_it_fits_is_damage(path, opcodes, words):
    refused(write_zip(path, None, {}, pickled=b"\x80\x04" + opcodes + b"."), f"(ValueError: {words})")


def test_members_that_are_no_arrays_and_types_that_numpy_lacks_are_named(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"text")
    refused(path, "'x' is not an array")
    head = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"\0\0")
    refused(path, "'w' is stored as F8_E4M3; store it as float32")


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


def test_text_and_objects_in_npz_files_are_passed_over(tmp_path):
    beside = {"names": np.array(["a", "b"]), "args": np.array([Payload(tmp_path)], object)}
    np.savez(tmp_path / "weights.npz", a=NUMBERS, **beside)
    assert list(weight_files.read(tmp_path / "weights.npz")) == ["a"]
    assert not (tmp_path / "executed").exists()


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
    for start, words in {
        b"\x89HDF\r\n": "HDF5",
        b"<!DOCTYPE html>": "web page",
        b"version https://git-lfs.github.com/spec/v1": "git lfs pull",
        b"\x1f\x8b\x08": "gzip",
        b"\x00\x01\x02 any": "is not a file of weights",
        b"": "is empty",
    }.items():
        (tmp_path / "weights.h5").write_bytes(start)
        refused(tmp_path / "weights.h5", words)
    refused(tmp_path / "weights.pth", "No such file")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "directory")


# ---------------------------------------------------------------------------------------------------------------------
# With PyTorch


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


def test_pytorchs_whole_network(torch, save):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    network[1].register_buffer("grid", torch.ones(2), persistent=False)
    same(weight_files.read(save(network)), network.state_dict())
    same(weight_files.read(save({"model": torch.nn.DataParallel(network)})), network.state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_pytorchs_compiled_network(torch, save):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    same(weight_files.read(save(torch.compile(network).state_dict())), network.state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_pytorchs_program_is_refused(torch, path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), path)
    refused(path, "is a TorchScript program", "torch.jit.load(path).state_dict()")


@pytest.mark.filterwarnings("ignore:.*quantize")
def test_pytorchs_rare_types_are_refused(torch, save):
    refused(save({"x": torch.ones(2, dtype=torch.complex64)}), "torch.ComplexFloatStorage")
    refused(save({"x": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}), "'x' is quantised")
    refused(save({"x": torch.eye(3).to_sparse()}), "'x' is sparse")
    refused(save({"x": torch.ones(2, device="meta")}), "'x' has no numbers")
    refused(save({"x": torch.ones(2, dtype=torch.uint16)}), "torch._utils._rebuild_tensor_v3")


def test_pytorchs_truncated_file_is_refused(torch, save):
    path = save(torch.nn.Linear(2, 3).state_dict())
    whole = path.read_bytes()
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        refused(path)
