# SPDX-License-Identifier: Apache-2.0
"""Two laws of every exported loss: it shows a NaN, and its gradient is bounded at zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from every_loss import BANK, IDS, LOSSES, NO_LOSSES, OTHERS, array

from jaxcompress import distill

every_loss = pytest.mark.parametrize("name", LOSSES)
every_masked_loss = pytest.mark.parametrize(
    "name", sorted(LOSSES.keys() - {"total_variation"})
)


def test_no_exported_loss_is_left_out():
    assert not LOSSES.keys() & NO_LOSSES
    assert LOSSES.keys() | NO_LOSSES == set(distill.__all__)


@functools.cache  # so that tests share what is compiled
def graded(loss):
    """Map cases (student, teacher) to losses and gradients of the student."""

    def total(s, t):
        values = loss(s, t, None)
        return values.sum(), values

    compiled = jax.jit(jax.value_and_grad(total, has_aux=True))

    def values_and_gradients(*cases):
        done = [compiled(*case) for case in cases]
        stacked = [
            np.stack(x) for x in zip(*((v, g) for (_, v), g in done), strict=True)
        ]
        return stacked[0], stacked[1]

    return values_and_gradients


S, T = array(0, 6, 5), array(1, 6, 5)


@every_loss
def test_a_nan_in_student_or_teacher_is_a_nan_of_the_loss(name):
    spots = [(0, 0), (1, 3), (5, 4)]
    cases = [(S * jnp.nan, T), (S, T * jnp.nan)]
    cases += [(S.at[spot].set(jnp.nan), T) for spot in spots]
    cases += [(S, T.at[spot].set(jnp.nan)) for spot in spots]
    values, _ = graded(LOSSES[name])(*cases, (S, T))
    values = np.asarray(values).reshape(len(cases) + 1, -1)
    assert np.isfinite(values[-1]).all()
    assert np.isnan(values[:2]).any(-1).all()
    assert np.isnan(values[2:-1]).any(-1).all()


@every_masked_loss
def test_a_nan_that_does_not_count_changes_nothing(name):
    where = jnp.array([True, False, True, True, False, False])
    bad = [jnp.where(where[:, None], x, jnp.nan) for x in (S, T)]
    loss = jax.jit(LOSSES[name])
    np.testing.assert_allclose(loss(*bad, where), loss(S, T, where), rtol=1e-6)
    assert np.isnan(loss(*bad, ~where)).any()  # counted, it is not hidden


@every_loss
def test_near_zeros_and_constants_gradients_do_not_explode(name):
    # A loss that ignores scale has gradients in inverse proportion to it: those of
    # features of size 0.001 are large, and nothing smaller has larger ones.
    _, (ordinary, small) = graded(LOSSES[name])((S, T), (1e-3 * S, T))
    # The factor: what counts as the size is up to 3 times that.
    limit = 4 * max(np.abs(ordinary).max(), np.abs(small).max())
    students = [
        jnp.zeros((6, 5)),
        jnp.full((6, 5), 0.1),
        S.at[2].set(0),
        S.at[2].multiply(1e-7),
        jnp.tile(S[:1], (6, 1)),
        1 + 1e-6 * S,
        *(scale * S for scale in (1e-5, 1e-7, 1e-12, 1e-30)),
    ]
    values, gradients = graded(LOSSES[name])(*((s, T) for s in students))
    assert np.isfinite(values).all()
    assert (np.abs(gradients) <= limit).all()


@pytest.mark.parametrize("name", ["kl", "standardized", "dist_inter", "dist_intra"])
def test_a_head_of_zeros_learns_as_well_as_another(name):
    x, tx = array(6, 6, 8), optax.adam(0.02)

    def loss(head):
        return LOSSES[name](x @ head, T, None).mean()

    @jax.jit
    def train(head):
        def step(carry, _):
            head, state = carry
            updates, state = tx.update(jax.grad(loss)(head), state)
            return (optax.apply_updates(head, updates), state), None

        (head, _), _ = jax.lax.scan(step, (head, tx.init(head)), length=150)
        return loss(head)

    start = loss(jnp.zeros((8, 5)))
    reached = start - train(0.1 * array(7, 8, 5))
    assert reached > 0.5 * start
    assert start - train(jnp.zeros((8, 5))) > 0.8 * reached


def test_the_gradient_at_ordinary_sizes_is_that_of_the_formula():
    def formula(s):
        s, t = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (s, T))
        return (1 - (s * t).sum(-1)).sum()

    for scale in (1.0, 1e-2):
        _, got = graded(LOSSES["cosine"])((scale * S, T))
        want = jax.grad(formula)(scale * S)
        np.testing.assert_allclose(got[0], want, rtol=1e-3, atol=1e-5 / scale)


def test_a_nan_stays_out_of_the_memory_and_of_its_constant():
    bad = S.at[1, 2].set(jnp.nan)
    crd = jax.jit(
        functools.partial(distill.crd, memory=BANK, ids=IDS, negatives=OTHERS)
    )
    losses, bank = crd(bad, T, where=jnp.ones(6, bool))
    assert np.flatnonzero(jnp.isnan(losses)).tolist() == [1]
    _, want = crd(S, T, where=jnp.arange(6) != 1)
    jax.tree.map(np.testing.assert_array_equal, bank, want)
