"""DICOM against highdicom and SimpleITK, which the product leaves alone for these kinds, and what is no one volume."""

import copy

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from jaxseg.data import formats, raw_cases
from jaxseg.data.formats import dicom, dicom_segmentation
from tests.data.formats import dicom_files as made

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def inverted(stack: "made.Stack") -> np.ndarray:
    """White where the numbers are low, of all that the bits may hold, before they are rescaled."""
    ends = np.iinfo(stack.stored.dtype)
    shift = ends.bits - stack.bits
    stored = (ends.min >> shift) + (ends.max >> shift) - stack.stored.astype(int)
    return stack._replace(stored=stored).values


def ascending(volume: highdicom.Volume) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine to RAS+ with slices that ascend along the cross product of rows and columns."""
    affine = TO_RAS @ volume.affine
    if np.linalg.det(volume.affine[:3, [2, 1, 0]]) < 0:
        return volume.array[::-1], affine @ np.array([[-1, 0, 0, len(volume.array) - 1], *np.eye(4)[1:]])
    return volume.array, affine


def test_random_series_are_read_as_highdicom_and_simpleitk_read_them(tmp_path):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        stack = made.random_stack(rng, each=seed % 3 == 0)
        photometric = rng.choice(["MONOCHROME1", "MONOCHROME2"])
        files = made.slices(stack, made.SYNTAXES[seed % 3], photometric)
        suffix = rng.choice([".dcm", ".IMA", ""])
        names = [f"{place}{suffix}" for place in rng.permutation(len(files))]
        for name, file in zip(names, files, strict=True):
            made.save(tmp_path / str(seed) / name, file)
        picture = formats.read(tmp_path / str(seed))
        oracle, affine = ascending(
            highdicom.get_volume_from_series(
                [pydicom.dcmread(tmp_path / str(seed) / name) for name in names], apply_presentation_lut=True
            )
        )
        wanted = inverted(stack) if photometric == "MONOCHROME1" else stack.values
        np.testing.assert_allclose(oracle, wanted, rtol=1e-6)
        np.testing.assert_allclose(picture.array[..., 0], wanted, rtol=1e-6, err_msg=str(seed))
        np.testing.assert_allclose(picture.affine, affine, atol=1e-4, err_msg=str(seed))
        np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-4, err_msg=str(seed))
        np.testing.assert_allclose(picture.spacing, stack.spacing, rtol=1e-5)
        assert picture.array.dtype.isnative and picture.array.flags.writeable
        if photometric == "MONOCHROME2" and seed % 3:  # ITK rounds where slices have rescalings of their own
            image = SimpleITK.ReadImage([str(tmp_path / str(seed) / name) for name in names])
            np.testing.assert_allclose(SimpleITK.GetArrayFromImage(image), stack.values, rtol=1e-5)


def test_random_frames_are_read_as_highdicom_reads_them(tmp_path):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        stack = made.random_stack(rng, each=seed % 2 == 0)
        count = len(stack.stored)
        order = (range(count - 1, -1, -1), range(count), rng.permutation(count))[seed % 3]
        photometric = rng.choice(["MONOCHROME1", "MONOCHROME2"])
        file = made.enhanced(stack, [int(i) for i in order], made.SYNTAXES[seed % 2], photometric)
        path = made.save(tmp_path / f"{seed}.dcm", file)
        picture = formats.read(path)
        oracle, affine = ascending(highdicom.imread(path).get_volume(apply_presentation_lut=True))
        wanted = inverted(stack) if photometric == "MONOCHROME1" else stack.values
        np.testing.assert_allclose(picture.array[..., 0], wanted, rtol=1e-6, err_msg=str(seed))
        np.testing.assert_allclose(oracle, wanted, rtol=1e-6)
        for theirs in (affine, stack.affine):
            np.testing.assert_allclose(picture.affine, theirs, atol=1e-4, err_msg=str(seed))
        np.testing.assert_allclose(picture.spacing, stack.spacing, rtol=1e-5)


def segmentation(stack: "made.Stack", pixels: np.ndarray, kind: str, **options) -> highdicom.seg.Segmentation:
    """Segments `[N,H,W]` of numbers, or `[N,H,W,S]`, for every slice of a series."""
    count = pixels.shape[-1] if pixels.ndim == 4 else int(pixels.max())
    codes = highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    algorithm = highdicom.AlgorithmIdentificationSequence("a", codes, "1")
    descriptions = [
        highdicom.seg.SegmentDescription(
            i + 1, f"s{i + 1}", codes, codes, highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm
        )
        for i in range(count)
    ]
    return highdicom.seg.Segmentation(
        made.slices(stack), pixels, kind, descriptions, highdicom.UID(), 1, highdicom.UID(), 1, "m", "m", "1", "1",
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentations_are_numbers_in_their_places(tmp_path, kind):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        stack = made.random_stack(rng, each=False)
        numbers = np.zeros(stack.stored.shape, np.uint8)
        numbers[1:, :3, :3], numbers[1, 3:, 2:] = 1, 2
        if seed % 2:
            numbers[1] = 0  # an empty slice is not stored
            numbers[0, 0, 0] = 2
        file = segmentation(stack, numbers, kind)
        if seed % 4 > 1:
            reverse(file)
        picture = formats.read_mask(made.save(tmp_path / f"{seed}.dcm", file))
        stored = np.flatnonzero(numbers.any((1, 2)))
        np.testing.assert_array_equal(picture.array[..., 0], numbers[stored[0] : stored[-1] + 1])
        affine = stack.affine.copy()
        affine[:3, 3] += affine[:3, 0] * stored[0]
        np.testing.assert_allclose(picture.affine, affine, atol=1e-4)


def reverse(file: pydicom.Dataset) -> None:
    """Frames from the last to the first."""
    frames = file.pixel_array[::-1]
    file.PerFrameFunctionalGroupsSequence = list(reversed(file.PerFrameFunctionalGroupsSequence))
    file.PixelData = pydicom.pixels.pack_bits(frames) if file.BitsAllocated == 1 else frames.tobytes()


def test_overlapping_segments_and_fractions_are_one_line(tmp_path):
    stack = made.random_stack(np.random.default_rng(0), each=False)
    pixels = np.zeros((*stack.stored.shape, 2), np.uint8)
    pixels[1, :3, :3], pixels[1, 2, 2] = (1, 0), 1
    made.save(tmp_path / "a.dcm", segmentation(stack, pixels, "BINARY"))
    with pytest.raises(formats.Unusable, match="has overlapping segments; save each"):
        formats.read_mask(tmp_path / "a.dcm")
    made.save(tmp_path / "b.dcm", segmentation(stack, pixels / 2.0, "FRACTIONAL"))
    with pytest.raises(formats.Unusable, match="holds fractions of segments"):
        formats.read_mask(tmp_path / "b.dcm")


def plain_stack(count: int = 4, bits: int = 8) -> "made.Stack":
    stored = (
        np.random.default_rng(count).integers(0, 2**bits, (count, 6, 5)).astype(np.uint8 if bits == 8 else np.uint16)
    )
    axes = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    return made.Stack(stored, bits, [1.0] * count, [0.0] * count, np.array([10.0, -20, 30]), *axes, (2.5, 0.7, 0.6))


@pytest.mark.parametrize("syntax", made.SYNTAXES[:2])
@pytest.mark.parametrize("name", ["IM0001", "1.2.840.45", "image.dcm"])
@pytest.mark.parametrize("preamble", [True, False])
def test_a_file_is_dicom_by_its_content(tmp_path, syntax, name, preamble):
    stack = plain_stack()
    path = made.save(tmp_path / name, made.slices(stack, syntax)[0], preamble=preamble)
    assert formats.is_image(path) and formats.is_dicom(path)
    picture = formats.read(path)
    np.testing.assert_array_equal(picture.array[..., 0], stack.stored[0])
    np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-6)
    assert picture.spacing == pytest.approx((0.7, 0.6)) and picture.orientation == "PL"


OTHERS = {
    "structure set": "1.2.840.10008.5.1.4.1.1.481.3",
    "presentation state": "1.2.840.10008.5.1.4.1.1.11.1",
    "report": "1.2.840.10008.5.1.4.1.1.88.33",
    "key objects": "1.2.840.10008.5.1.4.1.1.88.59",
    "index": "1.2.840.10008.1.3.10",
}


@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("suffix", ["", ".dcm", ".bin"])
def test_an_object_is_known_by_its_header(tmp_path, suffix, preamble):
    stack = plain_stack()
    files = {"image": made.slices(stack)[0], "segmentation": segmentation(stack, stack.stored % 2, "BINARY")}
    files["segmentation"].SeriesInstanceUID = "1.2.4"
    found = [
        formats.dicom_object(made.save(tmp_path / f"{name}{suffix}", file, preamble=preamble))
        for name, file in files.items()
    ]
    assert found == [("1.2.2", "image"), ("1.2.4", "segmentation")]
    for name, sop_class in OTHERS.items():
        path = made.save(tmp_path / f"{name}{suffix}", made.blank(sop_class), preamble=preamble)
        assert formats.dicom_object(path) == ("1.2.2", "other")
    for name, content in {"words": b"words " * 99, "empty": b"", "zeros": bytes(500)}.items():
        (tmp_path / f"{name}{suffix}").write_bytes(content)
        assert formats.dicom_object(tmp_path / f"{name}{suffix}") is None


def test_of_a_folder_the_images_are_read_and_what_lies_beside_them_is_not(tmp_path):
    stack = plain_stack()
    numbers = (stack.stored > 99).astype(np.uint8)
    for i, file in enumerate(made.slices(stack)):
        made.save(tmp_path / f"IM{i}", file)
    mask = segmentation(stack, numbers, "BINARY")
    made.save(tmp_path / "mask.dcm", mask)
    for i, (name, sop_class) in enumerate(OTHERS.items()):
        other = made.blank(sop_class)
        other.SeriesInstanceUID = f"1.2.9.{i}"
        made.save(tmp_path / (f"{name}.dcm" if i % 2 else name), other)
    picture = formats.read(tmp_path)
    np.testing.assert_array_equal(picture.array[..., 0], stack.stored)
    np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-6)
    second = made.slices(stack)[0]
    second.SeriesInstanceUID = "1.2.8"
    made.save(tmp_path / "second", second)
    with pytest.raises(formats.Unusable, match="holds 2 DICOM series; give each a folder of its own"):
        formats.read(tmp_path)


def test_a_folder_of_segmentations_alone(tmp_path):
    stack = plain_stack()
    numbers = (stack.stored > 99).astype(np.uint8)
    made.save(tmp_path / "a.dcm", segmentation(stack, numbers, "BINARY"))
    made.save(tmp_path / "report.dcm", made.blank(OTHERS["report"]))
    np.testing.assert_array_equal(formats.read_mask(tmp_path).array[..., 0], numbers)
    made.save(tmp_path / "b.dcm", segmentation(stack, numbers, "BINARY"))
    with pytest.raises(formats.Unusable, match="holds 2 DICOM segmentations; name the file of the one that is meant"):
        formats.read_mask(tmp_path)


WITHOUT_PIXELS = {
    OTHERS["structure set"]: r"is a structure set \(RTSTRUCT\) without pixels; convert it to DICOM SEG or NIfTI$",
    OTHERS["presentation state"]: "is a presentation state without pixels; leave it out, and name the images",
    OTHERS["report"]: r"is a structured report \(SR\) without pixels; leave it out",
    OTHERS["key objects"]: "is a selection of key objects without pixels; leave it out",
    OTHERS["index"]: r"is an index of other files \(DICOMDIR\) without pixels; name a file or the folder",
    "1.2.840.10008.5.1.4.1.1.481.5": "is a file of the kind RT Plan without pixels; leave it out",
}


@pytest.mark.parametrize("read", [formats.read, formats.read_mask])
@pytest.mark.parametrize("sop_class", WITHOUT_PIXELS)
def test_an_object_without_pixels_is_said_to_be_what_it_is(tmp_path, read, sop_class):
    path = made.save(tmp_path / "folder" / "a.dcm", made.blank(sop_class))
    for place in (path, made.save(tmp_path / "b", made.blank(sop_class))):
        with pytest.raises(formats.Unusable, match="^" + WITHOUT_PIXELS[sop_class]):
            read(place)
    with pytest.raises(formats.Unusable, match=r"^holds a\.dcm, which " + WITHOUT_PIXELS[sop_class]):
        read(tmp_path / "folder")


def test_an_image_that_lacks_its_pixels_is_to_be_fetched_again(tmp_path):
    file = made.slices(plain_stack())[0]
    del file.PixelData
    assert formats.dicom_object(made.save(tmp_path / "a.dcm", file)) == ("1.2.2", "image")
    with pytest.raises(formats.Unusable, match="is a DICOM file without pixels; fetch it again, or leave"):
        formats.read(made.save(tmp_path / "a.dcm", file))


def test_what_is_no_dicom_is_no_image(tmp_path):
    index = made.blank("1.2.840.10008.1.3.10")
    made.save(tmp_path / "DICOMDIR", index)
    contents = {"LICENSE": b"words " * 99, "empty": b"", "zeros": bytes(500), "x.raw": b"\x08\x00\x05\x00" + bytes(300)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in ("DICOMDIR", *contents):
        assert not formats.is_image(tmp_path / name) and not formats.is_dicom(tmp_path / name), name
    assert not formats.is_image(tmp_path)
    with pytest.raises(formats.Unusable, match="is of no known format"):
        formats.read(tmp_path / "LICENSE")
    stack = plain_stack()
    for i, file in enumerate(made.slices(stack)):
        made.save(tmp_path / f"IM{i}", file)
    np.testing.assert_array_equal(formats.read(tmp_path).array[..., 0], stack.stored)


def test_one_picture_in_colours(tmp_path):
    stack = plain_stack()
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    file = made.slices(stack)[0]
    made.with_pixels(file, stack.stored[0], 8, "PALETTE COLOR")
    for i, name in enumerate(("Red", "Green", "Blue")):
        setattr(file, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(file, f"{name}PaletteColorLookupTableData", (colours[:, i] * 257).astype("<u2").tobytes())
    path = made.save(tmp_path / "a.dcm", file)
    np.testing.assert_array_equal(formats.read(path).array, colours[stack.stored[0]])
    np.testing.assert_array_equal(formats.read_mask(path).array[..., 0], stack.stored[0])
    image = np.random.default_rng(1).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    file = made.slices(stack)[0]
    made.with_pixels(file, stack.stored[0], 8, "YBR_FULL")
    file.SamplesPerPixel, file.PlanarConfiguration = 3, 1
    ybr = np.asarray(pydicom.pixels.convert_color_space(image, "RGB", "YBR_FULL"))
    file.PixelData = np.moveaxis(ybr, -1, 0).tobytes()
    np.testing.assert_allclose(formats.read(made.save(tmp_path / "b.dcm", file)).array.astype(int), image, atol=3)


def test_white_is_low_where_the_presentation_is_inverse_and_padding_is_black(tmp_path):
    stack = plain_stack()
    file = made.slices(stack)[0]
    file.PresentationLUTShape = "INVERSE"
    np.testing.assert_array_equal(
        formats.read(made.save(tmp_path / "a.dcm", file)).array[..., 0], 255 - stack.stored[0]
    )
    stored = np.array([[255, 255, 10], [20, 255, 90]], np.uint8)
    made.with_pixels(file, stored, 8, "MONOCHROME1")
    file.PresentationLUTShape = "INVERSE"
    for padding, wanted in ((255, [[0, 0, 245], [235, 0, 165]]), (10, [[0, 0, 0], [235, 0, 165]])):
        file.PixelPaddingValue = padding
        found = formats.read(made.save(tmp_path / "b.dcm", file)).array[..., 0]
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("bits", [8, 12])
def test_a_class_of_an_inverted_mask_does_not_depend_on_what_else_is_there(tmp_path, bits):
    top = 2**bits - 1
    for classes in ([0], [0, 2], [0, 1, 2], [2]):
        numbers = np.resize(classes, (4, 6, 5))
        stored = (top - numbers).astype(np.uint8 if bits == 8 else np.uint16)
        folder = tmp_path / "".join(map(str, classes))
        for i, file in enumerate(
            made.slices(plain_stack()._replace(stored=stored, bits=bits), photometric="MONOCHROME1")
        ):
            made.save(folder / f"{i}.dcm", file)
        np.testing.assert_array_equal(formats.read_mask(folder).array[..., 0], numbers)


def test_real_numbers_whose_white_is_low_are_turned_over_in_their_own_range_and_that_is_said(tmp_path):
    stack = plain_stack()
    values = np.random.default_rng(0).normal(0, 3, stack.stored.shape).astype(np.float32)
    for i, file in enumerate(made.slices(stack, photometric="MONOCHROME1")):
        del file.PixelData, file.BitsStored, file.HighBit, file.PixelRepresentation
        file.BitsAllocated, file.FloatPixelData = 32, values[i].tobytes()
        made.save(tmp_path / f"{i}.dcm", file)
    picture = formats.read(tmp_path)
    np.testing.assert_allclose(picture.array[..., 0], values.min() + values.max() - values, rtol=1e-5, atol=1e-5)
    assert picture.notes == ("is white where its real numbers are low; they were inverted within their own range",)


def test_a_table_of_the_modality_is_applied(tmp_path):
    stack = plain_stack()
    table = np.random.default_rng(0).integers(0, 2**16, 256)
    file = made.slices(stack)[0]
    del file.RescaleSlope, file.RescaleIntercept
    lut = made.item(LUTDescriptor=[256, 0, 16], ModalityLUTType="US")
    lut.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    file.ModalityLUTSequence = [lut]
    path = made.save(tmp_path / "a.dcm", file)
    np.testing.assert_array_equal(formats.read(path).array[..., 0], table[stack.stored[0]])


def test_bits_outside_of_what_is_stored_are_left_out(tmp_path):
    stack = plain_stack(bits=12)
    file = made.slices(stack)[0]
    made.with_pixels(file, stack.stored[0] | 0xF000, 12)  # an overlay, as old files have it
    np.testing.assert_array_equal(formats.read(made.save(tmp_path / "a.dcm", file)).array[..., 0], stack.stored[0])


def frames_by_distance(stack: "made.Stack", **values) -> pydicom.Dataset:
    file = made.slices(stack)[0]
    made.with_pixels(file, stack.stored, 8)
    file.NumberOfFrames = len(stack.stored)
    for name, value in values.items():
        setattr(file, name, value)
    return file


def test_frames_without_places_of_their_own(tmp_path):
    stack = plain_stack()
    top = stack.position(3)  # of the first frame
    file = frames_by_distance(stack, ImagePositionPatient=top, GridFrameOffsetVector=[0, -2.5, -5, -7.5])
    picture = formats.read(made.save(tmp_path / "a.dcm", file))
    np.testing.assert_array_equal(picture.array[..., 0], stack.stored[::-1])
    np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-6)
    file = frames_by_distance(stack, GridFrameOffsetVector=[30, 32.5, 35, 37.5])  # heights, not distances
    picture = formats.read(made.save(tmp_path / "heights.dcm", file))
    np.testing.assert_array_equal(picture.array[..., 0], stack.stored)
    np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-6)
    file = frames_by_distance(stack, SpacingBetweenSlices=2.5)
    picture = formats.read(made.save(tmp_path / "b.dcm", file))
    np.testing.assert_array_equal(picture.array[..., 0], stack.stored)
    np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-6)
    file = frames_by_distance(stack, FrameTime=40)  # a film of one slice
    picture = formats.read(made.save(tmp_path / "c.dcm", file))
    np.testing.assert_array_equal(picture.array[..., 0], stack.stored)
    assert picture.affine is None and picture.spacing[1:] == (0.7, 0.6)


@pytest.mark.parametrize("column", [1, -1])
def test_a_dose_is_in_grays_at_the_heights_of_its_frames(tmp_path, column):
    stack = plain_stack()
    stack = stack._replace(column=stack.column * column, slopes=[0.004] * 4)
    heights = 30 + 2.5 * np.arange(4) * (1 if column == 1 else -1)  # of the stack, along its normal
    file = frames_by_distance(stack, GridFrameOffsetVector=heights.tolist(), DoseGridScaling=0.004)
    picture = formats.read(made.save(tmp_path / "a.dcm", file))
    np.testing.assert_allclose(picture.array[..., 0], stack.values, rtol=1e-6)
    np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-6)


def region(
    delta: tuple[float, float], ends: tuple[int, int, int, int] = (0, 0, 4, 5), unit: int = 3
) -> pydicom.Dataset:
    names = ("MinX0", "MinY0", "MaxX1", "MaxY1")
    return made.item(
        PhysicalDeltaX=delta[0], PhysicalDeltaY=delta[1], PhysicalUnitsXDirection=unit, PhysicalUnitsYDirection=unit,
        **{f"RegionLocation{name}": end for name, end in zip(names, ends, strict=True)},
    )  # fmt: skip


PART, SECONDS = (0, 0, 2, 5), 4
SIZES_OF_PIXELS = {
    "on the detector": ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
    "on the film": ({"NominalScannedPixelSpacing": [0.3, 0.2]}, (0.3, 0.2)),
    "in the patient first": ({"PixelSpacing": [0.5, 0.4], "ImagerPixelSpacing": [0.2, 0.1]}, (0.5, 0.4)),
    "ultrasound": ({"SequenceOfUltrasoundRegions": [region((0.02, 0.03))]}, (0.3, 0.2)),
    "upwards": ({"SequenceOfUltrasoundRegions": [region((0.02, -0.03))]}, (0.3, 0.2)),
    "regions that agree": ({"SequenceOfUltrasoundRegions": [region((0.02, 0.03), PART)] * 2}, (0.3, 0.2)),
    "one region covers all": (
        {"SequenceOfUltrasoundRegions": [region((0.1, 0.1), PART), region((0.02, 0.03))]},
        (0.3, 0.2),
    ),
    "regions that disagree": (
        {"SequenceOfUltrasoundRegions": [region((0.1, 0.1), PART), region((0.02, 0.03), PART)]},
        (np.nan, np.nan),
    ),
    "of time": ({"SequenceOfUltrasoundRegions": [region((0.1, 0.1), unit=SECONDS)]}, (np.nan, np.nan)),
    "nowhere": ({}, (np.nan, np.nan)),
}


@pytest.mark.parametrize("kind", SIZES_OF_PIXELS)
def test_the_size_of_pixels_is_taken_from_where_it_is_said(tmp_path, kind):
    values, wanted = SIZES_OF_PIXELS[kind]
    file = made.slices(plain_stack())[0]
    del file.PixelSpacing, file.ImagePositionPatient, file.ImageOrientationPatient
    for name, value in values.items():
        setattr(file, name, value)
    picture = formats.read(made.save(tmp_path / "a.dcm", file))
    np.testing.assert_allclose(picture.spacing, wanted)
    assert picture.affine is None


def moved(file: pydicom.Dataset, frame: int, **values) -> None:
    groups = file.PerFrameFunctionalGroupsSequence[frame]
    if "place" in values:
        groups.PlanePositionSequence[0].ImagePositionPatient = values["place"]
    if "directions" in values:
        groups.PlaneOrientationSequence = [made.item(ImageOrientationPatient=values["directions"])]


NO_VOLUME = {
    "one place twice": ({"place": [10, -20, 30]}, "holds frames of the same place, such as frame 1 and frame 4"),
    "a gap": ({"place": [10, -20, 41]}, "lacks frames: they lie 2.5 to 6 mm apart"),
    "another direction": (
        {"directions": [1, 0, 0, 0, 0, -1]},
        "rotated against each other by 90.0 degrees, such as frame 1 and frame 4",
    ),
}


@pytest.mark.parametrize("kind", NO_VOLUME)
def test_frames_that_are_no_one_volume_are_one_line(tmp_path, kind):
    values, text = NO_VOLUME[kind]
    file = made.enhanced(plain_stack(), range(4))
    moved(file, 3, **values)
    with pytest.raises(formats.Unusable, match=text):
        formats.read(made.save(tmp_path / "a.dcm", file))


def test_a_tilted_gantry_and_slices_beside_each_other_are_one_line(tmp_path):
    stack = plain_stack()
    for folder, shifts in (("tilted", [0, 1, 2, 3]), ("beside", [0, 0, 2, 0])):
        for i, file in enumerate(made.slices(stack)):
            file.ImagePositionPatient = [10, -20 + shifts[i], 30 + 2.5 * i]
            made.save(tmp_path / folder / f"{i}.dcm", file)
    with pytest.raises(formats.Unusable, match=r"lie 21\.8 degrees off their normal, as a tilted gantry leaves them"):
        formats.read(tmp_path / "tilted")
    with pytest.raises(formats.Unusable, match="shifted sideways by up to 2 mm"):
        formats.read(tmp_path / "beside")


def test_slices_of_other_pixel_spacings_are_one_line(tmp_path):
    for i, file in enumerate(made.slices(plain_stack())):
        file.PixelSpacing = [0.7, 0.6 + 0.1 * (i == 2)]
        made.save(tmp_path / f"{i}.dcm", file)
    with pytest.raises(
        formats.Unusable, match=r"of the pixel spacings 0\.7x0\.6 and 0\.7x0\.7 mm, such as 0.dcm and 2"
    ):
        formats.read(tmp_path)


def test_a_mosaic_and_a_slide_are_one_line(tmp_path):
    file = made.slices(plain_stack())[0]
    file.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    with pytest.raises(formats.Unusable, match="is a mosaic of slices in one picture; convert it to NIfTI"):
        formats.read(made.save(tmp_path / "a.dcm", file))
    file = frames_by_distance(plain_stack(), TotalPixelMatrixColumns=99)
    with pytest.raises(formats.Unusable, match="is a slide of many tiles"):
        formats.read(made.save(tmp_path / "b.dcm", file))


def test_frames_in_several_files_are_one_volume(tmp_path):
    stack = plain_stack()
    made.save(tmp_path / "a", made.enhanced(stack, [3, 1]))
    made.save(tmp_path / "b", made.enhanced(stack, [0, 2]))
    picture = formats.read(tmp_path)
    np.testing.assert_array_equal(picture.array[..., 0], stack.stored)
    np.testing.assert_allclose(picture.affine, stack.affine, atol=1e-6)


def test_a_segmentation_of_one_slice_has_its_place(tmp_path):
    stack = plain_stack()
    numbers = np.zeros(stack.stored.shape, np.uint8)
    numbers[2, :3] = 1
    picture = formats.read_mask(made.save(tmp_path / "a.dcm", segmentation(stack, numbers, "BINARY")))
    np.testing.assert_array_equal(picture.array[..., 0], numbers[2:3])
    np.testing.assert_allclose(picture.affine[:3, 3], (stack.affine @ [2, 0, 0, 1])[:3], atol=1e-6)
    np.testing.assert_allclose(picture.spacing, stack.spacing, atol=1e-6)


STORED = {
    "the first and last": [0, 9],
    "a gap": [2, 7],
    "every third": [1, 4, 7],
    "gaps of 2 and 3": [1, 3, 6],
    "one": [4],
}


def told(file: pydicom.Dataset, **lengths: float | None) -> pydicom.Dataset:
    """A segmentation that says these lengths of its slices, and lacks those of None."""
    measures = file.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for name, length in lengths.items():
        if length is not None:
            setattr(measures, name, length)
        elif name in measures:
            delattr(measures, name)
    return file


@pytest.mark.parametrize(
    ("kind", "turned_over"), [*((kind, False) for kind in STORED), ("a gap", True), ("gaps of 2 and 3", True)]
)
def test_a_segmentation_without_its_empty_slices_lies_on_its_image(tmp_path, kind, turned_over):
    stack = plain_stack(10)
    if turned_over:
        stack = stack._replace(column=-stack.column)
    numbers = np.zeros(stack.stored.shape, np.uint8)
    numbers[STORED[kind], :3] = 1
    for i, file in enumerate(made.slices(stack)):
        made.save(tmp_path / "image" / f"{i}", file)
    lengths = [{"SpacingBetweenSlices": None}, {"SpacingBetweenSlices": 0}, {}]
    lengths += [{"SpacingBetweenSlices": None, "SliceThickness": None}] * (kind == "gaps of 2 and 3")
    lengths += [{"SpacingBetweenSlices": 2.5, "SliceThickness": 1}]
    stored = segmentation(stack, numbers, "BINARY")
    for i, values in enumerate(lengths):
        mask = made.save(tmp_path / f"{i}.dcm", told(copy.deepcopy(stored), **values))
        loaded = raw_cases.load(raw_cases.RawCase("a", (tmp_path / "image",), mask, "p"))
        np.testing.assert_array_equal(loaded.labels, numbers, err_msg=str(values))
        assert formats.read_mask(mask).spacing == pytest.approx(stack.spacing) and loaded.notes == ()


@pytest.mark.parametrize(("thickness", "stored"), [(5, [0, 1, 4]), (1, [0, 1, 5]), (4, [0, 3, 5])])
def test_a_thickness_that_is_not_the_distance_of_slices_is_not_taken_for_it(tmp_path, thickness, stored):
    stack = plain_stack(10)
    numbers = np.zeros(stack.stored.shape, np.uint8)
    numbers[stored, :3] = 1
    file = told(segmentation(stack, numbers, "BINARY"), SpacingBetweenSlices=None, SliceThickness=thickness)
    picture = formats.read_mask(made.save(tmp_path / "a.dcm", file))
    np.testing.assert_array_equal(picture.array[..., 0], numbers[: stored[-1] + 1])
    assert picture.spacing[0] == pytest.approx(2.5) and picture.part


@pytest.mark.parametrize("stored", [[4], [1, 2, 3], [2, 6], [0, 8], [0, 1, 9]])
def test_the_image_says_how_far_slices_are_apart_where_the_segmentation_cannot(tmp_path, stored):
    stack = plain_stack(10)
    numbers = np.zeros(stack.stored.shape, np.uint8)
    numbers[stored, :3] = 1
    for i, file in enumerate(made.slices(stack)):
        made.save(tmp_path / "image" / f"{i}", file)
    file = segmentation(stack, numbers, "BINARY")
    for thickness in (0.5, 1, 1.25):
        mask = made.save(tmp_path / "a.dcm", told(file, SpacingBetweenSlices=None, SliceThickness=thickness))
        loaded = raw_cases.load(raw_cases.RawCase("a", (tmp_path / "image",), mask, "p"))
        np.testing.assert_array_equal(loaded.labels, numbers, err_msg=str(thickness))


def test_one_slice_of_a_segmentation_lies_on_its_image_however_thick_it_is_said_to_be(tmp_path):
    stack = plain_stack(10)
    numbers = np.zeros(stack.stored.shape, np.uint8)
    numbers[7, :3] = 1
    for i, file in enumerate(made.slices(stack)):
        made.save(tmp_path / "image" / f"{i}", file)
    file = segmentation(stack, numbers, "BINARY")
    for thickness in (1, 4, 5, None):
        mask = made.save(tmp_path / "a.dcm", told(file, SpacingBetweenSlices=None, SliceThickness=thickness))
        loaded = raw_cases.load(raw_cases.RawCase("a", (tmp_path / "image",), mask, "p"))
        np.testing.assert_array_equal(loaded.labels, numbers, err_msg=str(thickness))


def test_a_segmentation_of_another_grid_stays_a_problem(tmp_path):
    stack = plain_stack(10)
    numbers = np.zeros(stack.stored.shape, np.uint8)
    numbers[2:7, :3] = 1
    for i, file in enumerate(made.slices(stack)):
        made.save(tmp_path / "image" / f"{i}", file)
    finer = stack._replace(spacing=(1.25, 0.7, 0.6))
    wider = stack._replace(spacing=(2.5, 0.9, 0.6))
    for i, other in enumerate((finer, wider)):
        mask = made.save(tmp_path / f"{i}.dcm", segmentation(other, numbers, "BINARY"))
        with pytest.raises(raw_cases.FileProblems, match="use the mask that was made for this image"):
            raw_cases.load(raw_cases.RawCase("a", (tmp_path / "image",), mask, "p"))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_of_a_picture_without_a_place(tmp_path, monkeypatch, kind):
    stack = plain_stack(1)
    (picture,) = made.slices(stack)
    del picture.ImagePositionPatient, picture.ImageOrientationPatient, picture.FrameOfReferenceUID
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"  # ultrasound
    monkeypatch.setattr(made, "slices", lambda _: [picture])
    numbers = np.zeros(stack.stored.shape, np.uint8)
    numbers[0, :3], numbers[0, 4] = 1, 2
    mask = formats.read_mask(made.save(tmp_path / "a.dcm", segmentation(stack, numbers, kind)))
    np.testing.assert_array_equal(mask.array[..., 0], numbers[0])
    assert mask.affine is None and mask.orientation == ""


def test_slices_that_are_white_where_others_are_black_are_one_line(tmp_path):
    for i, file in enumerate(made.slices(plain_stack())):
        file.PhotometricInterpretation = "MONOCHROME1" if i == 2 else "MONOCHROME2"
        made.save(tmp_path / f"{i}.dcm", file)
    with pytest.raises(formats.Unusable, match="some of them white where others are black"):
        formats.read(tmp_path)


@pytest.mark.parametrize(
    ("fault", "seen", "message"),
    [
        (RuntimeError("Segments overlap"), formats.Unusable, "has overlapping segments"),
        (RuntimeError("no more memory"), RuntimeError, "no more memory"),
        (ValueError("Fractional values"), formats.Unusable, "holds fractions of segments"),
        (ValueError("a damaged frame"), ValueError, "a damaged frame"),
    ],
)
def test_what_highdicom_says_of_other_faults_stays(monkeypatch, fault, seen, message):
    def fail(*_args, **_options):
        raise fault

    monkeypatch.setattr(highdicom.seg.Segmentation, "from_dataset", lambda file, copy: None)
    monkeypatch.setattr(dicom_segmentation, "_without_places", fail)
    with pytest.raises(seen, match=message):
        dicom_segmentation.read(pydicom.Dataset())


class Undecodable:
    """A file whose pixels no decoder can read."""

    def __init__(self, syntax):
        self.file_meta = pydicom.Dataset()
        self.file_meta.TransferSyntaxUID = syntax

    @property
    def pixel_array(self):
        raise RuntimeError("Unable to decode the pixel data")


def test_compression_is_blamed_only_where_there_is_some():
    with pytest.raises(formats.Unusable, match="is compressed as JPEG 2000 Image Compression; decompress it"):
        dicom._stored(Undecodable(pydicom.uid.JPEG2000))
    with pytest.raises(RuntimeError, match="Unable to decode"):
        dicom._stored(Undecodable(pydicom.uid.ExplicitVRLittleEndian))
