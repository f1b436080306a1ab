"""Names of files as people give them, and as libraries may be given them: a path is never a pattern."""

import errno
import os
import pathlib
import re
import stat
import weakref

from jaxseg.errors import InputError

_REMEDIES = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "it is a link that leads back to itself",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_DESCRIPTORS = pathlib.Path("/proc/self/fd")
# what no library expands, unescapes or takes for an address
_HARMLESS = re.compile(r"/(?!(?:gs|s3|az|hf|cns)(?:/|$))[\w./ +,=-]*", re.ASCII)


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path with `~` and `~user` at its beginning replaced; where there is no such home, the path as it is."""
    return pathlib.Path(os.path.expanduser(path))


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether something is there; a link that leads nowhere is nothing.

    Raises:
      InputError: it cannot be reached, or no file can have that name; pathlib's functions raise OSError for these.
    """
    return _mode(path) is not None


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder, or a link to one; see `exists`."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether it is a file, or a link to one; see `exists`."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def children(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """What is in a folder, by name; raises InputError where it cannot be read."""
    try:
        return sorted(pathlib.Path(folder).iterdir())
    except OSError as error:
        raise _unreached(folder, error) from error


def _mode(path: str | os.PathLike[str]) -> int | None:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreached(path, error) from error


def _unreached(path: str | os.PathLike[str], error: OSError) -> InputError:
    remedy = _REMEDIES.get(error.errno or 0, "see to its rights, those of the folders above it, and the disk")
    return InputError(f"{os.fspath(path)}: cannot be reached ({error.strerror}); {remedy}")


class Literal:
    """A folder under a name in which no library finds a pattern, for as long as this object lives.

    etils (under orbax and TFDS) expands `*`, `?` and `[` of a whole path, finds nothing, and raises nothing; it takes
    `/gs/...` for a bucket; array_record reads `file[0:5]` as a part of a file. A folder with such a name is opened, and
    its name is that of the open descriptor.

    Attributes:
      folder: as it was given, absolute.
      path: for libraries.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        """Opens the folder if need be.

        Args:
          folder: that exists.

        Raises:
          InputError: its name needs the help of an open descriptor, and this system has none.
          OSError: it cannot be opened.
        """
        self.folder = pathlib.Path(folder).absolute()
        self.path = self.folder
        if _HARMLESS.fullmatch(str(self.folder)):
            return
        if not _DESCRIPTORS.is_dir():
            raise InputError(f"{self.folder}: libraries may take this name for a pattern; choose one of letters and -")
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, descriptor)
        self.path = _DESCRIPTORS / str(descriptor)

    def outside(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """What a library calls `path`, below the folder's given name."""
        return self.folder / pathlib.Path(path).relative_to(self.path)
