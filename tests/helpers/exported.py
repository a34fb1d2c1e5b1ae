# SPDX-License-Identifier: Apache-2.0
"""Networks to export: one of each kind, small."""

import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxcompress as jc


class Residual(nn.Module):
    """Convolutions with batch norms, a residual sum, a mean and a dense layer."""

    @nn.compact
    def __call__(self, x):
        def conv(x, width, stride=1):
            x = nn.Conv(width, (3, 3), stride, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=True)(x)

        x = nn.relu(conv(x, 8))
        x = nn.relu(x + conv(nn.relu(conv(x, 8)), 8))
        return nn.Dense(5)(nn.relu(conv(x, 16, 2)).mean((1, 2)))


class Encoder(nn.Module):
    """A transformer over token ids."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(20, 16)(ids)
        x = x + self.param("places", nn.initializers.normal(0.5), (1, ids.shape[1], 16))
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2)(y, y)
        x = x + nn.Dense(16)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(x))))
        return nn.Dense(3)(nn.LayerNorm()(x).mean(1))


class Mobile(nn.Module):
    """Depthwise convolutions, poolings, squeeze and excite, two results."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu6(nn.Conv(8, (3, 3), feature_group_count=4)(x))
        x = nn.avg_pool(nn.max_pool(x, (2, 2), (2, 2)), (2, 2), (2, 2))
        gate = nn.silu(nn.Dense(4)(x.mean((1, 2))))
        x = x * nn.sigmoid(nn.Dense(8)(gate))[:, None, None]
        return {"flat": nn.Dense(3)(x.reshape(x.shape[0], -1)), "mean": x.mean((1, 2))}


class Recurrent(nn.Module):
    """A recurrent cell in a scan."""

    cell: type

    @nn.compact
    def __call__(self, x):
        states = jnp.asarray(nn.RNN(self.cell(6))(x[:, :, 0]))
        return nn.Dense(3)(states[:, -1])


class UNet(nn.Module):
    """A transposed convolution, and a concatenation."""

    @nn.compact
    def __call__(self, x):
        fine = nn.relu(nn.Conv(4, (3, 3))(x))
        coarse = nn.relu(nn.Conv(8, (3, 3), 2)(fine))
        wide = nn.ConvTranspose(4, (2, 2), (2, 2))(coarse)
        return nn.Conv(2, (1, 1))(jnp.concatenate([fine, wide], -1))


IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
IDS = jax.random.randint(jax.random.key(0), (2, 6), 0, 20)
NETWORKS = {
    "residual": (Residual(), IMAGES),
    "encoder": (Encoder(), IDS),
    "mobile": (Mobile(), IMAGES),
    "lstm": (Recurrent(nn.LSTMCell), IMAGES[:, :4]),
    "gru": (Recurrent(nn.GRUCell), IMAGES[:, :4]),
    "unet": (UNet(), IMAGES),
}


def built(name):
    """Return the function of a network, its variables and an example."""
    module, x = NETWORKS[name]
    variables = module.init(jax.random.key(1), x)

    def moved(path, a):
        noise = 0.1 * jax.random.normal(jax.random.key(a.size), a.shape)
        return jnp.abs(a + noise) if "var" in jax.tree_util.keystr(path) else a + noise

    variables = jax.tree_util.tree_map_with_path(moved, variables)
    return module.apply, variables, x


def quantized(fn, params, x, policy, bits=8):
    """Return packed weights, and ranges calibrated on one batch."""
    axes = jc.weight_axes(fn, params, x)
    compressor = jc.weight_quantization(
        bits=bits, granularity=jc.quantize.PerChannel(axes=axes)
    )
    modes = jc.quantize_activations(fn, policy)
    ranges = modes.init(params, x)
    return jc.compress(compressor, params), jax.jit(modes.calibrate)(params, ranges, x)[
        1
    ]
