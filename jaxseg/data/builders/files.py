"""Image files and mask files: which belong together, and what is wrong with them.

Every problem of every file is found before anything is prepared: a person mends a folder once, not file by file.
A problem is one line: the file, what is wrong, and the remedy.
"""

import io
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import tqdm
from PIL import Image

from jaxseg.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

_FORMATS = {".jpg": ("JPEG", "MPO"), ".png": ("PNG",)}  # MPO: a JPEG with further images behind the first
_READERS = 2  # decoding is one core each; more than two mostly wait for the disk


class Pair(NamedTuple):
    """The files of one case."""

    case: str
    image: pathlib.Path
    mask: pathlib.Path


class Names(NamedTuple):
    """How the files of a data set are named: `<case><suffix>`.

    Attributes:
      prefix: of every case; files that do not start with it are none of ours (a licence, a thumbnail cache).
      image: suffix of the images, with the extension.
      mask: suffix of the masks, with the extension.
      ignored: suffixes of official files that are neither.
    """

    prefix: str
    image: str
    mask: str
    ignored: tuple[str, ...] = ()


def find_pairs(images: pathlib.Path, masks: pathlib.Path, names: Names) -> tuple[list[Pair], list[str]]:
    """Pairs images with masks by their names.

    Args:
      images: folder of the images.
      masks: folder of the masks; it may be the same one.
      names: how the files are named.

    Returns:
      pairs: sorted by case.
      problems: one line for every missing or empty folder, misnamed file, and image or mask that stands alone.
    """
    found, problems = {}, []
    for folder, kind in ((images, "image"), (masks, "mask")):
        suffix, other = (names.image, names.mask) if kind == "image" else (names.mask, names.image)
        ignored = (*names.ignored, other) if images == masks else names.ignored
        if not folder.is_dir():
            problems.append(f"{folder}: no such folder; unpack the official archive so that this folder is there")
            continue
        cases, misnamed = _cases(folder, names.prefix, suffix, ignored)
        if not cases and not misnamed:
            problems.append(
                f"{folder}: holds no file named {names.prefix}*{suffix}; unpack the official archive so that the files "
                "lie directly in this folder"
            )
            continue
        for path in misnamed:
            problems.append(f"{path}: wrong name; {kind}s are named {names.prefix}*{suffix}: convert or rename it")
        found[kind] = (cases, {path.name.partition(".")[0].removesuffix(suffix.partition(".")[0]) for path in misnamed})
    if len(found) < 2:  # else every file of the other folder would be called lonely
        return [], problems
    (image_cases, image_misnamed), (mask_cases, mask_misnamed) = found["image"], found["mask"]
    for case in sorted(image_cases.keys() - mask_cases.keys() - mask_misnamed):
        problems.append(f"{image_cases[case]}: has no mask {masks / (case + names.mask)}; add it or remove the image")
    for case in sorted(mask_cases.keys() - image_cases.keys() - image_misnamed):
        problems.append(f"{mask_cases[case]}: has no image {images / (case + names.image)}; add it or remove the mask")
    both = sorted(image_cases.keys() & mask_cases.keys())
    return [Pair(case, image_cases[case], mask_cases[case]) for case in both], problems


def _cases(
    folder: pathlib.Path, prefix: str, suffix: str, ignored: tuple[str, ...]
) -> tuple[dict[str, pathlib.Path], list[pathlib.Path]]:
    cases, misnamed = {}, []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(prefix) or path.name.endswith(ignored):
            continue
        if path.name.endswith(suffix):
            cases[path.name.removesuffix(suffix)] = path
        else:
            misnamed.append(path)
    return cases, misnamed


def check_pairs(pairs: Sequence[Pair], description: str) -> list[str]:
    """Decodes every file and returns the problems, in the order of the pairs.

    Args:
      pairs: the cases.
      description: shown by the progress bar.
    """
    return [problem for problems in in_threads(_problems, pairs, description) for problem in problems]


def _problems(pair: Pair) -> list[str]:
    problems, sizes = [], []
    for path, check in ((pair.image, _check_image), (pair.mask, _check_mask)):
        try:
            with Image.open(path) as image:
                image.verify()  # finds a PNG that lacks its end, which decoding overlooks; the image is used up then
            with Image.open(path) as image:
                size = image.size
                _check_format(image, path.suffix)
                check(image)
            if path.suffix.lower() in (".jpg", ".jpeg") and not _ends_as_jpeg(path.read_bytes()):
                raise _Problem("lacks the end of a JPEG, as after a broken download; fetch it again")
        except _Problem as problem:
            problems.append(f"{path}: {problem}")
        except Exception as error:  # Pillow raises nearly anything for a damaged file, struct.error and zlib.error too
            problems.append(f"{path}: cannot be read as an image ({_first_line(error)}); fetch it again")
        else:
            sizes.append(size)
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (width, height), (mask_width, mask_height) = sizes
        problems.append(
            f"{pair.mask}: is {mask_width}x{mask_height}, its image is {width}x{height}; use the mask that was made "
            "for this image"
        )
    return problems


class _Problem(Exception):
    """What is wrong with a file that Pillow can open, and the remedy."""


def _check_format(image: Image.Image, extension: str) -> None:
    if image.format not in _FORMATS[extension]:
        raise _Problem(f"holds {image.format} data; convert it to {_FORMATS[extension][0]}")


def _ends_as_jpeg(content: bytes) -> bool:
    """Whether the last scan is ended; decoders fill up what is missing, also where it is a run of zeros."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


def _check_image(image: Image.Image) -> None:
    image.draft("RGB", (1, 1))  # reads the whole file all the same, but computes an eighth of the pixels
    image.load()


def _check_mask(image: Image.Image) -> None:
    values = np.unique(_mask_values(image))
    wrong = [int(value) for value in values if value not in (0, 255)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise _Problem(
            f"holds the value{'s' * (len(wrong) > 1)} {', '.join(map(str, wrong[:3]))}{more}; a mask is 0 outside of "
            "the object and 255 inside: set every pixel to one of them"
        )


def _mask_values(image: Image.Image) -> np.ndarray:
    if image.mode in ("1", "L", "P"):
        return np.asarray(image.convert("L"))
    if image.mode[0] in "IF":  # more than 8 bits: converting would clip
        return np.asarray(image)
    *colours, alpha = np.moveaxis(np.asarray(image.convert("RGBA")), -1, 0)
    if (alpha < 255).any():
        raise _Problem("is partly transparent; save the mask as 8-bit grey")
    if any((colour != colours[0]).any() for colour in colours):
        raise _Problem("is coloured; save the mask as 8-bit grey")
    return colours[0]


def _first_line(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    # Pillow repeats the path, which the line already starts with
    return "no known image format" if "cannot identify image file" in text else text or type(error).__name__


def raise_problems(problems: Sequence[str], folder: pathlib.Path) -> None:
    """Raises one InputError that lists every problem; returns if there is none."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError("\n".join([f"{count} in {folder}; nothing was prepared:", *problems]))


def read_image(path: pathlib.Path, size: int) -> np.ndarray:
    """Reads an image, squashed to a square by antialiased bilinear interpolation.

    Args:
      path: of the file.
      size: S, in pixels.

    Returns:
      uint8 `[S,S,3]`.
    """
    with Image.open(path) as image:
        # Photographs of 20 megapixels: libjpeg's own scaling down is a box filter, which at 3 times the wanted size
        # cannot be told from the exact result and saves most of the time.
        image.draft("RGB", (3 * size, 3 * size))
        return np.asarray(resize_image(image.convert("RGB"), size))


def read_mask(path: pathlib.Path, size: int | None) -> np.ndarray:
    """Reads a mask of 0 and 255, squashed to a square by nearest neighbours.

    Args:
      path: of the file.
      size: S, in pixels; None leaves the size as it is.

    Returns:
      uint8 `[S,S]` or `[H,W]` of 0 and 1.
    """
    with Image.open(path) as image:
        mask = image.convert("L")
    if size is not None:
        mask = resize_labels(mask, size)
    return (np.asarray(mask) > 0).astype(np.uint8)


def resize_image(image: Image.Image, size: int) -> Image.Image:
    """Squashes to `size` x `size`, bilinear; Pillow antialiases when it makes smaller."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def resize_labels(labels: Image.Image, size: int) -> Image.Image:
    """Squashes to `size` x `size`, nearest neighbour."""
    return labels if labels.size == (size, size) else labels.resize((size, size), Image.Resampling.NEAREST)


def encode_png(array: np.ndarray) -> bytes:
    """PNG bytes of a uint8 array `[H,W]` or `[H,W,3]`."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)  # 8 % larger than the default, in a third of its time
    return buffer.getvalue()


def in_threads(
    function: Callable[[T], R], items: Sequence[T], description: str, *, first: int = 0, total: int | None = None
) -> Iterator[R]:
    """Yields `function(item)` in the order of the items, from two threads, with a progress bar if it takes long.

    Pillow gives up the interpreter's lock while it decodes and encodes.

    Args:
      function: of one item.
      items: these are `first`, `first + 1`, ... of `total`.
      description: shown by the progress bar.
      first: where the bar starts.
      total: where the bar ends; None: with these items.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            yield from progress(pool.map(function, items), description, first, total or len(items))
        finally:
            pool.shutdown(cancel_futures=True)  # else leaving early, or Ctrl-C, waits for all the items


def progress(items: Iterable[T], description: str, first: int, total: int) -> Iterator[T]:
    """Yields the items, with a progress bar on stderr that shows up after a second and leaves nothing behind."""
    yield from tqdm.tqdm(items, description, total, initial=first, leave=False, delay=1, mininterval=0.5)
