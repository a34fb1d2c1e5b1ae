# SPDX-License-Identifier: Apache-2.0
"""Swapped, uncalled and unfit arguments are named."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
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
