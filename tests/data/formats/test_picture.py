"""What is common to pictures of all formats: where they lie, and the warnings of libraries while they are read."""

import threading
import warnings

import numpy as np
import pytest

from jaxseg.data import formats
from jaxseg.data.formats import picture


def test_spacing_and_orientation_follow_from_the_affine():
    affine = np.array([[0, 0, -0.5, 9], [0, 2.0, 0, 8], [-3, 0, 0, 7], [0, 0, 0, 1]])  # slices down, rows to the front
    volume = picture.placed(np.zeros((4, 5, 6, 1)), affine)
    assert volume.spacing == (3, 2, 0.5) and volume.orientation == "IAL" and volume.size == (4, 5, 6)
    flat = picture.placed(np.zeros((5, 6, 1)), affine)
    assert flat.spacing == (2, 0.5) and flat.orientation == "AL"
    assert picture.unplaced(np.zeros((5, 6, 1))).orientation == ""


def test_warnings_are_kept_from_the_first_to_the_last_of_several_threads():
    before, inside, leave = list(warnings.filters), threading.Barrier(4), threading.Barrier(3)

    def read() -> None:
        with picture.quietly():
            inside.wait(10)
            warnings.warn("a header strays from the standard", stacklevel=1)
            leave.wait(10)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning, match="of ours"):
        warnings.warn("of ours", stacklevel=1)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (EOFError("Compressed file ended"), "fetch it again"),
        (OSError("image file is truncated (3 bytes not processed)"), "fetch it again"),
        (ValueError("Expected 3600 bytes, got 720 bytes from object"), "fetch it again"),
        (ValueError("mmap length is greater than file size"), "fetch it again"),
        (MemoryError("Unable to allocate 9 TiB"), "split it into parts"),
        (RuntimeError("no decoder for this"), "save it again with a program that opens it"),
        (KeyError("x"), "save it again with a program that opens it"),
    ],
)
def test_the_remedy_is_to_fetch_only_what_is_proven_broken(error, remedy):
    assert picture.remedy(error) == remedy


def test_a_text_of_many_lines_is_one_line():
    assert str(formats.Unusable("one\ntwo\x00three")) == "one two three"
