# SPDX-License-Identifier: Apache-2.0
"""Write checkpoints to a folder, and list those in it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import jax

from .._arguments import PATH, check_kind
from .._compressor import PyTree
from .._lock import FolderLock
from ._errors import CheckpointError, whole_number
from ._leaves import CHECKSUMS, checksums, named

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_DELETED = ".deleted"  # what follows the step in the name of a folder being deleted
# Folders of killed runs: of orbax, which writes under this name, and of a deletion.
_LEFT_OVER = re.compile(r"\d+(\.orbax-checkpoint-tmp(-\d+)?|\.deleted)")


def save_checkpoint(
    directory: str | os.PathLike[str],
    step: SupportsIndex,
    state: PyTree,
    *,
    keep: SupportsIndex = 2,
) -> None:
    """Save a pytree, such as a ``TrainState``, as the checkpoint of a training step.

    The call returns once the checkpoint is on disk. Until then it has a temporary name,
    so a run that is killed still finds the previous checkpoint; the next call removes
    what was left unfinished. A checksum of every leaf is saved with it. (Arrays spread
    over several processes have none.)

    Args:
      directory: checkpoint folder, created if missing. Each run needs its own.
      step: number of the checkpoint, not negative and greater than all existing ones.
      state: any pytree of arrays and numbers, including typed PRNG keys.
      keep: number of newest checkpoints to keep, at least 1.

    Raises:
      CheckpointError: if the directory cannot be written, the disk is full, another
        process is saving to it, a leaf is not an array or a number, or the directory
        already holds this step or a later one. Existing checkpoints are not changed.
      TypeError: if ``step`` or ``keep`` is not a whole number.
      ValueError: if ``step`` is negative, or ``keep`` is below 1.
    """
    import orbax.checkpoint as ocp

    check_kind(
        directory, PATH, "save_checkpoint(directory, step, state)", "a path first"
    )
    step, keep = whole_number("step", step, 0), whole_number("keep", keep, 1)
    leaves = named(state)
    leaves[CHECKSUMS] = checksums(leaves)
    with _explained(directory, step):
        os.makedirs(directory, exist_ok=True)
        with FolderLock(directory) as lock:
            if jax.process_index() == 0 and not lock.take():
                raise CheckpointError(
                    f"another process is saving a checkpoint to {directory}, so step "
                    f"{step} was not saved. Use another folder for each run."
                )
            steps = checkpoint_steps(directory)
            # Replacing a checkpoint would leave a moment without any.
            if steps and step <= steps[-1]:
                raise CheckpointError(
                    f"{directory} already holds a checkpoint of step {steps[-1]}, so step "
                    f"{step} was not saved. Continue that run with restore_checkpoint, or "
                    "use another folder for a new run or one that runs at the same time."
                )
            _remove_left_over(directory)
            try:
                with manager(directory, create=True) as writer:
                    writer.save(step, args=ocp.args.StandardSave(leaves))
                    writer.wait_until_finished()
            except Exception:
                _remove_left_over(directory)
                raise
            _remove_old(directory, [*steps, step][:-keep])


def checkpoint_steps(directory: str | os.PathLike[str]) -> list[int]:
    """List the steps with a complete checkpoint, oldest first; [] without a directory."""
    import orbax.checkpoint as ocp

    if not os.path.isdir(directory):
        return []
    return sorted(ocp.utils.checkpoint_steps(os.path.abspath(directory)))


@contextlib.contextmanager
def manager(
    directory: str | os.PathLike[str], *, create: bool = False
) -> Iterator[ocp.CheckpointManager]:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        create=create,
        # Synchronous, because the states of this library are small and a caller must be
        # able to rely on a saved step.
        enable_async_checkpointing=False,
    )
    with ocp.CheckpointManager(
        os.path.abspath(directory),
        options=options,
        item_handlers=ocp.StandardCheckpointHandler(),
    ) as made:
        yield made


@contextlib.contextmanager
def _explained(directory: str | os.PathLike[str], step: int) -> Iterator[None]:
    """Turn the errors of orbax and of the file system into ours."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        text, number = str(error), getattr(error, "errno", None)
        is_full = number in (errno.ENOSPC, errno.EDQUOT) or (
            "RESOURCE_EXHAUSTED" in text or "No space left" in text
        )
        if is_full:
            reason = "the disk is full. Free space, or lower keep="
        elif isinstance(error, OSError):
            reason = (
                f"cannot use the folder ({error.strerror or error}). Check that it is a "
                "folder and that you may write to it"
            )
        else:
            reason = f"{type(error).__name__}: {text[:300]}"
        raise CheckpointError(
            f"step {step} was not saved to {directory}: {reason}. Existing checkpoints "
            "are not changed."
        ) from error


def _remove_left_over(directory: str | os.PathLike[str]) -> None:
    """Delete unfinished folders. The caller has the lock, so nobody is writing them."""
    if jax.process_index() == 0:
        for path in Path(directory).iterdir():
            if _LEFT_OVER.fullmatch(path.name) and not path.is_symlink():
                shutil.rmtree(path)


def _remove_old(directory: str | os.PathLike[str], steps: list[int]) -> None:
    if jax.process_index() == 0:
        for step in steps:
            path = Path(directory) / str(step)
            # Rename first: a kill must not leave half a checkpoint under its name.
            shutil.rmtree(path.rename(path.with_name(path.name + _DELETED)))
