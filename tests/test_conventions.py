"""ARCHITECTURE.md's conventions, asked of every public function and class of the package."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SECTIONS = ("Attributes", "Args", "Returns", "Yields", "Raises")
LONGEST = 70
# `train` is where linen has it; layers of a capture, labels and a section of a config are not options; all readers of
# files are called alike
POSITIONAL = {"train", "layers", "labels", "section", "at_least"}
# methods that a base class or a protocol describes
DESCRIBED = {"find", "load", "draw", "cases", "scenes", "config", "config_names", "instructions"}  # of a builder
DESCRIBED |= {"setup", "open", "num_classes", "rank"}  # of a module, of splits
# of a network, and of what computes one on the host
DESCRIBED |= {"channels", "sides", "layers", "roles", "padding", "margin", "differentiable", "notes", "fingerprint"}
DESCRIBED |= {"captured", "replaced", "repadded", "forward", "backward"}
# imports that wait until launchers know their flags to be good, as they take seconds, and what a person may not have
LATE = {"jax", "jaxseg.data", "grain", "tensorflow_datasets", "tensorboardX", "torch", "highdicom"}


def modules():
    return sorted((ROOT / "jaxseg").rglob("*.py"))


def public(tree, owner=""):
    """Functions and classes, and methods of the latter, with their names; `_private` ones are nobody else's."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{owner}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{node.name}.")


def parameters(function):
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args)]
    bound = names[:1] == ["self"] or any(ast.unparse(one) == "classmethod" for one in function.decorator_list)
    names = names[1:] if bound else names
    further = [one.arg for one in (given.vararg, *given.kwonlyargs, given.kwarg) if one]
    return names, [*names, *further]


def described(docstring):
    """The names below `Args:`."""
    (block,) = re.findall(r"^Args:\n((?:  .*\n?|\n)*)", docstring, re.M)
    lines = re.findall(r"^  (\*{0,2}\w[\w, *]*):", block, re.M)
    return [name.strip().lstrip("*") for line in lines for name in line.split(",")]


def problems(name, node):
    """What of a function or a class is against the conventions."""
    docstring = ast.get_docstring(node) or ""
    sections = re.findall(r"^(\w+):$", docstring, re.M)
    if unknown := set(sections) - set(SECTIONS):
        yield f"{name}: section {min(unknown)}; choose from {', '.join(SECTIONS)}"
    elif sections != sorted(sections, key=SECTIONS.index):
        yield f"{name}: sections {sections}; their order is {', '.join(SECTIONS)}"
    if not docstring and not overrides(name):
        yield f"{name}: has no docstring"
    if isinstance(node, ast.ClassDef):
        return
    positional, every = parameters(node)
    keys = [one.arg for one in node.args.args if one.annotation and "jax.Array" in ast.unparse(one.annotation)]
    if "key" in keys and positional[0] != "key":
        yield f"{name}: key is not first"
    if "Args" in sections and sorted(described(docstring)) != sorted(every):
        yield f"{name}: Args are {described(docstring)}, parameters {every}"
    options = positional[len(positional) - len(node.args.defaults) :] if node.args.defaults else []
    if set(options) - POSITIONAL:
        yield f"{name}: options {options} are not keyword-only"


def overrides(name):
    """Whether it is a method that is described elsewhere."""
    return name.partition(".")[2] in DESCRIBED


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "jaxseg")))
def test_public_names_keep_to_the_conventions(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    assert not [problem for name, node in public(tree) for problem in problems(name, node)]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT / "jaxseg")))
def test_functions_are_short_and_import_nothing(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        assert node.end_lineno - node.lineno < LONGEST, f"{node.name} has more than {LONGEST} lines"
        for inner in ast.walk(node):
            names = [inner.module] if isinstance(inner, ast.ImportFrom) else []
            names += [alias.name for alias in inner.names] if isinstance(inner, ast.Import) else []
            assert set(names) <= LATE, f"{node.name} imports {names}"
