# SPDX-License-Identifier: Apache-2.0
"""Swapped, uncalled and unfit arguments are named."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxcompress as jc

PARAMS = {"kernel": jnp.ones((4, 8))}
PRUNER = jc.magnitude_pruning(0.5)
SGD = optax.sgd(0.1)
INT8 = jc.weight_quantization(bits=8)
untyped: Any = jc  # type checkers see the mistakes below


def loss_fn(params, batch):
    return jnp.mean(batch["x"] @ params["kernel"])


def fn(params, x):
    return x @ params["kernel"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: untyped.compress(PARAMS, PRUNER),
            "got a dict. Are the arguments in another",
        ),
        (
            lambda: untyped.compress(jc.magnitude_pruning, PARAMS),
            "Call it: magnitude_pruning",
        ),
        (
            lambda: untyped.compress(PRUNER, PRUNER),
            "takes parameters, got a Compressor",
        ),
        (
            lambda: untyped.chain(PRUNER, SGD),
            "takes a compressor, got an optax optimizer",
        ),
        (
            lambda: untyped.train_step(loss_fn, PRUNER, SGD),
            "optimizer as tx, got a Compressor",
        ),
        (
            lambda: untyped.train_step(loss_fn, optax.sgd),
            r"got the function sgd. Call it",
        ),
        (
            lambda: untyped.train_step(loss_fn, SGD, jc.magnitude_pruning),
            "got the function magnitude_pruning",
        ),
        (lambda: untyped.train_step(loss_fn, SGD, 3), "takes a compressor, got 3"),
        (lambda: untyped.wrap_optimizer(PRUNER, SGD), "as tx, got a Compressor"),
        (
            lambda: untyped.train_step(SGD, loss_fn, PRUNER),
            "takes a function first, got an optax optimizer",
        ),
        (lambda: untyped.masked("*", PRUNER), r"masked\(compressor, where\) takes"),
        (lambda: untyped.masked(jc.magnitude_pruning, "*"), "Call it"),
        (lambda: untyped.partition([("*", PRUNER)]), "takes a dict .*, got a list"),
        (lambda: untyped.partition({PRUNER: "*"}), "takes globs as keys"),
        (lambda: untyped.partition({"*": jc.magnitude_pruning}), "Call it"),
        (
            lambda: jc.train_step(loss_fn, SGD)[0]({**PARAMS, "act": jnp.tanh}),
            "'act' is a function.*eqx.filter",
        ),
        (
            lambda: jc.compress(PRUNER, jc.compress(INT8, PARAMS)),
            "holds a QArray: it is compressed already",
        ),
        (
            lambda: jc.train_step(loss_fn, SGD)[0](jc.compress(INT8, PARAMS)),
            "holds a QArray: it is compressed already",
        ),
        (
            lambda: untyped.wrap_optimizer(SGD, SGD),
            "a compressor, got an optax optimizer",
        ),
        (
            lambda: untyped.train_step(loss_fn, SGD)[0](jax.eval_shape(lambda: PARAMS)),
            "'kernel' is only the shape",
        ),
        (
            lambda: untyped.train_step(loss_fn, SGD)[0](
                {**PARAMS, "count": jnp.arange(3)}
            ),
            "'count' is int32, which has no gradient",
        ),
        (
            lambda: untyped.quantize_activations(fn, {"*": 8}).init(
                PARAMS, jnp.ones((2, 4))
            ),
            "must give an ActivationQuantizer.* got 8 for 'input/0'",
        ),
    ],
)
def test_the_mistake_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("use", [jnp.asarray, lambda leaf: jnp.ones(4) @ leaf])
def test_a_compressed_leaf_is_no_array(use):
    with pytest.raises(TypeError, match="Decompress the tree first"):
        use(jc.compress(INT8, PARAMS)["kernel"])


def test_models_with_packed_trees_are_told_to_decompress():
    x, layer = jnp.ones((2, 4)), nn.Dense(8)
    params = layer.init(jax.random.key(0), x)["params"]
    with pytest.raises(TypeError, match=r"QArray.*model.apply\(jaxcompress.dense"):
        layer.apply({"params": jc.compress(INT8, params)}, x)
    model = nnx.Linear(4, 8, rngs=nnx.Rngs(0))
    nnx.update(model, jc.compress(INT8, nnx.state(model)))
    with pytest.raises(TypeError, match="Decompress the tree first"):
        model(x)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_an_empty_batch_is_refused(micro_batches):
    init, step = jc.train_step(loss_fn, SGD, micro_batches=micro_batches)
    with pytest.raises(ValueError, match=r"the batch is empty: 'x' has shape \(0, 4\)"):
        step(init(PARAMS), {"x": jnp.ones((0, 4))})


@pytest.mark.parametrize(
    "tx",
    [
        optax.adamw(0.1, mask={"kernel": True}),
        optax.masked(SGD, {"kernel": True}),
        optax.multi_transform({"a": SGD}, {"kernel": "a"}),
    ],
    ids=["mask", "masked", "multi_transform"],
)
def test_an_optimizer_that_names_parameters_does_not_train_scales(tx):
    c = jc.weight_quantization(bits=4, scale=jc.quantize.scales.lsq())
    init, _ = jc.train_step(loss_fn, tx, c)
    with pytest.raises(ValueError, match=r"learned_tx=optax.adam\(1e-3\)"):
        init(PARAMS)
    init, _ = jc.train_step(loss_fn, tx, c, learned_tx=optax.adam(1e-3))
    init(PARAMS)


def test_a_line_search_does_not_train_scales():
    c = jc.weight_quantization(bits=4, scale=jc.quantize.scales.lsq())
    init, step = jc.train_step(loss_fn, optax.lbfgs(), c)
    with pytest.raises(ValueError, match=r"learned_tx=optax.adam\(1e-3\)"):
        step(init(PARAMS), {"x": jnp.ones((2, 4))})


KEY = jax.random.key(0)
SCORES = jc.prune.scores
SCHEDULES = jc.prune.schedules
SCALES = jc.quantize.scales
INT4 = jc.formats.Int(4)
COUNTS = {
    "clusters": lambda n: jc.weight_sharing(8 * n),
    "iterations": lambda n: jc.weight_sharing(8, iterations=n),
    "every": lambda n: jc.weight_sharing(8, every=n),
    "rank": lambda n: jc.low_rank(rank=n),
    "split": lambda n: jc.low_rank(rank=1, split=n),
    "micro_batches": lambda n: jc.train_step(loss_fn, SGD, micro_batches=n),
    "size": lambda n: jc.PerGroup(n),
    "size of blocks": lambda n: SCALES.blocks(n),
    "every of held": lambda n: SCALES.held(SCALES.absmax, every=n),
    "every of mse": lambda n: SCALES.mse(every=n),
    "steps": lambda n: jc.quantize.adaround_quantization(steps=n),
    "block": lambda n: jc.prune.sparsegpt_pruning(0.5, block=n),
    "block of gptq": lambda n: jc.quantize.gptq_quantization(block=n),
    "block of one": lambda n: jc.quantize.post_training.gptq(
        jnp.eye(4), jnp.eye(4), INT4, block=n
    ),
    "batch_size": lambda n: jc.prune.obs_pruning(0.5, batch_size=n),
    "n": lambda n: jc.prune.patterns.NOfM(n, 4),
    "m": lambda n: jc.prune.patterns.NOfM(1, 2 * n),
    "rounds": lambda n: SCHEDULES.geometric(0.5, rounds=n),
    "patience": lambda n: SCHEDULES.converged(patience=n),
    "every of periodic": lambda n: SCHEDULES.periodic(n),
    "until": lambda n: jc.prune.rigl(0.5, until=100 * n, key=KEY),
    "chunk": lambda n: SCORES.fisher_blocks(loss_fn, PARAMS, {}, chunk=n),
    "chunk of one": lambda n: SCORES.fisher_diagonal(loss_fn, PARAMS, {}, chunk=n),
    "steps of a check": lambda n: jc.testing.check_compressor(INT8, PARAMS, steps=n),
    "k": lambda n: jc.distill.top_k(jnp.ones((2, 8)), n),
    "runs": lambda n: jc.report.latency(fn, PARAMS, jnp.ones((2, 4)), runs=n),
    "keep": lambda n: jc.save_checkpoint("/nowhere", 0, PARAMS, keep=n),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_float_is_no_count(name):
    with pytest.raises(TypeError, match=rf"{name.split()[0]} must be a whole number"):
        COUNTS[name](2.0)


def test_the_number_that_was_meant_is_named_and_integers_of_arrays_count():
    with pytest.raises(TypeError, match=r"got 8\.0\. Write clusters=8\."):
        untyped.weight_sharing(8.0)
    with pytest.raises(TypeError, match=r"got 8\.5\.$"):
        untyped.weight_sharing(8.5)
    with pytest.raises(TypeError, match="whole number, got True"):
        untyped.weight_sharing(8, every=True)
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        jc.weight_sharing(8, iterations=-1)
    view = jc.compress(untyped.weight_sharing(np.int64(2)), {"kernel": jnp.eye(4)})
    assert view["kernel"].centroids.shape == (2,)


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda **flags: jc.weight_sharing(4, **flags), "keep_zero"),
        (lambda **flags: jc.weight_sharing(4, **flags), "revive"),
        (lambda **flags: jc.weight_quantization(bits=4, **flags), "symmetric"),
        (lambda **flags: jc.quantize.gptq_quantization(4, **flags), "act_order"),
        (lambda **flags: jc.quantize.gptq_quantization(4, **flags), "keep_zeros"),
    ],
)
def test_a_text_is_not_a_flag_of_a_technique(make, flag):
    with pytest.raises(TypeError, match=f"{flag} must be True or False, got 'no'"):
        make(**{flag: "no"})
    make(**{flag: np.bool_(False)})


def test_swapped_arguments_of_the_bridge_are_named():
    x, packed = jnp.ones((2, 4)), jc.compress(INT8, PARAMS)
    kind = jc.program.statistics.gram()
    with pytest.raises(TypeError, match="got a dict. Are the arguments in another"):
        untyped.observe(PARAMS, fn, [x], kind)
    with pytest.raises(TypeError, match="batches third, got a Statistic. Are the arg"):
        untyped.observe(fn, PARAMS, kind, [x])
    for function in jc.execute(fn):
        with pytest.raises(TypeError, match="packed tree first.*another order"):
            function(x, packed)
    with pytest.raises(TypeError, match="execute.*got a dict. Are the arguments"):
        untyped.execute(packed, fn).run(packed, x)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x, w: x @ w,
        lambda x, w: w * 2,
        lambda x, w: 1 - w,
        lambda x, w: w.astype(x.dtype),
        lambda x, w: w.T,
        lambda x, w: jax.lax.dot(x, w),
        lambda x, w: jax.jit(jax.lax.dot)(x, w),
    ],
)
def test_a_model_that_computes_with_a_packed_leaf_hears_of_dense(mistake):
    packed = jc.compress(INT8, PARAMS)["kernel"]
    with pytest.raises((TypeError, AttributeError)) as caught:
        mistake(jnp.ones((2, 4)), packed)
    texts = [str(caught.value), str(caught.value.__cause__)]
    assert any("jaxcompress.dense" in text for text in texts)


def test_warnings_point_at_the_line_of_the_user():
    mesh = jax.make_mesh((1,), ("x",))
    here = jax.sharding.NamedSharding(mesh, jax.P(None, None))
    gptq = jc.quantize.gptq_quantization(bits=4)
    groups = jc.weight_quantization(
        bits=4, granularity=jc.PerGroup(64, otherwise=jc.PerChannel())
    )
    placed = {"kernel": jax.device_put(PARAMS["kernel"], here)}
    dense = jc.execute(fn)
    for call in (
        lambda: jc.compress(gptq, PARAMS),
        lambda: gptq.finalize(placed, gptq.init(placed)),
        lambda: groups.init(PARAMS),
        lambda: jax.eval_shape(groups.init, PARAMS),
        lambda: jax.jit(dense.run)(PARAMS, jnp.ones((2, 4))),
    ):
        with pytest.warns(UserWarning) as caught:
            call()
        assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: untyped.weight_quantization(), "one of bits= and fmt=, got neither"),
        (lambda: untyped.magnitude_pruning(None), "an optax schedule, got None"),
        (lambda: untyped.magnitude_pruning(0.5, pattern="2:4"), "pattern, got '2:4'"),
        (
            lambda: untyped.compress(
                jc.magnitude_pruning(0.5, where=lambda path, leaf: "no"), PARAMS
            ),
            "`where` must give True or False for each leaf, for 'kernel' it gives a str",
        ),
        (
            lambda: untyped.compress(
                jc.magnitude_pruning(0.5, where=lambda path, leaf: leaf > 0), PARAMS
            ),
            "`where` must give True or False",
        ),
        (
            lambda: untyped.compress(
                jc.magnitude_pruning(0.5, where={"kernel": "False"}), PARAMS
            ),
            "`where` must give True or False",
        ),
        (
            lambda: untyped.train_step(loss_fn, SGD, donate="no"),
            "donate must be True or False",
        ),
        (
            lambda: untyped.train_step(loss_fn, SGD)[1](
                PARAMS, {"x": jnp.ones((2, 4))}
            ),
            r"the state that init\(params\) returned, got a dict",
        ),
        (
            lambda: untyped.rate.entropy_constrained("0.3"),
            "multiplier must be a number, got a str",
        ),
        (lambda: untyped.low_rank(), "one of rank= and energy=, got neither"),
        (
            lambda: untyped.rigl(0.5, key=0, until=9, every=1),
            r"a key such as jax.random.key\(0\), got 0",
        ),
        (
            lambda: untyped.save(PARAMS, "a.safetensors"),
            r"save\(path, tree\) takes a path first, got a dict. Are the arguments in",
        ),
        (
            lambda: untyped.restore_checkpoint(PARAMS, "folder"),
            r"takes a path first, got a dict",
        ),
        (
            lambda: untyped.save_checkpoint("folder", PARAMS, 2),
            "step must be a whole number, got a dict",
        ),
        (
            lambda: untyped.rate.learned_bits(0.1, scale=jc.quantize.scales.lsq()),
            "whose state learned_bits does not keep",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
