"""Which of the dicts in a file holds the network's tensors, and their names without the prefixes of wrappers."""

import collections
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from jaxseg.errors import InputError
from jaxseg.models.torch_files import ORDERED_DICT, REMEDY, SETS, Inert, Name, Tensor, Unreadable

T = TypeVar("T")
_PREFIX_PARTS = 16
_DEPTH = 3  # keys above a state dict, as in callbacks, EMA, state_dict
_NESTED = 64  # modules in modules
_MOST = 20_000  # modules and tensors
_LONGEST_NAME = 1000
# of torch.compile, fully sharded data parallel, and checkpointing of activations
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_PLAIN = (str, int, float, bool, type(None))
NOTHING = object()  # where a file has no plain value
_PARALLEL = "module."
_PARALLEL_NESTED = 4
_ASIDE = re.compile(
    r"(.*_)?(optim(i[sz]ers?)?|schedulers?|scaler|criteri(a|ons?)|loss(es)?|metrics?)(_.*)?", re.IGNORECASE
)


def is_aside(name: str) -> bool:
    """Whether a name begins like those of losses and metrics, such as `criterion.weight`."""
    return _ASIDE.fullmatch(name.partition(".")[0]) is not None


def find(content: Any) -> dict[str, dict[str, Tensor | Unreadable]]:
    """The dicts with tensors in what was unpickled, by the keys that lead to them, joined by dots.

    A module counts as the dict of its parameters and buffers, as in its `state_dict()`. Keys that name an
    optimiser, a schedule, a loss or a metric are not searched.

    Raises:
      InputError: none holds a tensor.
    """
    dicts, seen = {}, set()
    pending = collections.deque([("", 0, content)])
    while pending:
        place, depth, value = pending.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        entries = _entries(value)
        tensors = {name: entry for name, entry in entries.items() if isinstance(entry, Tensor | Unreadable)}
        if tensors:
            dicts[place] = tensors
        for key, entry in entries.items() if depth < _DEPTH else ():
            if isinstance(entry, dict | Inert) and not is_aside(key):
                pending.append((f"{place}.{key}" if place else key, depth + 1, entry))
    if not dicts:
        raise InputError(f"expected names and tensors, found {_described(content)}; {REMEDY}")
    return dicts


def choose(dicts: Mapping[str, Mapping[str, T]], key: str | None) -> dict[str, T]:
    """One of the state dicts of a file, or the part of one.

    Args:
      dicts: the tensors by name of each state dict, by the keys that lead to it.
      key: that leads to the wanted ones, or their common prefix; empty for those at the root, where others
        are copies of them, such as an average under `ema.`. None is for files in which one state dict has more than
        twice as many tensors as any other. One without a kernel or matrix, such as one of best scores, does not count
        next to others.

    Raises:
      InputError: there is none under the key, or none is given and there are several.
    """
    if key is not None:
        return _without_copies(_under(dicts, key))
    networks = {place: tensors for place, tensors in dicts.items() if any(map(_is_kernel, tensors.values()))} or dicts
    most = max(map(len, networks.values()))
    rivals = [place for place, tensors in networks.items() if 2 * len(tensors) >= most]
    if len(rivals) > 1:
        raise several(rivals)
    return dict(dicts[rivals[0]])


def _is_kernel(tensor: Any) -> bool:
    shape = getattr(tensor, "shape", None)
    return isinstance(shape, tuple) and len(shape) > 1


def several(places: list[str]) -> InputError:
    """The error that there are networks in several places of a file."""
    names = [place.removesuffix(".") or "the file itself" for place in places]
    example = next(place.removesuffix(".") for place in places if place)
    root = ", with nothing after the colon for the file itself" if "" in places else ""
    return InputError(
        f"holds several networks, under {_listed(names)}; choose one after a colon, as in FILE:{example:.80}{root}"
    )


def _without_copies(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors without those under a prefix that nearly all exist without it too, such as an average of them."""
    below: dict[str, list[str]] = collections.defaultdict(list)
    for name in tensors:
        parts = name.split(".", _PREFIX_PARTS)
        for i in range(1, len(parts)):
            below[f"{'.'.join(parts[:i])}."].append(".".join(parts[i:]))
    namesakes = {prefix: sum(rest in tensors for rest in rests) for prefix, rests in below.items()}
    alike = tuple(prefix for prefix, rests in below.items() if namesakes[prefix] >= 0.9 * len(rests))
    unique = sum(not name.startswith(alike) for name in tensors)
    copies = tuple(prefix for prefix in alike if 2 * len(below[prefix]) > unique)  # smaller ones belong to the network
    return {name: entry for name, entry in tensors.items() if not name.startswith(copies)}


def _under(dicts: Mapping[str, Mapping[str, T]], key: str) -> dict[str, T]:
    if key in dicts:
        return dict(dicts[key])
    for place, tensors in sorted(dicts.items(), key=lambda item: -len(item[1])):
        for prefix in (f"{key}.", f"{key}.".removeprefix(f"{place}.")):
            part = {name.removeprefix(prefix): entry for name, entry in tensors.items() if name.startswith(prefix)}
            if part:
                return part
    known = [place for place in dicts if place]
    known += sorted({name.partition(".")[0] for tensors in dicts.values() for name in tensors})
    raise InputError(f"has no tensors under {key!r:.80}; there are some under {_listed(known)}")


def plain_value(content: Any, name: str) -> Any:
    """Text, a number, None, or a tuple of these, by the keys that lead to it; `NOTHING` for all else."""
    for key in name.split("."):
        entries = _entries(content)
        if key not in entries:
            return NOTHING
        content = entries[key]
    if isinstance(content, list | tuple) and all(isinstance(one, _PLAIN) for one in content):
        return tuple(content)
    return content if isinstance(content, _PLAIN) else NOTHING


def unwrapped(tensors: Mapping[str, T]) -> dict[str, T]:
    """Tensors under the names they had before `torch.compile`, DataParallel and the like wrapped the network."""
    names = {name: _unwrapped(name) for name in tensors}
    for _ in range(_PARALLEL_NESTED):
        if not all(name.startswith(_PARALLEL) for name in names.values()):
            break
        names = {name: short.removeprefix(_PARALLEL) for name, short in names.items()}
    if len(set(names.values())) < len(names):
        return dict(tensors)
    return {names[name]: entry for name, entry in tensors.items()}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def _entries(value: Any) -> dict[str, Any]:
    """The entries with text keys of a dict, some kind of dict, or a module."""
    if isinstance(value, Inert):
        if _is_module(value):
            return dict(_module(value, "", 0, [0]))
        if value.name == ORDERED_DICT and value.args:
            return _pairs(value.args[0])
        value = value.items
    return {key: entry for key, entry in value.items() if type(key) is str} if isinstance(value, dict) else {}


def _pairs(items: Any) -> dict[str, Any]:
    """Of an OrderedDict as Python 2 pickled it."""
    pairs = [pair for pair in items if isinstance(pair, list | tuple) and len(pair) == 2] if type(items) is list else []
    return {key: entry for key, entry in pairs if type(key) is str}


def _is_module(value: Any) -> bool:
    return isinstance(value, Inert) and isinstance(value.state, dict) and "_parameters" in value.state


def _module(module: Inert, prefix: str, depth: int, count: list[int]) -> Iterator[tuple[str, Any]]:
    """Names and tensors of a module's state dict; `count` is of all so far, as modules may occur many times."""
    state, passing = module.state, _transient(module.state.get("_non_persistent_buffers_set"))
    own = _entries(state["_parameters"]) | _entries(state.get("_buffers"))
    count[0] += 1 + len(own)
    if count[0] > _MOST or depth > _NESTED or len(prefix) > _LONGEST_NAME:
        raise ValueError("more modules in modules than any network has")
    for name, entry in own.items():
        if name not in passing and isinstance(entry, Tensor | Unreadable):
            yield f"{prefix}{name}", entry
    for name, child in _entries(state.get("_modules")).items():
        if _is_module(child):
            yield from _module(child, f"{prefix}{name}.", depth + 1, count)


def _transient(names: Any) -> set[str]:
    is_set = isinstance(names, Inert) and names.name in SETS and names.args and isinstance(names.args[0], list)
    return {name for name in names.args[0] if type(name) is str} if is_set else set()


def _described(content: Any) -> str:
    entries = _entries(content)
    described = [f"{key!r:.40}: {_kind(entry)}" for key, entry in entries.items()]
    if not described:
        return f"a {_kind(content)}"
    return f"a dict of {', '.join(described[:3])}{', ...' if described[3:] else ''}"


def _kind(value: Any) -> str:
    match value:
        case Tensor() | Unreadable():
            return "tensor"
        case Inert(name=name) if name == ORDERED_DICT:
            return "dict"
        case Inert():
            return f"{value.name!s:.80} (which is not unpickled)"
        case Name():
            return f"{value!s:.80} (which is not unpickled)"
    return type(value).__name__


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{name:.80}" for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if names[6:] else shown
