# SPDX-License-Identifier: Apache-2.0
"""Choosing a setting: the candidate with the best score on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from ._ledger import Ledger
from ._progress import Progress

Candidate = TypeVar("Candidate")


class Best(NamedTuple, Generic[Candidate]):
    """The outcome of a choice."""

    chosen: Candidate  # the first of equals
    values: dict[Candidate, Any]  # what was measured of each


class Search:
    """Measures candidates one by one, and records what it measured.

    Attributes:
      trials: how many candidates there were so far.
    """

    def __init__(
        self, ledger: Ledger | None = None, progress: Progress | None = None
    ) -> None:
        """Without a ledger nothing is measured, and the trials are only counted."""
        self._ledger, self._progress, self.trials = ledger, progress, 0

    def best(
        self,
        name: str,
        candidates: Iterable[Candidate],
        measure: Callable[[Candidate], Any],
        score: Callable[[Any], float] = float,
    ) -> Best[Candidate]:
        """Measure all candidates; the one with the highest score is chosen.

        Args:
          name: of what is chosen.
          candidates: numbers, texts, or tuples or dataclasses of them.
          measure: returns what JSON can hold. What all candidates share it should make
            when it is first called: of a recorded candidate it is not.
          score: of what was measured.
        """
        values = {
            candidate: self.measured(
                f"{name}, {text_of_candidate(candidate)}",
                lambda candidate=candidate: measure(candidate),
            )
            for candidate in candidates
        }
        if self._ledger is None:
            return Best(next(iter(values)), values)
        return Best(max(values, key=lambda key: score(values[key])), values)

    def measured(self, name: str, measure: Callable[[], Any]) -> Any:
        """One measurement, recorded under a name; 0 if trials are only counted."""
        self.trials += 1
        if self._ledger is None:
            return 0.0
        if self._progress is not None:
            self._progress.start(name)
        value = self._ledger.result(name, measure)
        if self._progress is not None:
            self._progress.done()
        return value


def text_of_candidate(candidate: Any) -> str:
    """``0.001, LSQ``: the parts of a candidate."""
    if dataclasses.is_dataclass(candidate) and not isinstance(candidate, type):
        candidate = dataclasses.astuple(candidate)
    parts = candidate if isinstance(candidate, tuple) else (candidate,)
    return ", ".join(p if isinstance(p, str) else f"{p:g}" for p in parts)
