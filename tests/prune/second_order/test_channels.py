# SPDX-License-Identifier: Apache-2.0
"""N:M groups lie along the input channels, in every layout of a convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from variants import marked

import jaxcompress as jc
from jaxcompress.prune import obs_pruning, sparsegpt_pruning
from jaxcompress.prune.patterns import NOfM

FLAX = normal(2, 2, 8, 3)  # h, w, in, out
IMAGES = normal(16, 4, 4, 8, seed=1)
LAYOUTS = {"HWIO": (0, 1, 2, 3), "OIHW": (3, 2, 0, 1), "OHWI": (3, 0, 1, 2)}
METHODS = {
    "sparsegpt": lambda axes: sparsegpt_pruning(0.5, pattern=NOfM(2, 4), axes=axes),
    "obs": lambda axes: obs_pruning(0.5, pattern=NOfM(2, 4), axes=axes),
    "magnitude": lambda axes: jc.magnitude_pruning(
        0.5, pattern=NOfM(2, 4, axes=axes), where="*"
    ),
}


def convolution(layout, params, x):
    return lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", layout, "NHWC")
    )


@functools.cache
def pruned(method, layout, axes=None):
    params = {"kernel": FLAX.transpose(LAYOUTS[layout])}
    fn = functools.partial(convolution, layout)
    axes = axes or jc.weight_axes(fn, params, IMAGES)
    stats = jc.observe(fn, params, [IMAGES], jc.program.statistics.gram())
    solve = jax.jit(lambda *p: jc.compress(METHODS[method](axes), p[0], stats=p[1]))
    new = solve(params, stats)["kernel"]
    return np.transpose(new, np.argsort(LAYOUTS[layout]))


@pytest.mark.parametrize("method", marked(METHODS, slow=("sparsegpt",)))
def test_groups_are_input_channels_in_every_layout(method):
    expected = pruned(method, "HWIO")
    for layout in LAYOUTS:
        new = pruned(method, layout)
        groups = np.moveaxis(new != 0, 2, -1).reshape(-1, 4)
        np.testing.assert_array_equal(groups.sum(1), 2)
        np.testing.assert_allclose(new, expected, atol=1e-4)
    # Equinox and torch: the outputs alone say it.
    named = pruned(method, "OIHW", jc.Axes(outputs=0))
    np.testing.assert_array_equal(named, pruned(method, "OIHW"))


def test_a_group_may_not_straddle_two_positions():
    params = {"kernel": jnp.ones((3, 6, 2, 2))}
    stats = {"kernel": jc.program.statistics.Gram(jnp.uint32(99), jnp.eye(24))}
    pruner = METHODS["sparsegpt"](jc.Axes(outputs=0))
    with pytest.raises(ValueError, match="'kernel': axis 1 .*not a multiple of 4"):
        jc.compress(pruner, params, stats=stats)


def test_channels_are_named_where_their_place_does_not_tell():
    shape = (8, 4, 2, 8)
    assert NOfM(2, 4, jc.Axes(outputs=0)).along("w", shape) == 1
    assert NOfM(2, 4, jc.Axes(outputs=0, channels=-1)).along("w", shape) == 3
    with pytest.raises(
        ValueError, match="'w': channels must be one of .*\\(1, 2, 3\\)"
    ):
        NOfM(2, 4, jc.Axes(outputs=0, channels=0)).along("w", shape)
    # A dense product over two axes: the last is what a row of the matrix ends with.
    heads = {"w": jnp.ones((4, 2, 8))}

    def joined(params, x):
        return jnp.einsum("bhd,ohd->bo", x, params["w"])

    axes = jc.weight_axes(joined, heads, jnp.ones((3, 2, 8)))
    assert NOfM(2, 4, axes).along("w", (4, 2, 8)) == 2
