"""Accuracy: how good is the segmentation, where in the image, in which domain; and do its probabilities say so?"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg.audit.answers import (
    BOOTSTRAP,
    Answer,
    Arrays,
    Candidate,
    Probe,
    Row,
    amount,
    contrast,
    mean_of,
    plain_row,
    row,
)
from jaxseg.audit.probes.translation import strip_width
from jaxseg.audit.subject import Seen, Subject
from jaxseg.metrics import calibration, overlap, regions
from jaxseg.metrics.intervals import Estimate
from jaxseg.metrics.ranking import bootstrap

ACCURACY, CALIBRATION = "accuracy", "calibration"
_DICE = "Dice per case, mean over its foreground classes, a class in neither left out"


def measure(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """Dice per case and class `dice` `[N,K-1]`, and of pictures per ring `bands` `[N,R]` with `outer` `[R]`."""
    width = strip_width(subject, settings)
    rings = subject.rank == 2

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        predictions = subject.predict(variables, seen["images"])
        scores = {"dice": overlap.dice(seen["labels"], predictions, num_classes=subject.test.num_classes)}
        if rings:
            scores["bands"] = regions.band_dice(seen["labels"], predictions, width=width)[1]
        return scores

    found = subject.asks(question)(subject.test)
    outer = regions.outer_distances((subject.image_size,) * 2, width) if rings else np.zeros(0, np.int32)
    return {"bands": np.zeros((len(subject.test), 0)), "outer": outer} | found


def per_case(dice: np.ndarray) -> np.ndarray:
    """Mean over the defined classes of `[N,K-1]`, NaN where none is."""
    defined = ~np.isnan(dice)
    count = defined.sum(1)
    return np.where(count > 0, np.where(defined, dice, 0.0).sum(1) / np.maximum(count, 1), np.nan)


def tabulate(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """Rows of all cases, per class, ring and domain; low Dice and a gap between domains may be findings."""
    dice = per_case(arrays["dice"])
    overall = mean_of(dice, subject, settings)
    rows = [row(ACCURACY, "Dice", overall, _DICE)]
    if arrays["dice"].shape[1] > 1:
        for name, values in zip(subject.test.class_names[1:], arrays["dice"].T, strict=True):
            rows.append(row(ACCURACY, "Dice", mean_of(values, subject, settings), "Dice per case", where=name))
    for distance, values in zip(arrays["outer"], arrays["bands"].T, strict=True):
        where = f"ring up to {distance} px from the centre"
        convention = "Dice per case of all foreground together inside a square ring; empty rings are undefined"
        rows.append(row(ACCURACY, "Dice by band", mean_of(values, subject, settings), convention, where=where))
    domains, gap = _domains(subject, settings, dice)
    low = Estimate(
        settings.low_dice - overall.mean,
        settings.low_dice - overall.high,
        settings.low_dice - overall.low,
        overall.n,
        overall.undefined,
        overall.patients,
    )
    weak = Candidate(
        kind="accuracy",
        probe=ACCURACY,
        title="The segmentation is poor",
        sentence=f"On {overall.n} test cases the mean Dice is {amount(overall)}, below {settings.low_dice:.2f}.",
        quantity=f"Dice short of {settings.low_dice:.2f}",
        estimate=low,
        margin=0.0,
        damage=low.mean,
        remedy="Train longer, on more cases or with a larger network; what else is found here may be the reason.",
    )
    return Answer([*rows, *domains], (weak, *gap))


def reference_domain(subject: Subject) -> str | None:
    """The domain that others are held against: one it was trained on, else the one with most cases; None of one."""
    names = sorted(set(subject.test.domains))
    if len(names) < 2:
        return None
    known = [name for name in subject.domains if name in names]
    return known[0] if known else max(names, key=lambda name: (subject.test.domains.count(name), -names.index(name)))


def _domains(
    subject: Subject, settings: ml_collections.ConfigDict, dice: np.ndarray
) -> tuple[list[Row], tuple[Candidate, ...]]:
    reference = reference_domain(subject)
    if reference is None:
        return [], ()
    domains = np.array(subject.test.domains)
    of = {name: np.where(domains == name, dice, np.nan) for name in sorted(set(subject.test.domains))}
    rows = [row(ACCURACY, "Dice", mean_of(v, subject, settings), _DICE, where=f"domain {k}") for k, v in of.items()]
    others = [name for name in of if name != reference]
    level = 1 - 0.05 / len(others)  # the worst is picked among them, so all gaps hold together (Bonferroni)
    gaps = {k: contrast([(1.0, of[reference]), (-1.0, of[k])], subject, settings, level=level) for k in others}
    convention = f"{_DICE}; mean of {reference} minus mean of the domain, the same patients drawn for both"
    interval = BOOTSTRAP if len(others) == 1 else f"{BOOTSTRAP} for all {len(others)} gaps together (Bonferroni)"
    rows += [
        row(ACCURACY, "gap between domains", gap, convention, where=f"{reference} minus {name}")
        | {"interval": interval}
        for name, gap in gaps.items()
    ]
    worst = max(gaps, key=lambda k: np.nan_to_num(gaps[k].mean, nan=-np.inf))
    among = "" if len(others) == 1 else f" (the interval allows for the worst of {len(others)} being picked)"
    gap = Candidate(
        kind="domain",
        probe=ACCURACY,
        title=f"Cases of the domain {worst!r} are segmented worse",
        sentence=(
            f"The mean Dice in the domain {worst!r} is {amount(gaps[worst])} below that in {reference!r}{among}. "
            "This compares the cases as they are: those of one domain may be harder."
        ),
        quantity="gap between domains",
        estimate=gaps[worst],
        margin=settings.margin,
        damage=gaps[worst].mean,
        remedy=f"Add annotated cases of {worst!r} to the training set, or do not use the network there.",
    )
    return rows, (gap,)


def measure_calibration(subject: Subject, settings: ml_collections.ConfigDict) -> Arrays:
    """Per case and bin of confidence: pixels, their confidence, how many are right, `sums` `[N,bins,3]`; `brier`."""

    def question(variables: Any, seen: Seen) -> dict[str, jax.Array]:
        probabilities = jax.nn.softmax(subject.logits(variables, seen["images"]).astype(jnp.float32))
        return {
            "sums": calibration.calibration_sums(probabilities, seen["labels"], bins=settings.bins),
            "brier": calibration.brier(probabilities, seen["labels"]),
        }

    return subject.asks(question)(subject.test)


def tabulate_calibration(subject: Subject, settings: ml_collections.ConfigDict, arrays: Arrays) -> Answer:
    """The calibration error of the whole set, and whether confidence is too high."""
    sums = arrays["sums"].astype(float)

    def error(case: np.ndarray, over: bool = False) -> float:
        pixels, confidence, right = np.moveaxis(sums[case.astype(int)].sum(0), -1, 0)
        return float(
            (confidence - right).sum() / pixels.sum() if over else abs(confidence - right).sum() / pixels.sum()
        )

    cases = {"case": np.arange(len(sums))}
    options = {"resamples": min(settings.resamples, 1000)}
    ece = bootstrap(error, cases, subject.patients, **options)
    excess = bootstrap(lambda case: error(case, True), cases, subject.patients, **options)
    convention = f"over all pixels of the set, {settings.bins} bins of confidence in the most likely class"
    rows = [
        row(CALIBRATION, "expected calibration error", ece, convention),
        row(CALIBRATION, "confidence minus accuracy", excess, convention),
        row(CALIBRATION, "Brier score", mean_of(arrays["brier"], subject, settings), "mean over pixels and cases"),
    ]
    rows += _bins(sums, settings)
    direction = "surer than it is right" if excess.mean > 0 else "right more often than it is sure"
    candidate = Candidate(
        kind="calibration",
        probe=CALIBRATION,
        title="The probabilities do not say how often the network is right",
        sentence=(
            f"Over all pixels, confidence and the share of right pixels differ by {amount(ece)} (expected calibration "
            f"error); the network is {direction}."
        ),
        quantity="expected calibration error",
        estimate=ece,
        margin=settings.calibration_margin,
        damage=float("nan"),
        remedy="Fit a temperature on validation cases before anybody reads the probabilities, or read the masks alone.",
    )
    return Answer(rows, (candidate,))


def _bins(sums: np.ndarray, settings: ml_collections.ConfigDict) -> list[Row]:
    """The points of the reliability curve."""
    rows = []
    for i, (pixels, confidence, right) in enumerate(sums.sum(0)):
        if pixels:
            where = (
                f"confidence {i / settings.bins:.3f} to {(i + 1) / settings.bins:.3f}, mean {confidence / pixels:.3f}"
            )
            convention = "of all pixels with that confidence, whose number is n"
            rows.append(
                plain_row(CALIBRATION, "share of right pixels", right / pixels, convention, where=where, n=int(pixels))
            )
    return rows


PROBE = Probe(ACCURACY, "How good is the segmentation, and where?", measure, tabulate)
CALIBRATION_PROBE = Probe(
    CALIBRATION, "Do the probabilities say how often it is right?", measure_calibration, tabulate_calibration
)
