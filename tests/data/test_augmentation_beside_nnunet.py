"""Augmentations beside those of nnU-Net: what both do to the same picture, over many draws."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data.augmentation import intensity, settings, spatial

pytest.importorskip("batchgeneratorsv2", reason="needs batchgeneratorsv2 (pip install it beside PyTorch)")
torch = pytest.importorskip("torch", reason="needs PyTorch (make test-torch)")
pytestmark = pytest.mark.torch

COUNT = 2000
CHANNELS = 2


def theirs(name):
    """The transform with the numbers of nnU-Net's trainer, always applied."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    each = {"synchronize_channels": False, "p_per_channel": 1}
    power = {"gamma": BGContrast((0.7, 1.5)), "p_retain_stats": 1} | each
    coarse = {"synchronize_axes": True, "ignore_axes": None, "allowed_channels": None}
    coarse |= {"synchronize_channels": False, "p_per_channel": 0.5}
    makers = {
        "noise": lambda: GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True),
        "blur": lambda: GaussianBlurTransform((0.5, 1.0), synchronize_channels=False, p_per_channel=0.5),
        "brightness": lambda: MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), **each),
        "contrast": lambda: ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, **each),
        "low_resolution": lambda: SimulateLowResolutionTransform((0.5, 1), **coarse),
        "inverted_gamma": lambda: GammaTransform(p_invert_image=1, **power),
        "gamma": lambda: GammaTransform(p_invert_image=0, **power),
        "rotate": lambda: SpatialTransform(
            (24, 20), 0, False, p_rotation=0.2, rotation=(-np.pi, np.pi), bg_style_seg_sampling=False
        ),
    }
    return makers[name]()


@pytest.fixture(scope="module")
def picture():
    random = np.random.default_rng(0)
    noise = random.normal(size=(CHANNELS, 24, 20))
    smooth = ndimage.gaussian_filter(noise, (0, 1.0, 1.0))
    smooth = (smooth - smooth.mean((1, 2), keepdims=True)) / smooth.std((1, 2), keepdims=True)
    return (smooth + np.array([0.0, 0.7])[:, None, None]).astype(np.float32)


@pytest.fixture(scope="module")
def ours(picture):
    """Name -> the picture changed many times, `[COUNT,C,H,W]`."""
    images = np.broadcast_to(np.moveaxis(picture, 0, -1), (COUNT, 24, 20, CHANNELS))
    turn = {"rotate": 180.0, "rotate_probability": 0.2, "fill": "constant", "fill_value": 0.0}

    @jax.jit
    def every(images, keys):
        seen = {"images": images, "labels": np.zeros(images.shape[:-1], np.int32)}
        names = [name for name in settings.INTENSITIES if name != "brightness_shift"]
        made = {name: intensity.change(keys, seen, settings.check_augmentation({name: 1.0})) for name in names}
        return made | {"rotate": spatial.move(keys, seen, settings.check_augmentation(turn))}

    made = jax.device_get(every(images, jax.random.split(jax.random.key(0), COUNT)))
    return {name: np.moveaxis(batch["images"], -1, 1) for name, batch in made.items()}


def described(images, picture):
    """Numbers of each picture, by channel, `[COUNT,C,6]`."""
    axes = (2, 3)
    difference = images - picture
    rough = np.square(np.diff(images, axis=2)).mean(axes) + np.square(np.diff(images, axis=3)).mean(axes)
    numbers = [images.mean(axes), images.std(axes), images.min(axes), images.max(axes), rough]
    return np.stack([*numbers, np.square(difference).mean(axes)], -1)


@pytest.mark.parametrize(
    "name", ["noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma", "rotate"]
)
def test_means_and_deviations_over_many_draws_are_nnunets(name, ours, picture):
    np.random.seed(0)  # noqa: NPY002 the global state is what they draw from
    torch.manual_seed(0)
    transform = theirs(name)
    changed = np.stack([transform(image=torch.from_numpy(picture.copy()))["image"].numpy() for _ in range(COUNT)])
    here, there = described(ours[name], picture), described(changed, picture)
    error = np.sqrt((here.var(0) + there.var(0)) / COUNT)
    assert (np.abs(here.mean(0) - there.mean(0)) < 4.5 * error + 1e-5).all()
    np.testing.assert_allclose(here.std(0), there.std(0), rtol=0.25, atol=2e-3)
