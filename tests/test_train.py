# SPDX-License-Identifier: Apache-2.0
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_layers import BATCH, PARAMS, cache_size, equal, forward, loss_fn, small

import jaxcompress as jc


def test_a_step_is_the_loop_written_out():
    c, tx = small(), optax.adam(0.01)
    init, step = jc.train_step(loss_fn, tx, c)
    state = init(PARAMS)

    @jax.jit
    def by_hand(params, opt_state, cs):
        loss, grads = jax.value_and_grad(lambda p: loss_fn(c.apply(p, cs), BATCH))(
            params
        )
        updates, opt_state = tx.update(grads, opt_state, params)
        params, cs = c.update(optax.apply_updates(params, updates), cs)
        return params, opt_state, cs, loss

    params, opt_state, cs = PARAMS, tx.init(PARAMS), c.init(PARAMS)
    for _ in range(12):
        state, metrics = step(state, BATCH)
        params, opt_state, cs, loss = by_hand(params, opt_state, cs)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state.params,
        params,
    )
    assert int(state.step) == 12 and cache_size(step) == 1


def test_update_gets_the_dense_gradient_at_the_view():
    def update(params, state, *, grads, **extras):
        return params, grads

    pruner = jc.magnitude_pruning(0.5)
    spy = jc.Compressor(init=lambda p: p, apply=lambda p, s: p, update=update)
    init, step = jc.train_step(loss_fn, optax.sgd(0.1), jc.chain(pruner, spy))
    state = init(PARAMS)
    seen = step(state, BATCH)[0].compression[1]
    view = pruner.apply(PARAMS, pruner.init(PARAMS))
    expected = jax.jit(jax.grad(loss_fn))(view, BATCH)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        seen,
        expected,
    )
    assert seen["a"]["kernel"][view["a"]["kernel"] == 0].any()


def test_the_loss_and_the_gradient_reach_the_compressor_and_the_optimizer():
    seen = {}

    def update(params, state, **extras):
        seen["compressor"] = extras
        return params, state

    def tx_update(updates, state, params=None, **extras):
        seen["optimizer"] = extras
        return updates, state

    spy = jc.Compressor(init=lambda p: (), apply=lambda p, s: p, update=update)
    tx = optax.GradientTransformationExtraArgs(lambda params: (), tx_update)
    init, step = jc.train_step(loss_fn, tx, jc.masked(spy, "*/kernel"), micro_batches=2)
    with jax.disable_jit():
        _, metrics = step(init(PARAMS), BATCH)
    assert set(seen["compressor"]) == {"grads", "value", "before"}
    assert set(seen["optimizer"]) == {"value", "grad", "value_fn"}
    for extras in seen.values():
        assert extras["value"] == metrics["loss"] and extras["value"].shape == ()
    grads = seen["compressor"]["grads"]
    assert grads["a"]["bias"] is None and grads["a"]["kernel"].shape == (8, 6)


def test_an_update_that_takes_no_extras_is_named():
    c = jc.Compressor(
        init=lambda p: (),
        apply=lambda p, s: p,
        update=lambda params, state: (params, state),
    )
    init, step = jc.train_step(loss_fn, optax.sgd(0.1), c)
    with pytest.raises(TypeError, match="unexpected keyword argument 'grads'"):
        step(init(PARAMS), BATCH)


@pytest.mark.parametrize(
    "tx",
    [
        optax.MultiSteps(optax.adam(1e-2), 2),
        optax.contrib.schedule_free_adamw(1e-2),
        optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1)),
    ],
    ids=["multi_steps", "schedule_free", "plateau"],
)
def test_it_works_with_any_optimizer(tx):  # all of them: test_optimizers.py
    c = jc.chain(jc.magnitude_pruning(0.5), jc.weight_quantization(bits=8))
    init, step = jc.train_step(loss_fn, tx, c)
    state = init(PARAMS)
    for _ in range(4):
        state, metrics = step(state, BATCH)
        assert jnp.isfinite(metrics["loss"])
    assert int((state.params["a"]["kernel"] != 0).sum()) <= 24
    assert cache_size(step) == 1


def test_micro_batches_average_to_the_whole_batch():
    def run(parts):
        init, step = jc.train_step(
            loss_fn, optax.sgd(0.1), small(), micro_batches=parts
        )
        return step(init(PARAMS), BATCH)

    (one, metrics), (three, split) = run(1), run(3)
    np.testing.assert_allclose(metrics["loss"], split["loss"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        one.params,
        three.params,
    )
    with pytest.raises(ValueError, match="divisible by micro_batches=5, got a leaf"):
        run(5)
    with pytest.raises(ValueError, match="micro_batches must be at least 1, got 0"):
        run(0)


class BatchNormNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(6)(x))
        return nn.Dense(4)(nn.Dropout(0.5, deterministic=not train)(x))


@pytest.mark.parametrize("parts", [1, 3])
def test_batch_statistics_dropout_and_metrics(parts):
    model = BatchNormNet()
    variables = model.init(jax.random.key(0), BATCH["x"], train=False)

    def loss_fn(params, batch, *, model_state, rng):
        out, new = model.apply(
            {"params": params, **model_state},
            batch["x"],
            train=True,
            rngs={"dropout": rng},
            mutable=["batch_stats"],
        )
        error = jnp.abs(out - batch["y"])
        return (error**2).mean(), jc.Aux({"worst": error.max()}, new)

    init, step = jc.train_step(loss_fn, optax.adam(0.01), small(), micro_batches=parts)
    state = init(
        variables["params"],
        model_state={"batch_stats": variables["batch_stats"]},
        rng=jax.random.key(1),
    )
    losses = []
    for _ in range(3):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
        assert set(metrics) == {"loss", "worst"}
    mean = state.model_state["batch_stats"]["BatchNorm_0"]["mean"]
    assert mean.any() and len(set(losses)) == 3 and cache_size(step) == 1


def test_arguments_that_belong_to_no_batch():
    def loss_fn(params, batch, teacher):
        out, target = (forward(p, batch["x"]) for p in (params, teacher))
        return jc.distill.kl(out, target).mean()

    init, step = jc.train_step(loss_fn, optax.sgd(0.1), micro_batches=2)
    state, metrics = step(init(PARAMS), BATCH, PARAMS)
    np.testing.assert_allclose(metrics["loss"], 0, atol=1e-6)
    _, metrics = step(state, BATCH, jax.tree.map(lambda p: 2 * p, PARAMS))
    assert metrics["loss"] > 0 and cache_size(step) == 1


def learned_scale():
    """A technique with a parameter of its own: one gain a leaf."""

    def init(params):
        return jc.Learned(jax.tree.map(lambda p: jnp.ones(()), params))

    def apply(params, state):
        return jax.tree.map(lambda p, g: g * p, params, state.value)

    return jc.Compressor(init=init, apply=apply)


def test_learned_parameters_are_optimized_beside_the_others():
    init, step = jc.train_step(
        loss_fn, optax.sgd(0.0), learned_scale(), learned_tx=optax.adam(0.1)
    )
    state = init(PARAMS)
    losses = []
    for _ in range(20):
        state, metrics = step(state, BATCH)
        losses.append(metrics["loss"])
    equal(state.params, PARAMS)
    assert losses[-1] < 0.7 * losses[0]
    assert state.compression.value["a"]["kernel"] != 1


def test_learned_parameters_do_not_change_how_the_others_train():
    tx = optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01))
    frozen = optax.set_to_zero()

    def run(c):
        init, step = jc.train_step(loss_fn, tx, c, learned_tx=frozen)
        state, _ = step(init(PARAMS), BATCH)
        return state.params

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        run(learned_scale()),
        run(jc.identity()),
    )


@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(0.1),
        optax.contrib.dog(0.1),  # its state starts with the parameters themselves
    ],
    ids=["adam", "dog"],
)
def test_donation_reuses_the_state(tx):
    init, step = jc.train_step(loss_fn, tx, donate=True)
    state = init(jax.tree.map(jnp.copy, PARAMS))
    step(state, BATCH)
    assert state.params["a"]["kernel"].is_deleted()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (
            lambda p, b: jnp.ones(3) * p["a"]["bias"].sum(),
            ValueError,
            "got shape .3,.\\.",
        ),
        (
            lambda p, b: (p["a"]["bias"].sum(), {"m": 1}),
            TypeError,
            "got a dict after the loss",
        ),
    ],
)
def test_bad_losses(bad, error, message):
    init, step = jc.train_step(bad, optax.sgd(0.1))
    with pytest.raises(error, match=message):
        step(init(PARAMS), BATCH)


def test_a_model_state_must_come_back():
    init, step = jc.train_step(
        lambda p, b, *, model_state: loss_fn(p, b), optax.sgd(0.1)
    )
    with pytest.raises(ValueError, match="Aux.model_state=...."):
        step(init(PARAMS, model_state=jnp.ones(2)), BATCH)


@pytest.mark.slow
def test_data_and_tensor_parallel_training_equals_one_device():
    mesh = jax.make_mesh(
        (2, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )

    def put(x, *spec):
        spec = jax.sharding.PartitionSpec(*spec)
        return jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))

    def run(params, batch):
        init, step = jc.train_step(loss_fn, optax.adam(0.01), small())
        state = init(params)
        for _ in range(6):
            state, metrics = jax.block_until_ready(step(state, batch))
        return state, metrics

    state, metrics = run(PARAMS, BATCH)
    params = {
        "a": {
            "kernel": put(PARAMS["a"]["kernel"], None, "model"),
            "bias": put(PARAMS["a"]["bias"], "model"),
        },
        "b": {
            "kernel": put(PARAMS["b"]["kernel"], "model", None),
            "bias": put(PARAMS["b"]["bias"], None),
        },
    }
    sharded, sharded_metrics = run(
        params, {k: put(v, "data") for k, v in BATCH.items()}
    )
    np.testing.assert_allclose(metrics["loss"], sharded_metrics["loss"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        state.params,
        sharded.params,
    )
    equal(state.compression[0].masks, sharded.compression[0].masks)
    mask = sharded.compression[0].masks["a"]["kernel"]
    kernel = sharded.params["a"]["kernel"]
    assert mask.sharding.is_equivalent_to(kernel.sharding, 2)
    assert kernel.sharding.is_equivalent_to(params["a"]["kernel"].sharding, 2)


def test_training_runs_inside_scan_and_vmap():
    init, step = jc.train_step(loss_fn, optax.adam(0.01), small())
    state = init(PARAMS)
    for _ in range(3):
        state, _ = step(state, BATCH)
    scanned, _ = jax.lax.scan(lambda s, _: step(s, BATCH), init(PARAMS), length=3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state.params,
        scanned.params,
    )
    two = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS)
    states, metrics = jax.vmap(lambda p: step(init(p), BATCH))(two)
    assert metrics["loss"].shape == (2,) and states.step.shape == (2,)
