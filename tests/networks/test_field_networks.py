"""Networks that people have, from the libraries that they use, beside their own logits and gradients.

python -m tests.networks.test_field_networks    # audits them too, and prints the table of docs/networks.md
"""

import functools
import importlib
import inspect
import json
import pathlib
import tempfile
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import networks
from jaxseg.audit import audit, run
from jaxseg.data import builders
from tests import bright_squares

torch = pytest.importorskip("torch", reason="needs PyTorch (make test-torch)")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # theirs

torch.set_num_threads(1)  # networks are small, and the threads of several processes wait for each other
SIDE, CASES = 64, 16
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
from_torch = functools.partial(networks.from_torch, image_size=SIDE, normalise=IMAGENET, output="logits")


def smp_unet(library, encoder, classes):
    module = library.Unet(encoder, encoder_weights=None, classes=classes)
    return module, from_torch(module, num_classes=max(classes, 2), bottleneck="encoder.layer4")


def smp_segformer(library):
    module = library.Segformer("mit_b0", encoder_weights=None, classes=3)
    return module, from_torch(module, num_classes=3, bottleneck="encoder.patch_embed4.proj")


def monai_unet(library):
    module = library.UNet(2, in_channels=3, out_channels=2, channels=(4, 8, 16), strides=(2, 2))
    return module, from_torch(module, num_classes=2, bottleneck="model.1.submodule.1.submodule")


def monai_unet_of_volumes(library):
    module = library.UNet(3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2))
    return module, networks.from_torch(module, num_classes=2, image_size=(8, 16, 24), channels=1, output="logits")


def monai_basic_unet(library):
    module = library.BasicUNet(2, in_channels=3, out_channels=2, features=(4, 4, 8, 8, 8, 4))
    return module, from_torch(module, num_classes=2, bottleneck="down_4")


def monai_dynunet(library):
    module = library.DynUNet(2, 3, 3, (3, 3, 3), (1, 2, 2), (2, 2), deep_supervision=True)
    return module, from_torch(module, num_classes=3, bottleneck="bottleneck")


def monai_swin_unetr(library):
    module = library.SwinUNETR(in_channels=3, out_channels=3, feature_size=12, spatial_dims=2)
    return module, from_torch(module, num_classes=3, bottleneck="encoder10")


def torchvision_deeplab(library):
    make = library.models.segmentation.deeplabv3_mobilenet_v3_large
    module = make(weights=None, weights_backbone=None, num_classes=3, aux_loss=True)
    return module, from_torch(module, num_classes=3, bottleneck="classifier.0")


def nnunet_plain(library):
    further = {"norm_op": torch.nn.InstanceNorm2d, "nonlin": torch.nn.ReLU, "deep_supervision": True}
    module = library.PlainConvUNet(
        3, 3, (4, 8, 8), torch.nn.Conv2d, 3, (1, 2, 2), 1, 3, 1, norm_op_kwargs={}, **further
    )
    return module, from_torch(module, num_classes=3, bottleneck="encoder.stages.2")


def nnunet_residual(library):
    further = {"norm_op": torch.nn.InstanceNorm2d, "nonlin": torch.nn.ReLU, "deep_supervision": True}
    module = library.ResidualEncoderUNet(
        3, 3, (4, 8, 8), torch.nn.Conv2d, 3, (1, 2, 2), (1, 2, 2), 3, 1, norm_op_kwargs={}, **further
    )
    return module, from_torch(module, num_classes=3, bottleneck="encoder.stages.2")


SMP, MONAI = "segmentation_models_pytorch", "monai.networks.nets"
NNUNET = "dynamic_network_architectures.architectures.unet"
UNETS = {
    f"smp Unet {encoder}, {classes} {'class' if classes == 1 else 'classes'}": (
        SMP,
        functools.partial(smp_unet, encoder=encoder, classes=classes),
    )
    for encoder in ("resnet18", "resnet34", "resnet50")
    for classes in (1, 3)
}
FIELD = UNETS | {
    "smp SegFormer mit_b0": (SMP, smp_segformer),
    "MONAI UNet": (MONAI, monai_unet),
    "MONAI BasicUNet": (MONAI, monai_basic_unet),
    "MONAI DynUNet": (MONAI, monai_dynunet),
    "MONAI SwinUNETR": (MONAI, monai_swin_unetr),
    "nnU-Net plain": (NNUNET, nnunet_plain),
    "nnU-Net residual encoder": (NNUNET, nnunet_residual),
    "torchvision DeepLabV3": ("torchvision", torchvision_deeplab),
}
TESTED = FIELD | {"MONAI UNet of volumes": (MONAI, monai_unet_of_volumes)}


def reference(module, network, images, layer):
    """Logits `[B,*n,K]` and their gradient with respect to a layer, by PyTorch alone."""
    mean, std = IMAGENET if network.channels == 3 else (0.0, 1.0)
    mean, std = (
        torch.tensor(values, dtype=torch.float32).reshape(-1, *(1,) * (images.ndim - 2)) for values in (mean, std)
    )
    # in single precision as it is there: a ReLU at zero makes much of the last bit
    x = ((torch.from_numpy(np.moveaxis(images, -1, 1).copy()) + 1) / 2 - mean) / std
    held = []

    def cut(part, inputs, output):
        held.append(output.detach().clone().requires_grad_())
        return held[0] * 1

    hook = module.get_submodule(layer).register_forward_hook(cut)
    answer = module.eval()(x)
    hook.remove()
    logits = answer["out"] if isinstance(answer, dict) else answer[0] if isinstance(answer, list) else answer
    logits = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
    logits[:, 1].sum().backward()
    return tuple(np.moveaxis(one.detach().numpy(), 1, -1) for one in (logits, held[0].grad))


def differences(make, library):
    """The network, and the largest ones of logits, with a layer replaced by itself too, and of gradients.

    They are shares of the largest logit or gradient.
    """
    torch.manual_seed(0)
    module, network = make(library)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *network.sides, network.channels)).astype(np.float32)
    layer = network.roles.convolutions[len(network.roles.convolutions) // 2]
    logits, slopes = reference(module, network, images, layer)

    @jax.jit
    def ask(images):
        found, activations = network.captured(images, (layer,))
        again, pull_back = jax.vjp(lambda x: network.replaced(images, {layer: x}), activations[layer])
        return found, again, pull_back(jnp.zeros_like(again).at[..., 1].set(1.0))[0]

    found, again, found_slopes = ask(images)
    gap = lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max())
    return network, gap(found, logits), gap(again, logits), gap(found_slopes, slopes)


def glue(make):
    """Lines from the module to the page: those that make it a network, and one that has it audited."""
    lines = inspect.getsource(getattr(make, "func", make)).strip().splitlines()
    return sum(not line.isspace() for line in lines[[line.strip()[:7] for line in lines].index("return ") :]) + 1


def audited(network, folder):
    """Seconds of an audit, and what it did not ask: `{probe, or probe and score: reason}`."""
    with tempfile.TemporaryDirectory() as work:
        start = time.process_time()
        audit(network, folder, work, cases=CASES, autoencoder_steps=20)
        seconds = time.process_time() - start
        rows = json.loads(pathlib.Path(work, "results.json").read_text())["numbers"]
    reasons = [(row, row["convention"].partition("not asked: ")[2]) for row in rows]
    return seconds, {f"{row['probe']}, {row['where']}": why for row, why in reasons if why}


@pytest.fixture(params=TESTED)
def field(request):
    """`make, library`."""
    package, make = TESTED[request.param]
    name = package.partition(".")[0]
    pytest.importorskip(name, reason=f"needs {name} (pip install it beside PyTorch)")
    return make, importlib.import_module(package)


def test_networks_of_the_field_say_what_they_say_themselves(field):
    make, library = field
    _, logits, replaced, slopes = differences(make, library)
    assert logits < 1e-5 and replaced < 1e-5 and slopes < 1e-4 and glue(make) <= 5


def table():
    """Printed as it stands in docs/networks.md; what was not asked below."""
    folders = {}
    with tempfile.TemporaryDirectory() as data:
        for classes in (2, 3):
            raw = pathlib.Path(data, str(classes))
            raw.mkdir()
            bright_squares.write(raw, SIDE, test=CASES, domains=("one", "two"), classes=classes)
            folders[classes] = builders.prepare(f"folder/squares{classes}", data_dir=data, manual_dir=raw)
        print("| network | logits | a layer replaced | gradient | audit | probes asked | lines |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        nothing = {}
        for name, (package, make) in FIELD.items():
            network, *gaps = differences(make, importlib.import_module(package))
            seconds, reasons = audited(network, folders[network.num_classes])
            of, probes = len(run.all_probes()), {which.partition(",")[0] for which in reasons if "not asked" in which}
            numbers = " | ".join(f"{gap:.1e}" for gap in gaps)
            print(f"| {name} | {numbers} | {seconds:.0f} s | {of - len(probes)} of {of} | {glue(make)} |", flush=True)
            nothing |= {(which, why): [*nothing.get((which, why), []), name] for which, why in reasons.items()}
        for (which, why), names in nothing.items():
            print(f"not asked: {which}: {why} ({', '.join(names)})")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    table()
