"""What a reader sees of a finding: the line between windows where it is, and marks where they were found."""

import numpy as np
import pytest

from jaxseg.audit import pictures

MOVES = {"left": (0, -3), "right": (0, 3), "top": (-2, 0), "bottom": (2, 0)}


def image(seed=0, shape=(8, 10)):
    return np.random.default_rng(seed).integers(1, 255, (*shape, 3)).astype(np.uint8)  # neither black nor white


@pytest.mark.parametrize("side", MOVES)
def test_the_line_moves_to_the_border_with_what_is_seen(side):
    """A line that is painted into the first window and moved lies where it is painted into the second."""
    move = np.array(MOVES[side])
    lined = []
    for window in (0, 1):
        painted, named = pictures._with_line(image(), move, window)
        assert named == side and painted.shape == image().shape
        changed = (painted != image()).any(-1)
        (places,) = np.nonzero(changed.all(int(move[0] == 0) ^ 1))
        assert len(places) == 1 and changed.sum() == changed.shape[int(move[0] != 0)]
        assert set(np.unique(painted[changed])) == {0, 255}  # dashed
        lined.append(int(places[0]))
    length = image().shape[int(move[0] == 0)]
    assert lined[0] + move.sum() == lined[1] == (0 if move.sum() < 0 else length - 1)


def test_a_figure_of_windows_names_its_sides_and_others_have_none(squares, subject_of, networks, plots, tmp_path):
    subject = subject_of(networks.Threshold(), squares(3))
    seen = np.stack([np.stack([image(i), image(i + 9)]) for i in range(2)])
    labels = np.zeros(seen.shape[:-1], np.uint8)
    moves = np.array([MOVES["left"], MOVES["bottom"]])
    for name, given, caption in (("windows", moves, "Two windows. White: "), ("others", None, "White: ")):
        pairs = pictures.Pairs(seen, labels, labels, np.array([0, 2]), given)
        kept = pictures.of_arrays(pairs.arrays(prefix="a_"), prefix="a_")
        assert (kept.moves is None) == (given is None)
        one = pictures.figure(name, kept, subject, "far", "near", parts="Two windows." if given is not None else "")
        assert one.caption.startswith(caption)
        one.draw(tmp_path / f"{name}.png")
    drawn = plots(tmp_path)
    titles = {name: [text[0] for text in of["texts"] if text[0].startswith("case")] for name, of in drawn.items()}
    assert titles["windows"] == [
        "case0, far (left)",
        "case0, near (left)",
        "case2, far (bottom)",
        "case2, near (bottom)",
    ]
    assert titles["others"] == ["case0, far", "case0, near", "case2, far", "case2, near"]


def test_marks_are_outlined_where_they_were_found(monkeypatch, tmp_path):
    masks = np.zeros((2, 8, 10), bool)
    masks[0, 2:4, 3:7], masks[1, 5, 5] = True, True
    sheets = []
    monkeypatch.setattr(pictures.contact_sheet, "write", lambda *of: sheets.append(of))
    one = pictures.marks_figure("gray levels", np.stack([image(0), image(1)]), masks, ("a", "b"), table="overlays")
    one.draw(tmp_path / "marks.png")
    ((path, cells, names),) = sheets
    assert (one.name, one.table, path.name, names) == (
        "gray_levels_marks",
        "overlays",
        "marks.png",
        ("", "found marks"),
    )
    assert [cell.captions for cell in cells] == [("a",), ("b",)]
    for cell, mask in zip(cells, masks, strict=True):
        scale = cell.labels.shape[1] // 10
        np.testing.assert_array_equal(cell.labels[scale // 2 :: scale, scale // 2 :: scale], mask)
