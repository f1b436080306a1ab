"""The eight ways in which EXIF and TIFF say that a stored picture should be turned."""

import numpy as np

ON_ITS_SIDE = (5, 6, 7, 8)  # in which a viewer shows columns as rows
_FLIPS = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}  # of rows and columns


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rows and columns of `[H,W,C]` or `[D,H,W,C]` as a tag of orientation, 1 to 8, has them shown."""
    rows, columns = array.ndim - 3, array.ndim - 2
    if orientation in ON_ITS_SIDE:
        array = np.swapaxes(array, rows, columns)
    return np.flip(array, tuple((rows, columns)[axis] for axis in _FLIPS.get(orientation, ())))
