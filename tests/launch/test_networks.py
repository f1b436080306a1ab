"""Networks of no run, by the flags that launchers share: evaluated and predicted as a run is, or refused in a line."""

import csv
import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from configs import train
from jaxseg import inference, networks
from jaxseg.data import builders, grids, pipeline, windows
from jaxseg.errors import InputError
from jaxseg.models import tracing
from jaxseg.networks import files
from jaxseg.prediction import page
from jaxseg.training import checks, contract, runs, trained
from jaxseg.training.checkpoints import Checkpoints
from tests import bright_squares, nnunet

SIDE, NAMES = 24, ("background", "square")
FILE = """
import pathlib

from jaxseg.training import trained

network = trained.of_run(pathlib.Path(__file__).with_name("run"), lambda name: None).members[0]


def threshold(levels):
    return levels[..., :1].astype("float32") - 120


def three(levels):
    return levels.astype("float32")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`raw` files, prepared `data`, a `run` with drawn weights that squashes them, `mine.py` and `nnunet`."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "raw").mkdir()
    bright_squares.write(folder / "raw", SIDE)
    (folder / "new").mkdir()
    for path in (folder / "raw").glob("test*.png"):
        if "mask" not in path.name:
            shutil.copy(path, folder / "new")
    builders.prepare("folder/squares", data_dir=folder / "data", manual_dir=folder / "raw")
    config = train.get_config("tiny").unlock()
    config.data.update(dataset="folder/squares", source_size=16, image_size=16)
    config.model.update(features=(2, 4), skips=(True,))
    runs.claim(folder / "run", config.lock(), data={})
    model = checks.build_model(config, 2)
    random = np.random.default_rng(3)
    variables = jax.tree.map(
        lambda leaf: abs(random.normal(0, 0.5, leaf.shape)).astype(np.float32) if leaf.ndim == 1
        else random.normal(0, 0.5, leaf.shape).astype(np.float32),
        tracing.variable_shapes(model, (1, 16, 16, 3)),
    )  # fmt: skip
    (folder / "run" / "checkpoints").mkdir()
    with Checkpoints(folder / "run" / "checkpoints") as store:
        store.save(variables, {}, step=3, score=0.5)
    contract.note(folder / "run", contract.of_split(pipeline.Split(prepared(folder), "train")))
    (folder / "mine.py").write_text(FILE)
    nnunet.write_for_pictures(folder / "nnunet", 16, NAMES)
    return folder


def prepared(folder):
    return builders.prepared("folder/squares", data_dir=folder / "data")


def loaded(place, **source):
    """The network of a source, whose data set is that of the squares, and what it says of their test cases."""
    source = trained.Source(**source)
    made = source.load(lambda name: prepared(place), where=(prepared(place), "test"))
    return made, *inference.evaluate(made, prepared(place), split="test", view="original")


def of_file(place, name, size=None):
    make = lambda known: files.from_file(
        f"{place / 'mine.py'}:{name}",
        num_classes=len(known.class_names),
        channels=known.num_channels,
        image_size=size,
    )
    return {"network": make, "name": "mine", "dataset": "folder/squares"}


@pytest.fixture(scope="module")
def of_run(place):
    return loaded(place, run=place / "run")[1:]


def masks(folder):
    """Name -> mask, of the results of a prediction."""
    found = {path.stem: np.asarray(Image.open(path)) for path in sorted((folder / "masks").iterdir())}
    assert len(found) == 8
    return found


def dice_of(masks, raw):
    truth = {name: np.asarray(Image.open(raw / f"{name}_mask.png")) for name in masks}
    return {name: 2 * np.sum(one & truth[name]) / (one.sum() + truth[name].sum()) for name, one in masks.items()}


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_network_of_a_file_is_evaluated_as_the_run_that_it_is_of(place, of_run):
    made, rows, estimates = loaded(place, **of_file(place, "network"))
    assert rows == of_run[0] and estimates == of_run[1]
    assert 0 < estimates["square"].mean < 1 and set(rows[0]) >= {"dice_square", "file_dice_square", "patient"}
    assert (made.resized, made.given.grid) == (None, grids.Squash((16, 16)))


def test_an_ensemble_is_evaluated_by_the_mean_of_its_probabilities(place, of_run):
    made, *_ = loaded(place, run=place / "run")
    (one,) = made.members
    other = dataclasses.replace(one, variables=jax.tree.map(lambda leaf: leaf[..., ::-1], one.variables))
    both = made._replace(members=(one, other))
    rows, _ = inference.evaluate(both, prepared(place), split="test", view="original")
    split = pipeline.Split(prepared(place), "test", size=16)
    images = np.stack([case["image"] for case in split]).astype(np.float32) / np.float32(127.5) - 1
    softmax = jax.jit(lambda network, images: jax.nn.softmax(network.logits(images)))
    found = sum(np.asarray(softmax(network, images)) for network in both.members).argmax(-1)
    for row, mask, case in zip(rows, found, split, strict=True):
        truth = case["labels"]
        assert row["dice_square"] == pytest.approx(2 * np.sum(mask & truth) / (mask.sum() + truth.sum()), rel=1e-5)
    assert [row["dice_square"] for row in rows] != [row["dice_square"] for row in of_run[0]]


def test_a_launch_writes_the_same_table_and_the_same_masks_as_for_the_run(place, of_run, launch, tmp_path):
    """Each process once: the numbers of the run are known from within this one."""
    data, name = f"--data_dir={place / 'data'}", f"--network={place / 'mine.py'}:network"
    answer = launch("evaluate", name, data, "--dataset=folder/squares", f"--workdir={tmp_path}")
    assert answer.returncode == 0, answer.stderr
    path = tmp_path / "cases_folder_squares_test_original.csv"
    assert answer.stdout.splitlines()[-1] == str(path) and f"{of_run[1]['square'].mean:.2f} [" in answer.stdout
    written = table(path)
    for row, wanted in zip(written, of_run[0], strict=True):
        assert row.keys() == wanted.keys() and (row["case"], row["patient"]) == (wanted["case"], wanted["patient"])
        assert float(row["file_dice_square"]) == pytest.approx(wanted["file_dice_square"])
    arguments = (f"--inputs={place / 'new'}", data, "--probabilities", "--coverage=0.5")
    both = (["--dataset=folder/squares", name], [f"--workdir={place / 'run'}"])
    for number, which in enumerate(both):
        answer = launch("predict", *arguments, *which, f"--output={tmp_path / str(number)}")
        assert answer.returncode == 0, answer.stderr
    first, second = (tmp_path / str(number) for number in range(2))
    found = masks(first)
    for one, mask in masks(second).items():
        np.testing.assert_array_equal(found[one], mask)
        of_both = [np.load(folder / "probabilities" / f"{one}.npy") for folder in (first, second)]
        np.testing.assert_allclose(*of_both, atol=1e-6)
    assert table(first / "predictions.csv") == table(second / "predictions.csv")
    dice = dice_of(found, place / "raw")
    for row in written:
        assert float(row["file_dice_square"]) == pytest.approx(dice[row["case"]], abs=1e-6)


@pytest.fixture(scope="module")
def of_nnunet(place):
    """Probabilities of the raw test files by the formulas of nnU-Net in NumPy, under the sliding window."""
    _, tensors = nnunet.write_for_pictures(place / "again", 16, NAMES)

    def network(tiles):
        logits = nnunet.forward(tensors, tiles, nnunet.PICTURES["strides"])
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        return (odds / odds.sum(-1, keepdims=True)).astype(np.float32), {}

    read = lambda path: np.asarray(Image.open(path), np.float32) / 255
    return {p.stem: windows.sliding(network, read(p), windows.Tiling(16))[0] for p in sorted(place.glob("new/*.png"))}


def test_an_nnunet_is_evaluated_and_predicts_what_its_formulas_say(place, of_nnunet, tmp_path, capsys):
    source = {"network": lambda known: networks.from_nnunet(place / "nnunet"), "name": "theirs"}
    _, rows, _ = loaded(place, **source, dataset="folder/squares")
    wanted = {name: one.argmax(-1).astype(np.uint8) for name, one in of_nnunet.items()}
    assert all(0 < mask.mean() < 1 for mask in wanted.values())
    dice = dice_of(wanted, place / "raw")
    for row in rows:
        assert row["file_dice_square"] == pytest.approx(dice[row["case"]], abs=0.02)  # a pixel may be undecided
    outcome = predicted(place, trained.Source(**source), tmp_path, probabilities=True)
    assert (outcome.predicted, outcome.flagged, outcome.sheet) == (8, 0, None)
    assert "no validation cases to judge by, so nothing is flagged" in capsys.readouterr().err
    found = masks(tmp_path)
    for name, probabilities in of_nnunet.items():
        kept = np.load(tmp_path / "probabilities" / f"{name}.npy")
        np.testing.assert_allclose(kept, probabilities, atol=2e-3)
        assert (found[name] == wanted[name]).mean() > 0.99
    row = table(tmp_path / "predictions.csv")[0]
    assert int(row["pixels_square"]) == found["test0"].sum() and float(row["entropy"]) > 0
    assert "flagged" not in row and "entropy_percentile" not in row


def predicted(place, source, output, **options):
    return page.run(
        source=source,
        paths=[place / "new"],
        output=output,
        options=page.Options(**options),
        prepare=lambda name: prepared(place),
        command="python -m launch.predict",
    )


def test_a_function_without_layers_is_flagged_by_entropy(place, tmp_path, capsys):
    source = of_file(place, "threshold", SIDE)
    made, rows, _ = loaded(place, **source)
    assert [row["file_dice_square"] for row in rows] == [1.0] * 8 and made.dataset == "folder/squares"
    outcome = predicted(place, trained.Source(**source), tmp_path / "known", coverage=0.0)
    assert (outcome.predicted, outcome.flagged) == (8, 8)
    assert "mine: has no layers, of which mean_sa is; flagged by entropy" in capsys.readouterr().err
    assert dice_of(masks(tmp_path / "known"), place / "raw") == dict.fromkeys(masks(tmp_path / "known"), 1.0)
    make = lambda known: files.from_file(f"{place / 'mine.py'}:threshold", image_size=SIDE)
    alone = trained.Source(network=make, name="mine")
    assert predicted(place, alone, tmp_path / "alone").flagged == 0
    for name, mask in masks(tmp_path / "known").items():
        np.testing.assert_array_equal(masks(tmp_path / "alone")[name], mask)
    columns = table(tmp_path / "alone" / "predictions.csv")[0].keys()
    assert "pixels_class 1" in columns and "mean_sa" not in columns


def test_what_a_file_makes_has_to_fit_the_data_set(place):
    with pytest.raises(InputError, match="three gave 3 channels for num_classes=2"):
        loaded(place, **of_file(place, "three", SIDE))
    with pytest.raises(InputError, match="taken for one of RGB images and two classes; name a data set that it takes"):
        files.from_file(f"{place / 'mine.py'}:three", image_size=SIDE)


ALL = ("audit", "evaluate", "predict")
GIVEN = {
    "audit": ["--workdir={place}/x"],
    "evaluate": ["--workdir={place}/x"],
    "predict": ["--output={place}/x", "--inputs={place}/new"],
}
SQUARES = "--dataset=folder/squares"
RECIPE = "--config=configs/train.py:tiny"


@pytest.mark.parametrize(
    ("programs", "arguments", "message"),
    [
        (ALL, ["--network={place}/no.py:f", SQUARES, "--image_size=16"], "{place}/no.py:f: there is no such file"),
        (["predict"], ["--network={place}/mine.py:f", "--image_size=two"], "--image_size is two; give whole numbers"),
        (
            ["evaluate"],
            ["--nnunet={place}/new", SQUARES],
            "{place}/new/plans.json is missing; copy it from where nnU-N",
        ),
        (
            ["evaluate"],
            ["--nnunet=a", "--weights=b", SQUARES],
            "give one of --weights, --network, --nnunet (see --help)",
        ),
        (["predict"], ["--nnunet=a", "--workdir={place}/run"], "give one of --workdir, --weights, --network, --nnunet"),
        (["predict"], ["--nnunet=a", "--image_size=3"], "--image_size belongs to --network, not to --nnunet"),
        (["evaluate"], ["--nnunet=a"], "--dataset is missing; --nnunet does not say what it was trained on"),
        (
            ["predict"],
            ["--weights=w.pt", RECIPE],
            "--dataset is missing; --weights does not say what it was trained on",
        ),
        (
            ["predict"],
            ["--nnunet=a", "--coverage=0.5"],
            "--coverage needs validation cases to judge by; give the --data",
        ),
        (["predict"], ["--workdir={place}/run", SQUARES], "--dataset is for networks that are of no run; leave it out"),
        (["evaluate"], ["--weights=w.pt", SQUARES], "--config is missing; it says which network the weights are of"),
        (
            ["audit", "evaluate"],
            ["--weights=w.pt", RECIPE, "--config.data.image_size=16", SQUARES],
            "train.py: is a recipe of trainings (with geometry squash, normalisation range), and does not say what "
            "w.pt was given in its own; say so with --config.data.geometry=... --config.data.normalisation=..., or in",
        ),
        (["evaluate"], ["--nnunet={place}/nnunet", SQUARES, "--known_dice=0.99"], "is known for 0.99, so nothing was"),
        (
            ["evaluate"],
            ["--nnunet=a", SQUARES, "--workdir={place}/run"],
            "is that of a run or an audit; name another f",
        ),
    ],
)
def test_misuse_is_answered_with_one_line(place, launch, one_line, programs, arguments, message):
    for program in programs:
        given = [one.format(place=place) for one in (*GIVEN[program], *arguments)]
        one_line(launch(program, *given, f"--data_dir={place / 'data'}"), message.format(place=place))
        assert not (place / "x").exists()


def test_weights_say_what_they_are_given_on_the_command_line_or_in_a_config_of_their_own(
    place, launch, drawn_state_dict, tmp_path
):
    """Evaluated at the size that is said: at another one the same tensors give other numbers."""
    from tests.launch.test_audit import shapes_of

    np.savez(tmp_path / "w.npz", **drawn_state_dict(shapes_of((2, 4)), 0))
    model = ("--config.model.features=(2,4)", "--config.model.skips=(True,)", "--config.model.upsample=transpose")
    seen = ("--config.data.geometry=squash", "--config.data.normalisation=range", "--config.data.source_size=24")
    root = pathlib.Path(__file__).parents[2]
    (tmp_path / "own.py").write_text((root / "configs" / "train.py").read_text())
    said = []
    for config, more in (
        (RECIPE, (*seen, "--config.data.image_size=16")),
        (f"--config={tmp_path / 'own.py'}:tiny", (*seen[2:], "--config.data.image_size=16")),
        (RECIPE, (*seen, "--config.data.image_size=24")),
    ):
        given = (f"--weights={tmp_path / 'w.npz'}", config, *model, *more, SQUARES, f"--data_dir={place / 'data'}")
        answer = launch("evaluate", *given, f"--workdir={tmp_path / 'out'}")
        assert answer.returncode == 0, answer.stderr
        said.append([row["dice_square"] for row in table(tmp_path / "out" / "cases_folder_squares_test_original.csv")])
    assert said[0] == said[1] != said[2]
