"""Which axis holds the channels, as far as shapes can tell."""

from collections.abc import Sequence


def check_channels_last(name: str, features: tuple[int, ...], sizes: Sequence[int], of: str) -> None:
    """Raises a ValueError where features cannot have their channels last, and would fit with the channels first.

    What fits: sides in the proportion of the image's, or between that and 1:1, which is what margins (`valid`) and
    strides that differ by axis make of them; a side may be off by one pixel, as odd sides are rounded. Where both
    readings fit, or neither, nothing is said.

    Args:
      name: of the features.
      features: their shape, `(B,*h,C)` as it should be.
      sizes: spatial sizes of what they are compared with.
      of: what that is.

    Raises:
      ValueError: they are channels first.
    """
    if _fits(features[1:-1], sizes) or not _fits(features[2:], sizes):
        return
    raise ValueError(
        f"{name} {features} are to have their channels last, but only {features[2:]} has the proportions of {of} "
        f"{tuple(sizes)}; of channels first give jnp.moveaxis({name}, 1, -1)"
    )


def _fits(sides: Sequence[int], sizes: Sequence[int]) -> bool:
    """For every two axes: their sides' ratio lies between 1 and that of the sizes, a pixel more or less."""
    axes = list(zip(sides, sizes, strict=True))
    return all(
        a + 1 >= b - 1 and (a - 1) * short <= (b + 1) * long for a, long in axes for b, short in axes if long >= short
    )
