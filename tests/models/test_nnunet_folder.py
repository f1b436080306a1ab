"""The folder of a trained nnU-Net: what is read of it, and what cannot be followed is one line."""

import copy
import json

import jax
import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.models import nnunet_folder, weight_files
from jaxseg.models.nnunet_folder import plans as reading
from tests.nnunet import dataset_json, forward, plans_json, tensor_shapes, with_copies, write_folder

FLAT = {
    "encoder": "plain",
    "features": (2, 3),
    "kernels": ((1, 3), (3, 3)),
    "strides": ((1, 1), (1, 2)),
    "depths": (2, 1),
    "decoder_depths": (1,),
    "norm": "instance",
}
DEEP = FLAT | {
    "encoder": "residual",
    "features": (2, 3, 4),
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    "depths": (1, 1, 2),
    "decoder_depths": (1, 2),
}


@pytest.fixture
def drawn(drawn_state_dict):
    """Tensors of a network for one channel and three classes, under all their names."""
    return lambda options: with_copies(drawn_state_dict(tensor_shapes(options, 1, 3), 0))


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_trained_folder_is_a_network_with_its_plans(tmp_path, drawn, prefix):
    tensors = drawn(DEEP)
    write_folder(tmp_path, plans_json(DEEP, (4, 8, 8)), dataset_json(), tensors, prefix=prefix)
    module, variables, plans = nnunet_folder.from_folder(tmp_path)
    images = np.random.default_rng(0).standard_normal((1, 4, 8, 8, 1), np.float32)
    expected = forward(tensors, images, DEEP["strides"])
    logits = jax.jit(module.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert plans.configuration == "3d_fullres" and plans.image_shape == images.shape and plans.rank == 3
    assert plans.labels == ("background", "organ", "tumour") and plans.ignore is None
    assert plans.channels == (nnunet_folder.Channel("MR", "ZScoreNormalization", masked=False),)
    assert plans.spacing == (3.0, 0.8, 0.8) and plans.file_ending == ".nii.gz"
    assert (plans.transpose_forward, plans.transpose_backward) == ((2, 0, 1), (1, 2, 0))
    assert plans.images.options["order"] == 3 and plans.probabilities.options["order"] == 1
    assert (plans.trainer, plans.mirrored_axes) == ("nnUNetTrainer", (0, 1, 2))


def test_the_trainer_with_batch_norm_says_so_by_its_tensors(tmp_path, drawn):
    write_folder(tmp_path, plans_json(FLAT, (4, 8)), dataset_json(), drawn(FLAT | {"norm": "batch"}))
    module, variables, _ = nnunet_folder.from_folder(tmp_path)
    assert module.norm == "batch" and "batch_stats" in variables


def test_without_a_final_checkpoint_the_best_is_taken_and_said(tmp_path, drawn, capsys):
    arguments = (tmp_path, plans_json(FLAT, (4, 8)), dataset_json(), drawn(FLAT))
    write_folder(*arguments, fold="all", name="checkpoint_best.pth")
    nnunet_folder.from_folder(tmp_path, fold="all")
    assert "fold_all: has no checkpoint_final.pth; checkpoint_best.pth is taken" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"fold_0: holds neither .* nor .*; choose one of the folds all$"):
        nnunet_folder.from_folder(tmp_path)


def test_the_configuration_is_that_of_the_checkpoint_or_of_the_name(tmp_path, drawn):
    plans = plans_json(FLAT, (4, 8), configuration="2d")
    folder = write_folder(tmp_path / "nnUNetTrainer__nnUNetPlans__2d", plans, dataset_json(), drawn(FLAT), beside={})
    plans["configurations"]["3d_fullres"] = plans_json(DEEP, (4, 8, 8))["configurations"]["3d_fullres"]
    (folder / "plans.json").write_text(json.dumps(plans))
    found = nnunet_folder.from_folder(folder)[2]
    assert found.configuration == "2d" and (found.trainer, found.mirrored_axes) == ("", None)
    other = folder.rename(tmp_path / "mine")
    with pytest.raises(InputError, match=r"nothing says of which configuration .*choose one of 2d, 3d_fullres"):
        nnunet_folder.from_folder(other)
    assert nnunet_folder.from_folder(other, configuration="2d")[2] == found
    with pytest.raises(InputError, match=r"checkpoint_final\.pth: is not what plans\.json and dataset\.json describe"):
        nnunet_folder.from_folder(other, configuration="3d_fullres")
    said = {"init_args": {"configuration": "2d"}, "inference_allowed_mirroring_axes": None}
    write_folder(tmp_path / "told", plans | {"configurations": {"2d": {}}}, dataset_json(), drawn(FLAT), beside=said)
    (tmp_path / "told" / "plans.json").write_text(json.dumps(plans))
    assert nnunet_folder.from_folder(tmp_path / "told")[2].mirrored_axes == ()
    with pytest.raises(InputError, match="checkpoint is of the configuration '2d', not '3d_fullres'"):
        nnunet_folder.from_folder(tmp_path / "told", configuration="3d_fullres")


def test_plans_before_2_4_are_the_same_network():
    plans = plans_json(DEEP, (4, 8, 8))
    new = reading.read(plans, dataset_json(), "3d_fullres")
    of = plans["configurations"]["3d_fullres"]
    arguments = of.pop("architecture")["arch_kwargs"]
    of |= {
        "UNet_class_name": "ResidualEncoderUNet",
        "UNet_base_num_features": 2,
        "unet_max_num_features": 3,
        "n_conv_per_stage_encoder": arguments["n_blocks_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }
    old = reading.read(plans, dataset_json(), "3d_fullres")
    assert old.network == {**new.network, "features": (2, 3, 3)}
    of["n_conv_per_stage_encoder"] = []
    with pytest.raises(
        InputError, match=r"n_conv_per_stage_encoder is \[\]; nnU-Net 2 writes some whole numbers there"
    ):
        reading.read(plans, dataset_json(), "3d_fullres")
    assert new.network["decoder_depths"] == (1, 2) == tuple(arguments["n_conv_per_stage_decoder"][::-1])


def test_a_configuration_may_inherit_from_others():
    plans = plans_json(DEEP, (4, 8, 8))
    plans["configurations"]["wide"] = {"inherits_from": "3d_fullres", "patch_size": [4, 8, 16]}
    plans["configurations"]["wider"] = {"inherits_from": "wide", "spacing": [3, 1, 1]}
    found = reading.read(plans, dataset_json(), "wider")
    assert found.patch_size == (4, 8, 16) and found.spacing == (3.0, 1.0, 1.0)
    plans["configurations"]["wide"]["inherits_from"] = "wider"
    with pytest.raises(InputError, match="inherits from itself"):
        reading.read(plans, dataset_json(), "wider")


def test_intensities_of_ct_come_with_their_numbers():
    schemes = ("CTNormalization", "NoNormalization")
    plans = plans_json(FLAT, (4, 8), schemes=schemes)
    ct, other = reading.read(plans, dataset_json(("CT", "mask")), "3d_fullres").channels
    assert ct == nnunet_folder.Channel("CT", "CTNormalization", False, mean=40, std=20, low=-30, high=150)
    assert other == nnunet_folder.Channel("mask", "NoNormalization", False)


def test_a_label_that_is_ignored_is_no_class():
    dataset = dataset_json()
    dataset["labels"] |= {"organ": [1], "ignore": 3}
    found = reading.read(plans_json(FLAT, (4, 8)), dataset, "3d_fullres")
    assert found.labels == ("background", "organ", "tumour") and found.ignore == 3
    assert found.build().num_classes == 3


def test_one_number_stands_for_all_stages_and_axes():
    plans = plans_json(FLAT, (4, 8))
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    changed = {"kernel_sizes": 3, "strides": [1, [2, 2]], "features_per_stage": 4, "n_conv_per_stage": 2}
    arguments |= changed | {"n_conv_per_stage_decoder": 1, "nonlin": "torch.nn.ReLU", "stem_channels": 4}
    arguments["block"] = "dynamic_network_architectures.building_blocks.residual.BasicBlockD"
    found = reading.read(plans, dataset_json(), "3d_fullres").network
    assert found["kernels"] == ((3, 3), (3, 3)) and found["strides"] == ((1, 1), (2, 2))
    assert (found["features"], found["depths"], found["decoder_depths"]) == ((4, 4), (2, 2), (1,))
    assert found["negative_slope"] == 0.0


DEEPER = ("configurations", "3d_fullres")
ARGUMENTS = (*DEEPER, "architecture", "arch_kwargs")
GONE = object()


@pytest.mark.parametrize(
    ("file", "place", "value", "message"),
    [
        ("dataset", ("labels", "whole"), [1, 2], "labels has regions, such as 'whole', which may overlap"),
        ("dataset", ("labels", "tumour"), 3, r"labels are \[0, 1, 3\]; they must be 0, 1"),
        ("dataset", ("labels", "tumour"), 1.5, "labels has other than whole numbers"),
        ("dataset", ("labels", "ignore"), 7, "the label 'ignore' is 7; it must be the highest, 3"),
        ("dataset", ("labels",), GONE, r"dataset.json: labels is missing; nnU-Net 2 writes an object there"),
        ("dataset", ("channel_names",), {"0": "a", "1": "b"}, "has 2 channels, .* 1 normalization_schemes"),
        ("dataset", ("channel_names",), {"1": "a"}, "the keys of channel_names are 1; they must be 0, 1"),
        ("plans", ("configurations",), GONE, r"plans.json: configurations is missing"),
        ("plans", ("transpose_forward",), [0, 1], "transpose_forward is .*0, 1 and 2 in some order"),
        ("plans", (*DEEPER, "previous_stage"), "3d_lowres", "takes the labels of '3d_lowres' beside the image"),
        ("plans", (*DEEPER, "patch_size"), [4, "8"], r"patch_size is \[4, '8'\]; nnU-Net 2 writes some whole numbers"),
        ("plans", (*DEEPER, "patch_size"), [4, 7], r"by the strides it must be a multiple of \[1, 2\]"),
        ("plans", (*DEEPER, "patch_size"), [4, 4, 8], "conv_op is '.*Conv2d', and patch_size has 3 entries"),
        ("plans", (*DEEPER, "spacing"), [1.0], r"spacing is \[1.0\]; nnU-Net 2 writes 2 numbers there"),
        ("plans", (*DEEPER, "normalization_schemes"), ["Mine"], "scheme 'Mine' is unknown; known are ZScore"),
        (
            "plans",
            (*DEEPER, "architecture", "network_class_name"),
            "mine.SwinUNETR",
            "the network is 'SwinUNETR'; known here are PlainConvUNet and ResidualEncoderUNet",
        ),
        ("plans", (*ARGUMENTS, "nonlin"), "torch.nn.GELU", "nonlin is 'torch.nn.GELU'; known here are LeakyReLU"),
        ("plans", (*ARGUMENTS, "nonlin_first"), True, "the network has nonlin_first = True, for which"),
        ("plans", (*ARGUMENTS, "stem_channels"), 16, "the network has stem_channels = 16, for which"),
        ("plans", (*ARGUMENTS, "squeeze_excitation"), 2, "the network has squeeze_excitation = 2, for which"),
        ("plans", (*ARGUMENTS, "block"), "residual.BottleneckD", "the network has block = 'residual.BottleneckD'"),
        ("plans", (*ARGUMENTS, "norm_op"), None, "norm_op is None; known here are InstanceNorm2d and BatchNorm2d"),
        ("plans", (*ARGUMENTS, "norm_op_kwargs"), {"eps": 1e-3}, "eps in norm_op_kwargs is 0.001"),
        ("plans", (*ARGUMENTS, "kernel_sizes"), [[1, 3], [2, 3]], "cannot be built: kernels is .* an odd whole number"),
        ("plans", (*ARGUMENTS, "strides"), [[1, 1], [1]], r"strides is \[1\]; nnU-Net 2 writes 2 whole numbers there"),
        ("plans", (*ARGUMENTS, "n_stages"), 3, r"features_per_stage is \[2, 3\]; nnU-Net 2 writes 3 whole numbers"),
    ],
)
def test_what_cannot_be_followed_is_named(file, place, value, message):
    given = {"plans": plans_json(FLAT, (4, 8)), "dataset": dataset_json()}
    of = given[file]
    for name in place[:-1]:
        of = of[name]
    if value is GONE:
        del of[place[-1]]
    else:
        of[place[-1]] = value
    with pytest.raises(InputError, match=message) as error:
        reading.read(**given, configuration="3d_fullres")
    assert "\n" not in str(error.value)


def test_any_entry_that_is_of_another_kind_is_one_line():
    """Every entry of both files in turn becomes a text, a list or null: an error of one line, or it does not matter."""
    given = {"plans": plans_json(FLAT, (4, 8), schemes=("CTNormalization",)), "dataset": dataset_json()}

    def places(value, place=()):
        yield place
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(len(value)):
                yield from places(value[key], (*place, key))

    refused = 0
    for place in [one for one in places(given) if len(one) > 1]:
        for other in ("text", [], None, -1, float("nan"), {}):
            changed = copy.deepcopy(given)
            of = changed
            for name in place[:-1]:
                of = of[name]
            of[place[-1]] = other
            try:
                reading.read(**changed, configuration="3d_fullres")
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "plans.json").unlink(), r"plans\.json is missing; copy it from where"),
        (lambda folder: (folder / "dataset.json").write_text("{"), r"dataset\.json: cannot be read \(Expecting"),
        (lambda folder: (folder / "plans.json").write_text("[1]"), r"plans\.json: is no JSON object"),
        (lambda folder: (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"PK\3\4"), "damaged"),
        (lambda folder: (folder / "fold_0" / "checkpoint_final.pth").unlink(), "holds neither .*copy them from where"),
    ],
)
def test_bad_folders_are_one_line(tmp_path, drawn, spoil, message):
    folder = write_folder(tmp_path / "folder", plans_json(FLAT, (4, 8)), dataset_json(), drawn(FLAT))
    spoil(folder)
    with pytest.raises(InputError, match=message) as error:
        nnunet_folder.from_folder(folder)
    assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        nnunet_folder.from_folder(tmp_path / "nowhere")


def test_tensors_of_another_network_are_named_with_their_file(tmp_path, drawn):
    write_folder(tmp_path, plans_json(FLAT, (4, 8)), dataset_json(labels=("a", "b")), drawn(FLAT))
    with pytest.raises(
        InputError, match=r"describe \(these are the tensors of nnunet with num_classes=3.*copy all three"
    ):
        nnunet_folder.from_folder(tmp_path)


def test_notes_are_plain_values_alone(tmp_path, drawn):
    said = {"epoch": 3, "a": {"b": {"c": "text"}}, "list": [1, 2.5, None], "deep": [[1]], "on": True}
    write_folder(tmp_path, plans_json(FLAT, (4, 8)), dataset_json(), drawn(FLAT), beside=said)
    names = ("epoch", "a.b.c", "a.b", "list", "deep", "on", "network_weights", "nothing", "epoch.more")
    found = weight_files.notes(tmp_path / "fold_0" / "checkpoint_final.pth", names)
    assert found == {"epoch": 3, "a.b.c": "text", "list": (1, 2.5, None), "on": True}
    np.savez(tmp_path / "file.npz", a=np.ones(2))
    assert weight_files.notes(tmp_path / "file.npz", ["a"]) == {}
