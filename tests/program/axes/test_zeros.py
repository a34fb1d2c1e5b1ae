# SPDX-License-Identifier: Apache-2.0
"""Which functions of masked channels are zero there, so that sums over them are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax

import jaxcompress as jc

X = normal(3, 4)
UP = normal(4, 6, seed=1)


def scan(step, start=jnp.zeros):
    def change(h):
        return lax.scan(lambda c, _: (step(c, h), None), start(h.shape), None, 3)[0]

    return change


def swapped(h):
    """Three carried values take turns, and the last of them is one."""
    start = (h, 2 * h, jnp.ones(h.shape))
    return lax.fori_loop(0, 2, lambda i, c: (c[1], c[2], c[0]), start)[0]


def rotated_zeros(h):
    start = (h, 2 * h, jnp.sin(h))
    return lax.fori_loop(0, 3, lambda i, c: (c[1], c[2], c[0]), start)[0]


def branch(other):
    return lambda h: lax.cond(X[0, 0] > 9, jnp.tanh, other, h)


def carried_factor(h):
    """The factor is infinite from the second trip on."""
    start = (h, jnp.ones(h.shape))
    return lax.fori_loop(0, 2, lambda i, c: (c[0] * c[1], 1 / h), start)[0]


ZERO = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "max with a negative number": lambda h: lax.max(h, -1.0),
    "min with a positive number": lambda h: lax.min(h, 6.0),
    "clip around zero": lambda h: lax.clamp(-1.0, h, 6.0),
    "a sigmoid as a gate": lambda h: h * jax.nn.sigmoid(h),
    "difference": lambda h: h - jnp.sin(h),
    "divided by what is positive": lambda h: h / (1 + jnp.abs(h)),
    "divided by a softplus": lambda h: h / (jax.nn.sigmoid(h) + jnp.exp(h)),
    "rsqrt with epsilon": lambda h: h * lax.rsqrt(jnp.square(h) + 1e-5),
    "normalized over rows": lambda h: (h - h.mean(0)[None]) / (h.std(0)[None] + 1e-5),
    "normalized by the channels": lambda h: h / jnp.abs(h).sum(1)[:, None],
    "cube": lambda h: h**3,
    "selected": lambda h: jnp.where(h > 1, h, jnp.sin(h)),
    "padded with zeros": lambda h: jnp.pad(h, ((0, 1), (0, 0))),
    "concatenated": lambda h: jnp.concatenate([h, 2 * h], 0),
    "reversed rows": lambda h: h[::-1],
    "updated by zeros": lambda h: lax.dynamic_update_slice(h, 0 * h[:1], (1, 0)),
    "product with data": lambda h: h * jnp.cos(h),
    "a loop that keeps zero": scan(lambda c, h: jnp.tanh(c + h)),
    "a loop that rotates zeros": rotated_zeros,
    "both branches": branch(jnp.sin),
    "summed over rows": lambda h: h.sum(0, keepdims=True),
    "a call": jax.jit(jnp.tanh),
    "rematerialized": jax.checkpoint(jnp.tanh),
}
NOT_ZERO = {
    "sigmoid": jax.nn.sigmoid,
    "cosine": jnp.cos,
    "plus one": lambda h: h + 1,
    "max with a positive number": lambda h: lax.max(h, 1.0),
    "min with a negative number": lambda h: lax.min(h, -1.0),
    "clip above zero": lambda h: lax.clamp(0.5, h, 6.0),
    "divided by itself": lambda h: h / h,
    "divided by a norm": lambda h: h / jnp.abs(h).sum(0)[None],
    "times an inverse": lambda h: h * (1 / h),
    "rsqrt without epsilon": lambda h: h * lax.rsqrt(jnp.square(h)),
    "times a logarithm": lambda h: h * jnp.log(jnp.abs(h)),
    "a negative power": lambda h: h * h**-2,
    "a remainder": lambda h: lax.rem(h, h),
    "selected, with one": lambda h: jnp.where(h > 1, h, 1.0),
    "padded with ones": lambda h: jnp.pad(h, ((0, 1), (0, 0)), constant_values=1.0),
    "concatenated with a cosine": lambda h: jnp.concatenate([h, jnp.cos(h)], 0),
    "updated by ones": lambda h: lax.dynamic_update_slice(h, jnp.ones((1, 6)), (1, 0)),
    "a loop that starts with one": scan(lambda c, h: c + h, jnp.ones),
    "a loop that adds one": scan(lambda c, h: jnp.tanh(c + h + 1)),
    "a loop that rotates a one": swapped,
    "a loop with a factor that becomes infinite": carried_factor,
    "one branch": branch(jnp.cos),
    "greatest of rows": lambda h: (h + 1).max(0, keepdims=True),
}


def summed(changes):
    def fn(params, x):
        return {
            name: change(x @ params[name]).sum(-1) for name, change in changes.items()
        }

    return fn, {name: UP for name in changes}


@pytest.fixture(scope="module")
def groups():
    fn, params = summed(ZERO | NOT_ZERO)
    return jc.trace_axes(fn, params, X)


@pytest.mark.parametrize("name", ZERO)
def test_zeros_survive(groups, name):
    assert not groups[f"{name}[1]"].frozen


@pytest.mark.parametrize("name", NOT_ZERO)
def test_where_zeros_are_lost_the_sum_is_frozen(groups, name):
    assert "not zero" in groups[f"{name}[1]"].frozen[0]


def test_what_is_claimed_is_what_is_computed():
    fn, params = summed(ZERO)
    groups = jc.trace_axes(fn, params, X)
    masks = {name: np.arange(6) % 3 == 0 for name in groups.prunable}
    jc.structured.verify(fn, params, groups.plan(masks), X)


def test_what_is_frozen_would_be_wrong():
    fn, params = summed(NOT_ZERO)
    keep = np.arange(6) % 3 == 0
    masked = {name: jnp.where(keep[None], w, 0) for name, w in params.items()}
    sliced = {name: w[:, keep] for name, w in params.items()}
    exempt = {"updated by ones"}  # has a fixed width
    changes = {n: c for n, c in NOT_ZERO.items() if n not in exempt}
    run, _ = summed(changes)
    full, small = run(masked, X), run(sliced, X)
    assert not [n for n in changes if np.allclose(full[n], small[n], atol=1e-4)]
