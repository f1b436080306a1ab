"""New images in; a mask beside a row of a table for each, and one sheet with those that a person should see."""

import contextlib
import csv
import dataclasses
import errno
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm

from jaxseg import atomic
from jaxseg.data import formats, pipeline, threads, windows
from jaxseg.data.raw_cases import as_uint8, size_text
from jaxseg.errors import InputError
from jaxseg.paths import children, exists, is_folder
from jaxseg.prediction import inputs, network, outputs, quality
from jaxseg.prediction.inputs import MARKER, Loaded, Source
from jaxseg.prediction.predictor import Prediction, Predictor, Reference, reference
from jaxseg.prediction.thumbnails import thumbnail
from jaxseg.report import contact_sheet
from jaxseg.scores import registry
from jaxseg.scores.base import AUTOENCODER
from jaxseg.training import trained

TABLE, SHEET = "predictions.csv", "flagged.png"
_MASKS, _PROBABILITIES = "masks", "probabilities"
_SUFFIXES = (".nii.gz", ".nii", ".png", ".tif", ".tiff", ".nrrd", ".mha", ".npy")
# Errors of the place of all results, not of one of them.
_OF_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
_ROOM_OF_ROW, _LEAST_ROOM = 512, 65_536  # bytes that are kept free
_ON_SHEET = 48  # pictures; the table has all


@dataclasses.dataclass(frozen=True)
class Options:
    """What a person may choose.

    Attributes:
      pattern: of the names of files that are wanted from folders.
      tiling: how a window slides; None: images come as in training. Its size may be 0, for that of the network's
        images.
      probabilities: whether these are written too.
      score: by which images are flagged; the key of one of `scores.registry`.
      coverage: share of the validation cases that would not be flagged.
      autoencoder: folder of one of the network, for the score `distortion`.
    """

    pattern: str = inputs.ALL
    tiling: windows.Tiling | None = None
    probabilities: bool = False
    score: str = "mean_sa"
    coverage: float = 0.8
    autoencoder: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of a call.

    Attributes:
      table: the CSV file.
      sheet: of the flagged cases; None where none was.
      predicted, flagged, failed: how many inputs.
    """

    table: pathlib.Path
    sheet: pathlib.Path | None
    predicted: int
    flagged: int
    failed: int


def run(
    *,
    source: trained.Source,
    paths: Sequence[pathlib.Path],
    output: pathlib.Path,
    options: Options,
    prepare: Callable[[str], pathlib.Path],
    command: str,
) -> Outcome:
    """Predicts everything; the results of an earlier call in the output folder are written again, or go.

    The folder has `predictions.csv`, `masks/`, perhaps `probabilities/` and `flagged.png`, and `prediction.json`, which
    says how they were made and marks the folder as one of results. Inputs are only read. One that cannot be used is a
    row with the reason in the table and a line on stderr; the others are predicted. Where the disk is full the table is
    still written, with what is known by then.

    Args:
      source: of the network; its data set is one with cases like those of its training.
      paths: files and folders.
      output: a new or empty folder, or one of an earlier prediction.
      options: what a person chose.
      prepare: name of a data set -> its prepared folder; called where a run's folder does not say what is needed.
      command: that makes the same again.

    Raises:
      InputError: network, data set, autoencoder, options or output folder cannot be used, or nothing is there to
        predict.
    """
    _check(options, output)
    found, unknown, masks = inputs.find(paths, pattern=options.pattern)
    own = [one.path for one in found if inputs.inside(one.path, output)]
    if own:
        raise InputError(f"--output={output}: holds the input {own[0]}; choose another folder")
    _say(unknown, "of no known format, left out")
    _say(masks, "left out as masks of the images beside them; to predict them too, give their --pattern or --inputs")
    asked = source.load(prepare, where=_like_its_training(source, prepare))
    predictor = _predictor(asked, options)
    if options.score not in (known := [score.key for score in predictor.scores]):
        print(f"{asked.name}: has no layers, of which {options.score} is; flagged by {known[0]}", file=sys.stderr)
        options = dataclasses.replace(options, score=known[0])
    provenance = {"command": command, "network": asked.name, "steps": asked.steps, "dataset": asked.dataset}
    chosen = dataclasses.asdict(dataclasses.replace(options, tiling=None)) | {"images": predictor.mode}
    judged_by = reference(predictor, prepare)
    if judged_by is None:
        print(f"{asked.name}: there are no validation cases to judge by, so nothing is flagged", file=sys.stderr)
    try:
        atomic.write_json(output / MARKER, provenance | {"options": chosen})
        return _predict_all(found, predictor, judged_by, output, options)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); choose another --output") from error


def _like_its_training(source: trained.Source, prepare: Callable[[str], pathlib.Path]) -> trained.Where | None:
    """Any split of the data set that a person named."""
    if source.dataset is None:
        return None
    directory = prepare(source.dataset)
    return directory, next(iter(pipeline.split_sizes(directory)))


def _say(left_out: Sequence[pathlib.Path], what: str) -> None:
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        print(f"{left_out[0]}{more}: {what}", file=sys.stderr)


def _check(options: Options, output: pathlib.Path) -> None:
    known = [score.key for score in registry.computable({AUTOENCODER} if options.autoencoder else ())]
    if options.score not in known:
        with_one = [score.key for score in registry.computable({AUTOENCODER})]
        advice = f"give --autoencoder for {options.score}, or " if options.score in with_one else ""
        raise InputError(f"--score={options.score}: {advice}choose one of {', '.join(known)}")
    if not 0 <= options.coverage <= 1:
        raise InputError(f"--coverage={options.coverage}: give a share from 0 to 1")
    if exists(output) and not is_folder(output):
        raise InputError(f"--output={output}: is a file; name a folder")
    if is_folder(output) and children(output) and not exists(output / MARKER):
        raise InputError(f"--output={output}: holds files that are no predictions; choose a new folder")


def _predictor(asked: trained.Trained, options: Options) -> Predictor:
    tiling = options.tiling
    if tiling is not None and not asked.squashes:
        geometry = type(asked.given.grid).__name__.lower()
        raise InputError(f"--tile: is for runs that squash; this one has its own geometry, {geometry!r}; leave it out")
    if tiling is not None and not tiling.size:
        sides = asked.members[0].sides
        tiling = tiling._replace(size=sides[0] if len({*sides}) == 1 else sides)
    repair = network.load_repair(options.autoencoder, asked) if options.autoencoder else None
    return Predictor(asked, tiling, repair)


def _predict_all(
    sources: Sequence[Source], predictor: Predictor, judged_by: Reference | None, output: pathlib.Path, options: Options
) -> Outcome:
    earlier = _named(output / TABLE)
    with tempfile.TemporaryFile(dir=output) as room:  # for the table, should the disk be full by then
        room.write(os.urandom(max(_LEAST_ROOM, _ROOM_OF_ROW * len(sources))))
        room.flush()
        rows, cells, full = _rows(sources, predictor, judged_by, output, options)
    keys = atomic.columns(rows)
    keys = [*(key for key in keys if key != "error"), "error"]
    atomic.write_csv(output / TABLE, [{key: row.get(key) for key in keys} for row in rows])
    predicted = {source.name for source, row in zip(sources, rows, strict=True) if "error" not in row}
    for name in earlier:  # with another network's mask, a folder would say two things
        if name not in predicted:
            _remove_results(name, output)
        elif not options.probabilities:
            _remove_results(name, output, folders=(_PROBABILITIES,))
    if full is not None:
        raise full
    sheet = output / SHEET
    if cells:
        contact_sheet.write(sheet, [one for _, one in cells], predictor.trained.trained_on.class_names)
    else:
        sheet.unlink(missing_ok=True)
    flagged = sum(row.get("flagged", False) for row in rows)
    return Outcome(
        output / TABLE, sheet if cells else None, len(predicted), flagged, failed=len(sources) - len(predicted)
    )


def _rows(
    sources: Sequence[Source], predictor: Predictor, judged_by: Reference | None, output: pathlib.Path, options: Options
) -> tuple[list[dict[str, Any]], list[tuple[float, contact_sheet.Cell]], OSError | None]:
    """A row for every input, those for the sheet, and what ended the work before all were predicted."""
    rows: list[dict[str, Any]] = []
    cells: list[tuple[float, contact_sheet.Cell]] = []
    full = None
    for source in threads.progress(sources, "predicting", 0, len(sources)):
        try:
            row, one = _predict_one(source, predictor, judged_by, output, options)
            if one is not None:
                cells = sorted([*cells, (row[f"{options.score}_percentile"], one)], key=lambda item: -item[0])[
                    :_ON_SHEET
                ]
        except Exception as error:  # one input never ends the work on the others
            row = {"file": source.path, "error": _reason(error)}
            tqdm.tqdm.write(f"{source.path}: {row['error']}", file=sys.stderr)  # not into the progress bar
            with contextlib.suppress(OSError):
                _remove_results(source.name, output)
            full = error if isinstance(error, OSError) and error.errno in _OF_ALL else None
        rows.append(row)
        if full is not None:
            break
    why = "was not predicted, as the results of those before could not be written"
    return [*rows, *({"file": source.path, "error": why} for source in sources[len(rows) :])], cells, full


def _reason(error: Exception) -> str:
    """One line; libraries raise nearly anything."""
    if isinstance(error, formats.Unusable | InputError):
        return str(error)
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
    return f"cannot be predicted ({': '.join(filter(None, (type(error).__name__, text)))})"


def _predict_one(
    source: Source, predictor: Predictor, judged_by: Reference | None, output: pathlib.Path, options: Options
) -> tuple[dict[str, Any], contact_sheet.Cell | None]:
    """The row of an input whose files are written, and its picture for the sheet if it is flagged."""
    trained_on = predictor.trained.trained_on
    loaded = inputs.load(source.path, trained_on, predictor.inputs)
    for note in loaded.notes:
        tqdm.tqdm.write(f"{source.path}: {note}", file=sys.stderr)
    prediction = predictor.predict(
        loaded.stored if predictor.tiling is None else loaded.image,
        loaded.size,
        spacing=loaded.spacing,
        probabilities=options.probabilities,
    )
    labels, picture = loaded.as_in_file(prediction.labels), loaded.picture
    mask = _write(output / _MASKS, source, *outputs.encode_mask(labels, source.path, picture))
    if prediction.probabilities is not None:
        probabilities = loaded.as_in_file(prediction.probabilities)
        _write(output / _PROBABILITIES, source, *outputs.encode_probabilities(probabilities, source.path, picture))
    row: dict[str, Any] = {
        "file": source.path,
        "mask": mask.relative_to(output),
        "size": size_text(labels.shape),
    }
    row = row | _areas(labels, picture.spacing, trained_on.class_names) | prediction.scores
    if judged_by is None:
        return row, None
    compared = judged_by.volumes if prediction.labels.ndim == 3 else judged_by.cases
    for name, score in prediction.scores.items():
        high_is_good = registry.SCORES[name].high_is_good
        row[f"{name}_percentile"] = quality.percentile(compared[name], score, high_is_good=high_is_good)
    row["flagged"] = quality.is_flagged(row[f"{options.score}_percentile"], coverage=options.coverage)
    return row, _cell(source, loaded, prediction, row, options.score) if row["flagged"] else None


def _write(folder: pathlib.Path, source: Source, suffix: str, content: bytes) -> pathlib.Path:
    path = folder / f"{source.name}{suffix}"
    atomic.replace(path, content)
    return path


def _named(table: pathlib.Path) -> list[str]:
    """The names of the inputs that have results by the table of an earlier call; none where there is no table."""
    if not table.exists():
        return []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            masks = [row["mask"] for row in csv.DictReader(file) if row.get("mask")]
    except (csv.Error, UnicodeDecodeError):  # it was changed
        return []
    names = (mask.removeprefix(f"{_MASKS}/") for mask in masks)
    return [name.removesuffix(next((s for s in _SUFFIXES if name.endswith(s)), "")) for name in names]


def _remove_results(name: str, output: pathlib.Path, *, folders: Sequence[str] = (_MASKS, _PROBABILITIES)) -> None:
    """Those of an earlier call that the table no longer names."""
    for folder in folders:
        for suffix in _SUFFIXES:
            (output / folder / f"{name}{suffix}").unlink(missing_ok=True)


def _areas(labels: np.ndarray, spacing: Sequence[float], class_names: Sequence[str]) -> dict[str, float]:
    """Pixels of every class but the background, and, where the spacing is known, mm^2, of volumes mm^3."""
    counts = np.bincount(labels.ravel(), minlength=len(class_names))[1:]
    areas: dict[str, float] = {f"pixels_{n}": int(c) for n, c in zip(class_names[1:], counts, strict=True)}
    unit = float(np.prod(spacing))
    name = f"mm{labels.ndim}"
    return areas | {
        f"{name}_{n}": int(c) * unit for n, c in zip(class_names[1:], counts, strict=True) if np.isfinite(unit)
    }


def _cell(
    source: Source, loaded: Loaded, prediction: Prediction, row: dict[str, Any], score: str
) -> contact_sheet.Cell:
    """The picture of a case; of a volume, its slice with most foreground."""
    levels = None if loaded.image.dtype == np.uint8 else ("percentiles", 0.5, 99.5)
    image, labels, where = as_uint8(loaded.image, levels), prediction.labels, ""
    if labels.ndim == 3:
        z = int(np.argmax(np.count_nonzero(labels, (1, 2))))
        image, labels, where = image[z], labels[z], f", slice {z + 1} of {len(labels)}"
    value = "undefined" if np.isnan(row[score]) else f"{row[score]:.3g}"
    captions = (source.name + where, f"{score} {value}: worse than {row[f'{score}_percentile']:.0f} %")
    return thumbnail(image, labels, captions)
