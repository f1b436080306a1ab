"""Names of files as people give them, and as libraries may be given them: a path is never a pattern."""

import os
import pathlib
import re
import weakref

from jaxseg.errors import InputError

_DESCRIPTORS = pathlib.Path("/proc/self/fd")
# what no library expands, unescapes or takes for an address
_HARMLESS = re.compile(r"/(?!(?:gs|s3|az|hf|cns)(?:/|$))[\w./ +,=-]*", re.ASCII)


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path with `~` and `~user` at its beginning replaced; where there is no such home, the path as it is."""
    return pathlib.Path(os.path.expanduser(path))


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
