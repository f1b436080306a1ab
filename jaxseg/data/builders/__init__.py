"""Raw files in, prepared data sets out: the only code that reads a data set's files.

One module per data set, each a TFDS builder that works without TensorFlow; they are imported on demand.
"""

import contextlib
import fcntl
import importlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from absl import logging

from jaxseg import paths
from jaxseg.data import diagnosis, pipeline
from jaxseg.data.builders import archives
from jaxseg.data.raw_cases import FileProblems
from jaxseg.errors import InputError

_BUILDERS = {  # module -> class
    "dermoscopy": "Dermoscopy",
    "isic2017": "Isic2017",
    "folder": "Folder",
    "acdc": "Acdc",
    "mnms": "Mnms",
    "cc359": "Cc359",
    "brats": "Brats",
    "msd": "Msd",
    "covid_ct": "CovidCt",
    "hc18": "Hc18",
    "busi": "Busi",
    "bbbc041": "Bbbc041",
    "ms_cct": "MsCct",
    "smear": "Smear",
    "ultrasound": "Ultrasound",
    "cardiac": "Cardiac",
}
_WORK = ".preparing-"
_RAW = "raw"
_LOCK = "lock"
_INFO = "dataset_info.json"
_LISTED = 8  # data sets that a message names


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike[str],
    manual_dir: str | os.PathLike[str] | None = None,
    like: pipeline.Preparation | None = None,
) -> pathlib.Path:
    """Prepares a data set, unless that has been done. The doctor (`jaxseg.data.doctor`) checks it first.

    A data set appears under `data_dir` whole or not at all, whatever kills the process: it is made in a hidden folder
    next to its place and renamed. What a killed process left there is removed by the next call. What the doctor said
    is in its `doctor.json`.

    Args:
      name: data set and config, like `isic2017/256`; without a config, the first one. Your own folder is
        `folder/NAME`, or `folder/NAME-volumes`.
      data_dir: where prepared data sets are, `<data set>/<config>/<version>` each; created if needed.
      manual_dir: the raw files, for data sets that have to be downloaded by hand: a folder, which may hold archives
        instead of folders, or one archive; not read if the data set is prepared.
      like: how another data set was prepared, such as the one that a network was trained on; scaling and orientation
        are then taken from it, and not from most of these files.

    Returns:
      The folder of the prepared data set, for `jaxseg.data.pipeline.Split`.

    Raises:
      InputError: the name is unknown, the raw files are missing or have problems (each is listed), or `data_dir`
        cannot be written.
    """
    builder_class, config = _find(name)
    root = paths.expanded(data_dir)
    target = _target(builder_class, config, root)
    if paths.exists(target):
        if manual_dir is not None:
            print(
                f"{target} is already prepared; {manual_dir} is not read again (give another --data_dir to)",
                file=sys.stderr,
            )
        return _checked(target, like)
    given = _manual_dir(builder_class, config, manual_dir, root)
    with _writing(root, given), _work_folder(root) as work, archives.unpacked(given, work / _RAW) as raw:
        found, report = _examine(builder_class, config, raw, given, like)
        if report.errors:
            raise InputError(_listed(report, given))
        wanted = like.orientation if like and found.contents.volumes else ""
        contents = found.contents._replace(orientation=wanted or report.orientation, dtype=report.dtype)
        folder = _build(builder_class, config, work, found._replace(cases=report.cases, contents=contents))
        (folder / diagnosis.FILE).write_text(json.dumps(report.as_json(), indent=1))
        _move(folder, target)
    if report.warnings:
        print(f"{name}: {report.verdict} (--check shows {_them(report)})", file=sys.stderr)
    for finding in report.spoken:
        print(f"{name}: {finding.summary}", file=sys.stderr)
    return target


def check(
    name: str,
    *,
    data_dir: str | os.PathLike[str],
    manual_dir: str | os.PathLike[str] | None = None,
    like: pipeline.Preparation | None = None,
    pictures: int = 0,
) -> diagnosis.Report:
    """What the doctor says of the raw files of a data set; prepares nothing.

    Args:
      name: as for `prepare`.
      data_dir: where archives are unpacked temporarily, if there are any.
      manual_dir, like: as for `prepare`.
      pictures: how many images with marks it shows at most.

    Raises:
      InputError: the name is unknown, `manual_dir` is missing, or an archive cannot be unpacked.
    """
    builder_class, config = _find(name)
    root = paths.expanded(data_dir)
    given = _manual_dir(builder_class, config, manual_dir, root)
    if not archives.needs_room(given):
        return _examine(builder_class, config, given, given, like, pictures)[1]
    with _writing(root, given), _work_folder(root) as work, archives.unpacked(given, work / _RAW) as raw:
        return _examine(builder_class, config, raw, given, like, pictures)[1]


def _examine(
    builder_class: Any,
    config: Any,
    raw: pathlib.Path | None,
    given: pathlib.Path | None,
    like: pipeline.Preparation | None,
    pictures: int = 0,
) -> tuple[Any, diagnosis.Report]:
    from jaxseg.data import doctor  # not before launchers have checked their flags: it imports JAX

    try:
        found = builder_class.find(raw, config)
    except OSError as error:
        raise InputError(
            f"{error.filename or given}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    if like is not None:
        found = found._replace(contents=found.contents._replace(scaling=like.scaling))
    report = doctor.examine(
        f"{builder_class.name}/{config.name}",
        found,
        builder_class.load,
        in_threads=builder_class.THREADS,
        pictures=pictures,
    )
    if raw is None or raw == given:
        return found, report
    # paths as the user knows them
    known = [f._replace(lines=tuple(line.replace(str(raw), str(given)) for line in f.lines)) for f in report.findings]
    return found, report._replace(findings=known)


def _listed(report: diagnosis.Report, folder: pathlib.Path | None) -> str:
    lines = [line for finding in report.errors for line in finding.lines or (f"{folder}: {finding.summary}",)]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return "\n".join([f"{count} in {folder}; nothing was prepared:", *lines])


def _them(report: diagnosis.Report) -> str:
    return "it" if len(report.warnings) == 1 else "them"


@contextlib.contextmanager
def _writing(root: pathlib.Path, raw: pathlib.Path | None) -> Iterator[None]:
    """Errors of writing, and of raw files that vanish, as one line."""
    try:
        yield
    except FileProblems as problem:
        raise InputError(f"{problem}; it could be read a moment ago: do not change the raw files") from problem
    except (OSError, RuntimeError) as error:
        # array_record reports a full disk as a RuntimeError that names the file
        if isinstance(error, RuntimeError) and _WORK not in str(error):
            raise
        raise InputError(_explain(error, root, raw)) from error


def _find(name: str) -> tuple[Any, Any]:
    dataset, _, config = name.partition("/")
    if dataset not in _BUILDERS:
        raise InputError(f"unknown data set {name!r}; choose one of {', '.join(_known_names())}")
    builder_class = _builder_class(dataset)
    return builder_class, builder_class.config(config)


def _known_names() -> list[str]:
    return [name for dataset in _BUILDERS for name in _builder_class(dataset).config_names()]


def _builder_class(dataset: str) -> Any:
    return getattr(importlib.import_module(f"{__name__}.{dataset}"), _BUILDERS[dataset])


def _checked(target: pathlib.Path, like: pipeline.Preparation | None) -> pathlib.Path:
    if not paths.is_file(target / _INFO):
        raise InputError(f"{target}: exists but holds no prepared data set; choose another data folder")
    if like is None:
        return target
    split = next(iter(pipeline.split_sizes(target)))
    existing = pipeline.Split(target, split).preparation
    turned = existing.volumes and like.orientation not in ("", existing.orientation)
    if turned or existing.scaling != like.scaling:
        raise InputError(f"{target}: is already prepared, but differently; choose another data folder")
    return target


def prepared(name: str, *, data_dir: str | os.PathLike[str]) -> pathlib.Path | None:
    """The folder of a data set that is prepared; None where it is not, or no data set has that name."""
    try:
        builder_class, config = _find(name)
    except InputError:
        return None
    target = _target(builder_class, config, paths.expanded(data_dir))
    return target if paths.is_file(target / _INFO) else None


def _target(builder_class: Any, config: Any, root: pathlib.Path) -> pathlib.Path:
    """Where the data set is, or will be: an earlier version that is there stays in use if it is read alike."""
    folder = root / builder_class.name / config.name
    target = folder / str(builder_class.VERSION)
    earlier = [] if paths.exists(target) else [folder / version for version in builder_class.STILL_READ]
    return next((place for place in earlier if paths.is_file(place / _INFO)), target)


def _not_prepared(builder_class: Any, config: Any, root: pathlib.Path, wanted: str) -> str:
    name = f"{builder_class.name}/{config.name}"
    versions_there = sorted(info.parent.relative_to(root).parts for info in root.glob(f"*/*/*/{_INFO}"))
    others = [f"{dataset}/{other}" for dataset, other, _ in versions_there if f"{dataset}/{other}" != name]
    versions = [version for dataset, other, version in versions_there if f"{dataset}/{other}" == name]
    there = f" but as version {', '.join(versions)}, which differs" if versions else ""
    more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    beside = f"there {'is' if len(others) == 1 else 'are'} {', '.join(others[:_LISTED])}{more}" if others else ""
    command = f"python -m launch.prepare --dataset={name} --manual_dir=FOLDER --data_dir={shlex.quote(str(root))}"
    said = f"{name} is not prepared in {root}{there} ({beside or 'no data set is'})"
    return f"{said}; {wanted}, and prepare it with {command}"


def _manual_dir(
    builder_class: Any, config: Any, manual_dir: str | os.PathLike[str] | None, root: pathlib.Path
) -> pathlib.Path | None:
    wanted = builder_class.instructions(config)
    if wanted is None:
        return None
    if manual_dir is None:
        raise InputError(_not_prepared(builder_class, config, root, wanted))
    folder = paths.expanded(manual_dir)
    if paths.is_file(folder) and not archives.is_archive(folder):
        known = ", ".join(archives.SUFFIXES)
        raise InputError(f"{folder}: is neither a folder nor an archive ({known}); unpack it, and name the folder")
    if not paths.is_folder(folder) and not archives.is_archive(folder):
        raise InputError(f"{folder}: no such folder; {wanted}, and name it as manual_dir")
    return folder


@contextlib.contextmanager
def _work_folder(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder in `root` that is removed with its process: at once, or by the next call after a kill.

    The process holds a lock on a file in it, which the kernel releases when the process ends, however it ends. A
    folder whose lock is free has therefore no owner. Two processes that prepare the same data set do not wait for each
    other: both do the work, and the first one's result stays.
    """
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{_WORK}*"):
        _remove_if_ownerless(left)
    work = pathlib.Path(tempfile.mkdtemp(prefix=_WORK, dir=root))
    try:
        with (work / _LOCK).open("w") as lock:
            with contextlib.suppress(OSError):  # a network file system without locks: nothing is removed later
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_if_ownerless(folder: pathlib.Path) -> None:
    # No lock file: its owner is about to create it. Lock not available: it is alive, or the file system has no locks.
    with contextlib.suppress(OSError), (folder / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)


def _explain(error: OSError | RuntimeError, root: pathlib.Path, raw: pathlib.Path | None) -> str:
    reason = getattr(error, "strerror", None) or re.split("[;.] ", str(error))[0]
    file = getattr(error, "filename", None)
    if raw is not None and file and pathlib.Path(file).is_relative_to(raw):
        if isinstance(error, FileNotFoundError):
            return f"{file}: {reason}; it was there a moment ago: do not change the raw files, and prepare again"
        return f"{file}: cannot be read ({reason}); check its permissions"
    return f"{root}: cannot write there ({reason}); free it or choose another data folder"


def _build(builder_class: Any, config: Any, work: pathlib.Path, found: Any) -> pathlib.Path:
    import tensorflow_datasets as tfds  # as JAX

    quiet = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of configs that are not in a list
    try:
        place = paths.Literal(work)
        builder = builder_class(config=config, data_dir=place.path, found=found)
    finally:
        logging.set_verbosity(quiet)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself there; our own bars go to stderr
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=work),  # not used, but TFDS asks for it
            file_format="array_record",  # the default format needs TensorFlow
        )
    return place.outside(builder.data_path)


def _move(folder: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():  # else another process was faster
            raise
