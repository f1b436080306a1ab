"""Raw files in, prepared data sets out: the only code that reads a data set's files.

One module per data set, each a TFDS builder that works without TensorFlow; they are imported when they are asked for.
"""

import contextlib
import fcntl
import importlib
import io
import os
import pathlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from jaxseg.errors import InputError

_BUILDERS = {"dermoscopy": "Dermoscopy", "isic2017": "Isic2017"}  # module -> class
_WORK = ".preparing-"
_LOCK = "lock"


def prepare(
    name: str, *, data_dir: str | os.PathLike[str], manual_dir: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Prepares a data set, unless that has been done.

    A data set appears under `data_dir` whole or not at all, whatever kills the process: it is made in a hidden folder
    beside its place and renamed. What a killed process left there is removed by the next call.

    Args:
      name: data set and config, like `isic2017/256`; without a config it is the first one.
      data_dir: where prepared data sets are, `<data set>/<config>/<version>` each; created if need be.
      manual_dir: the raw files, for data sets that have to be downloaded by hand; not read if the data set is prepared.

    Returns:
      The folder of the prepared data set, for `jaxseg.data.pipeline.Split`.

    Raises:
      InputError: the name is unknown, the raw files are missing or have problems (each is listed), or `data_dir`
        cannot be written.
    """
    builder_class, config = _find(name)
    root = pathlib.Path(data_dir).expanduser()
    target = root / builder_class.name / config / str(builder_class.VERSION)
    if target.exists():
        if manual_dir is not None:
            print(
                f"{target} is prepared already; {manual_dir} is not read again (remove the former to)", file=sys.stderr
            )
        return _checked(target)
    raw = _manual_dir(builder_class, manual_dir)
    try:
        with _work_folder(root) as work:
            _move(_build(builder_class, config, work, raw), target)
    except (OSError, RuntimeError) as error:
        # array_record reports a full disk as a RuntimeError that names the file
        if isinstance(error, RuntimeError) and _WORK not in str(error):
            raise
        raise InputError(_explain(error, root, raw)) from error
    return target


def _find(name: str) -> tuple[Any, str]:
    dataset, _, config = name.partition("/")
    if dataset not in _BUILDERS:
        raise InputError(f"unknown data set {name!r}; choose one of {', '.join(_known_names())}")
    builder_class = _builder_class(dataset)
    configs = [known.name for known in builder_class.BUILDER_CONFIGS]
    if config and config not in configs:
        raise InputError(f"unknown data set {name!r}; choose one of {', '.join(f'{dataset}/{c}' for c in configs)}")
    return builder_class, config or configs[0]


def _known_names() -> list[str]:
    return [f"{dataset}/{config.name}" for dataset in _BUILDERS for config in _builder_class(dataset).BUILDER_CONFIGS]


def _builder_class(dataset: str) -> Any:
    return getattr(importlib.import_module(f"{__name__}.{dataset}"), _BUILDERS[dataset])


def _checked(target: pathlib.Path) -> pathlib.Path:
    if not (target / "dataset_info.json").is_file():
        raise InputError(f"{target}: exists but holds no prepared data set; remove it and prepare again")
    return target


def _manual_dir(builder_class: Any, manual_dir: str | os.PathLike[str] | None) -> pathlib.Path | None:
    wanted = builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS
    if wanted is None:
        return None
    if manual_dir is None:
        raise InputError(f"{builder_class.name} cannot be downloaded by a program: {wanted}, and name it as manual_dir")
    folder = pathlib.Path(manual_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {wanted}, and name it as manual_dir")
    return folder


@contextlib.contextmanager
def _work_folder(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """A hidden folder in `root` that goes away with its process: at once, or at the next call after a kill.

    The process holds a lock on a file in it, which the kernel takes away when the process ends, however it ends. A
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
    # No lock file: its owner is about to create it. No lock to be had: it is alive, or the file system has no locks.
    with contextlib.suppress(OSError), (folder / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)


def _explain(error: OSError | RuntimeError, root: pathlib.Path, raw: pathlib.Path | None) -> str:
    reason = getattr(error, "strerror", None) or re.split("[;.] ", str(error))[0]
    file = getattr(error, "filename", None)
    if raw is not None and file and pathlib.Path(file).is_relative_to(raw):
        return f"{file}: {reason}; it was there a moment ago: leave the raw files alone and prepare again"
    return f"{root}: cannot write there ({reason}); free it or choose another data folder"


def _build(builder_class: Any, config: str, work: pathlib.Path, manual_dir: pathlib.Path | None) -> pathlib.Path:
    import tensorflow_datasets as tfds

    builder = builder_class(config=config, data_dir=work)
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself there; our own bars go to stderr
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
            file_format="array_record",  # the default format needs TensorFlow
        )
    return pathlib.Path(builder.data_path)


def _move(folder: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():  # else another process was faster
            raise
