# SPDX-License-Identifier: Apache-2.0
"""A small program for every primitive: which channels are free, and why others are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr

import jaxcompress as jc
from jaxcompress.program.axes._rules import RULES

X = normal(4, 4)
KEY = jax.random.key(1)
ROWS = put([2, 0, 1, 3], jnp.int32)
ORDER = "the order of the indices matters"
WINDOW = "a window moves along it"
SELECTED = "indices select along it"
RUNNING = "indices are computed while the network runs"


def whole(h):
    return lax.round(4 * h).astype(jnp.int32)


def pairs(h):
    return h.reshape(4, 3, 2)


def windows(reducer, init, size):
    return lambda h: lax.reduce_window(h, init, reducer, size, (1, 1), "SAME")


def scattered(method):
    return lambda h: getattr(h.at[ROWS], method)(h)


def image(h):
    return h.reshape(1, 2, 2, 6)


NAMES = ("NHWC", "HWIO", "NHWC")
ONES = put(np.ones((1, 1, 1, 6)))

UNARY = {
    name: getattr(lax, name)
    for name in (
        "abs", "cbrt", "ceil", "cos", "cosh", "erf", "erfc", "exp", "exp2", "expm1",
        "floor", "is_finite", "logistic", "neg", "optimization_barrier", "round", "sign",
        "sin", "sinh", "square", "stop_gradient", "tan", "tanh",
    )
}  # fmt: skip


def with_another(name):
    return lambda h: getattr(lax, name)(h, 1 + jnp.abs(h))


def with_ones(name):
    return lambda h: getattr(lax, name)(whole(h), jnp.ones_like(whole(h)))


COMPARED = {
    name: with_another(name)
    for name in ("eq", "ge", "gt", "le", "lt", "max", "min", "ne", "nextafter", "rem")
}
INTEGER = {
    name: with_ones(name)
    for name in (
        "bitwise_and", "bitwise_or", "bitwise_xor", "shift_left",
        "shift_right_arithmetic", "shift_right_logical",
    )
}  # fmt: skip
ELEMENTWISE = {
    **UNARY,
    **COMPARED,
    **INTEGER,
    "add": lambda h: h + h,
    "add_any": jax.grad(lambda h: (h * jnp.sin(h)).sum()),
    "atan2": lambda h: lax.atan2(h, h + 1),
    "bitcast_convert_type": lambda h: lax.bitcast_convert_type(h, jnp.int32) % 7,
    "clamp": lambda h: lax.clamp(-1.0, h, 1.0),
    "complex, real": lambda h: lax.real(lax.complex(h, h)),
    "conj, imag": lambda h: lax.imag(lax.conj(lax.complex(h, h))),
    "convert_element_type": lambda h: h.astype(jnp.bfloat16),
    "copy": jnp.copy,
    "device_put": lambda h: jax.device_put(h),
    "div": lambda h: h / (1 + jnp.abs(h)),
    "erf_inv": lambda h: lax.erf_inv(jnp.tanh(h) / 2),
    "integer_pow": lambda h: h**3,
    "log": lambda h: lax.log(1 + jnp.abs(h)),
    "log1p": lambda h: lax.log1p(jnp.abs(h)),
    "mul": lambda h: h * h,
    "name": lambda h: checkpoint_name(h, "hidden"),
    "not": lambda h: ~(h > 0),
    "pow": lambda h: jnp.abs(h) ** 1.5,
    "reduce_precision": lambda h: lax.reduce_precision(h, 8, 7),
    "rsqrt": lambda h: lax.rsqrt(1 + jnp.abs(h)),
    "select_n": lambda h: jnp.where(h > 0, h, 2 * h),
    "sqrt": lambda h: lax.sqrt(jnp.abs(h)),
    "sub": lambda h: h - 2 * h,
}

OTHERS = {
    "broadcast_in_dim": (lambda h: h + jnp.zeros((4, 6)), [6]),
    "cumlogsumexp": (lambda h: lax.cumlogsumexp(h, 1), ORDER),
    "cummax": (lambda h: lax.cummax(h, 1), ORDER),
    "cummin": (lambda h: lax.cummin(h, 1), ORDER),
    "cumprod": (lambda h: lax.cumprod(h, 1), ORDER),
    "cumsum": (lambda h: lax.cumsum(h, 1), ORDER),
    "cumsum of rows": (lambda h: lax.cumsum(h, 0), [6]),
    "concatenate": (lambda h: jnp.concatenate([h, h], 1), [6]),
    "debug_callback": (
        lambda h: (jax.debug.callback(lambda h: None, h), h)[1],
        "its values leave the program",
    ),
    "argmax": (lambda h: h * jnp.argmax(h, 1)[:, None], "its indices are a result"),
    "argmin of rows": (lambda h: h * jnp.argmin(h, 0)[None], [6]),
    "dynamic_slice": (
        lambda h: lax.dynamic_slice(h, (0, whole(X)[0, 0]), (4, 3)),
        RUNNING,
    ),
    "dynamic_slice of rows": (
        lambda h: lax.dynamic_slice(h, (whole(X)[0, 0], 0), (2, 6)).repeat(2, 0),
        [6],
    ),
    "dynamic_update_slice": (
        lambda h: lax.dynamic_update_slice(h, jnp.ones((4, 2)), (0, whole(X)[0, 0])),
        RUNNING,
    ),
    "dynamic_update_slice of rows": (
        lambda h: lax.dynamic_update_slice(h, h[:1], (whole(X)[0, 0], 0)),
        [6],
    ),
    "gather": (lambda h: h[:, ROWS], SELECTED),
    "gather of rows": (lambda h: h[ROWS], [6]),
    "iota": (lambda h: h + lax.iota(jnp.float32, 6)[None], "meets its own indices"),
    "iota of rows": (lambda h: h + lax.broadcasted_iota(jnp.float32, (4, 6), 0), [6]),
    "pad": (lambda h: jnp.pad(h, ((0, 0), (1, 2))), [6]),
    "interior pad": (lambda h: lax.pad(h, 0.0, ((0, 0, 0), (0, 0, 1))), "interior"),
    "negative pad": (lambda h: lax.pad(h, 0.0, ((0, 0, 0), (-1, 0, 0))), "negative"),
    "random_bits": (
        lambda h: h * jax.random.normal(KEY, (4, 6)),
        "other random numbers",
    ),
    "reduce_and": (lambda h: h * jnp.all(h > 0, 0)[None], [6]),
    "reduce_max": (lambda h: h - h.max(1, keepdims=True), "not zero"),
    "reduce_min": (lambda h: h - h.min(0)[None], [6]),
    "reduce_or": (lambda h: h * jnp.any(h > 0, 0)[None], [6]),
    "reduce_prod": (lambda h: h * h.prod(1, keepdims=True), "not zero"),
    "reduce_sum": (lambda h: h * h.sum(1, keepdims=True), [6]),
    "reduce_sum of cosines": (lambda h: h * jnp.cos(h).sum(1)[:, None], "not zero"),
    "reduce_xor": (lambda h: h + lax.reduce_xor(whole(h), (0,))[None], [6]),
    "reduce_window_max": (windows(lax.max, -jnp.inf, (1, 3)), WINDOW),
    "reduce_window_min": (windows(lax.min, jnp.inf, (3, 1)), [6]),
    "reduce_window_sum": (windows(lax.add, 0.0, (3, 1)), [6]),
    "reshape": (lambda h: pairs(h).reshape(4, 6), [2, 3]),
    "uneven reshape": (lambda h: h.reshape(3, 8).reshape(4, 6), "unevenly"),
    "rev": (lambda h: h[:, ::-1], ORDER),
    "rev of rows": (lambda h: h[::-1], [6]),
    "scatter": (scattered("set"), [6]),
    "scatter-add": (scattered("add"), [6]),
    "scatter-max": (scattered("max"), [6]),
    "scatter-min": (scattered("min"), [6]),
    "scatter-mul": (scattered("multiply"), [6]),
    "scatter-sub": (scattered("subtract"), [6]),
    "scatter into channels": (lambda h: h.at[:, ROWS].set(0.0), SELECTED),
    "slice": (lambda h: h[:, :2], [2, 4]),
    "strided slice": (lambda h: h[:, ::2], "strided"),
    "sort": (lambda h: lax.sort(h, dimension=1), ORDER),
    "sort of rows": (lambda h: lax.sort(h, dimension=0), [6]),
    "split": (lambda h: jnp.multiply(*jnp.split(h, 2, 1)), [3]),
    "squeeze, transpose": (lambda h: h[None].transpose(1, 0, 2).squeeze(1), [6]),
    "stack": (lambda h: jnp.stack([h, h], 1).sum(1), [6]),
    "tile": (lambda h: jnp.tile(h, (1, 2)), [6]),
    "top_k": (lambda h: lax.top_k(h, 3)[0], ORDER),
    "dot_general": (lambda h: h @ h.T @ h, [6]),
    "conv_general_dilated": (
        lambda h: lax.conv_general_dilated(
            image(h),
            ONES,
            (1, 1),
            "SAME",
            dimension_numbers=NAMES,
            feature_group_count=6,
        ).reshape(4, 6),
        "closes over",
    ),
    "no rule": (lambda h: jnp.abs(jnp.fft.fft(h)), "an operation without a rule"),
}
PROGRAMS = {**{name: (op, [6]) for name, op in ELEMENTWISE.items()}, **OTHERS}

MESH = "across devices, elementwise"
EXEMPT = {
    **dict.fromkeys(["pmax", "pmin", "psum", "psum2", "psum_invariant"], MESH),
    **dict.fromkeys(["pbroadcast", "pcast", "pvary", "reshard"], MESH),
    "sharding_constraint": MESH,
    "copy_p": "a name of copy",
    "log2": "only in newer JAX",
    "one_minus_square": "only in newer JAX",
}


def network(params, x):
    outs = {}
    for name, (change, _) in PROGRAMS.items():
        own = params[name]
        outs[name] = change(x @ own["up"]).astype(jnp.float32) @ own["down"]
    return outs


def make():
    params = {}
    for i, (name, (change, _)) in enumerate(PROGRAMS.items()):
        up = normal(4, 6, seed=i)
        width = jax.eval_shape(change, X @ up).shape[1]
        down = normal(width, 2, seed=1000 + i)
        params[name] = {"up": up, "down": down}
    return params


PARAMS = make()
GROUPS = jc.trace_axes(network, PARAMS, X)


def of(name):
    """The groups along the channels between the two layers of a program."""
    return [
        group
        for group in GROUPS.values()
        if any(m.leaf == f"{name}/up" and m.axis == 1 for m in group.members)
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_channels_are_free_or_frozen(name):
    wanted = PROGRAMS[name][1]
    if isinstance(wanted, list):
        free = [group.size for group in of(name) if not group.frozen]
        assert sorted(free) == wanted, of(name)
    else:
        assert of(name)
        for group in of(name):
            assert any(wanted in reason for reason in group.frozen), group.frozen


@pytest.mark.parametrize("keep", [1, pytest.param(0.5, marks=pytest.mark.slow)])
def test_all_free_channels_together_are_exact(keep):
    rng, masks = np.random.default_rng(0), {}
    for name, group in GROUPS.prunable.items():
        count = keep if keep == 1 else group.size // 2
        masks[name] = rng.permutation(group.size) < count
    jc.structured.verify(network, PARAMS, GROUPS.plan(masks), X)


def primitives(jaxpr):
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for value in eqn.params.values():
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, ClosedJaxpr | Jaxpr):
                    yield from primitives(part)


def test_every_rule_has_a_program():
    tested = set(primitives(jax.make_jaxpr(network)(PARAMS, X)))
    assert sorted(set(RULES) - tested - set(EXEMPT)) == []
