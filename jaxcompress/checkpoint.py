# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: save and restore any pytree bit for bit, safe against a kill anytime."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ._compressor import PyTree
from ._select import paths_and_leaves

__all__ = [
    "CheckpointError",
    "checkpoint_steps",
    "restore_checkpoint",
    "save_checkpoint",
]

if TYPE_CHECKING:
    import orbax.checkpoint as ocp


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message gives the likely reason."""


def save_checkpoint(
    directory: str | os.PathLike[str], step: int, state: PyTree, *, keep: int = 2
) -> None:
    """Save a pytree, such as a ``TrainState``, as the checkpoint of a training step.

    The call returns once the checkpoint is on disk. Until then it has a temporary name,
    so a run that is killed still finds the previous checkpoint.

    Args:
      directory: checkpoint folder, created if missing.
      step: number of the checkpoint, greater than all existing ones.
      state: any pytree of arrays, including typed PRNG keys.
      keep: number of newest checkpoints to keep.

    Raises:
      CheckpointError: if the directory cannot be written, or if it already holds this
        step or a later one. Existing checkpoints are not changed.
    """
    import orbax.checkpoint as ocp

    steps = checkpoint_steps(directory)
    # Replacing a checkpoint would leave a moment without any.
    if steps and step <= steps[-1]:
        raise CheckpointError(
            f"{directory} already holds a checkpoint of step {steps[-1]}, so step {step} "
            "was not saved. Continue that run with restore_checkpoint, or use another "
            "folder for a new run."
        )
    with _manager(directory, keep=keep, create=True) as manager:
        manager.save(step, args=ocp.args.StandardSave(_named(state)))
        manager.wait_until_finished()


def restore_checkpoint(
    directory: str | os.PathLike[str], like: PyTree, *, step: int | None = None
) -> PyTree:
    """Load a checkpoint bit for bit, to continue a training run.

    Args:
      directory: folder that ``save_checkpoint`` wrote to.
      like: pytree with the structure, shapes, dtypes and shardings to restore, such as a
        fresh ``init(params)``. Its values are not used.
      step: step to restore; None restores the newest.

    Returns:
      The saved state.

    Raises:
      CheckpointError: if the checkpoint does not exist, is damaged, or does not match
        ``like``. The message names the folder and the leaves. Nothing is deleted.
    """
    import orbax.checkpoint as ocp

    steps = checkpoint_steps(directory)
    if not steps or (step is not None and step not in steps):
        wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise CheckpointError(f"no {wanted} in {directory} (available steps: {steps}).")
    step = steps[-1] if step is None else step
    target = {name: _abstract(leaf) for name, leaf in _named(like).items()}
    with _manager(directory) as manager:
        try:
            _check_like(directory, step, manager.item_metadata(step), target)
            restored = manager.restore(step, args=ocp.args.StandardRestore(target))
        except CheckpointError:
            raise
        except Exception as error:
            older = [s for s in steps if s < step]
            fallback = f"or restore step {older[-1]}" if older else "and start again"
            raise CheckpointError(
                f"cannot read the checkpoint of step {step} in {directory}: it is "
                "damaged or was written by another program. Move its folder away "
                f"{fallback}. ({type(error).__name__}: {str(error)[:200]})"
            ) from error
    paths, leaves, treedef = paths_and_leaves(like)
    values = [
        _convert_like(leaf, restored[name])
        if (name := _name(path)) in restored
        else leaf
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    return treedef.unflatten(values)


def checkpoint_steps(directory: str | os.PathLike[str]) -> list[int]:
    """List the steps with a complete checkpoint, oldest first; [] without a directory."""
    import orbax.checkpoint as ocp

    if not os.path.isdir(directory):
        return []
    return sorted(ocp.utils.checkpoint_steps(os.path.abspath(directory)))


@contextlib.contextmanager
def _manager(
    directory: str | os.PathLike[str], *, keep: int | None = None, create: bool = False
) -> Iterator[ocp.CheckpointManager]:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=create,
        # Synchronous, because the states of this library are small and a caller must be
        # able to rely on a saved step.
        enable_async_checkpointing=False,
    )
    try:
        with ocp.CheckpointManager(
            os.path.abspath(directory),
            options=options,
            item_handlers=ocp.StandardCheckpointHandler(),
        ) as manager:
            yield manager
    except OSError as error:
        raise CheckpointError(
            f"cannot use {directory} for checkpoints ({error.strerror or error}). Check "
            "that it is a folder and that you may write to it."
        ) from error


def _named(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by name, with PRNG keys as raw data.

    A flat dict keeps the checkpoint independent of container classes. Empty arrays are
    left out, because orbax rejects them and they hold nothing to save.
    """
    paths, leaves, _ = paths_and_leaves(tree)
    names = [_name(path) for path in paths]
    if len(set(names)) != len(names):
        duplicates = sorted({name for name in names if names.count(name) > 1})
        raise CheckpointError(
            f"leaf paths must be unique, but several leaves share a path: {duplicates}."
        )
    return {
        name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for name, leaf in zip(names, leaves, strict=True)
        if np.size(leaf)
    }


def _name(path: str) -> str:
    # Use dots, because orbax treats a slash as a folder.
    return path.replace("/", ".") or "tree"


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and not leaf.committed:
        # Restore as NumPy. Orbax would commit the array to a device, so it could not be
        # combined with arrays of a mesh, and jitted functions would recompile.
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _convert_like(like: Any, value: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like))
    return jnp.asarray(value) if isinstance(like, jax.Array) else value


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _check_like(
    directory: str | os.PathLike[str], step: int, saved: Any, target: dict[str, Any]
) -> None:
    """Compare names, shapes and dtypes first, because orbax casts or pads silently."""
    actual = {name: _signature(meta) for name, meta in dict(saved).items()}
    expected = {name: _signature(leaf) for name, leaf in target.items()}
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


def _signature(x: Any) -> str:
    shape = getattr(x, "shape", ())
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    return f"{np.dtype(dtype).name}{list(shape)}"
