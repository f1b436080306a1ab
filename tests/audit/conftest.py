"""Networks whose behaviour is known, and cases that they are asked about."""

import pathlib
import types

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from configs import audit
from jaxseg.audit.subject import Subject
from jaxseg.data import pipeline
from jaxseg.networks import of_linen
from jaxseg.settings import read
from tests.drawings import assert_as_stored, kept, plots  # noqa: F401

SIZE = 32
_STORED = pathlib.Path(__file__).parent / "drawn"


class Threshold(nn.Module):
    """Foreground where the first channel is bright; equivariant, and pads nothing."""

    blind: int = 0  # pixels of the border that are background whatever is there
    level: float = 0.0
    padding: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        edges = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in images.shape[1:-1]]
        seen = np.minimum.reduce(np.meshgrid(*edges, indexing="ij")) >= self.blind
        z = jnp.where(jnp.asarray(seen), 40.0 * (images[..., 0] - self.level), -40.0)
        return jnp.stack([jnp.zeros_like(z), z], -1)


class PaddedSum(nn.Module):
    """Foreground where the sum over a 7 x 7 neighbourhood is high: with zeros beyond the border it never is there."""

    padding: str = "zero"

    @nn.compact
    def __call__(self, images, train=False):
        light = images[..., 0] + 1.0
        mode = "constant" if self.padding == "zero" else "reflect"
        wide = jnp.pad(light, ((0, 0), (3, 3), (3, 3)), mode=mode)
        n, m = light.shape[1:]
        total = sum(wide[:, i : i + n, j : j + m] for i in range(7) for j in range(7))
        z = total / 49 - 1.2
        return jnp.stack([jnp.zeros_like(z), 40.0 * z], -1)


class BetweenMarks(nn.Module):
    """Foreground between the outermost pixels of an ink, in both directions: it knows nothing but calipers.

    Of `bright`, it is a threshold whose answer is filled to a box, as post-processing may do.
    """

    ink: str = "yellow"
    padding: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        inked = _inked(images, self.ink)
        along = lambda axis: (
            (jnp.cumsum(jnp.any(inked, axis), 1) > 0)
            & (jnp.flip(jnp.cumsum(jnp.flip(jnp.any(inked, axis), 1), 1), 1) > 0)
        )
        return _sure(along(2)[:, :, None] & along(1)[:, None, :])


class Copied(nn.Module):
    """Foreground where an ink is, pixel by pixel, and where something else is `also`."""

    ink: str
    also: str = ""
    padding: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        there = _inked(images, self.ink)
        return _sure(there | _inked(images, self.also) if self.also else there)


def _inked(images, ink):
    first, last = images[..., 0], images[..., -1]
    match ink:
        case "yellow":
            return (first > 0.5) & (last < -0.5)
        case "white":
            return (first == 1.0) & (last == 1.0)
        case "light gray":
            return (first == last) & (abs(127.5 * (first + 1) - 200) < 0.1)
        case "bright":
            return first > 0
    # bright and thick: what an opening by 5 x 5 pixels leaves
    most = lambda values: nn.max_pool(values[..., None], (5, 5), padding="SAME")[..., 0]
    return most(-most(-first)) > 0


def _sure(there):
    z = jnp.where(there, 40.0, -40.0)
    return jnp.stack([jnp.zeros_like(z), z], -1)


@pytest.fixture
def networks():
    """The classes above, by name."""
    return types.SimpleNamespace(Threshold=Threshold, PaddedSum=PaddedSum, BetweenMarks=BetweenMarks, Copied=Copied)


@pytest.fixture
def settings():
    """`(probe, **fields) -> settings` of a probe, those of configs/audit.py with a few resamples but for `fields`."""

    def of(probe, **fields):
        config = audit.get_config().unlock()
        config.update(resamples=200, **fields)
        return read(probe.settings, config, shown_in="configs/audit.py")

    return of


@pytest.fixture
def answer(settings):
    """`(probe, subject, **fields) -> answer, arrays` of a probe."""

    def ask(probe, subject, **fields):
        own = settings(probe, **fields)
        arrays = probe.measure(subject, own)
        return probe.tabulate(subject, own, arrays), arrays

    return ask


@pytest.fixture
def assert_stays(tmp_path, plots):  # noqa: F811
    """`(name, answer, arrays)`: what a probe measures and says, and what it draws, is what is stored under the name."""

    def check(name, answer, arrays=None):
        measured = {key: kept(_columns(value)) for key, value in (arrays or {}).items()}
        told = {"rows": kept([row.record() for row in answer.rows])}
        told |= {"candidates": kept([one.record() for one in answer.candidates])} if answer.candidates else {}
        shown = {one.name: one for one in (*answer.figures, *(c.figure for c in answer.candidates if c.figure))}
        for one in shown.values():
            one.draw(tmp_path / f"{one.name}.png")
        pictures = {
            f"figure {key}": {"size": one["size"], "axes": [_data(ax) for ax in one["axes"]]}
            for key, one in plots(tmp_path).items()
        }
        assert_as_stored(_STORED / f"{name}.json", {**measured, **told, "facts": answer.facts, **pictures})

    return check


def _columns(values):
    """An array as rows of a table: along its second axis, the columns are the places of its first."""
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        return [{"": str(value)} for value in values.ravel()]
    if not values.size:
        return []
    flat = values.astype(float).reshape(len(values) if values.ndim > 1 else 1, -1)
    return [{str(i): value for i, value in enumerate(column)} for column in flat.T]


def _data(ax):
    """What depends on the numbers, and not on the sheet."""
    return {name: value for name, value in ax.items() if name in ("limits", "lines", "collections", "images")}


@pytest.fixture
def squares():
    """`(count, ...) -> cases` of bright squares in dark images."""
    return _squares


@pytest.fixture
def subject_of():
    """`(model, cases, variables) -> subject`; by default of squares, and of a network without variables."""
    return _subject_of


def _squares(count=12, *, size=SIZE, channels=3, seed=0, domains=None, bright=220, dark=30, half=None):
    """Bright squares in the middle of dark images, a patient each."""
    random = np.random.default_rng(seed)
    labels = np.zeros((count, size, size), np.uint8)
    for one in labels:
        half = half or size // 6
        y, x = size // 2 + random.integers(-1, 2, 2)
        one[y - half : y + half, x - half : x + half] = 1
    images = np.where(labels[..., None] > 0, bright, dark) + random.integers(-8, 9, (count, size, size, 1))
    images = np.repeat(images.astype(np.uint8), channels, -1)
    names = tuple(f"case{i}" for i in range(count))
    nowhere, spacings = pipeline.nowhere(count)
    return pipeline.InMemory(
        "squares/test", ("background", "square"), images, labels, names, names, domains or nowhere, spacings
    )


def _subject_of(model, cases=None, variables=None, **fields):
    cases = _squares() if cases is None else cases
    fields = {"view": "original", "batch_size": 8} | fields
    size, channels = cases.labels.shape[1:], cases.images.shape[-1]
    return Subject(network=of_linen(model, variables or {}, image_size=size, channels=channels), test=cases, **fields)
