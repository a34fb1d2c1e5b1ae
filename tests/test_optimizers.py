# SPDX-License-Identifier: Apache-2.0
"""Every optimizer of optax under masks that change, as RigL's do.

The compressor is a stand-in for RigL with masks from a table: what the optimizer sees of
either is the mark ``Active``, and this one compiles fast. RigL itself: ``prune/``.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal
from two_layers import cache_size
from variants import marked

import jaxcompress as jc

# Weight i is absent at step i modulo 7 and the two after it, so that it grows again.
PHASE = np.arange(35).reshape(7, 5) % 7
MASKS = np.stack([(t - PHASE) % 7 > 2 for t in range(7)])
# Zero where they are pruned: what is pruned in `init` is zero from the first update on.
KERNEL = normal(7, 5) * MASKS[0]
PARAMS = {"bias": jnp.zeros(5), "kernel": KERNEL}
BATCH = normal(12, 7, seed=1)
LABELS = {"bias": "other", "kernel": "weight"}


def loss_fn(params, batch):
    return jnp.mean((batch @ params["kernel"] + params["bias"][None] - 1.0) ** 2)


def turns():
    def state_at(count):
        masks = {"bias": None, "kernel": jnp.asarray(MASKS)[count % 7]}
        return count, jc.Active(masks)

    def apply(params, state):
        kept = jnp.where(state[1].masks["kernel"], params["kernel"], 0.0)
        return {**params, "kernel": kept}

    def update(params, state, **extras):
        return apply(params, state), state_at(state[0] + 1)

    return jc.Compressor(
        init=lambda params: state_at(jnp.int32(0)), apply=apply, update=update
    )


def with_adam(wrapper):
    return lambda: wrapper(optax.adam(0.01))


def two_kinds():
    return optax.partition(
        {"weight": optax.adam(0.01), "other": optax.sgd(0.01)}, LABELS
    )


NOT_HERE = {
    "optimistic_adam",  # deprecated; optimistic_adam_v2 is here
    "sophia",  # wants the objective as an extra of its own
    "noisy_sgd",  # below, since it wants a key
    "dpsgd",  # wants the gradient of each example
    "acprop",  # divides by the state of the step before, which what grows has not
}


def by_learning_rate():
    """Whatever optax calls an optimizer, of this release or a later one."""
    found = {}
    for module in (optax, optax.contrib):
        for name in dir(module):
            made = getattr(module, name)
            if (
                inspect.isfunction(made)
                and name[:5] not in ("scale", "_depr")
                and name not in NOT_HERE
            ):
                first = next(iter(inspect.signature(made).parameters), None)
                if first == "learning_rate":
                    found[name] = lambda made=made: made(0.01)
    return found


OPTIMIZERS = {
    **by_learning_rate(),
    "momentum": lambda: optax.sgd(0.01, momentum=0.9),
    "centered": lambda: optax.rmsprop(0.01, momentum=0.9, centered=True),
    "noisy_sgd": lambda: optax.noisy_sgd(0.01, key=jax.random.key(0)),
    "polyak_sgd": optax.polyak_sgd,
    "cocob": optax.contrib.cocob,
    "momo": optax.contrib.momo,
    "prodigy": optax.contrib.prodigy,
    "galore": lambda: optax.contrib.galore(0.01, rank=2),
    "factored": lambda: optax.adafactor(0.01, min_dim_size_to_factor=2),
    "mechanize": with_adam(optax.contrib.mechanize),
    "flatten": with_adam(optax.flatten),
    "multi_steps": with_adam(lambda tx: optax.MultiSteps(tx, 2)),
    "finite": with_adam(lambda tx: optax.apply_if_finite(tx, 3)),
    "masked": with_adam(lambda tx: optax.masked(tx, {"bias": False, "kernel": True})),
    "partition": two_kinds,
    "plateau": with_adam(
        lambda tx: optax.chain(tx, optax.contrib.reduce_on_plateau(patience=1))
    ),
    "inject": lambda: optax.inject_hyperparams(optax.adam)(
        learning_rate=optax.linear_schedule(0.01, 0.0, 10)
    ),
    "named": with_adam(
        lambda tx: optax.named_chain(("clip", optax.clip_by_global_norm(1.0)), ("", tx))
    ),
    "averaged": with_adam(lambda tx: optax.chain(tx, optax.ema(0.9))),
    "apply_every": with_adam(lambda tx: optax.chain(tx, optax.apply_every(2))),
}
SHARED = {  # what belongs to many weights, or to one in another shape
    "factored": {"[0].v_col['kernel']", "[0].v_row['kernel']"},
    "flatten": {"[0].mu", "[0].nu"},
    "galore": {
        "[0].projector['kernel']",
        "[0].base_optimizer_state.mu['kernel']",
        "[0].base_optimizer_state.nu['kernel']",
    },
    "lbfgs": {
        "[0].diff_params_memory['bias']",
        "[0].diff_params_memory['kernel']",
        "[0].diff_updates_memory['bias']",
        "[0].diff_updates_memory['kernel']",
        "[0].weights_memory",
    },
    "mechanize": {".m", ".r", ".s", ".v"},
    "muon": {".inner_states['muon'].inner_state[0].ns_coeffs"},
    "sm3": {"[0].mu['bias'][0]", "[0].mu['kernel'][0]", "[0].mu['kernel'][1]"},
}
# Optimizers that start from something else than zero.
NONZERO = {"adagrad", "cocob", "rprop", "yogi"}


def arrays(opt_state):
    """What has a number for each weight, by path; and the names of all else."""
    own, others = {}, set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        name = jax.tree_util.keystr(path)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        if leaf.shape == (7, 5):
            own[name] = np.asarray(leaf)
        elif leaf.size > 1 and (leaf.shape != (5,) or not name.endswith("['bias']")):
            others.add(name)
    return own, others


# Their state is that of others here: a count, or moments like those of Adam or SGD.
ALIKE = {
    "adabelief", "adamax", "adamaxw", "adan", "adamw", "ademamix", "fromage", "lion",
    "noisy_sgd", "optimistic_gradient_descent", "radam", "sign_sgd",
    "simplified_ademamix", "yogi", "novograd", "sm3", "averaged", "named", "inject",
}  # fmt: skip


@pytest.mark.parametrize("name", marked(OPTIMIZERS, slow=ALIKE & set(OPTIMIZERS)))
def test_weights_that_grow_again_start_without_a_past(name):
    tx = OPTIMIZERS[name]()
    init, step = jc.train_step(loss_fn, tx, turns())
    state = init(PARAMS)
    start, shared = arrays(tx.init(jax.tree.map(jnp.zeros_like, PARAMS)))
    for t in range(1, 8):
        before, now = MASKS[t - 1], MASKS[t % 7]
        state, metrics = step(state, BATCH)
        assert jnp.isfinite(metrics["loss"])
        grown = now & ~before
        assert grown.sum() == 5 and not state.params["kernel"][grown].any()
        assert not state.params["kernel"][~before].any()
        for path, array in arrays(state.opt_state)[0].items():
            # What an epsilon leaves behind is allowed, here and in Adamax; and what the
            # step without a gradient takes off a start that is not zero, in Yogi.
            np.testing.assert_allclose(
                array[grown], start[path][grown], rtol=0.11, atol=2e-8, err_msg=path
            )
    assert shared == SHARED.get(name, set())
    assert cache_size(step) == 1
    after = jc.fresh(tx, state.opt_state, state.params, state.compression)
    kept = MASKS[0]
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(state.opt_state),
        jax.tree.leaves(after),
        strict=True,
    ):
        if old.shape == (7, 5):
            np.testing.assert_array_equal(new[kept], old[kept], err_msg=str(path))
        else:
            assert new is old


@pytest.mark.parametrize("name", sorted(NONZERO))
def test_what_grows_starts_as_the_optimizer_would_start_it(name):
    tx, c = OPTIMIZERS[name](), turns()
    start = arrays(tx.init(PARAMS))[0]
    full = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), tx.init(PARAMS))
    fresh = arrays(jc.fresh(tx, full, PARAMS, c.init(PARAMS)))[0]
    for path, array in fresh.items():
        np.testing.assert_array_equal(array[~MASKS[0]], start[path][~MASKS[0]], path)


def test_what_grows_under_rprop_moves():
    init, step = jc.train_step(loss_fn, optax.rprop(0.01), turns())
    state = init(PARAMS)
    for _ in range(3):  # the weights that are absent at first are there again
        state, _ = step(state, BATCH)
    moved = np.zeros((7, 5), bool)
    for _ in range(4):  # where the gradient turns, rprop rests for a step
        state, _ = step(state, BATCH)
        moved |= np.asarray(state.params["kernel"] != 0)
    present = MASKS[3:6].all(0) & ~MASKS[0]
    assert present.any() and moved[present].all()


def test_a_skipped_step_is_one():
    tx = optax.apply_if_finite(optax.adam(0.01), 3)
    init, step = jc.train_step(loss_fn, tx, turns())
    before, _ = step(init(PARAMS), BATCH)
    after, _ = step(before, BATCH * jnp.nan)
    kept = MASKS[1]
    np.testing.assert_array_equal(
        after.params["kernel"][kept], before.params["kernel"][kept]
    )
    assert int(after.opt_state.total_notfinite) == 1
