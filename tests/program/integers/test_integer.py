# SPDX-License-Identifier: Apache-2.0
"""Products of codes: any layout, exact up to the rounding of three float operations."""

from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples
from jax import lax

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, operands_only
from jaxcompress.program.integers._product import (
    MAX_SUMMED,
    Codes,
    _accumulate,
    product,
)
from jaxcompress.quantize import to_qarray
from jaxcompress.quantize.scales import dynamic


def always(site):
    return True


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Layout(NamedTuple):
    """A product as letters: shared ones are summed over, but for the batch ``e``."""

    x: str
    w: str
    weight: int  # which operand is the parameter

    @property
    def summed(self):
        return [a for a in self.x if a in self.w and a != "e"]

    @property
    def out(self):
        """Batch axes first, then what is left of the left and of the right operand."""
        left, right = (self.x, self.w) if self.weight else (self.w, self.x)
        both = set(left) & set(right)
        own = [a for side in (left, right) for a in side if a not in both]
        return "".join([*(a for a in left if a == "e" and a in both), *own])

    def fn(self, params, x):
        left, right = (self.x, self.w) if self.weight else (self.w, self.x)
        sides = (left, right)
        summed = [tuple(s.index(a) for a in self.summed) for s in sides]
        batch = [(s.index("e"),) if "e" in self.out else () for s in sides]
        lhs, rhs = (x, params["w"]) if self.weight else (params["w"], x)
        return lax.dot_general(lhs, rhs, ((summed[0], summed[1]), (batch[0], batch[1])))

    def shapes(self, sizes):
        return tuple(sizes[a] for a in self.x), tuple(sizes[a] for a in self.w)

    def site(self, sizes):
        x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in self.shapes(sizes))
        return jc.sites(self.fn, {"w": w}, x)[0]

    def numpy(self, x, w):
        """The same product in the dtype of the operands."""
        return np.einsum(f"{self.x},{self.w}->{self.out}", x, w)


NAMED = {
    "x @ w": Layout("rk", "kn", 1),
    "w @ x": Layout("kr", "nk", 0),
    "x @ w.T, as Equinox has it": Layout("rk", "nk", 1),
    "w @ vector": Layout("k", "nk", 0),
    "vector @ w": Layout("k", "kn", 1),
    "into heads": Layout("sbk", "knm", 1),
    "out of heads": Layout("rkl", "kln", 1),
    "out of heads, axes crossed": Layout("lrk", "knl", 1),
    "experts": Layout("erk", "ekn", 1),
    "experts on the left": Layout("rek", "nke", 0),
    "a vector as the weight": Layout("rk", "k", 1),
}
SIZES = {
    "r": st.integers(1, 20),
    "s": st.integers(1, 4),
    "b": st.integers(1, 4),
    "k": st.integers(1, 40),
    "l": st.integers(1, 4),
    "n": st.integers(1, 12),
    "m": st.integers(1, 3),
    "e": st.integers(1, 3),
}


def drawn(layouts):
    """A layout, and a size for each letter."""
    return st.tuples(layouts, st.fixed_dictionaries(SIZES))


@st.composite
def any_layout(draw):
    """Up to two axes of each kind, in any order, on either side."""
    free, outputs, summed = (draw(st.sampled_from(["", a, a + b])) for a, b in PAIRS)
    shared = summed + draw(st.sampled_from(["", "e"]))
    x = draw(st.permutations(free + shared))
    w = draw(st.permutations(outputs + shared).filter(len))
    return Layout("".join(x), "".join(w), draw(st.integers(0, 1)))


PAIRS = ["rs", "nm", "kl"]


def values(q):
    """What a quantized array stands for, in float64."""
    zero_point = 0 if q.zero_point is None else np.asarray(q.zero_point, np.int64)
    return (np.asarray(q.codes, np.int64) - zero_point) * np.asarray(
        q.scale, np.float64
    )


def assert_rounded_thrice(out, layout, x, w):
    """Equal to the product in float64, but for three roundings to float32.

    Of the int32 sum, of the product of the two scales, and of the product of these; all
    of them relative. (The float64 sum that this is compared with rounds too.)
    """
    exact = layout.numpy(x, w)
    noise = 1e-13 * layout.numpy(abs(x), abs(w))
    assert out.shape == exact.shape and out.dtype == jnp.float32
    assert (np.abs(out - exact) <= 3.01 * 2.0**-24 * np.abs(exact) + noise).all()


@hypothesis.given(
    chosen=drawn(st.sampled_from(sorted(NAMED.values())) | any_layout()),
    weight_fmt=st.builds(Int, st.integers(1, 8), st.booleans()),
    input_fmt=st.none() | st.builds(Int, st.integers(2, 8), st.booleans()),
    per_output=st.booleans(),
    seed=st.integers(0, 99),
)
@examples(30)
def test_a_product_is_that_of_the_dequantized_operands(
    chosen, weight_fmt, input_fmt, per_output, seed
):
    layout, sizes = chosen
    shapes = layout.shapes(sizes)
    # Not centered, so that zero points are of no avail by chance.
    x, w = normal(*shapes[0], seed=seed) + 0.3, normal(*shapes[1], seed=seed + 1) - 0.2
    kept = [a not in layout.summed and per_output for a in layout.w]
    scales = [n if keep else 1 for n, keep in zip(shapes[1], kept, strict=True)]
    rows = [1 if a in layout.summed else sizes[a] for a in layout.x]
    policy = None
    if input_fmt is not None:
        policy = operands_only(ActivationQuantizer(input_fmt, dynamic()))
        rows = None

    @jax.jit  # all in one program: compiling is what takes the time here
    def run(x, w):
        packed = {"w": to_qarray(w, weight_fmt, scale_shape=scales)}
        rounded = to_qarray(x, input_fmt or Int(8), scale_shape=rows)
        execution = jc.execute(layout.fn, policy, pays=always)
        assert execution.plan(packed, x).steps[0].integers
        return execution.run(packed, x), rounded, packed["w"]

    out, rounded, weight = run(x, w)
    assert_rounded_thrice(out, layout, values(rounded), values(weight))


@hypothesis.given(
    chosen=drawn(st.sampled_from(sorted(NAMED.values())) | any_layout()),
    extreme=st.booleans(),
    seed=st.integers(0, 99),
)
@examples(40)
def test_the_sum_of_bytes_is_exact(chosen, extreme, seed):
    layout, sizes = chosen
    draw = np.random.default_rng(seed)
    x, w = (
        draw.choice([-128, 127], shape) if extreme else draw.integers(-128, 128, shape)
        for shape in layout.shapes(sizes)
    )
    site, side = layout.site(sizes), 1 - layout.weight

    def accumulate(x, w):
        return _accumulate(x, w, site, side, tuple(range(w.ndim)))

    total = jax.jit(accumulate)(jnp.asarray(x, jnp.int8), jnp.asarray(w, jnp.int8))
    assert total.dtype == jnp.int32
    np.testing.assert_array_equal(total, layout.numpy(x, w))


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("zero", [-128, 127])
def test_the_longest_sum_fits(rows, zero):
    # The most that it can hold: 2**15 * 255 * 255 is just below 2**31.
    layout = NAMED["x @ w"]
    far = -1 - zero
    one, point = jnp.ones((1, 1), jnp.float32), jnp.full((1, 1), zero, jnp.int32)
    x, w = (
        Codes(jnp.full(shape, far, jnp.int8), one, point)
        for shape in ((rows, MAX_SUMMED), (MAX_SUMMED, 2))
    )
    site = layout.site({"r": rows, "k": MAX_SUMMED, "n": 2})
    exact = MAX_SUMMED * (far - zero) ** 2
    assert exact < 2**31
    out = jax.jit(lambda x, w: product(x, w, site))(x, w)
    np.testing.assert_array_equal(out, jnp.full((rows, 2), np.float32(exact)))


@pytest.mark.parametrize(
    "layout",
    [NAMED["x @ w"], NAMED["w @ x"], NAMED["out of heads"]],
    ids=["x @ w", "w @ x", "two summed axes"],
)
def test_few_rows_give_the_bits_of_many(layout):
    sizes = {"r": 20, "k": 24, "l": 2, "n": 6}
    x_shape, w_shape = layout.shapes(sizes)
    axis, w = layout.x.index("r"), jnp.asarray(normal(*w_shape))
    scales = [1 if a in layout.summed else sizes[a] for a in layout.w]
    packed = {"w": to_qarray(w, Int(6, symmetric=False), scale_shape=scales)}
    x = jnp.asarray(normal(*x_shape, seed=1))
    run = jax.jit(jc.execute(layout.fn, pays=always).run)
    many = run(packed, x)
    for rows in (1, 7, 8):
        few = run(packed, lax.slice_in_dim(x, 0, rows, axis=axis))
        expected = lax.slice_in_dim(many, 0, rows, axis=layout.out.index("r"))
        np.testing.assert_array_equal(few, expected)


def test_rows_are_padded_to_eight_for_a_cpu_only():
    layout = NAMED["x @ w"]
    packed = {"w": to_qarray(jnp.ones((24, 6)), Int(8), scale_shape=(1, 6))}
    run = jax.jit(jc.execute(layout.fn, pays=always).run)
    for platform, rows, seen in [("cpu", 3, 8), ("cpu", 9, 9), ("cuda", 3, 3)]:
        traced = run.trace(packed, jnp.ones((rows, 24)))
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        product = f"(tensor<{seen}x24xi8>, tensor<24x6xi8>) -> tensor<{seen}x6xi32>"
        assert text.count("stablehlo.dot_general") == 1 and product in text


def test_rows_of_a_vector_may_be_none():
    # One row, which is not there: its scale is a scalar along no axis.
    for layout in (NAMED["vector @ w"], NAMED["w @ vector"]):
        sizes = {"k": 24, "n": 6}
        x_shape, w_shape = layout.shapes(sizes)
        scales = [1 if a == "k" else 6 for a in layout.w]
        w = to_qarray(jnp.asarray(normal(*w_shape)), Int(8), scale_shape=scales)
        x = jnp.asarray(normal(*x_shape, seed=1))
        out = jc.execute(layout.fn, pays=always).run({"w": w}, x)
        assert out.shape == (6,)
        assert_rounded_thrice(out, layout, values(to_qarray(x, Int(8))), values(w))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_result_of_16_bits_is_rounded_last(dtype):
    layout = NAMED["x @ w"]
    x, w = (jnp.asarray(normal(9, 9, seed=i)).astype(dtype) for i in range(2))
    packed = {"w": to_qarray(w, Int(8), scale_shape=(1, 9))}
    out = jc.execute(layout.fn, pays=always).run(packed, x)
    assert out.dtype == dtype
    rounded = to_qarray(x, Int(8), scale_shape=(9, 1))
    exact = layout.numpy(values(rounded), values(packed["w"]))
    once = float(jnp.finfo(dtype).eps) / 2 + 3.01 * 2.0**-24
    smallest = float(jnp.finfo(dtype).tiny)
    error = abs(np.asarray(out).astype(np.float64) - exact)
    assert (error <= once * abs(exact) + smallest).all()


def test_the_dtype_of_the_sum_is_the_programs_own():
    def fn(params, x):
        return jnp.matmul(x, params["w"], preferred_element_type=jnp.float32)

    w = to_qarray(jnp.ones((8, 4), jnp.bfloat16), Int(8), scale_shape=(1, 4))
    out = jc.execute(fn, pays=always).run({"w": w}, jnp.ones((8, 8), jnp.bfloat16))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, jnp.full((8, 4), 8.0), rtol=3 * 2.0**-24)


@pytest.mark.parametrize("rows", [0, 2])
def test_rows_of_zeros_give_zeros_and_no_rows_give_none(rows):
    w = to_qarray(jnp.zeros((8, 4)), Int(8, symmetric=False), scale_shape=(1, 4))
    run = jax.jit(jc.execute(NAMED["x @ w"].fn, pays=always).run)
    out = run({"w": w}, jnp.zeros((rows, 8)))
    np.testing.assert_array_equal(out, np.zeros((rows, 4)))


def test_numbers_that_are_none_stay_so_in_their_row():
    w = to_qarray(jnp.ones((8, 4)), Int(8), scale_shape=(1, 4))
    x = jnp.ones((9, 8)).at[2, 3].set(jnp.nan)
    out = jax.jit(jc.execute(NAMED["x @ w"].fn, pays=always).run)({"w": w}, x)
    np.testing.assert_array_equal(jnp.isnan(out).all(1), jnp.arange(9) == 2)
    assert not jnp.isnan(jnp.delete(out, 2, 0)).any()
