"""Of what a PyTorch module returns the one tensor that is its answer; PyTorch itself is not needed for that."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxseg.errors import InputError

_PREFERRED = ("out", "logits", "pred_masks", "pred", "masks")  # where a dictionary has several alike


def picked(answer: Any, count: int, sides: tuple[int, ...], widths: Sequence[int], name: str) -> Any:
    """The tensor `[B,width,*h]` among what a module returned: the largest in the image's plane.

    Args:
      answer: a tensor, or dictionaries and sequences of them, as deep.
      count: B.
      sides: n, of the images.
      widths: channels that it may have, the likelier first.
      name: of the module, for messages.

    Raises:
      InputError: there is none, or there are several alike.
    """
    found = dict(_tensors(answer))
    if len(found) == 1 and 1 in widths:  # a mask without an axis of channels
        found = {key: one[:, None] if tuple(one.shape) == (count, *sides) else one for key, one in found.items()}
    maps = {key: one for key, one in found.items() if one.ndim == len(sides) + 2 and len(one) == count}
    for width in widths:
        fit = {key: one for key, one in maps.items() if one.shape[1] == width}
        largest = max((one.numel() for one in fit.values()), default=0)
        whole = {key: one for key, one in fit.items() if one.numel() == largest}
        if len(whole) > 1 and not any(key in whole for key in _PREFERRED):
            raise InputError(
                f"{name} gave {len(whole)} answers alike, {', '.join(whole)}; give a module that returns the one that "
                "counts"
            )
        if whole:
            return next((whole[key] for key in _PREFERRED if key in whole), next(iter(whole.values())))
    shown = ", ".join(f"{key} {tuple(one.shape)}".strip() for key, one in found.items())
    gave = f"{name} gave {shown or f'a {type(answer).__name__}'} for {in_words(sides)} images"
    form = f"[{count},K,{','.join(map(str, sides))}]"
    if any(tuple(one.shape[:-1]) == (count, *sides) and one.shape[-1] in widths for one in found.values()):
        raise InputError(f"{gave}, with the channels last; give a module that returns {form}, the channels first")
    if not maps:
        raise InputError(
            f"{gave}; give a module that returns a tensor {form}, or dictionaries, lists and tuples with one in them"
        )
    raise InputError(
        f"{gave}, and none of {' or '.join(map(str, widths))} channels; give num_classes as it has them, the "
        "background included"
    )


def check_size(given: tuple[int, ...], sides: tuple[int, ...], name: str) -> None:
    """Raises InputError unless an answer has the image's size, or that divided by one whole number.

    Args:
      given: size of the answer.
      sides: n, of the images.
      name: of the module, for messages.
    """
    shrunk = (tuple(-(-side // factor) for side in sides) for factor in range(1, max(sides)))  # one pixel is no map
    if given not in shrunk:
        raise InputError(
            f"{name} gave {in_words(given)} answers for {in_words(sides)} images, neither of their size nor smaller by "
            "a whole factor; give a module that returns the image's size"
        )


def in_words(sides: Sequence[int]) -> str:
    """Sizes as people write them."""
    return " x ".join(map(str, sides))


def _tensors(answer: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of an answer, by where they stand in it, as `out` or `0/logits`."""
    if isinstance(answer, Mapping):
        parts = answer.items()
    elif isinstance(answer, list | tuple):
        parts = dict(enumerate(answer)).items()
    else:
        parts = {}.items()
        if hasattr(answer, "requires_grad"):
            yield key, answer
    for part, value in parts:
        yield from _tensors(value, f"{key}/{part}" if key else str(part))
