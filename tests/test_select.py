# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import flax.linen as nn
import haiku as hk
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.core import FrozenDict
from models import filled, initialized

import jaxcompress as jc
from jaxcompress._select import matches, paths_and_leaves, select


def linen_params():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.relu(nn.Dense(4)(x)))

    return initialized(Net(), jnp.ones((1, 2)))["params"]


def nnx_params():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.Dense_0 = nnx.Linear(2, 4, rngs=rngs)
            self.Dense_1 = nnx.Linear(4, 3, rngs=rngs)

    return nnx.state(Net(nnx.Rngs(0)), nnx.Param)


HAIKU = hk.transform(lambda x: hk.nets.MLP([4, 3])(x))
DENSE_PATHS = ["Dense_0/bias", "Dense_0/kernel", "Dense_1/bias", "Dense_1/kernel"]


@pytest.mark.parametrize(
    "make",
    [linen_params, lambda: FrozenDict(linen_params()), nnx_params],
    ids=["dict", "FrozenDict", "State"],
)
def test_paths_are_the_same_for_every_container(make):
    assert paths_and_leaves(make())[0] == DENSE_PATHS


def test_paths_of_plain_trees_equinox_and_haiku():
    assert paths_and_leaves([(jnp.ones(1),), {"a": jnp.ones(1)}])[0] == ["0/0", "1/a"]
    mlp = eqx.filter(eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.is_array)
    assert "layers/0/weight" in paths_and_leaves(mlp)[0]
    params = jax.eval_shape(HAIKU.init, jax.random.key(0), jnp.ones((1, 2)))
    assert "mlp/~/linear_0/w" in paths_and_leaves(params)[0]


def test_a_field_called_value_keeps_its_name_outside_nnx():
    assert paths_and_leaves({"value": {"value": jnp.ones(1)}})[0] == ["value/value"]


CONTAINERS = {
    "linen": linen_params,
    "frozen": lambda: FrozenDict(linen_params()),
    "nnx": nnx_params,
    "equinox": lambda: eqx.filter(
        eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.is_array
    ),
    "haiku": lambda: filled(
        jax.eval_shape(HAIKU.init, jax.random.key(0), jnp.ones((1, 2)))
    ),
    "plain": lambda: ({"kernel": jnp.ones((2, 2))}, [None, {"kernel": jnp.eye(2)}]),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_technique_runs_on_every_container(name):
    params = CONTAINERS[name]()
    pruner = jc.magnitude_pruning(0.5)
    pruned = jc.compress(pruner, params)
    assert jax.tree.structure(pruned) == jax.tree.structure(params)
    paths, leaves, _ = paths_and_leaves(pruned)
    for path, leaf, old in zip(paths, leaves, jax.tree.leaves(params), strict=True):
        if jc.is_weight(path, leaf):
            assert int((leaf != 0).sum()) == leaf.size - round(leaf.size / 2)
        else:
            assert leaf is old


def test_a_pattern_that_matches_nothing_names_the_closest_paths():
    with pytest.raises(ValueError) as error:
        select(linen_params(), "*/kernal")
    assert str(error.value) == (
        "'*/kernal' selected none of 4 leaves; closest: 'Dense_0/kernel', "
        "'Dense_1/kernel', 'Dense_0/bias'. Globs match the whole path."
    )


def test_a_function_that_selects_nothing_is_named():
    with pytest.raises(ValueError, match="is_weight selected none of 1 leaves .'b'."):
        jc.magnitude_pruning(0.5).init({"b": jnp.ones(3)})


def test_an_empty_tree_is_an_error():
    with pytest.raises(ValueError, match="the tree has no leaves"):
        select({}, "*")


def test_a_bool_tree_selects_and_another_structure_is_shown():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    assert select(params, {"a": True, "b": False}).tree == {"a": params["a"], "b": None}
    with pytest.raises(ValueError, match="structure of the parameters"):
        select(params, {"a": True})


def test_integers_cannot_be_compressed():
    with pytest.raises(TypeError, match="'steps' was selected but has dtype int32"):
        select({"steps": jnp.zeros(3, jnp.int32)}, "*")


def test_is_weight_goes_by_name_and_not_by_rank():
    stacked_bias = jnp.ones((3, 4))
    assert not jc.is_weight("layers/Dense_0/bias", stacked_bias)
    assert not jc.is_weight("layers/LayerNorm_0/scale", stacked_bias)
    assert not jc.is_weight("Embed_0/embedding", stacked_bias)
    assert jc.is_weight("layers/Dense_0/kernel", jnp.ones((3, 4, 5)))
    assert not jc.is_weight("Dense_0/kernel", jnp.ones((3, 4), jnp.int8))


def test_put_refuses_another_structure():
    selection = select({"a": jnp.ones(2), "b": jnp.ones(2)}, "a")
    with pytest.raises(ValueError, match="must keep the structure"):
        selection.put({"a": jnp.ones(2)})


def test_statistics_are_selected_like_the_leaves_they_stand_at():
    params = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "b": jnp.eye(3)}

    def fn(params, x):
        return (x @ params["a"]["kernel"] + params["a"]["bias"][None]) @ params["b"]

    stats = {
        "in": jc.program.statistics.moments(),
        "hessian": jc.program.statistics.gram(),
    }
    observed = jc.observe(fn, params, [jnp.array([[1.0, -2.0]])], stats)
    assert observed["a"]["bias"] is None

    seen = {}

    def update(params, state, **extras):
        seen.update(extras, params=params)
        return params, state

    spy = jc.Compressor(
        init=lambda params: (), apply=lambda params, state: params, update=update
    )
    only_a = jc.masked(spy, "a/*")
    jc.compress(only_a, params, stats=observed, step=7)
    assert seen["stats"]["b"] is None and seen["params"]["b"] is None
    assert seen["stats"]["a"] is not observed["a"]
    assert seen["stats"]["a"]["kernel"] is observed["a"]["kernel"]
    assert seen["stats"]["a"]["bias"] is None
    # What has another structure than the parameters is handed on as it is.
    assert seen["step"] == 7


@hypothesis.given(st.text("ab[]!*?-/0.", min_size=1, max_size=8))
def test_every_path_matches_itself(path):
    assert matches(path, path)
    assert matches(f"{path}*", f"{path}x") and matches(f"*{path}", f"x/{path}")


def test_a_bracket_is_a_class_or_itself():
    params = {f"blocks[{i}].weight": jnp.ones((2, 2)) for i in range(2)}
    for where in ("blocks[0].weight", "blocks[0].*", "*[0]*"):
        chosen = jc.masked(jc.magnitude_pruning(0.5, where="*"), where)
        assert list(jax.tree.leaves(chosen.init(params).masks)) and (
            chosen.init(params).masks["blocks[1].weight"] is None
        )
    assert matches("layer[0-3]/w", "layer2/w") and not matches(
        "layer[0-3]/w", "layer4/w"
    )
    assert not matches("blocks[0].weight", "blocks[1].weight")


def test_a_module_with_functions_in_it_is_pruned_and_called():
    model = eqx.nn.MLP(4, 2, 6, 1, key=jax.random.key(0))
    small = jc.compress(jc.magnitude_pruning(0.5), model)
    assert int((small.layers[0].weight == 0).sum()) == 12
    assert small(jnp.ones(4)).shape == (2,)


def test_a_tree_in_which_nothing_is_a_weight_is_refused():
    kernel = jnp.ones((4, 6))
    for params in ([kernel], (kernel,), {"embedding": kernel}, {}):
        with pytest.raises(ValueError, match="selected none of|nothing to select"):
            jc.magnitude_pruning(0.5).init(params)
