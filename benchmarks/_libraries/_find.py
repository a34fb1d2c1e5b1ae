# SPDX-License-Identifier: Apache-2.0
"""Which libraries are there, and what becomes of those that are not or that break."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ._work import Layers, Predict, Trained, Work


@dataclasses.dataclass(frozen=True, kw_only=True)
class Library:
    """A library, and what it does here. Names tell its variants apart.

    Attributes:
      name: of the library.
      imports: the modules it needs.
      install: its packages.
      rounded: takes layers and bits; networks with weights rounded after training.
      trained: takes the work and bits; networks that train with rounded weights.
      served: takes the work; networks with 8-bit weights and activations.
    """

    name: str
    imports: tuple[str, ...] = ()
    install: str = ""
    rounded: Callable[[Layers, int], Mapping[str, Predict]] | None = None
    trained: Callable[[Work, int], Mapping[str, Trained]] | None = None
    served: Callable[[Work], Mapping[str, Predict]] | None = None

    @property
    def framework(self) -> str:
        """What its networks are computed with."""
        return "PyTorch" if "torch" in self.imports else "JAX"


class Skipped(NamedTuple):
    """Why there is no result."""

    reason: str


def missing(library: Library) -> str | None:
    """Return what to install if a library is not there."""
    absent = [n for n in library.imports if importlib.util.find_spec(n) is None]
    if not absent:
        return None
    return f"not installed: pip install {library.install}"


def attempt(run: Callable[[], Any]) -> Any:
    """Return what a library gives, or in which words it breaks."""
    try:
        return run()
    except Exception as error:  # whatever the other library raises is a result
        text = " ".join(str(error).split())
        return Skipped(f"breaks: {type(error).__name__}: {text[:200]}")
