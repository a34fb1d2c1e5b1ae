# SPDX-License-Identifier: Apache-2.0
"""Read a checkpoint, and refuse one that is damaged or of another state."""

from __future__ import annotations

import os
from typing import Any, SupportsIndex

import numpy as np

from .._arguments import PATH, check_kind
from .._compressor import PyTree
from .._select import paths_and_leaves
from ._errors import CheckpointError, whole_number
from ._leaves import (
    CHECKSUMS,
    abstract,
    convert_like,
    damaged,
    name_of,
    named,
    signature,
)
from ._save import checkpoint_steps, manager


def restore_checkpoint(
    directory: str | os.PathLike[str],
    like: PyTree,
    *,
    step: SupportsIndex | None = None,
) -> PyTree:
    """Load a checkpoint bit for bit, to continue a training run.

    Args:
      directory: folder that ``save_checkpoint`` wrote to.
      like: pytree with the structure, shapes, dtypes and shardings to restore, such as a
        fresh ``init(params)``. Its values are not used.
      step: step to restore; None restores the newest.

    Returns:
      The saved state. Every leaf matches its checksum.

    Raises:
      CheckpointError: if the checkpoint does not exist, is damaged, or does not match
        ``like``. The message names the folder and the leaves. Nothing is deleted.
      TypeError: if ``step`` is not a whole number.
      ValueError: if ``step`` is negative.
    """
    check_kind(directory, PATH, "restore_checkpoint(directory, like)", "a path first")
    step = None if step is None else whole_number("step", step, 0)
    steps = checkpoint_steps(directory)
    if not steps or (step is not None and step not in steps):
        wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise CheckpointError(f"no {wanted} in {directory} (available steps: {steps}).")
    step = steps[-1] if step is None else step
    target = {name: abstract(leaf) for name, leaf in named(like).items()}
    try:
        restored = _read(directory, step, target)
    except CheckpointError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {str(error)[:200]}"
        raise _unreadable(directory, step, text) from error
    paths, leaves, treedef = paths_and_leaves(like)
    values = [
        convert_like(leaf, restored[name])
        if (name := name_of(path)) in restored
        else leaf
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    return treedef.unflatten(values)


def _read(
    directory: str | os.PathLike[str], step: int, target: dict[str, Any]
) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    with manager(directory) as reader:
        saved = dict(reader.item_metadata(step))
        if saved.pop(CHECKSUMS, None) is None:
            raise _unreadable(directory, step, "it has no checksums")
        _check_like(directory, step, saved, target)
        target = {**target, CHECKSUMS: np.zeros(1 + len(target), np.int64)}
        restored = dict(reader.restore(step, args=ocp.args.StandardRestore(target)))
    if bad := damaged(restored, restored.pop(CHECKSUMS)):
        raise _unreadable(directory, step, f"wrong checksums of {bad[:5]}")
    return restored


def _unreadable(
    directory: str | os.PathLike[str], step: int, reason: str
) -> CheckpointError:
    steps = checkpoint_steps(directory)
    if step not in steps:
        return CheckpointError(
            f"the checkpoint of step {step} in {directory} was deleted while it was read, "
            f"by a run that saves there. Restore a newer one (available steps: {steps})."
        )
    older = [s for s in steps if s < step]
    fallback = f"or restore step {older[-1]}" if older else "and start again"
    return CheckpointError(
        f"cannot read the checkpoint of step {step} in {directory}: it is damaged or was "
        f"written by another program or version. Move its folder away {fallback}. "
        f"({reason})"
    )


def _check_like(
    directory: str | os.PathLike[str], step: int, saved: Any, target: dict[str, Any]
) -> None:
    """Compare names, shapes and dtypes first, because orbax casts or pads silently."""
    actual = {name: signature(meta) for name, meta in saved.items()}
    expected = {name: signature(leaf) for name, leaf in target.items()}
    mismatches = [
        f"{name}: saved {actual.get(name, 'nothing')}, "
        f"expected {expected.get(name, 'nothing')}"
        for name in sorted(actual.keys() | expected.keys())
        if actual.get(name) != expected.get(name)
    ]
    if mismatches:
        shown = "\n  ".join(mismatches[:5])
        more = f"\n  and {len(mismatches) - 5} more" if len(mismatches) > 5 else ""
        raise CheckpointError(
            f"the checkpoint of step {step} in {directory} belongs to another model, "
            f"optimizer or compressor:\n  {shown}{more}"
        )
