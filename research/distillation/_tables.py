# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, and the same as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import common
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


BELOW = 6  # points below the student alone, at which the picture is cut
COLORS = {
    "labels": "black",
    "logits": "C0",
    "features": "C1",
    "views": "C2",
    "schemes": "C3",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Without:
    """A student and a class.

    Attributes:
      method: "labels" or "kl", without labels.
      temperature: of ``kl``; None of labels.
      saw: whether it had examples of the class.
      omitted: number of the class.
      seed: of everything random.
      recall: fraction of the test examples of the class that it gets right.
      accuracy: on the whole test set.
      bias: what is added to the logit of the class, chosen on the validation split.
      raised_recall: recall with it.
      raised_accuracy: accuracy with it.
    """

    method: str
    temperature: float | None
    saw: bool
    omitted: int
    seed: int
    recall: float
    accuracy: float
    bias: float
    raised_recall: float
    raised_accuracy: float

    @property
    def student(self) -> str:
        """What it is called in tables."""
        loss = "labels" if self.temperature is None else f"kl, T = {self.temperature:g}"
        return loss + (", saw it" if self.saw else "")


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


def markdown(
    records: Sequence[Record], without: Sequence[Without], classes: Sequence[str]
) -> str:
    """All tables: a part each, and the omitted classes."""
    groups = grouped(records)
    tables = []
    for part, title in PARTS.items():
        lines = [
            [name, common.percent(group), _gain_text(group, groups)]
            for name, group in groups.items()
            if group[0].part == part
        ]
        if lines:
            tables.append(common.markdown([title, "test accuracy", "gain"], lines))
    return "\n\n".join([*tables, _omitted(without, classes)])


def _gain_text(group: Sequence[Record], groups: Groups) -> str:
    if group[0].part == "teachers" or group[0].name == bar(group, groups):
        return ""
    mean, error = gain(group, groups)
    return f"{100 * mean:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def students(without: Sequence[Without]) -> dict[tuple[int, str], list[Without]]:
    """Records of the seeds by class and by what the student is called."""
    in_order = sorted(without, key=lambda r: (r.omitted, r.saw))
    return common.grouped(in_order, "omitted", "student")


def _omitted(without: Sequence[Without], classes: Sequence[str]) -> str:
    """A line a class and a student."""
    columns = ("recall", "accuracy", "bias", "recall, raised", "accuracy, raised")
    return common.markdown(
        ["*C. omitted class*", "student", *columns],
        [
            [
                classes[number],
                name,
                common.percent(group, "recall"),
                common.percent(group),
                f"{common.mean(group, 'bias'):.2f}",
                common.percent(group, "raised_recall"),
                common.percent(group, "raised_accuracy"),
            ]
            for (number, name), group in students(without).items()
        ],
    )


def summary(records: Sequence[Record], without: Sequence[Without]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    groups = grouped(records)
    rows = common.summary_rows(records, ("name", "part"))
    for row in rows:
        if row["part"] != "teachers":
            row["gain"], row["error"] = gain(groups[row["name"]], groups)
    both = {"records": common.as_json(records), "without": common.as_json(without)}
    return {"rows": rows, **both}


def draw(
    records: Sequence[Record],
    without: Sequence[Without],
    classes: Sequence[str],
    path: Path,
) -> None:
    """Draw ``results.png``: rows beside the student alone, and the omitted classes."""
    size, ratios = (14, 8.5), (3, 2)
    with common.figure(path, size=size, panels=2, dpi=110, width_ratios=ratios) as axes:
        _rows(axes[0], grouped(records))
        _classes(axes[1], without, classes)


def _rows(axis: Any, groups: Groups) -> None:
    mean, spread = (100 * (v or 0.0) for v in _stats(groups[ALONE]))
    top = 100 * _stats(groups[TEACHER])[0]
    axis.axvspan(mean - spread, mean + spread, color="black", alpha=0.1)
    axis.axvline(mean, color="black", linestyle="--", label=ALONE)
    axis.axvline(top, color="C4", linestyle="--", label=TEACHER)
    names = [name for name, group in groups.items() if group[0].part in COLORS]
    for i, name in enumerate(names):
        part, (at, error) = groups[name][0].part, _stats(groups[name])
        axis.errorbar(
            100 * at, i, xerr=100 * (error or 0.0), fmt="o", color=COLORS[part],
            markersize=4, capsize=2,
        )  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlim=(mean - BELOW, top + 1), ylim=(len(names) - 0.5, -0.5))
    axis.set(xlabel="test accuracy, %")
    common.finish(axis)


def _stats(group: Sequence[Record]) -> tuple[float, float | None]:
    return common.mean_and_spread(common.values(group))


def _classes(axis: Any, without: Sequence[Without], classes: Sequence[str]) -> None:
    named = students(without)
    for i, group in enumerate(named.values()):
        for field, color, height in (
            ("raised_recall", "C1", 0.7),
            ("recall", "C0", 0.4),
        ):
            mean, spread = common.mean_and_spread(common.values(group, field))
            axis.barh(i, 100 * mean, height, xerr=100 * (spread or 0.0), color=color)
    labels = [f"{classes[number]}: {name}" for number, name in named]
    axis.set_yticks(range(len(named)), labels, fontsize=8)
    axis.set(ylim=(len(named) - 0.5, -0.5), xlim=(0, 102))
    axis.set(xlabel="right answers on the class, %")
    axis.set_title("blue: as trained; orange: bias raised", fontsize=10)
    axis.grid(alpha=0.3)
