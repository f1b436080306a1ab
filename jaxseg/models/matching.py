"""What a network takes, and which tensors of a file match it."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.errors import InputError
from jaxseg.models import state_dicts, tracing
from jaxseg.models.layouts import LAYOUTS, Shapes, Tensor, without_copies

StateDict = Mapping[str, np.ndarray]
_FEW = 3
_PREFIX_PARTS = 16
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The tensors that a network, or a part of one, takes.

    Attributes:
      title: what takes them, in words.
      entries: of its variables.
      shapes: of the variables.
      unused: of variables of skips that are off; their tensors are checked and ignored.
      unused_shapes: of those variables.
      spare: names that are ignored unchecked, such as biases that instance norm subtracts again, and heads that serve
        training alone.
      head: tensors with one entry per class, as in `Layout`.
    """

    title: str
    entries: list[Tensor]
    shapes: Shapes
    unused: list[Tensor]
    unused_shapes: Shapes
    spare: frozenset[str]
    head: Mapping[str, float]

    @property
    def names(self) -> set[str]:
        """Of the tensors."""
        return {name for entry in self.entries for name in entry.sources}

    @property
    def optional(self) -> dict[str, set[str]]:
        """Of those that may be left out, with those of their kind."""
        kinds: dict[str, set[str]] = collections.defaultdict(set)
        for entry in self.entries:
            kinds[entry.kind].update(entry.optional)
        return kinds


def shapes_of(variables: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of variables, by path."""
    return {name: leaf.shape for name, leaf in flax.traverse_util.flatten_dict(variables, sep="/").items()}


def of_network(module: Any, image_shape: tuple[int, ...]) -> Wanted:
    """What `module` takes for images of a shape."""
    shapes = shapes_of(tracing.variable_shapes(module, image_shape))
    all_on = module if module.skips is None else module.clone(skips=None)
    whole = shapes_of(tracing.variable_shapes(all_on, image_shape))
    layout = LAYOUTS[type(module)]
    return of_entries(type(module).__name__, layout.entries(module), shapes, whole, layout.head(module))


def of_entries(title: str, layout: list[Tensor], shapes: Shapes, whole: Shapes, head: Mapping[str, float]) -> Wanted:
    """What the entries of a layout with variables in `shapes` take; `whole` are those with all skips on."""
    entries = [entry for entry in layout if entry.variable in shapes]
    used = {name for entry in entries for name in entry.sources}
    return Wanted(
        title,
        entries,
        shapes,
        unused=[entry for entry in layout if entry.variable not in shapes and entry.variable in whole],
        unused_shapes=whole,
        spare=frozenset(name for entry in layout for name in entry.sources) - used,
        head=head,
    )


def encoder(module: Any, variables: Shapes) -> Wanted:
    """What the encoder of a `resnet_unet` takes from a classifier's tensors."""
    start = "encoder."
    entries = [
        dataclasses.replace(entry, sources=tuple(name.removeprefix(start) for name in entry.sources))
        for entry in LAYOUTS[type(module)].entries(module)
        if all(name.startswith(start) for name in entry.sources)
    ]
    return of_entries(f"the encoder of {type(module).__name__}", entries, variables, variables, {})


@dataclasses.dataclass(frozen=True)
class Match:
    """The tensors of a file compared with those that are wanted.

    Attributes:
      wanted: what is wanted.
      tensors: under the wanted names, and those that are left over.
      left_out: names of those in the file that are not part of the network.
    """

    wanted: Wanted
    tensors: StateDict
    left_out: tuple[str, ...]

    @property
    def foreign(self) -> bool:
        """Whether so many names are missing or left over that the tensors belong to another network."""
        return bool(self.tensors) and 4 * (len(self._missing()) + len(self._left_over())) > len(self.wanted.names)

    @property
    def fitting(self) -> int:
        """How many wanted tensors are present by name and shape."""
        wrong = {name for name, _, _ in self._wrong(self.wanted.entries, self.wanted.shapes)}
        return len((self.wanted.names & self.tensors.keys()) - wrong)

    def problems(self) -> list[str]:
        """What does not fit: the first few of every kind, and how many more."""
        wrong = self._wrong(self.wanted.entries, self.wanted.shapes)
        wrong += self._wrong(self.wanted.unused, self.wanted.unused_shapes)
        return [
            *_few("missing", self._missing(), str),
            *_few("left over", self._left_over(), lambda name: f"{name} {self.tensors[name].shape}"),
            *_few("misshapen", wrong, lambda one: f"{one[0]} {one[1]}, the network takes {one[2]}"),
        ]

    def _missing(self) -> list[str]:
        return sorted(self.wanted.names - self._absent() - self.tensors.keys())

    def _absent(self) -> set[str]:
        """The optional names of the kinds of which the file has none."""
        return {name for names in self.wanted.optional.values() if not names & self.tensors.keys() for name in names}

    def _left_over(self) -> list[str]:
        return sorted(self.tensors.keys() - self.wanted.names - self.wanted.spare)

    def _wrong(self, entries: list[Tensor], shapes: Shapes) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        wrong = []
        for entry in entries:
            accepted = entry.accepted(shapes[entry.variable])
            for name in entry.sources:
                if name in self.tensors and self.tensors[name].shape not in accepted:
                    wrong.append((name, self.tensors[name].shape, accepted[0]))
        return wrong

    def converted(self) -> dict[str, jax.Array]:
        """The variables, float32, of a match without problems."""
        flat = {}
        for entry in self.wanted.entries:
            shape = self.wanted.shapes[entry.variable]
            absent = np.full(entry.shape(shape), entry.absent, np.float32)
            sources = [weight(name, self.tensors[name]) if name in self.tensors else absent for name in entry.sources]
            if entry.variable.endswith("/var") and (least := min(float(array.min()) for array in sources)) < 0:
                raise InputError(f"the tensor {entry.sources[0]!r:.80} holds {least:.6g}, and no variance is negative")
            flat[entry.variable] = jnp.asarray(entry.narrow(entry.convert(*sources), shape))
        return flat


def tensors_of(state_dict: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name; anything else, such as text, settings or a list of integers, is left out.

    Raises:
      InputError: there is a tensor that NumPy cannot read.
    """
    arrays = {name: _array(name, value) for name, value in state_dict.items() if isinstance(name, str)}
    return {name: array for name, array in arrays.items() if array is not None}


def _array(name: str, value: Any) -> np.ndarray | None:
    """An array, or what NumPy converts to one; None for anything else."""
    if isinstance(value, np.ndarray):
        return value
    is_list = isinstance(value, list | tuple)
    if not is_list and not hasattr(value, "__array__"):
        return None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_list:  # from lists of different lengths
            return None
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the tensor {name!r:.80} is a {type(value).__name__} that NumPy cannot read ({reason}); give arrays, such "
            "as tensor.detach().float().cpu().numpy()"
        ) from error
    return None if is_list and array.dtype.kind != "f" else array


def weight(name: str, tensor: Any) -> np.ndarray:
    """A tensor as float32.

    Raises:
      InputError: it holds other than real numbers with a fraction, as quantised ones do, or some that are not finite.
    """
    array = np.asarray(tensor)
    if array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.integer):
        raise InputError(
            f"the tensor {name!r:.80} holds quantised numbers, or none that are weights ({array.dtype}); dequantise "
            "the network before it is saved, or save it as it was before"
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"the tensor {name!r:.80} holds no real numbers ({array.dtype}); store it as float32")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32, copy=False)
    if np.isfinite(single).all():
        return single
    wide = array.astype(np.float64)
    kinds = {"NaN": np.isnan(wide), "infinite": np.isinf(wide)}
    kinds["too large for float32"] = np.isinf(single) & np.isfinite(wide)
    what = " and ".join(f"{np.count_nonzero(where)} that are {kind}" for kind, where in kinds.items() if where.any())
    raise InputError(
        f"of the {array.size} numbers in the tensor {name!r:.80} there are {what}; give finite weights, as from before "
        "the training diverged"
    )


def _few(title: str, items: list[Any], text: Callable[[Any], str]) -> list[str]:
    shown = [f"{title}: {text(item):.300}" for item in items[:_FEW]]
    return [*shown, f"and {len(items) - _FEW} more {title}"] if items[_FEW:] else shown


def match(wanted: Wanted, state_dict: StateDict) -> Match:
    """The wanted part of a state dict, whatever prefix its names have.

    Losses and metrics, such as `criterion.weight`, are left out, and so is everything outside the network where
    its names have a prefix of their own, such as `model.`.

    Raises:
      InputError: the wanted tensors occur several times, under different prefixes.
    """
    given = {name: array for name, array in without_copies(state_dict).items() if not name.endswith(_COUNTER)}
    prefix = _prefix(given, wanted)
    inside = {name.removeprefix(prefix): array for name, array in given.items() if name.startswith(prefix)}
    own = {name.partition(".")[0] for name in wanted.names}
    aside = {name for name in inside if state_dicts.is_aside(name) and name.partition(".")[0] not in own}
    left_out = sorted({name for name in given if not name.startswith(prefix)} | {f"{prefix}{name}" for name in aside})
    tensors = {name: array for name, array in inside.items() if name not in aside}
    return Match(wanted, _two_logits(wanted, tensors), tuple(left_out))


def _prefix(given: Iterable[str], wanted: Wanted) -> str:
    names = wanted.names.difference(*wanted.optional.values())
    counts: collections.Counter[str] = collections.Counter()
    for name in given:
        parts = name.split(".", _PREFIX_PARTS)
        for i in range(len(parts)):
            if ".".join(parts[i:]) in names:
                counts["".join(f"{part}." for part in parts[:i])] += 1
    whole = [prefix for prefix, count in counts.items() if count == len(names)]
    if len(whole) > 1:
        raise state_dicts.several(sorted(whole))
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")


def _two_logits(wanted: Wanted, tensors: StateDict) -> StateDict:
    """The tensors with two logits `[0, z]`, where the network has two classes and they give z alone.

    The softmax of `[0, z]` is the sigmoid of z, with the same gradient.
    """
    head = wanted.head.keys() & tensors.keys()
    accepted = {
        name: entry.accepted(wanted.shapes[entry.variable])[0]
        for entry in wanted.entries
        for name in entry.sources
        if name in head
    }
    one = all(tensors[name].shape[:1] == (1,) and accepted[name][:1] == (2,) for name in head)
    if not head or not one:
        return tensors
    return {**tensors, **{name: _behind(wanted.head[name], tensors[name]) for name in head}}


def _behind(value: float, array: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full_like(array, value), array])
