"""Integers, also where a file's scaling or an interpolation left them inexact."""

import numpy as np

from jaxseg.data.formats.picture import Picture, Unusable

_ROUNDING = 1e-5  # relative, some dozen steps of float32: the error that nearest-neighbour resampling may leave


def whole(picture: Picture) -> np.ndarray:
    """Numbers `[...,1]` of a mask as integers.

    Raises:
      Unusable: a number is not whole, by more than half a step of the file's own scaling.
    """
    array = picture.array
    if np.issubdtype(array.dtype, np.integer):
        return array
    if not np.isfinite(array).all():
        raise Unusable("holds values that are not finite; a mask is whole numbers: replace them")
    rounded = np.rint(array)
    apart = abs(array.astype(np.float64) - rounded)
    scaling = 0.5 * picture.step if picture.step < 1 else 0.0  # wider steps do not separate integers
    allowed = np.maximum(scaling, _ROUNDING * np.maximum(abs(rounded), 1))
    if (apart > allowed).any():
        i = np.unravel_index(np.argmax(apart), apart.shape)
        raise Unusable(
            f"holds the value {array[i]:.6g}; a mask is whole numbers: resample it by nearest neighbours "
            f"({array[i]:.6g} is {apart[i]:.2g} from a whole number)"
        )
    if (abs(rounded) > np.iinfo(np.int32).max).any():
        raise Unusable(
            f"holds the value {abs(rounded).max():g}; a mask is whole numbers up to {np.iinfo(np.int32).max}"
        )
    return rounded.astype(np.int32)
