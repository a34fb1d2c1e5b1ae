# SPDX-License-Identifier: Apache-2.0
"""Batch norms are folded where the program says that they follow a product alone."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from draws import normal
from flax import nnx
from jax import lax
from linked import close
from prunable import IMAGES, filled

from jaxcompress.program import find_folds
from jaxcompress.quantize import fold_batch_norm
from jaxcompress.quantize.equivalent import verify_folds

EPSILON = 3e-3


class ResNet(nn.Module):
    """Two norms of one size follow convolutions, a third one follows a sum."""

    @nn.compact
    def __call__(self, x):
        def norm(**options):
            return nn.BatchNorm(use_running_average=True, epsilon=EPSILON, **options)

        x = nn.relu(norm(use_bias=False)(nn.Conv(4, (3, 3))(x)))
        y = nn.relu(norm()(nn.Conv(4, (3, 3), use_bias=False)(x)))
        x = nn.relu(norm()(x + y))
        x = norm(use_scale=False)(nn.Dense(5)(x.mean((1, 2))))
        return nn.Dense(3)(x)


def resnet():
    net = ResNet()
    variables = filled(net.init(jax.random.key(0), IMAGES))

    def fn(params, batch_stats, x):
        return net.apply({"params": params, "batch_stats": batch_stats}, x)

    return fn, variables["params"], variables["batch_stats"]


@pytest.mark.slow
def test_found_folds_leave_the_function_unchanged():
    fn, params, stats = resnet()
    folds = find_folds(fn, params, stats, IMAGES)
    found = {f.norm: (f.kernel, f.bias) for f in folds}
    assert found == {
        "BatchNorm_0": ("Conv_0/kernel", "Conv_0/bias"),
        "BatchNorm_1": ("Conv_1/kernel", None),
        "BatchNorm_3": ("Dense_0/kernel", "Dense_0/bias"),
    }
    assert all(f.epsilon == pytest.approx(EPSILON) for f in folds)
    assert folds.skipped == {"BatchNorm_2": "it follows 'add', not a product alone"}
    run = jax.jit(fn)
    new = fold_batch_norm(params, stats, folds)
    close(run(*new, IMAGES), run(params, stats, IMAGES))
    assert "BatchNorm_2: skipped" in repr(folds)

    first, second, _ = folds
    swapped = [
        dataclasses.replace(first, norm=second.norm),
        dataclasses.replace(second, norm=first.norm, bias=None),
    ]
    for wrong in (swapped[0], dataclasses.replace(second, epsilon=1e-1)):
        with pytest.raises(ValueError, match="changes the output by"):
            verify_folds(fn, params, stats, [wrong], IMAGES)
    with pytest.raises(ValueError, match="no bias"):
        verify_folds(fn, params, stats, swapped[1:], IMAGES)


def test_each_fold_has_an_epsilon_of_its_own_or_the_common_one():
    fn, params, stats = resnet()
    shapes = jax.eval_shape(lambda *trees: trees, params, stats, IMAGES)
    folds = find_folds(fn, *shapes)
    bare = [dataclasses.replace(fold, epsilon=None) for fold in folds]
    own = fold_batch_norm(params, stats, folds, epsilon=0.5)
    common = fold_batch_norm(params, stats, bare, epsilon=folds[0].epsilon)
    jax.tree.map(close, own, common)
    with pytest.raises(ValueError, match="'BatchNorm_0' has no epsilon. Pass epsilon="):
        fold_batch_norm(params, stats, bare)
    with pytest.raises(ValueError, match=r"in \[0, 1\), such as 1e-5; got 2"):
        fold_batch_norm(params, stats, [dataclasses.replace(bare[0], epsilon=2.0)])


def test_nnx():
    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)

        def __call__(self, x):
            return nnx.relu(self.norm(self.conv(x)))

    graph, params, stats = nnx.split(Net(), nnx.Param, nnx.BatchStat)
    (fold,) = find_folds(
        lambda p, s, x: nnx.merge(graph, p, s)(x), filled(params), filled(stats), IMAGES
    )
    assert (fold.kernel, fold.norm, fold.bias) == ("conv/kernel", "norm", "conv/bias")


PARAMS = {
    "kernel": normal(4, 6),
    "norm": {"scale": normal(6, seed=1), "bias": normal(6, seed=2)},
}
STATS = {"norm": {"mean": normal(6, seed=3), "var": jnp.square(normal(6, seed=4))}}
X = normal(5, 4, seed=5)


def parts(params, stats):
    norm = params["norm"] | stats["norm"]
    return (norm[name][None] for name in ("scale", "bias", "mean", "var"))


def one_factor(params, stats, x):
    """Haiku: a factor, then the offset."""
    scale, bias, mean, var = parts(params, stats)
    factor = scale * lax.rsqrt(var + 1e-3)
    return (x @ params["kernel"] - mean) * factor + bias


def one_shift(params, stats, x):
    """TensorFlow: the mean is part of the shift."""
    scale, bias, mean, var = parts(params, stats)
    factor = lax.rsqrt(var + 1e-3) * scale
    return x @ params["kernel"] * factor + (bias - mean * factor)


def as_it_is_written(params, stats, x):
    scale, bias, mean, var = parts(params, stats)
    return scale * (x @ params["kernel"] - mean) / jnp.sqrt(var + 1e-3) + bias


def transposed(params, stats, x):
    scale, bias, mean, var = (v.T for v in parts(params, stats))
    y = lax.dot_general(params["kernel"], x, (((0,), (1,)), ((), ())))
    return ((y - mean) / jnp.sqrt(1e-3 + jnp.maximum(var, 0)) * scale + bias).T


@pytest.mark.parametrize("fn", [one_factor, one_shift, as_it_is_written, transposed])
def test_any_order_of_operations(fn):
    (fold,) = find_folds(fn, PARAMS, STATS, X)
    assert (fold.kernel, fold.norm, fold.axis) == ("kernel", "norm", 1)
    assert fold.epsilon == pytest.approx(1e-3)
    new = fold_batch_norm(PARAMS, STATS, [fold])
    close(fn(*new, X), fn(PARAMS, STATS, X))


def joined(params, stats, x):
    y = jnp.concatenate([x, x @ params["kernel"][:, :2]], -1)
    return one_factor({**params, "kernel": jnp.eye(6)}, stats, y)


def read_twice(params, stats, x):
    return one_factor(params, stats, x), x @ params["kernel"]


def input_read_twice(params, stats, x):
    scale, bias, mean, var = parts(params, stats)
    y = x @ params["kernel"]
    return (y - mean) * lax.rsqrt(var + 1e-3) * scale + bias + y


def shared(params, stats, x):
    return one_factor(params, stats, x) + one_factor(params, stats, 2 * x)


def computed(params, stats, x):
    return one_factor({**params, "kernel": jnp.tanh(params["kernel"])}, stats, x)


def activated(params, stats, x):
    scale, bias, mean, var = parts(params, stats)
    y = jnp.tanh(x @ params["kernel"])
    return (y - mean) * lax.rsqrt(var + 1e-3) * scale + bias


@pytest.mark.parametrize(
    "fn, reason",
    [
        (joined, "product|computed"),
        (read_twice, "'kernel' is used more than once"),
        (input_read_twice, "read elsewhere"),
        (shared, "not applied as a factor, once"),
        (computed, "computed from the parameters"),
        (activated, "follows 'tanh'"),
    ],
)
def test_what_cannot_be_folded_is_skipped_with_the_reason(fn, reason):
    folds = find_folds(fn, PARAMS, STATS, X)
    assert not folds
    (why,) = folds.skipped.values()
    assert any(part in why for part in reason.split("|"))


def test_norms_in_a_scan_are_skipped():
    stacked = jax.tree.map(lambda w: jnp.stack([w, w]), (PARAMS, STATS))

    def fn(params, stats, x):
        def layer(x, own):
            params, stats = own
            return one_factor(params, stats, x)[:, :4], None

        return lax.scan(layer, x, (params, stats))[0]

    assert find_folds(fn, *stacked, X).skipped == {"norm": "it is used within a loop"}
