# SPDX-License-Identifier: Apache-2.0
"""The way of a parameter through what is done to it before a product reads it."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program.trace._analyze import analyze
from jaxcompress.quantize import fake_quant


def trail(transform, *shape, **others):
    """Of the leaf ``w`` at the result of ``transform``."""
    leaves = {"w": jax.ShapeDtypeStruct(shape, jnp.float32), **others}

    def fn(params):
        rest = {k: v for k, v in params.items() if k != "w"}
        return transform(params["w"], *rest.values())

    program = analyze(fn, leaves, ())
    (value,) = program.root.outs
    assert value.trail is not None
    assert len(value.trail.axes) == len(value.aval.shape)
    assert program.paths[value.trail.leaf] == "w"
    return value.trail


def view(compressor):
    """What a compressor shows of one weight."""

    def of(w):
        params = {"kernel": w}
        return compressor.apply(params, compressor.init(params))["kernel"]

    return of


def replicated(w):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,))
    return lax.with_sharding_constraint(w, NamedSharding(mesh, PartitionSpec()))


@pytest.mark.parametrize(
    "move, shape, axes",
    [
        (lambda w: w, (4, 3), ((0,), (1,))),
        (lambda w: w, (), ()),
        (jnp.transpose, (4, 3), ((1,), (0,))),
        (lambda w: w.transpose(2, 0, 1), (4, 3, 2), ((2,), (0,), (1,))),
        # What a reshape merges is known, in order.
        (lambda w: w.reshape(6, 4), (2, 3, 4), ((0, 1), (2,))),
        (lambda w: w.reshape(-1), (2, 3, 4), ((0, 1, 2),)),
        (lambda w: w.transpose(1, 0, 2).reshape(6, 4), (2, 3, 4), ((1, 0), (2,))),
        (lambda w: w.reshape(2, 12).T, (2, 3, 4), ((1, 2), (0,))),
        # Axes of length 1 come and go.
        (lambda w: w[None, :, None, :], (4, 3), ((), (0,), (), (1,))),
        (lambda w: w.reshape(1, 4, 1, 3), (4, 3), ((), (0,), (), (1,))),
        (lambda w: w.reshape(4, 3), (4, 1, 3), ((0,), (2,))),
        (lambda w: w.squeeze(1), (4, 1, 3), ((0,), (2,))),
        (lambda w: lax.squeeze(w, (-2,)), (4, 1, 3), ((0,), (2,))),
        # Repetition is no axis of the leaf.
        (lambda w: jnp.broadcast_to(w, (2, 4, 3)), (4, 3), ((), (0,), (1,))),
        (lambda w: jnp.broadcast_to(w, (4, 3)), (1, 3), ((), (1,))),
        (lambda w: jnp.broadcast_to(w[:, None], (3, 4)), (3,), ((0,), ())),
        (lambda w: w.astype(jnp.bfloat16), (4, 3), ((0,), (1,))),
        (lax.stop_gradient, (4, 3), ((0,), (1,))),
        (lax.optimization_barrier, (4, 3), ((0,), (1,))),
        (lambda w: checkpoint_name(w, "w"), (4, 3), ((0,), (1,))),
        (replicated, (4, 3), ((0,), (1,))),
        (jax.jit(jnp.transpose), (4, 3), ((1,), (0,))),
        (jax.checkpoint(jnp.transpose), (4, 3), ((1,), (0,))),
    ],
)
def test_moves_keep_the_leaf_as_it_is(move, shape, axes):
    found = trail(move, *shape)
    assert (found.axes, found.exact, found.whole) == (axes, True, True)


@pytest.mark.parametrize(
    "change, shape, axes",
    [
        (lambda w: jnp.where(w > 0, w, 0.0), (4, 3), ((0,), (1,))),
        (lambda w: 2 * w.T + 1, (4, 3), ((1,), (0,))),
        (lambda w: w * jnp.arange(3.0)[None], (4, 3), ((0,), (1,))),
        (jnp.tanh, (4, 3), ((0,), (1,))),
        (lambda w: jax.nn.softmax(w, 0), (4, 3), ((0,), (1,))),
        (lambda w: w / jnp.linalg.norm(w, axis=0)[None], (4, 3), ((0,), (1,))),
        (lambda w: jnp.full_like(w, jnp.max(w)) * w, (4, 3), ((0,), (1,))),
        # Compressors show a weight where it is.
        (lambda w: fake_quant(w, Int(4)), (4, 3), ((0,), (1,))),
        (lambda w: fake_quant(w.T, Int(4)), (4, 3), ((1,), (0,))),
        (view(jc.weight_quantization(bits=4)), (4, 3), ((0,), (1,))),
        (
            view(jc.weight_quantization(bits=4, granularity=jc.PerGroup(2))),
            (4, 3),
            ((0,), (1,)),
        ),
        (view(jc.magnitude_pruning(0.5)), (4, 3), ((0,), (1,))),
        (view(jc.weight_sharing(4)), (4, 3), ((0,), (1,))),
    ],
)
def test_what_works_on_every_value_changes_the_leaf_where_it_is(change, shape, axes):
    found = trail(change, *shape)
    assert (found.axes, found.exact, found.whole) == (axes, False, True)


@pytest.mark.parametrize(
    "cut, shape, axes",
    [
        (lambda w: w[:, 1:], (4, 3), ((0,), (1,))),
        (lambda w: w[:, ::2], (4, 3), ((0,), (1,))),
        (lambda w: lax.dynamic_slice(w, (1, 0), (2, 3)), (4, 3), ((0,), (1,))),
        (lambda w: w[1], (2, 4, 3), ((1,), (2,))),
        (lambda w: w[:, 0], (2, 4, 3), ((0,), (2,))),
        (lambda w: w[jnp.argmax(w[:, 0, 0])], (2, 4, 3), ((1,), (2,))),
        (lambda w: jnp.tanh(w[1:].T), (4, 3), ((1,), (0,))),
    ],
)
def test_a_part_lies_along_the_axes_of_the_whole(cut, shape, axes):
    found = trail(cut, *shape)
    assert (found.axes, found.exact, found.whole) == (axes, False, False)


@pytest.mark.parametrize(
    "reverse", [lambda w: jnp.flip(w, 0), lambda w: w[:, ::-1] + 1]
)
def test_what_is_reversed_is_not_whole(reverse):
    """Its elements are elsewhere on the axis."""
    found = trail(reverse, 4, 3)
    assert not found.exact and not found.whole


@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (1, 3), (1, 1)])
def test_a_mask_or_a_scale_may_be_a_parameter_too(shape):
    # The larger leaf is followed; of two as large the one that is called like a weight.
    other = jax.ShapeDtypeStruct(shape, jnp.float32)
    for scaled in (lambda a, w: w * a, lambda a, w: jnp.where(a > 0, w, 0.0)):
        found = trail(lambda w, a, scaled=scaled: scaled(a, w), 4, 3, a=other)
        assert found.axes == ((0,), (1,)) and not found.exact and found.whole


@pytest.mark.parametrize(
    "change, shape, known",
    [
        # An axis that is split has no axis of its own, nor what comes out of parts.
        (lambda w: w.reshape(2, 2, 3), (4, 3), (None, None)),
        (lambda w: w.reshape(4, 3, 2), (4, 6), ((0,), None, None)),
        (lambda w: w.reshape(3, 4), (4, 3), (None, None)),
        # Several ways that do not agree.
        (lambda w: w + w.T, (4, 4), (None, None)),
        (lambda w: w.T + w, (4, 4), (None, None)),
        # Values change places.
        (lambda w: jnp.concatenate([w, w]), (4, 3), (None,)),
        (lambda w: jnp.roll(w, 1, 0), (4, 3), (None,)),
        (lambda w: jnp.sort(w, 0), (4, 3), (None,)),
        (lambda w: w[jnp.array([1, 0, 3, 2])], (4, 3), (None,)),
        (lambda w: jnp.tile(w, (2, 1)), (4, 3), (None,)),
        # Values are mixed.
        (lambda w: jnp.cumsum(w, 0), (4, 3), (None,)),
        (lambda w: w @ w, (4, 4), (None, None)),
        (lambda w: jnp.linalg.cholesky(w), (4, 4), (None, None)),
        (lambda w: jnp.linalg.inv(w), (4, 4), (None, None)),
        (lambda w: w[:, None] * w[None], (4,), (None, None)),
    ],
)
def test_axes_that_mix_or_change_places_are_not_guessed(change, shape, known):
    found = trail(change, *shape)
    assert found.axes[: len(known)] == known


def test_the_largest_leaf_is_followed_through_a_product_of_leaves():
    low = jax.ShapeDtypeStruct((4, 2), jnp.float32)

    def fn(w, left):
        return w + left @ left.T @ w

    found = trail(fn, 4, 3, z=low)
    assert found.axes in (((0,), (1,)), (None, None)) and not found.exact


def test_a_scan_takes_the_first_axis_off_and_does_not_put_it_back():
    def layer(carry, w):
        return carry, jnp.tanh(w)

    def fn(params):
        return lax.scan(layer, None, params["w"])[1]

    program = analyze(fn, {"w": jnp.ones((3, 4, 2))}, ())
    (value,) = program.root.outs
    (node,) = program.root.nodes
    inside = node.bodies[0].outs[0].trail
    assert inside is not None and inside.whole and not inside.exact
    assert (inside.axes, inside.layers) == (((1,), (2,)), (0,))
    assert value.trail is not None and not value.trail.exact
    assert value.trail.axes == (None, (1,), (2,)) and not value.trail.whole


def test_scans_in_scans_take_an_axis_each_whichever_that_is():
    seen = []

    def layer(carry, w):
        seen.append(w.shape)
        return carry, w.T

    def fn(params):
        def group(carry, ws):
            return lax.scan(layer, carry, ws)

        return lax.scan(group, None, params["w"].transpose(3, 1, 0, 2))[1]

    program = analyze(fn, {"w": jnp.ones((5, 2, 4, 3))}, ())
    (outer,) = program.root.nodes[-1].bodies
    inner = outer.nodes[-1].bodies[0].outs[0].trail
    assert seen[0] == (5, 4) and inner is not None
    assert (inner.layers, inner.axes) == ((3, 1), ((2,), (0,)))
    assert inner.exact and inner.whole


def test_a_scan_over_an_axis_that_is_none_of_the_leaf_has_no_layers_of_it():
    def fn(params):
        many = jnp.broadcast_to(params["w"], (3, 4, 2))
        return lax.scan(lambda c, w: (c, w.T), None, many)[1]

    program = analyze(fn, {"w": jnp.ones((4, 2))}, ())
    inside = program.root.nodes[-1].bodies[0].outs[0].trail
    assert inside is not None and inside.layers == ()
    assert inside.axes == ((1,), (0,))


def test_a_weight_that_a_scan_does_not_scan_keeps_its_axes_inside():
    def fn(params):
        return lax.scan(lambda c, _: (c, params["w"].T), None, None, length=2)[1]

    program = analyze(fn, {"w": jnp.ones((4, 3))}, ())
    inside = program.root.nodes[-1].bodies[0].outs[0].trail
    assert inside is not None and (inside.axes, inside.exact) == (((1,), (0,)), True)


def test_what_data_touches_has_no_trail():
    program = analyze(lambda p, x: p["w"] * x, {"w": jnp.ones(3)}, (jnp.ones(3),))
    assert program.root.outs[0].trail is None
