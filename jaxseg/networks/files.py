"""A network that a Python file of someone else makes, by the file and a name in it."""

import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxseg import paths
from jaxseg.errors import InputError
from jaxseg.networks.base import Network
from jaxseg.networks.functions import from_function, last_line


def from_file(
    place: str,
    *,
    num_classes: int | None = None,
    channels: int | None = None,
    image_size: int | Sequence[int] | None = None,
) -> Network:
    """The network `FILE.py:NAME`.

    The name is that of a network of `jaxseg.networks`, of a function of gray levels as `from_function` takes them, or
    of a function without arguments that returns one of these. A PyTorch module by itself does not say how its images
    are normalised: `from_torch` makes a network of it. The file is imported, with its folder among the places from
    which it may import.

    Args:
      place: `FILE.py:NAME`.
      num_classes: K, background included; None: 2, unless the file makes a network, which has its own.
      channels: C; None: 3, unless likewise.
      image_size: as for `from_function`; None where the file makes a network, which has its own.

    Raises:
      InputError: there is no such file or name, the file fails, or it is no network.
    """
    file, _, name = place.rpartition(":")
    found = _named(paths.expanded(file), name, place)
    if _is_maker(found):
        found = _called(found, place)
    if isinstance(found, Network):
        return found
    if _is_module(found):
        raise InputError(
            f"{place}: is a PyTorch module, which does not say how its images are normalised; name a function in the "
            "file that returns jaxseg.networks.from_torch(module, normalise=(mean, std), num_classes=..., "
            "image_size=...)"
        )
    if not callable(found):
        raise InputError(f"{place}: is a {type(found).__name__}; give a network or a function")
    if image_size is None:
        raise InputError(f"{place}: does not say what size its images have; give --image_size too")
    options: dict[str, Any] = {"num_classes": num_classes or 2, "channels": channels or 3, "image_size": image_size}
    try:
        return from_function(found, **options)
    except InputError as error:
        if num_classes is not None and channels is not None:
            raise
        assumed = "it was taken for one of RGB images and two classes; name a data set that it takes (--dataset)"
        raise InputError(f"{place}: {error}; {assumed}, or a network in the file") from error


def _named(path: pathlib.Path, name: str, place: str) -> Any:
    if not paths.is_file(path) or not name:
        raise InputError(f"{place}: there is no such file; give FILE.py:NAME, with the name of something in the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: is no Python file; give FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a file of someone else raises
        raise InputError(f"{path}: fails when it is imported: {type(error).__name__}: {last_line(error)}") from error
    if not hasattr(module, name):
        raise InputError(f"{path}: has no {name!r}; give the name of a network or a function in it")
    return getattr(module, name)


def _is_maker(found: Any) -> bool:
    """Whether it is a function that takes nothing."""
    if not inspect.isroutine(found) and not inspect.isclass(found):
        return False
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # of some built-in functions
        return False
    of_call = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(one.default is not one.empty for one in parameters if one.kind not in of_call)


def _called(maker: Any, place: str) -> Any:
    try:
        return maker()
    except Exception as error:  # as above
        raise InputError(f"{place}: fails when it is called: {type(error).__name__}: {last_line(error)}") from error


def _is_module(found: Any) -> bool:
    """Whether it is PyTorch's, which need not be installed to know."""
    return any(f"{kind.__module__}.{kind.__name__}" == "torch.nn.modules.module.Module" for kind in type(found).__mro__)
