"""What nnU-Net writes and computes, in NumPy: tensors by name, the forward pass, the folder of a trained network."""

import itertools
import json

import numpy as np

from tests.torch_saves import Call, Global, storage, tensor, write_zip

# ---------------------------------------------------------------------------------------------------------------------
# Its network


def tensor_shapes(options, channels, classes):
    """Name -> shape of all tensors, each once, of a network with the options of `nnunet` in full; conv_bias is on."""
    shapes = {}
    rank = len(options["kernels"][0])

    def layer(name, read, width, kernel, bias=True):
        shapes[f"{name}.conv.weight"] = (width, read, *kernel)
        if bias:
            shapes[f"{name}.conv.bias"] = (width,)
        parts = ("weight", "bias") + (("running_mean", "running_var") if options["norm"] == "batch" else ())
        shapes.update({f"{name}.norm.{part}": (width,) for part in parts})

    features, kernels, strides = (options[name] for name in ("features", "kernels", "strides"))
    read = channels
    if options["encoder"] == "residual":
        layer("encoder.stem.convs.0", read, features[0], kernels[0])
        read = features[0]
    for i, (width, kernel, stride, depth) in enumerate(zip(features, kernels, strides, options["depths"], strict=True)):
        for j in range(depth):
            if options["encoder"] == "plain":
                layer(f"encoder.stages.{i}.0.convs.{j}", read, width, kernel)
            else:
                block = f"encoder.stages.{i}.blocks.{j}"
                layer(f"{block}.conv1", read, width, kernel)
                layer(f"{block}.conv2", width, width, kernel)
                if read != width:
                    layer(f"{block}.skip.{int(j == 0 and max(stride) > 1)}", read, width, (1,) * rank, bias=False)
            read = width
    for s in range(len(features) - 1):  # from the bottleneck up
        level = len(features) - 2 - s
        width = features[level]
        shapes[f"decoder.transpconvs.{s}.weight"] = (features[level + 1], width, *strides[level + 1])
        shapes[f"decoder.transpconvs.{s}.bias"] = (width,)
        for j in range(options["decoder_depths"][level]):
            layer(f"decoder.stages.{s}.convs.{j}", width if j else 2 * width, width, kernels[level])
        shapes[f"decoder.seg_layers.{s}.weight"] = (classes, width, *(1,) * rank)
        shapes[f"decoder.seg_layers.{s}.bias"] = (classes,)
    return shapes


def forward(tensors, images, strides, slope=0.01):
    """The logits `[B,*n,K]` of images `[B,*n,C]`."""

    def layer(name, x, stride=None, active=True):
        x = _norm(tensors, name, _conv(tensors, name, x, stride))
        return np.where(x > 0, x, slope * x) if active else x

    def block(name, x, stride):
        y = layer(f"{name}.conv2", layer(f"{name}.conv1", x, stride), active=False)
        for axis, step in enumerate(stride, 1):
            x = np.mean([np.take(x, range(i, x.shape[axis], step), axis) for i in range(step)], 0)
        for i in range(2):
            x = layer(f"{name}.skip.{i}", x, active=False) if f"{name}.skip.{i}.conv.weight" in tensors else x
        return np.where(x + y > 0, x + y, slope * (x + y))

    def names(pattern, probe):
        found = (pattern.format(j) for j in itertools.count())
        return itertools.takewhile(lambda name: f"{name}.{probe}" in tensors, found)

    x, once, skips = images.astype(np.float64), [1] * (images.ndim - 2), []
    if "encoder.stem.convs.0.conv.weight" in tensors:
        x = layer("encoder.stem.convs.0", x)
    for i, stride in enumerate(strides):
        for j, name in enumerate(names(f"encoder.stages.{i}.0.convs.{{}}", "conv.weight")):
            x = layer(name, x, once if j else stride)
        for j, name in enumerate(names(f"encoder.stages.{i}.blocks.{{}}", "conv1.conv.weight")):
            x = block(name, x, once if j else stride)
        skips.append(x)
    skips.pop()
    for s in range(len(strides) - 1):
        x = np.concatenate([_enlarged(tensors, f"decoder.transpconvs.{s}", x), skips.pop()], -1)
        for name in names(f"decoder.stages.{s}.convs.{{}}", "conv.weight"):
            x = layer(name, x)
    weight = tensors[f"decoder.seg_layers.{s}.weight"]
    return x @ weight.reshape(weight.shape[:2]).T + tensors[f"decoder.seg_layers.{s}.bias"]


def _conv(tensors, name, x, stride):
    weight = tensors[f"{name}.conv.weight"].astype(np.float64)
    axes = tuple(range(1, x.ndim - 1))
    sides = weight.shape[2:]
    padded = np.pad(x, [(0, 0), *((side // 2, side // 2) for side in sides), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, sides, axes)  # [B,*n,C,*k]
    windows = windows[(slice(None), *(slice(None, None, step) for step in stride or [1] * len(axes)))]
    kept = range(x.ndim - 1, windows.ndim)
    return np.tensordot(windows, weight, (kept, range(1, weight.ndim))) + tensors.get(f"{name}.conv.bias", 0.0)


def _norm(tensors, name, x):
    axes = tuple(range(1, x.ndim - 1))
    mean, variance = (tensors.get(f"{name}.norm.running_{part}") for part in ("mean", "var"))
    if mean is None:
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * tensors[f"{name}.norm.weight"] + tensors[f"{name}.norm.bias"]


def _enlarged(tensors, name, x):
    weight = tensors[f"{name}.weight"].astype(np.float64)
    steps = weight.shape[2:]
    sizes = [size * step for size, step in zip(x.shape[1:-1], steps, strict=True)]
    out = np.zeros((x.shape[0], *sizes, weight.shape[1]))
    for offset in np.ndindex(*steps):
        places = tuple(slice(first, None, step) for first, step in zip(offset, steps, strict=True))
        out[(slice(None), *places)] = x @ weight[(slice(None), slice(None), *offset)]
    return out + tensors[f"{name}.bias"]


def with_copies(tensors):
    """All names that its state dict has for the tensors."""
    found = {}
    for name, value in tensors.items():
        inner = name.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")
        for one in (name, inner):
            found[one] = value
            if one.startswith("encoder."):
                found[f"decoder.{one}"] = value
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Its files


def plans_json(options, patch_size, *, configuration="3d_fullres", schemes=("ZScoreNormalization",)):
    """`plans.json` of one configuration, whose network has the options of `nnunet` in full."""
    rank = len(patch_size)
    residual = options["encoder"] == "residual"
    lists = lambda name: [list(one) for one in options[name]]
    arguments = {
        "n_stages": len(options["features"]),
        "features_per_stage": list(options["features"]),
        "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
        "kernel_sizes": lists("kernels"),
        "strides": lists("strides"),
        "n_blocks_per_stage" if residual else "n_conv_per_stage": list(options["depths"]),
        "n_conv_per_stage_decoder": list(options["decoder_depths"])[::-1],
        "conv_bias": True,
        "norm_op": {
            "instance": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
            "batch": f"torch.nn.modules.batchnorm.BatchNorm{rank}d",
        }[options["norm"]],
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    of = {
        "data_identifier": f"nnUNetPlans_{configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "median_image_size_in_voxels": [2.0 * size for size in patch_size],
        "spacing": [3.0, 0.8, 0.8][-rank:],
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [False] * len(schemes),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    intensities = {"mean": 40.0, "std": 20.0, "percentile_00_5": -30.0, "percentile_99_5": 150.0, "median": 39.0}
    return {
        "dataset_name": "Dataset001_Drawn",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [2, 0, 1],
        "transpose_backward": [1, 2, 0],
        "configurations": {configuration: of},
        "foreground_intensity_properties_per_channel": {str(i): intensities for i in range(len(schemes))},
    }


def dataset_json(channels=("MR",), labels=("background", "organ", "tumour")):
    """`dataset.json` of classes that exclude each other."""
    return {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {name: i for i, name in enumerate(labels)},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def write_folder(folder, plans, dataset, tensors, *, fold=0, name="checkpoint_final.pth", prefix="", beside=None):
    """The folder of a trained network, with a checkpoint as torch.save writes it; `beside` replaces all else in it."""
    (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    keys = {id(value): str(i) for i, value in enumerate({id(one): one for one in tensors.values()}.values())}
    views = {
        f"{prefix}{name}": tensor(
            storage("Float", keys[id(value)], value.size),
            value.shape,
            tuple(step // value.itemsize for step in value.strides),
        )
        for name, value in tensors.items()
    }
    number = Call((Global("numpy._core.multiarray scalar"), "f8", Call((Global("_codecs encode"), "\0", "latin1"))))
    (configuration,) = plans["configurations"]
    content = {"network_weights": views} | (
        {
            "optimizer_state": {"state": {0: {"momentum_buffer": next(iter(views.values()))}}, "param_groups": []},
            "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 12},
            "logging": {"mean_fg_dice": [number], "dice_per_class_or_region": [[number, number]]},
            "_best_ema": number,
            "current_epoch": 1000,
            "init_args": {
                "plans": plans,
                "configuration": configuration,
                "fold": fold,
                "dataset_json": dataset,
                "device": Call((Global("torch device"), "cuda")),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": tuple(range(len(plans["configurations"][configuration]["patch_size"]))),
        }
        if beside is None
        else beside
    )
    write_zip(folder / f"fold_{fold}" / name, content, {keys[id(one)]: one for one in tensors.values()})
    return folder


PICTURES = {"encoder": "plain", "features": (2, 4), "kernels": ((3, 3), (3, 3)), "strides": ((1, 1), (2, 2))}
PICTURES |= {"depths": (1, 1), "decoder_depths": (1,), "norm": "instance"}


def write_for_pictures(folder, side, classes):
    """The folder of the smallest 2-D network for RGB files, with drawn weights, and its tensors by name."""
    written = plans_json(PICTURES, (side, side), configuration="2d", schemes=("RGBTo01Normalization",) * 3)
    written |= {"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}
    written["configurations"]["2d"]["spacing"] = [1.0, 1.0]
    dataset = dataset_json(("R", "G", "B"), classes) | {"file_ending": ".png"}
    random = np.random.default_rng(0)
    shapes = tensor_shapes(PICTURES, 3, len(classes))
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return write_folder(folder, written, dataset, with_copies(tensors)), tensors
