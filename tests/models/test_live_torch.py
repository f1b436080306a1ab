"""A PyTorch network in this process, saved, read and compared; skipped where PyTorch is not installed."""

import argparse

import jax
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import weight_files, weights

torch = pytest.importorskip("torch", reason="needs PyTorch (make test-torch)")
pytestmark = pytest.mark.torch

WIDTHS = (4, 6, 8)
NORMS = {
    "batch": torch.nn.BatchNorm2d,
    "instance": lambda width: torch.nn.InstanceNorm2d(width, affine=True),
    "group": lambda width: torch.nn.GroupNorm(np.gcd(8, width), width),
}


class DoubleConv(torch.nn.Module):
    def __init__(self, read, middle, out, norm):
        super().__init__()
        layers = []
        for a, b in ((read, middle), (middle, out)):
            layers += [torch.nn.Conv2d(a, b, 3, padding=1), NORMS[norm](b), torch.nn.ReLU()]
        self.double_conv = torch.nn.Sequential(*layers)

    def forward(self, x):
        return self.double_conv(x)


class Down(torch.nn.Module):
    def __init__(self, read, out, norm):
        super().__init__()
        self.maxpool_conv = torch.nn.Sequential(torch.nn.MaxPool2d(2), DoubleConv(read, out, out, norm))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(torch.nn.Module):
    def __init__(self, below, width, out, upsample, norm):
        super().__init__()
        if upsample == "transpose":
            self.up = torch.nn.ConvTranspose2d(below, width, 2, stride=2)
        else:
            self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=upsample == "bilinear_aligned")
        middle = width
        self.conv = DoubleConv(width + (width if upsample == "transpose" else below), middle, out, norm)

    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(x)], 1))


class Net(torch.nn.Module):
    """Two poolings; names and order of the shortcut paper's network."""

    def __init__(self, upsample, norm, classes=2):
        super().__init__()
        a, b, c = WIDTHS
        transpose = upsample == "transpose"
        self.inc = DoubleConv(3, a, a, norm)
        self.down1, self.down2 = Down(a, b, norm), Down(b, c, norm)
        self.up1 = Up(c, b, b if transpose else a, upsample, norm)
        self.up2 = Up(b if transpose else a, a, a, upsample, norm)
        self.outc = torch.nn.Module()
        self.outc.conv = torch.nn.Conv2d(a, classes, 1)

    def forward(self, x):
        first = self.inc(x)
        second = self.down1(first)
        return self.outc.conv(self.up2(self.up1(self.down2(second), second), first))


@pytest.mark.parametrize(
    ("upsample", "norm"),
    [
        ("bilinear", "batch"),
        ("bilinear_aligned", "batch"),
        ("transpose", "batch"),
        ("transpose", "group"),
        ("bilinear", "instance"),
    ],
)
def test_a_trained_network_is_saved_read_and_gives_the_same_logits(tmp_path, upsample, norm):
    torch.manual_seed(0)
    net = Net(upsample, norm)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    images = torch.randn(2, 3, 16, 24)
    for _ in range(5):  # so that running statistics, scales and biases are no longer those of the start
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), (images.mean(1) > 0).long()).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        expected = net(images).permute(0, 2, 3, 1).numpy()
    torch.save(net.state_dict(), tmp_path / "net.pth")

    module = models.build("unet", 2, features=WIDTHS, upsample=upsample, norm=norm)
    nhwc = images.permute(0, 2, 3, 1).numpy()
    variables = weights.from_torch(module, weight_files.read(tmp_path / "net.pth"), nhwc.shape)
    logits = jax.jit(module.apply)(variables, nhwc)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("wrap", ["grays beside the tensors", "compiled", "whole", "Lightning"])
def test_a_network_with_one_logit_is_read_however_it_was_saved(tmp_path, wrap):
    torch.manual_seed(0)
    net = Net("transpose", "batch", classes=1).eval()
    images = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        expected = torch.sigmoid(net(images))[:, 0].numpy()
    tensors = net.state_dict()
    content = {
        "grays beside the tensors": lambda: {**tensors, "mask_values": [0, 255]},
        "compiled": lambda: {"model": torch.compile(net).state_dict(), "epoch": 3},
        "whole": lambda: torch.nn.DataParallel(net),
        "Lightning": lambda: {
            "state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()} | {"criterion.weight": images},
            "hyper_parameters": argparse.Namespace(lr=0.1, root=tmp_path),
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        },
    }[wrap]()
    torch.save(content, tmp_path / "net.ckpt")
    module = models.build("unet", 2, features=WIDTHS, upsample="transpose")
    nhwc = images.permute(0, 2, 3, 1).numpy()
    variables = weights.from_torch(module, weight_files.read(tmp_path / "net.ckpt"), nhwc.shape)
    probabilities = jax.nn.softmax(jax.jit(module.apply)(variables, nhwc))
    np.testing.assert_allclose(probabilities[..., 1], expected, atol=1e-5)
