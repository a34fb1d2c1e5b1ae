# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, and the same as plain data."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .. import old_common as common
from ._omitted import Without
from ._rows import ALONE

TEACHER, TEACHERS = "teacher", "teachers together"
PARTS = {
    "teachers": "*teachers*",
    "labels": "*labels only*",
    "logits": "*A. losses of logits*",
    "features": "*A. losses of features*",
    "views": "*A. more views of the images*",
    "schemes": "*B. schemes*",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One network.

    Attributes:
      part: of the tables.
      name: of the row.
      seed: of everything random.
      accuracy: on the test set.
    """

    part: str
    name: str
    seed: int
    accuracy: float


Groups = Mapping[str, Sequence[Record]]


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of the seeds by name, in the order of the runs."""
    made: dict[str, list[Record]] = {}
    for r in records:
        made.setdefault(r.name, []).append(r)
    return made


def accuracies(group: Sequence[Record]) -> list[float]:
    """Those of the seeds."""
    return [r.accuracy for r in group]


def bar(group: Sequence[Record], groups: Groups) -> str:
    """The row to compare with: the student alone, of the same views of the images."""
    views = group[0].name.partition(", ")[2]
    same = f"{ALONE}, {views}"
    return same if group[0].part == "views" and same in groups else ALONE


def gain(group: Sequence[Record], groups: Groups) -> tuple[float, float | None]:
    """Mean difference to the bar, seed by seed, and its standard error."""
    others = {r.seed: r.accuracy for r in groups[bar(group, groups)]}
    each = [r.accuracy - others[r.seed] for r in group]
    mean, spread = common.mean_and_spread(each)
    return mean, None if spread is None else spread / len(each) ** 0.5


def markdown(
    records: Sequence[Record], without: Sequence[Without], classes: Sequence[str]
) -> str:
    """All tables: a part each, and the omitted classes."""
    groups = grouped(records)
    tables = []
    for part, title in PARTS.items():
        lines = [f"| {title} | test accuracy | gain |", "|---|---|---|"]
        for name, group in groups.items():
            if group[0].part == part:
                text = common.text_of(accuracies(group))
                lines.append(f"| {name} | {text} | {_gain_text(group, groups)} |")
        if len(lines) > 2:
            tables.append("\n".join(lines))
    return "\n\n".join([*tables, _omitted(without, classes)])


def _gain_text(group: Sequence[Record], groups: Groups) -> str:
    if group[0].part == "teachers" or group[0].name == bar(group, groups):
        return ""
    mean, error = gain(group, groups)
    return f"{100 * mean:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def students(without: Sequence[Without]) -> dict[tuple[int, str], list[Without]]:
    """Records of the seeds by class and by what the student is called."""
    made: dict[tuple[int, str], list[Without]] = {}
    for r in sorted(without, key=lambda r: (r.omitted, r.saw)):
        name = "labels" if r.temperature is None else f"kl, T = {r.temperature:g}"
        name += ", saw it" if r.saw else ""
        made.setdefault((r.omitted, name), []).append(r)
    return made


def _omitted(without: Sequence[Without], classes: Sequence[str]) -> str:
    """A line a class and a student."""
    columns = ("recall", "accuracy", "bias", "recall, raised", "accuracy, raised")
    lines = [
        "| " + " | ".join(["*C. omitted class*", "student", *columns]) + " |",
        "|" + "---|" * (2 + len(columns)),
    ]
    for (number, name), group in students(without).items():
        texts = [
            common.text_of([r.recall for r in group]),
            common.text_of([r.accuracy for r in group]),
            f"{statistics.fmean(r.bias for r in group):.2f}",
            common.text_of([r.raised_recall for r in group]),
            common.text_of([r.raised_accuracy for r in group]),
        ]
        lines.append("| " + " | ".join([classes[number], name, *texts]) + " |")
    return "\n".join(lines)


def summary(records: Sequence[Record], without: Sequence[Without]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    groups, made = grouped(records), []
    for name, group in groups.items():
        mean, spread = common.mean_and_spread(accuracies(group))
        row = {"part": group[0].part, "name": name, "accuracy": mean, "spread": spread}
        if group[0].part != "teachers":
            row["gain"], row["error"] = gain(group, groups)
        made.append(row)
    return {
        "rows": made,
        "records": [dataclasses.asdict(r) for r in records],
        "without": [dataclasses.asdict(r) for r in without],
    }
