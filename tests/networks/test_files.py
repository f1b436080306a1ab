"""Networks that a file makes: a function, a network, what makes one; and what is refused."""

import numpy as np
import pytest

from jaxseg.errors import InputError
from jaxseg.networks.files import from_file

LEVELS = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
FILE = """
import numpy as np
from beside import level
from jaxseg import networks


def bright(levels):
    return np.asarray(levels[..., :1], np.float32) - level


def dim(levels, level=50):
    return bright(levels)


def make():
    return networks.from_function(bright, num_classes=2, image_size=(4, 6), output="logits")


def makes_a_function(scale=1):
    return dim


def fails():
    raise ValueError("no weights here")


network = make()
number = 3

Module = type("Module", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: x})  # as PyTorch's
bare = type("Net", (Module,), {})()


def makes_bare():
    return bare
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "beside.py").write_text("level = 100")
    (folder / "mine.py").write_text(FILE)
    (folder / "broken.py").write_text("import nothing_of_that_name")
    return folder / "mine.py"


def made(place, *, image_size=(4, 6)):
    return from_file(str(place), num_classes=2, channels=3, image_size=image_size)


@pytest.mark.parametrize("name", ["bright", "network", "make", "makes_a_function"])
def test_a_name_is_a_network_a_function_or_what_makes_one(file, name):
    network = made(f"{file}:{name}", image_size=None if name in ("network", "make") else (4, 6))
    assert network.sides == (4, 6) and network.num_classes == 2
    logits = network.logits(LEVELS.astype(np.float32) / np.float32(127.5) - 1)
    np.testing.assert_allclose(logits[..., 1], LEVELS[..., 0].astype(float) - 100, atol=1e-4)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("{}:nothing", "has no 'nothing'"),
        ("{}", "give FILE.py:NAME"),
        ("{}:number", "is a int; give a network"),
        (
            "{}:bare",
            r"is a PyTorch module, .* a function in the file that returns jaxseg.networks.from_torch\(module, n",
        ),
        ("{}:makes_bare", "is a PyTorch module, which does not say how its images are normalised"),
        ("{}:fails", "fails when it is called: ValueError: no weights here"),
        ("{}:bright", "give --image_size too"),
        ("{}/../broken.py:x", "there is no such file"),
    ],
)
def test_what_is_no_network_is_refused_in_a_line(file, place, message):
    with pytest.raises(InputError, match=message):
        made(place.format(file), image_size=None)
    with pytest.raises(InputError, match="fails when it is imported: ModuleNotFoundError: No module"):
        made(f"{file.parent / 'broken.py'}:x")
