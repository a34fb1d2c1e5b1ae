# SPDX-License-Identifier: Apache-2.0
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put

import jaxcompress as jc
from jaxcompress import prune
from jaxcompress.prune.schedules import (
    alternating,
    converged,
    cubic,
    geometric,
    one_shot,
    periodic,
)

PARAMS = {"kernel": put(np.random.default_rng(0).normal(size=(10, 10)))}


def values(schedule, counts):
    """By one program, as the pruner calls it."""
    traced = jax.jit(jax.vmap(schedule))(jnp.asarray(counts, jnp.int32))
    eager = [float(schedule(int(c))) for c in counts]
    np.testing.assert_allclose(traced, eager, rtol=1e-6, atol=1e-7)
    return np.asarray(traced)


def sparsity_of(state):
    return float(1 - state.masks["kernel"].mean())


def test_cubic_equals_its_formula():
    counts = np.array([0, 4, 5, 6, 11, 24, 25, 26, 10**9])
    progress = np.clip((counts - 5) / 20, 0, 1)
    found = values(cubic(0.9, begin=5, end=25), counts)
    np.testing.assert_allclose(found, 0.9 * (1 - (1 - progress) ** 3), rtol=1e-6)
    assert found[1] == 0 and found[-3] == found[-1] == np.float32(0.9)


def test_geometric_removes_the_same_share_in_each_round():
    left = 1 - values(geometric(0.9, rounds=5), np.arange(9))
    np.testing.assert_allclose(left[1:6] / left[:5], 0.1 ** (1 / 5), rtol=1e-5)
    np.testing.assert_allclose(left[5:], 0.1, rtol=1e-5)
    assert left[0] == 1


def test_geometric_is_the_same_in_jit_and_ends_at_its_sparsity():
    ramp: Any = geometric(0.9, rounds=41)  # 41 * float32(1 / 41) is not 1
    compiled = jax.jit(ramp)
    for count in map(jnp.int32, (0, 6, 7, 19, 40, 41, 42)):
        assert float(ramp(count)) == float(compiled(count))
    assert 1 - float(compiled(jnp.int32(41))) == 1 - np.float32(0.9)


def test_one_shot_and_alternating_turns():
    assert values(one_shot(0.5, at=3), [0, 2, 3, 9]).tolist() == [0, 0, 0.5, 0.5]
    turns = values(alternating(0.5, begin=4, dense=2, sparse=3, end=20), range(30))
    expected = [0] * 4 + 3 * ([0.5] * 3 + [0] * 2) + [0.5] * 11
    assert turns.tolist() == expected
    assert values(alternating(0.5, begin=0, dense=1, sparse=1, end=0), [0, 1, 2]).all()


def test_ac_dc_revives_weights_at_exactly_zero_and_ends_sparse():
    schedule: Any = alternating(0.5, begin=2, dense=3, sparse=3, end=12)
    pruner = jc.magnitude_pruning(schedule)
    init, step = jc.train_step(
        lambda view, batch: jnp.sum((view["kernel"] - batch) ** 2),
        optax.adam(0.05),
        pruner,
    )
    state = init(PARAMS)
    target = jnp.cos(PARAMS["kernel"] * 9)
    revived = 0
    for count in range(1, 16):
        before = state.compression.masks["kernel"]
        state, _ = step(state, target)
        mask = state.compression.masks["kernel"]
        assert abs((1 - mask.mean()) - float(schedule(count))) < 1e-6
        view = pruner.apply(state.params, state.compression)["kernel"]
        back = mask & ~before
        revived += int(back.sum())
        assert not view[back].any()  # at zero, whatever the optimizer's momentum
        assert not view[~mask].any()
    assert revived == 100  # two dense phases
    assert 1 - mask.mean() == 0.5


@pytest.mark.parametrize(
    ("every", "begin", "end", "expected"),
    [
        (1, 0, None, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (2, 3, None, [5, 7, 9]),
        (3, 0, 6, [3, 6]),
        (2, 1, 6, [3, 5]),
    ],
)
def test_periodic_fires_between_begin_and_end(every, begin, end, expected):
    trigger = periodic(every, begin=begin, end=end)
    fire = jax.jit(lambda state: trigger.fire(state, grads=1.0))
    state, fired = trigger.init(), []
    for update in range(1, 10):
        due, state = fire(state)
        assert due.dtype == bool and not due.shape
        fired += [update] if due else []
    assert fired == expected


def test_the_schedule_of_a_trigger_counts_redrawings():
    pruner = jc.magnitude_pruning(geometric(0.75, rounds=2), every=periodic(2, begin=1))
    update, params = jax.jit(pruner.update), PARAMS
    state, seen = pruner.init(params), []
    for _ in range(7):
        params, state = update(params, state)
        seen.append((int(state.count), round(sparsity_of(state), 2)))
    assert seen == [(0, 0)] * 2 + [(1, 0.5)] * 2 + [(2, 0.75)] * 2 + [(3, 0.75)]


def converged_oracle(losses, patience, tolerance):
    best, since, fired = np.inf, 0, []
    for loss in np.asarray(losses, np.float32):
        best, since = (loss, 0) if loss < best - tolerance else (best, since + 1)
        fired.append(since >= patience)
        if fired[-1]:
            best, since = np.inf, 0
    return fired


@pytest.mark.parametrize(("patience", "tolerance"), [(1, 0.0), (2, 0.0), (3, 0.25)])
def test_converged_fires_after_its_patience_scanned_and_vmapped(patience, tolerance):
    rng = np.random.default_rng(patience)
    drawn = rng.integers(0, 8, (4, 60)) / 8 + np.linspace(3, 0, 60)
    losses = np.asarray(drawn, np.float32)
    losses[1, 20:30] = np.nan  # never better
    trigger = converged(patience, tolerance=tolerance)

    @jax.jit
    @jax.vmap
    def run(losses):
        def one(state, loss):
            due, state = trigger.fire(state, value=loss, grads=0)
            return state, due

        return jax.lax.scan(one, trigger.init(), losses)[1]

    fired = np.asarray(run(losses))
    for row, expected in zip(fired, losses, strict=True):
        assert row.tolist() == converged_oracle(expected, patience, tolerance)
    assert fired.any(1).all() and not fired.all()


def test_converged_prunes_through_train_step_and_resumes(tmp_path):
    rounds = geometric(0.875, rounds=3)
    pruner = jc.magnitude_pruning(rounds, every=converged(patience=2))
    # The loss is the batch, so that the test says when it falls.
    init, step = jc.train_step(
        lambda view, batch: batch + 0 * view["kernel"].sum(), optax.sgd(0.1), pruner
    )
    losses = [5.0, 4.0, 4.0, 4.0, 9.0, 3.0, 3.0, 3.0, 1.0, 2.0, 1.0, 0.0]
    state, seen = init(PARAMS), []
    for i, loss in enumerate(losses):
        if i == 7:  # in the middle of its patience
            jc.save_checkpoint(tmp_path, i, state)
            state = jc.restore_checkpoint(tmp_path, init(PARAMS))
        state, _ = step(state, jnp.float32(loss))
        seen.append(int(state.compression.count))
    assert seen == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert sparsity_of(state.compression) == pytest.approx(0.88, abs=0.006)


def test_converged_needs_the_loss():
    pruner = jc.magnitude_pruning(0.5, every=converged(3))
    with pytest.raises(TypeError, match=r"converged\(\) needs value=..., the loss"):
        pruner.update(PARAMS, pruner.init(PARAMS), grads=PARAMS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cubic(0.5, end=0), "begin=0, end=0"),
        (lambda: cubic(0.5, begin=-1, end=3), "begin=-1"),
        (lambda: cubic(0.5, begin=5, end=3), "begin=5, end=3"),
        (lambda: alternating(0.5, begin=0, dense=0, sparse=1, end=3), "dense=0"),
        (lambda: alternating(0.5, begin=0, dense=1, sparse=0, end=3), "sparse=0"),
        (lambda: converged(0), "patience=0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cubic(90, end=3), r"sparsity must be in \[0, 1\), got 90"),
        (lambda: one_shot(1.0, at=3), r"sparsity must be in \[0, 1\), got 1.0"),
        (lambda: geometric(-0.1, rounds=3), r"must be in \[0, 1\)"),
        (
            lambda: alternating(5, begin=0, dense=1, sparse=1, end=3),
            r"must be in \[0, 1\)",
        ),
        (lambda: geometric(0.5, rounds=0), "rounds=0"),
        (lambda: periodic(0), "every=0"),
    ],
)
def test_bad_numbers_of_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_schedule_runs_in_a_pruner():
    for schedule in (
        geometric(0.5, rounds=3),
        one_shot(0.5, at=3),
        alternating(0.5, begin=0, dense=1, sparse=2, end=2),
        optax.constant_schedule(0.5),
    ):
        pruner = prune.prune(schedule)

        def three(params, pruner=pruner):
            def one(carry, _):
                return pruner.update(*carry), None

            return jax.lax.scan(one, (params, pruner.init(params)), length=3)[0]

        assert sparsity_of(jax.jit(three)(PARAMS)[1]) == 0.5


@pytest.mark.parametrize("value", [1.5, -0.5, jnp.nan])
def test_a_schedule_outside_of_zero_to_one_is_refused(value):
    def leaves_range(count):
        return jnp.where(jnp.asarray(count) >= 1, value, 0.5)

    pruner = jc.magnitude_pruning(leaves_range)
    state = pruner.init(PARAMS)
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\], the schedule"):
        pruner.update(PARAMS, state)
    with pytest.raises(ValueError, match="at count 0"):
        jc.magnitude_pruning(lambda count: jnp.asarray(value)).init(PARAMS)
    _, state = jax.jit(pruner.update)(PARAMS, state)
    expected = {1.5: 1.0, -0.5: 0.0}.get(value, 0.5)  # NaN holds the masks
    assert sparsity_of(state) == expected


def test_every_schedule_of_a_share_or_strength_is_checked():
    def wrong(count):
        return jnp.asarray(-1.0) * (jnp.asarray(count) >= 0)

    rigl = jc.rigl(0.5, key=jax.random.key(0), until=9, every=1, drop=wrong)
    lasso = prune.l1_pruning(wrong)
    state = rigl.init(PARAMS)
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\], .* gives -1"):
        rigl.update(PARAMS, state, grads=PARAMS)
    with pytest.raises(ValueError, match="must be at least 0, got strength=-1.0"):
        lasso.update(PARAMS, lasso.init(PARAMS))
    _, after = jax.jit(rigl.update)(PARAMS, state, grads=PARAMS)
    np.testing.assert_array_equal(after.masks["kernel"], state.masks["kernel"])
    same, _ = jax.jit(lasso.update)(PARAMS, lasso.init(PARAMS))
    np.testing.assert_array_equal(same["kernel"], PARAMS["kernel"])
