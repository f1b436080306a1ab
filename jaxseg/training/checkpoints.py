"""The newest checkpoints and the best one of a run, with orbax: written beside the training, whole or not at all."""

import logging
import pathlib
import re
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxseg.errors import InputError, LostProcess
from jaxseg.training import parallel

_UNDEFINED = -1e300  # the score of a step that was not validated, or has no defined Dice: never the best


class Checkpoints:
    """Keeps the two newest steps and the one with the highest score under `folder`; saves in the background.

    A checkpoint holds a pytree of arrays, a checksum of each, and a mapping of plain values. The second newest is what
    a run falls back to when the newest turns out to be damaged. Use as a context manager: leaving it waits for the
    writes.
    """

    def __init__(self, folder: pathlib.Path):
        """Opens the folder, and creates it if need be.

        Raises:
          InputError: it cannot be created, or is a file.
        """
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every save at warning level
        score = lambda metrics: metrics["score"]
        # max_to_keep together with best_fn would delete the newest step when it scores badly
        keep = preservation_policy.AnyPreservationPolicy(
            [preservation_policy.LatestN(n=2), preservation_policy.BestN(n=1, get_metric_fn=score)]
        )
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file where checkpoints belong; remove it")
        self._folder = folder
        try:
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                options=ocp.CheckpointManagerOptions(
                    best_fn=score, best_mode="max", preservation_policy=keep, cleanup_tmp_directories=True
                ),
            )
        except OSError as error:
            raise _unwritable(folder, error) from error

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
    def steps(self) -> list[int]:
        """The steps that are there, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: Any, values: Mapping[str, Any], *, step: int, score: float | None) -> None:
        """Begins to save after `step` updates, once the save before it is done; `state` may be changed at once.

        Args:
          state: a pytree of arrays.
          values: what JSON can hold.
          step: names the checkpoint.
          score: the higher the better; None never counts as best.

        Raises:
          InputError: this save or the one before cannot be written.
        """
        content = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            values=ocp.args.JsonSave({"values": dict(values), "checksums": checksums(state)}),
        )
        try:
            self._manager.save(
                step, metrics={"score": _UNDEFINED if score is None else score}, args=content, force=True
            )
        except (OSError, ValueError, RuntimeError) as error:  # tensorstore raises ValueError on a full disk
            raise _unwritable(self._folder, error) from error

    def wait(self) -> None:
        """Returns when everything is on the disk; raises InputError where that cannot be."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
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

    def restore_best(self, like: Any) -> tuple[int, Any, dict[str, Any]]:
        """Step, state and values of the step with the highest score; see `restore`."""
        step = self._manager.best_step()
        if step is None:
            raise InputError(f"{self._folder} holds no checkpoint; train the run first")
        return step, *self.restore(step, like)

    def set_aside(self, step: int) -> pathlib.Path:
        """Renames a step, so that it is no longer one of `steps` and another can take its place; the new path."""
        aside = self._folder / f"damaged_{step}"
        if parallel.is_main():
            number = 1
            while aside.exists():
                number += 1
                aside = self._folder / f"damaged_{step}_{number}"
            (self._folder / str(step)).rename(aside)
        parallel.barrier(f"aside_{step}")
        self._manager.reload()
        return aside

    def forget_after(self, step: int) -> None:
        """Removes later steps, which are about to be made again."""
        for later in self.steps:
            if later > step:
                self._manager.delete(later)

    def _damaged(self, step: int, reason: str) -> InputError:
        return InputError(
            f"{self._folder / str(step)}: is damaged ({reason}); remove that folder to go on from an older checkpoint, "
            "or the run's folder to start anew"
        )


def restore_newest(members: list[Checkpoints], like: Any) -> tuple[list[tuple[Any, dict[str, Any]]], int]:
    """What all `members` hold at the newest step that all have undamaged, and that step; nothing and 0 without one.

    Damaged steps are set aside with a line on stderr; replicas are killed together, so they are one save apart at most.

    Raises:
      InputError: there are checkpoints, and all are damaged.
    """
    while steps := sorted(set.intersection(*(set(member.steps) for member in members))):
        restored = []
        for member in members:
            try:
                restored.append(member.restore(steps[-1], like))
            except InputError as error:
                if len(steps) == 1:
                    raise
                aside = member.set_aside(steps[-1])
                if parallel.is_main():
                    reason, before = str(error).partition(";")[0], f"the run goes on from step {steps[-2]}"
                    print(f"{reason}; it is now {aside.name}, and {before}", file=sys.stderr)
                break
        else:
            for member in members:
                member.forget_after(steps[-1])
            return restored, steps[-1]
    for member in members:  # killed in the first save, one may have it already
        member.forget_after(0)
    return [], 0


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
