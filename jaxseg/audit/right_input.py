"""Whether a network is given what it was trained on: a wrong size or normalisation looks like any other weakness."""

import math
import numbers

import numpy as np
import numpy.typing as npt

from jaxseg.audit.subject import Subject
from jaxseg.errors import InputError
from jaxseg.metrics.intervals import defined_mean

TOLERANCE = 0.03  # of Dice, between what a network is known for and what it has on the cases of an audit
_REASONS = (
    "another size, geometry or normalisation than in its training, channels or classes in another order, or other cases"
)


def mean_dice(dice: npt.ArrayLike) -> float:
    """Of `[N,K-1]`: the mean over cases of that over the foreground classes which they have; NaN without any."""
    of_cases = defined_mean(np.asarray(dice, float))
    return float(np.nanmean(of_cases)) if np.isfinite(of_cases).any() else math.nan


def check_known(known: float) -> None:
    """Raises InputError for what is no Dice."""
    if not isinstance(known, numbers.Real) or not 0 <= known <= 1:
        raise InputError(f"known_dice is {known!r}; give a Dice, a number from 0 to 1")


def check(name: str, cases: str, dice: float, known: float) -> None:
    """Raises InputError where the Dice on these cases is another than the one that a network is known for.

    Args:
      name: of the network.
      cases: in words.
      dice: on these.
      known: on cases of that kind.
    """
    check_known(known)
    if not abs(dice - known) <= TOLERANCE:
        raise InputError(
            f"{name}: has a mean Dice of {dice:.2f} on {cases}, and is known for {known:.2f}, so nothing was written; "
            f"likely reasons: {_REASONS}"
        )


def opening(subject: Subject, dice: float, known: float | None) -> str:
    """What a reader has to know before any finding."""
    here = f"On these {len(subject.test)} cases the network has a mean Dice of {dice:.2f}"
    if known is not None:
        return f"{here}; it is known for {known:.2f}, so it is given what it was trained on."
    return (
        f"{here}. Is that what it is known for? If not, it may be given something else than in its training "
        f"({_REASONS}), and what stands below is of that."
    )
