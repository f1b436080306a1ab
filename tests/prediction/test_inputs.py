"""What is found in folders, and that files become what their data set made of its own."""

import pathlib
import re
import shutil

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from jaxseg.data import builders, formats, normalisation, pipeline, resizing
from jaxseg.data.inputs import Inputs, gray_levels
from jaxseg.data.pipeline import Preparation
from jaxseg.errors import InputError
from jaxseg.prediction import inputs
from jaxseg.prediction.inputs import MARKER, TrainedOn


def picture(path, size=(20, 30), channels=1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng([seed, len(path.name)]).integers(0, 256, (*size, channels), np.uint8)
    Image.fromarray(array[..., 0] if channels == 1 else array).save(path)
    return array


def names(*paths, **options):
    return [source.name for source in inputs.find([pathlib.Path(path) for path in paths], **options)[0]]


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a.png", "sub/c.jpg", "sub/deep/d.tif", ".hidden/e.png", "._a.png", "__MACOSX/a.png"):
        picture(tmp_path / name)
    (tmp_path / "sub" / "notes.txt").write_text("not an image")
    picture(tmp_path / "results" / "masks" / "a.png")
    (tmp_path / "results" / MARKER).write_text("{}")
    return tmp_path


def test_folders_are_searched_but_for_what_is_hidden_or_holds_results(tree):
    sources, unknown, masks = inputs.find([tree])
    assert [source.name for source in sources] == ["a", "b", "sub/c", "sub/deep/d"]
    assert [source.path for source in sources][2] == tree / "sub" / "c.jpg"
    assert unknown == [tree / "sub" / "notes.txt"] and masks == []


def test_a_pattern_chooses_files(tree):
    assert names(tree, pattern="*.png") == ["a", "b"]
    with pytest.raises(InputError, match=r"holds no image named \*.bmp; use .bmp, "):
        names(tree, pattern="*.bmp")
    with pytest.raises(InputError, match="1 files are of no known format"):
        names(tree, pattern="*.txt")


def test_files_are_taken_in_their_order_and_once(tree):
    assert names(tree / "b.png", tree / "a.png", tree / "b.png") == ["b", "a"]
    assert names(tree / "b.png", tree) == ["b", f"{tree.name}/a", f"{tree.name}/sub/c", f"{tree.name}/sub/deep/d"]


def test_names_that_differ_in_their_suffix_alone_keep_it(tree):
    picture(tree / "a.jpg")
    picture(tree / "sub" / "a.png")
    assert names(tree)[:3] == ["a.jpg", "a.png", "b"] and "sub/a" in names(tree)


def test_inputs_that_would_have_the_same_results_are_refused(tree):
    with pytest.raises(InputError, match=r"a.png and .*a.png would have the same results; predict them one after"):
        names(tree / "a.png", tree / "results" / "masks" / "a.png")


def test_a_missing_path_and_a_loop_of_links(tree):
    with pytest.raises(InputError, match=r"--inputs=.*nowhere: no such file or folder"):
        names(tree / "nowhere")
    (tree / "sub" / "loop").symlink_to(tree)
    assert names(tree) == ["a", "b", "sub/c", "sub/deep/d"]


MASKS = {  # files, and which of them are masks
    "a folder of masks": ("images/a.png images/b.png *masks/a.png *masks/b.png"),
    "a folder of other names": ("images/img001.png *masks/m_17.png"),
    "folders of a challenge": ("imagesTr/h_1_0000.nii.gz *labelsTr/h_1.nii.gz imagesTs/h_2_0000.nii.gz"),
    "official folders": ("Test_v2_Data/ISIC_1.jpg *Test_v2_Part1_GroundTruth/ISIC_1_segmentation.png"),
    "below patients": ("p1/t1.nii.gz *p1/Segmentations/x.nii.gz p2/t1.nii.gz"),
    "annotations": ("1_HC.png *1_HC_Annotation.png 2_HC.png"),
    "numbered masks of one image": ("benign (1).png *benign (1)_mask.png *benign (1)_mask_1.png"),
    "of NIfTI": ("p1_frame01.nii.gz *p1_frame01_gt.nii.gz"),
    "of one of several modalities": ("B_1_flair.nii.gz B_1_t1.nii.gz *B_1_seg.nii.gz"),
    "the word in front": ("image_001.png *mask_001.png image_002.png"),
    "the word in front of a name": ("cat_1.png *mask_cat_1.png cat_2.png"),
    "the word in front, without a separator": ("img7.png *mask7.png"),
    "beside what is called an image too": ("image_1.png *image_1_mask.png img_2.png *img_2_seg.png"),
    "numbered volumes": ("volume-0.nii *segmentation-0.nii volume-10.nii"),
    "one case a folder": ("case_1/imaging.nii.gz *case_1/segmentation.nii.gz case_2/imaging.nii.gz"),
    "a name with points": ("a.b.v1.png a.b.v2.png *a.b.v1_mask.png"),
    "of another format": ("a.jpg *a_mask.tif"),
    "of Slicer": ("brain.nrrd *brain.seg.nrrd") if formats.is_image(pathlib.Path("a.nrrd")) else "a.png",
    "of Slicer, called as it calls them": ("CT.nrrd *Segmentation.seg.nrrd *tumour.seg.nrrd"),
    "of Slicer, elsewhere": ("scans/CT.nii.gz *export/tumour.seg.nrrd"),
    "of Slicer alone": ("Segmentation.seg.nrrd more.seg.nrrd"),
    "below a folder that is called so": ("segmentation/images/1.png *segmentation/mask/1.png"),
    "images below a folder that is called so": ("seg/images/1.png seg/images/2.png other.png"),
    "below a folder that is called so, beside others": ("seg/ct/1.png seg/pet/1.png *seg/mask/1.png more/2.png"),
    "boxes beside masks": ("images/1.png *annotations/mask/1.png *annotations/boxes/1.png"),
    "masks of several kinds": ("images/CT/1.png *masks/CT/1.png *masks/scan_2/1.png"),
    "of VOC": ("JPEGImages/07_32.jpg *SegmentationClass/07_32.png *SegmentationObject/07_32.png"),
    "of DRIVE": ("training/images/21_training.tif *training/1st_manual/21_manual1.tif *training/mask/21_mask.tif"),
    "of Cityscapes": ("leftImg8bit/val/lund/l_1_leftImg8bit.png *gtFine/val/lund/l_1_gtFine_labelIds.png"),
    "masks of a version": ("images/a.png *lesion_masks_final/a.png *masks_v2/a.png"),
    "masks of a person": ("images/a.png images/b.png *annotations_dr_smith/a.png annotations_of_others/c.png"),
    "regions": ("img/a.png *ROI/a.png *rois/a.png"),
    "of KiTS": ("c_1/imaging.nii.gz *c_1/aggregated_AND_seg.nii.gz *c_1/aggregated_MAJ_seg.nii.gz c_2/imaging.nii.gz"),
    "of one of two cases": ("case_1_t1.nii.gz case_1_t2.nii.gz *case_1_seg.nii.gz case_2_t1.nii.gz"),
    "of modalities in a folder of their own": ("p_1/t1ce.nii.gz p_1/flair.nii.gz *p_1/tumour_mask.nii.gz"),
    "of what is named in them": ("a.png *a_lesion_mask.png b_t1.nii.gz *b_tumour_seg.nii.gz c_2_mask.png c.png"),
    "of organs of one case": ("s_1/ct.nii.gz *s_1/mask_liver.nii.gz *s_1/kidney_left_mask.nii.gz"),
    "studies that are called so": ("seg_study_T1.nii.gz seg_study_T2.nii.gz T1.nii.gz"),
    "masks alone": ("masks/a.png masks/b.png"),
    "a mask without an image": ("a_mask.png b.png"),
    "a word within others": ("masked/a.png seglabs/b.png label_free_microscopy/c.png d.png"),
    "the word in every name": ("gt_car_1.png gt_car_2.png"),
    "a name that continues without a separator": ("ab.png a_mask.png"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_images_beside_them_are_left_out(tmp_path, kind):
    files = re.split(r" (?=[^(])", MASKS[kind])
    for name in files:
        (tmp_path / name.lstrip("*")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name.lstrip("*")).write_bytes(b"")
    sources, _, masks = inputs.find([tmp_path])
    place = lambda path: path.relative_to(tmp_path).as_posix()
    assert sorted(map(place, masks)) == sorted(name[1:] for name in files if name[0] == "*")
    assert sorted(place(s.path) for s in sources) == sorted(name for name in files if name[0] != "*")
    for mask in masks:  # asked for by their names, or their folder, they are taken
        assert mask in [source.path for source in inputs.find([tmp_path], pattern=mask.name)[0]]
        assert mask in [source.path for source in inputs.find([tmp_path, mask])[0]]
        assert mask not in inputs.find([tmp_path, mask]).masks
    if all("masks/" in name for name in files if name[0] == "*"):
        found = inputs.find([place for place in tmp_path.iterdir() if place.name == "masks"] or [tmp_path])
        assert found.masks == []


def test_what_slicer_stored_is_known_by_its_header(tmp_path):
    header = b"NRRD0004\ntype: unsigned char\nsizes: 4 4 4\n%bencoding: raw\n\n"
    (tmp_path / "CT.nrrd").write_bytes(header % b"" + b"Segment0_ID:=no header")
    (tmp_path / "tumour.nrrd").write_bytes(header % b"Segment0_ID:=Segment_1\n" + bytes(64))
    found = inputs.find([tmp_path])
    assert [source.name for source in found.sources] == ["CT"] and found.masks == [tmp_path / "tumour.nrrd"]


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_dicom_segmentation_is_a_mask_wherever_it_lies(tmp_path, suffix):
    for name, number in (("1-01/a.dcm", "2"), ("1-02/b" + suffix, "66.4")):
        (tmp_path / name).parent.mkdir()
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{number}"
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        header.Rows, header.Columns = 2, 2
        header.save_as(tmp_path / name, enforce_file_format=True)
    found = inputs.find([tmp_path])
    assert [source.name for source in found.sources] == ["1-01/a"]
    assert found.masks == [tmp_path / ("1-02/b" + suffix)]
    assert inputs.find([tmp_path / "1-02"]).masks == []  # asked for by its folder


def test_of_a_data_set_the_masks_are_left_out_whatever_they_are_called(tmp_path):
    for name in ("x/a.png", "x/b.png", "y/a.png", "y/b.png", "more.png"):
        picture(tmp_path / "set" / name)
    (tmp_path / "set" / "cases.csv").write_text("case;image;mask\na;x\\a.png;y\\a.png\nb;x/b.png;y/b.png\n")
    for root in (tmp_path, tmp_path / "set"):
        sources, _, masks = inputs.find([root])
        assert [source.path.relative_to(tmp_path / "set").as_posix() for source in sources] == [
            "more.png",
            "x/a.png",
            "x/b.png",
        ]
        assert [mask.relative_to(tmp_path / "set").as_posix() for mask in masks] == ["y/a.png", "y/b.png"]


def test_what_cannot_be_read_in_a_folder_is_an_input_that_is_named(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "c.png").symlink_to("c.png")
    (tmp_path / "locked").mkdir()
    listed = pathlib.Path.iterdir

    def denied(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(pathlib.Path, "iterdir", denied)
    assert names(tmp_path) == ["a", "b", "c", "locked"]
    assert not inputs.inside(tmp_path / "c.png", tmp_path / "out")
    for name in ("b.png", "c.png", "locked"):
        with pytest.raises(formats.Unusable, match="cannot be read"):
            load(tmp_path / name)


@pytest.mark.parametrize("letter", ["x", "ü", "脳"])
def test_names_as_long_as_the_disk_takes_them_have_results_of_their_own(tmp_path, letter):
    width = len(letter.encode())
    longest = [letter * ((255 - 5) // width) + f"{i}.png" for i in range(2)] + [letter * (240 // width) + ".png"]
    for name in longest:
        picture(tmp_path / name)
    found = names(tmp_path)
    assert len(set(found)) == 3 and letter * (240 // width) in found
    for name in found:
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="File name too long"):
        names(tmp_path / ("x" * 300))


def dicom(path, series, kind=None):
    import pydicom
    from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = MRImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    file.SeriesInstanceUID = UID(series)
    if kind is not None:  # without pixels
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = kind
        return file.save_as(path, enforce_file_format=True)
    file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = 4, 4, 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PixelData = bytes(16)
    file.save_as(path, enforce_file_format=True)


def test_dicom_files_of_one_series_are_one_input_others_one_each(tmp_path):
    for z in range(3):
        dicom(tmp_path / "mr" / f"{z}.dcm", "1.2.3")
        dicom(tmp_path / "xray" / f"{z}.dcm", f"1.2.{z + 4}")
    dicom(tmp_path / "alone" / "a.dcm", "1.2.9")
    (tmp_path / "mr" / "broken.dcm").write_bytes(b"no DICOM")  # named when the series is read
    picture(tmp_path / "mr" / "overview.png")
    assert names(tmp_path) == ["alone/a", "mr", "mr/overview", "xray/0", "xray/1", "xray/2"]
    assert names(tmp_path / "mr") == ["mr", "overview"]


def test_a_series_is_one_volume_whatever_its_files_are_called_and_whatever_lies_beside_them(tmp_path):
    structure_set = "1.2.840.10008.5.1.4.1.1.481.3"
    for z in range(3):
        dicom(tmp_path / "ct" / f"IM{z}", "1.2.3")
    dicom(tmp_path / "ct" / "rtstruct.dcm", "1.2.4", structure_set)
    found = inputs.find([tmp_path])
    assert [source.name for source in found.sources] == ["ct"] and found.unknown == [tmp_path / "ct" / "rtstruct.dcm"]
    assert formats.read(tmp_path / "ct").array.shape == (3, 4, 4, 1)
    dicom(
        tmp_path / "ct" / "other0", "1.2.5"
    )  # a second volume: said by whoever reads the folder, not torn to pictures
    dicom(tmp_path / "ct" / "other1", "1.2.5")
    assert names(tmp_path) == ["ct"]


def trained_on(channels=1, rank=2, **preparation):
    return TrainedOn(
        ("a", "b"), channels, rank, Preparation(**{"scaling": None, "size": None, "volumes": False} | preparation)
    )


def load(path, *arguments, whole=False, source_size=16, **options):
    given = gray_levels(None if whole else source_size)
    return inputs.load(path, trained_on(*arguments, **options), given)


def test_gray_and_colour_become_what_the_network_takes(tmp_path):
    gray, colour = picture(tmp_path / "gray.png"), picture(tmp_path / "colour.png", channels=3)
    Image.fromarray(np.repeat(gray, 3, -1)).save(tmp_path / "gray_as_rgb.png")
    np.testing.assert_array_equal(load(tmp_path / "gray.png", 3).image, np.repeat(gray, 3, -1))
    np.testing.assert_array_equal(load(tmp_path / "gray_as_rgb.png").image, gray)
    np.testing.assert_array_equal(load(tmp_path / "colour.png", 3).image, colour)
    with pytest.raises(formats.Unusable, match="has 3 channels or frames, and the network takes 1"):
        load(tmp_path / "colour.png")


@pytest.mark.parametrize("how", normalisation.NORMALISATIONS)
def test_a_file_of_16_bits_becomes_the_gray_levels_that_a_network_of_8_bits_knows(tmp_path, how):
    levels = np.random.default_rng(0).integers(0, 256, (24, 30), np.uint8)
    levels[0, :9], levels[1, :9] = 0, 255  # as many that the ends are found
    Image.fromarray(levels).save(tmp_path / "narrow.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "wide.png")
    numbers = {"mean": (100.0,), "std": (60.0,)} if how == "mean_std" else {}
    given = Inputs(normalisation=normalisation.NORMALISATIONS[how](**numbers))
    narrow, wide = (inputs.load(tmp_path / f"{name}.png", trained_on(), given).image for name in ("narrow", "wide"))
    np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize(
    ("write", "rank", "message"),
    [
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\nbroken"), 2, "cannot be read as an image"),
        (picture, 3, "is a picture, and the network takes volumes"),
        (lambda path: None, 2, "cannot be read as an image .*No such file"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, write, rank, message):
    write(tmp_path / "a.png")
    with pytest.raises(formats.Unusable, match=message):
        load(tmp_path / "a.png", 1, rank)


def test_values_that_are_not_finite_are_refused(tmp_path):
    array = np.ones((4, 5, 6), np.float32)
    array[1, 2, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(formats.Unusable, match="holds values that are not finite"):
        load(tmp_path / "a.nii")


def test_a_photograph_is_decoded_at_a_smaller_scale_where_its_data_set_did_so(tmp_path):
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), (640, 480))
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    small = load(tmp_path / "a.jpg", 3, size=64)
    assert small.size == (480, 640) and small.image.shape == (240, 320, 3) and small.stored.shape == (64, 64, 3)
    assert load(tmp_path / "a.jpg", 3, size=64, whole=True).image.shape == (480, 640, 3)
    assert load(tmp_path / "a.jpg", 3, source_size=100).image.shape == (240, 320, 3)
    assert load(tmp_path / "a.jpg", 3, scaling=("window", 0.0, 255.0)).image.shape == (480, 640, 3)


def disc(size, number):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return np.hypot(rows - 20 - number, columns - 30) < 12


def write_pictures(folder):
    """As HC18: 8 bits of gray, squashed to 256 x 256."""
    for number in range(10):
        mask = disc((60, 80), number)
        noise = np.random.default_rng(number).integers(0, 90, mask.shape)
        (folder / "training_set").mkdir(exist_ok=True, parents=True)
        name = f"training_set/{number:03d}_HC"
        Image.fromarray((noise + 120 * mask).astype(np.uint8)).save(folder / f"{name}.png")
        Image.fromarray((255 * mask).astype(np.uint8)).save(folder / f"{name}_Annotation.png")
    return "hc18/256", lambda case: folder / "training_set" / f"{case}.png"


def write_volumes(folder):
    lines = ["case,image,mask,domain,patient"]
    folder.mkdir(parents=True)
    for number in range(10):
        mask = np.stack([disc((60, 80), number)] * 3, -1)
        noise = np.random.default_rng(number).gamma(2, 100, mask.shape)
        for name, array in (("image", noise + 400 * mask), ("mask", mask.astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([2, 2, 5, 1])), folder / f"{number}_{name}.nii.gz")
        lines.append(f"v{number},{number}_image.nii.gz,{number}_mask.nii.gz,,p{number}")
    (folder / "cases.csv").write_text("\n".join(lines))
    return "folder/v", lambda case: folder / f"{case[1:].partition('_')[0]}_image.nii.gz"


@pytest.mark.parametrize("write", [write_pictures, write_volumes])
def test_a_file_becomes_what_its_data_set_made_of_it(tmp_path, write, capsys):
    """To the bit, in every normalisation, also where images were squashed before they are normalised."""
    name, file = write(tmp_path / "raw")
    directory = builders.prepare(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "raw")
    split = pipeline.Split(directory, "test", size=None)
    known = TrainedOn(split.class_names, split.num_channels, split.rank, split.preparation)
    volumes = write is write_volumes
    assert split.preparation == (
        Preparation(("percentiles", 0.5, 99.5), None, True, "SAR", "float16")
        if volumes
        else Preparation(None, 256, False)
    )
    assert len(split) == (6 if volumes else 2)
    for how, made in normalisation.NORMALISATIONS.items():
        given = Inputs(normalisation=made(**({"mean": (100.0,), "std": (60.0,)} if how == "mean_std" else {})))
        for case in pipeline.Split(directory, "test", inputs=given):
            loaded = inputs.load(file(case["case"]), known, given)
            stored = loaded.stored[int(case["case"][-3:])] if volumes else loaded.stored
            np.testing.assert_array_equal(stored, case["image"], how)
            assert loaded.size == ((3, 80, 60) if volumes else (60, 80))


def test_a_data_set_that_was_prepared_before_this_was_noted_is_named(tiny, tmp_path):
    directory = tmp_path / "tiny"
    shutil.copytree(tiny, directory)
    path = directory / "metadata.json"
    content = path.read_text()
    path.write_text(content.replace('"scaling"', '"scale"'))
    with pytest.raises(InputError, match="did not note the scaling of its images; prepare the data set again"):
        _ = pipeline.Split(directory, "train", size=None).preparation
    path.write_text(content)
    assert pipeline.Split(directory, "train", size=None).preparation == Preparation(None, 64, False)


def test_a_name_is_shortened_where_it_is_longer_than_248_bytes(tmp_path):
    assert inputs._storable("a/" + 248 * "x") == "a/" + 248 * "x"
    shortened = inputs._storable("a/" + 249 * "x")
    assert shortened.startswith("a/" + 239 * "x" + "~") and len(shortened) == 2 + 248
    assert shortened != inputs._storable("b/" + 249 * "x").replace("b/", "a/")


def test_a_folder_that_was_named_and_cannot_be_read_ends_the_search(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "iterdir", denied)
    with pytest.raises(InputError, match=r": cannot be read \(Permission denied\); see to its rights"):
        inputs.find([tmp_path])


@pytest.mark.parametrize(
    ("shape", "known", "affine", "said"),
    [
        ((3, 4, 5, 1), "SPL", None, "slices, rows and columns are taken to run to the head, back, left"),
        ((3, 4, 5, 1), "", np.eye(4)[[2, 1, 0, 3]], "is cut into axial slices, as it is stored; whether the network"),
        ((3, 4, 5, 1), "", None, "is cut along its first axis, as it is stored"),
        ((3, 4, 5, 1), "SPL", np.eye(4), None),
        ((3, 1, 5, 1), "", None, "is cut along its first axis"),
        ((1, 4, 5, 1), "", None, None),  # one slice
        ((4, 5, 1), "", None, None),  # a picture
    ],
)
def test_what_is_not_known_of_how_a_volume_lies_is_said(shape, known, affine, said):
    picture = formats.Picture(np.zeros(shape, np.uint8), (1.0,) * (len(shape) - 1), affine)
    lines = list(inputs._about_orientation(picture, Preparation(None, None, True, known)))
    assert len(lines) == (said is not None) and (said or "") in "".join(lines)


def test_slices_of_a_volume_are_squashed_one_by_one(tmp_path):
    volume = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)  # x, y, z
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    loaded = load(tmp_path / "a.nii", size=8)
    assert loaded.image.shape == (3, 10, 12, 1) and loaded.stored.shape == (3, 8, 8, 1)
    for image, stored in zip(loaded.image, loaded.stored, strict=True):
        np.testing.assert_array_equal(stored, resizing.resize(image, (8, 8)))
