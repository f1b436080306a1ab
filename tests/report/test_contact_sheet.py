"""What is painted where on the sheet."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw, ImageFont

from jaxseg.prediction.thumbnails import thumbnail
from jaxseg.report import contact_sheet
from jaxseg.report.canvas import INK, MUTED, PALETTE

BACKGROUND = 90


def picture(height, width):
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def test_an_outline_is_two_pixels_inside_with_a_black_one_around():
    labels = np.zeros((12, 14), int)
    labels[3:8, 4:10] = 1
    found = contact_sheet.outlined(picture(12, 14), labels)
    colour = contact_sheet._colour(1)
    for row in range(12):
        for column in range(14):
            inside = 3 <= row < 8 and 4 <= column < 10
            deep = 5 <= row < 6 and 6 <= column < 8
            near = 2 <= row < 9 and 3 <= column < 11
            wanted = (BACKGROUND,) * 3 if deep or not near else colour if inside else (0, 0, 0)
            assert tuple(found[row, column]) == wanted, (row, column)


def test_classes_that_touch_have_outlines_of_their_own_and_the_images_border_is_none():
    labels = np.zeros((8, 8), int)
    labels[:, :4], labels[:, 4:] = 1, 2
    found = contact_sheet.outlined(picture(8, 8), labels)
    assert (found[:, 2:4] == contact_sheet._colour(1)).all() and (found[:, 4:6] == contact_sheet._colour(2)).all()
    assert (found[:, [0, 1, 6, 7]] == BACKGROUND).all()


def test_without_an_object_the_picture_stays():
    np.testing.assert_array_equal(contact_sheet.outlined(picture(5, 6), np.zeros((5, 6), int)), picture(5, 6))


@pytest.mark.parametrize(("size", "channels"), [((600, 900), 3), ((30, 20), 1), ((1, 400), 4), ((64, 64), 3)])
def test_a_cell_has_the_shape_of_its_labels_and_both_lie_over_each_other(size, channels):
    labels = np.zeros(size, int)
    labels[size[0] // 3 :, size[1] // 2 :] = 1
    stored = np.repeat((255 * labels[..., None]).astype(np.uint8), channels, -1)
    found = thumbnail(stored, labels, ("name",))
    height, width = found.picture.shape[:2]
    assert max(height, width) == contact_sheet.CELL and found.labels.shape == (height, width)
    assert height / width == pytest.approx(max(size[0] / size[1], 1 / contact_sheet.CELL), abs=1 / contact_sheet.CELL)
    bright = found.picture[..., 0] > 127
    assert (bright != (found.labels > 0)).mean() < 0.02  # of edges that fall between two pixels


def test_the_sheet_has_every_picture_and_the_classes(tmp_path):
    cells = [
        thumbnail(np.full((20, 30 + 10 * i, 3), 40 * i + 40, np.uint8), np.zeros((20, 30 + 10 * i), int), ("a", "b"))
        for i in range(5)
    ]
    contact_sheet.write(tmp_path / "sheet.png", cells, ("background", "lesion"))
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    side, gap = contact_sheet.CELL, contact_sheet._GAP
    assert sheet.shape[1] == gap + 4 * (side + gap)
    for i in range(4):
        assert (sheet[gap + 5, gap + i * (side + gap) + 5] == 40 * i + 40).all()
    assert (sheet == 200).all(-1).sum() == cells[4].picture[..., 0].size  # the fifth, in a second row
    assert (sheet == contact_sheet._colour(1)).all(-1).any()
    first = (tmp_path / "sheet.png").read_bytes()
    contact_sheet.write(tmp_path / "sheet.png", cells, ("background", "lesion"))
    assert (tmp_path / "sheet.png").read_bytes() == first


def test_long_captions_keep_their_end():
    fitting = contact_sheet._fitting("folder/" * 20 + "case_7")
    assert fitting.endswith("case_7") and fitting.startswith("\N{HORIZONTAL ELLIPSIS}")
    assert contact_sheet._font().getlength(fitting) <= contact_sheet.CELL
    assert contact_sheet._fitting("short") == "short"


@pytest.mark.parametrize("name", ["x\ny", "a\tb\r", "\udcff.png", "心臓", "\u202eabc"])
def test_any_name_of_a_file_can_be_drawn(tmp_path, name):
    cell = thumbnail(picture(8, 8), np.zeros((8, 8), int), (name, name))
    contact_sheet.write(tmp_path / "sheet.png", [cell], ("background", name))
    assert contact_sheet._printable("x\ny") == "x\N{REPLACEMENT CHARACTER}y"


def test_an_empty_sheet_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cells is empty"):
        contact_sheet.write(tmp_path / "sheet.png", [], ("a", "b"))


def test_rows_follow_each_other_with_a_gap(tmp_path):
    cells = [thumbnail(np.full((20, 20, 3), 60, np.uint8), np.zeros((20, 20), int), ("a", "b")) for _ in range(5)]
    contact_sheet.write(tmp_path / "sheet.png", cells, ("background",))
    with Image.open(tmp_path / "sheet.png") as image:
        filled = (np.asarray(image)[:, contact_sheet._GAP + 3] == 60).all(-1)
    side, gap, line = contact_sheet.CELL, contact_sheet._GAP, contact_sheet._LINE
    second = gap + side + 2 * line + gap
    wanted = np.zeros(len(filled), bool)
    wanted[gap : gap + side] = wanted[second : second + side] = True
    np.testing.assert_array_equal(filled, wanted)


def drawn_by_hand(cells, classes, colours):
    """The sheet of four columns of 300 px, 12 px apart, captions of 19 px, and a line with the classes below."""
    columns = min(4, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    of_row = [max(len(cell.picture) + 19 * len(cell.captions) for cell in row) + 12 for row in rows]
    width, height = 12 + 312 * columns, 12 + sum(of_row) + 19 + 12
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 14)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            x, y = 12 + 312 * j, 12 + sum(of_row[:i])
            sheet.paste(Image.fromarray(cell.picture), (x, y))
            for k, caption in enumerate(cell.captions):
                pen.text((x, y + len(cell.picture) + 2 + 19 * k), caption, fill=MUTED if k else INK, font=font)
    x, y = 12, 12 + sum(of_row)
    for name, colour in zip(classes[1:], colours, strict=True):
        pen.rectangle((x, y + 4, x + 12, y + 14), fill=colour)
        pen.text((x + 18, y), name, fill=INK, font=font)
        x += 18 + int(np.ceil(pen.textlength(name, font))) + 24
    return np.asarray(sheet)


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_every_pixel_of_a_sheet_is_where_it_belongs(tmp_path, count):
    shapes = [(300, 200), (120, 300), (60, 300), (300, 300), (40, 300), (10, 300)]
    captions = [("first", "second line"), ("alone",), (), ("a", "b", "c"), ("x",), ("y", "z")]
    cells = [
        contact_sheet.Cell(np.full((*shape, 3), 30 + 30 * i, np.uint8), np.zeros(shape, int), text)
        for i, (shape, text) in enumerate(zip(shapes, captions, strict=True))
    ][:count]
    classes = ("background", "ring", "pool of blood", "wall")
    contact_sheet.write(tmp_path / "sheet.png", cells, classes)
    with Image.open(tmp_path / "sheet.png") as image:
        found = np.asarray(image)
    np.testing.assert_array_equal(found, drawn_by_hand(cells, classes, [PALETTE[i] for i in (5, 4, 2)]))


def test_the_sixth_class_has_the_colour_of_the_first():
    labels = (np.arange(9) % 8)[:, None].repeat(4, 0).repeat(8, 1)
    found = contact_sheet.outlined(picture(*labels.shape), labels)
    expected = [PALETTE[i] for i in (5, 4, 2, 3, 1, 5, 4)]
    assert [to_hex(found[4 * k + 1, 3] / 255).upper() for k in range(1, 8)] == [colour.upper() for colour in expected]


@pytest.mark.parametrize("length", [60, 80, 200, 400])
def test_of_a_long_caption_as_much_is_left_as_fits(length):
    text = "".join(f"{i % 10}" for i in range(length))
    fitting = contact_sheet._fitting(text)
    width = contact_sheet._font().getlength(fitting)
    assert text.endswith(fitting[1:]) and 0.9 * contact_sheet.CELL < width <= contact_sheet.CELL
    exact = "0" * int(contact_sheet.CELL / contact_sheet._font().getlength("0"))
    assert contact_sheet._fitting(exact) == exact
