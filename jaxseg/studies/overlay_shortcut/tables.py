"""The overlay-shortcut study's measures as tables, with the paper's numbers beside them."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.data import pipeline
from jaxseg.metrics import overlap
from jaxseg.results.patients import Patients, Terms
from jaxseg.results.table import Row, Table, table
from jaxseg.studies.base import Measures, Report, case_records
from jaxseg.studies.overlay_shortcut import paper, restoration
from jaxseg.studies.overlay_shortcut.clips import CHANGES
from jaxseg.studies.overlay_shortcut.experiment import Measured, restored_counts
from jaxseg.studies.overlay_shortcut.images import NOTHING, RESTORED, Images, ScansOfSplits, planes_of_labels
from jaxseg.studies.overlay_shortcut.settings import NETWORKS, Settings

ALL = "all"  # planes together
DICE = "Dice of the organ per case, mean; a case without the organ is undefined and left out"
_STABLE = (
    "Dice of the predictions on the {} and on the last frame of a clip, mean over clips; pixels agree that have the "
    "same organ; nothing predicted on both is undefined and left out"
)
_SALIENCY = "Grad-CAM for the organ's own class; images on which it is not predicted are undefined and left out"
_DETECTION = {
    "recall": "share of the marks' pixels that were found, mean over images; without marks undefined",
    "removed": "the same with what was found widened by the margin, which is what removal may change",
    "precision": "share of found pixels that are marks, mean over images; where nothing was found undefined; the "
    "machine's own legend counts as no mark",
}
_METRICS = {"mae": "mean absolute error in gray levels", "psnr": "peak signal-to-noise ratio in dB, of the peak 255"}
_REGIONS = {"marks": "over what the marks cover", "image": "over the whole image"}
# Networks and quantities of rows.
MORE_STABLE = "mitigation minus baseline"
WITH_LAST, WITH_LABEL = "Dice with the last frame", "Dice with the annotation"
SHARE, COVER, ENRICHMENT = "share of saliency on marks", "share of image under marks", "enrichment"
EXCESS = "enrichment, with marks minus without"
LOSS = "minus Dice on clean images"
AGAINST_NETWORK = "minus Dice on images restored by network"


@dataclasses.dataclass(frozen=True)
class Tables:
    """All numbers of the study."""

    dice: Table
    drops: Table
    stability: Table
    clip_frames: Table
    saliency: Table
    changes: Table
    detection: Table
    reconstruction: Table
    downstream: Table
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


StudyReport = Report[Settings, ScansOfSplits, Measured, Tables]


def tabulate(settings: Settings, scans: ScansOfSplits, measured: Measured) -> Tables:
    """All numbers of the study."""
    test, resamples = scans["test"].annotated, settings.evaluation.resamples
    images, clips, networks = measured.images, measured.clips, measured.networks
    of_planes = lambda patients, labels: _Cases(Patients(np.array(patients), resamples), _planes(test, labels))
    cases, of_clips = of_planes(test.patients, test.labels), of_planes(clips.patients, clips.labels)
    by_network = lambda rows, *of: table(row for name, m in networks.items() for row in rows(*of, name, m))
    return Tables(
        dice=by_network(_dice_rows, cases, images),
        drops=by_network(_drop_rows, cases, images),
        stability=table(_stability_rows(of_clips, measured.agreement)),
        clip_frames=by_network(_frame_rows, of_clips, measured.agreement),
        saliency=by_network(_saliency_rows, cases, images),
        changes=by_network(_change_rows, of_clips, tuple(clips.changed)),
        detection=table(_detection_rows(cases, measured.removal)),
        reconstruction=table(_reconstruction_rows(cases, measured.removal)),
        downstream=by_network(_downstream_rows, cases, images),
        training=[_training_record(name, m, settings.run.training.selection) for name, m in networks.items()],
        cases=_case_records(test, cases, measured),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Cases:
    """Over which means are taken: whose cases they are, and plane -> which they are, all of them last."""

    patients: Patients
    planes: Mapping[str, np.ndarray]

    def row(
        self, of: np.ndarray | Terms, convention: str, /, *, more: Mapping[str, Any] | None = None, **keys: Any
    ) -> Row:
        """A mean, or a contrast, over the cases of the plane that is among the keys, or over all of them."""
        where = self.planes[keys.get("plane", ALL)]
        terms = [(1.0, of)] if isinstance(of, np.ndarray) else of
        chosen = [(weight, np.asarray(values, float)[where]) for weight, values in terms]
        return self.patients.of(where).row(chosen, convention, more=more, **keys)

    def spread(self, values: np.ndarray, plane: str) -> float:
        """Standard deviation over the defined cases of a plane."""
        defined = values[self.planes[plane]]
        defined = defined[~np.isnan(defined)]
        return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def _planes(test: pipeline.InMemory, labels: np.ndarray) -> dict[str, np.ndarray]:
    planes, names = planes_of_labels(labels), test.class_names
    there = np.unique(planes[planes > 0]) if len(names) > 2 else (1,)
    return {names[k]: planes == k for k in there} | {ALL: np.ones(len(planes), bool)}


def _dice_of(measures: Measures, images: str) -> np.ndarray:
    return overlap.labelled_dice(measures[f"{images}_counts"])


def _dice_rows(cases: _Cases, images: Images, network: str, measures: Measures) -> Iterator[Row]:
    for plane, kind in itertools.product(cases.planes, images.kinds):
        values = _dice_of(measures, kind)
        more = {"sd": cases.spread(values, plane)} | paper.dice(network, kind, plane)
        yield cases.row(values, DICE, more=more, network=network, plane=plane, tested_on=kind)


def _drop_rows(cases: _Cases, images: Images, network: str, measures: Measures) -> Iterator[Row]:
    for plane, kind in itertools.product(cases.planes, images.kinds[1:]):
        terms = [(1.0, _dice_of(measures, "annotated")), (-1.0, _dice_of(measures, kind))]
        convention, more = f"{DICE}; annotated minus {kind}", paper.drop(network, kind, plane)
        yield cases.row(terms, convention, more=more, network=network, plane=plane, drop_to=kind)


def _stability_rows(cases: _Cases, agreement: Measures) -> Iterator[Row]:
    values = {name: by_frame[:, 0] for name, by_frame in agreement.items()}
    convention = _STABLE.format("first")
    for plane in cases.planes:
        for name, of_network in values.items():
            more = {"sd": cases.spread(of_network, plane)} | paper.stability(name, plane)
            yield cases.row(of_network, convention, more=more, network=name, plane=plane)
        gain = [(1.0, values["mitigation"]), (-1.0, values["baseline"])]
        more = {"sd": math.nan} | paper.gain_of_stability(plane)
        yield cases.row(gain, convention, more=more, network=MORE_STABLE, plane=plane)


def _frame_rows(cases: _Cases, agreement: Measures, network: str, measures: Measures) -> Iterator[Row]:
    with_last = (WITH_LAST, agreement[network], _STABLE.format("given"))
    quantities = (with_last, (WITH_LABEL, _dice_of(measures, "clip"), DICE))
    for plane, (quantity, values, convention) in itertools.product(cases.planes, quantities):
        for frame, of_frame in enumerate(values.T):
            yield cases.row(of_frame, convention, network=network, plane=plane, quantity=quantity, frame=frame)


def _saliency_rows(cases: _Cases, images: Images, network: str, measures: Measures) -> Iterator[Row]:
    cover, unmarked = measures["cover"].astype(float), images.unmarked
    shares = {kind: measures[f"share_{kind}"].astype(float) for kind in ("annotated", unmarked)}
    ratio = {kind: share / np.where(cover > 0, cover, np.nan) for kind, share in shares.items()}
    convention = f"{_SALIENCY}; enrichment: share over share per case, mean"
    for kind, share in shares.items():
        for quantity, values in ((SHARE, share), (COVER, cover), (ENRICHMENT, ratio[kind])):
            yield cases.row(values, convention, network=network, tested_on=kind, quantity=quantity)
    terms, places = [(1.0, ratio["annotated"]), (-1.0, ratio[unmarked])], f"{_SALIENCY}; at the same places"
    yield cases.row(terms, places, network=network, tested_on=f"annotated, {unmarked}", quantity=EXCESS)


def _change_rows(cases: _Cases, changes: Sequence[str], network: str, measures: Measures) -> Iterator[Row]:
    quantities = {
        "Dice": (overlap.labelled_dice, DICE),
        "area": (overlap.area_ratio, "predicted area, of any organ, over annotated area, mean over cases"),
        "misnamed": (
            overlap.absent_class_share,
            "share of the predicted area with an organ that is not there, mean over cases",
        ),
    }
    for change, (quantity, (of_counts, convention)) in itertools.product(changes, quantities.items()):
        values, usual = (of_counts(measures[f"{name}_counts"]) for name in (change, CHANGES[0]))
        row = functools.partial(cases.row, network=network, marks=change)
        yield row(values, convention, quantity=quantity)
        if change != CHANGES[0]:
            minus = f"{quantity}, minus that with {CHANGES[0]}"
            yield row([(1.0, values), (-1.0, usual)], convention, quantity=minus)


def _detection_rows(cases: _Cases, removal: Measures) -> Iterator[Row]:
    for quantity, convention in _DETECTION.items() if removal else ():
        yield cases.row(removal[quantity], convention, quantity=quantity)


def _reconstruction_rows(cases: _Cases, removal: Measures) -> Iterator[Row]:
    for (method, mask), region, metric in itertools.product(RESTORED if removal else (), _REGIONS, _METRICS):
        values = removal[restoration.error_name(method, mask, region, metric)]
        convention = f"{_METRICS[metric]}, {_REGIONS[region]}, mean over images"
        yield cases.row(values, convention, method=method, mask=mask, region=region, metric=metric)


def _downstream_rows(cases: _Cases, images: Images, network: str, measures: Measures) -> Iterator[Row]:
    of = lambda method, mask: overlap.labelled_dice(measures[restored_counts(method, mask)])
    for method, mask in RESTORED if images.clean_known else ():
        values = of(method, mask)
        quantities: dict[str, Terms] = {"Dice": [(1.0, values)]}
        quantities[LOSS] = [(1.0, values), (-1.0, _dice_of(measures, "clean"))]
        if method not in (NOTHING, "network"):
            quantities[AGAINST_NETWORK] = [(1.0, values), (-1.0, of("network", mask))]
        for quantity, terms in quantities.items():
            yield cases.row(terms, DICE, network=network, method=method, mask=mask, quantity=quantity)


def _training_record(network: str, measures: Measures, selection: str) -> dict[str, Any]:
    best = {"best_step": int(measures["step"]), "validation_dice": float(measures[f"validation_{selection}"])}
    convention = f"{selection} of the validation set, on images like those trained on"
    return {"network": network, "trained_on": NETWORKS[network], **best, "convention": convention}


def _case_records(test: pipeline.InMemory, cases: _Cases, measured: Measured) -> list[dict[str, Any]]:
    networks, kinds = measured.networks.items(), measured.images.kinds
    columns = {f"{name} on {kind}": _dice_of(m, kind) for name, m in networks for kind in kinds}
    columns |= {f"{name}, saliency on marks": m["share_annotated"] for name, m in networks}
    columns |= {"image under marks": measured.networks["baseline"]["cover"]} | dict(measured.removal)
    planes = {i: plane for plane, where in cases.planes.items() if plane != ALL for i in np.flatnonzero(where).tolist()}
    return case_records(test, {"plane": [planes.get(i, "") for i in range(len(test))], **columns})
