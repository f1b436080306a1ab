"""The networks of nnU-Net itself, saved as its trainer saves them, beside what is read of the folder."""

import json
import pydoc

import jax
import numpy as np
import pytest

from jaxseg.models import layouts, matching, nnunet_folder, weight_files
from tests.nnunet import dataset_json, plans_json

torch = pytest.importorskip("torch", reason="needs PyTorch (make test-torch)")
pytest.importorskip("dynamic_network_architectures", reason="needs dynamic-network-architectures (make test-torch)")
pytestmark = pytest.mark.torch

CHANNELS, CLASSES = ("CT", "PET"), ("background", "organ", "tumour")
PLAIN_2D = {
    "encoder": "plain",
    "features": (8, 16, 24),
    "kernels": ((3, 3),) * 3,
    "strides": ((1, 1), (2, 2), (2, 2)),
    "depths": (2, 2, 2),
    "decoder_depths": (2, 2),
    "norm": "instance",
}
PLAIN_3D = PLAIN_2D | {"kernels": ((3, 3, 3),) * 3, "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2))}
FLAT = {"kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2))}
UNEVEN = {"depths": (1, 3, 2), "decoder_depths": (3, 1)}
RESIDUAL = {"encoder": "residual", "depths": (1, 3, 2), "decoder_depths": (1, 1)}
NETWORKS = {
    "plain, 2-D": (PLAIN_2D, (16, 24)),
    "plain, 2-D, batch norm": (PLAIN_2D | {"norm": "batch"}, (16, 24)),
    "plain, 3-D": (PLAIN_3D, (8, 8, 12)),
    "plain, anisotropic": (PLAIN_3D | FLAT | UNEVEN, (4, 8, 12)),
    "residual, 2-D": (PLAIN_2D | RESIDUAL, (16, 24)),
    "residual, 2-D, batch norm": (PLAIN_2D | RESIDUAL | {"norm": "batch"}, (16, 24)),
    "residual, 3-D": (PLAIN_3D | RESIDUAL, (8, 8, 12)),
    "residual, anisotropic, equal widths": (PLAIN_3D | FLAT | RESIDUAL | {"features": (8, 16, 16)}, (4, 8, 12)),
}


def network_of(plans):
    """As nnU-Net builds it, with random numbers in every parameter."""
    (of,) = plans["configurations"].values()
    arguments = dict(of["architecture"]["arch_kwargs"])
    for name in of["architecture"]["_kw_requires_import"]:
        arguments[name] = pydoc.locate(arguments[name]) if arguments[name] else None
    torch.manual_seed(0)
    build = pydoc.locate(of["architecture"]["network_class_name"])
    network = build(input_channels=len(CHANNELS), num_classes=len(CLASSES), deep_supervision=True, **arguments)
    for tensor in network.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)
    return network


def trained(folder, plans, network):
    """The folder, after a step of training, with all that nnU-Net's `save_checkpoint` writes."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.99, nesterov=True)
    (name,) = plans["configurations"]
    size = plans["configurations"][name]["patch_size"]
    sum(output.square().mean() for output in network(torch.randn(2, len(CHANNELS), *size))).backward()
    optimizer.step()
    dataset = dataset_json(CHANNELS, CLASSES)
    (folder / "fold_0").mkdir()
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": torch.amp.GradScaler("cpu").state_dict(),
        "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float32(0.5)], "lrs": [1e-2]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {
            "plans": plans,
            "configuration": name,
            "fold": 0,
            "dataset_json": dataset,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": tuple(range(len(size))),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return network.eval()


@pytest.mark.parametrize(("options", "size"), NETWORKS.values(), ids=NETWORKS)
def test_logits_are_those_of_nnunets_network_and_every_tensor_is_used(tmp_path, options, size):
    plans = plans_json(options, size, schemes=("CTNormalization", "ZScoreNormalization"))
    network = trained(tmp_path, plans, network_of(plans))
    module, variables, read = nnunet_folder.from_folder(tmp_path)

    images = np.random.default_rng(0).standard_normal((2, *size, len(CHANNELS)), np.float32)
    with torch.no_grad():
        outputs = network(torch.from_numpy(np.moveaxis(images, -1, 1).copy()))
    expected = np.moveaxis(outputs[0].numpy(), 1, -1)  # the first of those for deep supervision is at full resolution
    logits = np.asarray(jax.jit(module.apply)(variables, images))
    print(f"largest difference {np.abs(logits - expected).max():.1e} of logits up to {np.abs(expected).max():.2f}")
    assert expected.std() > 0.05
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)

    taken = matching.of_network(module, read.image_shape).names
    rest = layouts.without_copies(network.state_dict()).keys() - taken
    lower_heads = {f"decoder.seg_layers.{s}" for s in range(len(options["features"]) - 2)}
    for name in rest:  # nothing but heads for training, counters, and what instance norm subtracts again
        owner, _, kind = name.rpartition(".")
        assert owner in lower_heads or kind == "num_batches_tracked" or (kind == "bias" and owner.endswith(".conv"))
        assert not (kind == "bias" and options["norm"] == "batch" and owner not in lower_heads)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_network_is_the_same(tmp_path):
    plans = plans_json(PLAIN_2D, (16, 24), schemes=("NoNormalization",) * 2)
    network = trained(tmp_path, plans, network_of(plans))
    plain = nnunet_folder.from_folder(tmp_path)[1]
    file = tmp_path / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save(content | {"network_weights": torch.compile(network).state_dict()}, file)
    assert all(name.startswith("_orig_mod.") for name in torch.load(file, weights_only=False)["network_weights"])
    assert weight_files.read(file).keys() == network.state_dict().keys()
    jax.tree.map(np.testing.assert_array_equal, nnunet_folder.from_folder(tmp_path)[1], plain)
