# SPDX-License-Identifier: Apache-2.0
"""Losses that are more than one function of one answer of both networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcompress import distill

from ..students import Asked, Loss, of

NEGATIVES = 512  # of an example
EMBEDDED = 64  # width of the embeddings of ``crd``


def top(tail: distill.Tail) -> Loss:
    """``kl`` to the three largest probabilities of the teacher."""

    def loss(
        student: jax.Array, teacher: jax.Array, temperature: jax.Array
    ) -> jax.Array:
        kept = distill.top_k(teacher, 3, temperature=temperature)
        return distill.top_k_kl(student, kept, tail=tail)

    return of(loss, "logits", "temperature")


def standardized_kl(a: Asked) -> jax.Array:
    """``kl`` of logits with mean 0 and deviation 1."""
    both = [distill.standardized(x.logits) for x in (a.student, a.teacher)]
    return distill.kl(*both, temperature=a.temperature).mean()


def dist(a: Asked) -> jax.Array:
    """DIST: between the classes of an example, and the examples of a class."""
    both, temperature = (a.student.logits, a.teacher.logits), a.temperature
    inter = distill.dist_inter(*both, temperature=temperature).mean()
    return inter + distill.dist_intra(*both, temperature=temperature).mean()


def relational(a: Asked) -> jax.Array:
    """RKD: distances, and angles at twice the weight, as in its paper."""
    both = a.student.pooled, a.teacher.pooled
    angles = distill.relational_angle(*both).mean()
    return distill.relational_distance(*both).mean() + 2 * angles


def contrastive(a: Asked) -> jax.Array:
    """InfoNCE in the batch, with a trained projector."""
    assert a.projector is not None
    projected = jnp.dot(a.student.pooled, a.projector)
    return distill.contrastive(projected, a.teacher.pooled).mean()


def crd(a: Asked) -> tuple[jax.Array, distill.Memory]:
    """CRD: a contrast with the memory of all examples, and what it then holds."""
    assert a.projector is not None and a.memory is not None
    bank, ids, key, teacher_projector = a.memory
    others = distill.draw_negatives(key, ids, len(bank.student), NEGATIVES)
    values, bank = distill.crd(
        jnp.dot(a.student.pooled, a.projector),
        jnp.dot(a.teacher.pooled, teacher_projector),
        bank,
        ids,
        others,
    )
    return values.mean(), bank
