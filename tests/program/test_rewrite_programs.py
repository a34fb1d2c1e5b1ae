# SPDX-License-Identifier: Apache-2.0
"""Random programs: whatever surrounds them, products are found and nothing changes."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
from draws import normal
from examples import examples
from jax import lax
from models import assert_same_bits, unchanged

import jaxcompress as jc

SIZE = 4
SIMPLE = st.sampled_from(["dense", "biased", "relu", "transpose", "gram"])
AROUND = st.sampled_from(
    ["residual", "layers", "time", "cond", "while", "remat", "jit"]
)


def chains(inner):
    """Several parts in a row."""
    return st.lists(inner, min_size=1, max_size=2)


PROGRAMS = chains(
    st.recursive(SIMPLE, lambda inner: st.tuples(AROUND, chains(inner)), max_leaves=5)
)


def initial(part, layers, seeds):
    """Parameters of a part: one set of them for each of the layers around it."""
    if isinstance(part, list):
        return [initial(p, layers, seeds) for p in part]
    if isinstance(part, tuple):
        around, inner = part
        if around != "layers":
            return initial(inner, layers, seeds)
        # Something that every layer has of its own, also where nothing else is.
        shift = normal(*layers, 2, seed=next(seeds))
        return {"shift": shift, "inner": initial(inner, (*layers, 2), seeds)}
    if part not in ("dense", "biased"):
        return None
    params = {"w": normal(*layers, SIZE, SIZE, seed=next(seeds), scale=0.4)}
    return params | ({"b": normal(*layers, SIZE)} if part == "biased" else {})


def apply(part, params, x):
    """Run a part."""
    if isinstance(part, list):
        for p, own in zip(part, params, strict=True):
            x = apply(p, own, x)
        return x
    if isinstance(part, tuple):
        around, inner = part
        return AROUNDS[around](lambda params, x: apply(inner, params, x), params, x)
    if part == "relu":
        return jax.nn.relu(x)
    if part == "transpose":
        return x.T
    if part == "gram":
        return jnp.tanh(x @ x)
    y = x @ params["w"]
    return jnp.tanh(y + params["b"][None] if part == "biased" else y)


def repeated(fn, params, x):
    def trip(carry):
        return carry[0] + 1, fn(params, carry[1])

    return lax.while_loop(lambda carry: carry[0] < 2, trip, (0, x))[1]


AROUNDS = {
    "residual": lambda fn, params, x: x + fn(params, x),
    "layers": lambda fn, params, x: lax.scan(
        lambda x, layer: (fn(layer["inner"], x + layer["shift"]), None), x, params
    )[0],
    "time": lambda fn, params, x: lax.scan(
        lambda x, y: (fn(params, x + y[None]), y), x, x
    )[0],
    "cond": lambda fn, params, x: lax.cond(
        x.sum() > 0, fn, lambda params, x: x / 2, params, x
    ),
    "while": repeated,
    "remat": lambda fn, params, x: jax.checkpoint(fn)(params, x),
    "jit": lambda fn, params, x: jax.jit(fn)(params, x),
}


def products(part, trips: int | None = 1, layers=(), *, of_while: int | None = None):
    """``(is it by a weight?, trips, layers)`` of each product that a part should have."""
    if isinstance(part, list):
        parts = [products(p, trips, layers, of_while=of_while) for p in part]
        return [found for one in parts for found in one]
    if isinstance(part, tuple):
        around, inner = part
        count = {"layers": 2, "time": SIZE, "while": of_while}.get(around, 1)
        trips = None if trips is None or count is None else trips * count
        layers = (*layers, 2) if around == "layers" else layers
        return products(inner, trips, layers, of_while=of_while)
    own = [(part != "gram", trips, layers)]
    return own if part in ("dense", "biased", "gram") else []


@hypothesis.given(program=PROGRAMS)
def test_nothing_changes_and_every_product_is_found(program):
    params, x = initial(program, (), iter(range(99))), normal(SIZE, SIZE, seed=100)

    def fn(params, x):
        return apply(program, params, x)

    sites = jc.sites(fn, params, x)
    paths = jax.tree_util.tree_leaves_with_path(params)
    weights = [
        p for p, w in paths if w.ndim >= 2 and p[-1] == jax.tree_util.DictKey("w")
    ]
    named = [jax.tree_util.keystr(p, simple=True, separator="/") for p in weights]
    assert [s.leaf for s in sites if s.leaf] == named
    assert [(s.leaf is not None, s.trips, s.layers) for s in sites] == products(program)
    assert len({s.name for s in sites}) == len(sites)
    assert_same_bits(jax.jit(unchanged(fn))(params, x), jax.jit(fn)(params, x))


@hypothesis.given(program=PROGRAMS)
@examples(10)
def test_state_counts_the_trips(program):
    params, x = initial(program, (), iter(range(99))), normal(SIZE, SIZE, seed=100)

    def counting(site, op, operands, state):
        return op(*operands), state + 1

    def fn(params, x):
        return apply(program, params, x)

    sites = jc.sites(fn, params, x)
    state = {s.name: jnp.zeros(s.layers) for s in sites}
    new = jax.jit(jc.rewrite(fn, counting))(params, state, x)[1]
    expected = products(program, of_while=2)
    for s, (_, runs, layers) in zip(sites, expected, strict=True):
        assert new[s.name].shape == layers
        # Of a branch only the run can tell whether it is taken.
        total = new[s.name].sum()
        assert total <= runs if "cond" in str(program) else total == runs
