"""Tables and verdict of the distortion study: scores and Dice of all cases in, rows and the paper's claims out.

A number of several networks is the mean of what each gives. Its interval is from resampled patients and does not cover
what further seeds would change; the standard deviation over runs stands beside.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxseg.data import augment
from jaxseg.metrics.intervals import Estimate, bootstrap_contrast
from jaxseg.results.claims import Verdict
from jaxseg.scores.cases import SCORES
from jaxseg.studies.distortion import numbers
from jaxseg.studies.distortion.experiment import UNITS, Cases, Measured, counted_domains
from jaxseg.studies.distortion.numbers import Observations


@dataclasses.dataclass(frozen=True)
class Tables:
    """Rows of every table; each row says its convention, n, undefined and interval."""

    claims: list[dict[str, Any]]
    dice: list[dict[str, Any]]
    correlation: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    detection: list[dict[str, Any]]
    risk_coverage: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    settings: list[dict[str, Any]]
    training: list[dict[str, Any]]
    cases: list[dict[str, Any]]


INTERVAL = "bootstrap over patients, 95 %"
_DICE = "Dice per case, mean over the classes that are drawn in its domain and not undefined; mean over the networks"
_RANK = "Spearman's rank correlation with 1 - Dice, within a domain unless it says otherwise; mean over the networks"
_FIG2, _FIG3 = (f"drawn in Fig. {number}, no number in the text" for number in (2, 3))


def tabulate(config: ml_collections.ConfigDict, cases: Cases, measured: Measured) -> Tables:
    """All numbers of the study as rows."""
    counted = counted_domains(config, cases)
    dice = _dice_rows(config, cases, measured, counted)
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("correlation", "differences", "detection", "risk_coverage")
    }
    slices = observe(cases, measured)
    for unit, of in (("slice", slices), ("subject", slices.by_subject())):
        for name, rows in _score_rows(config, cases, of, counted).items():
            tables[name] += [{"unit": unit} | row for row in rows]
    return Tables(
        claims=[dataclasses.asdict(claim) for claim in claims(dice, tables["differences"])],
        dice=dice,
        **tables,
        classes=_class_rows(cases),
        settings=_setting_rows(config, cases),
        training=list(measured.training),
        cases=_case_rows(cases, slices, case_dice(cases, measured.networks)),
    )


def class_dice(cases: Cases, runs_of: Sequence[Mapping[str, np.ndarray]], key: str = "dice") -> np.ndarray:
    """Dice of every case and class by every network, `[M,N,K-1]`; NaN for a class that nobody drew in the domain.

    A class is taken as not drawn in a domain if none of the domain's cases has a pixel of it: that the network finds it
    there is no error that could be told.
    """
    place = {name: i for i, name in enumerate(cases.names)}
    drawn = np.stack([cases.drawn[name] > 0 for name in cases.names])
    scored = drawn[[place[domain] for domain in cases.domains]]
    return np.where(scored, np.stack([run[key] for run in runs_of]), np.nan)


def case_dice(cases: Cases, runs_of: Sequence[Mapping[str, np.ndarray]], key: str = "dice") -> np.ndarray:
    """Dice of every case by every network, `[M,N]`: the mean over the defined classes of `class_dice`."""
    values = class_dice(cases, runs_of, key)
    defined = ~np.isnan(values)
    total, number = np.where(defined, values, 0.0).sum(-1), defined.sum(-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def typical_cases(cases: Cases, measured: Measured) -> dict[str, int]:
    """Of every domain the case with the median Dice of the first network; none where no Dice is defined."""
    dice = case_dice(cases, measured.networks[:1])[0]
    chosen = {}
    for name in cases.names:
        defined = np.flatnonzero((cases.domains == name) & ~np.isnan(dice))
        if len(defined):
            chosen[name] = int(defined[np.argsort(dice[defined], kind="stable")[len(defined) // 2]])
    return chosen


def observe(cases: Cases, measured: Measured) -> Observations:
    """Scores and risks of every slice."""
    rows: list[np.ndarray] = []
    risks: list[np.ndarray] = []
    owner: list[int] = []
    names: list[str] = []
    for score in SCORES:
        given = measured.ensembles if score.of_ensemble else measured.networks
        if not given:
            continue
        rows += [run[score.key].astype(np.float64) for run in given]
        risks += [*(1.0 - case_dice(cases, given))]
        owner += [len(names)] * len(given)
        names.append(score.name)
    return Observations(
        np.stack(rows), np.stack(risks), np.array(owner), tuple(names), cases.domains, cases.roles, cases.patients
    )


def _score_rows(
    config: ml_collections.ConfigDict, cases: Cases, of: Observations, counted: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    draw = functools.partial(numbers.draw, of=of, resamples=config.evaluation.resamples)
    threshold = numbers.thresholds(of, config.evaluation.keep)
    ranked = draw(functools.partial(numbers.correlations, of, cases.names, counted))
    areas = draw(functools.partial(numbers.risk_areas, of, counted))
    found = draw(
        functools.partial(numbers.detection, of, cases.names, counted, threshold), defined=~np.isnan(of.scores)
    )
    domains = (*cases.names, numbers.MEAN)
    where = _where(of, domains, counted)
    rows: dict[str, list[dict[str, Any]]] = {
        "correlation": [
            _row(ranked, q, s, of, where[domain], config)
            | {"domain": domain, "runs_std": deviation, "convention": _RANK, "paper": _paper(of.names[s], _FIG3)}
            for q, domain in enumerate((*domains, numbers.TOGETHER))
            for s, deviation in enumerate(of.deviation_over_runs(ranked.runs[q]))
        ],
        "differences": _difference_rows(config, ranked, found, of, domains, where),
        "detection": [],
        "risk_coverage": [],
    }
    inside = "test" if (of.roles == "test").any() else "validation"
    share = f"threshold: at or below it lie {config.evaluation.keep:.0%} of in-domain validation"
    measures = (
        (DETECTED, f"share above the threshold; {share}", "drawn in Fig. 4 for M&Ms; near-perfect for all on CC-359"),
        ("AUROC", f"against in-domain {inside} cases", "not given"),
        ("FPR@95", f"in-domain {inside} cases called foreign where 95 % of the foreign ones are found", "not given"),
    )
    for m, (quantity, convention, paper) in enumerate(measures):
        for d, domain in enumerate(domains):
            if m and domain not in (*counted, numbers.MEAN):
                continue
            for s in range(len(of.names)):
                row = _row(found, m * len(domains) + d, s, of, where[domain], config)
                rows["detection"].append(
                    {"quantity": quantity, "domain": domain}
                    | row
                    | {"convention": convention, "paper": _paper(of.names[s], paper)}
                )
    for q, quantity in enumerate(("AURC", "excess AURC")):
        for s in range(len(of.names)):
            rows["risk_coverage"].append(
                {"quantity": quantity}
                | _row(areas, q, s, of, where[numbers.MEAN], config)
                | {"convention": "mean 1 - Dice of what is kept, area over coverage; shifted domains together; less is "
                   "better", "paper": "not given"}
            )  # fmt: skip
    return rows


DETECTED = "called foreign"


def _paper(score: str, text: str) -> str:
    return text if next(each.in_paper for each in SCORES if each.name == score) else "score not in the paper"


def _where(of: Observations, domains: Sequence[str], counted: Sequence[str]) -> dict[str, np.ndarray]:
    """Which cases stand behind the numbers of a domain."""
    inside = {domain: of.domains == domain for domain in domains}
    return inside | dict.fromkeys((numbers.MEAN, numbers.TOGETHER), np.isin(of.domains, counted))


def _row(
    drawn: numbers.Drawn, q: int, s: int, of: Observations, where: np.ndarray, config: ml_collections.ConfigDict
) -> dict[str, Any]:
    return {"score": of.names[s]} | _checked(drawn.estimate(q, s, of, where), config)


def _checked(estimate: Estimate, config: ml_collections.ConfigDict, interval: str = INTERVAL) -> dict[str, Any]:
    """Without an interval where there are too few patients for one."""
    row = dataclasses.asdict(estimate) | {"interval": interval}
    if estimate.patients < config.evaluation.least_patients:
        row |= {"low": math.nan, "high": math.nan, "interval": "none: too few patients"}
    return row


def _difference_rows(
    config: ml_collections.ConfigDict,
    ranked: numbers.Drawn,
    found: numbers.Drawn,
    of: Observations,
    domains: Sequence[str],
    where: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """SD less every other score: rank correlations, and the shares called foreign; paired."""
    ours = of.names.index("SD")
    kinds = (
        (CORRELATION, ranked, f"SD less the other: {_RANK}", "SD higher in almost all cases (Fig. 3)"),
        (DETECTED, found, "SD less the other: share above the threshold", "PM far higher than SD (Fig. 4)"),
    )
    return [
        {"quantity": quantity, "domain": domain, "score": name}
        | _checked(drawn.difference(q, ours, other, of, where[domain]), config, f"{INTERVAL}, paired")
        | {"convention": convention, "paper": _paper(name, paper)}
        for quantity, drawn, convention, paper in kinds
        for q, domain in enumerate(domains)
        for other, name in enumerate(of.names)
        if other != ours
    ]


CORRELATION = "rank correlation"
BEFORE, AFTER, LOST = "Dice", "Dice with the bottleneck reconstructed", "Dice lost by reconstructing the bottleneck"


def _dice_rows(
    config: ml_collections.ConfigDict, cases: Cases, measured: Measured, counted: Sequence[str]
) -> list[dict[str, Any]]:
    """By domain: the mean, every class, the ensemble, and what the autoencoder costs."""
    before, after = (case_dice(cases, measured.networks, key) for key in ("dice", "dice_after"))
    quantities: dict[str, list[tuple[float, np.ndarray]]] = {
        BEFORE: [(1.0, values) for values in before],
        AFTER: [(1.0, values) for values in after],
        LOST: [(sign, values) for sign, arrays in ((1.0, before), (-1.0, after)) for values in arrays],
    }
    if measured.ensembles:
        quantities["Dice of the ensemble"] = [(1.0, values) for values in case_dice(cases, measured.ensembles)]
    by_class = class_dice(cases, measured.networks)
    of_class = {f"Dice of {name}": k for k, name in enumerate(cases.stored.class_names[1:])}
    if len(of_class) > 1:
        quantities |= {name: [(1.0, values[:, k]) for values in by_class] for name, k in of_class.items()}
    where = {name: cases.domains == name for name in cases.names}
    where[numbers.TOGETHER] = np.isin(cases.domains, counted)
    rows = []
    for domain, chosen in where.items():
        for quantity, terms in quantities.items():
            if quantity in of_class and all(np.isnan(values[chosen]).all() for _, values in terms):
                continue  # nobody drew it there
            positive = sum(weight > 0 for weight, _ in terms)
            estimate = bootstrap_contrast(
                [(weight / positive, values[chosen]) for weight, values in terms],
                cases.patients[chosen],
                resamples=config.evaluation.resamples,
            )
            means = [float(np.nanmean(v[chosen])) if not np.isnan(v[chosen]).all() else math.nan for _, v in terms]
            single = positive == len(terms) and positive > 1
            rows.append(
                {"domain": domain, "quantity": quantity}
                | _checked(estimate, config)
                | {
                    "runs_std": float(np.std(means, ddof=1)) if single else math.nan,
                    "convention": _DICE if quantity not in of_class else f"{quantity} per case; mean over the networks",
                    "paper": "slightly reduced in all cases" if quantity == LOST else _FIG2,
                }
            )
    return rows


def _class_rows(cases: Cases) -> list[dict[str, Any]]:
    return [
        {
            "domain": domain,
            "class": name,
            "cases_with_it": int(count),
            "n": int((cases.domains == domain).sum()),
            "scored": bool(count),
            "convention": "a class of which a domain has no pixel is taken as not drawn there, and not scored",
        }
        for domain, counts in cases.drawn.items()
        for name, count in zip(cases.stored.class_names[1:], counts, strict=True)
    ]


def _setting_rows(config: ml_collections.ConfigDict, cases: Cases) -> list[dict[str, Any]]:
    """What differs from the paper, side by side."""
    augmented = augment.check_augmentation(config.data.augmentation.to_dict()).moves
    patients = lambda role: len(set(cases.patients[cases.roles == role]))
    here = (
        ("networks", config.replicas, "10"),
        ("networks in an ensemble", config.evaluation.ensemble_size, "5"),
        ("network", config.model.name, "U-Net, similar to Shirokikh et al. 2020 (residual_unet)"),
        ("image size (px)", config.data.image_size, "not in the text"),
        ("optimiser, rate", f"{config.training.optimizer}, {config.training.learning_rate:g}", "Adam, 0.001"),
        ("epochs", config.training.epochs, "until convergence on validation"),
        ("loss", config.training.loss, "not in the text"),
        ("augmentation", "geometric" if augmented else "none", "CC-359: none; ACDC: as nnU-Net"),
        ("latent of the autoencoder", config.autoencoder.latent, "CC-359: 64; M&Ms: 128"),
        ("epochs of the autoencoder", config.autoencoder_training.epochs, "until convergence on validation"),
        ("in-domain validation kept by the threshold", f"{config.evaluation.keep:.0%}", "95%"),
        ("shifted domains", len(cases.shifted), "CC-359: 5; M&Ms: 4"),
        ("shifted patients", patients("shifted"), "not in the text"),
        ("in-domain validation patients", patients("validation"), "not in the text"),
        ("unit of the verdict", config.evaluation.unit, "image"),
    )
    return [{"setting": name, "here": str(value), "paper": paper} for name, value, paper in here]


def _case_rows(cases: Cases, of: Observations, dice: np.ndarray) -> list[dict[str, Any]]:
    mean = of.mean_over_runs(of.scores.T)  # [N,S]
    everyone = dataclasses.replace(of, owner=np.zeros(len(dice), int), names=("Dice",)).mean_over_runs(dice.T)[:, 0]
    return [
        {
            "case": cases.stored.cases[i],
            "patient": str(cases.patients[i]),
            "domain": str(cases.domains[i]),
            "role": str(cases.roles[i]),
            "dice": float(everyone[i]),
        }
        | {name: float(mean[i, s]) for s, name in enumerate(of.names)}
        | {"convention": "means over the networks, or ensembles"}
        for i in range(len(cases.stored))
    ]


# -------------------------------------------------------------------------------------------------------------- verdict

# An advantage in correlation, or in the share called foreign, whose whole interval lies below this is called none.
NEGLIGIBLE = 0.05


@dataclasses.dataclass(frozen=True)
class Claim:
    """One of the paper's claims, and what became of it here.

    Attributes:
      claim: in words.
      unit: slice or subject.
      verdict: holds, does not hold, or unclear.
      mean, low, high: of the difference that the claim says is above 0, with its interval.
      n, undefined, patients: what stands behind it.
      interval, convention: as in every table.
      paper: what the paper says.
    """

    claim: str
    unit: str
    verdict: str
    mean: float
    low: float
    high: float
    n: int
    undefined: int
    patients: int
    interval: str
    convention: str
    paper: str


_ABOVE = "SD goes with errors more closely than {score}"
FOREIGN = "PM calls more foreign cases foreign than SD does"
LOWERED = "Reconstructing the bottleneck lowers the Dice"
_PAPER = {
    "PM": "much more so",
    "LM": "LM mostly between PM and SD",
    "entropy": "almost always",
    "ensemble entropy": "almost always",
}


def claims(dice: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The paper's claims, each decided by an interval.

    holds: the whole interval of the difference lies above 0. does not hold: it lies below 0.05, or, of the Dice lost,
    below 0. unclear: anything else. Correlations and shares are means over the shifted domains; of their domains
    together is the Dice.
    """
    found = []
    for unit in UNITS:
        rows = {
            (row["quantity"], row["score"]): row
            for row in differences
            if row["unit"] == unit and row["domain"] == numbers.MEAN
        }
        for score, paper in _PAPER.items():
            if (CORRELATION, score) in rows:
                found.append(_decided(_ABOVE.format(score=score), unit, rows[CORRELATION, score], paper, NEGLIGIBLE))
        turned = dict(rows[DETECTED, "PM"])
        turned |= {"mean": -turned["mean"], "low": -turned["high"], "high": -turned["low"]}
        turned["convention"] = turned["convention"].replace("SD less the other", "PM less SD")
        found.append(_decided(FOREIGN, unit, turned, "PM excels, SD does not", NEGLIGIBLE))
    lost = next(row for row in dice if (row["domain"], row["quantity"]) == (numbers.TOGETHER, LOST))
    return [*found, _decided(LOWERED, "slice", lost, "slightly, always", 0.0)]


def _decided(claim: str, unit: str, row: Mapping[str, Any], paper: str, negligible: float) -> Claim:
    if row["low"] > 0:
        verdict = "holds"
    elif row["high"] < negligible:
        verdict = "does not hold"
    else:  # also where there is no interval
        verdict = "unclear"
    names = ("mean", "low", "high", "n", "undefined", "patients", "interval", "convention")
    return Claim(claim, unit, verdict, **{name: row[name] for name in names}, paper=paper)


def verdict(config: ml_collections.ConfigDict, results: Tables) -> Verdict:
    """Reads the answer off the claims of `config.evaluation.unit`.

    yes: SD is above pooled Mahalanobis distance and both entropies. partly: above the former, but not above all. no:
    not above the former. unclear: the interval against the former decides nothing.
    """
    unit = config.evaluation.unit
    decided = {row["claim"]: row["verdict"] for row in results.claims if row["unit"] == unit}
    against = {score: decided[claim] for score in _PAPER if (claim := _ABOVE.format(score=score)) in decided}
    answer = {"holds": "partly", "does not hold": "no", "unclear": "unclear"}[against["PM"]]
    if all(found == "holds" for score, found in against.items() if score != "LM"):
        answer = "yes"
    text = _texts(results, unit)
    start = {
        "yes": "Distortion orders the errors within a domain better than the paper's other scores",
        "partly": "Distortion orders the errors within a domain better than the Mahalanobis distance, but not clearly "
        "better than everything else",
        "no": "Distortion orders the errors within a domain no better than the Mahalanobis distance",
        "unclear": "Whether distortion orders the errors within a domain better than the Mahalanobis distance, the "
        "intervals do not tell",
    }[answer]
    said = {"holds": "above", "does not hold": "not above", "unclear": "undecided against"}
    sides = (
        f"{words} {' and '.join(names)}"
        for found, words in said.items()
        if (names := [score for score in against if against[score] == found])
    )
    others = ", ".join(f"{score} {text(CORRELATION, score)}" for score in against)
    patients = next(row["patients"] for row in results.claims if row["unit"] == unit)
    return Verdict(
        answer,
        f"{start} (it is {', '.join(sides)}): rank correlation with 1 - Dice of SD {text(CORRELATION, 'SD')}, "
        f"{others}; called foreign are {text(DETECTED, 'SD')} of the shifted cases by SD and {text(DETECTED, 'PM')} by "
        f"PM (mean of the shifted domains and networks, by {unit}, {patients} patients, 95 % intervals).",
        {"unit": unit},
    )


def _texts(results: Tables, unit: str) -> Callable[[str, str], str]:
    rows = {
        (quantity, row["score"]): row
        for quantity, table in ((CORRELATION, results.correlation), (DETECTED, results.detection))
        for row in table
        if (row["unit"], row["domain"], row.get("quantity", quantity)) == (unit, numbers.MEAN, quantity)
    }
    return lambda quantity, score: "{mean:z.2f} [{low:z.2f}, {high:z.2f}]".format(**rows[quantity, score])
