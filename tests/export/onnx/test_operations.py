# SPDX-License-Identifier: Apache-2.0
"""Every operation computes in onnxruntime what it does in JAX, at any batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from onnx_checks import check

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


X = normal(3, 4, 5)
POSITIVE = np.abs(X) + 0.1
UNIT = np.tanh(X)
INTS = RNG.integers(-9, 9, (3, 4, 5)).astype(np.int32)
BOOLS = X > 0
ROW = normal(5)

ELEMENTWISE = {
    "arithmetic": (lambda p, x: (x + 1) * (x - 2) / (x * x + 3), X),
    "with_vectors": (lambda p, x: x * ROW[None, None] - ROW[:4][None, :, None], X),
    "negative_abs_sign": (lambda p, x: -abs(x) + jnp.sign(x), X),
    "rounding": (lambda p, x: jnp.round(4 * x) + jnp.floor(x) - jnp.ceil(x), X),
    "half_to_even": (lambda p, x: jnp.round(x / 2), INTS.astype(np.float32)),
    "half_away": (lambda p, x: lax.round(x / 2), INTS.astype(np.float32)),
    "exponentials": (lambda p, x: jnp.exp(x) + jnp.exp2(x) + jnp.expm1(x), X),
    "expm1_small": (lambda p, x: 1e6 * jnp.expm1(x * 1e-6), X),
    "logs": (lambda p, x: jnp.log(x) + jnp.log1p(x), POSITIVE),
    "log1p_small": (lambda p, x: 1e6 * jnp.log1p(x * 1e-6), X),
    "log1p_large": (lambda p, x: jnp.log1p(x * 1e30) + jnp.log1p(x - x), POSITIVE),
    "roots": (lambda p, x: jnp.sqrt(x) + lax.rsqrt(x) + jnp.cbrt(x - 1), POSITIVE),
    "powers": (lambda p, x: x**3 + x**-1 + x**-2 + x**0.5 + 2.0**x, POSITIVE),
    "data_powers": (lambda p, x: lax.pow(x, x) + lax.square(x), POSITIVE),
    "trigonometric": (lambda p, x: jnp.sin(x) + jnp.cos(x) + jnp.tan(x), X),
    "hyperbolic": (lambda p, x: jnp.sinh(x) + jnp.cosh(x) + jnp.tanh(x), X),
    "inverse": (lambda p, x: jnp.arcsin(x) + jnp.arccos(x) + jnp.arctan(x), UNIT),
    "inverse_hyperbolic": (lambda p, x: jnp.arcsinh(x) + jnp.arctanh(x / 2), UNIT),
    "error_function": (lambda p, x: lax.erf(x) + lax.erfc(x) + jax.nn.sigmoid(x), X),
    "remainder": (lambda p, x: lax.rem(x, 0.7 * jnp.ones_like(x)), X),
    "integers": (lambda p, x: (x * 3 - 2) // 4 + x % 5 + lax.rem(x, 3) + x**2, INTS),
    "bits": (lambda p, x: (x & 5) | (x ^ 3) & ~x, INTS),
    "comparisons": (
        lambda p, x: [x > 0.1, x >= 0, x < 0.1, x <= 0, x == x[:1], x != 0],
        INTS,
    ),
    "logic": (lambda p, x: (x & ~x[:, ::-1]) | (x ^ x[:, :, :1]), BOOLS),
    "select": (lambda p, x: jnp.where(x > 0, x, 2.0), X),
    "select_bools": (lambda p, x: jnp.where(x, x[:, ::-1], ~x), BOOLS),
    "select_by_index": (lambda p, x: lax.select_n(x % 3, x, x + 1, x + 2), abs(INTS)),
    "clamp": (lambda p, x: lax.clamp(-0.3, x, 0.5) + jnp.clip(x, -0.2, 0.4), X),
    "clamp_by_data": (lambda p, x: lax.clamp(x - 1, 2 * x[:, :, ::-1], x + 1), X),
    "relu6": (lambda p, x: jax.nn.relu(3 * x) + jax.nn.relu6(9 * x), X),
    "activations": (
        lambda p, x: jax.nn.silu(x) + jax.nn.elu(x) + jax.nn.leaky_relu(x),
        X,
    ),
    "softplus": (lambda p, x: jax.nn.softplus(20 * x) + jax.nn.hard_swish(x), X),
    "casts": (lambda p, x: x.astype(int).astype(bool).astype(np.float32), 3 * X),
    "narrow_integers_wrap": (lambda p, x: x * x - 100, (20 * INTS).astype(np.int8)),
    "unsigned_wrap": (lambda p, x: x - 200, INTS.astype(np.uint32)),
    "to_narrow": (lambda p, x: (x * 100).astype(np.int8).astype(np.int32), INTS),
    "finite": (lambda p, x: jnp.isfinite(jnp.log(x)), X),
    "gradient_stops": (lambda p, x: lax.stop_gradient(x) + jnp.copy(x), X),
    "half": (lambda p, x: (jnp.round(x).astype(jnp.float16) * 2).astype(np.float32), X),
    "constant_output": (lambda p, x: (x, jnp.arange(3.0)), X),
    "input_is_output": (lambda p, x: (x, x), X),
    "two_inputs": (lambda p, x: x["a"] - x["b"], {"a": X, "b": 2 * X}),
}

SHAPES = {
    "transpose": (lambda p, x: x.transpose(0, 2, 1) + 1, X),
    "batch_moves": (lambda p, x: x.transpose(1, 0, 2) * 2, X),
    "split_axis": (lambda p, x: jnp.tanh(x).reshape(-1, 2, 2, 5), X),
    "join_axes": (lambda p, x: jnp.tanh(x).reshape(-1, 20), X),
    "join_transposed": (lambda p, x: x.transpose(0, 2, 1).reshape(-1, 20), X),
    "join_batch": (lambda p, x: x.reshape(-1, 5) * 2, X),
    "join_and_split_batch": (lambda p, x: (x.reshape(-1, 5) * 2).reshape(x.shape), X),
    "join_batch_as_minor": (lambda p, x: x.transpose(1, 0, 2).reshape(-1, 5), X),
    "ones_come_and_go": (lambda p, x: x[:, None, :, None].squeeze(1) + 1, X),
    "broadcast": (lambda p, x: jnp.broadcast_to(x[:, None], (len(x), 6, 4, 5)), X),
    "broadcast_and_reshape": (lambda p, x: jnp.repeat(x, 3, 1) + 1, X),
    "tile": (lambda p, x: jnp.tile(x, (1, 2, 3)), X),
    "outer": (lambda p, x: x[:, :, :1] * x[:, :1, :], X),
    "outer_batch": (lambda p, x: x[None, :, 0] - x[:, None, 0], X),
    "concatenate": (lambda p, x: jnp.concatenate([x, x * 2, x[:, :1]], 1), X),
    "concatenate_constant": (
        lambda p, x: jnp.concatenate([x, jnp.ones((len(x), 2, 5))], 1),
        X,
    ),
    "concatenate_token": (
        lambda p, x: jnp.concatenate([jnp.broadcast_to(ROW, (len(x), 1, 5)), x], 1),
        X,
    ),
    "concatenate_transposed": (
        lambda p, x: jnp.concatenate([x.transpose(0, 2, 1), x[:, :4].mT], 2),
        X,
    ),
    "stack": (lambda p, x: jnp.stack([x, x + 1], 2), X),
    "split": (lambda p, x: jnp.split(x, [1, 3], axis=1), X),
    "slice": (lambda p, x: x[:, 1:3, ::2], X),
    "slice_transposed": (lambda p, x: jnp.tanh(x).mT[:, 1:4, -1], X),
    "first_example": (lambda p, x: x[:1] + x, X),
    "reverse": (lambda p, x: x[:, ::-1, ::-1] * 2, X),
    "pad": (lambda p, x: jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=4.0), X),
    "crop": (lambda p, x: lax.pad(x, 0.0, [(0, 0, 0), (-1, 2, 0), (1, -2, 0)]), X),
    "pad_batch": (lambda p, x: jnp.pad(x, ((1, 1), (0, 0), (0, 0))), X),
    "roll": (lambda p, x: jnp.roll(x, 2, axis=1), X),
    "batch_size": (lambda p, x: jnp.zeros((len(x), 3)) + x[:, 0, :3], X),
}

REDUCTIONS = {
    "sums": (lambda p, x: (x.sum(1), x.sum((1, 2)), x.sum(-1, keepdims=True)), X),
    "over_batch": (lambda p, x: (x.sum(0), x.max(), x.min((0, 2))), X),
    "extremes": (lambda p, x: (x.max(1), x.min(2), x.prod(1)), X),
    "integers": (lambda p, x: (x.sum(1), x.max(2), x.min(1), x.prod(2)), INTS),
    "bools": (lambda p, x: (x.all(1), x.any(2), x.any((1, 2))), BOOLS),
    "means": (lambda p, x: (x.mean(1), x.mean(), x.std(2), x.var(1)), X),
    "repeated": (lambda p, x: jnp.broadcast_to(x[:, :, :1], x.shape).sum(2), X),
    "repeated_max": (lambda p, x: jnp.broadcast_to(x[:, :, :1], x.shape).max(2), X),
    "argmax": (lambda p, x: (x.argmax(1), jnp.argmin(x, -1)), X),
    "argmax_ties": (lambda p, x: (x % 3).argmax(2), INTS),
    "cumsum": (lambda p, x: (jnp.cumsum(x, 1), lax.cumsum(x, 2, reverse=True)), X),
    "norms": (lambda p, x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), X),
    "logsumexp": (lambda p, x: jax.nn.logsumexp(x, axis=1), X),
    "variance_of_transposed": (lambda p, x: x.mT - x.mT.mean(1, keepdims=True), X),
}

TABLE = normal(11, 6)
IDS = RNG.integers(0, 11, (3, 4)).astype(np.int32)

INDICES = {
    "embedding": (lambda p, i: jnp.asarray(TABLE)[i], IDS),
    "embedding_take": (lambda p, i: jnp.take(TABLE, i, axis=0), IDS),
    "columns": (lambda p, i: jnp.take(TABLE, i % 6, axis=1), IDS),
    "clipped": (lambda p, i: jnp.take(TABLE, 3 * i, axis=0, mode="clip"), IDS),
    "one_hot": (lambda p, i: jax.nn.one_hot(i, 11) @ TABLE, IDS),
    "along_axis": (lambda p, x: jnp.take_along_axis(x, x.argmax(1)[:, None], 1), X),
    "along_last": (
        lambda p, x: jnp.take_along_axis(x, jnp.argsort(x)[..., :2], -1),
        X,
    ),
    "dynamic_slice": (
        lambda p, x: lax.dynamic_slice_in_dim(x, x[0, 0, 0].astype(int) + 1, 2, 1),
        X,
    ),
    "slice_at_constant": (lambda p, x: lax.dynamic_slice_in_dim(x, 3, 2, 1), X),
    "update_at_constant": (
        lambda p, x: lax.dynamic_update_slice_in_dim(x, 2 * x[:, 1:3], 1, 1),
        X,
    ),
    "set_row": (lambda p, x: x.at[:, 1].set(7.0).at[..., -1].set(x[..., 0]), X),
    "set_rows": (lambda p, x: x.at[:, 1:3].set(x[:, :2]), X),
    "update_by_constant": (
        lambda p, x: lax.dynamic_update_slice(x, jnp.ones((len(x), 1, 5)), (0, 2, 0)),
        X,
    ),
    "row_at_data": (lambda p, x: jnp.asarray(TABLE)[x[0, 0, 0].astype(int)], X),
    "top_k": (lambda p, x: lax.top_k(x, 3), X),
    "sort": (lambda p, x: (jnp.sort(x, 1), jnp.sort(x)), X),
    "argsort": (lambda p, x: jnp.argsort(x % 3, axis=2), INTS),
}

TABLES = {
    "elementwise": ELEMENTWISE,
    "shapes": SHAPES,
    "reductions": REDUCTIONS,
    "indices": INDICES,
}
CASES = [
    pytest.param(*case, id=f"{table}-{name}")
    for table, cases in TABLES.items()
    for name, case in cases.items()
]


# The batch must be told from other axes of length 1.
MIXED = [
    "batch_moves", "broadcast", "concatenate_token", "join_and_split_batch", "join_batch",
    "join_batch_as_minor", "join_transposed", "ones_come_and_go", "outer_batch",
    "pad_batch", "reverse", "split_axis", "stack", "tile",
]  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_an_example_of_one_row_serves_any_batch(name):
    fn, x = SHAPES[name]
    check(fn, {}, x, example=1)


def test_one_row_of_data_for_all():
    check(
        lambda p, x: x + x[:1, :1] + x[:1].max((0, 1), keepdims=True), {}, X, example=2
    )
    check(lambda p, x: (x[0, 0, 0] * jnp.ones(2), x.sum(0)), {}, X, example=1)
    for rows in (1, 3):
        check(lambda p, x: x.at[0].set(2.0), {}, X, example=rows)


@pytest.mark.parametrize(("fn", "x"), CASES)
def test_same_values(fn, x):
    if isinstance(x, dict):
        check(lambda p, a, b: fn(p, {"a": a, "b": b}), {}, *x.values())
    else:
        check(fn, {}, x)
