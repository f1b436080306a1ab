"""DICOM files for tests, as scanners write them: series of single slices, and enhanced files of many frames."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from scipy.spatial.transform import Rotation

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


class Stack(NamedTuple):
    """Stored numbers `[N,H,W]`, ascending along the normal, and where they lie."""

    stored: np.ndarray
    bits: int
    slopes: Sequence[float]
    intercepts: Sequence[float]
    first: np.ndarray
    row: np.ndarray
    column: np.ndarray
    spacing: tuple[float, float, float]  # between slices, rows, columns

    @property
    def values(self) -> np.ndarray:
        scale = np.reshape(self.slopes, (-1, 1, 1)), np.reshape(self.intercepts, (-1, 1, 1))
        return self.stored * scale[0] + scale[1]

    @property
    def affine(self) -> np.ndarray:
        """From slice, row and column to RAS+, by the formula of the standard (PS3.3 C.7.6.2.1.1)."""
        affine = np.eye(4)
        affine[:3, :3] = np.stack([np.cross(self.row, self.column), self.column, self.row], 1) * self.spacing
        affine[:3, 3] = self.first
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine

    def position(self, number: int) -> list[str]:
        place = self.first + number * self.spacing[0] * np.cross(self.row, self.column)
        return [f"{value:.10f}"[:16] for value in place]

    @property
    def directions(self) -> list[str]:
        return [f"{value:.12f}"[:16] for value in (*self.row, *self.column)]


def random_stack(rng: np.random.Generator, *, each: bool) -> Stack:
    """Of 8, 12 or 16 bits, with a sign or without, lying anyhow; `each` slice with a rescaling of its own."""
    count, rows, columns = rng.integers(3, 6), rng.integers(5, 9), rng.integers(5, 9)
    bits, signed = int(rng.choice([8, 12, 16])), bool(rng.random() < 0.4)
    low = -(2 ** (bits - 1)) if signed else 0
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    turn = Rotation.random(rng=rng).as_matrix() if rng.random() < 0.5 else np.eye(3)[rng.permutation(3)]
    scale = rng.choice([0.5, 1.0, 2.0], count if each else 1), rng.integers(-1024, 9, count if each else 1)
    return Stack(
        rng.integers(low, low + 2**bits, (count, rows, columns)).astype(kind),
        bits,
        [float(slope) for slope in np.resize(scale[0], count)],
        [float(intercept) for intercept in np.resize(scale[1], count)],
        rng.uniform(-99, 99, 3).round(3),
        turn[0],
        turn[1],
        tuple(rng.uniform(0.4, 4, 3).round(3).tolist()),
    )


def blank(sop_class: str, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = syntax
    file = Dataset()
    file.file_meta = meta
    file.SOPClassUID, file.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    file.PatientID, file.PatientName, file.PatientBirthDate, file.PatientSex = "p", "p^", "20000101", "O"
    file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.3"
    file.StudyID, file.AccessionNumber, file.StudyDate, file.StudyTime = "1", "1", "20200101", "101010"
    file.SeriesNumber, file.InstanceNumber, file.Modality, file.ReferringPhysicianName = 1, 1, "CT", ""
    file.Manufacturer, file.ManufacturerModelName, file.ImageType = "m", "m", ["ORIGINAL", "PRIMARY", "VOLUME"]
    file.ContentDate, file.ContentTime = "20200101", "101010"
    return file


def with_pixels(file: Dataset, stored: np.ndarray, bits: int, photometric: str = "MONOCHROME2") -> None:
    """`[H,W]` or `[N,H,W]` in the byte order of the file."""
    file.Rows, file.Columns = stored.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, photometric
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * stored.dtype.itemsize, bits, bits - 1
    file.PixelRepresentation = int(stored.dtype.kind == "i")
    order = ">" if file.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    content = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    file.PixelData = content + bytes(len(content) % 2)
    file["PixelData"].VR = "OW" if stored.dtype.itemsize == 2 else "OB"


def save(path: pathlib.Path, file: Dataset, *, preamble: bool = True) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    if not preamble:
        path.write_bytes(path.read_bytes()[132:])
    return path


def slices(stack: Stack, syntax: str = ExplicitVRLittleEndian, photometric: str = "MONOCHROME2") -> list[Dataset]:
    """A series, in the order of the stack."""
    files = []
    for i, stored in enumerate(stack.stored):
        file = blank(CTImageStorage, syntax)
        file.ImagePositionPatient, file.ImageOrientationPatient = stack.position(i), stack.directions
        file.PixelSpacing, file.SliceThickness = list(stack.spacing[1:]), stack.spacing[0]
        file.RescaleSlope, file.RescaleIntercept = stack.slopes[i], stack.intercepts[i]
        file.InstanceNumber = i + 1
        with_pixels(file, stored, stack.bits, photometric)
        files.append(file)
    return files


def item(**values: Any) -> Dataset:
    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found


def enhanced(
    stack: Stack, order: Sequence[int], syntax: str = ExplicitVRLittleEndian, photometric: str = "MONOCHROME2"
) -> Dataset:
    """An enhanced CT whose frames are stored in the given order of the stack."""
    file = blank(EnhancedCTImageStorage, syntax)
    file.NumberOfFrames = len(order)
    measures = item(PixelSpacing=list(stack.spacing[1:]), SliceThickness=stack.spacing[0])
    file.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[measures],
            PlaneOrientationSequence=[item(ImageOrientationPatient=stack.directions)],
        )
    ]
    file.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=stack.position(i))],
            PixelValueTransformationSequence=[
                item(RescaleSlope=stack.slopes[i], RescaleIntercept=stack.intercepts[i], RescaleType="HU")
            ],
            FrameContentSequence=[item(DimensionIndexValues=[1, i + 1], StackID="1", InStackPositionNumber=i + 1)],
        )
        for i in order
    ]
    file.DimensionOrganizationSequence = [item(DimensionOrganizationUID="1.2.9")]
    file.DimensionIndexSequence = [
        item(DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111, DimensionOrganizationUID="1.2.9")
        for pointer in (0x00209056, 0x00209057)
    ]
    with_pixels(file, stack.stored[list(order)], stack.bits, photometric)
    return file
