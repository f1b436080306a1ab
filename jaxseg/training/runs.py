"""One training run, or replicas of it: a config and a prepared data set in, folders with checkpoints and metrics out.

A run's config has the sections `data`, `model` and `training`; `configs/train.py` shows every field.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxseg import atomic, paths
from jaxseg.data import augment, folds, grids, inputs, pipeline
from jaxseg.data.inputs import Inputs
from jaxseg.errors import InputError
from jaxseg.metrics import overlap
from jaxseg.models import pretrained, tracing
from jaxseg.models.skeleton import UNetSkeleton, compiler_options
from jaxseg.networks import of_linen
from jaxseg.networks.linen import LinenNetwork
from jaxseg.numerics import in_32_bits
from jaxseg.training import checks, contract, objectives, parallel, programs, provenance, sliding, state, steps
from jaxseg.training.checkpoints import Checkpoints, has_steps
from jaxseg.training.loop import Loop, Summarise, fit

_SHARE_OF_MEMORY = 0.25  # of a device's, or a host's, that cases may take, for residence 'auto'
_PLACES = ("config.network",)  # fields that say where something is, which is known by its checksum
_STEPS_PER_CALL = 32  # on accelerators, for 0


class Splits:
    """The stored cases of a prepared data set, each split decoded into memory when it is first asked for."""

    def __init__(
        self, directory: pathlib.Path, given: Inputs | int, domains: Sequence[str] = (), *, pictured: bool = False
    ):
        """Opens nothing yet.

        Args:
          directory: of the data set.
          given: what becomes of a case; a number: gray levels squashed to that many pixels.
          domains: as of `pipeline.Split`.
          pictured: as of `pipeline.in_memory`.
        """
        self.pictured = pictured
        self._directory = directory
        self._inputs = inputs.gray_levels(given) if isinstance(given, int) else given
        self._domains = tuple(domains)
        self._opened: dict[str, pipeline.Split] = {}
        self._loaded: dict[str, pipeline.InMemory] = {}
        self._listed: dict[str, pipeline.Listed] = {}

    def open(self, split: str) -> pipeline.Split:
        """The split on disk."""
        if split not in self._opened:
            self._opened[split] = pipeline.Split(self._directory, split, inputs=self._inputs, domains=self._domains)
        return self._opened[split]

    def __getitem__(self, split: str) -> pipeline.InMemory:
        if split not in self._loaded:
            self._loaded[split] = pipeline.in_memory(self.open(split), pictured=self.pictured)
        return self._loaded[split]

    def listed(self, split: str, *, folder: pathlib.Path | None = None) -> pipeline.Listed:
        """The decoded cases of a split whose sizes may differ: in memory, or mapped from files in a folder."""
        if split not in self._listed:
            opened = self.open(split)
            with parallel.main_first(f"map {split}"):
                self._listed[split] = pipeline.listed(opened) if folder is None else pipeline.mapped(opened, folder)
        return self._listed[split]

    @functools.cached_property
    def pool(self) -> pipeline.InMemory:
        """The cases of train and validation together, for folds."""
        return pipeline.joined([self["train"], self["validation"]])

    @property
    def num_classes(self) -> int:
        return self.open("train").num_classes

    @property
    def rank(self) -> int:
        """2, or 3 for volumes."""
        return self.open("train").rank


class InMemorySplits(Splits):
    """Splits of pictures that no data set has on disk, for runs with `config.data.residence` device."""

    def __init__(self, parts: Mapping[str, pipeline.InMemory]):
        self._loaded = dict(parts)

    def open(self, split: str) -> pipeline.Split:
        raise ValueError(f"{split} is in memory alone; train with config.data.residence 'device'")

    @property
    def num_classes(self) -> int:
        return self["train"].num_classes

    @property
    def rank(self) -> int:
        return 2


@dataclasses.dataclass(frozen=True)
class Task:
    """What is fitted, for `fit_members`.

    Attributes:
      module: whose parameters are fitted.
      input_shape: `[1,...]` of what it takes.
      objective: what is made small.
      eval_step: `(variables, stored batch) -> [B,...]`.
      summarise: the scores of all validation cases -> metrics by name.
      selection: by which of them the best is chosen, and 1 where more is better, -1 where less is.
      start: changes a fresh state before its first step, such as to weights from elsewhere.
      frozen: what the objective reads and nothing changes, such as another network.
      compiler_options: for XLA, of the training program.
      whole_cases: `(variables, cases) -> [N,...]` of validation cases of any size, instead of `eval_step`.
    """

    module: nn.Module
    input_shape: tuple[int, ...]
    objective: objectives.Objective
    eval_step: programs.EvalStep
    summarise: Summarise
    selection: tuple[str, int]
    start: Callable[[state.TrainState], state.TrainState]
    frozen: Any
    compiler_options: Mapping[str, Any]
    whole_cases: Callable[[Mapping[str, Any], programs.Cases], np.ndarray] | None = None


def resolved(config: ml_collections.ConfigDict, directory: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a run with all that it takes from its training cases; see `inputs.resolved`.

    Args:
      config: of the run.
      directory: of its prepared data set.
    """

    def cases() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        split = pipeline.Split(directory, "train", inputs=inputs.STORED, domains=config.data.domains)
        for case in split:
            yield case["image"], case["labels"]

    return inputs.resolved(config, cases())


@in_32_bits
def train(config: ml_collections.ConfigDict, splits: Splits, folder: pathlib.Path, *, keep_every: int = 0) -> None:
    """Trains, or resumes, the run in `folder`, or its replicas in folders below it; returns when all is finished.

    Args:
      config: of the run.
      splits: the stored cases.
      folder: of the run; created, or with the same config.
      keep_every: epochs between two checkpoints that stay for `restore_kept`; 0 keeps the newest and the best alone.

    Raises:
      InputError: the config cannot be run, the folder belongs to another config, the loss is not finite.
      Preempted: the process was asked to stop and has saved its work.
    """
    checks.check(config)
    checks.check_rank(config, splits.rank)
    data = Data(config, splits, folder)
    model = checks.build_model(config, splits.num_classes)
    view = augment.testing_view(config.data.view, size=inputs.resized_to(config), cases=data.validation_names)
    shape = (1, *inputs.sides(config, splits.rank), data.num_channels)

    def start(fresh: state.TrainState) -> state.TrainState:
        if config.model.pretrained is None:
            return fresh
        return fresh.replace(**pretrained.load(model, fresh.variables, config.model.pretrained, shape))

    task = Task(
        module=model,
        input_shape=shape,
        objective=checks.build_objective(config, model),
        eval_step=steps.make_counts_step(model, view, splits.num_classes),
        summarise=overlaps,
        selection=(config.training.selection, checks.SELECTIONS[config.training.selection]),
        start=start,
        frozen={},
        compiler_options=compiler_options(model),
        whole_cases=_whole_cases(model, data.grid, shape, splits.num_classes),
    )
    fit_members(config, task, data, folder, keep_every=keep_every)


def _whole_cases(model: nn.Module, grid: grids.Grid, shape: Sequence[int], num_classes: int) -> Any:
    """How whole cases are validated where training sees patches of them."""
    if not isinstance(grid, grids.Patches):
        return None
    return sliding.make_counts(model, num_classes, shape=shape, overlap=grid.overlap)


def overlaps(counts: np.ndarray) -> dict[str, float]:
    """Mean Dice over the defined pairs of case and class, and the IoU of the set; NaN where nothing is defined.

    Args:
      counts: `[N,K,3]` of all validation cases.
    """
    dice = np.asarray(overlap.dice_from_counts(jnp.asarray(counts)))
    defined = dice[~np.isnan(dice)]
    return {
        "dice": float(defined.mean(dtype=np.float64)) if defined.size else float("nan"),
        "miou": overlap.mean_iou([counts]).mean,
    }


class Data:
    """The cases that a config asks for.

    Attributes:
      grid: their geometry.
      fingerprints: of the cases, for `claim`.
      num_channels: C.
      sharded: whether every device holds a part of the cases, instead of all.
    """

    def __init__(self, config: ml_collections.ConfigDict, splits: Splits, folder: pathlib.Path | None = None):
        """Decodes them, if they are to be in memory; raises InputError when a batch is more than all.

        Cases of several sizes that are to be streamed are decoded into a `folder` and mapped from there.
        """
        self._config = config
        self._splits = splits
        self.grid = inputs.of_config(config).grid
        residence = self._residence()
        resident, self.sharded = residence in ("device", "sharded"), residence == "sharded"
        mapped = folder and folder / "cases" if residence == "stream" else None
        listed = lambda split: splits.listed(split, folder=mapped)
        whole = splits.__getitem__ if resident else splits.open
        source: Callable[[str], Any] = whole if self.grid.one_size else listed
        self._sources = {"train": source("train"), "validation": source("validation")}
        if self.several_sizes and parallel.is_main():
            sizes = {size for source in self._sources.values() for size in pipeline.sizes_of(source) or ()}
            print(f"{config.data.dataset}: {len(sizes)} sizes of cases, so as many programs", file=sys.stderr)
        self.fingerprints = {
            name if resident else f"records of {name}": source.fingerprint for name, source in self._sources.items()
        }
        self.num_channels = self._sources["train"].num_channels
        training = min((self._cases(config, fold)[0] for fold in range(max(config.data.folds, 1))), key=len)
        self.steps_per_epoch = len(training) // config.training.batch_size
        if not self.steps_per_epoch:
            raise InputError(
                f"config.training.batch_size is {config.training.batch_size}, {training.name} has {len(training)} "
                "cases to train on; it can be at most that"
            )

    @property
    def validation_names(self) -> Sequence[str]:
        """Names of the cases of the source of validation; read only where they decide what is seen of a case."""
        if self._config.data.view == "original":
            return ()
        return self._splits.pool.cases if self._config.data.folds else self._sources["validation"].cases

    def note(self, folder: pathlib.Path) -> None:
        """Writes into the folder of a run what its network will take and give, for use where the data set is not."""
        if parallel.is_main() and contract.noted(folder) is None:
            with contextlib.suppress(InputError, ValueError):  # of a data set that is too old, or in memory alone
                contract.note(folder, contract.of_split(self._splits.open("train")))

    def member(self, config: ml_collections.ConfigDict) -> programs.Member:
        """The cases of one run, with their order."""
        return programs.Member(*self._cases(config, config.data.fold), seed=config.seed)

    def _cases(self, config: ml_collections.ConfigDict, fold: int) -> tuple[programs.Cases, programs.Cases]:
        if not config.data.folds:
            train, validation = (
                programs.Cases(source, np.arange(len(source), dtype=np.int32)) for source in self._sources.values()
            )
            if isinstance(self.grid, grids.Patches):
                train = dataclasses.replace(train, patches=self.grid)
            return train, validation
        held_out = self._folds == fold
        chosen = (np.flatnonzero(where).astype(np.int32) for where in (~held_out, held_out))
        train, validation = (programs.Cases(self._splits.pool, index) for index in chosen)
        return train, validation

    @functools.cached_property
    def _folds(self) -> np.ndarray:
        pool = self._splits.pool
        strata = folds.foreground_strata(pool.labels)
        # folds belong to the data set, not to a run: replicas with other seeds keep their folds
        return folds.stratified_folds(strata, np.array(pool.patients), folds=self._config.data.folds, seed=0)

    @property
    def several_sizes(self) -> bool:
        """Whether batches come in several sizes."""
        return isinstance(self.grid, grids.Keep) and not self.grid.one_size

    def _residence(self) -> str:
        """Where the cases are: what is asked for, or of `auto` the first that fits; `memory` is the host's."""
        data = self._config.data
        if data.residence != "auto":
            return data.residence
        size = lambda: sum(self._splits.open(split).num_bytes for split in ("train", "validation"))
        if not self.grid.one_size:
            return "memory" if size() <= _SHARE_OF_MEMORY * parallel.host_memory() else "stream"
        if data.folds or self._config.replicas > 1:
            return "device"
        room = _SHARE_OF_MEMORY * parallel.device_memory()
        if size() <= room:
            return "device"
        # devices of a CPU share its memory
        shards = jax.device_count() if self._config.parallel == "jit" and jax.default_backend() != "cpu" else 1
        return "sharded" if size() <= shards * room else "stream"


@in_32_bits
def fit_members(
    config: ml_collections.ConfigDict, task: Task, data: Data, folder: pathlib.Path, *, keep_every: int = 0
) -> None:
    """Trains the run that a config describes, or its replicas; see `train`."""
    configs, places = zip(*member_runs(config, folder), strict=True)
    lengths = {
        "steps_per_epoch": data.steps_per_epoch,
        "total_steps": config.training.epochs * data.steps_per_epoch,
    }
    optimizer = checks.optimizer(config.training, **lengths)
    # one compiled program instead of hundreds of small ones, and the same for every member
    create = jax.jit(
        lambda data: state.create(jax.random.wrap_key_data(data), task.module, optimizer, task.input_shape),
        out_shardings=parallel.replicated(),
    )
    fresh = [create(np.asarray(jax.random.key_data(jax.random.key(member.seed)))) for member in configs]
    if not all(has_steps(place / "checkpoints") for place in places):
        fresh = [task.start(member) for member in fresh]
    fresh = [member.replace(frozen=parallel.place_state(task.frozen)) for member in fresh]
    for place, member in [(folder, config), *zip(places, configs, strict=True)]:
        claim(place, member, data=data.fingerprints)
        data.note(place)
    training, axis = config.training, parallel.AXIS if config.parallel == "pmap" else None
    train_step = steps.make_train_step(
        task.objective,
        optimizer,
        augment.training_view(
            config.data.view, size=inputs.resized_to(config), augmentation=config.data.augmentation.to_dict()
        ),
        accumulate=training.accumulate,
        on_nonfinite=config.on_nonfinite,
        axis=axis,
    )
    program = programs.Program(
        [data.member(member) for member in configs],
        train_step,
        task.eval_step,
        batch_size=training.batch_size,
        layout=config.parallel,
        sharded=data.sharded,
        whole_cases=task.whole_cases,
        compiler_options=dict(task.compiler_options) | parallel.deterministic_options(config.deterministic),
    )
    on_cpu = jax.default_backend() == "cpu"
    loop = Loop(
        program=program,
        summarise=task.summarise,
        selection=task.selection,
        patience=training.patience,
        total_steps=lengths["total_steps"],
        evaluate_every=training.evaluate_every * data.steps_per_epoch,
        save_every=training.save_every,
        # on CPU a call is cheap beside a step, and several steps in one call would be compiled one after the other; of
        # several sizes, calls would have so many steps of each
        steps_per_call=training.steps_per_call or (1 if on_cpu or data.several_sizes else _STEPS_PER_CALL),
        learning_rate=checks.learning_rate(training, **lengths),
        skip_nonfinite=config.on_nonfinite == "skip",
        tensors=steps.tensor_names(fresh[0].params),
        name=folder.name,
        keep_every=keep_every * data.steps_per_epoch,
    )
    values = [{"config": json.loads(member.to_json()), "versions": provenance.versions()} for member in configs]
    fit(loop, fresh, places, values)
    if len(places) > 1 and parallel.is_main() and not (folder / "summary.json").exists():
        summaries = {place.name: json.loads((place / "summary.json").read_bytes()) for place in places}
        atomic.write_json(folder / "summary.json", summaries)


def member_runs(
    config: ml_collections.ConfigDict, folder: pathlib.Path
) -> list[tuple[ml_collections.ConfigDict, pathlib.Path]]:
    """Config and folder of every replica, as of a run of its own; of a single run, its own."""
    if config.replicas == 1:
        return [(config, folder)]
    members = []
    for i in range(config.replicas):
        member = config.copy_and_resolve_references().unlock()
        member.replicas = 1
        if config.vary == "seed":
            member.seed = config.seed + i
        else:
            member.data.fold = i
        members.append((member.lock(), folder / f"replica_{i}"))
    return members


@in_32_bits
def load_best(
    config: ml_collections.ConfigDict, folder: pathlib.Path, image_shape: tuple[int, ...], num_classes: int
) -> tuple[UNetSkeleton, dict[str, Any], dict[str, float]]:
    """The network of a run with the variables of its best checkpoint, and that checkpoint's step and Dice.

    Args:
      config: of the run.
      folder: of the run.
      image_shape: `[B,S,S,C]` of stored cases, or `[B,S,S,S,C]`, of whatever size; the network's is in the config.
      num_classes: K.
    """
    model = checks.build_model(config, num_classes)
    sides = inputs.sides(config, len(image_shape) - 2)
    like = tracing.variable_shapes(model, (1, *sides, image_shape[-1]))
    step, best, score = restore_best(folder, like)
    return model, best, {"step": step, f"validation_{config.training.selection}": score}


def best_network(
    config: ml_collections.ConfigDict, folder: pathlib.Path, image_shape: tuple[int, ...], num_classes: int
) -> tuple[LinenNetwork, dict[str, float]]:
    """The best checkpoint of a run as a network, and its step and Dice; see `load_best`."""
    model, variables, best = load_best(config, folder, image_shape, num_classes)
    sides = inputs.sides(config, len(image_shape) - 2)
    return of_linen(model, variables, image_size=sides, channels=image_shape[-1]), best


@in_32_bits
def restore_best(folder: pathlib.Path, like: Mapping[str, Any]) -> tuple[int, dict[str, Any], float]:
    """Step, the part of the state that `like` names, and the score (NaN if undefined) of a run's best checkpoint."""
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_best(like)


@in_32_bits
def restore_kept(folder: pathlib.Path, like: Mapping[str, Any], *, every: int) -> dict[int, dict[str, Any]]:
    """Step -> the part of the state that `like` names, of the checkpoints at multiples of `every` steps, ascending."""
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        steps = [step for step in checkpoints.steps if step % every == 0]
        return {step: checkpoints.restore(step, like)[0] for step in steps}


def claim(folder: pathlib.Path, config: ml_collections.ConfigDict, *, data: Mapping[str, str] | None = None) -> None:
    """Marks `folder` as belonging to `config` and data, in `config.json` and `data.json`.

    Args:
      folder: of a run or a study; created if need be.
      config: of it.
      data: split -> fingerprint of its cases; None checks the config alone and writes nothing.

    Raises:
      InputError: it belongs to another config (the message names the first field that differs) or was made with other
        cases, or it cannot be read or written.
    """
    wanted = json.loads(config.to_json())  # as a file gives it back: tuples are lists
    found = _completed(_stored(folder / "config.json", wanted))
    for name, before, now in _differences(found, _completed(wanted), "config"):
        if name in _PLACES:
            continue
        raise InputError(
            f"{folder} belongs to another config: {name} is {before!r} there and {now!r} here; "
            "choose another work directory or the same config"
        )
    if data is None:
        return
    stored = _stored(folder / "data.json", data)
    for name in sorted(stored.keys() & data.keys()):  # fingerprints in memory and on disk differ in name
        if stored[name] != data[name] and (name == "network" or name.startswith("member_")):
            raise InputError(
                f"{folder} was made with another network; choose another work directory, or the same network"
            )
        if stored[name] != data[name]:
            raise InputError(
                f"{folder} was made with other data: {name} differs; choose another work directory, or the same "
                "--data_dir"
            )
    if parallel.is_main():
        _write_claim(folder, {"config.json": wanted, "data.json": data})
    parallel.barrier(f"claim {folder}")


def _write_claim(folder: pathlib.Path, files: Mapping[str, Any]) -> None:
    try:
        for name, value in files.items():
            if not (folder / name).exists():
                atomic.write_json(folder / name, value, sort_keys=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another work directory") from error


def _stored(path: pathlib.Path, default: Any) -> Any:
    if not paths.exists(path):
        return default
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read here ({error}); see to its rights, or choose another work directory"
        ) from error


def read_config(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run in `folder`.

    Raises:
      InputError: there is no run, or its config cannot be read.
    """
    config = stored_config(folder, "holds no training run; make one with python -m launch.train")
    checks.check_fields(config)
    return config.lock()


def stored_config(folder: pathlib.Path, absent: str) -> ml_collections.ConfigDict:
    """The config that `claim` left in `folder`; raises InputError, with the text `absent` where there is none."""
    path = folder / "config.json"
    try:
        return ml_collections.ConfigDict(_completed(json.loads(path.read_bytes())))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder} {absent}") from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read here ({error}); see to its rights and to what it holds") from error


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A stored config with the fields that its version did not have."""
    return config | {"data": inputs.completed(config["data"])} if "data" in config else config


def _differences(stored: Any, wanted: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for name in sorted(stored.keys() | wanted.keys()):
            yield from _differences(stored.get(name), wanted.get(name), f"{prefix}.{name}")
    elif stored != wanted:
        yield prefix, stored, wanted
