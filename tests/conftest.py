"""What tests share, and how strict and how cheap they are."""

import fcntl
import gc
import os
import pathlib
import zlib

# before JAX is imported, and for the processes that tests start: a test's programs run once, on a few numbers, so XLA
# need not try hard; this is a quarter of the time that it takes otherwise
_QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}".strip()
# what one worker, process or session has compiled no other compiles again
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]

# a bfloat16 that silently becomes float32 is a defect, and so is a vector that silently meets a matrix
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_LONG = (  # started first, so that no worker ends with one of them alone
    "studies/test_segmentation_ability.py",
    "training/test_loop.py",
    "launch/test_study.py",
    "launch/test_audit.py",
    "studies/test_planted_shortcuts.py",
    "models/test_networks.py",
    "models/test_autoencoder.py",
    "studies/test_distortion.py",
    "analysis/test_every_function.py",
    "colab/test_notebooks.py",
    "studies/test_skip_pruning.py",
    "studies/test_overlay_shortcut.py",
    "training/test_kills.py",
    "models/test_dtu_net.py",
    "prediction/test_predictor.py",
    "data/test_shifts.py",
    "data/test_spoilt_inputs.py",
    "data/test_picture_builders.py",
    "analysis/test_prototypes.py",
    "data/test_builders.py",
    "data/test_doctor.py",
    "report/test_figures.py",
)

pytest_plugins = ("tests.needs", "tests.programs", "tests.shallow")


def pytest_collection_modifyitems(items):
    rank = {ROOT / "tests" / name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish():
    """Cycles are looked for between files alone, and not in what was imported.

    Tracing makes millions of short-lived objects, and every pass over those that stay is a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


@pytest.fixture(autouse=True, scope="module")
def programs_are_let_go():
    """A worker holds the compiled programs of one file at a time."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id) -> pathlib.Path:
    """A folder that all workers have in common."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def once(shared_folder):
    """`(name, make) -> folder`: what `make(folder)` leaves there, by whichever worker asks first; not to be changed."""

    def made(name: str, make) -> pathlib.Path:
        folder = shared_folder / name
        with (shared_folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                part = shared_folder / f"{name}.part"
                part.mkdir()
                make(part)
                part.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def drawn_data(once):
    """`(name) -> data folder` in which the drawn data set of that name, as dermoscopy/tiny, is prepared."""
    from jaxseg.data import builders

    def prepare(name: str) -> pathlib.Path:
        return once(f"data_{name.replace('/', '_')}", lambda folder: builders.prepare(name, data_dir=folder))

    return prepare


@pytest.fixture(scope="session")
def tiny(drawn_data) -> pathlib.Path:
    """The prepared data set dermoscopy/tiny, not to be changed."""
    from jaxseg.data import builders

    return builders.prepared("dermoscopy/tiny", data_dir=drawn_data("dermoscopy/tiny"))


@pytest.fixture(scope="session")
def tiny_run(once, tiny) -> pathlib.Path:
    """Folder of a finished run of `configs/train.py:tiny`, made smaller still, on `tiny`; not to be changed."""
    from configs import train
    from jaxseg.training import runs

    def fit(folder: pathlib.Path) -> None:
        config = train.get_config("tiny").unlock()
        config.model.features, config.model.skips, config.data.image_size = (2, 4), (True,), 8
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            runs.train(config.lock(), runs.Splits(tiny, config.data.source_size), folder / "run")

    return once("tiny_run", fit) / "run"


@pytest.fixture(scope="session")
def drawn_variables():
    """`(module, images, seed) -> variables` of a linen module; to compile its `init` takes longer than most tests.

    No bias is 0 and no scale 1, so that a wrong constant anywhere shows. Of the images the shape is enough.
    """

    from jaxseg.models import tracing

    def draw(module, images, seed=1):
        random = np.random.default_rng(seed)

        def values(path, leaf):
            if path[-1].key == "kernel":
                drawn = random.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
            else:
                drawn = random.uniform(-0.5, 0.5, leaf.shape) + (path[-1].key in ("scale", "var"))
            return drawn.astype(leaf.dtype)

        return jax.tree_util.tree_map_with_path(values, tracing.variable_shapes(module, images.shape))

    return draw


@pytest.fixture(scope="session")
def drawn_state_dict():
    """`(shapes, seed) -> PyTorch state dict`, drawn tensor by tensor as for the reference numbers."""

    def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = 0.1 * random.standard_normal(shape)
        else:
            values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        return values.astype(np.float32)

    return lambda shapes, seed: {name: draw(name, shape, seed) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def slow_resize():
    """`(image [H,W,C], height, width) -> float64`: means by area along shorter axes, linear along longer ones."""

    def weights(old: int, new: int) -> np.ndarray:
        matrix = np.zeros((new, old))
        for i in range(new):
            if new <= old:  # the share of every old pixel that the new one covers
                low, high = i * old / new, (i + 1) * old / new
                matrix[i] = np.clip(np.minimum(np.arange(old) + 1, high) - np.maximum(np.arange(old), low), 0, None)
            else:
                place = np.clip((i + 0.5) * old / new - 0.5, 0, old - 1)
                left = min(int(place), old - 2)
                matrix[i, left : left + 2] = left + 1 - place, place - left
        return matrix / matrix.sum(1, keepdims=True)

    def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
        rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
        return np.einsum("ih,jw,hwc->ijc", rows, columns, image.astype(np.float64), optimize=True)

    return resize
