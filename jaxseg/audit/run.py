"""All probes, one after the other; what was measured is kept, so that a killed audit goes on."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from jaxseg.audit import findings
from jaxseg.audit.answers import Answer, Arrays, Candidate, NotAskedError, Probe, Row, not_asked
from jaxseg.audit.probes import accuracy, domains, failures, overlay_marks, padding, profiles, translation
from jaxseg.audit.subject import Subject
from jaxseg.errors import InputError
from jaxseg.results.stored import kept

PROBES = (
    accuracy.PROBE,
    translation.PROBE,
    padding.PROBE,
    overlay_marks.PROBE,
    domains.SCANNER_PROBE,
    profiles.ABILITY_PROBE,
    profiles.POSITION_PROBE,
    domains.DISTANCES_PROBE,
    failures.PROBE,
    accuracy.CALIBRATION_PROBE,
)
NAMES = tuple(probe.name for probe in PROBES)
_WHY = "not_asked"
_COUNTS = (
    *("cases", "familiar_cases", "profile_cases", "resamples", "examples", "bins", "grid_share", "latent"),
    *("autoencoder_width", "autoencoder_steps"),
)
_SHARES = (
    *("border_share", "beside_share", "stroke_share", "caliper_share", "gathered_share", "gray_share"),
    *("margin", "calibration_margin", "low_dice"),
)
_OTHERS = ("probes", "findings", "seed", "colours", "chroma", "removal", "least_cases", "position_folds")


@dataclasses.dataclass(frozen=True)
class Audit:
    """All answers.

    Attributes:
      rows: of all probes, in their order.
      candidates: of all probes.
      found: the findings.
      measured: probe -> what it measured; of one that was not asked, nothing.
    """

    rows: Sequence[Row]
    candidates: Sequence[Candidate]
    found: Sequence[findings.Finding]
    measured: Mapping[str, Arrays]

    @property
    def not_asked(self) -> Sequence[Row]:
        """The rows that say what was not asked, and why."""
        return [r for r in self.rows if r["convention"].startswith("not asked")]


def check(settings: ml_collections.ConfigDict) -> None:
    """Raises InputError when a setting cannot work; the message names it."""
    for name in (*_COUNTS, *_SHARES, *_OTHERS):
        if name not in settings:
            raise InputError(f"--audit: config.{name} is missing; configs/audit.py shows every setting")
    if unknown := [name for name in settings.probes if name not in NAMES]:
        raise InputError(f"config.probes has {unknown[0]!r}; choose from {', '.join(NAMES)}")
    if not settings.probes:
        raise InputError(f"config.probes is empty; choose from {', '.join(NAMES)}")
    for name in (*_COUNTS, "findings", "least_cases"):
        if settings[name] < 1:
            raise InputError(f"config.{name} is {settings[name]}; it must be at least 1")
    if settings.position_folds < 2:
        raise InputError(f"config.position_folds is {settings.position_folds}; it must be at least 2")
    if settings.seed < 0:
        raise InputError(f"config.seed is {settings.seed}; it must be at least 0")
    if not 0 < settings.chroma <= 255:
        raise InputError(f"config.chroma is {settings.chroma}; it must be above 0 and at most 255")
    if not settings.colours or not all(len(one) == 3 and all(0 <= v <= 255 for v in one) for one in settings.colours):
        raise InputError(f"config.colours is {settings.colours!r}; give (red, green, blue) from 0 to 255, once or more")
    for name in _SHARES:
        if not 0 < settings[name] < 1:
            raise InputError(f"config.{name} is {settings[name]}; it must be above 0 and below 1")
    if settings.border_share >= 0.25:
        raise InputError(f"config.border_share is {settings.border_share}; near the border is less than 0.25")
    if settings.removal not in ("black", "noise", "bilinear", "fast_marching"):
        raise InputError(f"config.removal is {settings.removal!r}; choose black, noise, bilinear or fast_marching")


def run(subject: Subject, settings: ml_collections.ConfigDict, workdir: pathlib.Path) -> Audit:
    """Asks every probe of the settings; what `workdir/probes` has is read back.

    Args:
      subject: the network and its cases.
      settings: as configs/audit.py gives them.
      workdir: of the audit.
    """
    rows: list[Row] = []
    candidates: list[Candidate] = []
    measured: dict[str, Arrays] = {}
    for probe in PROBES:
        if probe.name not in settings.probes:
            continue
        path = workdir / "probes" / f"{probe.name.replace(' ', '_')}.npz"
        arrays = kept(path, lambda probe=probe: _measured(probe, subject, settings))  # type: ignore[misc]
        if _WHY in arrays:
            rows.append(not_asked(probe.name, str(arrays[_WHY])))
            continue
        answer: Answer = probe.tabulate(subject, settings, arrays)
        rows += answer.rows
        candidates += answer.candidates
        measured[probe.name] = arrays
    return Audit(rows, candidates, findings.choose(candidates, most=settings.findings), measured)


def _measured(probe: Probe, subject: Subject, settings: ml_collections.ConfigDict) -> Mapping[str, np.ndarray]:
    try:
        return {name: np.asarray(value) for name, value in probe.measure(subject, settings).items()}
    except NotAskedError as reason:
        return {_WHY: np.array(str(reason))}
