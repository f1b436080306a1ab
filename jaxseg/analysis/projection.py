"""Feature vectors in the plane in which they differ most."""

import numpy as np

from jaxseg.metrics import arrays


@arrays.native("vectors")
def principal_components(vectors: np.ndarray, *, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The largest principal components, signs fixed by the largest weight, and their shares of the variance.

    Args:
      vectors: `[P,D]`, as float32.
      count: k of them.

    Returns:
      `[P,k]` and `[k]` float32, the largest first.

    Raises:
      ValueError: not a matrix, without vectors, or of fewer than k channels.
    """
    if vectors.ndim != 2 or not len(vectors) or not 1 <= count <= vectors.shape[1]:
        raise ValueError(f"vectors {vectors.shape} must be [P,D] with at least {count} channels, the components wanted")
    vectors = np.ascontiguousarray(vectors, np.float32)  # in another layout the mean would round differently
    centred = vectors.astype(np.float64) - vectors.mean(0)
    variance, axes = np.linalg.eigh(centred.T @ centred)
    axes, variance = axes[:, ::-1][:, :count], np.maximum(variance[::-1], 0)
    axes = axes * np.sign(axes[abs(axes).argmax(0), np.arange(count)])
    return (centred @ axes).astype(np.float32), (variance[:count] / max(variance.sum(), 1e-30)).astype(np.float32)
