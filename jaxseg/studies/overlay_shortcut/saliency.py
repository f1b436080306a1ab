"""Where the networks of the overlay study look: Grad-CAM, with marks and, at the same places, without."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.analysis import gradcam
from jaxseg.data import augment, pipeline
from jaxseg.models import capture
from jaxseg.studies.overlay_shortcut.images import Images, planes_of_labels
from jaxseg.studies.overlay_shortcut.settings import Settings


def measure(settings: Settings, model: nn.Module, variables: Any, images: Images) -> dict[str, np.ndarray]:
    """Grad-CAM of every test image for the class of its own organ, with marks and, at the same places, without.

    The outline of the organ, where calipers lie, has saliency of its own; the same places without marks show how much.

    Returns:
      `cover` `[N]`, share of the image that the marks cover; per kind K, annotated and unmarked images,
      `saliency_K` float16 `[N,n,n]`, and `share_K` `[N]`, what part of it lies on the marks' places.
    """
    size, batch_size = settings.run.data.image_size, settings.run.training.batch_size
    explain = functools.partial(_explain, model, variables, layer=settings.evaluation.saliency_layer, size=size)
    test, marks = images.scans["test"].annotated, images.marks("true")
    planes = planes_of_labels(test.labels)
    n = len(test)
    measures: dict[str, np.ndarray] = {"cover": np.zeros(n, np.float32)}
    for kind in ("annotated", images.unmarked):
        source = images.of(kind, "test").images
        saliency, share = np.zeros((n, size, size), np.float16), np.full(n, np.nan, np.float32)
        for plane in np.unique(planes[planes > 0]):
            cases = np.flatnonzero(planes == plane)
            for index, real in zip(*pipeline.whole_batches(len(cases), batch_size), strict=True):
                batch, own = cases[index], cases[index][real]
                answer = explain(source[batch], marks[batch], jnp.asarray(plane, jnp.int32))
                saliency[own], share[own], measures["cover"][own] = (np.asarray(x)[real] for x in answer)
        measures |= {f"saliency_{kind}": saliency, f"share_{kind}": share}
    return measures


@functools.partial(jax.jit, static_argnames=("model", "layer", "size"))
def _explain(
    model: nn.Module, variables: Any, image: jax.Array, marks: jax.Array, class_index: Any, *, layer: str, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Saliency `[B,n,n]`, the share of it on the marks `[B]`, and the share of the image under them `[B]`."""
    seen = augment.whole({"image": image, "labels": marks}, size=size)["images"]
    covered = jax.image.resize(marks.astype(jnp.float32), (len(marks), size, size), "linear")
    activations = capture.capture(model, variables, seen, [layer])[1][layer]
    rest = lambda x: capture.replace(model, variables, seen, {layer: lambda _: x})
    gradients = gradcam.score_gradients(rest, activations, class_index=class_index)
    saliency = gradcam.gradcam(activations, gradients, size=(size, size))
    return saliency, gradcam.saliency_share(saliency, covered), jnp.mean(covered, (1, 2))
