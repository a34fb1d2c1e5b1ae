# SPDX-License-Identifier: Apache-2.0
"""Records of several seeds: grouped, averaged, and as text."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

Record = TypeVar("Record")


def grouped(records: Iterable[Record], *fields: str) -> dict[Any, list[Record]]:
    """Records by the values of fields, in the order in which the values come up.

    The keys are tuples; of one field, its values.
    """
    groups: dict[Any, list[Record]] = {}
    for record in records:
        key = tuple(getattr(record, field) for field in fields)
        groups.setdefault(key if len(fields) > 1 else key[0], []).append(record)
    return groups


def values(group: Iterable[Any], field: str = "accuracy") -> list[Any]:
    """A field of every record that has one: None is left out."""
    every = (getattr(record, field) for record in group)
    return [value for value in every if value is not None]


def mean(group: Iterable[Any], field: str = "accuracy") -> float | None:
    """Mean of a field; None if no record has one."""
    present = values(group, field)
    return statistics.fmean(present) if present else None


def largest_file(
    records: Iterable[Any], asked: float, controls: Collection[str]
) -> int:
    """Bytes of the largest file at a sparsity, of all methods but the controls."""
    return max(
        r.file_bytes for r in records if r.asked == asked and r.method not in controls
    )


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation, which one value does not have."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def text_of(values: Sequence[float]) -> str:
    """``97.22 ± 0.28``: fractions as percent."""
    mean, spread = mean_and_spread(values)
    return f"{100 * mean:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def percent(group: Sequence[Any], field: str = "accuracy") -> str:
    """``97.22 ± 0.28``: a fraction of records; nothing if there are none."""
    return text_of(values(group, field)) if group else ""


def summary(
    records: Sequence[Any], keys: Sequence[str], means: Sequence[str] = ()
) -> dict[str, Any]:
    """Rows as ``summary_rows`` makes them, and every record, as JSON can hold them."""
    return {"rows": summary_rows(records, keys, means), "records": as_json(records)}


def summary_rows(
    records: Iterable[Any], keys: Sequence[str], means: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Rows with the mean and spread of the accuracy.

    Args:
      records: dataclasses with an ``accuracy``.
      keys: fields that tell one row from another.
      means: fields of which a row has the mean.
    """
    rows = []
    for group in grouped(records, *keys).values():
        accuracy, spread = mean_and_spread(values(group))
        row = {key: getattr(group[0], key) for key in keys}
        row |= {"accuracy": accuracy, "spread": spread}
        rows.append(row | {field: mean(group, field) for field in means})
    return rows


def as_json(records: Iterable[Any]) -> list[dict[str, Any]]:
    """Records field by field."""
    return [dataclasses.asdict(record) for record in records]
