"""NIfTI, versions 1 and 2, compressed or not, in one file or two, as nibabel reads it."""

import gzip
import io
import math
import pathlib
from typing import Any

import nibabel
import numpy as np

from jaxseg.data import geometry
from jaxseg.data.formats.picture import Picture, Unusable, placed

SUFFIXES = (".nii", ".nii.gz", ".hdr")  # a header has its .img next to it

_GZIP = b"\x1f\x8b"
_UNITS = {1: 1000.0, 2: 1.0, 3: 0.001}  # m, mm and um in mm, by their codes; mm where nothing is said
_APART = 1e-3  # relative difference above which two spacings differ
_SHIFTED = 0.5  # voxels above which two affines place a volume differently


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a picture, a volume, or a series of volumes, whose frames are channels."""
    del at_least
    with path.open("rb") as file:
        if path.suffix.lower() == ".nii" and file.read(2) == _GZIP:
            raise Unusable("is compressed; call it .nii.gz")
    image: Any = _of_bytes(path) if path.name.lower().endswith(".gz") else nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Pair):
        raise Unusable(f"is {type(image).__name__.removesuffix('Image')}, not NIfTI of a picture or volume; convert it")
    stored: Any = image.dataobj
    array = np.asanyarray(stored)
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if not 2 <= array.ndim <= 4:
        raise Unusable(f"has {array.ndim} axes {array.shape}; a NIfTI file has two to four: a picture or a volume")
    affine, notes = _affine(image.header, image.affine)
    rank = min(array.ndim, 3)
    array = np.transpose(array, (*reversed(range(rank)), *range(rank, array.ndim)))  # x, y, z -> z, y, x
    array = array if array.ndim > rank else array[..., None]
    slope = stored.slope if np.issubdtype(image.get_data_dtype(), np.integer) else 0.0
    spacing = tuple(_zooms(image.header)[::-1].tolist())
    picture = Picture(array, spacing) if affine is None else placed(array, affine)
    return picture._replace(notes=notes, step=0.0 if slope == 1 else abs(float(slope)))


def _affine(header: Any, chosen: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """From (z, y, x, 1) to mm, and what of the header contradicts it; None where it says nothing of either."""
    if not header["sform_code"] and not header["qform_code"]:
        return None, ()
    unit, zooms = _unit(header), _zooms(header)
    notes = []
    affine = np.diag([unit, unit, unit, 1.0]) @ chosen
    if not geometry.is_usable(affine):
        return None, (f"its affine is singular; its pixdim of {_text(zooms)} was taken",)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)[: len(zooms)]
    if not np.allclose(zooms, lengths, rtol=_APART, atol=0):
        notes.append(f"its pixdim says {_text(zooms)}, its affine {_text(lengths)}; the affine was taken")
    qform = _second_form(header)
    if not notes and qform is not None:
        size = [*header.get_data_shape()[:3], 1][:3]
        shift = geometry.furthest(np.linalg.inv(chosen) @ qform, size)
        if shift > _SHIFTED:
            notes.append(f"its qform and its sform lie up to {shift:.1f} voxels apart; the sform was taken")
    return affine @ geometry.BACKWARDS, tuple(notes)


def _unit(header: Any) -> float:
    return _UNITS.get(int(header["xyzt_units"]) % 8, 1.0)


def _zooms(header: Any) -> np.ndarray:
    """Mm along each spatial axis, as pixdim has them."""
    return _unit(header) * np.array(header.get_zooms()[:3], np.float64)


def _second_form(header: Any) -> np.ndarray | None:
    """The qform where the header has an sform too; None of one that cannot be computed, for it is not needed."""
    if not header["sform_code"]:
        return None
    try:
        qform = header.get_qform(coded=True)[0]
    except ValueError:
        return None
    return qform if qform is not None and np.isfinite(qform).all() else None


def _text(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.6g}" for length in lengths) + " mm"


_START = 544  # bytes, as long as the header of either version and its mark of extensions


def _of_bytes(path: pathlib.Path) -> Any:
    """As `nibabel.load`, which does not read the checksum at the end: most changed bytes would go unnoticed."""
    content = path.read_bytes()
    kinds = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    if any(kind.header_class.may_contain_header(content) for kind in kinds):
        raise Unusable("is not compressed; call it .nii, or compress it")
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        start = file.read(_START)
        for kind in kinds:
            if not kind.header_class.may_contain_header(start):
                continue
            header = kind.header_class.from_fileobj(io.BytesIO(start), check=False)
            shape, offset = header.get_data_shape(), int(header["vox_offset"])
            size = max(offset, 0) + math.prod(shape) * header.get_data_dtype().itemsize
            # what the header claims, and a byte more; reading to the end would inflate a decompression bomb
            whole = start + file.read(max(size - len(start), 0) + 1)
            if len(whole) > max(size, len(start)):
                raise Unusable("holds more after its image than a NIfTI file has; write it again, or do not use it")
            return kind.from_bytes(whole)
    raise Unusable("is not a NIfTI file; fetch it again")
