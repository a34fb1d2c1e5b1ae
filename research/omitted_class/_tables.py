# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, what it claims, the same as data, and the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import common


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
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


def students(records: Sequence[Record]) -> dict[tuple[int, str], list[Record]]:
    """Records of the seeds by class and by what the student is called."""
    in_order = sorted(records, key=lambda r: (r.omitted, r.saw))
    return common.grouped(in_order, "omitted", "student")


def markdown(records: Sequence[Record], classes: Sequence[str]) -> str:
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
            for (number, name), group in students(records).items()
        ],
    )


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """A teacher who knows the class, against labels with a bias raised for the class."""
    groups, measure = students(records), common.Measure("raised_recall")
    taught = (r.student for r in records if not r.saw and r.temperature is not None)
    for name in dict.fromkeys(taught):
        cases = {
            f"for class {number}": (groups[number, name], groups[number, "labels"])
            for number in dict.fromkeys(number for number, _ in groups)
        }
        yield common.Claim(f"{name}, bias raised", "labels alone", cases, measure)


def summary(records: Sequence[Record], classes: Sequence[str]) -> dict[str, Any]:
    """Every student and class, as JSON can hold them."""
    return {"classes": list(classes), "records": common.as_json(records)}


def draw(records: Sequence[Record], classes: Sequence[str], path: Path) -> None:
    """Draw ``results.png``: how much of the class is found."""
    named = students(records)
    with common.figure(path, size=(7, 6), dpi=110) as (axis,):
        for i, group in enumerate(named.values()):
            for field, color, height in (
                ("raised_recall", "C1", 0.7),
                ("recall", "C0", 0.4),
            ):
                mean, spread = common.mean_and_spread(common.values(group, field))
                error = 100 * (spread or 0.0)
                axis.barh(i, 100 * mean, height, xerr=error, color=color)
        labels = [f"{classes[number]}: {name}" for number, name in named]
        axis.set_yticks(range(len(named)), labels, fontsize=8)
        axis.set(ylim=(len(named) - 0.5, -0.5), xlim=(0, 102))
        axis.set(xlabel="right answers on the class, %")
        axis.set_title("blue: as trained; orange: bias raised", fontsize=10)
        axis.grid(alpha=0.3)
