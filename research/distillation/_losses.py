# SPDX-License-Identifier: Apache-2.0
"""The losses under test, each as a mean over a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcompress import distill

from ._network import Answers


class Asked(NamedTuple):
    """A batch of which student and teacher have said what they think."""

    student: Answers
    teacher: Answers
    labels: jax.Array  # int32 (n,)
    temperature: jax.Array  # float32 []
    projector: jax.Array | None  # (student features, teacher features), trained


class Remembered(NamedTuple):
    """What a contrast with a memory is given beside the answers."""

    bank: distill.Memory
    ids: jax.Array  # int32 (n,): which examples of the transfer set these are
    key: jax.Array
    teacher_projector: jax.Array  # (teacher features, EMBEDDED), trained


EMBEDDED = 64  # width of the embeddings there
NEGATIVES = 512  # of an example
Loss = Callable[[Asked], jax.Array]


def of_logits(loss: Callable[..., jax.Array]) -> Loss:
    """A loss of logits and a temperature."""

    def mean(a: Asked) -> jax.Array:
        return loss(
            a.student.logits, a.teacher.logits, temperature=a.temperature
        ).mean()

    return mean


def of_top(tail: distill.Tail) -> Loss:
    """``kl`` to the three largest probabilities of the teacher."""

    def mean(a: Asked) -> jax.Array:
        kept = distill.top_k(a.teacher.logits, 3, temperature=a.temperature)
        return distill.top_k_kl(a.student.logits, kept, tail=tail).mean()

    return mean


kl = of_logits(distill.kl)
reverse_kl = of_logits(distill.reverse_kl)
jensen_shannon = of_logits(distill.jensen_shannon)


def hard_labels(a: Asked) -> jax.Array:
    """Cross-entropy with the teacher's answer."""
    return distill.hard_labels(a.student.logits, a.teacher.logits).mean()


def squared_logits(a: Asked) -> jax.Array:
    """Squared difference of the logits."""
    return distill.squared_logits(a.student.logits, a.teacher.logits).mean()


def standardized_kl(a: Asked) -> jax.Array:
    """``kl`` of logits with mean 0 and deviation 1."""
    both = [distill.standardized(x.logits) for x in (a.student, a.teacher)]
    return distill.kl(*both, temperature=a.temperature).mean()


def decoupled(a: Asked) -> jax.Array:
    """DKD, with the weights of its paper."""
    return distill.decoupled(
        a.student.logits, a.teacher.logits, a.labels, temperature=a.temperature
    ).mean()


def dist(a: Asked) -> jax.Array:
    """DIST: between the classes of an example, and the examples of a class."""
    both, temperature = (a.student.logits, a.teacher.logits), a.temperature
    inter = distill.dist_inter(*both, temperature=temperature).mean()
    return inter + distill.dist_intra(*both, temperature=temperature).mean()


def hint(a: Asked) -> jax.Array:
    """FitNets, with a trained projector."""
    return distill.hint(a.student.maps, a.teacher.maps, projector=a.projector).mean()


def cosine(a: Asked) -> jax.Array:
    """One minus the cosine of features, with a trained projector."""
    return distill.cosine(a.student.maps, a.teacher.maps, projector=a.projector).mean()


def attention_transfer(a: Asked) -> jax.Array:
    """Where the two look."""
    return distill.attention_transfer(a.student.maps, a.teacher.maps).mean()


def relational(a: Asked) -> jax.Array:
    """RKD: distances, and angles at twice the weight, as in its paper."""
    both = a.student.pooled, a.teacher.pooled
    angles = distill.relational_angle(*both).mean()
    return distill.relational_distance(*both).mean() + 2 * angles


def similarity_preserving(a: Asked) -> jax.Array:
    """How similar the examples of a batch are."""
    return distill.similarity_preserving(a.student.pooled, a.teacher.pooled).mean()


def contrastive(a: Asked) -> jax.Array:
    """InfoNCE in the batch, with a trained projector."""
    assert a.projector is not None
    projected = jnp.dot(a.student.pooled, a.projector)
    return distill.contrastive(projected, a.teacher.pooled).mean()


def crd(a: Asked, memory: Remembered) -> tuple[jax.Array, distill.Memory]:
    """CRD: a contrast with the memory of all examples, and what it then holds."""
    assert a.projector is not None
    examples = len(memory.bank.student)
    others = distill.draw_negatives(memory.key, memory.ids, examples, NEGATIVES)
    values, bank = distill.crd(
        jnp.dot(a.student.pooled, a.projector),
        jnp.dot(a.teacher.pooled, memory.teacher_projector),
        memory.bank,
        memory.ids,
        others,
    )
    return values.mean(), bank
