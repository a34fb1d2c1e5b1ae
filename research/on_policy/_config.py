# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults."""

from __future__ import annotations

import dataclasses

from .. import common


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the study; together with the seed they decide every bit of it.

    Attributes:
      seeds: how many students, with seeds 0, 1, ...
      teacher: width of the teacher.
      student: width of the students.
      teaching: steps of the teacher.
      warming: steps of a student on the text, before anything else.
      steps: steps of every row after that.
      batch_size: sequences a step.
      prompt: characters of the text in front of what is generated and compared.
      rate: learning rate of Adam, at the start of its cosine decay, of teacher and warm
        student.
      rates: those of the rows, by ``Row.loss``.
      judged: sequences of the test set that networks are compared on, at most.
      written: sequences that each network is asked to write at the end.
      quick: whether this is a trial.
    """

    seeds: int = 3
    teacher: int = 128
    student: int = 32
    teaching: int = 2000
    warming: int = 1000
    steps: int = 500
    batch_size: int = 32
    prompt: int = 16
    rate: float = 4e-3
    rates: dict[str, float]
    judged: int = 4000
    written: int = 1500
    quick: bool = False


def rates() -> dict[str, float]:
    """What ``--choose`` wrote."""
    chosen = common.chosen_by(__file__)["rates"]
    return {name: trial["chosen"] for name, trial in chosen.items()}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults, and what was asked for."""
    del data  # there is one
    return common.adjusted(
        Config(rates=rates()),
        seeds=seeds,
        quick=quick,
        teacher=12,
        student=8,
        teaching=3,
        warming=3,
        steps=3,
        batch_size=4,
        judged=8,
        written=8,
    )
