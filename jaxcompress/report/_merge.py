# SPDX-License-Identifier: Apache-2.0
"""Merge the records of runs that differ only in their seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ._metric import Metric
from ._record import Record, check_records

_SAME = ("transforms", "device", "commit", "versions")


def merge(records: Sequence[Record]) -> tuple[Record, ...]:
    """Merge records of the same name, from runs with different seeds, into one each.

    The metrics get the values of all seeds. Everything else, such as size and latency, is
    that of the first run; where files of different seeds differ in size, say which one
    ships.

    Args:
      records: of any number of models, one or more for each.

    Returns:
      One record per name, in the order of their first runs.

    Raises:
      ValueError: if runs of a name differ in their transforms, device, commit, versions,
        batch or metrics, or a seed occurs twice.

    Example:
      >>> from jaxcompress import report
      >>> here = report.provenance()
      >>> runs = [
      ...     report.Record(
      ...         name="int4",
      ...         provenance=here,
      ...         metrics=[report.accuracy([right], [seed], split="test")],
      ...     )
      ...     for seed, right in enumerate([0.91, 0.93])
      ... ]
      >>> print(report.merge(runs)[0].metric("accuracy"))
      accuracy (test): 92.00 ± 1.41 % (2 seeds)
    """
    check_records(records)
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.name, []).append(record)
    return tuple(_merged(group) for group in groups.values())


def _merged(group: Sequence[Record]) -> Record:
    first, *others = group
    for other in others:
        pairs = [
            (what, getattr(first.provenance, what), getattr(other.provenance, what))
            for what in _SAME
        ]
        pairs += [
            ("batch", first.batch, other.batch),
            ("simulated", first.simulated, other.simulated),
            ("metrics", *([_kind(m) for m in r.metrics] for r in (first, other))),
        ]
        for what, one, two in pairs:
            if one != two:
                raise ValueError(
                    f"runs of {first.name!r} must differ in their seed only, but their "
                    f"{what} are {one!r} and {two!r}. Give other models other names."
                )
    metrics = [
        dataclasses.replace(
            metric,
            values=[v for r in group for v in r.metrics[i].values],
            seeds=[s for r in group for s in r.metrics[i].seeds],
        )
        for i, metric in enumerate(first.metrics)
    ]
    return dataclasses.replace(first, metrics=metrics)


def _kind(metric: Metric) -> tuple[str, str, str, bool]:
    return metric.name, metric.split, metric.unit, metric.higher_is_better
