"""Arrays are brought together by where they lie: turned and flipped exactly, refused where it would take resampling."""

import itertools

import nibabel
import numpy as np
import pytest

from jaxseg.data import builders, geometry, pipeline, raw_cases
from jaxseg.data.raw_cases import FileProblems, RawCase

SIZE = (4, 5, 6)
ALL_CODES = [
    "".join(sides) for axes in itertools.permutations(("RL", "AP", "SI")) for sides in itertools.product(*axes)
]


def rotation(x=0.0, y=0.0, z=0.0):
    """Degrees about each axis."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians([x, y, z])):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def grid(*, spacing=(3.0, 1.5, 1.2), turn=None, start=(-20.0, 10, 5)):
    """Of (slice, row, column): `SPL`, perhaps turned."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]]) * spacing
    affine[:3, 3] = start
    return affine


def volume(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 1000, (*size, 1)).astype(np.int16)


def values_by_place(array, affine):
    """Rounded place in mm -> value."""
    found = {}
    for index in np.ndindex(*array.shape[:3]):
        place = tuple(np.round((affine @ [*index, 1])[:3], 3))
        found[place] = array[(*index, 0)]
    return found


@pytest.mark.parametrize("codes", ALL_CODES)
def test_every_value_stays_at_its_place_in_the_patient(codes):
    array, affine = volume(*SIZE), grid(turn=rotation(8, -11, 5))
    turned, moved = geometry.oriented(array, affine, codes)
    assert geometry.orientation(moved) == codes and geometry.orientation(affine) == "SPL"
    assert values_by_place(turned, moved) == values_by_place(array, affine)
    np.testing.assert_array_equal(geometry.restored(turned, affine, codes), array)
    back = geometry.matched(turned, moved, SIZE, affine)
    np.testing.assert_array_equal(back.array, array)
    assert back.note == ""


def test_axes_at_45_degrees_are_matched_whichever_way_each_header_is_rounded():
    array, one, other = volume(*SIZE), grid(turn=rotation(z=44.9999)), grid(turn=rotation(z=45.0001))
    assert geometry.orientation(one) != geometry.orientation(other)
    np.testing.assert_array_equal(geometry.matched(array, one, SIZE, other).array, array)


def test_rounded_headers_are_the_same_grid_a_small_shift_is_a_note_and_half_a_pixel_is_refused():
    array, affine = volume(*SIZE), grid()
    assert geometry.matched(array, np.round(affine + 1e-4, 3), SIZE, affine).note == ""
    near = affine.copy()
    near[:3, 3] += affine[:3, 1] * 0.2
    assert geometry.matched(array, near, SIZE, affine).note == "lies up to 0.20 of a pixel off its image"
    near[:3, 3] += affine[:3, 1] * 0.4
    with pytest.raises(geometry.OtherGrid):
        geometry.matched(array, near, SIZE, affine)


@pytest.mark.parametrize(
    ("affine", "said"),
    [
        (grid(turn=rotation(z=25)), "6x5x4 of 1.2x1.5x3 mm to LPS from (-20, 10, 5), turned by 25 degrees"),
        (grid(spacing=(3.0, 1.5, 1.5)), "6x5x4 of 1.5x1.5x3 mm to LPS from (-20, 10, 5)"),
        (grid(start=(-20, 10, 8)), "6x5x4 of 1.2x1.5x3 mm to LPS from (-20, 10, 8)"),
    ],
)
def test_another_grid_is_refused_with_both_geometries(affine, said):
    with pytest.raises(geometry.OtherGrid) as error:
        geometry.matched(volume(*SIZE), affine, SIZE, grid())
    assert (error.value.ours, error.value.theirs) == (said, "6x5x4 of 1.2x1.5x3 mm to LPS from (-20, 10, 5)")


@pytest.mark.parametrize("codes", ["SPL", "IAR", "RAS"])
def test_a_part_of_a_grid_is_filled_up_with_background(codes):
    whole, affine = volume(*SIZE), grid(turn=rotation(3, 4, 5))
    kept = (slice(1, 3), slice(0, 4), slice(2, 6))
    inner = affine.copy()
    inner[:3, 3] = (affine @ [1, 0, 2, 1])[:3]
    turned, moved = geometry.oriented(whole[kept], inner, codes)
    wanted = np.zeros_like(whole)
    wanted[kept] = whole[kept]
    np.testing.assert_array_equal(geometry.matched(turned, moved, SIZE, affine, fill=True).array, wanted)
    with pytest.raises(geometry.OtherGrid):
        geometry.matched(turned, moved, SIZE, affine)
    outside = moved.copy()
    outside[:3, 3] -= 5 * affine[:3, 0]
    with pytest.raises(geometry.OtherGrid):
        geometry.matched(turned, outside, SIZE, affine, fill=True)


def test_an_affine_that_tells_nothing_is_known_as_such():
    assert geometry.is_usable(grid())
    assert not any(geometry.is_usable(bad) for bad in (np.zeros((4, 4)), np.full((4, 4), np.nan)))


# Files.


def save(path, array, affine, codes="SPL"):
    """`[D,H,W,1]`, stored with its axes in another order."""
    array, affine = geometry.oriented(array, affine, codes)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array[..., 0].transpose(), affine @ np.eye(4)[[2, 1, 0, 3]]), path)
    return path


@pytest.mark.parametrize("codes", ["SPR", "LAS", "IPL"])
def test_modalities_and_masks_in_another_orientation_are_turned_onto_the_first_image(tmp_path, codes):
    affine, arrays = grid(turn=rotation(5, 0, 9)), [volume(*SIZE, seed=seed) for seed in (1, 2)]
    mask = (volume(*SIZE, seed=3) > 500).astype(np.uint8)
    images = tuple(
        save(tmp_path / f"{i}.nii.gz", array, affine, way)
        for i, (array, way) in enumerate(zip(arrays, ("SPL", codes), strict=True))
    )
    case = RawCase("a", images, save(tmp_path / "mask.nii.gz", mask, affine, codes), "p")
    loaded = raw_cases.load(case)
    np.testing.assert_array_equal(loaded.image, np.concatenate(arrays, -1))
    np.testing.assert_array_equal(loaded.labels, mask[..., 0])
    assert loaded.orientation == "SPL" and loaded.notes == ()


def test_a_mask_that_is_turned_against_its_image_is_refused_with_both_geometries(tmp_path):
    image = save(tmp_path / "image.nii", volume(*SIZE), grid())
    mask = save(tmp_path / "mask.nii", volume(*SIZE) * 0, grid(turn=rotation(z=25)))
    with pytest.raises(FileProblems, match=r"mask.nii: is 6x5x4 .*, turned by 25 degrees, its image is 6x5x4 of"):
        raw_cases.load(RawCase("a", (image,), mask, "p"))


def test_a_mask_that_is_a_little_off_is_noted(tmp_path):
    image = save(tmp_path / "image.nii", volume(*SIZE), grid())
    mask = save(tmp_path / "mask.nii", volume(*SIZE) * 0, grid(start=(-20.2, 10, 5)))
    (note,) = raw_cases.load(RawCase("a", (image,), mask, "p")).notes
    assert note == f"{mask}: lies up to 0.17 of a pixel off its image"


def test_a_header_that_contradicts_itself_is_noted_and_named_where_it_may_be_why(tmp_path):
    image = save(tmp_path / "image.nii", volume(*SIZE), grid())
    content = bytearray(image.read_bytes())
    content[80:92] = np.float32([1.2, 1.5, 6]).tobytes()  # pixdim of slices
    image.write_bytes(content)
    mask = save(tmp_path / "mask.nii", volume(*SIZE) * 0, grid())
    said = f"{image}: its pixdim says 1.2 x 1.5 x 6 mm, its affine 1.2 x 1.5 x 3 mm; the affine was taken"
    assert raw_cases.load(RawCase("a", (image,), mask, "p")).notes == (said,)
    save(mask, volume(*SIZE) * 0, grid(spacing=(6, 1.5, 1.2)))
    with pytest.raises(FileProblems) as error:
        raw_cases.load(RawCase("a", (image,), mask, "p"))
    assert error.value.lines[0].endswith(f"use the mask that was made for this image ({said})")


@pytest.mark.parametrize("kind", ["png", "nii"])
def test_a_picture_and_a_volume_of_one_slice_are_the_same(tmp_path, kind):
    from PIL import Image

    image, mask = volume(1, 5, 6).astype(np.uint8), (volume(1, 5, 6, seed=1) > 500).astype(np.uint8)
    if kind == "png":  # with a mask that was drawn in a viewer of volumes
        Image.fromarray(image[0, ..., 0]).save(tmp_path / "image.png")
        files = tmp_path / "image.png", save(tmp_path / "mask.nii.gz", mask, grid())
    else:
        Image.fromarray(mask[0, ..., 0]).save(tmp_path / "mask.png")
        files = save(tmp_path / "image.nii.gz", image, grid()), tmp_path / "mask.png"
    loaded = raw_cases.load(RawCase("a", files[:1], files[1], "p"))
    np.testing.assert_array_equal(loaded.labels.reshape(5, 6), mask[0, ..., 0])
    np.testing.assert_array_equal(loaded.image.reshape(5, 6), image[0, ..., 0])


@pytest.mark.parametrize("name", ["folder/mixed", "folder/mixed-volumes"])
def test_volumes_that_run_another_way_than_most_are_turned(tmp_path, name, capsys):
    """The same ten volumes, all stored alike, and three of them in other orientations: the same data set."""
    found = []
    for other in ({}, {2: "RAS", 5: "IAR", 9: "PLS"}):
        raw = tmp_path / f"raw{len(other)}"
        lines = ["case,image,mask,domain,patient"]
        for number in range(10):
            image, affine = volume(*SIZE, seed=number), grid(turn=rotation(number, 3, -number))
            way = other.get(number, "SPL")
            save(raw / f"{number}.nii.gz", image, affine, way)
            save(raw / f"{number}_mask.nii.gz", (image > 500).astype(np.uint8), affine, way)
            lines.append(f"v{number},{number}.nii.gz,{number}_mask.nii.gz,,p{number}")
        (raw / "cases.csv").write_text("\n".join(lines))
        directory = builders.prepare(name, data_dir=tmp_path / f"data{len(other)}", manual_dir=raw)
        splits = [pipeline.Split(directory, split, size=None) for split in ("train", "validation", "test")]
        assert splits[0].preparation.orientation == "SPL"
        found.append({case["case"]: (case["image"], case["labels"], case["spacing"]) for s in splits for case in s})
    assert found[0].keys() == found[1].keys()
    for case, arrays in found[0].items():
        for one, another in zip(arrays, found[1][case], strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-6)
    report = builders.check(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "raw3")
    (finding,) = [finding for finding in report.findings if finding.check == "orientation"]
    assert len(finding.lines) == 3 and finding.summary.endswith("they are turned to match")
