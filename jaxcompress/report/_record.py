# SPDX-License-Identifier: Apache-2.0
"""One record a model: what it is worth, what it costs, and where the numbers come from."""

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
    """Energy of one inference, which is no number without the method behind it.

    Attributes:
      method: ``"measured_counter"`` (the difference of a hardware energy counter), or
        ``"unavailable"``. There is no estimate that could be mistaken for either.
      joules: what was measured; None where it is unavailable.

    Raises:
      ValueError: for joules without a method, or a method without joules.

    Example:
      >>> str(Energy("measured_counter", 0.25)), str(Energy())
      ('0.25 J (measured_counter)', 'unavailable')
    """

    method: str = "unavailable"
    joules: float | None = None

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"energy method {self.method!r}: known are {_METHODS}.")
        if (self.method == "unavailable") != (self.joules is None):
            raise ValueError(
                f"Energy({self.method!r}, {self.joules}): a number needs a method that "
                "measured it, and such a method a number."
            )

    def __str__(self) -> str:
        if self.joules is None:
            return self.method
        return f"{self.joules:.4g} J ({self.method})"


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracy on the test set, one value a seed.

    Attributes:
      values: fractions between 0 and 1.
      seeds: the seed of each value.
    """

    values: Sequence[float]
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if not self.values or len(self.values) != len(self.seeds):
            raise ValueError(
                f"{len(self.values)} accuracies for {len(self.seeds)} seeds: give one "
                "value a seed, and at least one."
            )
        if not all(0 <= value <= 1 for value in self.values):
            raise ValueError(
                f"accuracies {self.values} are no fractions; divide per cent by 100."
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
    """All that is known about one model. What was not measured is None, never a guess.

    Law: ``Record.from_json(record.to_json()) == record``.

    Attributes:
      name: of the model.
      provenance: where the numbers come from.
      accuracy: on the test set.
      size: of its file.
      latency: of one call.
      energy: of one call.
      training_seconds: wall-clock time of the training, compression included.
      simulated: whether the model computes as if it were compressed, with masks or
        rounded floats: then no speed-up is to be expected.
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
        """As JSON; the same text for the same record."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Inverse of ``to_json``.

        Raises:
          ValueError: if the text is no record.
        """
        try:
            return _parse(json.loads(text))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"this is no record of jaxcompress: {error}") from error


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
