"""The notebooks: made from their sources, without outputs, and running from the first cell to the last."""

import base64
import os
import pathlib
import shutil

import nbformat
import pytest
from nbclient import NotebookClient

from colab import build

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = build.sources()
QUICK = ("quickstart", "your_own_network_and_data")  # the others take as long, one by one
TORCH = "your_pytorch_network"
DEMO = 'SIZE = "demo"'
SMALLER = {
    DEMO: 'SIZE = "tiny"',
    "config = train.get_config(SIZE)\n": "config = train.get_config(SIZE).unlock()\n"
    "config.model.update(features=(2, 4), skips=(True,))\n",
    'name="my network")': 'name="my network", probes=("translation", "padding", "failures"), autoencoder_steps=2)',
}

each = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def test_there_is_one_for_every_paper():
    assert {source.stem for source in SOURCES} == {
        "quickstart",
        "border_and_overlay_shortcuts",
        "segmentation_ability",
        "skip_connections",
        "segmentation_distortion",
        "your_own_network_and_data",
        TORCH,
    }


@each
def test_it_is_what_its_source_says(source):
    """Run `make notebooks` after a change. The same source gives the same bytes, so that only changes are seen."""
    assert source.with_suffix(".ipynb").read_text("utf-8") == build.text(source)


@each
def test_it_opens_in_colab_and_has_no_outputs(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    title, install, *rest = notebook.cells
    assert title.source.startswith("# ")
    assert f"colab.research.google.com/github/{build.REPOSITORY}/blob/main/colab/{source.stem}.ipynb" in title.source
    assert f"https://github.com/{build.REPOSITORY}" in install.source and "google.colab" in install.source
    code = [cell for cell in rest if cell.cell_type == "code"]
    assert sum(cell.source.count(DEMO) for cell in code) == 1
    assert all(cell.outputs == [] and cell.execution_count is None for cell in [install, *code])


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param([s for s in SOURCES if s.stem in QUICK], id="quick"),
        *(pytest.param([s], id=s.stem, marks=pytest.mark.slow) for s in SOURCES if s.stem not in (*QUICK, TORCH)),
    ],
)
def test_they_run(sources, executed):
    """In their smallest size, in a folder with one data set: no error, and every picture that they make is shown.

    Those of one kernel, whose imports take longer than many a cell, have nothing of each other's names.
    """
    executed(sources)


def test_that_of_pytorch_runs(torch, executed):
    executed([s for s in SOURCES if s.stem == TORCH])


@pytest.fixture
def executed(drawn_data, tmp_path, monkeypatch):
    """`(sources)`: runs them in one kernel, and looks at what they show."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # otherwise jupyter_core warns that it will be so one day
    shutil.copytree(drawn_data("dermoscopy/tiny"), tmp_path / "data")

    def run(sources):
        joined = build.notebook(sources[0])
        joined.cells = [cell for source in sources for cell in cells(source)]
        place = {"metadata": {"path": tmp_path}}
        NotebookClient(joined, timeout=300, startup_timeout=180, kernel_name="python3", resources=place).execute()
        for source in sources:
            code = [cell for cell in joined.cells if cell.cell_type == "code" and cell.id.startswith(source.stem)]
            outputs = [output for cell in code for output in cell.outputs]
            pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
            shown = sum(cell.source.count("Image(") for cell in code)
            assert 1 <= len(pictures) >= shown - 1  # quickstart shows none where no image is flagged
            assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)

    return run


def cells(source):
    """Of a notebook in its smallest size, behind one that forgets all names, and without a search for cycles."""
    forget = nbformat.v4.new_code_cell("%reset -f\nimport gc\ngc.disable()")
    own = [forget, *build.notebook(source).cells]
    for number, cell in enumerate(own):
        cell.id = f"{source.stem}-{number}"
        for given, smaller in SMALLER.items():
            cell.source = cell.source.replace(given, smaller)
    return own
