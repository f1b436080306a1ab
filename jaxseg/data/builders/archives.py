"""Archives as challenges publish them, unpacked with care: a name or a size in them is only a claim."""

import contextlib
import pathlib
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from jaxseg import paths
from jaxseg.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# How many times an archive may grow: images hardly compress; label volumes do, but never a whole data set so much.
_MOST_TIMES = 200
_ALWAYS_FINE = 256 * 2**20  # bytes, however small the archive
_MOST_FILES = 2_000_000
_CHUNK = 2**20
_LONGEST_NAME = 255  # bytes, of a part of a path; what file systems allow


def is_archive(path: pathlib.Path) -> bool:
    """Whether the path is a file with the suffix of an archive."""
    return path.name.lower().endswith(SUFFIXES) and paths.is_file(path)


def needs_room(folder: pathlib.Path | None) -> bool:
    """Whether `unpacked` has to write anything."""
    return folder is not None and bool(is_archive(folder) or _archives_in(folder))


@contextlib.contextmanager
def unpacked(given: pathlib.Path | None, room: pathlib.Path) -> Iterator[pathlib.Path | None]:
    """A folder in which archives are unpacked.

    Args:
      given: an archive; or a folder, in which archives that have not been unpacked next to themselves are, together,
        as if they had been unpacked into this folder (zip files that hold loose files of the same names, such as images
        and their masks: each into a folder of its own name); or None.
      room: where that is done; it must not exist.

    Yields:
      `given` where there is nothing to unpack, else `room`, which is removed afterwards.

    Raises:
      InputError: an archive is damaged, would write outside of its folder, holds links, or grows too much.
    """
    if given is None or not needs_room(given):
        yield given
        return
    room.mkdir()
    try:
        if given.is_dir():
            packed = _archives_in(given)
            for path in given.iterdir():
                if path not in packed:
                    (room / path.name).symlink_to(path.absolute())
        else:
            packed = [given]
        apart = _alike(packed)
        for path in packed:
            _unpack(path, room / _stem(path) if path in apart else room)
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _archives_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Archives that do not lie next to what was unpacked from them."""
    return [path for path in paths.children(folder) if is_archive(path) and not (folder / _stem(path)).is_dir()]


def _alike(packed: list[pathlib.Path]) -> set[pathlib.Path]:
    """The zip files of which another one holds a file of the same name outside of all folders."""
    owners: dict[str, list[pathlib.Path]] = {}
    for path in packed:
        # damage is reported when it is unpacked
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            for name in {name for name in archive.namelist() if "/" not in name}:
                owners.setdefault(name, []).append(path)
    return {path for paths in owners.values() if len(paths) > 1 for path in paths}


def _stem(path: pathlib.Path) -> str:
    return next(
        path.name[: -len(suffix)]
        for suffix in sorted(SUFFIXES, key=len, reverse=True)
        if path.name.lower().endswith(suffix)
    )


def _unpack(path: pathlib.Path, room: pathlib.Path) -> None:
    try:
        if path.name.lower().endswith(".zip"):
            _unpack_zip(path, room)
        else:
            _unpack_tar(path, room)
    except InputError:
        raise
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise _damaged(path, OSError("a file and a folder of one name")) from error
    except OSError as error:
        if error.filename or error.errno:  # ours: no room left
            raise
        raise _damaged(path, error) from error
    except Exception as error:  # zipfile and tarfile raise zlib.error, EOFError, ValueError and their own
        raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Exception) -> InputError:
    text = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
    # such as Deflate64, which Windows uses for large files
    remedy = "unpack it by hand" if isinstance(error, NotImplementedError) else "fetch it again"
    return InputError(f"{path}: cannot be unpacked ({text}); {remedy}")


def _unpack_zip(path: pathlib.Path, room: pathlib.Path) -> None:
    with zipfile.ZipFile(path) as archive:
        budget = _Budget(path)
        members = archive.infolist()
        budget.count(len(members))
        for member in members:
            if member.flag_bits & 1:
                raise InputError(f"{path}: is encrypted ({member.filename}); unpack it with its password first")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise InputError(f"{path}: holds a link ({member.filename}), which could lead anywhere; do not use it")
            target = _inside(path, member.filename, room)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                with archive.open(member) as file:
                    budget.write(file, target)


def _unpack_tar(path: pathlib.Path, room: pathlib.Path) -> None:
    if not tarfile.is_tarfile(path):
        raise InputError(f"{path}: is not a tar archive; fetch it again")
    with tarfile.open(path) as archive:
        budget = _Budget(path)
        for number, member in enumerate(archive, 1):
            budget.count(number)
            if not (member.isfile() or member.isdir()):
                raise InputError(
                    f"{path}: holds a link or device ({member.name}), which could lead anywhere; do not use it"
                )
            target = _inside(path, member.name, room)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                file = archive.extractfile(member)
                assert file is not None
                with file:
                    budget.write(file, target)
        _check_end(archive, budget)


def _check_end(archive: tarfile.TarFile, budget: "_Budget") -> None:
    """tarfile takes a header that is damaged, or not there, for the end; after the true end comes gzip's checksum."""
    file: Any = archive.fileobj
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it lacks its end, or is damaged in the middle")
    while chunk := file.read(_CHUNK):
        budget.take(len(chunk))


def _inside(path: pathlib.Path, name: str, room: pathlib.Path) -> pathlib.Path:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise InputError(f"{path}: would write outside of its folder ({name}); do not use it: no official archive does")
    target = room.joinpath(*parts)
    if any(len(part.encode()) > _LONGEST_NAME for part in parts):
        raise InputError(f"{path}: holds a name of more than {_LONGEST_NAME} bytes ({name}); unpack it by hand")
    # what lies next to the archive is there as links
    if (room / parts[0]).is_symlink() or any(place.is_file() for place in (target, *target.parents)):
        raise InputError(f"{path}: holds {name}, which is there already; move one of the two away")
    return target


class _Budget:
    """How much an archive may grow. Its directory is not trusted: the bytes are counted as they come."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._left = max(_ALWAYS_FINE, _MOST_TIMES * path.stat().st_size)

    def count(self, files: int) -> None:
        if files > _MOST_FILES:
            raise InputError(f"{self._path}: holds more than {_MOST_FILES} files; unpack it by hand if you trust it")

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise InputError(
                f"{self._path}: grows to more than {_MOST_TIMES} times its size, as a decompression bomb does; "
                "unpack it by hand if you trust it"
            )

    def write(self, file: IO[bytes], target: pathlib.Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            while chunk := file.read(_CHUNK):
                self.take(len(chunk))
                out.write(chunk)
