"""One sentence on tensors that do not fit: which network they belong to, or which option of this one explains it."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from jaxseg.errors import InputError
from jaxseg.models import matching
from jaxseg.models.layouts import LAYOUTS, Layout, without_copies
from jaxseg.models.matching import Match, StateDict, Wanted
from jaxseg.models.resnet_unet import ENCODERS, ResNetUNet

_NEAREST = 3
_RGB = 3
_MOST_HALVINGS = 8
# parts of names in other libraries' networks
_MAKES = {
    ".encoder.stages.": "nnU-Net",
    ".encoder.stem.": "nnU-Net",
    ".model.0.conv.unit0.": "MONAI's UNet",
    ".model.1.submodule.": "MONAI's UNet",
    ".backbone.layer1.": "a segmentation network of torchvision",
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """A file, read as tensors of some network.

    Attributes:
      layout: of the network.
      module: with the options and the number of classes that the file's shapes imply, one logit counted as two.
      options: names of the options.
      channels: of its images.
      rank: 2, or 3 for volumes.
      match: with that network.
    """

    layout: Layout
    module: Any
    options: tuple[str, ...]
    channels: int
    rank: int
    match: Match

    @property
    def fits(self) -> bool:
        """Whether the file holds this network."""
        return not self.match.problems()


def explained(module: Any, image_shape: tuple[int, ...], state_dict: StateDict, match: Match) -> InputError:
    """The error that a state dict is not what `module` takes.

    Args:
      module: a network with a layout.
      image_shape: of its images, `[B,H,W,C]` or `[B,D,H,W,C]`.
      state_dict: the file's.
      match: of both, with problems.
    """
    readings = [reading for kind in LAYOUTS if (reading := _read_as(kind, module, state_dict))]
    for reading in readings:
        if reading.fits and isinstance(module, type(reading.module)):
            return InputError(_other_options(module, image_shape, reading))
        if reading.fits:
            name, options = reading.layout.name, _text({o: getattr(reading.module, o) for o in reading.options})
            return InputError(
                f"these are the tensors of {name} with {options}, and the network is {LAYOUTS[type(module)].name}; "
                f"set config.model.name={name}"
            )
    return foreign(state_dict) if match.foreign else listed(match)


def listed(match: Match) -> InputError:
    """The error that names the first tensors of those that do not fit."""
    return InputError(f"the PyTorch tensors do not fit {match.wanted.title}: {'; '.join(match.problems())}")


def encoder(module: ResNetUNet, state_dict: StateDict, match: Match) -> InputError:
    """The error that a ResNet is not the encoder of `module`."""
    channels = match.wanted.shapes["params/stem/conv/conv/kernel"][-2]
    for name in ENCODERS:
        other = module.clone(encoder=name)
        if not matching.match(matching.encoder(other, _wanted(other, channels, 2).shapes), state_dict).problems():
            return InputError(
                f"these are the tensors of {name}, and the encoder is {module.encoder}; set config.model.encoder={name}"
            )
    return foreign(state_dict) if match.foreign else listed(match)


def foreign(state_dict: StateDict) -> InputError:
    """The error that names the nearest layouts."""
    nearest = sorted(_known(state_dict), key=lambda one: -one[1].fitting / len(one[1].wanted.names))[:_NEAREST]
    near = ", ".join(f"{name} ({match.fitting} of its {len(match.wanted.names)})" for name, match in nearest)
    names = [*state_dict]
    makes = [make for part, make in _MAKES.items() if any(part in f".{name}" for name in names)]
    whose = f"are named as in {makes[0]}" if makes else "are of another architecture"
    example = f"{names[0]:.80} {state_dict[names[0]].shape}"
    return InputError(
        f"these {len(names)} tensors, such as {example}, {whose}; the nearest known layouts, by tensors of equal "
        f"name and shape, are {near}; give the tensors of one of these networks"
    )


def _known(state_dict: StateDict) -> Iterator[tuple[str, Match]]:
    for name, kind, wanted in _layouts():
        reading = _read_as(kind, None, state_dict) if kind else None
        yield name, reading.match if reading else matching.match(wanted, state_dict)


@functools.cache
def _layouts() -> tuple[tuple[str, type[Any] | None, Wanted], ...]:
    """The known layouts with what their networks take; with the network where its options can be read off a file."""
    known: list[tuple[str, type[Any] | None, Wanted]] = []
    for kind, layout in LAYOUTS.items():
        if kind is not ResNetUNet:
            known.append((layout.name, kind, _wanted(kind(num_classes=2), _RGB, 2)))
            continue
        for encoder in ENCODERS:
            module = kind(num_classes=2, encoder=encoder)
            whole = _wanted(module, _RGB, 2)
            known.append((f"{layout.name} with {encoder}", None, whole))
            part = matching.encoder(module, whole.shapes)
            known.append((f"the encoder {encoder} of {layout.name}", None, part))
    return tuple(known)


def _read_as(kind: type[Any], like: Any, state_dict: StateDict) -> Reading | None:
    """The file as tensors of a `kind` of network, with the options of `like` where its shapes leave a choice."""
    layout, tensors = LAYOUTS[kind], without_copies(state_dict)
    stems = [(name, stem) for name in tensors for stem in layout.stems if f".{name}".endswith(f".{stem}")]
    if not stems:
        return None
    name, stem = min(stems, key=lambda pair: len(pair[0]))
    prefix = name.removesuffix(stem)
    shapes = {name.removeprefix(prefix): array.shape for name, array in tensors.items() if name.startswith(prefix)}
    try:
        options = {name: _chosen(name, values, like, kind) for name, values in layout.options(shapes).items()}
        channels, rank = shapes[stem][1], len(shapes[stem]) - 2
        module = kind(num_classes=2, **options)
        module = module.clone(num_classes=max(2, shapes[next(iter(layout.head(module)))][0]))
        module.check()
    except (LookupError, ValueError):
        return None
    if rank not in (2, 3) or module.halvings > _MOST_HALVINGS:
        return None
    return Reading(
        layout, module, (*options,), channels, rank, matching.match(_wanted(module, channels, rank), state_dict)
    )


def _chosen(name: str, possible: tuple[Any, ...], like: Any, kind: type[Any]) -> Any:
    own = getattr(like, name) if isinstance(like, kind) else None
    return own if own in possible else possible[0]


def _wanted(module: Any, channels: int, rank: int) -> Wanted:
    sides = tuple(2 * unit for unit in module.units(rank))
    return matching.of_network(module, (1, *sides, channels))


def _other_options(module: Any, image_shape: tuple[int, ...], reading: Reading) -> str:
    """How the file's network and `module` differ, and the remedies."""
    names = [*reading.options, "num_classes"]
    theirs = {name: getattr(reading.module, name) for name in names} | {"channels": reading.channels}
    ours = {name: getattr(module, name) for name in names} | {"channels": image_shape[-1]}
    theirs["dimensions"], ours["dimensions"] = reading.rank, len(image_shape) - 2
    other = [name for name in theirs if theirs[name] != ours[name]]
    options = [f"config.model.{_text({name: theirs[name]})}" for name in other if name in reading.options]
    remedies = [f"set {' and '.join(options)}"] if options else []
    remedies += [_other_data(name, theirs[name], ours[name]) for name in other if name not in reading.options]
    return (
        f"these are the tensors of {reading.layout.name} with {_text({name: theirs[name] for name in other})}, and the "
        f"network has {_text({name: ours[name] for name in other})}; {'; '.join(remedies)}"
    )


def _other_data(name: str, theirs: int, ours: int) -> str:
    """The remedy where the file's network differs in what the data set determines."""
    match name, theirs, ours:
        case "num_classes", _, _:
            return f"choose a data set with {theirs} classes, the background counted"
        case "dimensions", _, _:
            return f"choose a data set of {'volumes' if theirs == 3 else 'images in 2-D'}"
        case "channels", 3, 1:
            return (
                "give colour images, or sum the first kernel over the channels, which is exact for gray repeated three "
                "times: np.savez('gray.npz', **weights.for_gray(weight_files.read(FILE))), both of jaxseg.models"
            )
        case "channels", 1, 3:
            return "convert the images to gray before they are prepared"
    return f"choose a data set with {theirs} channels"


def _text(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={str(value).replace(' ', '')}" for name, value in options.items())
