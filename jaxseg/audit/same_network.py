"""Whether the network of an audit is the one that its folder was made with, by what it says of a few cases."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.audit import subject
from jaxseg.audit.subject import Seen, Subject
from jaxseg.errors import InputError
from jaxseg.networks import Network
from jaxseg.results.stored import kept

_CASES = 8  # evenly over the test cases
_PIXELS = 2**16  # kept of a case
_APART = 0.02  # in probability, which other threads and devices do not reach but in a pixel here and there
_SHARE = 1 / 2000  # of the pixels of a case
_DICE = 0.01  # of a case, between two calls


def check(asked: Subject, workdir: pathlib.Path) -> None:
    """Keeps what the network says of a few test cases in the folder, or compares it with what is kept.

    A fingerprint is of what a network is made of, as far as that can be seen: two functions may differ in what they
    refer to, and on real cases alone.

    Args:
      asked: the network with its cases.
      workdir: of the audit.

    Raises:
      InputError: it says something else there than the network did with which the folder was made.
    """

    def question(network: Network, seen: Seen) -> dict[str, jax.Array]:
        odds = asked.probabilities(network, seen["images"])
        step = _step(odds.shape[1:-1])
        return {"probabilities": odds[:, *(slice(None, None, step) for _ in odds.shape[1:-1])].astype(jnp.float16)}

    said = asked.asks(question)(subject.evenly(asked.test, _CASES))["probabilities"]
    stored = kept(workdir / "network.npz", lambda: {"probabilities": said})["probabilities"]
    if stored.shape != said.shape or np.any(_apart(said, stored) > _SHARE):
        refuse(workdir)


def check_dice(dice: np.ndarray, stored: np.ndarray, workdir: pathlib.Path) -> None:
    """Raises InputError where the Dice of the cases, `[N,K-1]`, is not that which the folder has."""
    if dice.shape != stored.shape or not np.allclose(dice, stored, rtol=0, atol=_DICE, equal_nan=True):
        refuse(workdir)


def refuse(workdir: pathlib.Path) -> None:
    """Raises the InputError."""
    raise InputError(
        f"{workdir} was made with another network: this one says something else of the same cases; choose another work "
        "directory"
    )


def _step(sides: tuple[int, ...]) -> int:
    """Of how many pixels along an axis one is kept."""
    return max(int(np.ceil((np.prod(sides) / _PIXELS) ** (1 / len(sides)))), 1)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of every case, `[N]`: the share of its pixels where two networks are apart; what both leave undefined is not."""
    alike = np.isclose(one.astype(np.float32), other.astype(np.float32), rtol=0, atol=_APART, equal_nan=True)
    of_pixels = np.all(alike, -1)
    return 1 - of_pixels.reshape(len(one), -1).mean(1)
