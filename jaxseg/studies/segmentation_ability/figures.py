"""The figures of the segmentation-ability study, from its measures, its shown cases and its tables."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.colors import to_rgb

from jaxseg.data import pipeline
from jaxseg.report import canvas, figures
from jaxseg.studies.base import Measures, lines, of_kept
from jaxseg.studies.segmentation_ability import quality, tables
from jaxseg.studies.segmentation_ability.settings import NETWORKS, Settings
from jaxseg.studies.segmentation_ability.tables import StudyReport

_SIDE = 256  # pixels of a painted case, so that outlines are fine
_MOST_LEVELS = 5  # of noise in one figure


def draw(report: StudyReport) -> None:
    """Writes all figures of the study, among them `maps_I.png` for the I-th example."""
    folder, settings, results = report.figures, report.settings, report.tables
    test, measured, shown = report.cases["test"], report.measured.networks, report.measured.shown
    _draw_layers(folder, settings, measured, results)
    for i in range(len(shown["examples"])):
        _draw_maps(folder / f"maps_{i}.png", settings, shown, i)
    _draw_heat(folder / "heat.png", test, measured, shown)
    _draw_quality(folder, measured, results)
    _draw_ranked(folder / "ranked.png", measured, shown)
    _draw_separable(folder, measured, shown)
    held = results.pruning.where(inert_units=tables.AT_MEAN)
    changes = [row for share in settings.evaluation.inert_sweep for row in held.where(inert_below=share)]
    tried = [row for row in changes if row["active"] < row["units"]] or changes  # the others change nothing
    inert = lambda row: f"below {row['inert_below']:g}: {row['units'] - row['active']} of {row['units']}"
    dots = [(inert(row), row["network"], *row.numbers) for row in tried]
    figures.dots(folder / "pruning.png", dots, xlabel="Dice without the inert units minus Dice with all")


def _colour(network: str) -> str:
    return canvas.looks(NETWORKS)[network][0]


def _draw_layers(
    folder: pathlib.Path, settings: Settings, measured: Mapping[str, Measures], results: tables.Tables
) -> None:
    """Figs. 5, 7 and 16."""
    abstract = settings.layer_groups["abstract"]
    shade = (abstract[0] + 0.5, abstract[-1] + 1.5, "abstract layers")
    figures.curves(
        folder / "layers.png",
        {"": lines(results.layers, "layer", "network", NETWORKS)},
        xlabel="layer, from input to output",
        ylabel="SA score",
        shade=shade,
    )
    units = lines(results.units, "rank", "network", NETWORKS)
    for network, style in zip(NETWORKS, ("--", ":"), strict=True):  # the two may lie on each other
        output = measured[network]["validation_output"]
        bound = settings.evaluation.inert_below * output[~np.isnan(output)].mean()
        ends = (1.0, measured[network]["units"].shape[1])
        units.append(figures.Series(f"inert below, {network}", ends, (bound, bound), style=style))
    figures.curves(folder / "units.png", {"": units}, xlabel="unit of the last layer, sorted", ylabel="SA score")
    levels = settings.evaluation.noise_levels
    some = [levels[round(i)] for i in np.linspace(0, len(levels) - 1, min(_MOST_LEVELS, len(levels)))]
    figures.curves(
        folder / "noise.png",
        {network: lines(results.noise.where(network=network), "layer", "noise", some) for network in NETWORKS},
        xlabel="layer, from input to output",
        ylabel="SA with noise minus without",
        ylim=None,
        shade=shade,
    )


def _draw_quality(folder: pathlib.Path, measured: Mapping[str, Measures], results: tables.Tables) -> None:
    """Figs. 10 and 11, and Table 2 at every coverage."""
    online = measured["online"]
    correlation = {row["score"]: row.estimate.mean for row in results.quality.where(network="online")}
    signed = lambda value: f"rank correlation {value:z.2f}".replace("-", "\N{MINUS SIGN}")
    figures.points(
        folder / "quality.png",
        {
            f"mean SA score\n{signed(correlation[quality.MEAN_SA])}": {"": (online["mean_sa"], online["dice"])},
            f"VoG\n{signed(-correlation[quality.VOG])}": {"": (online["vog"], online["dice"])},
        },
        ylabel="Dice",
    )
    of_scores = lambda rows: lines(rows, "up_to_percentile", "score", (quality.MEAN_SA, quality.VOG))
    figures.curves(
        folder / "buckets.png",
        {network: of_scores(results.buckets.where(network=network)) for network in NETWORKS},
        xlabel="percentile of the score, up to",
        ylabel="Dice",
        ylim=None,
    )
    figures.curves(
        folder / "coverage.png",
        {network: _kept(measured[network]) for network in NETWORKS},
        xlabel="share of the cases that is kept",
        ylabel="mean Dice of those",
        ylim=None,
    )


def _kept(measures: Measures, points: int = 41) -> list[figures.Series]:
    """Mean Dice of the cases kept, by each score and by the Dice itself, which no score can beat."""
    dice, shares = np.asarray(measures["dice"], float)[None], np.linspace(0.2, 1, points)
    worse = {quality.MEAN_SA: -measures["mean_sa"][None], quality.VOG: measures["vog"][None]}
    best = of_kept("best possible", -dice, dice, shares, style=":")
    return [*(of_kept(name, scores, dice, shares) for name, scores in worse.items()), best]


def painted(
    image: np.ndarray, annotation: np.ndarray, mask: np.ndarray | None, colour: str, *, line: int = 4
) -> np.ndarray:
    """A case at a fixed size, uint8 `[256,256,3]`: a mask filled and outlined, the annotation's outline in white."""
    picture = _large(image)
    if mask is not None:
        wide = np.array(to_rgb(colour)) * 255
        inside = _enlarged(mask)
        picture[inside] = np.rint(0.55 * picture[inside] + 0.45 * wide)
        _outline(picture, inside, tuple(int(level) for level in wide), line)
    return _annotated(picture, annotation)


def _annotated(picture: np.ndarray, annotation: np.ndarray) -> np.ndarray:
    for colour, width in (((0, 0, 0), 6), ((255, 255, 255), 3)):
        _outline(picture, _enlarged(annotation), colour, width)
    return picture


def _large(image: np.ndarray) -> np.ndarray:
    large = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    return np.array(np.broadcast_to(large.reshape(_SIDE, _SIDE, -1), (_SIDE, _SIDE, 3)))


def _enlarged(mask: np.ndarray) -> np.ndarray:
    return cv2.resize((mask > 0).astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST) > 0


def _outline(picture: np.ndarray, inside: np.ndarray, colour: tuple[int, ...], width: int) -> None:
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, width)


def _case(shown: Mapping[str, np.ndarray], part: str) -> slice:
    """Where the cases of a part lie among all that are shown."""
    parts = ("examples", "ranked", "separable")
    start = sum(len(shown[name]) for name in parts[: parts.index(part)])
    return slice(start, start + len(shown[part]))


def _draw_maps(path: pathlib.Path, settings: Settings, shown: Mapping[str, np.ndarray], example: int) -> None:
    """Fig. 6: the maps of all layers of both networks, in two lines each."""
    layers = len(settings.layers)
    columns = math.ceil(layers / 2)
    rows: dict[str, list[tuple[Any, Any]]] = {}
    for network in NETWORKS:
        image, annotation, maps = (shown[f"{network}_{name}"][example] for name in ("seen", "annotation", "maps"))
        cells = [(painted(image, annotation, mask, _colour(network)), None) for mask in maps]
        rows[f"{network}, layers 1 to {columns}"] = cells[:columns]
        rest = cells[columns:]
        blank = (np.full((_SIDE, _SIDE, 3), 255, np.uint8), None)
        rows[f"{network}, layers {columns + 1} to {layers}"] = rest + [blank] * (columns - len(rest))
    titles = [f"{i + 1}, {i + 1 + columns}" if i + 1 + columns <= layers else f"{i + 1}" for i in range(columns)]
    figures.strip(path, rows, titles=titles)


def _draw_heat(
    path: pathlib.Path, test: pipeline.InMemory, measured: Mapping[str, Measures], shown: Mapping[str, np.ndarray]
) -> None:
    """Figs. 9 and 13."""
    online, where = measured["online"], _case(shown, "examples")
    rows: dict[str, list[tuple[Any, Any]]] = {}
    for i, case in enumerate(shown["examples"]):
        image, annotation = shown["online_seen"][where][i], shown["online_annotation"][where][i]
        heat = [_heat(shown[f"{network}_heat"][where][i], annotation) for network in NETWORKS]
        output = painted(image, annotation, shown["online_output"][where][i], _colour("online"))
        cells = [painted(image, annotation, None, ""), *heat, output]
        name = f"{test.cases[case]}: mean SA {online['mean_sa'][case]:.2f}, Dice {online['dice'][case]:.2f} (online)"
        rows[name] = [(cell, None) for cell in cells]
    figures.strip(path, rows, titles=["image", "offline", "online", "output, online"])


def _heat(share: np.ndarray, annotation: np.ndarray) -> np.ndarray:
    """Share of the units, dark for none and light for all; grey where it is undefined."""
    large = cv2.resize(share.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    colours = np.rint(matplotlib.colormaps["inferno"](np.nan_to_num(large))[..., :3] * 255).astype(np.uint8)
    return _annotated(np.where(np.isnan(large)[..., None], np.uint8(200), colours), annotation)


def _online(shown: Mapping[str, np.ndarray], part: str, mask: str, line: int = 4) -> list[tuple[np.ndarray, None]]:
    """The cases of a part with a mask of the online network."""
    arrays = (shown[f"online_{name}"][_case(shown, part)] for name in ("seen", "annotation", mask))
    return [
        (painted(image, label, inside, _colour("online"), line=line), None)
        for image, label, inside in zip(*arrays, strict=True)
    ]


def _draw_ranked(path: pathlib.Path, measured: Mapping[str, Measures], shown: Mapping[str, np.ndarray]) -> None:
    """Fig. 12, from the lowest mean SA score to the highest."""
    online, cells = measured["online"], _online(shown, "ranked", "output")
    titles = [f"{online['mean_sa'][case]:.2f}, {online['dice'][case]:.2f}" for case in shown["ranked"]]
    figures.strip(path, {"mean SA score, Dice": cells}, titles=titles)


def _draw_separable(folder: pathlib.Path, measured: Mapping[str, Measures], shown: Mapping[str, np.ndarray]) -> None:
    """Figs. 14 and 15."""
    online, masks = measured["online"], {"map of the colours": "colour_map", "output of the online network": "output"}
    rows = {name: _online(shown, "separable", mask, line=2) for name, mask in masks.items()}
    titles = [f"separableness {online['separableness'][case]:.2f}" for case in shown["separable"]]
    figures.strip(folder / "separable.png", rows, titles=titles)
    panel = {"separableness: SA score of the colours": {"": (online["separableness"], online["dice"])}}
    figures.points(folder / "separableness.png", panel, ylabel="Dice of the output", diagonal=True)
