# SPDX-License-Identifier: Apache-2.0
"""Training on integer products: the numbers of ``execute``, and what runs how."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_hand import (
    FLOATS,
    INTEGERS,
    PLAIN,
    WIDTHS,
    X,
    assert_close,
    plain,
    products,
    rounded,
)
from draws import normal
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from models import MODELS, always, filled, initialized

import jaxcompress as jc
from jaxcompress.formats import E4M3, Int
from jaxcompress.program import (
    ActivationQuantizer,
    FloatWarning,
    OpaqueWarning,
    integer_forward,
    operands_only,
)
from jaxcompress.quantize.scales import dynamic


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i, features in enumerate(WIDTHS[1:]):
            x = nn.Dense(features)(nn.relu(x) if i else x)
        return x


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(24, 16, rngs=rngs)
        self.last = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


GRAPH, STATE = nnx.split(nnx.eval_shape(lambda: NNX(nnx.Rngs(0))))
CHAINS = {
    "plain": (plain, PLAIN),
    "linen": (Linen().apply, initialized(Linen(), X)),
    "nnx": (lambda state, x: nnx.merge(GRAPH, state)(x), filled(STATE)),
}


def never(site):
    return False


@pytest.mark.parametrize("name", CHAINS)
def test_it_computes_what_the_trained_network_will_compute(name):
    fn, params = CHAINS[name]
    make = jc.weight_quantization(bits=8)
    packed = jc.compress(make, params)
    run = integer_forward(fn).run
    out = jax.jit(run)(params, X)
    deployed = jax.jit(jc.execute(fn, pays=always).run)(packed, X)
    np.testing.assert_array_equal(out, deployed)
    # The view of the compressor is on the same grid, and stays on it.
    view = make.apply(params, make.init(params))
    assert_close(jax.jit(run)(view, X), out, 1e-5)
    rows = operands_only(ActivationQuantizer(Int(8), dynamic(-1)))
    quantized = jc.quantize_activations(fn, rows)
    floats, _ = jax.jit(quantized.train)(view, quantized.init(view, X), X)
    assert_close(out, floats, 1e-5)
    assert abs(out - jax.jit(fn)(params, X)).max() > 1e-3 * abs(out).max()


def test_layers_in_a_scan_have_scales_of_their_own():
    sizes = jnp.array([0.4, 4.0, 0.1])[:, None, None]
    params = {"kernel": normal(3, 8, 8) * sizes}

    def fn(params, x):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["kernel"])[0]

    def unrolled(params, x):
        for w in params["kernel"]:
            x = jnp.tanh(rounded(x, 1) @ rounded(np.asarray(w), 0))
        return x

    forward, x = integer_forward(fn), normal(10, 8)
    np.testing.assert_allclose(forward.run(params, x), unrolled(params, x), atol=1e-5)
    assert str(forward.plan(params, x)).splitlines()[1].split()[1] == "1,920"
    gradient = jax.grad(lambda params, x: jnp.sum(forward.run(params, x)))
    dots = products(gradient, params, x)
    assert dots == [INTEGERS] + [FLOATS] * 2


def test_what_does_not_pay_computes_the_same_on_floats():
    def step(pays, at_rounded):
        run = integer_forward(plain, pays=pays, at_rounded=at_rounded).run
        return jax.jit(jax.value_and_grad(lambda p: jnp.mean(run(p, X) ** 2)))(PLAIN)

    def wide(site):
        return site.name == "0/kernel"

    for at_rounded in (True, False):
        integers = step(always, at_rounded)
        assert_close(step(wide, at_rounded), integers)
    run = integer_forward(plain, pays=wide).run
    assert products(run, PLAIN, X) == [INTEGERS, FLOATS, FLOATS]


def mixed(params, x, ids):
    image = x.reshape(1, 10, 6, 4)
    x = x + lax.conv(image, params["conv"]["kernel"], (1, 1), "SAME").reshape(10, 24)
    x = x @ x.T @ x @ params["kept"]["kernel"]
    x = x + lax.dot(ids, params["ids"]["kernel"], preferred_element_type=jnp.float32)
    long = jnp.tile(x, 2**11) @ params["long"]["kernel"]
    return long + x @ params["small"]["kernel"] + x @ params["out"]["left"]


def test_the_plan_says_why():
    params = {
        "conv": {"kernel": normal(10, 10, 3, 3)},
        "ids": {"kernel": normal(5, 24)},
        "kept": {"kernel": normal(24, 24)},
        "long": {"kernel": normal(24 * 2**11, 2)},
        "out": {"left": normal(24, 2)},
        "small": {"kernel": normal(24, 2)},
    }
    args = params, X, jnp.ones((10, 5), jnp.int32)
    forward = integer_forward(
        mixed, where="*/kernel", pays=lambda site: site.name != "small/kernel"
    )
    steps = forward.plan(*jax.eval_shape(lambda: args))
    assert {step.site.name: step.reason for step in steps.steps} == {
        "conv/kernel": "a convolution",
        "dot_general": "data times data",
        "dot_general#1": "data times data",
        "ids/kernel": "its input has an integer dtype",
        "kept/kernel": "",
        "long/kernel": "rounded, but int32 does not hold sums of 49152 products",
        "small/kernel": "rounded, but it does not pay",
        "out/left": "`where` does not select the leaf",
    }
    assert "float: rounded, but it does not pay" in str(steps)
    assert sum(dtypes == INTEGERS for dtypes in products(forward.run, *args)) == 1


def test_it_says_so_if_nothing_runs_on_integers():
    run = integer_forward(plain, pays=never).run
    with pytest.warns(FloatWarning, match="0/kernel: rounded, but it does not pay"):
        run(PLAIN, X)
    with pytest.raises(ValueError, match="selected none of 6 leaves; closest"):
        integer_forward(plain, where="*/kernal").run(PLAIN, X)
    model = MODELS["custom_rule"]()
    with pytest.warns(OpaqueWarning, match="integer_forward leaves"):
        integer_forward(model.fn, where="*").run(model.params, *model.args)
    with pytest.raises(
        ValueError, match="weights must be an Int of 2 to 8 bits .*, got Int.bits=16"
    ):
        integer_forward(plain, weights=Int(16))
    with pytest.raises(
        ValueError, match="inputs must be an Int of 2 to 8 bits .*, got Int.bits=1,"
    ):
        integer_forward(plain, inputs=Int(1))
    with pytest.raises(ValueError, match="is known before the function is traced"):
        jax.jit(lambda b: integer_forward(plain, inputs=Int(b)).run(PLAIN, X))(4)
    with pytest.raises(ValueError, match="weights must be an Int of 2 to 8 bits"):
        integer_forward(plain, weights=E4M3)  # pyright: ignore[reportArgumentType]


def test_bfloat16_stays_bfloat16():
    params, x = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (PLAIN, X))
    run = integer_forward(plain).run
    loss, gradient = jax.jit(jax.value_and_grad(lambda p: jnp.mean(run(p, x) ** 2)))(
        params
    )
    exact = jax.grad(lambda p: jnp.mean(plain(p, X) ** 2))(PLAIN)
    assert loss.dtype == jnp.bfloat16
    for g, e in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True):
        assert g.dtype == jnp.bfloat16
        assert abs(g.astype(jnp.float32) - e).max() < 0.1 * abs(e).max()


def test_sharded_rows_give_what_one_device_gives():
    run = integer_forward(plain).run
    step = jax.jit(jax.value_and_grad(lambda p, x: jnp.mean(run(p, x) ** 2)))
    mesh = jax.make_mesh((2, 2), ("rows", "outputs"), axis_types=(AxisType.Auto,) * 2)
    x, params = normal(16, 24), PLAIN
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    sharded = step(jax.device_put(params, everywhere), jax.device_put(x, rows))
    assert_close(sharded, step(params, x))


@pytest.mark.slow
def test_a_pruned_network_trains_and_ships_what_it_was():
    y = jnp.sin(X @ normal(24, 4, seed=5, scale=0.3))
    forward = integer_forward(plain)
    prune = jc.magnitude_pruning(0.5, where="*/kernel")
    init, step = jc.train_step(
        lambda view, batch: jnp.mean((forward.run(view, batch["x"]) - batch["y"]) ** 2),
        optax.adam(1e-2),
        prune,
    )
    state = init(jax.tree.map(lambda x: 0.3 * x, PLAIN))
    losses = []
    for _ in range(150):
        state, metrics = step(state, {"x": X, "y": y})
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.1 * losses[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruned = prune.apply(state.params, state.compression)
        packed = jc.compress(jc.weight_quantization(bits=8), pruned)
        out = jax.jit(jc.execute(plain, pays=always).run)(packed, X)
    assert_close(jax.jit(forward.run)(pruned, X), out, 1e-6)
    assert jnp.mean(packed[0]["kernel"].codes == 0) >= 0.5
