"""What is written of a prediction: rows, the sheet, what is left of earlier calls, and what is said where it fails."""

import csv
import errno
import pathlib
import types

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import formats, windows
from jaxseg.data.inputs import gray_levels
from jaxseg.data.pipeline import Preparation
from jaxseg.errors import InputError
from jaxseg.prediction import inputs, page
from jaxseg.prediction.inputs import Source, TrainedOn
from jaxseg.prediction.page import Options
from jaxseg.prediction.predictor import Prediction, Reference
from jaxseg.prediction.thumbnails import thumbnail

REFERENCE = Reference({"mean_sa": np.arange(10.0), "entropy": np.arange(10.0)}, {"mean_sa": np.zeros(1)})


class Bright:
    """Object where the image is bright; the score is the gray level of the first pixel."""

    tiling = None

    def __init__(self, rank=2):
        taken = TrainedOn(("background", "a", "b"), 1, rank, Preparation(None, None, rank == 3))
        self.trained, self.inputs = types.SimpleNamespace(trained_on=taken), gray_levels(4)

    def predict(self, image, size, *, spacing, probabilities):
        labels = np.where(image[..., 0] > 200, 2, image[..., 0] > 100).astype(np.uint8)
        value = float(image[0, 0, 0])
        scores = {"mean_sa": value if value < 99 else np.nan, "entropy": value}
        return Prediction(labels, np.zeros((*labels.shape, 3), np.float32) if probabilities else None, scores)


@pytest.fixture
def pictures(tmp_path):
    """`(*levels) -> sources`: pictures of 4 x 6 pixels, the first of that level, two of class 1 and one of class 2."""

    def made(*levels):
        sources = []
        for i, level in enumerate(levels):
            array = np.zeros((4, 6), np.uint8)
            array[0, 0], array[2, 1:4] = level, (150, 150, 250)
            path = tmp_path / "in" / f"p{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array).save(path)
            sources.append(Source(path, f"p{i}"))
        return sources

    return made


@pytest.fixture
def sheets(monkeypatch):
    drawn = []
    monkeypatch.setattr(page.contact_sheet, "write", lambda path, cells, names: drawn.append((path, cells, names)))
    return drawn


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def rows_of(output):
    with (output / page.TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_have_areas_scores_and_their_percentiles(pictures, sheets, output, capsys):
    sources = pictures(3, 8, 1)
    sources.insert(1, Source(sources[0].path.with_name("gone.png"), "gone"))
    options = Options(coverage=0.6, probabilities=True)
    outcome = page._predict_all(sources, Bright(), REFERENCE, output, options)
    assert (outcome.predicted, outcome.flagged, outcome.failed) == (3, 2, 1)
    rows = rows_of(output)
    assert [*rows[0]][-1] == "error" and rows[1]["mask"] == ""
    assert rows[1]["error"].startswith("cannot be read as an image") and "gone.png: cannot" in capsys.readouterr().err
    assert {name: rows[0][name] for name in ("mask", "size", "pixels_a", "pixels_b")} == {
        "mask": "masks/p0.png", "size": "6x4", "pixels_a": "2", "pixels_b": "1",
    }  # fmt: skip
    # of the validation cases 0 to 9, so many have a higher mean SA, and so many a lower entropy
    assert [row["mean_sa_percentile"] for row in rows] == ["60", "", "10", "80"]
    assert [row["entropy_percentile"] for row in rows] == ["30", "", "80", "10"]
    assert [row["flagged"] for row in rows] == ["true", "", "false", "true"]
    with Image.open(output / "masks" / "p0.png") as mask:
        assert np.asarray(mask)[2].tolist() == [0, 1, 1, 2, 0, 0]
    assert np.load(output / "probabilities" / "p0.npy").shape == (4, 6, 3)
    [(path, cells, names)] = sheets
    assert path == outcome.sheet == output / page.SHEET and names == ("background", "a", "b")
    assert [cell.captions for cell in cells] == [  # the worst first
        ("p2", "mean_sa 1: worse than 80 %"), ("p0", "mean_sa 3: worse than 60 %")
    ]  # fmt: skip


def test_the_sheet_has_the_worst_and_goes_where_nothing_is_flagged(pictures, sheets, output, monkeypatch):
    monkeypatch.setattr(page, "_ON_SHEET", 2)
    outcome = page._predict_all(pictures(5, 2, 150, 3), Bright(), REFERENCE, output, Options(coverage=0.0))
    assert outcome.flagged == 4
    assert [cell.captions[1] for cell in sheets[0][1]] == [
        "mean_sa undefined: worse than 100 %", "mean_sa 2: worse than 70 %"
    ]  # fmt: skip
    (output / page.SHEET).touch()
    outcome = page._predict_all(pictures(5), Bright(), REFERENCE, output, Options(coverage=1.0))
    assert outcome.sheet is None and outcome.flagged == 0 and not (output / page.SHEET).exists() and len(sheets) == 1


def test_results_of_earlier_calls_go_where_the_table_no_longer_names_them(pictures, sheets, output):
    sources = pictures(1, 2, 3)
    page._predict_all(sources, Bright(), REFERENCE, output, Options(probabilities=True))
    (output / "masks" / "own.png").touch()
    page._predict_all(sources[:2], Bright(), REFERENCE, output, Options())
    assert sorted(path.name for path in (output / "masks").iterdir()) == ["own.png", "p0.png", "p1.png"]
    assert not list((output / "probabilities").iterdir())
    assert page._named(output / page.TABLE) == ["p0", "p1"]
    (output / page.TABLE).write_bytes(b"\xff\xfe")
    assert page._named(output / page.TABLE) == page._named(output / "none") == []
    (output / page.TABLE).write_text("mask\nmasks/a/b.nii.gz\n\nmasks/c\n")
    assert page._named(output / page.TABLE) == ["a/b", "c"]


def test_where_the_disk_is_full_the_table_tells_what_was_not_predicted(pictures, sheets, output, monkeypatch):
    sources = pictures(1, 2, 3)
    replace = page.atomic.replace

    def full(path, content):
        if path.name == "p1.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        replace(path, content)

    monkeypatch.setattr(page.atomic, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        page._predict_all(sources, Bright(), REFERENCE, output, Options())
    rows = rows_of(output)
    assert [row["file"] for row in rows] == [str(source.path) for source in sources]
    assert [row["error"] for row in rows] == [
        "",
        "cannot be predicted (OSError: No space left on device)",
        "was not predicted, as the results of those before could not be written",
    ]


@pytest.mark.parametrize(("count", "room"), [(1, 65_536), (128, 65_536), (129, 512 * 129)])
def test_room_is_kept_for_the_table(monkeypatch, output, count, room):
    kept = []
    monkeypatch.setattr(page.os, "urandom", lambda size: kept.append(size) or b"")
    monkeypatch.setattr(page, "_rows", lambda *_: ([{"file": "a", "error": "b"}] * count, [], None))
    page._predict_all([Source(pathlib.Path("a"), "a")] * count, Bright(), REFERENCE, output, Options())
    assert kept == [room]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (formats.Unusable("holds nothing"), "holds nothing"),
        (InputError("no"), "no"),
        (OSError(5, "Input/output error", "x"), "cannot be predicted (OSError: Input/output error)"),
        (ValueError("first\nsecond"), "cannot be predicted (ValueError: first)"),
        (MemoryError(), "cannot be predicted (MemoryError)"),
    ],
)
def test_a_reason_is_one_line(error, said):
    assert page._reason(error) == said


def test_what_is_left_out_is_said_with_its_number(capsys):
    page._say([], "left out")
    for count, said in ((1, "a0: left out\n"), (2, "a0 and 1 more: left out\n"), (5, "a0 and 4 more: left out\n")):
        page._say([pathlib.Path(f"a{i}") for i in range(count)], "left out")
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("coverage", [0.0, 1.0])
def test_a_coverage_is_a_share(output, coverage):
    page._check(Options(coverage=coverage), output)
    with pytest.raises(InputError, match=r"--coverage=.*: give a share from 0 to 1"):
        page._check(Options(coverage=coverage * 3 - 1), output)


def test_scores_and_folders_that_cannot_be_are_named(output):
    for score, message in (
        ("distortion", "--score=distortion: give --autoencoder for distortion, or choose one of mean_sa, entropy$"),
        ("vog", "--score=vog: choose one of mean_sa, entropy$"),
    ):
        with pytest.raises(InputError, match=message):
            page._check(Options(score=score), output)
    page._check(Options(score="distortion", autoencoder=output), output)
    (output / "file").touch()
    with pytest.raises(InputError, match="holds files that are no predictions; choose a new folder"):
        page._check(Options(), output)
    with pytest.raises(InputError, match="file: is a file; name a folder"):
        page._check(Options(), output / "file")
    (output / inputs.MARKER).touch()
    page._check(Options(), output)


def test_inputs_in_the_folder_of_results_are_refused(pictures, output):
    [source] = pictures(1)
    source.path.with_name(inputs.MARKER).touch()
    with pytest.raises(InputError, match=r"holds the input .*p0.png; choose another folder"):
        page.run(
            source=None, paths=[source.path], output=source.path.parent, options=Options(), prepare=None, command=""
        )


def test_areas_are_pixels_and_where_the_spacing_is_known_square_or_cubic_millimetres():
    labels = np.array([[0, 1, 1], [0, 0, 2]], np.uint8)
    assert page._areas(labels, (0.5, 3.0), ("background", "a", "b", "c")) == {
        "pixels_a": 2, "pixels_b": 1, "pixels_c": 0, "mm2_a": 3.0, "mm2_b": 1.5, "mm2_c": 0.0,
    }  # fmt: skip
    assert page._areas(labels, (np.nan, 1.0), ("background", "a", "b")) == {"pixels_a": 2, "pixels_b": 1}


def test_of_a_volume_the_slice_with_most_foreground_is_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "thumbnail", lambda *of: shown.append(of))
    image = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2, 1)
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[0, 0, 0], labels[1, :, 1] = 2, 1
    loaded = inputs.Loaded(image, image, (3, 2, 2), (np.nan,) * 3, None)
    row = {"entropy": 0.12345, "entropy_percentile": 99.6}
    page._cell(Source(pathlib.Path("x"), "x"), loaded, Prediction(labels, None, {}), row, "entropy")
    [(picture, mask, captions)] = shown
    np.testing.assert_array_equal(picture, image[1])
    np.testing.assert_array_equal(mask, labels[1])
    assert captions == ("x, slice 2 of 3", "entropy 0.123: worse than 100 %")


@pytest.mark.parametrize(("size", "wanted"), [((10, 40), (75, 300)), ((40, 10), (300, 75)), ((1, 1000), (1, 300))])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_thumbnails_longer_side_is_that_of_the_sheets_cells(size, wanted, channels):
    image = np.zeros((*size, channels), np.uint8) + np.arange(10, 10 + channels, dtype=np.uint8)
    cell = thumbnail(image, np.ones(size, np.uint8), ["a", "b"])
    assert cell.picture.shape == (*wanted, 3) and cell.labels.shape == wanted and cell.captions == ("a", "b")
    colour = [10, 11, 12] if channels == 3 else [10, 10, 10]
    np.testing.assert_array_equal(cell.picture, np.broadcast_to(np.array(colour), cell.picture.shape))


def test_a_window_without_a_size_has_that_of_the_networks_images(monkeypatch):
    made = []
    monkeypatch.setattr(page, "Predictor", lambda *of: made.append(of))
    monkeypatch.setattr(page.network, "load_repair", lambda folder, trained: folder)
    asked = lambda *sides: types.SimpleNamespace(squashes=True, members=[types.SimpleNamespace(sides=sides)])
    page._predictor(asked(48, 48), Options(tiling=windows.Tiling(0, 0.25), autoencoder="there"))
    page._predictor(asked(48, 32), Options(tiling=windows.Tiling(0)))
    page._predictor(asked(48, 48), Options(tiling=windows.Tiling(32)))
    page._predictor(asked(48, 48), Options())
    tilings = [windows.Tiling(48, 0.25), windows.Tiling((48, 32)), windows.Tiling(32), None]
    assert [of[1:] for of in made] == [(tiling, "there" if i == 0 else None) for i, tiling in enumerate(tilings)]
