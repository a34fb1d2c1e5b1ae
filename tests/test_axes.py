# SPDX-License-Identifier: Apache-2.0
"""The roles of a weight's axes: given by name, by glob, or read from the function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from variants import marked

import jaxcompress as jc
from jaxcompress._axes import contraction_axes, layer_axes, output_axes
from jaxcompress.prune.patterns import NOfM, PerOutput, Slices


@pytest.mark.parametrize(
    ("path", "shape", "axes", "outputs", "contraction"),
    [
        ("Dense_0/kernel", (4, 3), None, (1,), (0,)),
        ("layers/0/weight", (3, 4), None, (0,), (1,)),
        ("scan/kernel", (5, 4, 3), jc.Axes(layers=0), (0, 2), (1,)),
        ("scan/weight", (5, 3, 4), jc.Axes(layers=0), (0, 1), (2,)),
        ("Conv_0/kernel", (3, 3, 2, 8), jc.Axes(outputs=-1), (3,), (0, 1, 2)),
        (
            "Conv_0/kernel",
            (3, 3, 2, 8),
            jc.Axes(contraction=(0, 1, 2)),
            (3,),
            (0, 1, 2),
        ),
        ("Conv_0/kernel", (3, 3, 2, 8), jc.Axes(contraction=-2), (0, 1, 3), (2,)),
        ("scan/q", (5, 4, 2, 3), jc.Axes((2, 3), 1, 0), (0, 2, 3), (1,)),
        ("a[0]", (4, 3), {"a[0]": jc.Axes(outputs=0)}, (0,), (1,)),
        ("b/kernel", (4, 3), {"a/*": jc.Axes(outputs=0)}, (1,), (0,)),
    ],
)
def test_an_axis_that_is_not_named_takes_the_missing_role(
    path, shape, axes, outputs, contraction
):
    assert output_axes(path, shape, axes) == outputs
    assert contraction_axes(path, shape, axes) == contraction
    layers = layer_axes(path, shape, axes)
    assert sorted({*outputs, *contraction}) == list(range(len(shape)))
    assert set(layers) <= set(outputs)


TAKES_AXES = [
    jc.PerTensor, jc.PerChannel, lambda axes: jc.PerGroup(4, axes=axes),
    lambda axes: NOfM(2, 4, axes=axes), lambda axes: Slices(axes=axes),
    lambda axes: PerOutput(axes=axes),
]  # fmt: skip


@pytest.mark.parametrize("make", TAKES_AXES)
@pytest.mark.parametrize("axes", [-1, (0, 1), {"*": 0}, "kernel"])
def test_a_bare_axis_is_refused_since_its_role_is_not_said(make, axes):
    with pytest.raises(TypeError, match=r"axes must .*got .*Axes\(outputs="):
        make(axes)


def test_what_cannot_be_told_or_is_contradictory_is_named():
    with pytest.raises(ValueError, match=r"'stack' .* cannot be told.*weight_axes"):
        output_axes("stack", (5, 4, 3), None)
    with pytest.raises(ValueError, match="axis 1 .* both an output and summed over"):
        output_axes("w", (4, 3), jc.Axes(outputs=1, contraction=(0, 1)))
    with pytest.raises(ValueError, match="there is no axis 2"):
        contraction_axes("w", (4, 3), jc.Axes(contraction=2))

    def mixed(p, x):
        return jnp.einsum("bij,ijk->bk", x, p["w"].reshape(2, 3, 4)[::-1])

    axes = jc.weight_axes(mixed, {"w": jnp.ones((6, 2, 2))}, jnp.ones((1, 2, 3)))
    with pytest.raises(ValueError, match="could not read them: the parameter reaches"):
        jc.PerChannel(axes=axes).scale_shape("w", (6, 2, 2))


def attention(params, x):
    heads = jnp.einsum("bi,ihf->bhf", x, params["query"])
    return jnp.einsum("bhf,hfo->bo", jnp.tanh(heads), params["out"])


def attention_params():
    return {"query": normal(16, 4, 8), "out": normal(4, 8, 16, seed=1)}


@pytest.mark.parametrize("size", [*marked((2, 8, 32), slow=(2, 8)), 16])
def test_groups_over_heads_equal_groups_of_the_merged_matrix(size):
    params = attention_params()
    axes = jc.weight_axes(attention, params, jnp.ones((2, 16)))
    int4 = jc.weight_quantization(
        bits=4, granularity=jc.PerGroup(size, axes), where="*"
    )
    flat = {name: w.reshape(-1, 16) for name, w in params.items() if name == "out"}
    merged = jc.weight_quantization(bits=4, granularity=jc.PerGroup(size), where="*")
    if size <= 16:  # the query sums over 16 inputs
        out = jc.dense(jc.compress(int4, params))["out"]
    else:
        only = jc.masked(
            jc.quantize.quantize(
                jc.formats.Int(4), granularity=jc.PerGroup(size, axes)
            ),
            "out",
        )
        out = jc.dense(jc.compress(only, params))["out"]
    expected = jc.dense(jc.compress(merged, {"kernel": flat["out"]}))["kernel"]
    np.testing.assert_array_equal(out.reshape(-1, 16), expected)


def test_groups_that_span_heads_must_be_whole_heads():
    axes = jc.Axes(contraction=(0, 1))
    with pytest.raises(ValueError, match=r"divide axes \(0, 1\) .* 4 x 8, got 12"):
        jc.PerGroup(12, axes).scale_shape("out", (4, 8, 16))


def test_gptq_hands_its_axes_on_to_its_granularity():
    params, x = attention_params(), normal(64, 16, seed=1)
    axes = jc.weight_axes(attention, params, x)
    stats = jc.observe(attention, params, [x], jc.program.statistics.gram(), where="*")
    gptq = jc.quantize.gptq_quantization(
        4, granularity=jc.PerGroup(8), axes=axes, where="*"
    )
    small = jax.jit(lambda *p: jc.compress(gptq, p[0], stats=p[1]))(params, stats)
    assert small["query"].scale.shape == (2, 4, 8)
    assert small["out"].scale.shape == (4, 1, 16)
    nearest = jc.weight_quantization(
        bits=4, granularity=jc.PerGroup(8, axes), where="*"
    )

    @jax.jit
    def error(tree):
        return jnp.sum((attention(jc.dense(tree), x) - attention(params, x)) ** 2)

    rounded = jax.jit(lambda p: jc.compress(nearest, p))(params)
    assert error(small) < error(rounded)


def test_one_object_serves_every_technique():
    params = attention_params()
    axes = jc.weight_axes(attention, params, jnp.ones((2, 16)))
    assert "query  (1, 2)" in " ".join(repr(axes).split()).replace(
        "query (", "query  ("
    )
    half = jc.magnitude_pruning(0.5, pattern=NOfM(2, 4, axes=axes), where="*")
    masks = half.init(params).masks
    assert (masks["query"].reshape(4, 4, 4, 8).sum(1) == 2).all()
    assert (masks["out"].reshape(4, 2, 4, 16).sum(2) == 2).all()
    rows = jc.magnitude_pruning(0.25, pattern=PerOutput(axes=axes), where="*")
    assert (rows.init(params).masks["query"].sum(0) == 12).all()


def test_axes_that_name_no_leaf_are_said():
    params = {"layers.0.weight": normal(4, 8)}
    axes = {"layrs.*": jc.Axes(outputs=-1)}
    with pytest.warns(UserWarning, match=r"no key of axes= matches.*'layrs\.\*'"):
        jc.weight_quantization(bits=4, granularity=jc.PerChannel(axes=axes)).init(
            params
        )
    pattern = jc.prune.patterns.NOfM(2, 4, axes=axes)
    with pytest.warns(UserWarning, match=r"no key of axes= matches"):
        jc.magnitude_pruning(0.5, pattern=pattern).init(params)
    with pytest.raises(ValueError, match="No key of axes= matches this path"):
        jc.PerChannel(axes=axes).scale_shape("conv/kernel", (3, 3, 4, 8))
