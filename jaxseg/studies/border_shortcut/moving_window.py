"""The moving window (Lin, Weng et al. 2024, appendix Fig. 1): does a pixel keep its class when the window moves?"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import inference
from jaxseg.data import augment, pipeline
from jaxseg.metrics import regions
from jaxseg.networks import Network
from jaxseg.studies.base import at_even_quantiles
from jaxseg.studies.border_shortcut.settings import Settings


def window_starts(settings: Settings) -> np.ndarray:
    """Top left corners `[W,2]` of windows of half the source's side, on a square lattice from one end to the other."""
    source = settings.run.data.source_size
    steps = np.round(np.linspace(0, source - source // 2, settings.evaluation.windows_per_side)).astype(np.int32)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


def diagonal_starts(settings: Settings) -> np.ndarray:
    """Those of `window_starts` on the diagonal, which the figure shows."""
    return window_starts(settings)[:: settings.evaluation.windows_per_side + 1]


def measure(settings: Settings, network: Network, test: pipeline.InMemory) -> dict[str, np.ndarray]:
    """Agreement of the predictions of a window that moves over each image, and the windows of one image."""
    starts = window_starts(settings)
    size = settings.run.data.image_size

    @jax.jit
    def of_image(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        predictions = inference.predict(network, cut_windows(image, starts, size))
        masks, inside = place_windows(predictions > 0, starts, image.shape[0])
        return regions.window_agreement(masks, inside), predictions.astype(jnp.uint8)

    chosen = np.linspace(0, len(test.images) - 1, min(settings.evaluation.window_images, len(test.images))).astype(int)
    agreement = [np.asarray(of_image(jnp.asarray(test.images[i]))[0]) for i in chosen]
    shown = of_image(jnp.asarray(test.images[pick_case(test.labels)]))[1]
    diagonal = np.asarray(shown)[:: settings.evaluation.windows_per_side + 1]
    return {"agreement": np.array(agreement), "agreement_case": chosen, "windows": diagonal}


def cut_windows(image: jax.Array, starts: np.ndarray, size: int) -> jax.Array:
    """Windows of half the side of an image uint8 `[S,S,C]`, as the network sees quadrants: `[W,size,size,C]`."""
    half = image.shape[0] // 2
    crop = jax.vmap(lambda start: jax.lax.dynamic_slice(image, (start[0], start[1], 0), (half, half, image.shape[2])))
    windows = crop(jnp.asarray(starts))
    return augment.whole({"image": windows, "labels": jnp.zeros(windows.shape[:3], jnp.uint8)}, size=size)["images"]


def place_windows(masks: jax.Array, starts: np.ndarray, source: int) -> tuple[jax.Array, jax.Array]:
    """Window masks `[W,n,n]` back in the image (nearest pixel), and where each window lies: two bool `[W,S,S]`."""
    half = source // 2
    nearest = jax.image.resize(masks, (masks.shape[0], half, half), "nearest")
    empty = jnp.zeros((source, source), bool)
    put = jax.vmap(lambda mask, start: jax.lax.dynamic_update_slice(empty, mask, (start[0], start[1])))
    at = jnp.asarray(starts)
    return put(nearest, at), put(jnp.ones_like(nearest), at)


def pick_case(labels: np.ndarray) -> int:
    """The case of the moving-window figure: the one whose mask area is the median of all, so that nobody chose it."""
    areas = labels.reshape(len(labels), -1).sum(1)
    return at_even_quantiles(areas, 1)[0]
