"""Which patients a resample has: the one bootstrap (Efron 1979) behind all intervals."""

import functools
from collections.abc import Iterator

import numpy as np

_ROWS = 128  # resamples at a time


@functools.lru_cache(maxsize=4)
def of_patients(groups: int, resamples: int, seed: int, *, strata: tuple[int, ...] | None = None) -> np.ndarray:
    """How often each patient is drawn in each resample, `[resamples, groups]`: the one bootstrap for all estimates.

    Integers of as few bytes as hold them, which `totals` takes. Cached, because a study needs hundreds of intervals; do
    not write to it.

    Args:
      groups: how many patients there are.
      resamples: how many draws, each of as many patients as there are.
      seed: of the draws.
      strata: of every patient, in rising order; patients are drawn within theirs; None is one stratum.
    """
    random, strata_of = np.random.default_rng(seed), np.array(strata or (0,) * groups)
    drawn = np.zeros((resamples, groups), np.min_scalar_type(groups))
    for stratum in np.unique(strata_of):
        own = np.flatnonzero(strata_of == stratum)
        for rows in _blocks(resamples):
            drawn[rows, own] = random.multinomial(len(own), np.full(len(own), 1 / len(own)), len(rows))
    drawn.flags.writeable = False
    return drawn


def totals(drawn: np.ndarray, of_patients: np.ndarray) -> np.ndarray:
    """The sum of a number per patient in every resample, float64 `[resamples]`.

    Args:
      drawn: of `of_patients`.
      of_patients: `[groups]`.
    """
    return np.concatenate([drawn[rows[:, 0]].astype(float) @ of_patients for rows in _blocks(len(drawn))])


def _blocks(resamples: int) -> Iterator[np.ndarray]:
    """Numbers of resamples `[r,1]`, a few at a time: all at once, as float64, would take the memory of many images."""
    return (np.arange(i, min(i + _ROWS, resamples))[:, None] for i in range(0, resamples, _ROWS))


def halves(patients: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Who is in the one and who in the other random half; of an odd number one patient sits out.

    Args:
      patients: P.
      count: S pairs of halves.
      seed: of the draws.

    Returns:
      Two `[S,P]` of 0 and 1.
    """
    place = np.argsort(np.argsort(np.random.default_rng(seed).random((count, patients)), 1), 1)
    half = patients // 2
    return (place < half).astype(float), ((place >= half) & (place < 2 * half)).astype(float)


def of_cases(patients: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The indices of the cases in every resample, each as often as its patient is drawn.

    Args:
      patients: `[N]`, whose case each is.
      resamples: how many.
      seed: of the draws.
    """
    names, group = np.unique(patients, return_inverse=True)
    return (
        np.repeat(np.arange(len(group)), times[group].astype(int)) for times in of_patients(len(names), resamples, seed)
    )
