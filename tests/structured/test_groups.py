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
VARIANTS = ("resnet, padded shortcut", "transformer, fused", "vit", "gru")


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
