"""Where tests find real images and reference numbers, and how strict they are."""

import os
import pathlib
import zlib

import jax
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]

# a bfloat16 that silently becomes float32 is a defect
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def oracles() -> pathlib.Path:
    """Folder of numbers that the papers' own code gave; the test is skipped where there is none."""
    return _folder("JAXSEG_ORACLES", "oracles")


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder of real images; the test is skipped where there is none."""
    return _folder("JAXSEG_REAL_DATA", "data")


def _folder(variable: str, name: str) -> pathlib.Path:
    folder = pathlib.Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; name one in {variable}")
    return folder


@pytest.fixture(scope="session")
def drawn_state_dict():
    """`(shapes, seed) -> PyTorch state dict`, drawn tensor by tensor as for the reference numbers."""

    def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = 0.1 * random.standard_normal(shape)
        else:
            values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        return values.astype(np.float32)

    return lambda shapes, seed: {name: draw(name, shape, seed) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def slow_resize():
    """`(image [H,W,C], height, width) -> float64`: means by area along shorter axes, linear along longer ones."""

    def weights(old: int, new: int) -> np.ndarray:
        matrix = np.zeros((new, old))
        for i in range(new):
            if new <= old:  # the share of every old pixel that the new one covers
                low, high = i * old / new, (i + 1) * old / new
                matrix[i] = np.clip(np.minimum(np.arange(old) + 1, high) - np.maximum(np.arange(old), low), 0, None)
            else:
                place = np.clip((i + 0.5) * old / new - 0.5, 0, old - 1)
                left = min(int(place), old - 2)
                matrix[i, left : left + 2] = left + 1 - place, place - left
        return matrix / matrix.sum(1, keepdims=True)

    def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
        rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
        return np.einsum("ih,jw,hwc->ijc", rows, columns, image.astype(np.float64))

    return resize
