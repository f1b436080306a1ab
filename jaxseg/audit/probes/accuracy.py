"""Accuracy: how good is the segmentation, where in the image, and in which domain?"""

import dataclasses

import jax
import numpy as np

from jaxseg.audit.probe import Answer, Arrays, Candidate, Figure, Kind, Probe, number
from jaxseg.audit.subject import Seen, Subject, strip_width
from jaxseg.metrics import overlap, regions
from jaxseg.metrics.intervals import defined_mean
from jaxseg.networks import Network
from jaxseg.report import figures
from jaxseg.results.patients import Patients
from jaxseg.results.table import OVER_PATIENTS, Row, Table
from jaxseg.results.text import text_of
from jaxseg.settings import count, share
from jaxseg.settings import number as bounded

ACCURACY, DOMAIN = Kind("accuracy"), Kind("domain")
_DICE = "Dice per case, mean over its foreground classes, a class in neither left out"


@dataclasses.dataclass(frozen=True)
class Settings:
    """See configs/audit.py."""

    border_share: float = bounded(above=0, below=0.25)  # beyond, nothing would be inside
    low_dice: float = share()
    margin: float = share()
    resamples: int = count()


def measure(subject: Subject, settings: Settings) -> Arrays:
    """Dice per case and class `dice` `[N,K-1]`, and of pictures per ring `bands` `[N,R]` with `outer` `[R]`."""
    width = strip_width(subject, settings.border_share)
    rings = subject.rank == 2

    def question(network: Network, seen: Seen) -> dict[str, jax.Array]:
        both, valid = (seen["labels"], subject.predict(network, seen["images"])), seen.get("valid")
        scores = {"dice": overlap.dice(*both, num_classes=subject.test.num_classes, valid=valid)}
        if rings:
            scores["bands"] = regions.band_dice(*both, width=width, valid=valid)[1]
        return scores

    outer = regions.outer_distances(subject.sides, width) if rings else np.zeros(0, np.int32)
    return {"bands": np.zeros((len(subject.test), 0)), "outer": outer} | subject.asks(question)(subject.test)


def tabulate(subject: Subject, settings: Settings, arrays: Arrays) -> Answer:
    """Rows of all cases, per class, ring and domain; low Dice and a gap between domains may be findings."""
    patients, dice = subject.patients(settings.resamples), defined_mean(arrays["dice"])
    overall = number("Dice", patients.mean(dice), _DICE)
    of_classes = zip(subject.test.class_names[1:], arrays["dice"].T, strict=True)
    classes = [number("Dice", patients.mean(v), "Dice per case", where=name) for name, v in of_classes]
    bands = _bands(arrays, patients)
    domains, gaps, gap = _domains(subject, settings, dice)
    alt = "Dots with intervals of the mean Dice of all cases, and of each class and domain where there are several."
    shown = [overall, *(classes if len(classes) > 1 else []), *domains]
    return Answer(
        [overall, *(classes if len(classes) > 1 else []), *bands, *domains, *gaps],
        (_weak(overall, settings, _dots("dice", "Dice of all cases", alt, shown)), *gap),
        [_band_figure(subject, arrays["outer"], Table(tuple(bands)))] if bands else [],
        facts=[("mean Dice", overall.text())],
    )


def _bands(arrays: Arrays, patients: Patients) -> list[Row]:
    convention = "Dice per case of all foreground together inside a square ring; empty rings are undefined"
    return [
        number("Dice by band", patients.mean(v), convention, where=f"ring up to {distance} px from the centre")
        for distance, v in zip(arrays["outer"], arrays["bands"].T, strict=True)
    ]


def _weak(overall: Row, settings: Settings, figure: Figure) -> Candidate:
    dice, wanted = overall.estimate, settings.low_dice
    return Candidate(
        kind=ACCURACY,
        name="accuracy",
        title="The segmentation is poor",
        sentence=f"On {dice.n} test cases the mean Dice is {overall.text()}, wanted at least {wanted:.2f}.",
        quantity="mean Dice",
        estimate=dice,
        margin=wanted,
        high_is_good=True,
        damage=wanted - dice.mean,
        remedy="Train longer, on more cases or with a larger network; what else is found here may be the reason.",
        figure=figure,
    )


def reference_domain(subject: Subject) -> str | None:
    """The domain that others are held against: one it was trained on, else the one with most cases; None of one."""
    names = sorted(set(subject.test.domains))
    if len(names) < 2:
        return None
    trained_on = subject.domains or (() if subject.familiar is None else sorted(set(subject.familiar.domains)))
    known = [name for name in trained_on if name in names]
    return known[0] if known else max(names, key=lambda name: (subject.test.domains.count(name), -names.index(name)))


def _domains(
    subject: Subject, settings: Settings, dice: np.ndarray
) -> tuple[list[Row], list[Row], tuple[Candidate, ...]]:
    """The Dice of every domain, its gap to the reference, and the widest gap."""
    reference = reference_domain(subject)
    if reference is None:
        return [], [], ()
    patients, domains = subject.patients(settings.resamples), np.array(subject.test.domains)
    of = {name: np.where(domains == name, dice, np.nan) for name in sorted(set(subject.test.domains))}
    rows = [number("Dice", patients.mean(v), _DICE, where=f"domain {name}") for name, v in of.items()]
    others = [name for name in of if name != reference]
    level = 1 - 0.05 / len(others)  # the worst is picked among them, so all gaps hold together (Bonferroni)
    gaps = {k: patients.contrast([(1.0, of[reference]), (-1.0, of[k])], level=level) for k in others}
    convention = f"{_DICE}; mean of {reference} minus mean of the domain, the same patients drawn for both"
    several = len(others) > 1
    interval = f"{OVER_PATIENTS} for all {len(others)} gaps together (Bonferroni)" if several else OVER_PATIENTS
    named = lambda name: {"where": f"{reference} minus {name}", "interval": interval}
    mean = {row["where"].removeprefix("domain "): row.text() for row in rows}
    told = [number("Dice lost in the other domain", gap, convention, **named(name)) for name, gap in gaps.items()]
    worst = max(gaps, key=lambda k: np.nan_to_num(gaps[k].mean, nan=-np.inf))
    among = f" (the interval allows for the worst of {len(others)} being picked)" if several else ""
    gap = Candidate(
        kind=DOMAIN,
        name="accuracy",
        title=f"Cases of the domain {worst!r} are segmented worse",
        sentence=(
            f"The mean Dice is {mean[worst]} in the domain {worst!r} and {mean[reference]} in {reference!r}, "
            f"{text_of(gaps[worst])} more{among}. "
            "This compares the cases as they are: those of one domain may be harder."
        ),
        quantity=f"Dice lost in the domain {worst}",
        estimate=gaps[worst],
        margin=settings.margin,
        damage=gaps[worst].mean,
        remedy=f"Add annotated cases of {worst!r} to the training set, or do not use the network there.",
        figure=_dots("domains", "Dice in every domain", "Dots with intervals of the mean Dice of every domain.", rows),
    )
    return rows, told, (gap,)


def _band_figure(subject: Subject, outer: np.ndarray, bands: Table) -> Figure:
    label = f"distance from the centre, towards the border at {subject.shorter // 2} px"
    series = figures.Series("", outer, *bands.numbers)
    return Figure(
        "accuracy",
        "Dice by distance from the centre",
        "Line of Dice against distance from the image's centre.",
        "Mean per case with 95 % bootstrap intervals over patients; square rings counted inwards from the border.",
        lambda path: figures.curves(path, {"": [series]}, xlabel=label, ylabel="Dice"),
    )


def _dots(name: str, title: str, alt: str, rows: list[Row]) -> Figure:
    shown = [(row["where"], "", *row.numbers) for row in rows]
    draw = lambda path: figures.dots(path, shown, xlabel="Dice")
    return Figure(name, title, alt, "Mean per case with 95 % bootstrap intervals over patients.", draw, "accuracy")


PROBE = Probe("accuracy", "How good is the segmentation, and where?", "accuracy", Settings, measure, tabulate)
