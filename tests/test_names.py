# SPDX-License-Identifier: Apache-2.0
"""What is selected, and along which axes, in the layers of each library."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxcompress as jc
from jaxcompress._axes import contraction_axes
from jaxcompress._select import paths_and_leaves, select

KEY = jax.random.key(0)
X = jnp.ones((2, 4))
TOKENS = jnp.zeros((2, 3), int)


def linen(layer, *args):
    return lambda: layer.init(KEY, *args)["params"]


def haiku(build, *args):
    return lambda: hk.transform(lambda *a: build()(*a)).init(KEY, *args)


def of_nnx(build):
    return lambda: nnx.state(build(nnx.Rngs(0)), nnx.Param)


class Attention(eqx.Module):
    query: eqx.nn.Linear
    value: eqx.nn.Linear


LAYERS = {
    "linen dense": (linen(nn.Dense(8), X), {"kernel"}),
    "linen embedding": (linen(nn.Embed(9, 8), TOKENS), set()),
    "linen norm": (linen(nn.LayerNorm(), X), set()),
    "linen gru": (
        lambda: nn.GRUCell(8).init(KEY, jnp.ones((2, 8)), X)["params"],
        {f"{gate}/kernel" for gate in ("hn", "hr", "hz", "in", "ir", "iz")},
    ),
    "nnx linear": (of_nnx(lambda rngs: nnx.Linear(4, 8, rngs=rngs)), {"kernel"}),
    "nnx module": (lambda: nnx.Linear(4, 8, rngs=nnx.Rngs(0)), {"kernel/value"}),
    "nnx embedding": (of_nnx(lambda rngs: nnx.Embed(9, 8, rngs=rngs)), set()),
    "haiku linear": (haiku(lambda: hk.Linear(8), X), {"linear/w"}),
    "haiku embedding": (haiku(lambda: hk.Embed(9, 8), TOKENS), set()),
    "haiku norm": (haiku(lambda: hk.LayerNorm(-1, True, True), X), set()),
    "haiku gru": (
        haiku(lambda: lambda x: hk.GRU(8)(x, jnp.zeros((2, 8))), X),
        {"gru/w_i", "gru/w_h"},
    ),
    "equinox linear": (lambda: eqx.nn.Linear(4, 8, key=KEY), {"weight"}),
    "equinox convolution": (lambda: eqx.nn.Conv2d(4, 8, 3, key=KEY), {"weight"}),
    "equinox embedding": (lambda: eqx.nn.Embedding(9, 8, key=KEY), set()),
    "equinox norm": (lambda: eqx.nn.LayerNorm((4, 5)), set()),
    "equinox embedding inside": (
        lambda: {"tokens": eqx.nn.Embedding(9, 8, key=KEY)},
        set(),
    ),
    "equinox lstm": (
        lambda: eqx.nn.LSTMCell(4, 8, key=KEY),
        {"weight_ih", "weight_hh"},
    ),
    "equinox gru": (lambda: eqx.nn.GRUCell(4, 8, key=KEY), {"weight_ih", "weight_hh"}),
    "attribute named value": (
        lambda: {"dec": Attention(*[eqx.nn.Linear(4, 8, key=KEY)] * 2)},
        {"dec/query/weight", "dec/value/weight"},
    ),
    "torch": (
        lambda: {
            "embeddings.word_embeddings.weight": jnp.ones((9, 8)),
            "embeddings.patch_embedding.weight": jnp.ones((8, 3, 4, 4)),
            "encoder.layer.0.query.weight": jnp.ones((8, 4)),
            "encoder.layer.0.LayerNorm.weight": jnp.ones((4, 8)),
            "rnn.weight_ih_l0_reverse": jnp.ones((32, 4)),
            "attention.in_proj_weight": jnp.ones((24, 8)),
        },
        {
            "embeddings.patch_embedding.weight",
            "encoder.layer.0.query.weight",
            "rnn.weight_ih_l0_reverse",
            "attention.in_proj_weight",
        },
    ),
}
OUTPUTS_FIRST = ("equinox", "torch", "attribute")


def selected(params):
    tree = eqx.filter(params, eqx.is_array)
    paths, leaves, _ = paths_and_leaves(tree)
    if not any(jc.is_weight(p, x) for p, x in zip(paths, leaves, strict=True)):
        return {}
    try:
        found = select(tree, jc.is_weight)
    except ValueError:  # nothing is selected
        return {}
    return dict(zip(*paths_and_leaves(found.tree)[:2], strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_multiplied_is_selected(name):
    build, wanted = LAYERS[name]
    found = selected(build())
    assert set(found) == wanted
    for path, leaf in found.items():
        if leaf.ndim == 2:
            first = name.startswith(OUTPUTS_FIRST)
            assert contraction_axes(path, leaf.shape, None) == ((1,) if first else (0,))


def test_a_program_selects_what_it_multiplies():
    def fn(params, tokens):
        hidden = params["table"]["weight"][tokens] @ params["odd name"]
        return hidden * params["gain"]["weight"].sum()

    params = {
        "table": {"weight": jnp.ones((9, 8))},
        "odd name": jnp.ones((8, 8)),
        "gain": {"weight": jnp.ones((2, 2))},
    }
    axes = jc.weight_axes(fn, params, TOKENS)
    pruned = jc.compress(jc.magnitude_pruning(0.5, where=axes), params)
    assert (pruned["odd name"] == 0).sum() == 32
    assert pruned["table"]["weight"].all() and pruned["gain"]["weight"].all()


def test_a_chain_of_modules_that_hold_functions_is_checked():
    model = eqx.nn.MLP(4, 8, 8, 1, key=KEY)  # holds its activation function
    c = jc.chain(
        jc.masked(jc.weight_quantization(bits=8), lambda p, x: p.endswith("weight")),
        jc.masked(jc.weight_sharing(4), lambda p, x: p.endswith("weight")),
    )
    with pytest.raises(ValueError, match="already stored as a QArray"):
        c.init(model)
