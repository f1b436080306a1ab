"""Notebooks from the jupytext sources of this folder: with what opens them in Colab and installs the library there.

    python -m colab.build

What a notebook says and does stands in its source; badge and first cell are the same for all, and stand here. Notebooks
have no outputs; a test compares them with their sources, and executes them.
"""

import pathlib

import jupytext
import nbformat

REPOSITORY = "OWNER/jaxseg"  # on GitHub, once it has an address there; then `make notebooks`
FOLDER = pathlib.Path(__file__).parent

_BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/colab/{name}.ipynb)"
)
_INSTALL = """\
# On Colab this installs the library; elsewhere it does nothing, as the environment has it.
import subprocess
import sys

if "google.colab" in sys.modules:
    clone = "git clone -q --depth 1 https://github.com/{repository}"
    subprocess.run(f"{{clone}} && pip install -q ./jaxseg", shell=True, check=True)
sys.path[:0] = ["jaxseg", ".."]  # where configs/ lies: in the clone, or above a notebook in its folder"""
_METADATA = {
    "colab": {"provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sources() -> list[pathlib.Path]:
    """The jupytext sources, in alphabetical order."""
    return sorted(path for path in FOLDER.glob("*.py") if path.name != pathlib.Path(__file__).name)


def notebook(source: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook of a source, without outputs; the same source gives the same bytes."""
    made = jupytext.reads(source.read_text("utf-8"), fmt="py:percent")
    title, *cells = made.cells
    title.source = f"{title.source}\n\n{_BADGE.format(repository=REPOSITORY, name=source.stem)}"
    install = nbformat.v4.new_code_cell(_INSTALL.format(repository=REPOSITORY))
    made.cells = [title, install, *cells]
    for number, cell in enumerate(made.cells):
        cell.id, cell.metadata = f"cell-{number}", {}  # drawn at random otherwise
    made.metadata = _METADATA
    made.nbformat, made.nbformat_minor = 4, 5
    nbformat.validate(made)
    return made


def text(source: pathlib.Path) -> str:
    """What is written of it."""
    return nbformat.writes(notebook(source)) + "\n"


if __name__ == "__main__":
    for path in sources():
        path.with_suffix(".ipynb").write_text(text(path), "utf-8")
