# SPDX-License-Identifier: Apache-2.0
"""Records: the measurements of one model, its cost, and where the numbers come from."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from typing import Any

from ._latency import Latency
from ._provenance import Provenance
from ._size import LeafSize, Size

_METHODS = ("unavailable", "measured_counter")


@dataclasses.dataclass(frozen=True)
class Energy:
    """Energy of one inference, together with the method that measured it.

    Attributes:
      method: ``"measured_counter"`` (the difference of a hardware energy counter) or
        ``"unavailable"``. Estimates are not accepted.
      joules: the measured energy; None if unavailable.

    Raises:
      ValueError: for an unknown method, joules without a method, or a method without
        joules.

    Example:
      >>> str(Energy("measured_counter", 0.25)), str(Energy())
      ('0.25 J (measured_counter)', 'unavailable')
    """

    method: str = "unavailable"
    joules: float | None = None

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(
                f"energy method must be one of {_METHODS}, got {self.method!r}."
            )
        if (self.method == "unavailable") != (self.joules is None):
            raise ValueError(
                "joules must be given if and only if the energy was measured, got "
                f"Energy({self.method!r}, {self.joules}). Use "
                "Energy('measured_counter', joules) or Energy()."
            )

    def __str__(self) -> str:
        if self.joules is None:
            return self.method
        return f"{self.joules:.4g} J ({self.method})"


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracy on the test set, one value per seed.

    Attributes:
      values: fractions between 0 and 1.
      seeds: the seed of each value.

    Raises:
      ValueError: if the lengths differ, there are no values, or a value is not a fraction.
    """

    values: Sequence[float]
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if not self.values or len(self.values) != len(self.seeds):
            raise ValueError(
                "values and seeds must have the same length, at least 1, got "
                f"{len(self.values)} values and {len(self.seeds)} seeds."
            )
        if not all(0 <= value <= 1 for value in self.values):
            raise ValueError(
                f"accuracies must be fractions between 0 and 1, got {self.values}. Divide "
                "percentages by 100."
            )

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """All measurements of one model. Anything that was not measured is None.

    Law: ``Record.from_json(record.to_json()) == record``.

    Attributes:
      name: name of the model.
      provenance: where the numbers come from.
      accuracy: accuracy on the test set.
      size: size of the model file.
      latency: latency of one call.
      energy: energy of one call.
      training_seconds: wall-clock time of training, including compression.
      simulated: True if the model only simulates compression with masks or rounded
        floats, so that no speed-up is expected.
    """

    name: str
    provenance: Provenance
    accuracy: Accuracy | None = None
    size: Size | None = None
    latency: Latency | None = None
    energy: Energy = Energy()
    training_seconds: float | None = None
    simulated: bool = False

    def to_json(self) -> str:
        """Serialize to JSON. Equal records give equal text."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Parse a record that ``to_json`` wrote.

        Raises:
          ValueError: if the text is not a record.
        """
        try:
            return _parse(json.loads(text))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"not a jaxcompress record: {error}") from error


def _parse(fields: dict[str, Any]) -> Record:
    def part(name: str, kind: Any) -> Any:
        return None if fields[name] is None else kind(**fields[name])

    def parse_size(file_bytes: int, leaves: list[dict[str, Any]]) -> Size:
        rows = tuple(LeafSize(**leaf) for leaf in leaves)
        return Size(file_bytes=file_bytes, leaves=rows)

    parts = {
        "provenance": Provenance(**fields["provenance"]),
        "energy": Energy(**fields["energy"]),
        "accuracy": part("accuracy", Accuracy),
        "size": part("size", parse_size),
        "latency": part("latency", Latency),
    }
    return Record(**{**fields, **parts})
