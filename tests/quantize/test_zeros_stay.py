# SPDX-License-Identifier: Apache-2.0
"""Pruned, then quantized: the mask survives training, finalizing and the file."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bitwise import same_tree
from draws import normal
from variants import marked

import jaxcompress as jc
from jaxcompress import formats
from jaxcompress.formats import Int
from jaxcompress.quantize import mx_quantization, nvfp4_quantization, trained_ternary
from jaxcompress.quantize.rounding import stochastic
from jaxcompress.quantize.scales import lsq, lsq_plus, mse

CODEBOOK = formats.codebook(np.random.default_rng(0).normal(size=500), 8)
WAYS = {
    "signs": jc.weight_quantization(bits=1),
    "int4": jc.weight_quantization(bits=4),
    "int4 at random": jc.weight_quantization(
        bits=4, rounding=stochastic(jax.random.key(0))
    ),
    "int4, groups": jc.weight_quantization(bits=4, granularity=jc.PerGroup(8)),
    "int3 learned": jc.weight_quantization(bits=3, scale=lsq()),
    "uint3 learned": jc.weight_quantization(bits=3, symmetric=False, scale=lsq_plus()),
    "uint4": jc.weight_quantization(bits=4, symmetric=False),
    "uint4, narrow": jc.weight_quantization(fmt=Int(4, False, True)),
    "uint8 searched": jc.weight_quantization(bits=8, symmetric=False, scale=mse()),
    "nf4": jc.weight_quantization(fmt=formats.NF4, granularity=jc.PerGroup(16)),
    "codebook": jc.weight_quantization(fmt=CODEBOOK),
    "e2m1": jc.weight_quantization(fmt=formats.E2M1),
    "mx": mx_quantization(),
    "nvfp4": nvfp4_quantization(),
    "trained ternary": trained_ternary(),
}


# Other settings of what the rest rounds by.
VARIANTS = (
    "int4, groups", "uint3 learned", "uint4, narrow", "codebook", "mx", "signs",
)  # fmt: skip


@pytest.mark.parametrize("name", marked(WAYS, slow=VARIANTS))
def test_the_mask_survives(name, tmp_path):
    x = normal(16, 32, seed=1)
    params = {"kernel": normal(32, 6, seed=2) + 0.3}
    c = jc.chain(jc.magnitude_pruning(0.7), WAYS[name])

    def loss(view, batch):
        return jnp.mean((x @ view["kernel"] - batch) ** 2)

    init, step = jc.train_step(loss, optax.adam(0.05), c)
    state = init(params)
    for _ in range(5):
        state, _ = step(state, jnp.sin(x[:, :6]))
    view = c.apply(state.params, state.compression)["kernel"]
    pruned = ~state.compression[0].kept.masks["kernel"]  # of the first of the chain
    assert abs(float(pruned.mean()) - 0.7) < 0.01
    assert not view[pruned].any()
    shipped = c.finalize(state.params, state.compression)
    same_tree(jc.dense(shipped), {"kernel": view})
    jc.save(tmp_path / "file", jc.pack_codes(shipped))
    same_tree(jc.dense(jc.load(tmp_path / "file")), {"kernel": view})
