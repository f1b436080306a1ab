"""Numbers of the overlay study as tables, with the paper's beside them, and its verdict."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.data import overlays, pipeline
from jaxseg.metrics.intervals import Estimate, bootstrap_contrast
from jaxseg.results.claims import Verdict
from jaxseg.studies.overlay_shortcut.experiment import NETWORKS, Measures
from jaxseg.studies.overlay_shortcut.images import MASKS, NOTHING, Clips, Images, planes_of_labels

ALL = "all"
# Facts of the paper: mean and standard deviation over images of the Dice, in percent.
PAPER_DICE = {
    "annotated": {"head": (76.97, 5.10), "abdomen": (82.06, 6.60), "femur": (93.82, 1.79), "cervix": (76.29, 4.05)},
    "cleaned": {"head": (70.85, 8.24), "abdomen": (78.85, 7.72), "femur": (91.84, 4.87), "cervix": (71.81, 4.86)},
}
PAPER_STABILITY = {
    "baseline": {"head": (89.07, 14.9), "abdomen": (94.75, 12.6), "femur": (91.51, 19.6), "cervix": (82.42, 10.1)},
    "mitigation": {"head": (98.39, 1.3), "abdomen": (98.53, 1.9), "femur": (95.38, 8.9), "cervix": (97.00, 1.2)},
}


def organ_dice(counts: np.ndarray) -> np.ndarray:
    """Dice of the organs in the label, mean over them; NaN where there is none. Counts `[...,K,3]` -> `[...]`."""
    both, labelled, predicted = np.moveaxis(np.asarray(counts, float)[..., 1:, :], -1, 0)
    dice = np.where(labelled > 0, 2 * both / np.maximum(labelled + predicted, 1), 0)
    there = (labelled > 0).sum(-1)
    return np.where(there > 0, dice.sum(-1) / np.maximum(there, 1), np.nan)


def area_ratio(counts: np.ndarray) -> np.ndarray:
    """Predicted foreground, of any class, over labelled foreground; NaN where there is no label. `[...,K,3]`."""
    labelled, predicted = (np.asarray(counts, float)[..., 1:, i].sum(-1) for i in (1, 2))
    return np.where(labelled > 0, predicted / np.maximum(labelled, 1), np.nan)


def misnamed(counts: np.ndarray) -> np.ndarray:
    """Share of the predicted foreground that has a class which the label does not have; NaN without a prediction."""
    labelled, predicted = (np.asarray(counts, float)[..., 1:, i] for i in (1, 2))
    total = predicted.sum(-1)
    return np.where(total > 0, np.where(labelled > 0, 0, predicted).sum(-1) / np.maximum(total, 1), np.nan)


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dice of two predictions: pixels agree that both give to one and the same organ; NaN where neither has any.

    Args:
      a: class numbers `[...,n,n]`.
      b: such that the shapes broadcast.
    """
    both = ((a == b) & (a > 0)).sum((-2, -1))
    total = (a > 0).sum((-2, -1)) + (b > 0).sum((-2, -1))
    return np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)


@dataclasses.dataclass(frozen=True)
class Tables:
    """Rows of every table; each row says its convention, n, undefined and interval."""

    dice: list[dict[str, Any]]
    drops: list[dict[str, Any]]
    stability: list[dict[str, Any]]
    clip_frames: list[dict[str, Any]]
    saliency: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    detection: list[dict[str, Any]]
    reconstruction: list[dict[str, Any]]
    downstream: list[dict[str, Any]]
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


DICE = "Dice of the organ per case, mean; a case without the organ is undefined and left out"
STABLE = (
    "Dice of the predictions on the first and on the last frame of a clip, mean over clips; pixels agree that have the "
    "same organ; nothing predicted on both is undefined and left out"
)
_INTERVAL = "bootstrap over patients, 95 %"
_PAIRED = f"{_INTERVAL}, paired"
LOSS = "minus Dice on clean images"
AGAINST_NETWORK = "minus Dice on images restored by network"
SHARE, COVER, ENRICHMENT = "share of saliency on marks", "share of image under marks", "enrichment"
EXCESS = "enrichment, with marks minus without"


def tabulate(
    config: ml_collections.ConfigDict,
    images: Images,
    clips: Clips,
    measured: Mapping[str, Measures],
    removal: Measures,
) -> Tables:
    """All numbers of the study as rows."""
    test = images.scans["test"].annotated
    patients, names = np.array(test.patients), test.class_names
    context = _Context(config.evaluation.resamples, patients, _planes(test.labels, names))
    of_clips = _Context(config.evaluation.resamples, clips.patients, _planes(clips.labels, names))
    return Tables(
        dice=[row for name, m in measured.items() for row in _dice_rows(context, images, name, m)],
        drops=[row for name, m in measured.items() for row in _drop_rows(context, images, name, m)],
        stability=_stability_rows(of_clips, measured),
        clip_frames=[row for name, m in measured.items() for row in _frame_rows(of_clips, name, m)],
        saliency=[row for name, m in measured.items() for row in _saliency_rows(context, images, name, m)],
        changes=[row for name, m in measured.items() for row in _change_rows(of_clips, clips, name, m)],
        detection=_detection_rows(context, removal),
        reconstruction=_reconstruction_rows(context, removal),
        downstream=[row for name, m in measured.items() for row in _downstream_rows(context, images, name, m)],
        training=[
            {
                "network": name,
                "trained_on": NETWORKS[name],
                "best_step": int(m["step"]),
                "validation_dice": float(m[f"validation_{config.training.selection}"]),
                "convention": f"{config.training.selection} of the validation set, on images like those trained on",
            }
            for name, m in measured.items()
        ],
        cases=_case_rows(test, context, images, measured, removal),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Context:
    """Over what means are taken."""

    resamples: int
    patients: np.ndarray
    planes: Mapping[str, np.ndarray]  # name -> which cases, the whole set last

    def row(
        self, who: Mapping[str, Any], terms: Sequence[tuple[float, np.ndarray]], convention: str, plane: str = ALL
    ) -> dict[str, Any]:
        """A weighted sum of means over the cases of a plane."""
        where = self.planes[plane]
        chosen = [(weight, np.asarray(values, float)[where]) for weight, values in terms]
        estimate: Estimate = bootstrap_contrast(chosen, self.patients[where], resamples=self.resamples)
        interval = _PAIRED if len(terms) > 1 else _INTERVAL
        return dict(who) | dataclasses.asdict(estimate) | {"interval": interval, "convention": convention}

    def spread(self, values: np.ndarray, plane: str) -> float:
        """Standard deviation over the defined cases of a plane."""
        defined = values[self.planes[plane]]
        defined = defined[~np.isnan(defined)]
        return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def _planes(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    numbers = planes_of_labels(labels)
    there = {class_names[k]: numbers == k for k in np.unique(numbers[numbers > 0])}
    return (there if len(class_names) > 2 else {class_names[1]: numbers == 1}) | {ALL: np.ones(len(numbers), bool)}


def _paper(numbers: Mapping[str, tuple[float, float]], plane: str) -> dict[str, float]:
    mean, spread = numbers.get(plane, (math.nan, math.nan))
    return {"paper_mean": mean / 100, "paper_sd": spread / 100}


def _dice_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    for plane in context.planes:
        for kind in images.kinds:
            values = organ_dice(measures[f"{kind}_counts"])
            who = {"network": network, "plane": plane, "tested_on": kind}
            facts = PAPER_DICE.get(kind, {}) if network == "baseline" else {}
            row = context.row(who, [(1.0, values)], DICE, plane)
            yield row | {"sd": context.spread(values, plane)} | _paper(facts, plane)


def _drop_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    annotated = organ_dice(measures["annotated_counts"])
    for plane in context.planes:
        for kind in images.kinds[1:]:
            terms = [(1.0, annotated), (-1.0, organ_dice(measures[f"{kind}_counts"]))]
            who = {"network": network, "plane": plane, "drop_to": kind}
            fact = math.nan
            if network == "baseline" and kind == "cleaned" and plane in PAPER_DICE["annotated"]:
                fact = (PAPER_DICE["annotated"][plane][0] - PAPER_DICE["cleaned"][plane][0]) / 100
            yield context.row(who, terms, f"{DICE}; annotated minus {kind}", plane) | {"paper_mean": fact}


def _stability_rows(context: _Context, measured: Mapping[str, Measures]) -> list[dict[str, Any]]:
    values = {
        name: agreement(m["clip_predictions"][:, 0], m["clip_predictions"][:, -1]) for name, m in measured.items()
    }
    rows = []
    for plane in context.planes:
        for name, of_network in values.items():
            who = {"network": name, "plane": plane}
            row = context.row(who, [(1.0, of_network)], STABLE, plane)
            rows.append(row | {"sd": context.spread(of_network, plane)} | _paper(PAPER_STABILITY.get(name, {}), plane))
        gain = [(1.0, values["mitigation"]), (-1.0, values["baseline"])]
        before, after = (PAPER_STABILITY[name].get(plane, (math.nan,))[0] for name in ("baseline", "mitigation"))
        row = context.row({"network": MORE_STABLE, "plane": plane}, gain, STABLE, plane)
        rows.append(row | {"paper_mean": (after - before) / 100})
    return rows


MORE_STABLE = "mitigation minus baseline"


def _frame_rows(context: _Context, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    predictions = measures["clip_predictions"]
    quantities = {
        "Dice with the last frame": (agreement(predictions, predictions[:, -1:]), STABLE),
        "Dice with the annotation": (organ_dice(measures["clip_counts"]), DICE),
    }
    for plane in context.planes:
        for quantity, (values, convention) in quantities.items():
            for frame in range(values.shape[1]):
                who = {"network": network, "plane": plane, "quantity": quantity, "frame": frame}
                yield context.row(who, [(1.0, values[:, frame])], convention.replace("first", "given"), plane)


def _saliency_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    cover, without = measures["cover"].astype(float), images.kinds[-1]
    shares = {kind: measures[f"share_{kind}"].astype(float) for kind in ("annotated", without)}
    ratio = {kind: share / np.where(cover > 0, cover, np.nan) for kind, share in shares.items()}
    said = "Grad-CAM for the organ's own class; images on which it is not predicted are undefined and left out"
    for kind in shares:
        for quantity, values in ((SHARE, shares[kind]), (COVER, cover), (ENRICHMENT, ratio[kind])):
            who = {"network": network, "tested_on": kind, "quantity": quantity}
            yield context.row(who, [(1.0, values)], f"{said}; enrichment: share over share per case, mean")
    who = {"network": network, "tested_on": f"annotated, {without}", "quantity": EXCESS}
    yield context.row(who, [(1.0, ratio["annotated"]), (-1.0, ratio[without])], f"{said}; at the same places")


def _change_rows(context: _Context, clips: Clips, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    quantities = {
        "Dice": (organ_dice, DICE),
        "area": (area_ratio, "predicted area, of any organ, over annotated area, mean over cases"),
        "misnamed": (misnamed, "share of the predicted area with an organ that is not there, mean over cases"),
    }
    for change in clips.changed:
        for quantity, (of_counts, convention) in quantities.items():
            values, usual = (of_counts(measures[f"{name}_counts"]) for name in (change, "all marks"))
            who = {"network": network, "marks": change, "quantity": quantity}
            yield context.row(who, [(1.0, values)], convention)
            if change != "all marks":
                who = who | {"quantity": f"{quantity}, minus that with all marks"}
                yield context.row(who, [(1.0, values), (-1.0, usual)], convention)


def _detection_rows(context: _Context, removal: Measures) -> list[dict[str, Any]]:
    said = {
        "recall": "share of the marks' pixels that were found, mean over images; without marks undefined",
        "removed": "the same with what was found widened by the margin, which is what removal may change",
        "precision": "share of found pixels that are marks, mean over images; where nothing was found undefined; the "
        "machine's own legend counts as no mark",
    }
    return [context.row({"quantity": q}, [(1.0, removal[q])], text) for q, text in said.items() if q in removal]


def _reconstruction_rows(context: _Context, removal: Measures) -> list[dict[str, Any]]:
    units = {"mae": "mean absolute error in gray levels", "psnr": "peak signal-to-noise ratio in dB, of the peak 255"}
    places = {"marks": "over what the marks cover", "image": "over the whole image"}
    rows = []
    for key, values in removal.items():
        method, *rest = key.split(" ")
        if rest:
            which, region, metric = rest
            who = {"method": method, "mask": which, "region": region, "metric": metric}
            rows.append(context.row(who, [(1.0, values)], f"{units[metric]}, {places[region]}, mean over images"))
    return rows


def _downstream_rows(context: _Context, images: Images, network: str, measures: Measures) -> Iterator[dict[str, Any]]:
    if images.scans["test"].clean is None:
        return
    clean = organ_dice(measures["clean_counts"])
    for method in (NOTHING, *overlays.REMOVALS):
        for which in MASKS if method != NOTHING else MASKS[:1]:
            key = "annotated" if method == NOTHING else f"{method} {which}"
            values = organ_dice(measures[f"{key}_counts"])
            who = {"network": network, "method": method, "mask": which}
            yield context.row(who | {"quantity": "Dice"}, [(1.0, values)], DICE)
            yield context.row(who | {"quantity": LOSS}, [(1.0, values), (-1.0, clean)], DICE)
            if method not in (NOTHING, "network"):
                theirs = organ_dice(measures[f"network {which}_counts"])
                yield context.row(who | {"quantity": AGAINST_NETWORK}, [(1.0, values), (-1.0, theirs)], DICE)


def _case_rows(
    test: pipeline.InMemory,
    context: _Context,
    images: Images,
    measured: Mapping[str, Measures],
    removal: Measures,
) -> list[dict[str, Any]]:
    columns = {
        f"{name} on {kind}": organ_dice(m[f"{kind}_counts"]) for name, m in measured.items() for kind in images.kinds
    }
    columns |= {f"{name}, saliency on marks": m["share_annotated"] for name, m in measured.items()}
    columns |= {"image under marks": measured["baseline"]["cover"]} | dict(removal)
    planes = {
        i: plane for plane, where in context.planes.items() if plane != ALL for i in np.flatnonzero(where).tolist()
    }
    return [
        {"case": test.cases[i], "patient": test.patients[i], "plane": planes.get(i, "")}
        | {name: float(values[i]) for name, values in columns.items()}
        for i in range(len(test))
    ]


NEGLIGIBLE = 0.02  # of Dice; the smallest drop that the paper calls one (femur, Table 1)


def verdict(results: Tables) -> Verdict:
    """Reads the answers off the tables.

    The baseline's drop from annotated to cleaned test images, over all planes, decides. yes: its whole interval lies
    above 0.02, and on images that never had marks, where they are known, there is a drop too (its interval lies above
    0), so that it is not what removal left behind. partly: above 0, but not all of that. no: the whole interval lies
    below 0.02. unclear: anything else.
    """
    drops = {(row["network"], row["drop_to"]): row for row in results.drops if row["plane"] == ALL}
    dice = {(row["network"], row["tested_on"]): row for row in results.dice if row["plane"] == ALL}
    drop, truly = drops["baseline", "cleaned"], drops.get(("baseline", "clean"))
    stable = {row["network"]: row for row in results.stability if row["plane"] == ALL}
    facts = (
        f"with calipers and text the baseline reaches a Dice of {text(dice['baseline', 'annotated'])}, on the same "
        f"images with the marks removed {text(dice['baseline', 'cleaned'])}: a drop of {text(drop)}"
        + (f", and of {text(truly)} to images that never had marks" if truly else "")
        + f"; while a frozen frame is annotated, its predictions before and after agree to {text(stable['baseline'])}, "
        f"those of the mitigated network to {text(stable['mitigation'])} ({drop['patients']} patients, 95 % intervals)."
    )
    answer, words = _decide(drop, truly)
    return Verdict(answer, f"{words}: {facts}", {"removal": removal_sentence(results)})


def _decide(drop: Mapping[str, Any], truly: Mapping[str, Any] | None) -> tuple[str, str]:
    if math.isnan(drop["mean"]) or math.isnan(drop["low"]):
        return "unclear", "No test case decides"
    if drop["high"] < NEGLIGIBLE:
        return "no", "The baseline segments as well without the marks"
    if drop["low"] <= 0:
        return "unclear", "The intervals are too wide to tell"
    if drop["low"] > NEGLIGIBLE and (truly is None or truly["low"] > 0):
        return "yes", "The baseline leans on the marks"
    return "partly", "The baseline loses a little without the marks, or loses it to the removal alone"


def text(row: Mapping[str, Any], digits: int = 2) -> str:
    """Mean and interval of a row."""
    return "{mean:z.{d}f} [{low:z.{d}f}, {high:z.{d}f}]".format(d=digits, **row)


def removal_sentence(results: Tables) -> str:
    """Which way of removing found marks costs the reference least, and which cannot be told from it."""
    rows = {
        (row["method"], row["quantity"]): row
        for row in results.downstream
        if row["network"] == "reference" and row["mask"] == "found" and row["method"] != NOTHING
    }
    lost = {method: row for (method, quantity), row in rows.items() if quantity == LOSS}
    if not lost:
        return "What is below the marks is not known, so removals cannot be compared."
    order = sorted(lost, key=lambda method: -lost[method]["mean"])
    mae = {
        row["method"]: row
        for row in results.reconstruction
        if (row["mask"], row["region"], row["metric"]) == ("found", "marks", "mae")
    }
    nearest = min((method for method in mae if method != NOTHING), key=lambda method: mae[method]["mean"])
    against = [rows[method, AGAINST_NETWORK] for method in order if method != "network"]
    alike = [row["method"] for row in against if row["low"] <= 0 <= row["high"]]
    worse = [row["method"] for row in against if row["high"] < 0]
    better = [row["method"] for row in against if row["low"] > 0]
    words = lambda methods: ", ".join(name.replace("_", " ") for name in methods)
    compared = [f"{words(group)} {what}" for group, what in (
        (better, "better than the network's filling"), (alike, "not distinguishable from it"), (worse, "worse than it")
    ) if group]  # fmt: skip
    return (
        "For the network trained on clean images, restoring found marks instead changes the Dice by "
        + "; ".join(f"{words([method])} {text(lost[method], 3)}" for method in order)
        + f". Paired: {'; '.join(compared)}. Nearest to the clean pixels under the marks is {words([nearest])} "
        f"(mean absolute error {text(mae[nearest], 1)} gray levels)."
    )
