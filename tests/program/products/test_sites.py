# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest
from draws import normal
from jax import lax
from models import MODELS, linen_transformer, nested_scans

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant


def names(fn, params, *args, **options):
    return tuple(site.name for site in jc.sites(fn, params, *args, **options))


def only(fn, params, *args):
    (site,) = jc.sites(fn, params, *args)
    return site


@pytest.mark.parametrize("name", MODELS)
def test_sites_are_named_after_parameters_whatever_the_batch_or_jit(name):
    model = MODELS[name]()
    assert names(model.fn, model.params, *model.args) == model.names
    large = MODELS[name](batch=5)
    assert names(jax.jit(large.fn), large.params, *large.args) == model.names


def test_shapes_are_enough():
    model = linen_transformer()
    shapes = jax.eval_shape(lambda *xs: xs, model.params, *model.args)
    on_shapes = jc.sites(model.fn, *shapes)
    assert on_shapes == jc.sites(model.fn, model.params, *model.args)


def test_names_survive_transformations():
    """A vmapped, checkpointed, scanned or named use is a use of the same leaf."""
    params = {"w": normal(4, 4)}

    def fn(params, x):
        return jnp.tanh(x @ params["w"])

    def scanned(params, x):
        return lax.map(lambda row: fn(params, row), x)

    def scoped(params, x):
        with jax.named_scope("somewhere"):
            return fn(params, x)

    x = normal(3, 4)
    for form in (jax.vmap(fn, (None, 0)), jax.checkpoint(fn), scanned, scoped):
        assert names(form, params, x) == ("w",)


def test_names_do_not_depend_on_what_was_traced_before():
    """JAX keeps the equations of jitted functions; names in them must be relative."""

    def inner():
        @jax.jit
        def gram(x):
            with jax.named_scope("gram"):
                return x @ x.T

        return gram

    def fn(gram):
        def run(params, x):
            with jax.named_scope("here"):
                return gram(x) @ params["w"]

        return run

    fresh, used = inner(), inner()
    params, x = {"w": normal(4, 4)}, normal(4, 4)

    @jax.jit
    def earlier(x):
        with jax.named_scope("elsewhere"):
            return used(x).sum() + jax.grad(lambda x: used(x).sum())(x).sum()

    for shape in [(4, 4), (6, 5)]:
        earlier(normal(*shape))
    assert names(fn(fresh), params, x) == ("here/gram/dot_general", "w")
    assert names(fn(used), params, x) == ("here/gram/dot_general", "w")


def test_a_leaf_that_is_used_again_is_numbered():
    params = {"a": normal(4, 4), "b": normal(4, 4, seed=1)}
    block = jax.jit(lambda w, x: jnp.tanh(x @ w))

    def fn(params, x):
        return block(params["a"], block(params["b"], block(params["a"], x)))

    assert names(fn, params, normal(2, 4)) == ("a", "b", "a#1")
    assert [s.leaf for s in jc.sites(fn, params, normal(2, 4))] == ["a", "b", "a"]


def test_two_data_operands_have_no_leaf():
    site = only(lambda params, x: x @ x.T + params["bias"], {"bias": 1.0}, normal(3, 4))
    assert (site.leaf, site.weight, site.leaf_contraction) == (None, None, None)
    assert site.name == "dot_general" and site.contraction == ((1,), (0,))


def test_a_product_of_leaves_is_named_after_the_largest_of_them():
    params = {"a_bias": normal(4), "kernel": normal(4, 4), "scale": normal(1, 4)}

    def fn(params, x):
        kernel = params["kernel"] * params["scale"] + params["a_bias"][:, None]
        return x @ jnp.where(kernel > 0, kernel, 0.0)

    assert names(fn, params, normal(2, 4)) == ("kernel",)


def test_a_weight_that_data_has_touched_is_data():
    site = only(lambda p, x: x @ (p["w"] * x.sum()), {"w": normal(4, 4)}, normal(2, 4))
    assert site.name == "dot_general" and site.leaf is None


def axes_after(transform, shape, contract):
    """Axes of a leaf that is multiplied by after a transformation."""
    summed = [jax.eval_shape(transform, normal(*shape)).shape[i] for i in contract]

    def fn(params, x):
        return jnp.tensordot(x, transform(params["w"]), ([*range(1, x.ndim)], contract))

    site = only(fn, {"w": normal(*shape)}, normal(2, *summed))
    return site.leaf_contraction, site.leaf_outputs


def in_groups(w):
    """Quantized by a straight-through estimator, in tiles: two ways to one value."""
    c = jc.weight_quantization(bits=4, granularity=jc.PerGroup(2))
    return c.apply({"w": w}, c.init({"w": w}))["w"]


@pytest.mark.parametrize(
    "transform, shape, contract, expected",
    [
        (lambda w: w, (4, 3), [0], ((0,), (1,))),
        (lambda w: w.T, (3, 4), [0], ((1,), (0,))),
        (lambda w: w, (4, 4, 3), [0, 1], ((0, 1), (2,))),
        (lambda w: w.transpose(2, 0, 1), (4, 5, 4), [0, 2], ((1, 2), (0,))),
        (lambda w: w.reshape(4, 6), (4, 2, 3), [0], ((0,), (1, 2))),
        (lambda w: w.reshape(4, 6).T.reshape(6, 4, 1), (4, 2, 3), [1], ((0,), (1, 2))),
        (lambda w: w.astype(jnp.bfloat16), (4, 3), [0], ((0,), (1,))),
        (lambda w: fake_quant(w, Int(4)), (4, 3), [0], ((0,), (1,))),
        (in_groups, (4, 3), [0], ((0,), (1,))),
        (lambda w: jnp.where(w > 0, w, 0.0), (4, 3), [0], ((0,), (1,))),
        (lambda w: jnp.full_like(w, jnp.max(w)) * w, (4, 3), [0], ((0,), (1,))),
        (lambda w: w[:, ::2], (4, 6), [0], ((0,), (1,))),
        # What splits or mixes axes of the leaf is not guessed at.
        (lambda w: w.reshape(4, 3), (12,), [0], (None, None)),
        (lambda w: w.reshape(4, 3, 2), (4, 6), [0], ((0,), None)),
        (lambda w: jnp.concatenate([w, w], 0), (2, 3), [0], (None, None)),
        (lambda w: w + w.T, (4, 4), [0], (None, None)),
    ],
)
def test_axes_are_those_of_the_leaf(transform, shape, contract, expected):
    assert axes_after(transform, shape, contract) == expected


def test_products_of_square_leaves_do_not_pass_for_elementwise():
    """The first axis of ``kernel.T @ rotation`` is the kernel's second."""
    params = {"kernel": normal(4, 4), "rotation": normal(4, 4, seed=1)}

    def fn(params, x):
        rotated = jnp.einsum("ij,ik->jk", params["kernel"], params["rotation"])
        return x @ rotated

    site = jc.sites(fn, params, normal(2, 4))[-1]
    assert site.leaf == "kernel"
    assert site.leaf_contraction in (None, (1,))
    assert site.leaf_outputs in (None, ())


@pytest.mark.parametrize(
    "model, name, contraction, outputs",
    [
        ("linen_cnn", "params/Conv_0/kernel", (0, 1, 2), (3,)),
        ("nnx_cnn", "linear/kernel", (0,), (1,)),
        ("equinox_mlp", "layers/0/weight", (1,), (0,)),
        ("haiku_mlp", "mlp/~/linear_0/w", (0,), (1,)),
        ("loops", "a/kernel", (0,), (1,)),
        ("loops", "b#1", (1,), (0,)),
        ("convolutions", "params/depthwise/kernel", (0, 1, 2), (3,)),
        ("convolutions", "params/transposed/kernel", (0, 1, 2), (3,)),
        # Axis 0 of the leaf is the layer.
        ("linen_transformer", "params/layers/attention/query/kernel", (1,), (2, 3)),
        ("linen_transformer", "params/layers/attention/out/kernel", (1, 2), (3,)),
        # The second use of a tied embedding multiplies by its transpose.
        ("linen_transformer", "params/embed/embedding#1", (1,), (0,)),
    ],
)
def test_axes_in_models(model, name, contraction, outputs):
    model = MODELS[model]()
    site = jc.sites(model.fn, model.params, *model.args)[name]
    assert (site.leaf_contraction, site.leaf_outputs) == (contraction, outputs)
    assert site.leaf == name.split("#")[0] and site.weight is not None


def test_layers_have_an_axis_of_state_and_trips_multiply():
    model = nested_scans(batch=2)  # 3 layers within 5 steps
    sites = jc.sites(model.fn, model.params, *model.args)
    assert [(s.layers, s.trips) for s in sites] == [((3,), 15), ((3,), 15), ((), 5)]


def test_nested_layers_have_an_axis_each():
    params = {"w": normal(2, 3, 4, 4)}

    def fn(params, x):
        def group(x, w):
            return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)

        return lax.scan(lambda x, w: (group(x, w)[0], None), x, params["w"])[0]

    site = only(fn, params, normal(2, 4))
    assert (site.layers, site.trips) == ((2, 3), 6)
    assert (site.leaf_contraction, site.leaf_outputs) == ((2,), (3,))


def test_only_the_run_can_tell_the_trips_of_a_while():
    model = MODELS["loops"]()
    sites = jc.sites(model.fn, model.params, *model.args)
    assert {s.name: s.trips for s in sites} == {
        "a/kernel": 1,
        "b": 3,
        "b#1": 1,
        "c": 1,
        "d": None,
    }
    assert all(s.layers == () for s in sites)


def test_multiply_accumulates_of_dense_layers():
    model = linen_transformer(batch=3)
    sites = jc.sites(model.fn, model.params, *model.args)
    tokens, width, heads, hidden, vocabulary = 3 * 5, 8, 2, 12, 11
    layer = "params/layers/"
    assert sites["params/embed/embedding"].macs == 0  # a look-up multiplies nothing
    assert sites[f"{layer}attention/query/kernel"].macs == tokens * width * width
    assert sites[4].macs == 3 * heads * 5 * 5 * (width // heads)
    assert sites[f"{layer}up/kernel"].macs == tokens * width * hidden
    assert sites[f"{layer}up/kernel"].trips == 3
    assert sites["params/embed/embedding#1"].macs == tokens * width * vocabulary


def test_multiply_accumulates_of_convolutions():
    model = MODELS["convolutions"](batch=2)
    sites = jc.sites(model.fn, model.params, *model.args)
    pixels, window = 2 * 5 * 5, 3 * 3
    grouped, depthwise, transposed = sites
    assert grouped.macs == pixels * window * (4 // 2) * 8
    assert depthwise.macs == pixels * window * 8
    # Every pixel of the input is spread over a window, as if the convolution ran backwards.
    assert transposed.macs == pixels * window * 8 * 3


def test_strides_divide_and_dilations_of_kernels_do_not():
    params = {"w": normal(3, 3, 4, 6)}

    def macs(**options):
        def fn(params, x):
            return lax.conv_general_dilated(
                x,
                params["w"],
                padding="SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                **options,
            )

        return only(fn, params, normal(1, 8, 8, 4)).macs

    whole = 8 * 8 * 9 * 4 * 6
    assert macs(window_strides=(1, 1)) == whole
    assert macs(window_strides=(2, 2)) == whole // 4
    assert macs(window_strides=(1, 1), rhs_dilation=(2, 2)) == whole
