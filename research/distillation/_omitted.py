# SPDX-License-Identifier: Apache-2.0
"""Hinton's omitted class: the student has no example of it, but the teacher had."""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import old_common as common
from ..data import Dataset, Split
from . import _losses as losses
from ._config import Config
from ._rows import ALONE, KL, Row
from ._runs import Runs

LABELS = Row("labels", None, setting=ALONE)
SOFT = Row("kl", losses.kl, setting=KL, labels=False)
BIASES = np.arange(0, 20.25, 0.25)  # what may be added to the logit of the class


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


def kinds(config: Config) -> list[tuple[str, float | None]]:
    """Methods and temperatures."""
    return [("labels", None), *(("kl", t) for t in config.omitted_temperatures)]


def total(config: Config) -> int:
    """How many students are trained for a seed."""
    return (1 + len(config.omitted)) * len(kinds(config))


def run(
    config: Config, runs: Runs, data: Dataset, seed: int, progress: common.Progress
) -> list[Without]:
    """Students of a seed: without a class, each in turn, and with all of them."""
    transfer = runs.whole(seed % config.teachers)
    size = config.teacher_batch
    steps = config.omitted_epochs * (len(data.train) // size)
    made: list[Without] = []
    for omitted in (None, *config.omitted):
        kept = np.flatnonzero(data.train.y != (-1 if omitted is None else omitted))
        order = kept[runs.order(len(kept), size, seed, steps)]
        for method, temperature in kinds(config):
            progress.start(f"without {omitted}, {method} {temperature or ''}, {seed}")
            row = SOFT if temperature else LABELS
            setting = row.given(config.chosen)
            if temperature:
                setting = dataclasses.replace(setting, temperature=temperature)
            params = runs.fit(row, setting, transfer, seed, order=order)
            known, shown = (
                runs.logits(params, split.x, runs.student)
                for split in (data.validation, data.test)
            )
            for of in config.omitted if omitted is None else (omitted,):
                bias = raised(known, data.validation, of)
                before, after = (rates(shown, data.test, of, b) for b in (0, bias))
                made.append(
                    Without(
                        method=method,
                        temperature=temperature,
                        saw=omitted is None,
                        omitted=of,
                        seed=seed,
                        recall=before[0],
                        accuracy=before[1],
                        bias=bias,
                        raised_recall=after[0],
                        raised_accuracy=after[1],
                    )
                )
            progress.done()
    return made


def rates(
    logits: np.ndarray, split: Split, omitted: int, bias: float
) -> tuple[float, float]:
    """Recall of the class and accuracy, with so much more for its logit."""
    logits = logits.copy()
    logits[:, omitted] += bias
    right = logits.argmax(-1) == split.y
    return float(right[split.y == omitted].mean()), float(right.mean())


def raised(logits: np.ndarray, validation: Split, omitted: int) -> float:
    """The smallest bias with the best accuracy."""
    accuracies = [rates(logits, validation, omitted, bias)[1] for bias in BIASES]
    return float(BIASES[int(np.argmax(accuracies))])
