"""The newest checkpoints and the best one of a run, with orbax: written beside the training, whole or not at all."""

import itertools
import json
import logging
import math
import pathlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxseg.errors import InputError, LostProcess
from jaxseg.training import parallel

_ROOM_FOR_THE_REST = 1_000_000  # bytes of names, values and the file system's own
_UNDEFINED = -1e300  # the score of a step that was not validated, or has no defined Dice: never the best


class Checkpoints:
    """Keeps the two newest steps and the one with the highest score under `folder`; saves in the background.

    A checkpoint holds a pytree of arrays, a checksum of each, and a mapping of plain values. The second newest is what
    a run falls back to when the newest turns out to be damaged. Use as a context manager: leaving it waits for the
    writes.
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
        score = lambda metrics: metrics["score"]
        # max_to_keep together with best_fn would delete the newest step when it scores badly
        policies: list[preservation_policy.PreservationPolicy] = [
            preservation_policy.LatestN(n=2),
            preservation_policy.BestN(n=1, get_metric_fn=score),
        ]
        if keep_every:
            policies.append(preservation_policy.EveryNSteps(interval_steps=keep_every))
        keep = preservation_policy.AnyPreservationPolicy(policies)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file where checkpoints belong; remove it")
        self._folder = folder
        if read_only and not folder.is_dir():
            raise InputError(f"{folder} holds no checkpoint; train the run first")
        if not read_only:
            _set_aside_unscored(folder)
        try:
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                options=ocp.CheckpointManagerOptions(
                    best_fn=score,
                    best_mode="max",
                    preservation_policy=None if read_only else keep,
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                ),
            )
        except OSError as error:
            raise _unwritable(folder, error) from error
        except ValueError as error:  # the scores of all steps are read here
            raise InputError(
                f"{folder}: a checkpoint's score is damaged; going on with the run sets it aside"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if isinstance(error, LostProcess):  # a save would wait for it
            return
        try:
            self.wait()
        except InputError:
            if error is None:  # what went wrong first is what is told
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

        A checkpoint of that step which is there already, from a save that a replica's kill made useless, is replaced.

        Args:
          state: a pytree of arrays.
          values: what JSON can hold.
          step: names the checkpoint.
          score: the higher the better; None never counts as best.

        Raises:
          InputError: this save or the one before cannot be written.
        """
        self._check_room(state)
        if step in self.steps:
            self._manager.delete(step)
        content = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            values=ocp.args.JsonSave({"values": dict(values), "checksums": checksums(state)}),
        )
        try:
            self._manager.save(
                step, metrics={"score": _UNDEFINED if score is None else score}, args=content, force=True
            )
        except jax.errors.JaxRuntimeError:  # another process is lost
            raise
        except (OSError, ValueError, RuntimeError) as error:  # tensorstore raises ValueError on a full disk
            raise _unwritable(self._folder, error) from error

    def _check_room(self, state: Any) -> None:
        """Raises InputError where there is none: asked beforehand, as tensorstore's threads fail with many words."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _ROOM_FOR_THE_REST
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise InputError(
                f"{self._folder}: a checkpoint takes up to {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; make "
                "room there and give the same command again: the run goes on from the last checkpoint"
            )

    def wait(self) -> None:
        """Returns when everything is on the disk; raises InputError where that cannot be."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except jax.errors.JaxRuntimeError:  # another process is lost
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise _unwritable(self._folder, error) from error

    def progress(self, step: int) -> dict[str, Any]:
        """The value `progress` of a step, without its state; see `restore`."""
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(values=ocp.args.JsonRestore()))
            return found["values"]["values"]["progress"]
        except Exception as error:
            raise self._damaged(step, type(error).__name__) from error

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """State and values of a step.

        Args:
          step: one of `steps`.
          like: pytree with the structure, shapes and types of the state; where a mapping, of the part that is wanted.

        Raises:
          InputError: it is damaged.
        """
        abstract = _abstract(like)
        placed = ocp.checkpoint_utils.construct_restore_args(abstract)  # else orbax asks the file, and warns
        content = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(abstract, restore_args=placed, partial_restore=isinstance(like, Mapping)),
            values=ocp.args.JsonRestore(),
        )
        try:
            found = self._manager.restore(step, args=content)
            state, stored = found["state"], found["values"]
            wrong = [name for name, value in checksums(state).items() if stored["checksums"][name] != value]
        except Exception as error:  # tensorstore and orbax raise nearly anything for a damaged file
            raise self._damaged(step, type(error).__name__) from error
        if wrong:
            raise self._damaged(step, f"{wrong[0]} is not what was saved")
        return state, stored["values"]

    def restore_best(self, like: Any) -> tuple[int, Any, float]:
        """Step, state and score (NaN if undefined) of the step with the highest score; see `restore`."""
        step = self._manager.best_step()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint; train the run first")
        metrics = self._manager.metrics(step)
        assert metrics is not None  # every save passes them
        score = float(metrics["score"])
        return step, self.restore(step, like)[0], math.nan if score == _UNDEFINED else score

    def set_aside(self, step: int) -> pathlib.Path:
        """Renames a step, so that it is no longer one of `steps` and another can take its place; the new path."""
        aside = _set_aside(self._folder, step)
        parallel.barrier(f"aside {self._folder} {step}")
        self._manager.reload()
        return aside

    def fall_back(self, error: InputError, steps: Sequence[int]) -> None:
        """Sets the last of `steps`, which is damaged, aside and says so; raises `error` if it is the only one."""
        if len(steps) == 1:
            raise error
        aside = self.set_aside(steps[-1])
        if parallel.is_main():
            reason, before = str(error).partition(";")[0], f"the run goes on from step {steps[-2]}"
            print(f"{reason}; it is now {aside.name}, and {before}", file=sys.stderr)

    def _damaged(self, step: int, reason: str) -> InputError:
        return InputError(
            f"{self._folder / str(step)}: is damaged ({reason}); remove that folder to go on from an older checkpoint, "
            "or the run's folder to start anew"
        )


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
        f"the replicas are at different steps ({steps}), so they cannot go on together; go on with each alone, giving "
        "its folder as --workdir and its own config, or choose another work directory"
    )


def _set_aside_unscored(folder: pathlib.Path) -> None:
    """Sets steps aside whose score cannot be read: orbax reads all of them before anything else.

    Raises:
      InputError: there is no other step.
    """
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    damaged = [step for step in steps if not _is_scored(folder / str(step))]
    if damaged and damaged == steps:
        raise InputError(f"{folder / str(steps[-1])}: its score is damaged; remove the run's folder to start anew")
    parallel.barrier(f"scores {folder}")  # all have looked before one renames
    for step in damaged:
        aside = _set_aside(folder, step)
        if parallel.is_main():
            print(f"{folder / str(step)}: its score is damaged; it is now {aside.name}", file=sys.stderr)
    parallel.barrier(f"scored {folder}")


def _is_scored(step: pathlib.Path) -> bool:
    try:
        json.loads((step / "metrics" / "metrics").read_text())
    except FileNotFoundError:  # which orbax understands
        return True
    except (OSError, ValueError):
        return False
    return True


def _set_aside(folder: pathlib.Path, step: int) -> pathlib.Path:
    names = itertools.chain([f"damaged_{step}"], (f"damaged_{step}_{number}" for number in itertools.count(2)))
    aside = next(folder / name for name in names if not (folder / name).exists())
    if parallel.is_main():
        (folder / str(step)).rename(aside)
    return aside


def has_steps(folder: pathlib.Path) -> bool:
    """Whether `folder` holds a checkpoint, without opening it."""
    return folder.is_dir() and any(child.name.isdigit() for child in folder.iterdir())


def checksums(state: Any) -> dict[str, int]:
    """A checksum for every array of a pytree by its path: any change of one word of it shows."""
    named = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    return {name: int(value) for name, value in jax.device_get(_checksums(named)).items()}


def _name(path: Any) -> str:
    """The same for a part of a state as for the whole."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


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


def _unwritable(folder: pathlib.Path, error: Exception) -> InputError:
    # tensorstore and orbax wrap the system's reason into long texts
    text = " ".join(str(link) for link in (error, error.__cause__, error.__context__) if link)
    known = re.search(r"No space left on device|Disk quota exceeded|File too large|Read-only file system", text)
    reason = known[0] if known else getattr(error, "strerror", None) or f"{type(error).__name__}: {text[:200]}"
    return InputError(
        f"{folder}: a checkpoint cannot be written ({' '.join(reason.split())}); make room there and give the same "
        "command again: the run goes on from the last checkpoint"
    )


def _abstract(tree: Any) -> Any:
    replicated = parallel.replicated()
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype, sharding=replicated), tree)
