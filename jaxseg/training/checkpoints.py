"""The newest checkpoints and the best one of a run, with orbax: written beside the training, whole or not at all."""

import contextlib
import itertools
import json
import logging
import math
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxseg import paths
from jaxseg.errors import InputError, LostProcess
from jaxseg.training import fitting, parallel, stored

_ROOM_FOR_THE_REST = 1_000_000  # bytes of names, values and the file system's own


class Damaged(InputError):
    """The bytes of a checkpoint are proven not to be what was written."""


class Checkpoints:
    """Keeps the two newest steps and the one with the highest score under `folder`; saves in the background.

    A checkpoint holds a pytree of arrays, a checksum of each, and a mapping of plain values. A save counts when it was
    read back, and only then does an older one go; the second newest is what a run falls back to when the newest turns
    out to be damaged. Use as a context manager: leaving it waits for the writes.
    """

    def __init__(self, folder: pathlib.Path, *, read_only: bool = False, keep_every: int = 0):
        """Opens the folder.

        Args:
          folder: created if need be.
          read_only: for looking at a run that may be training: nothing is created, removed or renamed.
          keep_every: steps that are multiples of it are kept too; 0 for none.

        Raises:
          InputError: it cannot be created or read, or is a file.
        """
        # orbax reports every save at warning level, and with the stacks of its threads what is raised here as well
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        if paths.exists(folder) and not paths.is_folder(folder):
            raise InputError(f"{folder}: is a file where checkpoints belong; choose another work directory")
        self._folder = folder
        self._keep_every = keep_every
        self._read_only = read_only
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._saves = 0
        if read_only and not paths.is_folder(folder):
            raise InputError(f"{folder} holds no checkpoint; train the run first")
        try:
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True)
            self._place = paths.Literal(folder)
        except OSError as error:
            raise (_unreadable(folder, error) if read_only else _unwritable(folder, error)) from error
        self._manager = self._opened()
        # read once, so that all processes prune alike; of a damaged step it is unknown
        self._scores: dict[int, float | None] = {}
        for step in self.steps:
            with contextlib.suppress(Exception):  # whoever wants the step says what is the matter with it
                self._scores[step] = stored.score(self._place.path / str(step))
        parallel.barrier(f"scores {folder}")  # all have looked before one changes anything

    def _opened(self) -> ocp.CheckpointManager:
        try:
            return ocp.CheckpointManager(
                self._place.path,
                options=ocp.CheckpointManagerOptions(
                    # nothing is removed before a later step was read back: see `_prune`
                    preservation_policy=None if self._read_only else preservation_policy.PreserveAll(),
                    lightweight_initialize=True,  # else one score that cannot be read keeps all from being opened
                    cleanup_tmp_directories=not self._read_only,
                    read_only=self._read_only,
                ),
            )
        except Exception as error:
            raise _unreadable(self._folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if isinstance(error, LostProcess):  # a save would wait for it
            return
        try:
            self.wait()
        except InputError:
            if error is None:  # the first error is the one that is reported
                raise
        finally:
            self._manager.close()

    @property
    def name(self) -> str:
        """Of the run."""
        return self._folder.parent.name

    @property
    def steps(self) -> list[int]:
        """The steps that are there, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: Any, values: Mapping[str, Any], *, step: int, score: float | None) -> None:
        """Begins to save after `step` updates, once the save before it is done; `state` may be changed at once.

        An existing checkpoint of that step, left by a save that the kill of a replica made useless, is replaced.

        Args:
          state: a pytree of arrays.
          values: what JSON can hold.
          step: names the checkpoint.
          score: the higher the better; None never counts as best.

        Raises:
          InputError: this save or the one before cannot be written.
        """
        self._check_room(state)
        self.wait()
        if step in self.steps:
            self._manager.delete(step)
        held = {"values": dict(values), "checksums": checksums(state), "score": score}
        content = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            values=ocp.args.JsonSave(held),
            metrics=ocp.args.JsonSave({"score": stored.UNDEFINED if score is None else score}),  # for earlier versions
        )
        with self._failures_said():
            self._manager.save(step, args=content, force=True)
        self._pending, self._scores[step] = (step, held), score

    def _check_room(self, state: Any) -> None:
        """Raises InputError where there is none; checked beforehand, as tensorstore's errors are long and unclear."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _ROOM_FOR_THE_REST
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise InputError(
                f"{self._folder}: a checkpoint takes up to {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; make "
                "room there and give the same command again: the run resumes from the last checkpoint"
            )

    def wait(self) -> None:
        """Returns when everything is on the disk and was read back; raises InputError where that cannot be."""
        with self._failures_said():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        if self._pending is None:
            return
        (step, held), self._pending, self._saves = self._pending, None, self._saves + 1
        if parallel.is_main():
            self._read_back(step, held)
        parallel.barrier(f"read back {self._folder} {step} {self._saves}")
        self._prune()

    @contextlib.contextmanager
    def _failures_said(self) -> Iterator[None]:
        try:
            yield
        except jax.errors.JaxRuntimeError:  # another process is lost
            raise
        except (OSError, ValueError, RuntimeError) as error:  # tensorstore raises ValueError on a full disk
            raise _unwritable(self._folder, error) from error

    def _read_back(self, step: int, held: Mapping[str, Any]) -> None:
        """Seals a checkpoint that holds what was saved; raises InputError where it does not."""
        place = self._place.path / str(step)
        try:
            if _as_text(stored.values(place)) != _as_text(held):
                raise stored.Changed("its values are not what was saved")
            stored.check(stored.arrays(place), held["checksums"])
            stored.seal(place)
        except Exception as error:  # tensorstore raises nearly anything
            raise InputError(
                f"{self._folder / str(step)}: was saved but cannot be read back ({self._reason(error)}); the older "
                "checkpoints are kept: see to the disk and give the same command again"
            ) from error

    def _prune(self) -> None:
        """Removes what is neither one of the two newest, nor the best, nor to stay."""
        steps = self.steps
        unknown = set(steps) - self._scores.keys()  # one of them may be the best
        keep = {*steps[-2:], *self._ranked()[:1], *unknown}
        for step in steps:
            if step not in keep and not (self._keep_every and step % self._keep_every == 0):
                with self._failures_said():
                    self._manager.delete(step)

    def _ranked(self) -> list[int]:
        """The steps whose score is known or undefined, the best first; of equals, the newest."""
        rank = lambda step: (-math.inf if self._scores[step] is None else self._scores[step], step)
        return sorted(self._scores, key=rank, reverse=True)

    def progress(self, step: int, *, kind: Callable[..., Any] = dict) -> Any:
        """The value `progress` of a step, without its state, as the keyword arguments of `kind`; see `restore`."""
        try:
            held = stored.values(self._place.path / str(step))
            try:
                return kind(**held["values"]["progress"])
            except (LookupError, TypeError) as error:
                raise stored.Changed("values/metadata holds no progress") from error
        except Exception as error:
            raise self._told(step, error) from error

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """State and values of a step.

        The arrays are read with the dtypes that they were written with, and compared with their checksums, before
        anything is made of them.

        Args:
          step: one of `steps`.
          like: pytree with the structure, shapes and types of the state; where a mapping, of the part that is wanted.

        Raises:
          Damaged: its bytes are not what was written.
          InputError: it cannot be read here, or holds another network or optimiser.
        """
        place = self._place.path / str(step)
        try:
            held = stored.values(place)
            values, sums = held["values"], held["checksums"]
            part = stored.by_name(like).keys() if isinstance(like, Mapping) else None
            arrays = stored.arrays(place, wanted=part)
            stored.check(arrays, sums, wanted=part)
        except Exception as error:  # tensorstore raises nearly anything for a damaged file
            raise self._told(step, error) from error
        return fitting.fitted(self._folder / str(step), arrays, like), values

    def restore_best(self, like: Any) -> tuple[int, Any, float]:
        """Step, state and score (NaN if undefined) of the step with the highest score; see `restore`.

        A damaged step does not count, and a line on stderr says so.

        Raises:
          Damaged: all steps are.
          InputError: there is none, or the best cannot be read here.
        """
        damaged = self._without_scores()
        for step in self._ranked():
            try:
                state, _ = self.restore(step, like)
            except Damaged as error:
                damaged.append(error)
                continue
            if parallel.is_main():
                for one in damaged:
                    print(f"{str(one).partition(';')[0]}; it does not count, step {step} does", file=sys.stderr)
            score = self._scores[step]
            return step, state, math.nan if score is None else score
        raise damaged[0] if damaged else InputError(f"{self._folder} holds no checkpoint; train the run first")

    def _without_scores(self) -> list[Damaged]:
        """What is said of the steps whose score is not known; raises InputError where one is not damaged."""
        damaged = []
        for step in self.steps:
            # a run that is training may have removed it by now
            if step not in self._scores and paths.exists(self._folder / str(step)):
                try:
                    self._scores[step] = stored.score(self._place.path / str(step))
                except Exception as error:
                    told = self._told(step, error)
                    if not isinstance(told, Damaged):
                        raise told from error
                    damaged.append(told)
        return damaged

    def set_aside(self, step: int) -> pathlib.Path:
        """Renames a step, so that it is no longer one of `steps` and another can take its place; the new path.

        Raises:
          InputError: that cannot be done here.
        """
        try:
            aside = _set_aside(self._folder, step)
        except OSError as error:
            raise InputError(
                f"{self._folder / str(step)}: is damaged and cannot be set aside ({_reason(error)}); see to the rights "
                f"of {self._folder} and give the same command again"
            ) from error
        parallel.barrier(f"aside {self._folder} {step}")
        self._scores.pop(step, None)
        self._manager.close()
        self._manager = self._opened()
        return aside

    def fall_back(self, error: InputError, steps: Sequence[int]) -> None:
        """Sets the last of `steps` aside and says so; raises `error` if it is no proof of damage, or the only step."""
        if not isinstance(error, Damaged) or len(steps) == 1:
            raise error
        aside = self.set_aside(steps[-1])
        if parallel.is_main():
            reason, before = str(error).partition(";")[0], f"the run resumes from step {steps[-2]}"
            print(f"{reason}; it is now {aside.name}, and {before}", file=sys.stderr)

    def _told(self, step: int, error: Exception) -> InputError:
        """What is said of a step that raised `error` when it was read."""
        where = self._folder / str(step)
        if proof := stored.damage(self._place.path / str(step), error):
            return Damaged(
                f"{where}: is damaged ({proof}); move that folder away to resume from an older checkpoint, or "
                "choose another work directory to start anew"
            )
        writer = stored.other_writer(self._place.path / str(step))
        writer_note = f" (it was written by orbax {writer[0]}, here is {writer[1]})" if writer else ""
        return InputError(
            f"{where}: cannot be read here: {self._reason(error)}{writer_note}; nothing was changed: fix that and give "
            "the same command again"
        )

    def _reason(self, error: Exception) -> str:
        return _reason(error).replace(str(self._place.path), str(self._folder))


def restore_newest(members: Sequence[Checkpoints], like: Any) -> tuple[list[tuple[Any, dict[str, Any]]], int]:
    """What all `members` hold at the newest step that all have undamaged, and that step; nothing and 0 without one.

    Damaged steps are set aside with a line on stderr. Nothing is removed: replicas that were killed together are one
    save apart at most, and what one has beyond the others it saves again.

    Raises:
      InputError: there are checkpoints, and all are damaged, or the members are further apart than a kill explains.
    """
    while steps := sorted(set.intersection(*(set(member.steps) for member in members))):
        restored = []
        for member in members:
            try:
                restored.append(member.restore(steps[-1], like))
            except InputError as error:
                member.fall_back(error, steps)
                break
        else:
            if any(sum(step > steps[-1] for step in member.steps) > 1 for member in members):
                raise _apart(members)
            return restored, steps[-1]
    # killed in the first save, some may have it and others not
    if not (all(len(member.steps) <= 1 for member in members) and any(not member.steps for member in members)):
        raise _apart(members)
    return [], 0


def _apart(members: Sequence[Checkpoints]) -> InputError:
    steps = "; ".join(f"{member.name} has {', '.join(map(str, member.steps)) or 'none'}" for member in members)
    return InputError(
        f"the replicas are at different steps ({steps}), so they cannot resume together; resume each alone, giving "
        "its folder as --workdir and its own config, or choose another work directory"
    )


def _set_aside(folder: pathlib.Path, step: int) -> pathlib.Path:
    names = itertools.chain([f"damaged_{step}"], (f"damaged_{step}_{number}" for number in itertools.count(2)))
    aside = next(folder / name for name in names if not paths.exists(folder / name))
    if parallel.is_main():
        (folder / str(step)).rename(aside)
    return aside


def has_steps(folder: pathlib.Path) -> bool:
    """Whether `folder` holds a checkpoint, without opening it."""
    return paths.is_folder(folder) and any(child.name.isdigit() for child in paths.children(folder))


def checksums(state: Any) -> dict[str, int]:
    """A checksum for every array of a pytree by its path: any change of one word of it shows."""
    return {name: int(value) for name, value in jax.device_get(_checksums(stored.by_name(state))).items()}


@jax.jit
def _checksums(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _checksum(leaf) for name, leaf in leaves.items()}


def _checksum(x: jax.Array) -> jax.Array:
    """The words of an array, each times its own odd number, summed modulo 2^32; on the device, where the array is."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    words = jnp.ravel(x).view(f"uint{8 * min(x.dtype.itemsize, 4)}").astype(jnp.uint32)
    odd = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
    return jnp.sum(words * odd, dtype=jnp.uint32)


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _unwritable(folder: pathlib.Path, error: Exception) -> InputError:
    return InputError(
        f"{folder}: a checkpoint cannot be written ({_reason(error)}); make room there or see to its rights, and "
        "give the same command again: the run resumes from the last checkpoint"
    )


def _unreadable(place: pathlib.Path, error: Exception) -> InputError:
    return InputError(f"{place}: cannot be read here: {_reason(error)}; see to its rights and to the disk")


def _reason(error: Exception) -> str:
    # tensorstore and orbax wrap the system's reason into long texts
    text = " ".join(str(link) for link in (error, error.__cause__, error.__context__) if link)
    reason = getattr(error, "strerror", None) or stored.reason_of_system(text)
    return " ".join((reason or f"{type(error).__name__}: {text[:200]}").split())
