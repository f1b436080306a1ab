"""Cases -> folds of a cross-validation: patients stay whole, and every fold has its share of every stratum."""

import numpy as np

from jaxseg.errors import InputError


def stratified_folds(strata: np.ndarray, groups: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """The fold of each case, for a stratified cross-validation such as that of Wilm et al. 2024, section IV.C.

    Groups are assigned from the largest to the smallest, those of one size in the order of their strata and, within
    that, at random. Each goes to the fold with the fewest cases of its strata among those folds that it does not make
    too large. Guaranteed: no fold is empty, and the sizes of two folds differ by at most the largest group. If every
    case is its own group, that is one case, and the cases of each stratum differ by at most one as well.

    Args:
      strata: `[N]` of any type that sorts, such as `foreground_strata` gives, or classes, or scanners.
      groups: `[N]` of any type that sorts: whom the cases show. Cases of one group are never in two folds.
      folds: how many.
      seed: of the random draws.

    Returns:
      `[N]` int32 in 0 to `folds - 1`: the fold in which a case is held out. It depends on the cases and the seed, not
      on their order.

    Raises:
      ValueError: `strata` and `groups` differ in shape.
      InputError: fewer than two folds, or fewer groups than folds.
    """
    strata, groups = np.asarray(strata), np.asarray(groups)
    if strata.shape != groups.shape or strata.ndim != 1:
        raise ValueError(f"strata {strata.shape} and groups {groups.shape} must both be [N]")
    names, group = np.unique(groups, return_inverse=True)
    if folds < 2:
        raise InputError(f"folds is {folds}; a cross-validation has at least 2")
    if len(names) < folds:
        raise InputError(f"there are {len(names)} groups of cases (patients) for {folds} folds; choose fewer folds")
    content = _content(group, np.unique(strata, return_inverse=True)[1])
    of_group = np.empty(len(names), np.int32)
    held = np.zeros((folds, content.shape[1]), np.int64)
    limit = content.sum(1).max()
    for i in _order(content, seed):
        sizes = held.sum(1)
        fits = sizes + content[i].sum() <= sizes.min() + limit
        of_group[i] = np.lexsort((sizes, held @ content[i], ~fits))[0]
        held[of_group[i]] += content[i]
    return of_group[group]


def foreground_strata(labels: np.ndarray, *, bins: int = 4) -> np.ndarray:
    """Strata by the share of foreground: 0 for empty masks, the others cut at its quantiles into `bins`.

    Args:
      labels: `[N,H,W]` integer class numbers, any above 0 is foreground; or `[N]` shares of the image.
      bins: into how many strata cases with foreground fall. Equal shares are in one stratum.

    Returns:
      `[N]` int32 in 0 to `bins`, larger where there is more foreground.

    Raises:
      InputError: less than one bin.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; cases with foreground need at least 1")
    labels = np.asarray(labels)
    shares = labels if labels.ndim == 1 else (labels > 0).reshape(len(labels), -1).mean(1)
    strata = np.zeros(len(shares), np.int32)
    there = shares > 0
    if there.any():
        edges = np.quantile(shares[there], np.arange(1, bins) / bins)
        strata[there] = 1 + np.searchsorted(edges, shares[there], side="left")
    return strata


def _content(group: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """`[groups, strata]`: how many cases of each stratum a group has."""
    content = np.zeros((group.max() + 1, stratum.max() + 1), np.int64)
    np.add.at(content, (group, stratum), 1)
    return content


def _order(content: np.ndarray, seed: int) -> np.ndarray:
    """In which order the groups are assigned."""
    chance = np.random.default_rng(seed).permutation(len(content))
    return np.lexsort((chance, content.argmax(1), -content.sum(1)))
