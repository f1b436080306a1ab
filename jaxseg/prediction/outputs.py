"""Predictions -> the bytes of files that lie over their inputs: same size, same geometry, and where it can be, format.

| input                        | mask                       | probabilities                  |
| ---------------------------- | -------------------------- | ------------------------------ |
| PNG, JPEG, BMP, DICOM file   | PNG                        | .npy `[H,W,K]`                 |
| TIFF, picture or stack       | TIFF                       | .npy `[H,W,K]` or `[D,H,W,K]`  |
| NIfTI                        | NIfTI, header and affine   | NIfTI, classes along its fourth axis |
| NRRD, MetaImage              | .nrrd, .mha                | the same, classes as components |
| DICOM series or multi-frame  | NIfTI (DICOM SEG is not written) | as NIfTI                 |

A NIfTI file of a DICOM series has the patient's coordinates where the series tells them, else the spacing alone.
"""

import contextlib
import gzip
import io
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import nibabel
import numpy as np
import SimpleITK
import tifffile

from jaxseg.data import formats, geometry
from jaxseg.data.formats import Picture

_TIFF = (".tif", ".tiff")
_NIFTI = (".nii", ".nii.gz")
_ITK = {".nrrd": ".nrrd", ".nhdr": ".nrrd", ".mha": ".mha", ".mhd": ".mha"}  # of an input -> of its mask


def encode_mask(labels: np.ndarray, path: pathlib.Path, picture: Picture) -> tuple[str, bytes]:
    """Class numbers as a file like the input's.

    Args:
      labels: uint8 `[H,W]` or `[D,H,W]`, axes as `formats.read` gives them.
      path: of the input.
      picture: the input, as `formats.read` gives it.

    Returns:
      The suffix, and the bytes.

    Raises:
      formats.Unusable: the input's header can no longer be read.
    """
    suffix = _suffix(path)
    if suffix in _ITK:
        return _itk(labels, path)
    if suffix in _NIFTI or (labels.ndim == 3 and suffix not in _TIFF):
        return _nifti(labels, path, picture)
    if suffix in _TIFF:
        buffer = io.BytesIO()
        axes = {"axes": "YX" if labels.ndim == 2 else "ZYX"}
        with _reading(), tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            pixels = {"resolution": page.get_resolution(), "resolutionunit": page.resolutionunit}
        tifffile.imwrite(buffer, labels, photometric="minisblack", compression="zlib", metadata=axes, **pixels)
        return suffix, buffer.getvalue()
    return ".png", formats.encode_png(labels)


def encode_probabilities(probabilities: np.ndarray, path: pathlib.Path, picture: Picture) -> tuple[str, bytes]:
    """Class probabilities float32 `[H,W,K]` or `[D,H,W,K]`; arguments, results and errors as `encode_mask`."""
    suffix = _suffix(path)
    if suffix in _ITK:
        return _itk(probabilities, path, classes=True)
    if suffix in _NIFTI or (probabilities.ndim == 4 and suffix not in _TIFF):
        return _nifti(probabilities, path, picture, classes=True)
    buffer = io.BytesIO()
    np.save(buffer, probabilities)
    return ".npy", buffer.getvalue()


def _suffix(path: pathlib.Path) -> str:
    name = path.name.lower()
    if path.is_dir():
        return ""
    return next((suffix for suffix in (".nii.gz", ".nii") if name.endswith(suffix)), path.suffix.lower())


def _nifti(array: np.ndarray, path: pathlib.Path, picture: Picture, *, classes: bool = False) -> tuple[str, bytes]:
    rank = array.ndim - classes
    array = np.transpose(array, (*reversed(range(rank)), *range(rank, array.ndim)))  # z, y, x -> x, y, z
    if classes and rank == 2:
        array = array[:, :, None]  # classes are the fourth axis
    suffix = _suffix(path)
    if suffix not in _NIFTI:
        image = nibabel.Nifti1Image(array, _affine(picture))
        image.header.set_xyzt_units("mm")
    else:
        header, affine, kind = _header(path)
        header.set_data_dtype(array.dtype)
        header["cal_min"] = header["cal_max"] = 0  # the window of the image
        header["scl_slope"] = header["scl_inter"] = np.nan
        image = kind(array, affine, header)
    content = image.to_bytes()
    if suffix == ".nii":
        return suffix, content
    return ".nii.gz", gzip.compress(content, compresslevel=6, mtime=0)  # the same mask is the same bytes


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Of what could be read a moment ago."""
    try:
        yield
    except Exception as error:  # nibabel and pydicom raise nearly anything
        raise formats.Unusable(f"cannot be read any more ({error}); leave the inputs alone") from error


def _header(path: pathlib.Path) -> tuple[Any, Any, Any]:
    with _reading():
        image: Any = nibabel.load(path)
    return image.header.copy(), image.affine, type(image)


def _affine(picture: Picture) -> np.ndarray:
    """From x, y and z of the array to millimetres, as NIfTI has them."""
    if picture.affine is not None:
        return picture.affine @ geometry.BACKWARDS
    return np.diag([*np.nan_to_num(picture.spacing[::-1], nan=1.0), 1.0])


def _itk(array: np.ndarray, path: pathlib.Path, *, classes: bool = False) -> tuple[str, bytes]:
    with _reading():
        like = formats.itk.opened(path)
    rank = array.ndim - classes  # of four axes, the last one is channels
    image = SimpleITK.GetImageFromArray(array, isVector=classes)
    image.SetSpacing(like.GetSpacing()[:rank])
    image.SetOrigin(like.GetOrigin()[:rank])
    image.SetDirection(np.reshape(like.GetDirection(), (like.GetDimension(),) * 2)[:rank, :rank].ravel().tolist())
    suffix = _ITK[_suffix(path)]
    with tempfile.TemporaryDirectory() as folder:  # it writes to files alone
        file = pathlib.Path(folder) / f"mask{suffix}"
        SimpleITK.WriteImage(image, str(file), useCompression=True)
        return suffix, file.read_bytes()
