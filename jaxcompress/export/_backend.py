# SPDX-License-Identifier: Apache-2.0
"""What an exporter needs from a runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..program.dataflow import Graph, Operation
from ._products import PRODUCTS

Session = Callable[..., list[np.ndarray]]
"""``(*arrays) -> list of arrays``: runs a loaded model."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """One runtime.

    Attributes:
      name: its name.
      suffix: ending of its files.
      any_batch: whether one file serves every batch size.
      convert: ``graph -> (file content, notes)``.
      load: ``(file content, threads) -> Session``.
      operators: ``file content -> names of the operators that run``, with the dtype that
        they compute in.
      products: names in ``operators`` of products on integers.
      reason: why the runtime has no integer operator for a product; "" if it has.
      integer_outputs: products that run on integers only if their result is quantized.
      rounds_inputs: whether products by integers round inputs that have no range.
    """

    name: str
    suffix: str
    any_batch: bool
    convert: Callable[[Graph], tuple[bytes, Sequence[str]]]
    load: Callable[[bytes, int | None], Session]
    operators: Callable[[bytes], dict[str, int]]
    products: frozenset[str]
    reason: Callable[[Operation], str] = lambda _: ""
    integer_outputs: frozenset[str] = frozenset(PRODUCTS)
    rounds_inputs: bool = False

    def run(self, content: bytes, args: Sequence[Any]) -> list[np.ndarray]:
        """Load a model and run it once."""
        return self.load(content, None)(*args)
