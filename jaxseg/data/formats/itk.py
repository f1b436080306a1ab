"""NRRD and MetaImage, as ITK reads them."""

import math
import pathlib
import re
import zlib
from typing import Any

import numpy as np
import SimpleITK

from jaxseg.data import geometry
from jaxseg.data.formats.lengths import in_mm
from jaxseg.data.formats.picture import UNKNOWN, Picture, Unusable, placed

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a picture or a volume; components of vectors and a fourth axis are channels."""
    del at_least
    (_check_nrrd if _is_nrrd(path) else _check_metaimage)(path)
    image = opened(path)
    rank, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if components > 1 and path.name.lower().endswith(".seg.nrrd"):
        raise Unusable(f"has {components} layers, as overlapping segments have; export them as one label map")
    array = SimpleITK.GetArrayFromImage(image)
    if rank == 4 and components == 1:
        array, rank = np.moveaxis(array, 0, -1), 3
    elif rank in (2, 3):
        array = array if components > 1 else array[..., None]
    else:
        raise Unusable(f"has {rank} axes of {components} numbers; save one picture or one volume, with its channels")
    if _is_nrrd(path):
        fields = _nrrd_fields(path.read_bytes())
        if not re.match(r"l|r", fields.get("space", ""), re.IGNORECASE):  # no space of a patient
            told = fields.keys() & {"spacings", "space directions"}
            lengths = np.multiply(image.GetSpacing(), _units(fields.get("units", ""), image.GetDimension()))
            return Picture(array, tuple(lengths[rank - 1 :: -1].tolist()) if told else (UNKNOWN,) * rank)
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    affine[:rank, :rank] = directions[:rank, :rank] * image.GetSpacing()[:rank]
    affine[:rank, 3] = image.GetOrigin()[:rank]
    if _is_nrrd(path):
        affine[:3] *= np.reshape(_units(fields.get("space units", ""), 3), (3, 1))
    part = path.name.lower().endswith(".seg.nrrd")  # as 3D Slicer saves segmentations
    return placed(array, geometry.LPS_TO_RAS @ affine @ geometry.BACKWARDS)._replace(part=part)


def opened(path: pathlib.Path) -> Any:
    """The SimpleITK image of a NRRD or MetaImage file, whose suffix may be in capitals, which ITK does not recognise.

    Raises:
      ValueError: ITK cannot read it; the text is what it says.
    """
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return SimpleITK.ReadImage(str(path), imageIO="NrrdImageIO" if _is_nrrd(path) else "MetaImageIO")
    except RuntimeError as error:
        raise ValueError(_said(error)) from error


def _is_nrrd(path: pathlib.Path) -> bool:
    return path.suffix.lower() in (".nrrd", ".nhdr")


def _said(error: RuntimeError) -> str:
    """The last of many lines with source locations, which is the most informative."""
    last = [line.strip() for line in str(error).split("\n") if line.strip()][-1]
    return re.sub(r"^(.*ERROR: |\[nrrd\] \w+: |\w+\(0x\w+\): )+", "", last)


def _nrrd_fields(content: bytes) -> dict[str, str]:
    header = content.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("latin-1")
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in header.split("\n"))}


def _units(field: str, count: int) -> list[float]:
    """Axis units, given in quotes, in mm; 1 where no length is given."""
    units = [in_mm(unit) or 1.0 for unit in re.findall(r'"([^"]*)"', field)]
    return (units + [1.0] * count)[:count]


# ITK checks few of the checksums after compressed data, and reads data that it cannot decompress as zeros.


def _check_nrrd(path: pathlib.Path) -> None:
    """Checks that compressed data are complete.

    Raises:
      EOFError, ValueError, zlib.error: they are not.
      Unusable: the file with them is not there.
    """
    content = path.read_bytes()
    if not content.startswith(b"NRRD"):
        raise ValueError("no NRRD file")
    fields = _nrrd_fields(content)
    name = fields.get("data file", fields.get("datafile", ""))
    if fields.get("encoding") not in ("gzip", "gz") or "LIST" in name or "%" in name or "line skip" in fields:
        return
    data = _beside(path, name) if name else re.split(rb"\r?\n\r?\n", content, maxsplit=1)[-1]
    _inflated(data, 8 * math.prod(int(size) for size in fields.get("sizes", "").split()))


def _inflated(data: bytes, most: int) -> int:
    """How many bytes these are once decompressed, up to `most`; the checksum after them is verified."""
    stream, size = zlib.decompressobj(47), 0
    while not stream.eof and size <= most:
        part = stream.decompress(data, 1 << 24)
        if not part and not stream.eof:
            raise EOFError(f"its compressed data end after {size} bytes")
        size, data = size + len(part), stream.unconsumed_tail
    return size


_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8}


def _check_metaimage(path: pathlib.Path) -> None:
    """Checks that the data are complete.

    Raises:
      EOFError, ValueError, zlib.error: they are not.
      Unusable: the file with its data is not there.
    """
    content = path.read_bytes()
    header = re.match(rb"(?:[ \w]+=[^\n]*\n)*?\s*ElementDataFile\s*=\s*([^\r\n]+)\r?\n?", content)
    if header is None:
        known = re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", content)
        raise EOFError("its header has no end") if known else ValueError("no MetaImage file")
    lines = (line.partition("=") for line in header[0].decode("latin-1").split("\n"))
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields["ElementDataFile"]
    if name.split()[0] == "LIST" or "%" in name or int(fields.get("HeaderSize", 0)):
        return  # many files, or one of another format
    data = content[header.end() :] if name.upper() == "LOCAL" else _beside(path, name)
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    sizes = [int(size) for size in fields.get("DimSize", "").split()]
    if kind not in _BYTES or not sizes:
        return
    wanted = math.prod(sizes) * int(fields.get("ElementNumberOfChannels", 1)) * _BYTES[kind]
    length = _inflated(data, wanted) if fields.get("CompressedData") == "True" else len(data)
    if length < wanted:
        raise EOFError(f"it holds {length} bytes of data, and its header says {wanted}")


def _beside(path: pathlib.Path, name: str) -> bytes:
    try:
        return (path.parent / name).read_bytes()
    except FileNotFoundError:
        raise Unusable(f"has its data in {name}, which is not there; put it next to this file") from None
