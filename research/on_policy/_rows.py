# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: on whose sequences, by which loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import optax

import jaxcompress as jc

# (logits of the student, of the teacher, the characters that follow) -> nats a character
Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _cross_entropy(
    student: jax.Array, teacher: jax.Array, following: jax.Array
) -> jax.Array:
    del teacher
    return optax.losses.softmax_cross_entropy_with_integer_labels(student, following)


def _without_characters(loss: Callable[[jax.Array, jax.Array], jax.Array]) -> Loss:
    return lambda student, teacher, following: loss(student, teacher)


LOSSES: dict[str, Loss] = {
    "cross-entropy": _cross_entropy,
    "kl": _without_characters(jc.distill.kl),
    "reverse_kl": _without_characters(jc.distill.reverse_kl),
    "jensen_shannon": _without_characters(jc.distill.jensen_shannon),
}
DIVERGENCES = ("kl", "reverse_kl", "jensen_shannon")


@dataclasses.dataclass(frozen=True)
class Row:
    """What a warm student is trained on with.

    Attributes:
      writer: whose sequences: ``"text"``, ``"teacher"``, or ``"student"``, its own.
      loss: name of one of ``LOSSES``.
      fraction: of the examples that the writer writes; the others are the text.
    """

    writer: str
    loss: str
    fraction: float = 0.0

    @property
    def name(self) -> str:
        """As tables and pictures have it."""
        if self.writer == "text":
            on = "text"
        elif self.writer == "teacher":
            on = "teacher's"
        else:
            on = "own" if self.fraction == 1 else f"{self.fraction:g} own"
        return f"{on}, {self.loss}"


ALONE = Row("text", "cross-entropy")
SEQUENCES = Row("teacher", "cross-entropy", 1.0)


def rows(*, quick: bool) -> list[Row]:
    """All of them: on the text, on the teacher's sequences, on the student's own."""
    if quick:
        return [ALONE, SEQUENCES, Row("student", "reverse_kl", 0.5)]
    return [
        ALONE,
        *(Row("text", loss) for loss in DIVERGENCES),
        SEQUENCES,
        *(Row("student", loss, share) for share in (0.5, 1.0) for loss in DIVERGENCES),
    ]
