# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put
from jax.flatten_util import ravel_pytree

from jaxcompress import prune
from jaxcompress.prune.scores._loss_gradients import hessian_gradient, synaptic_flow


def mlp(sizes, seed=0):
    rng = np.random.default_rng(seed)
    shapes = zip(sizes[:-1], sizes[1:], strict=True)
    return [put(rng.normal(size=s) / s[0] ** 0.5) for s in shapes]


def forward(kernels, x):
    for kernel in kernels[:-1]:
        x = jax.nn.relu(x @ kernel)
    return x @ kernels[-1]


def loss_fn(kernels, x, y):
    return jnp.mean((jnp.tanh(x @ kernels[0]) @ kernels[1] - y) ** 2)


SMALL = mlp([5, 6, 2])
BATCH = tuple(mlp([32, 5], 8) + mlp([32, 2], 9))


def test_hessian_gradient_equals_the_explicit_product():
    flat, unravel = ravel_pytree(SMALL)

    def of_flat(flat):
        return loss_fn(unravel(flat), *BATCH)

    product = jax.jit(lambda x: jax.hessian(of_flat)(x) @ jax.grad(of_flat)(x))(flat)
    found = jax.jit(lambda p: hessian_gradient(loss_fn, p, *BATCH))(SMALL)
    np.testing.assert_allclose(ravel_pytree(found)[0], product, rtol=1e-4, atol=1e-6)


def test_grasp_says_how_much_the_gradient_loses():
    """Twice the score is the derivative of the squared gradient norm, upside down."""
    product = jax.jit(lambda p: hessian_gradient(loss_fn, p, *BATCH))(SMALL)
    scores = prune.scores.grasp(SMALL, hessian_gradient=product)

    @jax.jit
    def norm(kernels):
        grads = jax.grad(loss_fn)(kernels, *BATCH)
        return optax.tree.norm(grads, squared=True)

    # Shrinking the weights by what the direction says.
    for which in range(2):
        at = jnp.zeros_like(SMALL[which]).at[2, 1].set(1)
        shrink = [-w * at if i == which else 0 * w for i, w in enumerate(SMALL)]
        slope = jax.jvp(norm, (SMALL,), (shrink,))[1]
        np.testing.assert_allclose(slope, -2 * scores[which][2, 1], rtol=1e-3)

    def without(product):
        pruner = prune.prune(
            0.1, score=prune.scores.grasp, budget=prune.budgets.global_
        )
        _, state = jax.jit(pruner.update)(
            SMALL, pruner.init(SMALL), hessian_gradient=product
        )
        assert sum(int((~m).sum()) for m in state.masks) == 4
        return norm(pruner.apply(SMALL, state))

    lowest, highest = without(product), without(jax.tree.map(jnp.negative, product))
    assert lowest > norm(SMALL) > highest


def test_the_synaptic_flow_of_every_layer_is_the_same():
    kernels, x = mlp([7, 9, 4, 5]), jax.ShapeDtypeStruct((3, 7), jnp.float32)
    flow = jax.jit(lambda p: synaptic_flow(forward, p, x))(kernels)
    scores = prune.scores.synflow(kernels, flow=flow)
    sums = [float(s.sum()) for s in scores]
    magnitudes = jax.tree.map(jnp.abs, kernels)
    out = forward(magnitudes, jnp.ones((3, 7)))
    np.testing.assert_allclose(sums, float(out.sum()), rtol=1e-5)
    assert all((s >= 0).all() for s in scores)
    # And that of every hidden unit, as much comes in as goes out.
    for before, after in zip(scores[:-1], scores[1:], strict=True):
        np.testing.assert_allclose(before.sum(0), after.sum(1), rtol=1e-4)


@pytest.mark.slow
def test_exponential_rounds_keep_every_layer_alive_and_one_shot_does_not():
    kernels, x = mlp([16, 60, 100, 60, 4]), jnp.zeros((1, 16))
    rounds = 100

    def run(schedule, length):
        pruner = prune.prune(
            schedule, score=prune.scores.synflow, budget=prune.budgets.global_
        )

        def one(carry, _):
            params, state = carry
            flow = synaptic_flow(forward, pruner.apply(params, state), x)
            return pruner.update(params, state, flow=flow), None

        start = kernels, pruner.init(kernels)
        (params, state), _ = jax.lax.scan(one, start, length=length)
        return pruner.apply(params, state)

    both = jax.jit(
        lambda: (
            run(prune.schedules.geometric(0.99, rounds=rounds), rounds),
            run(0.99, 1),
        )
    )
    slowly, at_once = both()
    total = sum(k.size for k in kernels)
    counts = [[int((k != 0).sum()) for k in view] for view in (slowly, at_once)]
    # A budget leaves one weight to a layer that it would kill, beyond its share.
    assert abs(sum(counts[0]) - 0.01 * total) <= 1
    assert abs(sum(counts[1]) - 0.01 * total) <= len(kernels)
    assert min(counts[0]) > 1 and min(counts[1]) == 1
    assert (forward(jax.tree.map(jnp.abs, slowly), jnp.ones((1, 16))) > 0).any()


def test_integer_inputs_stay_and_a_flow_that_overflows_is_told():
    params = {"embedding": -jnp.ones((5, 2)), "kernel": jnp.ones((2, 3))}

    def fn(p, tokens, scale):
        return scale * (p["embedding"][tokens] @ p["kernel"])

    flow = synaptic_flow(fn, params, jnp.asarray([1, 1, 4]), jnp.zeros(()))
    assert flow["embedding"][:, 0].tolist() == [0, 6, 0, 0, 3]
    huge = jax.tree.map(lambda p: 1e30 * p, params)
    with pytest.raises(
        FloatingPointError, match="synaptic flow must be finite, got inf. Scale"
    ):
        synaptic_flow(fn, huge, jnp.asarray([0]), jnp.zeros(()))
