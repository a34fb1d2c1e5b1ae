# SPDX-License-Identifier: Apache-2.0
"""Tables of students beside the student alone, and the same as data and as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .. import common
from ._rows import ALONE

TEACHER, TEACHERS = "teacher", "teachers together"
BELOW = 6  # points below the student alone, at which the picture is cut


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


Groups = Mapping[str, Sequence[Record]]  # by name


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of the seeds by name, in the order of the runs."""
    return common.grouped(records, "name")


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


def markdown(records: Sequence[Record], parts: Mapping[str, str]) -> str:
    """A table a part, under its title."""
    groups, tables = grouped(records), []
    for part, title in parts.items():
        lines = [
            [name, common.percent(group), _gain_text(group, groups)]
            for name, group in groups.items()
            if group[0].part == part
        ]
        if lines:
            tables.append(common.markdown([title, "test accuracy", "gain"], lines))
    return "\n\n".join(tables)


def _gain_text(group: Sequence[Record], groups: Groups) -> str:
    if group[0].part == "teachers" or group[0].name == bar(group, groups):
        return ""
    mean, error = gain(group, groups)
    return f"{100 * mean:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    groups = grouped(records)
    rows = common.summary_rows(records, ("name", "part"))
    for row in rows:
        if row["part"] != "teachers":
            row["gain"], row["error"] = gain(groups[row["name"]], groups)
    return {"rows": rows, "records": common.as_json(records)}


def rows_of_picture(axis: Any, records: Sequence[Record], parts: Sequence[str]) -> None:
    """Draw every row beside the student alone, a color a part."""
    groups = grouped(records)
    mean, spread = (100 * (v or 0.0) for v in _stats(groups[ALONE]))
    top = 100 * _stats(groups[TEACHER])[0]
    axis.axvspan(mean - spread, mean + spread, color="black", alpha=0.1)
    axis.axvline(mean, color="black", linestyle="--", label=ALONE)
    axis.axvline(top, color="C4", linestyle="--", label=TEACHER)
    names = [name for name, group in groups.items() if group[0].part in parts]
    for i, name in enumerate(names):
        color, (at, error) = parts.index(groups[name][0].part), _stats(groups[name])
        axis.errorbar(
            100 * at, i, xerr=100 * (error or 0.0), fmt="o", color=f"C{color}",
            markersize=4, capsize=2,
        )  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlim=(mean - BELOW, top + 1), ylim=(len(names) - 0.5, -0.5))
    axis.set(xlabel="test accuracy, %")
    common.finish(axis)


def _stats(group: Sequence[Record]) -> tuple[float, float | None]:
    return common.mean_and_spread(common.values(group))
