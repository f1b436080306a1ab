"""A name in a table -> the file that it means, however a file system or an office program spells it."""

import os
import pathlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Meant(NamedTuple):
    """What a name means.

    Attributes:
      path: of the file, or where it was looked for.
      problem: why it cannot be used; empty where it can.
      remedy: what to do about that.
    """

    path: pathlib.Path
    problem: str = ""
    remedy: str = ""


class Speller:
    """Finds files by names that may be spelt differently on the disk; every folder is listed once.

    macOS stores accents after their letters, most programs write them as one; Windows separates folders by
    backslashes. Neither difference is visible to a person. Capitals are, so they are reported.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._listed: dict[tuple[pathlib.Path, bool], dict[str, list[str]]] = {}

    def find(self, name: str) -> Meant:
        """The file of a name, which is relative to the folder or absolute."""
        exact = self._folder / name
        if os.path.exists(exact):  # pathlib's fails for long names
            return Meant(exact)
        path = self._folder / name.replace("\\", "/")
        found = [path] if os.path.exists(path) else self._alike(path, fold=False)
        if len(found) == 1:
            return Meant(found[0])
        if found:
            one, other = (ascii(file.name) for file in found[:2])
            return Meant(path, f"may be {one} or {other}", "rename one of them")
        capitals = self._alike(path, fold=True)
        if capitals:
            there = capitals[0] if path == pathlib.Path(name) else os.path.relpath(capitals[0], self._folder)
            return Meant(path, f"is there as {there}", "write it so")
        if pathlib.PureWindowsPath(name).drive or pathlib.PurePath(name).is_absolute():
            return Meant(exact, "is not there", "name it by its place below the table's folder")
        return Meant(path, "is not there", "add it")

    def _alike(self, path: pathlib.Path, *, fold: bool) -> list[pathlib.Path]:
        return list(self._spelt(pathlib.Path(path.anchor), path.parts[bool(path.anchor) :], fold))

    def _spelt(self, at: pathlib.Path, parts: Sequence[str], fold: bool) -> Iterator[pathlib.Path]:
        if not parts:
            yield at
            return
        first, rest = parts[0], parts[1:]
        known = [first] if os.path.exists(at / first) and rest else []
        for entry in dict.fromkeys([*known, *self._entries(at, fold).get(_key(first, fold), ())]):
            yield from self._spelt(at / entry, rest, fold)

    def _entries(self, folder: pathlib.Path, fold: bool) -> dict[str, list[str]]:
        if (folder, fold) not in self._listed:
            entries = defaultdict(list)
            try:
                for entry in sorted(os.listdir(folder)):
                    entries[_key(entry, fold)].append(entry)
            except OSError:
                pass  # whoever reads the file reports it
            self._listed[folder, fold] = entries
        return self._listed[folder, fold]


def composed(text: str) -> str:
    """The text with accents in their letters, in which equal words are equal strings."""
    return unicodedata.normalize("NFC", text)


def _key(name: str, fold: bool) -> str:
    plain = composed(name).strip()
    return composed(plain.casefold()) if fold else plain
