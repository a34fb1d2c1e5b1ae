# SPDX-License-Identifier: Apache-2.0
"""A compressor whose update does nothing keeps most laws trivially: find and refuse it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ._compressor import Compressor, Learned, PyTree, keep
from ._select import paths_and_leaves


class LawError(AssertionError):
    """A law that a compressor does not keep: which one, where, and by how much."""


def refuse_idle_update(
    c: Compressor, before: tuple[PyTree, PyTree], after: tuple[PyTree, PyTree]
) -> None:
    """Refuse a compressor whose ``update`` did nothing: its laws would hold trivially.

    A counter that stands still says so, and a state that is neither learned by the
    optimizer nor changed by an update that did not move the parameters either.
    """
    if c.update is keep:
        return
    old, new = (_untrained(state) for _, state in (before, after))
    idle = {p for p in old if np.array_equal(old[p], new[p], equal_nan=True)}
    still = sorted(p for p in idle if p.rsplit("/", 1)[-1] == "count")
    moved = any(
        np.asarray(x).tobytes() != np.asarray(y).tobytes()
        for x, y in zip(*map(jax.tree.leaves, (before[0], after[0])), strict=True)
    )
    if still or (old and len(idle) == len(old) and not moved):
        where = f"state[{still[0]!r}] did not count" if still else "nothing changed"
        raise LawError(
            f"update did nothing in any step ({where}), so its laws were not tested. Pass "
            "what it needs as extras=, such as extras={'stats': observe(...)}, or raise "
            "steps=."
        )


def _untrained(state: PyTree) -> dict[str, np.ndarray]:
    """The arrays of a state, by path, without those that the optimizer trains."""
    bare = jax.tree.map(
        lambda x: None if isinstance(x, Learned) else x,
        state,
        is_leaf=lambda x: isinstance(x, Learned),
    )
    paths, leaves, _ = paths_and_leaves(bare)
    plain = {
        path: jax.random.key_data(x)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        else x
        for path, x in zip(paths, leaves, strict=True)
    }
    return {path: np.asarray(x) for path, x in plain.items()}
