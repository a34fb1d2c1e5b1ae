# SPDX-License-Identifier: Apache-2.0
"""``Evidence``: validates the statistics that are passed to ``update``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .._compressor import PyTree
from .._warn import warn


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Describe a statistics argument of ``update``, to validate it.

    Attributes:
      name: name of the keyword argument of ``update``.
      field: attribute that every leaf of the argument must have.
      how: code that computes the argument, shown in errors.
    """

    name: str
    field: str
    how: str

    def by_path(self, given: PyTree, paths: list[str], treedef: Any) -> dict[str, Any]:
        """Return the statistics of every leaf as ``{path: statistics}``.

        Raises:
          ValueError: if a leaf has no statistics or ones of the wrong type, or the tree
            structure differs from the parameters.
        """
        try:
            leaves = treedef.flatten_up_to(given)
        except ValueError as error:
            raise ValueError(
                f"{self.name}= must be a tree like the parameters ({error}). Pass "
                f"{self.how}, computed on the parameters that are compressed."
            ) from error
        for path, leaf in zip(paths, leaves, strict=True):
            if not hasattr(leaf, self.field):
                value = "nothing" if leaf is None else f"a {type(leaf).__name__}"
                raise ValueError(
                    f"{path!r} is selected, but {self.name}= has {value} there. Pass "
                    f"{self.name}={self.how}, or exclude this leaf with `where=`."
                )
        return dict(zip(paths, leaves, strict=True))

    def warn_if_never_given(self, count: jax.Array, consequence: str) -> None:
        """Warn in ``finalize`` if no update received the statistics.

        Args:
          count: int32 [], the updates that did. Nothing is said of a traced one.
          consequence: what the tree is now: ``"nothing is rescaled"``.
        """
        if not isinstance(count, Tracer) and int(count) == 0:
            warn(
                f"{consequence}: no update was given {self.name}={self.how}. Pass it to "
                "one update before finalize."
            )


def check_summed_axes(
    path: str, shape: Sequence[int], like_leaf: Any, contraction: Sequence[int]
) -> None:
    """Refuse statistics that were summed over other axes of a leaf than are used now.

    Sizes do not tell them apart: a square matrix fits either way.

    Args:
      path: path text of the leaf.
      shape: its shape.
      like_leaf: a statistic with one value per feature, which broadcasts against the leaf.
      contraction: the axes that the product is taken to sum over.

    Raises:
      ValueError: naming both axes.
    """
    summed = [i for i, n in enumerate(jnp.shape(like_leaf)) if n > 1]
    missing = [i for i in contraction if shape[i] > 1 and i not in summed]
    if missing and len(jnp.shape(like_leaf)) == len(shape):
        raise ValueError(
            f"the statistics of {path!r} have one value per feature along its axes "
            f"{tuple(summed)} of shape {tuple(shape)}: those are what the function sums "
            f"over, not {tuple(contraction)}. Pass axes=jaxcompress.weight_axes(fn, "
            "params, *args), which reads them from the function, or observe the function "
            "that uses the leaf this way."
        )


STATS = Evidence(
    "stats", "gram", "observe(fn, params, batches, program.statistics.gram())"
)
