# SPDX-License-Identifier: Apache-2.0
"""What an update is given beside the parameters, and what it says where that is missing."""

from __future__ import annotations

import dataclasses
from typing import Any

from .._compressor import PyTree


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a compressor needs to know beside the parameters.

    Attributes:
      name: of the keyword argument of ``update``.
      field: what every leaf of it must have.
      how: how to get it, in words.
    """

    name: str
    field: str
    how: str

    def by_path(self, given: PyTree, paths: list[str], treedef: Any) -> dict[str, Any]:
        """The evidence of every leaf.

        Raises:
          ValueError: if a leaf has none, or something else, or the tree is another.
        """
        try:
            leaves = treedef.flatten_up_to(given)
        except ValueError as error:
            raise ValueError(
                f"{self.name}= is no tree like the parameters ({error}). Pass {self.how}, "
                "of the parameters that are compressed."
            ) from error
        for path, leaf in zip(paths, leaves, strict=True):
            if not hasattr(leaf, self.field):
                has = "nothing" if leaf is None else f"a {type(leaf).__name__}"
                raise ValueError(
                    f"{path!r} is selected, and {self.name}= has {has} there. Pass "
                    f"{self.name}={self.how}, or leave this leaf out with `where=`."
                )
        return dict(zip(paths, leaves, strict=True))


STATS = Evidence(
    "stats", "gram", "observe(fn, params, batches, program.statistics.gram())"
)
