# SPDX-License-Identifier: Apache-2.0
"""What is known of an open file, whatever its layout."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._manifest import Tensor


class Opened(NamedTuple):
    """An open file.

    Attributes:
      tree: the JSON node of the tree.
      by_path: name of the type that required saving by path, else None.
      tensors: by name, in the order in which they lie in the file, one after another.
      head: how many bytes come before the first of them; the last ends with the file.
    """

    tree: Any
    by_path: str | None
    tensors: dict[str, Tensor]
    head: int
