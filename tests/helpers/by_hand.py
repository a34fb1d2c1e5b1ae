# SPDX-License-Identifier: Apache-2.0
"""A small network, and its quantization-aware training as one writes it by hand."""

import re

import jax
import numpy as np
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant

INT8 = Int(8)
X = normal(10, 24, seed=99)
WIDTHS = (24, 16, 12, 4)
PLAIN = [
    {"kernel": normal(n, m, seed=i), "bias": normal(m, seed=9 + i)}
    for i, (n, m) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:], strict=True))
]


def plain(params, x):
    for i, layer in enumerate(params):
        x = jax.nn.relu(x) if i else x
        x = x @ layer["kernel"] + layer["bias"][None]
    return x


def simulated(fn, weights=INT8, inputs=INT8):
    """The same training by hand: both operands of a product rounded in floats."""

    def rule(site, op, operands, state):
        operands = list(operands)
        if site.weight is not None and site.primitive == "dot_general":
            for i, fmt in [(site.weight, weights), (1 - site.weight, inputs)]:
                summed, x = site.contraction[i], operands[i]
                shape = [1 if j in summed else n for j, n in enumerate(x.shape)]
                operands[i] = fake_quant(x, fmt, scale_shape=shape)
        return op(*operands), state

    rewritten = jc.rewrite(fn, rule)
    return lambda params, *args: rewritten(params, {}, *args)[0]


def direction(tree):
    """Something to differentiate along."""
    return jax.tree.map(lambda x: normal(*x.shape, seed=x.size), tree)


def assert_close(tree, expected, rtol=1e-4):
    """Equal up to the rounding of float32, against the largest of each array, or one."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, atol=rtol * abs(y).max() + 1e-7, rtol=0)


def products(fn, *args):
    """Dtypes of the operands and the result of every matrix product in a program."""
    text = jax.jit(fn).lower(*args).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    return [tuple(re.findall(r"tensor<(?:\d+x)*(\w+)>", line)) for line in lines]


INTEGERS, FLOATS = ("i8", "i8", "i32"), ("f32", "f32", "f32")


def rounded(x, axis, levels=127):
    scale = abs(x).max(axis, keepdims=True) / levels
    return np.round(x / scale) * scale
