"""The network that `plans.json` describes, as options of `nnunet`."""

from typing import Any

from jaxseg.errors import InputError
from jaxseg.models.nnunet_folder import fields
from jaxseg.models.nnunet_folder.fields import PLANS, Json

# its class -> our encoder, and what it calls the depth of a stage
_ENCODERS = {"PlainConvUNet": ("plain", "n_conv_per_stage"), "ResidualEncoderUNet": ("residual", "n_blocks_per_stage")}
# arguments that are read below, or change nothing in what a trained network computes
_ARGUMENTS = {
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage_decoder", "conv_bias"),
    *("norm_op", "norm_op_kwargs", "nonlin", "nonlin_kwargs", "deep_supervision", "dropout_op", "dropout_op_kwargs"),
    *(depth for _, depth in _ENCODERS.values()),
}


def options(configuration: Json, rank: int) -> dict[str, Any]:
    """Options of the network `nnunet`, for a configuration of `rank` axes.

    Dropout is no part of them: it acts in training alone.

    Raises:
      InputError: something is missing or of another kind, or the network is one that `nnunet` cannot be.
    """
    name, arguments = _architecture(configuration)
    if name not in _ENCODERS:
        raise InputError(f"{PLANS}: the network is {name!r:.80}; known here are {' and '.join(_ENCODERS)}")
    encoder, depth = _ENCODERS[name]
    features = fields.integers(arguments, "features_per_stage", repeat=fields.number(arguments, "n_stages"))
    stages = len(features)
    _check_others(arguments, features[0])
    if _class(arguments, "conv_op") != f"Conv{rank}d":
        raise InputError(f"{PLANS}: conv_op is {arguments.get('conv_op')!r:.80}, and patch_size has {rank} entries")
    return {
        "encoder": encoder,
        "features": features,
        "kernels": _per_axis(arguments, "kernel_sizes", stages, rank),
        "strides": _per_axis(arguments, "strides", stages, rank),
        "depths": fields.integers(arguments, depth, repeat=stages),
        # nnU-Net counts them from the bottleneck
        "decoder_depths": fields.integers(arguments, "n_conv_per_stage_decoder", repeat=stages - 1)[::-1],
        "up_bias": bool(arguments.get("conv_bias", False)),
        "norm": _norm(arguments, rank),
        "negative_slope": _slope(arguments),
    }


def _architecture(configuration: Json) -> tuple[str, Json]:
    """The network's class and its arguments."""
    if "architecture" in configuration:
        given = fields.entry(configuration, "architecture", dict)
        return fields.entry(given, "network_class_name", str).rpartition(".")[2], fields.options(given, "arch_kwargs")
    # as before nnU-Net 2.4, whose network had no other options
    name, rank = (
        fields.entry(configuration, "UNet_class_name", str),
        len(fields.entry(configuration, "patch_size", list)),
    )
    first, most = (fields.number(configuration, of) for of in ("UNet_base_num_features", "unet_max_num_features"))
    depths = fields.integers(configuration, "n_conv_per_stage_encoder")
    _, depth = _ENCODERS.get(name, ("", "n_conv_per_stage"))
    return name, {
        "n_stages": len(depths),
        "features_per_stage": [min(first * 2**i, most) for i in range(len(depths))],
        "conv_op": f"Conv{rank}d",
        "kernel_sizes": fields.entry(configuration, "conv_kernel_sizes", list),
        "strides": fields.entry(configuration, "pool_op_kernel_sizes", list),
        depth: list(depths),
        "n_conv_per_stage_decoder": fields.entry(configuration, "n_conv_per_stage_decoder", list),
        "conv_bias": True,
        "norm_op": f"InstanceNorm{rank}d",
        "nonlin": "LeakyReLU",
    }


def _check_others(arguments: Json, width: int) -> None:
    for name, value in arguments.items():
        usual = (name == "block" and _class(arguments, name) == "BasicBlockD") or (
            name == "stem_channels" and value == width
        )
        if name not in _ARGUMENTS and value and not usual:
            raise InputError(
                f"{PLANS}: the network has {name} = {value!r:.80}, for which networks here have no option; train one "
                "as nnU-Net plans it"
            )


def _class(arguments: Json, name: str) -> str:
    """The last part of the name of a class."""
    return str(arguments.get(name)).rpartition(".")[2]


def _norm(arguments: Json, rank: int) -> str:
    kinds = {f"InstanceNorm{rank}d": "instance", f"BatchNorm{rank}d": "batch"}
    if _class(arguments, "norm_op") not in kinds:
        raise InputError(f"{PLANS}: norm_op is {arguments.get('norm_op')!r:.80}; known here are {' and '.join(kinds)}")
    epsilon = fields.options(arguments, "norm_op_kwargs").get("eps", 1e-5)
    if epsilon != 1e-5:
        raise InputError(
            f"{PLANS}: eps in norm_op_kwargs is {epsilon!r:.80}; norms here have 1e-5, as nnU-Net plans it"
        )
    return kinds[_class(arguments, "norm_op")]


def _slope(arguments: Json) -> float:
    """Of the activation below 0."""
    slopes = {"LeakyReLU": fields.options(arguments, "nonlin_kwargs").get("negative_slope", 0.01), "ReLU": 0.0}
    slope = slopes.get(_class(arguments, "nonlin"))
    if slope is None or not fields.is_number(slope):
        raise InputError(f"{PLANS}: nonlin is {arguments.get('nonlin')!r:.80}; known here are {' and '.join(slopes)}")
    return float(slope)


def _per_axis(arguments: Json, name: str, stages: int, rank: int) -> tuple[tuple[int, ...], ...]:
    """Numbers per stage and axis; one may stand for all axes of a stage, or of all stages."""
    given = arguments.get(name)
    values = given if isinstance(given, list | tuple) else [given] * stages
    return tuple(fields.integers({name: value}, name, repeat=rank) for value in values)
