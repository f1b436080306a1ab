"""Networks of few layers: what surrounds a network does not depend on its depth, and compiling takes its time by it."""

import math

import flax.linen as nn
import jax.numpy as jnp
import pytest

from jaxseg.models import autoencoder, layers, skeleton
from jaxseg.training import checks


class Pixelwise(nn.Module):
    """Logits and features of a pixel are of that pixel alone: nothing leaks in from anywhere else."""

    num_classes: int

    def setup(self):
        self.hidden, self.head = nn.Dense(6), nn.Dense(self.num_classes)

    def __call__(self, images, train=False):
        return self.head(nn.relu(self.hidden(images)))


class Halved(nn.Module):
    """In place of an autoencoder."""

    def __call__(self, x):
        return 0.5 * x

    def encode(self, x):
        return jnp.mean(x, (1, 2))


class Shallow(skeleton.UNetSkeleton):
    """A convolution with its norm, and a head."""

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


class ShallowAutoencoder(autoencoder.Autoencoder):
    """The stages beside the dense layers and these, without the blocks before and behind them."""

    def setup(self):
        self._check_options()
        self.contract = self.expand = ()
        self.squeeze = autoencoder.Stage(self._width, kernel=1)
        self.to_latent, self.to_log_variance = nn.Dense(self.latent), nn.Dense(self.latent)
        self.from_latent = nn.Dense(math.prod(self.shape[:-1]) * self._width)
        self.unsqueeze = autoencoder.Stage(self._width, kernel=1)
        self.last = layers.Conv(self.shape[-1], kernel=1, use_bias=True)

    @property
    def _sizes(self):
        return [tuple(self.shape[:-1])]


def shallow_model(config, num_classes):
    """In place of `checks.build_model`."""
    return Shallow(num_classes, norm=config.model.norm)


@pytest.fixture(scope="session")
def shallow():
    """A class of networks, of which XLA compiles a step several times as fast as one of a U-Net."""
    return Shallow


@pytest.fixture
def shallow_runs(monkeypatch):
    """Within the test, the network of every run is shallow."""
    monkeypatch.setattr(checks, "build_model", shallow_model)


@pytest.fixture(scope="module")
def shallow_autoencoders():
    """Within the file, so is every autoencoder of a layer."""
    made = lambda activations, **options: ShallowAutoencoder(tuple(activations.shape[1:]), **options)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(autoencoder, "for_activations", made)
        yield
