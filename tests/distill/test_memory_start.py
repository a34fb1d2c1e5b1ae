# SPDX-License-Identifier: Apache-2.0
"""A new memory for contrastive distillation, and the negatives drawn from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import distill


def test_negatives_are_all_others_alike():
    ids = jnp.array([0, 4, 2])
    made = distill.draw_negatives(jax.random.key(0), ids, 5, 20_000)
    assert made.shape == (3, 20_000) and made.dtype == ids.dtype
    for own, row in zip(ids, made, strict=True):
        counts = np.bincount(row, minlength=5)
        assert counts[own] == 0
        # 5 standard deviations of a count of one in four
        assert (abs(np.delete(counts, own) - 5000) < 5 * np.sqrt(5000 * 0.75)).all()


def test_a_new_memory_has_unit_rows_and_knows_no_constant():
    bank = distill.memory(jax.random.key(0), 30, 4)
    for rows in (bank.student, bank.teacher):
        np.testing.assert_allclose(jnp.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert not np.allclose(bank.student, bank.teacher, atol=0.1)
    assert jnp.isnan(bank.student_log_z) and jnp.isnan(bank.teacher_log_z)


def test_a_contrast_takes_two_examples():
    with pytest.raises(
        ValueError, match="at least 2 examples .* got examples=1, width=4"
    ):
        distill.memory(jax.random.key(0), 1, 4)
    with pytest.raises(ValueError, match="at least 2 to draw negatives, got 1"):
        distill.draw_negatives(jax.random.key(0), jnp.array([0]), 1, 4)
