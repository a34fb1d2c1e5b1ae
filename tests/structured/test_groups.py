# SPDX-License-Identifier: Apache-2.0
"""Every network is pruned exactly, or frozen with a reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from prunable import CASES
from variants import marked

import jaxcompress as jc

# Other networks whose channels meet in the same ways.
VARIANTS = (
    "resnet, padded shortcut", "transformer", "transformer, fused", "vit", "gru", "vgg",
)  # fmt: skip


@pytest.fixture(scope="module", params=marked(CASES, slow=VARIANTS))
def case_and_groups(request):
    case = CASES[request.param]()
    return case, jc.trace_axes(case.fn, case.params, *case.args)


def random_masks(groups, seed=0):
    rng = np.random.default_rng(seed)
    masks = {}
    for name, group in groups.prunable.items():
        masks[name] = np.zeros(group.size, bool)
        masks[name][rng.permutation(group.size)[: (group.size + 1) // 2]] = True
    return masks


def close(a, b, scale):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * scale)


def test_sliced_equals_masked_with_gradients(case_and_groups):
    case, groups = case_and_groups
    assert sorted(g.size for g in groups.prunable.values()) == case.prunable
    plan = groups.plan(random_masks(groups))
    masked = jc.structured.mask_params(case.params, plan)
    sliced = jc.structured.slice_params(case.params, plan)
    small = jc.shrink(case.fn, plan)
    assert plan.parameters == sum(x.size for x in jax.tree.leaves(sliced))

    def squares(fn):
        def loss(params, *args):
            out = fn(params, *args)
            return jnp.sum(jnp.square(out)), out

        return jax.value_and_grad(loss, has_aux=True)

    @jax.jit
    def both(masked, sliced, *args):
        return squares(case.fn)(masked, *args), squares(small)(sliced, *args)

    found = both(masked, sliced, *case.args)
    ((_, out), grads), ((_, small_out), small_grads) = jax.tree.map(np.asarray, found)
    assert np.abs(out).max() > 1e-3
    close(out, small_out, np.abs(out).max())
    scale = max(np.abs(g).max() for g in jax.tree.leaves(grads))
    wanted = jc.structured.slice_params(grads, plan)
    jax.tree.map(lambda a, b: close(a, b, scale), wanted, small_grads)


def test_frozen_groups_say_why(case_and_groups):
    _, groups = case_and_groups
    frozen = [g for g in groups.values() if g.frozen]
    assert frozen
    assert all(reason for g in frozen for reason in g.frozen)


def test_the_table_and_the_picture_show_every_group(tmp_path):
    case = CASES["transformer"]()
    groups = jc.trace_axes(case.fn, case.params, *case.args)
    text = repr(groups)
    assert all(name in text for name in groups.prunable)
    assert "frozen, indices select along it: params/Embed_0/embedding[0]" in text
    jc.structured.draw(groups, tmp_path / "groups.svg")
    picture = (tmp_path / "groups.svg").read_text()
    assert picture.count("<!-- params/") == sum(
        any(leaf in g.leaves for g in groups.prunable.values())
        for leaf in groups.shapes
    )


def test_packed_parameters_and_swapped_arguments_are_refused():
    params = {"kernel": jnp.ones((4, 4))}
    packed = jc.compress(jc.weight_quantization(bits=8), params)
    with pytest.raises(TypeError, match="got packed parameters .QArray"):
        jc.trace_axes(lambda p, x: x, packed, jnp.ones(3))
    with pytest.raises(TypeError, match="takes a function first"):
        jc.trace_axes(params, lambda p, x: x, jnp.ones(3))  # pyright: ignore[reportArgumentType]


def test_the_table_says_what_the_channels_of_attention_are():
    case = CASES["grouped-query attention"]()
    groups = jc.trace_axes(case.fn, case.params, *case.args)
    roles = {name: group.role for name, group in groups.prunable.items()}
    assert roles == {
        "k[1]": "heads",
        "o[0]": "queries of a head",
        "k[2]": "query-key",
        "v[2]": "values",
        "o[1]": "",
    }
    assert all(role in repr(groups) for role in roles.values())
    # Data that is multiplied by data without attention has no heads.
    mixed = {"a": jnp.ones((4, 6)), "b": jnp.ones((6, 2))}

    def gated(params, x):
        h = x @ params["a"]
        return (h @ (h.T @ h)) @ params["b"]

    plain = jc.trace_axes(gated, mixed, jnp.ones((3, 4)))
    assert {group.role for group in plain.values()} == {""}


def test_a_group_norm_is_counted_in_norm_groups_and_in_their_channels():
    def fn(params, x):
        h = (x @ params["in"]).reshape(len(x), 4, 8)
        scale = jax.lax.rsqrt(jnp.square(h).sum(-1, keepdims=True) + 1e-5)
        return (h * scale).reshape(len(x), 32) @ params["out"]

    params = {"in": jnp.ones((3, 32)), "out": jnp.ones((32, 2))}
    groups = jc.trace_axes(fn, params, jnp.ones((5, 3)))
    text = {row.split()[0]: row for row in repr(groups).splitlines()}
    whole, within = groups.prunable.values()
    assert (whole.size, within.size) == (4, 8)
    assert " 8 in a row " in text[whole.name] and " 1 of every 8 " in text[within.name]
    np.testing.assert_array_equal(whole.indices, np.arange(8))
    np.testing.assert_array_equal(within.indices, np.arange(0, 32, 8))
    rising = {
        group.name: np.arange(group.size) + 1.0 for group in groups.prunable.values()
    }
    plan = jc.structured.select(
        groups, rising, jc.structured.budgets.parameters(0.5), round_to=2, keep=3
    )
    kept = plan["out", 0].reshape(4, 8)
    sizes = kept.any(1).sum(), kept.any(0).sum()
    assert kept.sum() == np.prod(sizes)
    assert all(n % 2 == 0 and n >= 3 for n in sizes)
