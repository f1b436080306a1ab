"""The overlay-shortcut study, as the runner knows it."""

import pathlib
from collections.abc import Mapping

import ml_collections

from jaxseg.studies.base import Data, Judgement, Study
from jaxseg.studies.overlay_shortcut import experiment, figures, images, page, tables

Scans = Mapping[str, images.Scans]


def _gather(config: ml_collections.ConfigDict, data: Data) -> Scans:
    scans = images.load(config, data.prepare(config.data.dataset))
    images.check_batch(config, scans)
    return scans


def _fingerprints(scans: Scans) -> Mapping[str, str]:
    return {split: scans[split].annotated.fingerprint for split in images.SPLITS}


def _describe(config: ml_collections.ConfigDict, scans: Scans) -> str:
    counts = ", ".join(f"{len(scans[split].annotated)} {split}" for split in images.SPLITS)
    return f"{config.data.dataset}: {counts}"


def _measure(config: ml_collections.ConfigDict, scans: Scans, workdir: pathlib.Path) -> experiment.Measured:
    cleaned = images.clean_up(config, scans, workdir)
    clips = images.make_clips(config, cleaned)
    networks = experiment.train_and_measure(config, cleaned, clips, workdir)
    return experiment.Measured(cleaned, clips, networks, experiment.removal_measures(cleaned, workdir))


def _tabulate(config: ml_collections.ConfigDict, scans: Scans, measured: experiment.Measured) -> tables.Tables:
    return tables.tabulate(config, measured.images, measured.clips, measured.networks, measured.removal)


def _judge(config: ml_collections.ConfigDict, results: tables.Tables) -> Judgement:
    return Judgement([tables.verdict(results)])


def _folders(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[pathlib.Path]:
    return [experiment.run_folder(workdir, network) for network in experiment.networks(config)]


STUDY = Study(
    settings=experiment.check,
    gather=_gather,
    fingerprints=_fingerprints,
    describe=_describe,
    measure=_measure,
    tabulate=_tabulate,
    judge=_judge,
    folders=_folders,
    draw=figures.draw,
    page=page.make,
)
