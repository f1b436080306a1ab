"""What a foreign network answers, logits or probabilities of however many channels, as the logits of a softmax."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError

Output = Literal["logits", "probabilities", "sigmoids"]
_ROUNDING = 1e-2  # the sum of probabilities may miss 1 by that, as in half precision
_BEYOND = 1e-4  # and a single one 0 and 1 by that
_LEAST = 1e-7  # what is certain is that far from it: a logarithm of 0 is none


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the channels of an answer are read.

    Attributes:
      num_classes: K.
      channels: of the answer: K; 1 where K is 2; or K - 1 sigmoids.
      output: logits, probabilities or sigmoids.
    """

    num_classes: int
    channels: int
    output: Output

    def logits(self, answer: jax.Array) -> jax.Array:
        """`[...,channels]` -> float32 `[...,K]`: one logit z becomes `[0, z]`, probabilities their logarithms.

        K sigmoids become their logits, and K - 1 these behind a 0 for the background. As the answers to K or K - 1
        independent questions that is: the probabilities of the classes, given that the answer is yes exactly once or,
        where the background is not asked for, at most once.
        """
        answer = answer.astype(jnp.float32)
        whole = self.channels == self.num_classes
        if self.output == "logits":
            return answer if whole else _behind_zero(answer)
        sure = jnp.clip(answer, _LEAST, 1.0 - _LEAST)
        if self.output == "sigmoids":
            odds = jnp.log(sure) - jnp.log1p(-sure)
            return odds if whole else _behind_zero(odds)
        return jnp.log(sure if whole else jnp.concatenate([1.0 - sure, sure], -1))

    @property
    def notes(self) -> tuple[str, ...]:
        """What that makes of answers that are not K logits, a sentence."""
        what = {"logits": "logit", "probabilities": "probability", "sigmoids": "sigmoid"}[self.output]
        if self.channels == self.num_classes:
            made = {"probabilities": "logarithms", "sigmoids": "logits"}.get(self.output)
            return (f"The answers are {self.output}, taken as their {made}.",) if made else ()
        if self.channels == 1:
            return (f"The answer is one {what}, that of the foreground.",)
        return (f"The answers are {self.channels} sigmoids, without one of the background.",)


def widths(num_classes: int, output: Output | None) -> tuple[int, ...]:
    """How many channels an answer may have: K, or, where the background has none of its own, K - 1."""
    return (num_classes, num_classes - 1) if num_classes == 2 or output == "sigmoids" else (num_classes,)


def read(answer: np.ndarray, num_classes: int, output: Output | None, name: str) -> Reading:
    """How to read the answers of a network, by those to trial images.

    Args:
      answer: `[B,*n,channels]`.
      num_classes: K.
      output: what they are; None: probabilities where all lie between 0 and 1 and, of K channels, sum to 1; else
        logits.
      name: of the network.

    Raises:
      InputError: they can be no softmax over K classes, or one number everywhere, which may be either.
    """
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}; the background counts, so it must be at least 2")
    if output is not None and output not in get_args(Output):
        raise InputError(f"output is {output!r}; choose one of {', '.join(get_args(Output))}")
    channels = answer.shape[-1]
    if channels not in widths(num_classes, output):
        raise InputError(
            f"{name} gave {channels} channels for num_classes={num_classes}; give the number of its classes, the "
            "background included, and output='sigmoids' where its channels are sigmoids of all but the background"
        )
    check_numbers(answer, name)
    shares = float(answer.min()) >= -_BEYOND and float(answer.max()) <= 1.0 + _BEYOND
    if output is None:
        output = _told(answer, shares, name)
    elif output != "logits" and not shares:
        span = f"{answer.min():.4g} to {answer.max():.4g}"
        raise InputError(f"{name} gave {span}, which are no {output}; give output='logits'")
    elif output == "probabilities" and channels > 1 and not _sums_to_one(answer):
        raise InputError(
            f"{name} gave channels that do not sum to 1, which are no probabilities; see output='sigmoids'"
        )
    return Reading(num_classes, channels, output)


def check_numbers(answer: np.ndarray, name: str) -> None:
    """Raises InputError for an answer with NaN, or with class numbers or gray levels in place of one mask."""
    if answer.dtype.kind == "f" and np.isnan(answer).any():
        raise InputError(f"{name} gave NaN; look at its weights and at how its images are normalised")
    if answer.dtype.kind in "iu" and answer.shape[-1] == 1 and answer.size and answer.max() > 1:
        raise InputError(
            f"{name} gave whole numbers up to {answer.max()}; of a mask give 0 and 1, of class numbers a channel each"
        )


def _told(answer: np.ndarray, shares: bool, name: str) -> Output:
    """What they are, by their values."""
    if not shares:
        return "logits"
    if answer.shape[-1] > 1 and not _sums_to_one(answer):
        if answer.min() == answer.max():  # of a head that begins with zeros
            return "logits"
        raise InputError(
            f"{name} gave {answer.shape[-1]} channels between 0 and 1 that do not sum to 1; if these are independent "
            "yes or no answers, give output='sigmoids', if they are logits, output='logits'"
        )
    if answer.shape[-1] == 1 and answer.min() == answer.max():
        raise InputError(
            f"{name} gave {answer.min():.4g} everywhere on trial images, which may be a logit or a probability; give "
            "output='logits' or output='probabilities'"
        )
    return "probabilities"


def _sums_to_one(answer: np.ndarray) -> bool:
    return bool(np.all(np.abs(answer.astype(np.float64).sum(-1) - 1.0) <= _ROUNDING))


def _behind_zero(answer: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros_like(answer[..., :1]), answer], -1)
