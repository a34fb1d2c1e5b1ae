# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: any pytree, to the bit, through orbax; a kill at any moment is survived."""

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

if TYPE_CHECKING:
    import orbax.checkpoint as ocp


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read, with the likely reason."""


def save_checkpoint(
    directory: str | os.PathLike[str], step: int, state: PyTree, *, keep: int = 2
) -> None:
    """Write a pytree as the checkpoint of a step.

    It returns when the checkpoint is on disk. Until then it has a temporary name, so a
    run killed at any moment finds the one before.

    Args:
      directory: made if it is missing.
      step: number of the checkpoint, above those that are there.
      state: any pytree of arrays, such as a ``TrainState``; typed keys included.
      keep: how many of the newest checkpoints stay.

    Raises:
      CheckpointError: if the directory cannot be written, or holds this step or a later
        one, which stays as it is.
    """
    import orbax.checkpoint as ocp

    steps = checkpoint_steps(directory)
    # Replacing one would leave a moment without any.
    if steps and step <= steps[-1]:
        raise CheckpointError(
            f"{directory} already holds a checkpoint of step {steps[-1]}, so step {step} "
            "is not written. Go on from it with restore_checkpoint, or give a new run a "
            "folder of its own."
        )
    with _manager(directory, keep=keep, create=True) as manager:
        manager.save(step, args=ocp.args.StandardSave(_named(state)))
        manager.wait_until_finished()


def restore_checkpoint(
    directory: str | os.PathLike[str], like: PyTree, *, step: int | None = None
) -> PyTree:
    """Read a checkpoint back, bit for bit.

    Args:
      directory: where ``save_checkpoint`` wrote.
      like: a pytree of the structure, shapes, dtypes and shardings to restore into, such
        as a fresh ``init(params)``. Its values are not used.
      step: which checkpoint; None: the newest.

    Returns:
      The state.

    Raises:
      CheckpointError: if there is none, it is damaged, or it is not ``like``; it names
        the folder and the leaves. Nothing is deleted.
    """
    import orbax.checkpoint as ocp

    steps = checkpoint_steps(directory)
    if not steps or (step is not None and step not in steps):
        wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise CheckpointError(f"there is no {wanted} in {directory} (steps: {steps}).")
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
            instead = f"or restore step {older[-1]}" if older else "and start again"
            raise CheckpointError(
                f"the checkpoint of step {step} in {directory} cannot be read; it is "
                f"damaged or was written by another program. Move its folder away "
                f"{instead}. ({type(error).__name__}: {str(error)[:200]})"
            ) from error
    paths, leaves, treedef = paths_and_leaves(like)
    values = [
        _like(leaf, restored[name]) if (name := _name(path)) in restored else leaf
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    return treedef.unflatten(values)


def checkpoint_steps(directory: str | os.PathLike[str]) -> list[int]:
    """The steps that have a complete checkpoint, oldest first; [] without a directory."""
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
        # Synchronous: what this library checkpoints is small, and a caller who was told
        # that a step is saved may count on it.
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
            f"{directory} cannot be used for checkpoints ({error.strerror or error}). "
            "Is it a folder that you may write to?"
        ) from error


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by name, keys as raw data: no container outlives its class this way.

    Arrays without elements, which orbax refuses, hold nothing to save.
    """
    paths, leaves, _ = paths_and_leaves(tree)
    names = [_name(path) for path in paths]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise CheckpointError(f"two leaves share a path: {twice}.")
    return {
        name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for name, leaf in zip(names, leaves, strict=True)
        if np.size(leaf)
    }


def _name(path: str) -> str:
    # A dot, since orbax takes a slash for a folder.
    return path.replace("/", ".") or "tree"


def _abstract(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and not leaf.committed:
        # Orbax pins what it restores to a device: such an array could no longer stand
        # beside those of a mesh, and would compile what reads it anew.
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _like(like: Any, value: Any) -> Any:
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
    """Compare names, shapes and dtypes first: orbax would cast or pad in silence."""
    have = {name: _signature(meta) for name, meta in dict(saved).items()}
    want = {name: _signature(leaf) for name, leaf in target.items()}
    different = [
        f"{name}: saved {have.get(name, 'nothing')}, expected {want.get(name, 'nothing')}"
        for name in sorted(have.keys() | want.keys())
        if have.get(name) != want.get(name)
    ]
    if different:
        shown = "\n  ".join(different[:5])
        more = f"\n  and {len(different) - 5} more" if len(different) > 5 else ""
        raise CheckpointError(
            f"the checkpoint of step {step} in {directory} is of another model, optimizer "
            f"or compressor:\n  {shown}{more}"
        )


def _signature(x: Any) -> str:
    shape = getattr(x, "shape", ())
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    return f"{np.dtype(dtype).name}{list(shape)}"
