"""Padding swap: is it the padded zeros by which the network knows the border? (Lin, Weng et al. 2024, section 4.)"""

import jax
import jax.numpy as jnp

from jaxseg.audit import border_windows, pictures
from jaxseg.audit.probe import BORDER, Answer, Arrays, Candidate, NotAskedError, Probe, number
from jaxseg.audit.subject import Seen, Subject, strip_width
from jaxseg.metrics import regional
from jaxseg.networks import Network
from jaxseg.results.text import text_of

_SWAPPED = "reflect"


def measure(subject: Subject, settings: border_windows.Settings) -> Arrays:
    """The network with its own zeros around every feature map, and with mirrored features in their place.

    Returns:
      `strip` `[2,N]`: Dice near the border of windows that cut an object (`border_windows`), own padding and swapped;
      `changed` `[2,N]`: share of the pixels of whole images whose class the swap changes, near the border and inside;
      and a few cases as of `pictures.Pairs.arrays`.
    """
    own = subject.network.padding
    if own != "zero":
        told = f"pads with {own!r}" if own else "does not say how it pads"
        raise NotAskedError(f"the network {told}; there are no zeros to take away")
    _swapped(subject.network)

    def at_border(network: Network, seen: Seen, made: border_windows.Cut) -> border_windows.Told:
        twice = lambda array: jnp.stack([array, array])
        (inside, at_border), labels = made.images, twice(made.labels[1])
        classes = jnp.stack([subject.predict(one, at_border) for one in (network, _swapped(network))])
        known = made.recalled(subject.predict(network, inside))
        sums = regional.region_sums(labels, classes, twice(made.near))
        of_cases = jnp.sum(sums, range(2, sums.ndim - 1))  # over the slices of a volume
        own, swapped = jnp.sum(made.near[None] & (classes > 0) & (labels > 0), range(2, labels.ndim))
        counts = {"strip": jnp.moveaxis(of_cases, 1, 0), border_windows.EFFECT: swapped - own}
        return counts | known, (twice(at_border), labels, classes)

    asked = border_windows.ask(subject, at_border, settings)
    near = jnp.asarray(border_windows.near_border(asked.windows))[None]

    def of_whole(network: Network, seen: Seen) -> dict[str, jax.Array]:
        own, swapped = (subject.predict(one, seen["images"]) for one in (network, _swapped(network)))
        share = lambda place: _share(own != swapped, place if "valid" not in seen else place & seen["valid"])
        return {"changed": jnp.stack([share(near), share(~near)], 1)}

    changed = subject.asks(of_whole, batch_size=max(subject.batch_size // 2, 1))(subject.test)["changed"].T
    strip = regional.dice_from_region_sums(asked.counts["strip"]).T
    shown = asked.show(pictures.largest(strip[1] - strip[0], settings.examples)).arrays()
    return {"strip": strip, "changed": changed} | shown


def _swapped(network: Network) -> Network:
    """The same weights under another padding."""
    other = network.repadded(_SWAPPED)
    if other is None:
        raise NotAskedError("the network's padding cannot be changed from outside")
    return other


def _share(changed: jax.Array, place: jax.Array) -> jax.Array:
    """Of the pixels of a place, bool `[1,*n]` or of every image, `[B]`."""
    axes = range(1, place.ndim)
    pixels = jnp.sum(place) if len(place) == 1 else jnp.sum(place, axes)
    return jnp.sum(changed & place, axes) / pixels


def tabulate(subject: Subject, settings: border_windows.Settings, arrays: Arrays) -> Answer:
    """What the swap gives back near the border, and what it changes elsewhere."""
    patients, width = subject.patients(settings.resamples), strip_width(subject, settings.border_share)
    where = f"windows whose border cuts an object, pixels within {width} of {subject.shorter} px of it"
    layers = subject.network.padding_seen or "every layer"
    convention = f"{regional.WHAT}; padding swapped from zero to {_SWAPPED} in {layers} of the trained network"
    own, swapped = arrays["strip"]
    gained = patients.difference(swapped, own)
    told = {"Dice, zero padding": patients.mean(own), f"Dice, {_SWAPPED} padding": patients.mean(swapped)}
    told["given back by the swap"] = gained
    rows = [number(what, estimate, convention, where=where) for what, estimate in told.items()]
    share = "share of the pixels of whole test images whose class the swap changes"
    for values, place in zip(arrays["changed"], (f"within {width} px of the border", "inside"), strict=True):
        rows.append(number("changed by the swap", patients.mean(values), share, where=place))
    candidate = Candidate(
        kind=BORDER,
        name="padding",
        title="The zeros around feature maps tell the network where the border is",
        sentence=(
            f"With mirrored features in place of the padded zeros, the same trained network is better by "
            f"{text_of(gained)} of Dice within {width} px of the border on objects that lie there: the zeros are a cue "
            "that it uses. (Elsewhere a swap may cost it Dice: it shows where the cue comes from, and is no remedy.)"
        ),
        quantity="Dice gained near the border by swapping the padding",
        estimate=gained,
        margin=settings.margin,
        damage=gained.mean,
        remedy=(
            "Train again with padding that does not mark the border (config.model.padding=reflect or valid; "
            "padding_mode='reflect' of PyTorch's convolutions), on views in which objects touch it "
            "(config.data.view=quadrant)."
        ),
        figure=pictures.figure("padding", pictures.of_arrays(arrays), subject, "zero padding", "mirrored features"),
    )
    return Answer(rows, (candidate,))


PROBE = Probe(
    "padding",
    "Is it the padding by which the network knows the border?",
    "shortcuts",
    border_windows.Settings,
    measure,
    tabulate,
)
