"""Frozen frames while they are annotated, and with wrong marks (Lin, Weng et al. 2024, section 3)."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxseg.data import pipeline
from jaxseg.data.synthetic import ultrasound
from jaxseg.studies.overlay_shortcut.images import Images
from jaxseg.studies.overlay_shortcut.marker import Marker, away
from jaxseg.studies.overlay_shortcut.settings import Evaluation, Settings

CHANGES = ("all marks", "no marks", "calipers only", "text only", "other plane's text", "calipers moved")


@dataclasses.dataclass(frozen=True, eq=False)
class Clips:
    """Frozen frames while they are annotated, and with wrong marks."""

    frames: np.ndarray  # uint8 `[M,T,S,S,3]`, the first without marks, the last with all
    labels: np.ndarray  # uint8 `[M,S,S]`
    patients: np.ndarray  # `[M]`
    # one of `CHANGES` -> uint8 `[M,S,S,3]`; empty where the clean images are not known
    changed: Mapping[str, np.ndarray]


def make_clips(settings: Settings, images: Images) -> Clips:
    """Clips of new scans of the world, or of the test cases; where clean images are unknown, cleaned ones begin."""
    test = images.scans["test"]
    if test.clean is None:
        frames = np.stack([images.cleaned["test"].images, test.annotated.images], 1)
        return Clips(frames, test.annotated.labels, np.array(test.annotated.patients), {})
    if settings.source == "world":
        evaluation, size = settings.evaluation, settings.run.data.source_size
        made = [_world_clip(evaluation, size, number) for number in range(evaluation.clips)]
        patients = np.arange(len(made))
    else:
        made = [_drawn_clip(case) for case in test.clean]
        patients = np.array(test.clean.patients)
    changed = {name: np.stack([clip.changed[name] for clip in made]) for name in CHANGES}
    return Clips(np.stack([clip.frames for clip in made]), np.stack([clip.labels for clip in made]), patients, changed)


class _Clip(NamedTuple):
    """One of `Clips`, without its patient."""

    frames: np.ndarray
    labels: np.ndarray
    changed: Mapping[str, np.ndarray]


def _world_clip(evaluation: Evaluation, size: int, number: int) -> _Clip:
    planes = ultrasound.PLANES
    plane = planes[number % len(planes)]
    clip = ultrasound.clip(evaluation.clip_seed, number, size, plane=plane, frames=evaluation.clip_frames)
    first, last = clip[0], clip[-1]
    # every other plane in turn
    other = planes[(number + 1 + number // len(planes) % (len(planes) - 1)) % len(planes)]
    changed = {
        "all marks": last,
        "no marks": first,
        "calipers only": ultrasound.annotate(first, name=False, values=False),
        "text only": ultrasound.annotate(first, calipers=0),
        "other plane's text": ultrasound.annotate(first, text_of=other),
        "calipers moved": ultrasound.annotate(first, points=first.points + away(first.labels)),
    }
    frames = np.stack([frame.image for frame in clip])
    return _Clip(frames, first.labels, {name: frame.image for name, frame in changed.items()})


def _drawn_clip(case: pipeline.Case) -> _Clip:
    """The text at once, then the calipers one by one."""
    marker, clean = Marker(case), case["image"]
    marked, text = marker.draw()[0], marker.text
    show = lambda covered: np.where(covered[..., None], marked, clean)
    frames = [clean, *(show(text | marker.calipers(count)) for count in range(5))]
    changed = {
        "all marks": marked,
        "no marks": clean,
        "calipers only": show(marker.calipers(4)),
        "text only": show(text),
        "other plane's text": marker.draw(other=True)[0],
        "calipers moved": marker.move(show(text), away(case["labels"])),
    }
    return _Clip(np.stack(frames), case["labels"], changed)
