# SPDX-License-Identifier: Apache-2.0
"""A row of a study of students: a loss, and what it is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxcompress import distill

from ._config import Setting
from ._network import Answers

ALONE, KL = "student alone", "kl"


class Remembered(NamedTuple):
    """What a contrast with a memory is given beside the answers."""

    bank: distill.Memory
    ids: jax.Array  # int32 (n,): which examples of the transfer set these are
    key: jax.Array
    teacher_projector: jax.Array  # (teacher features, embedding), trained


class Asked(NamedTuple):
    """A batch of which student and teacher have said what they think."""

    student: Answers
    teacher: Answers
    labels: jax.Array  # int32 (n,)
    temperature: jax.Array  # float32 []
    projector: jax.Array | None  # (student features, teacher features), trained
    memory: Remembered | None = None


# The mean over a batch; of a loss with a memory, also the memory after it.
Loss = Callable[[Asked], Any]


def of(loss: Callable[..., jax.Array], what: str = "logits", *given: str) -> Loss:
    """The mean of a loss of what both networks answer.

    Args:
      loss: ``(student, teacher, **given) -> one value per example``.
      what: field of ``Answers``.
      *given: fields of ``Asked`` that the loss is given by their names.
    """

    def mean(asked: Asked) -> jax.Array:
        both = (getattr(answers, what) for answers in (asked.student, asked.teacher))
        return loss(*both, **{name: getattr(asked, name) for name in given}).mean()

    return mean


kl = of(distill.kl, "logits", "temperature")


@dataclasses.dataclass(frozen=True)
class Row:
    """A student.

    Attributes:
      name: in tables.
      loss: what is added to the cross-entropy of the labels; None: nothing.
      part: of the tables.
      setting: name of the row whose chosen setting it has; "": its own.
      weights: candidates for the weight of the loss.
      temperatures: candidates.
      projector: "maps" or "pooled": which of the student's features are projected.
      memory: width of the embeddings that the loss remembers; 0: it remembers none.
      labels: whether the student sees them.
      kl: whether ``kl`` is added too, as it was chosen.
      views: how images are made into inputs: "", "shifted", "mixed", "smooth noise".
      ensemble: whether all teachers teach at once.
      average: decay, if the teacher is the average of the student's own parameters.
      schedule: whether the temperature falls from twice the chosen one to 1.
    """

    name: str
    loss: Loss | None
    part: str = "logits"
    setting: str = ""
    weights: tuple[float, ...] = (1.0, 3.0, 10.0)
    temperatures: tuple[float, ...] = (1.0, 4.0)
    projector: str = ""
    memory: int = 0
    labels: bool = True
    kl: bool = False
    views: str = ""
    ensemble: bool = False
    average: float = 0.0
    schedule: bool = False

    @property
    def of(self) -> str:
        """Whose setting it has."""
        return self.setting or self.name

    @property
    def traced(self) -> tuple[Any, ...]:
        """What of it makes another program."""
        return (
            self.loss, self.projector, self.memory, self.kl, self.average, self.schedule
        )  # fmt: skip

    def setting_in(self, chosen: Mapping[str, Setting]) -> Setting:
        """Its setting, out of all that were chosen."""
        setting = chosen[self.of]
        return setting if self.labels else dataclasses.replace(setting, labels=0.0)


LABELS_ALONE = Row(ALONE, None, "labels", setting=ALONE)
KL_ALONE = Row(KL, kl, "schemes", setting=KL)
