"""NRRD and MetaImage, as ITK reads them."""

import pathlib

import numpy as np

from jaxseg.data.formats.picture import Picture, Unusable, placed

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # x and y of ITK run to the left and to the back


def read(path: pathlib.Path, at_least: int | None = None) -> Picture:
    """Reads a picture or a volume; components of vectors and a fourth axis are channels."""
    del at_least
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    image = SimpleITK.ReadImage(str(path))
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
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    affine[:rank, :rank] = directions[:rank, :rank] * image.GetSpacing()[:rank]
    affine[:rank, 3] = image.GetOrigin()[:rank]
    part = path.name.lower().endswith(".seg.nrrd")  # as 3D Slicer saves segmentations
    return placed(array, (_TO_RAS @ affine)[:, [2, 1, 0, 3]])._replace(part=part)
