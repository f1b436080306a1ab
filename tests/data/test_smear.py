"""The synthetic smear: the truth is what was pasted, at any size, and the splits share out both densities."""

import functools
import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxseg.data.synthetic import smear, smear_cut, smear_drawn
from jaxseg.errors import InputError

# of the five images of BCCD in the folder of real data, those whose cells are not all heaped up
REAL = ("BloodImage_00100", "BloodImage_00300")
CROWDED = "BloodImage_00200"


drawn_templates = functools.cache(smear_drawn.drawn_templates)  # not to be changed


@pytest.fixture(scope="module")
def templates():
    return drawn_templates(1)


def flat_templates(*, cell=(150, 100, 120), artifact=(80, 60, 180), glass=(200, 210, 220)):
    """Squares of one colour, with glass around them as wide as the seam fades."""
    square = np.pad(np.ones((80, 100), bool), 12)
    patch = lambda colour: smear.Patch(np.where(square[..., None], colour, glass).astype(np.uint8), square)
    background = np.full((30, 20, 3), glass, np.uint8)
    return smear.Templates(background, (patch(cell),) * 3, (patch(artifact),) * 3)


def pasted(scene_part, patches):
    """Reference: which pixels of the canvas the masks of placed patches cover, as a list of pixels."""
    covered = np.zeros((smear.CANVAS, smear.CANVAS), bool)
    for template, row, column in scene_part:
        mask = patches[template].mask
        y, x = np.nonzero(mask)
        y, x = y + row - mask.shape[0] // 2, x + column - mask.shape[1] // 2
        there = (y >= 0) & (y < smear.CANVAS) & (x >= 0) & (x < smear.CANVAS)
        covered[y[there], x[there]] = True
    return covered


def block_means(image, size):
    step = smear.CANVAS // size
    return image.reshape(size, step, size, step, *image.shape[2:]).mean((1, 3))


def test_same_seed_and_index_give_the_same_bytes(templates):
    image, labels, scene = smear.render(5, 2, 128, templates=templates)
    again, labels_again, scene_again = smear.render(5, 2, 128, templates=smear_drawn.drawn_templates(1))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    np.testing.assert_array_equal(scene.cells, scene_again.cells)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert labels.shape == (128, 128) and labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 1}
    for seed, index in ((5, 4), (6, 2)):
        other = smear.render(seed, index, 128, templates=templates)
        assert (other[1] != labels).any() and (other[0] != image).mean() > 0.1


@pytest.mark.parametrize("index", (4, 7))
@pytest.mark.parametrize("size", (1500, 500, 300, 150))
def test_labels_are_the_union_of_the_pasted_masks(templates, index, size):
    _, labels, scene = smear.render(3, index, size, templates=templates)
    # half a pixel and more: nine and twenty-five pixels have no half, a hundred have
    np.testing.assert_array_equal(labels, block_means(pasted(scene.cells, templates.cells), size) >= 0.5)


def test_artifacts_are_in_the_image_and_not_in_the_labels():
    templates = flat_templates(cell=(200, 210, 220))  # cells of glass
    image, labels, scene = smear.render(0, 0, 1500, templates=templates, density="low")
    there = pasted(scene.artifacts, templates.artifacts)
    inside = ndimage.binary_erosion(there, iterations=6)  # the seam of a corner is pale
    assert (image[inside] <= (80, 60, 180)).all() and inside.any()  # darker where two lie on each other
    assert (image[there] < (120, 110, 195)).all()
    assert (image[~ndimage.binary_dilation(there, iterations=9)] == (200, 210, 220)).all()
    np.testing.assert_array_equal(labels, pasted(scene.cells, templates.cells))


def test_transmittances_multiply_where_things_lie_on_each_other():
    templates = flat_templates()
    glass = np.array((200, 210, 220))
    cell, artifact = np.array((150, 100, 120)) / glass, np.array((80, 60, 180)) / glass
    image, _, scene = smear.render(1, 1, 1500, templates=templates, density="high")
    cells = sum(pasted([one], templates.cells)[:800, :800].astype(int) for one in scene.cells)
    artifacts = sum(pasted([one], templates.artifacts)[:800, :800].astype(int) for one in scene.artifacts)
    # inside of things and away from them; a seam fades in three pixels and a Gaussian
    around = ndimage.minimum_filter(cells, 19) == ndimage.maximum_filter(cells, 19)
    around &= ndimage.minimum_filter(artifacts, 19) == ndimage.maximum_filter(artifacts, 19)
    expected = glass * cell ** cells[..., None] * artifact ** artifacts[..., None]
    assert {0, 1, 2} <= set(cells[around])
    np.testing.assert_allclose(image[:800, :800][around], expected[around], atol=0.51)


def test_there_is_no_box_around_a_thing():
    """Patches of glass alone, whatever their mask, leave the background as it is."""
    glass = (200, 210, 220)
    background = np.random.default_rng(0).integers(190, 231, (1500, 1500, 3)).astype(np.uint8)
    background[:800] = glass  # more than half, so that it is the median
    mask = np.pad(np.ones((20, 20), bool), 30)
    patch = smear.Patch(np.full((80, 80, 3), glass, np.uint8), mask)
    templates = smear.Templates(background, (patch,), (patch,))
    image, labels, scene = smear.render(2, 3, 1500, templates=templates)
    assert labels.any()
    np.testing.assert_array_equal(image, np.rot90(background, scene.turns))


def test_what_else_is_in_a_patch_is_not_pasted():
    templates = flat_templates()
    rgb, mask = templates.cells[0]
    dirty = rgb.copy()
    dirty[0], dirty[:, -1] = 0, 0  # a neighbour at the border of the patch, twelve pixels from the mask
    soiled = templates._replace(cells=(smear.Patch(dirty, mask),) * 3)
    clean = smear.render(4, 6, 1500, templates=templates)[0]
    np.testing.assert_array_equal(smear.render(4, 6, 1500, templates=soiled)[0], clean)


def test_backgrounds_are_turned_by_quarters_and_stretched():
    ramp = np.add.outer(np.arange(60), np.arange(90)).astype(np.uint8)[..., None] + np.zeros(3, np.uint8) + 50
    patch = smear.Patch(np.full((9, 9, 3), np.median(ramp), np.uint8), np.ones((9, 9), bool))
    templates = smear.Templates(ramp, (patch,), (patch,))
    turns = set()
    for index in range(12):
        image, _, scene = smear.render(0, index, 30, templates=templates)
        expected = np.rot90(ramp, scene.turns).astype(float)
        rows, columns = expected.shape[0] // 30, expected.shape[1] // 30
        expected = expected.reshape(30, rows, 30, columns, 3).mean((1, 3))
        np.testing.assert_allclose(image, expected, atol=2)
        turns.add(scene.turns)
    assert turns == {0, 1, 2, 3}


@pytest.mark.parametrize("size", (128, 64))
def test_another_size_shows_the_same_scene(templates, size):
    for index in (0, 1):
        image, labels, scene = smear.render(9, index, 512, templates=templates)
        small_image, small_labels, small_scene = smear.render(9, index, size, templates=templates)
        np.testing.assert_array_equal(scene.cells, small_scene.cells)
        step = 512 // size
        means = image.reshape(size, step, size, step, 3).astype(float).mean((1, 3))
        assert np.abs(means - small_image).max() <= 1  # both are rounded
        covered = labels.reshape(size, step, size, step).mean((1, 3))
        # a pixel about half covered may fall to either side, as the large labels are rounded too
        clear = np.abs(covered - 0.5) > 0.2
        np.testing.assert_array_equal(small_labels[clear], covered[clear] > 0.5)
        assert clear.mean() > 0.9


def test_counts_are_uniform_and_densities_alternate(templates):
    draw = lambda index, density: smear._draw_scene(np.random.default_rng([0, index]), density, cells=3, artifacts=3)
    low = np.array([len(draw(index, "low").cells) for index in range(4000)])
    high = np.array([len(draw(index, "high").cells) for index in range(4000)])
    assert set(low) == set(range(1, 51)) and set(high) == set(range(51, 101))
    for counts in (low, high - 50):
        frequencies = np.bincount(counts, minlength=51)[1:]
        # 80 each are expected; five standard deviations are 45
        assert np.abs(frequencies - 80).max() < 45
    for index in range(4):
        scene = smear.render(0, index, 32, templates=templates)[2]
        assert len(scene.cells) == len(draw(index, "high" if index % 2 else "low").cells)
        other = smear.render(0, index, 32, templates=templates, density="low" if index % 2 else "high")[2]
        assert (len(scene.cells) > 50) == bool(index % 2) != (len(other.cells) > 50)


def test_places_and_templates_are_uniform():
    scenes = [
        smear._draw_scene(np.random.default_rng([7, index]), "high", cells=3, artifacts=3) for index in range(300)
    ]
    for cells in (np.concatenate([s.cells for s in scenes]), np.concatenate([s.artifacts for s in scenes])):
        share = lambda values, bins: np.bincount(values, minlength=bins) / len(values)
        limit = 5 * np.sqrt(0.25 / len(cells))  # five standard deviations at most
        assert np.abs(share(cells[:, 0], 3) - 1 / 3).max() < limit
        for axis in (1, 2):
            assert np.abs(share(cells[:, axis] // 300, 5) - 1 / 5).max() < limit
            assert cells[:, axis].min() >= 0 and cells[:, axis].max() < 1500


@pytest.mark.parametrize("cases", (1000, 50, 173))
@pytest.mark.parametrize("fractions", (smear.HELD_OUT, {"train": 0.7, "validation": 0.1, "test": 0.2}))
def test_splits_share_out_densities(cases, fractions):
    found = smear.splits(3, cases, fractions=fractions)
    assert list(found) == list(fractions)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(found.values()))), np.arange(cases))  # each once
    for name, numbers in found.items():
        assert (np.diff(numbers) > 0).all()
        low = sum(smear.density_of(index) == "low" for index in numbers)
        assert abs(2 * low - len(numbers)) <= cases % 2
        assert abs(len(numbers) - fractions[name] * cases) <= 2


def test_splits_depend_on_the_seed_alone():
    first, again, other = (smear.splits(seed, 100)["test"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other) and len(first) == 20


def test_test_cases_stay_when_validation_is_taken_from_training():
    two = smear.splits(0, 200)
    three = smear.splits(0, 200, fractions={"train": 0.7, "validation": 0.1, "test": 0.2})
    np.testing.assert_array_equal(two["test"], three["test"])
    np.testing.assert_array_equal(two["train"], np.union1d(three["train"], three["validation"]))


def test_stain_turns_artifacts_to_the_hue_of_the_cells():
    templates = flat_templates()
    glass = np.array((200, 210, 220))
    cell, artifact = -np.log(np.array((150, 100, 120)) / glass), -np.log(np.array((80, 60, 180)) / glass)
    plain, labels, scene = smear.render(6, 0, 1500, templates=templates, density="low")
    alone = pasted(scene.artifacts[:1], templates.artifacts)
    others = pasted(scene.cells, templates.cells) | pasted(scene.artifacts[1:], templates.artifacts)
    inside = ndimage.binary_erosion(alone, iterations=9) & ~ndimage.binary_dilation(others, iterations=9)
    away = ~ndimage.binary_dilation(pasted(scene.artifacts, templates.artifacts), iterations=9)
    assert inside.sum() > 100
    for stain in (0.0, 0.5, 1.0):
        image, same_labels, same_scene = smear.render(6, 0, 1500, templates=templates, density="low", stain=stain)
        absorbance = (1 - stain) * artifact + stain * artifact.mean() * cell / cell.mean()
        np.testing.assert_allclose(image[inside], np.tile(glass * np.exp(-absorbance), (inside.sum(), 1)), atol=0.51)
        np.testing.assert_allclose(absorbance.mean(), artifact.mean())
        np.testing.assert_array_equal(image[away], plain[away])
        np.testing.assert_array_equal(same_labels, labels)
        np.testing.assert_array_equal(same_scene.artifacts, scene.artifacts)


def hue_of(patch, glass):
    """Share of an absorbance that is red; violet things take more red light than pink ones."""
    absorbed = np.log(glass / np.maximum(patch.rgb[patch.mask], 1)).mean(0)
    return absorbed[0] / absorbed.sum()


@pytest.mark.parametrize("seed", range(4))
def test_drawn_templates_are_cells_and_artifacts(seed):
    drawn = drawn_templates(seed)
    glass = np.median(drawn.background, (0, 1))
    assert drawn.background.shape == (1500, 1500, 3) and len(drawn.cells) == len(drawn.artifacts) == 3
    for rgb, mask in drawn.cells + drawn.artifacts:
        edge = np.concatenate([rgb[[0, -1]].reshape(-1, 3), rgb[:, [0, -1]].reshape(-1, 3)])
        assert np.abs(edge - glass).max() <= 3 and not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
        assert rgb[mask].mean() < glass.mean() - 10
    for cell in drawn.cells:
        assert 85 < 2 * np.sqrt(cell.mask.sum() / np.pi) < 125  # diameter in pixels
        assert ndimage.label(cell.mask)[1] == 1
        assert hue_of(cell, glass) < min(hue_of(artifact, glass) for artifact in drawn.artifacts)
    other = drawn_templates((seed + 1) % 4)
    assert any((a.mask != b.mask).any() for a, b in zip(drawn.cells, other.cells, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_hue_tells_artifacts_from_cells_until_they_have_one_stain(seed):
    drawn = drawn_templates(seed)
    glass = np.median(drawn.background, (0, 1)).astype(np.float32)
    absorbed = [[smear._absorbance(patch, glass) for patch in patches] for patches in drawn[1:]]
    hue = smear._hue(absorbed[0], [cell.mask for cell in drawn.cells])

    def red_shares(fields, patches):
        pixels = np.concatenate([field[patch.mask] for field, patch in zip(fields, patches, strict=True)])
        return pixels[:, 0] / np.maximum(pixels.sum(-1), 0.05)

    cells = red_shares(absorbed[0], drawn.cells)
    chances = []
    for stain in (0.0, 0.5, 1.0):
        artifacts = red_shares([smear._restained(field, hue, stain) for field in absorbed[1]], drawn.artifacts)
        # the chance that a pixel of an artifact is redder than one of a cell, parasites included
        chances.append(np.searchsorted(np.sort(cells), artifacts).mean() / len(cells))
    assert chances[0] > 0.92 and chances[0] > chances[1] > chances[2]
    np.testing.assert_allclose(chances[2], 0.5, atol=0.06)


def iou_of_shapes(one, other):
    """Intersection over union of two masks, their centres of gravity on each other."""
    boards = []
    for mask in (one, other):
        row, column = np.rint(ndimage.center_of_mass(mask)).astype(int)
        rows, columns = np.nonzero(mask)
        board = np.zeros((300, 300), bool)
        board[rows - row + 150, columns - column + 150] = True
        boards.append(board)
    return (boards[0] & boards[1]).sum() / (boards[0] | boards[1]).sum()


def annotated_smear(drawn, *, light=1.0):
    """A smear with nine cells and three artifacts in rows: image, boxes, names, and the mask of each thing."""
    things = [*drawn.cells] * 3 + [*drawn.artifacts]
    names = ["red blood cell"] * 9 + ["leukocyte", "difficult", "leukocyte"]
    image = drawn.background[:1000, :1200].astype(float)
    boxes, masks = [], []
    for (rgb, mask), (i, j) in zip(things, itertools.product(range(3), range(4)), strict=True):
        at = np.s_[60 + 220 * i : 240 + 220 * i, 60 + 200 * j : 240 + 200 * j]
        image[at] *= rgb / np.median(drawn.background, (0, 1))
        rows, columns = np.nonzero(mask)
        boxes.append(
            np.array((rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)) + 2 * [at[0].start, at[1].start]
        )
        masks.append(np.zeros(image.shape[:2], bool))
        masks[-1][at] = mask
    return np.clip(np.rint(image * light), 0, 255).astype(np.uint8), np.array(boxes), names, masks


@pytest.mark.parametrize("uneven", (False, True))
def test_cut_masks_are_the_drawn_ones(templates, uneven):
    y, x = np.mgrid[-1:1:1000j, -1:1:1200j]
    light = (1 - 0.12 * x * x - 0.1 * y * y + 0.06 * x)[..., None] if uneven else 1.0
    image, boxes, names, masks = annotated_smear(templates, light=light)
    cut = smear_cut.cut_templates(image, boxes, names)
    # nothing touches, so cells come in the order of their boxes, as artifacts do
    for patch, mask in zip(cut.cells, masks[:3], strict=True):
        assert iou_of_shapes(patch.mask, mask) > 0.95
    for patch, mask in zip(cut.artifacts, masks[9:], strict=True):
        assert iou_of_shapes(patch.mask, mask) > 0.75  # where plasm ends is a matter of taste
    # the light is evened out: glass around a cell is the glass of the background
    glass = np.median(cut.background, (0, 1))
    for rgb, mask in cut.cells:
        around = ~ndimage.binary_dilation(mask, iterations=9)
        np.testing.assert_allclose(np.median(rgb[around], 0), glass, atol=5)  # the light alone spans 40
    # a free square of glass, as large as the empty part of the image allows
    assert min(cut.background.shape[:2]) >= 250
    # cells let about 0.7 of the green light through
    assert ndimage.gaussian_filter(cut.background[..., 1].astype(float), 3).min() > 0.82 * glass[1]


def test_a_crowded_image_has_light_for_background(templates):
    image, boxes, names, _ = annotated_smear(templates)
    image, boxes = image[:700, :860], boxes
    everywhere = [
        (top, left, top + 80, left + 80) for top, left in itertools.product(range(0, 700, 90), range(0, 860, 90))
    ]
    cut = smear_cut.cut_templates(image, [*boxes.tolist(), *everywhere], [*names, *["other"] * len(everywhere)])
    assert cut.background.shape == image.shape
    steps = np.abs(np.diff(cut.background.astype(int), axis=0)).max()
    assert steps <= 1  # no cell, no noise, no outline


def read_voc(folder, name):
    boxes, names = [], []
    for thing in ET.parse(folder / f"{name}.xml").iter("object"):
        box = thing.find("bndbox")
        boxes.append([int(box.findtext(side)) for side in ("ymin", "xmin", "ymax", "xmax")])
        names.append(thing.findtext("name"))
    return np.asarray(Image.open(folder / f"{name}.jpg").convert("RGB")), boxes, names


@pytest.mark.parametrize("name", REAL)
def test_templates_of_a_real_smear_cover_its_cells(real_data, name):
    image, boxes, names = read_voc(real_data / "bccd_smear", name)
    cut = smear_cut.cut_templates(image, boxes, names)
    glass = np.median(cut.background, (0, 1))
    cell_boxes = [box for box, kind in zip(boxes, names, strict=True) if kind == "RBC"]
    areas = [(bottom - top) * (right - left) for top, left, bottom, right in cell_boxes]
    for rgb, mask in cut.cells:
        assert ndimage.label(mask)[1] == 1 and (ndimage.binary_fill_holes(mask) == mask).all()
        # an ellipse fills pi / 4 of its box
        assert 0.6 * np.pi / 4 * min(areas) < mask.sum() < 1.1 * np.pi / 4 * max(areas)
        # red cells take green light, and glass beside them does not
        outline = mask & ~ndimage.binary_erosion(mask, iterations=6)
        outside = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=4)
        assert np.median(rgb[outline][:, 1]) < 0.88 * glass[1]
        assert np.median(rgb[outside][:, 1]) > 0.92 * glass[1]
    red_of_cells = max(hue_of(cell, glass) for cell in cut.cells)
    assert all(hue_of(artifact, glass) > red_of_cells for artifact in cut.artifacts)
    image, labels, _ = smear.render(0, 1, 512, templates=cut)
    assert image[labels > 0].mean() < image[labels == 0].mean() - 15


def test_an_image_with_too_little_to_cut_is_refused(real_data):
    with pytest.raises(InputError, match=r"the image has [012] whole cells that touch no others, and 3 are needed"):
        smear_cut.cut_templates(*read_voc(real_data / "bccd_smear", CROWDED))


def test_images_that_cannot_be_cut_are_named(templates):
    image, boxes, names, _ = annotated_smear(templates)
    # of the three, the remains of the white cell are too large for a thing that nobody has named
    with pytest.raises(InputError, match="the image has 2 artifacts that are whole"):
        smear_cut.cut_templates(image, boxes[:9], names[:9])
    with pytest.raises(InputError, match="the image has 2 whole cells"):
        smear_cut.cut_templates(image, boxes[7:], names[7:])
    with pytest.raises(
        InputError, match=r"the box \(5, 1300, 50, 1400\) of a ring is empty or outside of the 1000 x 1200"
    ):
        smear_cut.cut_templates(image, [[5, 1300, 50, 1400]], ["ring"])
    with pytest.raises(InputError, match="hardly any glass"):
        smear_cut.cut_templates(image, [[0, 0, 1000, 1200]], ["RBC"])
    with pytest.raises(ValueError, match=r"boxes \(12, 4\) and 2 names"):
        smear_cut.cut_templates(image, boxes, names[:2])
    with pytest.raises(ValueError, match=r"the image must be uint8 \[h,w,3\], got float64"):
        smear_cut.cut_templates(image / 255, boxes, names)


def test_what_cannot_be_rendered_is_named(templates):
    for size in (0, 1501):
        with pytest.raises(ValueError, match=f"size is {size}; a scene can be shown with 1 to 1500 pixels"):
            smear.render(0, 0, size, templates=templates)
    with pytest.raises(ValueError, match="density is 'medium'; choose one of low, high"):
        smear.render(0, 0, 8, templates=templates, density="medium")
    for stain in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"stain is .*; it must be a number in 0 to 1"):
            smear.render(0, 0, 8, templates=templates, stain=stain)
    with pytest.raises(ValueError, match="templates have 0 cells and 3 artifacts"):
        smear.render(0, 0, 8, templates=templates._replace(cells=()))
    wrong = smear.Patch(templates.cells[0].rgb, templates.cells[0].mask[:9])
    with pytest.raises(
        ValueError, match=r"mask of artifact 0 must be bool \(180, 180\) and not empty, got bool\(9, 180\)"
    ):
        smear.render(0, 0, 8, templates=templates._replace(artifacts=(wrong,)))
    with pytest.raises(ValueError, match="the background must be uint8"):
        smear.render(0, 0, 8, templates=templates._replace(background=np.zeros((4, 4, 3))))


def test_splits_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"must be positive and sum to 1, not to 1\.1"):
        smear.splits(0, 100, fractions={"train": 0.9, "test": 0.2})
    with pytest.raises(ValueError, match="must be positive"):
        smear.splits(0, 100, fractions={"train": 1.2, "test": -0.2})
    with pytest.raises(InputError, match="3 cases are too few for test to have both densities"):
        smear.splits(0, 3)
