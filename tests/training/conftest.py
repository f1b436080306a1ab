"""What tests of training share."""

import pytest

from jaxseg.models import layers, skeleton
from jaxseg.training import checks


class Shallow(skeleton.UNetSkeleton):
    """A convolution with its norm, and a head: what training does with a network does not depend on its depth."""

    norm: str = "batch"
    halvings = num_skips = 0

    def check(self):
        pass

    def setup(self):
        self.conv = layers.ConvNorm(2, norm=self.norm)
        self.head = layers.Conv(self.num_classes, kernel=1, use_bias=True)

    def encode(self, images, train=False):
        return self.conv(self.enter(images), train), ()

    def decode(self, bottleneck, skips, train=False):
        return self.leave(self.head(bottleneck))


@pytest.fixture(scope="session")
def shallow():
    """A class of networks, of which XLA compiles a step several times as fast as one of a U-Net."""
    return Shallow


@pytest.fixture
def shallow_runs(monkeypatch):
    """Within the test, the network of every run is shallow."""
    monkeypatch.setattr(checks, "build_model", lambda config, classes: Shallow(classes, norm=config.model.norm))
