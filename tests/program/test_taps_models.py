# SPDX-License-Identifier: Apache-2.0
"""Features of whole networks, held against what Flax captures of its modules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax.ad_checkpoint import checkpoint_name
from models import MODELS, assert_same_bits, exact, initialized, linen_cnn

import jaxcompress as jc
from jaxcompress.program import tap_names


def close(x, y):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "custom_rule"])
def test_every_name_gives_what_it_says_and_the_result_keeps_its_bits(name):
    model, run = exact(name)
    names = tap_names(model.fn, model.params, *model.args)
    out, found = run(jc.taps(model.fn, "*"))(model.params, *model.args)
    kinds = {k: (x.shape, x.dtype) for k, x in found.items()}
    assert kinds == {k: (x.shape, x.dtype) for k, x in names.items()}
    assert_same_bits(out, run(model.fn)(model.params, *model.args))


def captured(intermediates, name):
    """Flax's own record of what its modules return, under the names of their scopes."""
    found = {}
    for path, x in jax.tree_util.tree_flatten_with_path(intermediates)[0]:
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        assert keys[-1] == "__call__"
        found["/".join([name, *keys[:-1]])] = x
    return found


def test_scopes_are_the_modules_that_flax_captures():
    model = linen_cnn()
    module = model.fn.__self__
    out, variables = module.apply(
        model.params, *model.args, capture_intermediates=True, mutable=["intermediates"]
    )
    expected = captured(variables["intermediates"], "CNN")
    assert len(expected) == 6
    again, found = jc.taps(model.fn, list(expected))(model.params, *model.args)
    assert set(found) == set(expected)
    close(again, out)
    jax.tree.map(close, found, expected)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        y = nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
        x = checkpoint_name(x + y, "middle")
        return x + nn.Dense(4, name="down")(nn.gelu(nn.Dense(6, name="up")(x))), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            nn.remat(Block, prevent_cse=False),
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = layers(name="layers")(nn.Dense(4, name="embed")(x), None)
        return nn.Dense(2, name="head")(x)


@pytest.fixture(scope="module")
def stack():
    """A scanned and checkpointed network: its function, variables, data and features."""
    x = normal(2, 3, 5)
    variables = {"params": initialized(Stack(), x)["params"]}
    return (
        Stack().apply,
        variables,
        x,
        jax.jit(jc.taps(Stack().apply, "*"))(variables, x),
    )


def test_modules_in_a_scan_are_stacked_as_flax_stacks_them(stack):
    apply, variables, x, (out, found) = stack
    expected, kept = apply(
        variables, x, capture_intermediates=True, mutable=["intermediates"]
    )
    close(out, expected)
    modules = captured(kept["intermediates"], "Stack")
    assert {"Stack/layers", "Stack/layers/attention/query"} < set(modules)
    for name, value in modules.items():
        assert found[name].shape == value.shape
        close(found[name], value)


def test_marks_are_found_in_a_scan_and_under_a_checkpoint(stack):
    *_, (_, found) = stack
    assert found["middle"].shape == (3, 2, 3, 4)
    # The residual sum is marked, and is the next product's input.
    for name in ("Stack/layers/add", "params/layers/up/kernel/input"):
        np.testing.assert_array_equal(found[name], found["middle"])


def test_residual_sums_are_the_sums_of_their_sides(stack):
    *_, (_, found) = stack
    inputs = jnp.concatenate([found["Stack/embed"][None], found["Stack/layers"][:-1]])
    attended = found["params/layers/attention/out/kernel/output"]
    close(found["Stack/layers/add"], inputs + attended)
    close(
        found["Stack/layers/add#1"],
        found["middle"] + found["params/layers/down/kernel/output"],
    )
    np.testing.assert_array_equal(found["Stack/layers/add#1"], found["Stack/layers"])


def test_attention_probabilities_are_an_operand_of_the_second_product(stack):
    *_, (_, found) = stack
    scores, mixed = "...qhd,...khd->...hqk", "...hqk,...khd->...qhd"
    at = "Stack/layers/attention/{}/dot_general/{}"
    sides = [found[at.format(mixed, side)] for side in ("lhs", "rhs")]
    (probabilities,) = [x for x in sides if x.shape == (3, 2, 2, 3, 3)]
    close(probabilities.sum(-1), jnp.ones((3, 2, 2, 3)))
    logits = found[at.format(scores, "output")]
    close(probabilities, jax.nn.softmax(logits))


def test_the_output_of_a_convolution_has_its_norm_and_rectifier():
    model = linen_cnn()
    _, found = jc.taps(model.fn, "*")(model.params, *model.args)
    for i in range(2):
        normed = found[f"CNN/BatchNorm_{i}"]
        output = found[f"params/Conv_{i}/kernel/output"]
        close(output, nn.relu(normed))
        assert (output == 0).any()
        # The module of the convolution gives what the norm is yet to work on.
        name = f"BatchNorm_{i}"
        norm = {k: model.params[k][name] for k in ("params", "batch_stats")}
        plain = nn.BatchNorm(use_running_average=True).apply(
            norm, found[f"CNN/Conv_{i}"]
        )
        close(plain, normed)
    pooled = found["params/Conv_1/kernel/output"].mean((1, 2))
    close(found["params/Dense_0/kernel/input"], pooled)


@pytest.mark.slow
def test_a_batch_norm_has_the_same_name_in_training_and_in_evaluation():
    """In training its running statistics leave the module too, before the features."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))

    x = normal(5, 4)
    variables = Net().init(jax.random.key(0), x, False)

    def training(variables, x):
        return Net().apply(variables, x, True, mutable=["batch_stats"])

    (out, _), features = jc.taps(training, "Net/BatchNorm_0")(variables, x)
    np.testing.assert_array_equal(features["Net/BatchNorm_0"], out)
