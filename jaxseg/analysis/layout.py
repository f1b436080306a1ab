"""Which axis holds the channels, as far as shapes can tell."""

from collections.abc import Sequence

# factors by which networks shrink images
_STRIDES = tuple(first * 2**power for first in (1, 3) for power in range(12))


def check_channels_last(name: str, features: tuple[int, ...], sizes: Sequence[int], of: str) -> None:
    """Raises a ValueError where features seem to have their channels first.

    That is where the proportions of the image's sides are those of the features' with the channels first and not of
    those with the channels last. A side may be off by one pixel, as odd sides are rounded. Proportions between the
    image's and 1:1 are those of margins (`valid`), of strides that differ by axis, and of images squeezed into
    a square: they count for the channels last, unless with the channels first one stride of a network explains all
    sides. Where both readings fit, or neither, nothing is raised.

    Args:
      name: of the features.
      features: their shape, `(B,*h,C)` as it should be.
      sizes: spatial sizes of what they are compared with.
      of: its name.

    Raises:
      ValueError: they are channels first.
    """
    last, first = features[1:-1], features[2:]
    if _proportional(last, sizes):
        return
    if _strided(first, sizes) or (_between(first, sizes) and not _between(last, sizes)):
        raise ValueError(
            f"{name} {features} must have their channels last, but only {first} has the proportions of {of} "
            f"{tuple(sizes)}; of channels first give jnp.moveaxis({name}, 1, -1); if they are last, resize {name} to "
            f"{tuple(sizes)} before"
        )


def _proportional(sides: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether all sides are those of `sizes` times one number, a pixel more or less."""
    least = max((side - 1) / size for side, size in zip(sides, sizes, strict=True))
    return least <= min((side + 1) / size for side, size in zip(sides, sizes, strict=True))


def _strided(sides: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether all sides are those of `sizes` divided by one stride, rounded, or a whole multiple of them."""
    axes = [*zip(sides, sizes, strict=True)]
    multiple = sides[0] // sizes[0]
    return all(side == multiple * size for side, size in axes) or any(
        all(abs(side * stride - size) < stride for side, size in axes) for stride in _STRIDES
    )


def _between(sides: Sequence[int], sizes: Sequence[int]) -> bool:
    """For every two axes: their sides' ratio lies between 1 and that of the sizes, a pixel more or less."""
    axes = list(zip(sides, sizes, strict=True))
    return all(
        a + 1 >= b - 1 and (a - 1) * short <= (b + 1) * long for a, long in axes for b, short in axes if long >= short
    )
