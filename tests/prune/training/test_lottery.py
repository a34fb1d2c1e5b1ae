# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal
from two_layers import cache_size

import jaxcompress as jc

PARAMS = {
    "bias": jnp.linspace(-1.0, 1.0, 5),
    "kernel": normal(7, 5),
}
BATCHES = normal(20, 12, 7, seed=1)
ADAM = optax.adam(optax.linear_schedule(0.05, 0.0, 20))


def loss_fn(p, x):
    return jnp.mean((jnp.tanh(x @ p["kernel"] + p["bias"][None]) - x[:, :5]) ** 2)


def ticket(**kwargs):
    return jc.lottery_ticket(0.6, **{"rounds": 2, "every": 3, **kwargs})


def trained(c, steps, tx=ADAM, **kwargs):
    """The training states, the first included."""
    init, step = jc.train_step(loss_fn, tx, c, **kwargs)
    states = [init(PARAMS)]
    for t in range(steps):
        states.append(step(states[-1], BATCHES[t])[0])
    assert cache_size(step) == 1
    return states


def equal(a, b):
    def numbers(x):
        return (
            jax.random.key_data(x)
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        )

    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(numbers(x), numbers(y)), a, b
    )


@pytest.mark.parametrize("begin", [0, 2])
def test_a_ticket_is_the_loop_written_out(begin):
    c = ticket(rewind_to=begin)
    states = trained(c, begin + 3 * 3)

    @jax.jit
    def step(params, opt_state, mask, batch):
        def view(p):
            return {**p, "kernel": jnp.where(mask, p["kernel"], 0.0)}

        grads = jax.grad(lambda p: loss_fn(view(p), batch))(params)
        updates, opt_state = ADAM.update(grads, opt_state, params)
        return view(optax.apply_updates(params, updates)), opt_state

    params, opt_state, mask = PARAMS, ADAM.init(PARAMS), np.ones((7, 5), bool)
    early, t = PARAMS, 0

    def check():
        np.testing.assert_array_equal(states[t].compression.masks["kernel"], mask)
        view = c.apply(states[t].params, states[t].compression)
        expected = {**params, "kernel": np.where(mask, params["kernel"], 0)}
        # Two programs, whose products XLA fuses with different sums.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            view,
            expected,
        )

    for _ in range(begin):
        params, opt_state = step(params, opt_state, mask, BATCHES[t])
        t += 1
        check()
    early = params
    for done in range(1, 4):
        for i in range(3):
            params, opt_state = step(params, opt_state, mask, BATCHES[t])
            t += 1
            if i < 2:
                check()
        if done == 3:
            break
        number = round(35 * (1 - 0.4 ** (done / 2)))
        order = np.argsort(np.abs(params["kernel"]), axis=None, kind="stable")
        mask = np.ones(35, bool)
        mask[order[:number]] = False
        mask = mask.reshape(7, 5)
        params, opt_state = early, ADAM.init(early)
        check()
        equal(states[t].params, states[begin].params)  # what is pruned too
    check()
    assert t == len(states) - 1 == begin + (2 + 1) * 3


def test_masks_nest_and_every_round_prunes_the_same_share_of_what_is_left():
    c = jc.lottery_ticket(1 - 0.8**3, rounds=3, every=2)
    states = trained(c, 10)
    masks = [np.asarray(s.compression.masks["kernel"]) for s in states]
    for before, after in zip(masks, masks[1:], strict=False):
        assert not (after & ~before).any()
    assert [m.sum() for m in masks] == [
        round(35 * 0.8 ** min(t // 2, 3)) for t in range(11)
    ]


def test_the_optimizer_starts_anew():
    c = ticket(rewind_to=1)
    states = trained(c, 6)
    rewound = states[4]
    equal(rewound.params, states[1].params)
    equal(rewound.compression.early, states[1].params)
    tx = ADAM
    equal(
        jc.fresh(tx, rewound.opt_state, rewound.params, rewound.compression),
        tx.init(rewound.params),
    )
    assert int(states[4].opt_state[0].count) == 4
    assert int(states[5].opt_state[0].count) == 1  # of Adam
    assert int(states[5].opt_state[1].count) == 1  # of the schedule
    assert int(states[5].step) == 5


def test_without_rewinding_it_is_iterative_magnitude_pruning():
    c = ticket(rewind_to=None)
    states = trained(c, 7)
    rounds = jc.prune.schedules.geometric(0.6, rounds=2)
    pruner = jc.magnitude_pruning(
        rounds,
        budget=jc.prune.budgets.global_,
        every=jc.prune.schedules.periodic(3, end=6),
    )
    others = trained(pruner, 7)
    for state, other in zip(states, others, strict=True):
        equal(state.params, other.params)
        equal(state.opt_state, other.opt_state)
        equal(state.compression.masks, other.compression.masks)


def test_under_scan_and_with_donation_it_is_the_same():
    c = ticket(rewind_to=1)
    states = trained(c, 8)
    init, step = jc.train_step(loss_fn, ADAM, c, donate=True)
    state = init(jax.tree.map(jnp.copy, PARAMS))
    for t in range(8):
        state, _ = step(state, BATCHES[t])
    equal(state, states[-1])
    init, step = jc.train_step(loss_fn, ADAM, c)
    scanned, _ = jax.lax.scan(step, init(PARAMS), BATCHES[:8])
    equal(scanned.compression.masks, states[-1].compression.masks)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        scanned.params,
        states[-1].params,
    )


def test_resumed_between_pruning_and_training_on(tmp_path):
    init, step = jc.train_step(loss_fn, ADAM, ticket())
    state = init(PARAMS)
    for t in range(5):
        if t == 3:  # just rewound: the optimizer's new start is still to come
            assert bool(state.compression.restart.now)
            jc.save_checkpoint(tmp_path, t, state)
        state, _ = step(state, BATCHES[t])
    again = jc.restore_checkpoint(tmp_path, init(PARAMS))
    for t in (3, 4):
        again, _ = step(again, BATCHES[t])
    equal(again, state)


@pytest.mark.parametrize(
    "tx",
    [
        optax.MultiSteps(optax.adam(0.01), 2),
        optax.partition(
            {"k": optax.adam(0.01), "b": optax.sgd(0.01)}, {"kernel": "k", "bias": "b"}
        ),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
        optax.contrib.schedule_free_sgd(0.01),
        optax.noisy_sgd(0.01, key=jax.random.key(0)),
    ],
    ids=["multi_steps", "partition", "inject", "schedule_free", "keyed"],
)
def test_any_optimizer_starts_anew(tx):
    old = jax.tree.map(lambda x: jnp.full_like(x, 3), tx.init(PARAMS))
    mark = jc.Restart(jnp.ones((), bool))
    equal(jc.fresh(tx, old, PARAMS, mark), tx.init(PARAMS))
    mark = jc.Restart(jnp.zeros((), bool))
    equal(jc.fresh(tx, old, PARAMS, mark), old)


def test_what_is_wrong_is_said():
    for kwargs in ({"rounds": 0}, {"every": 0}, {"rewind_to": -1}):
        with pytest.raises(
            ValueError, match="rounds and every must be at least 1, and rewind_to"
        ):
            ticket(**kwargs)
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\), got 20"):
        jc.lottery_ticket(20, rounds=1, every=1)
    with pytest.raises(ValueError, match="'kernal' selected none of 2 leaves"):
        ticket(where="kernal").init(PARAMS)
