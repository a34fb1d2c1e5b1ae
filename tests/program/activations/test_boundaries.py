# SPDX-License-Identifier: Apache-2.0
"""Which values are points: a network a test, and all the points that it has."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from models import initialized

import jaxcompress as jc
from jaxcompress.program import ActivationQuantizer, Boundary, everywhere
from jaxcompress.quantize.scales import minmax

MATRICES = {name: normal(4, 4, seed=i) for i, name in enumerate("koquvw")}
X = normal(2, 4, seed=9)


def points(fn, params, *args):
    known = jc.quantize_activations(fn, everywhere()).points(params, *args)
    return {name: point for name, (point, _) in known.items()}


def names(fn, params, *args):
    return sorted(points(fn, params, *args))


def observed(fn, params, *args):
    """The smallest and largest value that was seen at each point."""
    policy = everywhere(ActivationQuantizer(scale=minmax()))
    quantized = jc.quantize_activations(fn, policy)
    start = quantized.init(params, *args)
    return jax.jit(quantized.calibrate)(params, start, *args)[1]


class ResNet(nn.Module):
    """A stem with a pool, a block with a projection, and a classifier."""

    @nn.compact
    def __call__(self, x, train=False):
        def normed(x, size, strides=1):
            x = nn.Conv(4, (size, size), strides, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train)(x)

        x = nn.max_pool(nn.relu(normed(x, 3)), (2, 2), (2, 2))
        y = normed(nn.relu(normed(x, 3, 2)), 3)
        x = nn.relu(normed(x, 1, 2) + y)
        return nn.Dense(3)(x.mean((1, 2)))


IMAGES = normal(8, 8, 8, 3)
RESNET = initialized(ResNet(), IMAGES)


def resnet(variables, x):
    return ResNet().apply(variables, x)


def resnet_in_training(variables, x):
    return ResNet().apply(variables, x, True, mutable=["batch_stats"])


def test_a_convolution_is_stored_after_its_norm_and_relu_and_a_sum_after_its_relu():
    known = points(resnet, RESNET, IMAGES)
    assert {name: point.boundary for name, point in known.items()} == {
        "input/0": Boundary.INPUT,
        "params/Conv_0/kernel/output": Boundary.PRODUCT,
        "params/Conv_1/kernel/output": Boundary.PRODUCT,
        "params/Conv_2/kernel/output": Boundary.PRODUCT,
        "params/Conv_3/kernel/output": Boundary.PRODUCT,
        "ResNet/add": Boundary.RESIDUAL,
        "params/Dense_0/kernel/input": Boundary.OPERAND,  # the mean over the image
        "params/Dense_0/kernel/output": Boundary.PRODUCT,
    }
    site = known["params/Conv_0/kernel/output"].site
    assert site is not None and site.name == "params/Conv_0/kernel"
    assert known["ResNet/add"].site is None
    seen = observed(resnet, RESNET, IMAGES)
    for rectified in ("params/Conv_0/kernel/output", "ResNet/add"):
        assert seen[rectified].low >= 0
    # These are sides of the sum, before its ReLU.
    assert seen["params/Conv_2/kernel/output"].low < 0
    assert seen["params/Conv_3/kernel/output"].low < 0


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("fn", [resnet, resnet_in_training])
def test_names_depend_neither_on_the_batch_nor_on_training(fn, batch):
    # The statistics that training returns beside the logits are no points either.
    assert names(fn, RESNET, IMAGES[:batch]) == names(resnet, RESNET, IMAGES)


@pytest.mark.parametrize(
    "options", [{}, {"use_fast_variance": False}, {"axis_name": "data"}]
)
def test_a_batch_norm_is_fused_in_training_however_it_takes_the_variance(options):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            norm = nn.BatchNorm(use_running_average=not train, **options)
            return nn.Dense(2)(nn.relu(norm(nn.Dense(4)(x))))

    def training(variables, x):
        return Net().apply(variables, x, True, mutable=["batch_stats"])

    def look(variables, x):
        found.append(names(training, variables, x))
        return x

    variables, found = initialized(Net(), X, False), []
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    all_of_it, rows = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")
    look = jax.shard_map(look, mesh=mesh, in_specs=(all_of_it, rows), out_specs=rows)
    jax.eval_shape(look, variables, X)
    evaluation = names(lambda v, x: Net().apply(v, x, False), variables, X)
    assert found == [evaluation]


def test_dropout_neither_adds_points_nor_widens_ranges():
    def fn(params, x, key=None):
        def drop(x):
            dropout = nn.Dropout(0.5, deterministic=key is None)
            return dropout.apply({}, x, rngs=None if key is None else {"dropout": key})

        x = drop(jax.nn.relu(x @ params["w"]))
        x = x + drop(jax.nn.gelu(x @ params["u"]) @ params["v"])
        return drop(x) @ params["k"]

    training = observed(fn, MATRICES, X, jax.random.key(0))
    evaluation = observed(fn, MATRICES, X)
    assert sorted(training) == sorted(evaluation)
    assert training["w/output"] == evaluation["w/output"]


def test_a_pool_and_a_change_of_layout_stay_on_the_grid():
    def fn(params, x):
        x = jax.nn.relu(x @ params["w"]).reshape(2, 4, 4, 1)
        x = nn.max_pool(x, (2, 2), (2, 2)).transpose(0, 3, 1, 2).reshape(2, 4)
        return x @ params["u"]

    images = jnp.ones((2, 4, 4))
    assert names(fn, MATRICES, images) == ["input/0", "u/output", "w/output"]


@pytest.mark.parametrize("act", ["relu", "relu6"])
def test_a_rectifier_is_fused(act):
    def fn(params, x):
        return getattr(jax.nn, act)(x @ params["w"]) @ params["u"]

    assert names(fn, MATRICES, X) == ["input/0", "u/output", "w/output"]
    seen = observed(fn, MATRICES, 100 * X)["w/output"]
    assert seen.low == 0 and (seen.high == 6 or act == "relu")


@pytest.mark.parametrize(
    "act", ["elu", "gelu", "hard_swish", "leaky_relu", "sigmoid", "silu", "softplus"]
)
def test_a_smooth_activation_is_stored_before_and_after_and_not_inside(act):
    def fn(params, x):
        return getattr(jax.nn, act)(x @ params["w"]) @ params["u"]

    assert names(fn, MATRICES, X) == ["input/0", "u/input", "u/output", "w/output"]


@pytest.mark.parametrize("norm", [nn.LayerNorm(), nn.RMSNorm(), nn.GroupNorm(2)])
def test_nothing_inside_of_a_norm_is_stored(norm):
    params = {**MATRICES, "norm": initialized(norm, X)}

    def fn(params, x):
        return norm.apply(params["norm"], x @ params["w"]) @ params["u"]

    known = names(fn, params, X)
    assert known == ["input/0", "u/input", "u/output", "w/output"]


def test_a_gate_by_another_half_is_stored():
    def fn(params, x):
        a, b = jnp.split(x @ params["w"], 2, -1)
        return (a * jax.nn.sigmoid(b)) @ params["u"][:2]

    # The left half lies on the grid of the product; the gate has one of its own.
    expected = "input/0 mul mul/rhs u/output w/output".split()
    assert names(fn, MATRICES, X) == expected


def test_squeeze_and_excitation_is_stored_as_a_product_of_two():
    def fn(params, x):
        x = jax.nn.relu(x @ params["w"])
        gate = jax.nn.relu(x.mean((1, 2), keepdims=True) @ params["q"])
        return (x * jax.nn.sigmoid(gate @ params["k"])) @ params["u"]

    assert names(fn, MATRICES, jnp.ones((2, 3, 3, 4))) == [
        "input/0",
        "k/output",
        "mul",
        "mul/rhs",
        "q/input",  # the mean over the image
        "q/output",
        "u/output",
        "w/output",
    ]


def test_a_concatenation_of_two_products_is_stored():
    def fn(params, x):
        parts = [jax.nn.relu(x @ params["w"]), jnp.tanh(x @ params["v"])]
        return jnp.concatenate(parts, -1) @ jnp.concatenate([params["u"]] * 2)

    assert names(fn, MATRICES, X) == [
        "concatenate",
        "concatenate/1",  # the other part is what its product stored
        "input/0",
        "u/output",
        "v/output",
        "w/output",
    ]


def attention(params, x, mask):
    q, k, v = (x @ params[name] for name in "qkv")
    scores = jnp.einsum("btd,bsd->bts", q, k) / 2
    scores = scores + jnp.where(mask, 0.0, -1e9)[None]
    return x + jnp.einsum("bts,bsd->btd", jax.nn.softmax(scores), v) @ params["o"]


def test_attention_stores_projections_scores_and_probabilities_but_no_mask():
    x, mask = jnp.ones((2, 3, 4)), jnp.tril(jnp.ones((3, 3), bool))
    known = points(attention, MATRICES, x, mask)
    scores, mixed = (s for s in jc.sites(attention, MATRICES, x, mask) if not s.leaf)
    assert sorted(known) == sorted(
        ["input/0", "q/output", "k/output", "v/output", "o/output", "add"]
        + [f"{scores.name}/output", f"{mixed.name}/lhs", f"{mixed.name}/output"]
    )
    probabilities = known[f"{mixed.name}/lhs"]
    assert probabilities.boundary is Boundary.OPERAND
    assert probabilities.value.shape == (2, 3, 3)
    seen = observed(attention, MATRICES, x, mask)
    assert seen[f"{scores.name}/output"].low > -1e6  # before the mask is added


class Transformer(nn.Module):
    """Pre-LN blocks: in a scan with a checkpoint, or one after the other."""

    scanned: bool = True

    @nn.compact
    def __call__(self, ids):
        class Block(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                h = nn.LayerNorm()(x)
                x = x + nn.MultiHeadDotProductAttention(2)(h, h, h)
                h = nn.Dense(8)(nn.LayerNorm()(x))
                return x + nn.Dense(4)(nn.gelu(h)), None

        x = nn.Embed(7, 4)(ids) + self.param("pos", nn.zeros, (3, 4))[None]
        if self.scanned:
            kwargs = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            Block = nn.scan(nn.remat(Block), length=3, **kwargs)
        return nn.Dense(2)(nn.LayerNorm()(Block(name="layer")(x, None)[0]))


IDS = jnp.array([[0, 3, 6], [1, 1, 2]])


def transformer(scanned):
    model = Transformer(scanned)
    return lambda v, ids: model.apply(v, ids), initialized(model, IDS)


def test_the_residual_stream_of_a_transformer_and_what_reads_it():
    known = points(*transformer(scanned=False), IDS)
    attention = "params/layer/MultiHeadDotProductAttention_0/"
    products = [
        "params/Embed_0/embedding",  # with the position
        *(f"{attention}{name}/kernel" for name in ("query", "key", "value", "out")),
        "params/layer/Dense_0/kernel",
        "params/layer/Dense_1/kernel",
        "params/Dense_0/kernel",
    ]
    operands = [
        f"{attention}query/kernel/input",  # the key and the value read the same
        "params/layer/Dense_0/kernel/input",
        "params/layer/Dense_1/kernel/input",  # after the GELU
        "params/Dense_0/kernel/input",
    ]
    sums = ["Transformer/layer/add", "Transformer/layer/add#1"]
    data = {name for name, p in known.items() if p.site and not p.site.leaf}
    assert len(data) == 3  # scores, probabilities, and their product with the values
    assert set(known) - data == {f"{p}/output" for p in products} | {*operands, *sums}
    assert not any(name.startswith("input/") for name in known)  # integers


def test_points_in_a_scan_over_layers_have_its_axis():
    alone = points(*transformer(scanned=False), IDS)
    known = points(*transformer(scanned=True), IDS)
    # What a layer is given was stored by the one before, which the loop does not tell.
    carried = "Transformer/layer/add/lhs"
    assert set(known) == {*alone, carried}
    for name, point in known.items():
        assert point.layers == ((3,) if "layer/" in name else ())
        if name != carried:
            assert point.value == alone[name].value


def test_position_and_table_make_one_point():
    def fn(params, ids):
        return (params["q"][ids] + params["k"][:3][None]) @ params["w"]

    assert names(fn, MATRICES, IDS % 4) == ["q/output", "w/output"]
    position = 100 * jnp.ones((4, 4))
    seen = observed(fn, {**MATRICES, "k": position}, IDS % 4)["q/output"]
    assert seen.low > 90


def test_neither_a_loss_nor_an_integer_is_a_point():
    def fn(params, x, labels):
        logits = x @ params["w"]
        shares = jax.nn.log_softmax(logits)
        loss = -jnp.mean(jnp.take_along_axis(shares, labels[:, None], 1))
        return loss, jnp.argmax(logits, -1)

    assert names(fn, MATRICES, X, jnp.array([0, 3])) == ["input/0", "w/output"]


def test_a_number_is_no_activation():
    def fn(params, x, temperature):
        return jax.nn.softmax(x @ params["w"] / temperature) @ params["u"]

    assert all(point.value.shape for point in points(fn, MATRICES, X, 2.0).values())


def test_a_result_that_nobody_stored_is_an_output():
    def fn(params, x):
        y = x @ params["w"]
        return {"logits": y, "shares": jax.nn.softmax(y)}

    known = points(fn, MATRICES, X)
    assert sorted(known) == ["input/0", "output/shares", "w/output"]
    assert known["output/shares"].boundary is Boundary.OUTPUT


def test_a_product_that_is_returned_is_stored_as_it_is_returned():
    def fn(params, x):
        y = x @ params["w"]
        return y, jax.nn.relu(y) @ params["u"]

    seen = observed(fn, MATRICES, X)
    assert sorted(seen) == ["input/0", "u/output", "w/output"]
    assert seen["w/output"].low == np.min(X @ MATRICES["w"]) < 0
