"""Networks that people have, from the libraries that they use, beside their own logits and gradients.

python -m tests.networks.test_field_networks    # prints a table of them
"""

import importlib
import inspect
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import networks

torch = pytest.importorskip("torch", reason="needs PyTorch (make test-torch)")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]  # theirs

torch.set_num_threads(1)  # networks are small, and the threads of several processes wait for each other
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def smp_unet(library):
    module = library.Unet("resnet18", encoder_weights=None, classes=1)
    return module, networks.from_torch(module, num_classes=2, image_size=64, normalise=IMAGENET, output="logits")


def smp_segformer(library):
    module = library.Segformer("mit_b0", encoder_weights=None, classes=3)
    return module, networks.from_torch(module, num_classes=3, image_size=64, normalise=IMAGENET, output="logits")


def monai_unet(library):
    module = library.UNet(2, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2))
    return module, networks.from_torch(module, num_classes=2, image_size=(32, 48), channels=1, output="logits")


def monai_unet_of_volumes(library):
    module = library.UNet(3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2))
    return module, networks.from_torch(module, num_classes=2, image_size=(8, 16, 24), channels=1, output="logits")


def monai_basic_unet(library):
    module = library.BasicUNet(2, in_channels=3, out_channels=2, features=(4, 4, 8, 8, 8, 4))
    return module, networks.from_torch(module, num_classes=2, image_size=32, output="logits")


def monai_dynunet(library):
    module = library.DynUNet(2, 1, 3, (3, 3, 3), (1, 2, 2), (2, 2), deep_supervision=True)
    return module, networks.from_torch(module, num_classes=3, image_size=32, channels=1, output="logits")


def monai_swin_unetr(library):
    module = library.SwinUNETR(in_channels=1, out_channels=3, feature_size=12, spatial_dims=2)
    return module, networks.from_torch(module, num_classes=3, image_size=64, channels=1, output="logits")


def torchvision_deeplab(library):
    make = library.models.segmentation.deeplabv3_mobilenet_v3_large
    module = make(weights=None, weights_backbone=None, num_classes=4, aux_loss=True)
    return module, networks.from_torch(module, num_classes=4, image_size=64, normalise=IMAGENET, output="logits")


def nnunet_plain(library):
    further = {"norm_op": torch.nn.InstanceNorm2d, "nonlin": torch.nn.ReLU, "deep_supervision": True}
    module = library.PlainConvUNet(
        1, 3, (4, 8, 8), torch.nn.Conv2d, 3, (1, 2, 2), 1, 3, 1, norm_op_kwargs={}, **further
    )
    return module, networks.from_torch(module, num_classes=3, image_size=32, channels=1, output="logits")


FIELD = {
    smp_unet: "segmentation_models_pytorch",
    smp_segformer: "segmentation_models_pytorch",
    monai_unet: "monai.networks.nets",
    monai_unet_of_volumes: "monai.networks.nets",
    monai_basic_unet: "monai.networks.nets",
    monai_dynunet: "monai.networks.nets",
    monai_swin_unetr: "monai.networks.nets",
    torchvision_deeplab: "torchvision",
    nnunet_plain: "dynamic_network_architectures.architectures.unet",
}


def reference(module, network, images, layer):
    """Logits `[B,*n,K]` and their gradient with respect to a layer, by PyTorch alone."""
    mean, std = IMAGENET if network.channels == 3 and network.sides == (64, 64) else (0.0, 1.0)
    x = torch.from_numpy(np.moveaxis(((images + 1) / 2 - mean) / std, -1, 1).astype(np.float32))
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
    """Largest ones of logits, with a layer replaced by itself too, and of gradients, as shares of the largest.

    And seconds, here and in PyTorch alone: of two forward passes here and one there, and of one backward.
    """
    torch.manual_seed(0)
    module, network = make(library)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *network.sides, network.channels)).astype(np.float32)
    layer = network.roles.convolutions[len(network.roles.convolutions) // 2]
    reference(module, network, images, layer)
    start = time.perf_counter()
    logits, slopes = reference(module, network, images, layer)
    theirs = time.perf_counter() - start

    @jax.jit
    def ask(images):
        found, activations = network.captured(images, (layer,))
        again, pull_back = jax.vjp(lambda x: network.replaced(images, {layer: x}), activations[layer])
        return found, again, pull_back(jnp.zeros_like(again).at[..., 1].set(1.0))[0]

    jax.block_until_ready(ask(images))
    start = time.perf_counter()
    found, again, found_slopes = jax.block_until_ready(ask(images))
    ours = time.perf_counter() - start
    gap = lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max())
    return gap(found, logits), gap(again, logits), gap(found_slopes, slopes), ours, theirs


def glue(make):
    """Lines that it takes."""
    return len(inspect.getsource(make).strip().splitlines()) - 1


@pytest.mark.parametrize("make", FIELD, ids=lambda make: make.__name__)
def test_networks_of_the_field_say_what_they_say_themselves(make):
    package = FIELD[make].partition(".")[0]
    pytest.importorskip(package, reason=f"needs {package} (pip install it beside PyTorch)")
    logits, replaced, slopes, *_ = differences(make, importlib.import_module(FIELD[make]))
    assert logits < 1e-5 and replaced < 1e-5 and slopes < 1e-4 and glue(make) <= 5


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"{'network':24}{'logits':>10}{'replaced':>10}{'gradient':>10}{'seconds':>9}{'alone':>9}{'lines':>7}")
    for make, package in FIELD.items():
        *gaps, ours, theirs = differences(make, importlib.import_module(package))
        numbers = "".join(f"{gap:10.1e}" for gap in gaps)
        print(f"{make.__name__:24}{numbers}{ours:9.2f}{theirs:9.2f}{glue(make):7}")
