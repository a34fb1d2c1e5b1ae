# SPDX-License-Identifier: Apache-2.0
"""Choosing learning rates on the validation split. No function here is given the test."""

from __future__ import annotations

from typing import Any

from .. import old_common as common
from ..data import Split
from ._config import Config
from ._judge import Compared, compare
from ._rows import LOSSES, Row
from ._runs import Runs

RATES = (2e-3, 4e-3, 8e-3)
SEED = 100  # another than those that are reported


def trials() -> int:
    """How many trainings a choice takes."""
    return len(LOSSES) * len(RATES)


def choose(
    config: Config,
    train: Split,
    validation: Split,
    classes: int,
    progress: common.Progress,
) -> dict[str, Any]:
    """The learning rate of each loss, on the text, by bits a character of the text.

    By one measure for all, so that no loss is chosen for by what it reports of itself.

    Returns:
      What was chosen, and the validation results of every candidate.
    """
    runs = Runs(config, classes, train)
    progress.start("teacher")
    teacher, warm = runs.teacher(), runs.warm([SEED])
    made: dict[str, Any] = {}
    for loss in LOSSES:
        found: dict[float, Compared] = {}
        for rate in RATES:
            progress.start(f"{loss}, {rate:g}")
            row = Row("text", loss)
            (params,), _ = runs.trained(row, warm, teacher, [SEED], rate)
            found[rate] = compare(params, teacher, validation.x, config)
            progress.done()
        best = min(found, key=lambda rate: found[rate].student)
        made[loss] = {
            "chosen": best,
            "all": {f"{rate:g}": value._asdict() for rate, value in found.items()},
        }
    return {
        "split": "validation",
        "examples": len(validation),
        "seed": SEED,
        "teacher": compare(teacher, teacher, validation.x, config).teacher,
        "rates": made,
    }
