# SPDX-License-Identifier: Apache-2.0
import functools

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from flax import nnx

from jaxcompress.distill import from_teacher, hint, match, take_layers


class MLP(nn.Module):
    depth: int
    width: int = 4

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = nn.relu(nn.Dense(self.width, name=f"layer_{i}")(x))
        return nn.Dense(3, name="head")(x)


def mlp(depth, seed, width=4):
    x = normal(5, 4, seed=9)
    model = MLP(depth, width)
    params = model.init(jax.random.key(seed), x)["params"]
    _, sown = model.apply({"params": params}, x, capture_intermediates=True)
    return params, sown["intermediates"]


def same_tree(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def teacher():
    return mlp(4, 0)


@pytest.fixture(scope="module")
def student():
    return mlp(2, 1)


def test_intermediates_of_flax_are_matched_by_path(student, teacher):
    pairs = {
        "layer_0/__call__/0": "layer_1/__call__/0",
        "layer_1/__call__/0": "layer_3/__call__/0",
    }
    losses = match(student[1], teacher[1], pairs, hint)
    assert list(losses) == list(pairs)
    for ours, theirs in (("layer_0", "layer_1"), ("layer_1", "layer_3")):
        expected = hint(
            student[1][ours]["__call__"][0], teacher[1][theirs]["__call__"][0]
        )
        np.testing.assert_array_equal(losses[f"{ours}/__call__/0"], expected)


def test_pairs_may_have_projectors_of_their_own():
    features = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 4))}
    teachers = {"x": jnp.zeros((2, 5))}

    @jax.jit
    @jax.grad
    def grads(projectors):
        losses = {
            k: functools.partial(hint, projector=p) for k, p in projectors.items()
        }
        matched = match(features, teachers, {"a": "x", "b": "x"}, losses)
        return sum(loss.sum() for loss in matched.values())

    projectors = {"a": jnp.ones((3, 5)), "b": jnp.ones((4, 5))}
    assert all(g.any() for g in grads(projectors).values())
    with pytest.raises(
        ValueError, match="'b' must be a name in the losses; closest: 'a'"
    ):
        match(features, teachers, {"b": "x"}, {"a": hint})


def test_missing_features_are_named_with_near_ones(student, teacher):
    ours, theirs = {"block_0": jnp.ones(2)}, {"block_0": jnp.ones(2)}
    with pytest.raises(
        ValueError,
        match="'blok_0' must be a name in the student's features; closest: 'bl",
    ):
        match(ours, theirs, {"blok_0": "block_0"}, hint)
    with pytest.raises(
        ValueError,
        match="'layer_9.*the teacher's features; closest: 'layer_.*call__/0'",
    ):
        match(student[1], teacher[1], {"layer_0/__call__/0": "layer_9"}, hint)
    with pytest.raises(ValueError, match="closest: none"):
        match({}, theirs, {"block_0": "block_0"}, hint)
    with pytest.raises(ValueError, match="must not be empty"):
        match(ours, theirs, {}, hint)


def test_layers_start_as_those_of_the_teacher(student, teacher):
    layers = {"layer_0": "layer_1", "layer_1": "layer_3"}
    started = from_teacher(student[0], teacher[0], layers)
    same_tree(started["layer_0"], teacher[0]["layer_1"])
    same_tree(started["layer_1"], teacher[0]["layer_3"])
    same_tree(started["head"], student[0]["head"])
    same_tree(
        jax.jit(lambda s, t: from_teacher(s, t, layers))(student[0], teacher[0]),
        started,
    )


def test_the_whole_tree_and_leaves_are_prefixes_and_the_longest_counts(
    student, teacher
):
    started = from_teacher(
        student[0],
        teacher[0],
        {"": "", "layer_1": "layer_3", "head/bias": "layer_0/bias"}
        | {"head/bias": "head/bias"},
    )
    same_tree(started["layer_0"], teacher[0]["layer_0"])
    same_tree(started["layer_1"], teacher[0]["layer_3"])
    same_tree(started["head"], teacher[0]["head"])


def test_a_prefix_ends_where_a_name_ends():
    student = {"layer_1": jnp.zeros(2), "layer_10": jnp.zeros(2)}
    teacher = {"layer_1": jnp.ones(2), "layer_10": jnp.ones(2)}
    started = from_teacher(student, teacher, {"layer_1": "layer_1"})
    same_tree(started, {"layer_1": jnp.ones(2), "layer_10": jnp.zeros(2)})


def test_leaves_without_counterpart_stay():
    student = {"a": {"w": jnp.zeros(2), "extra": jnp.full(3, 7.0)}}
    started = from_teacher(student, {"b": {"w": jnp.ones(2)}}, {"a": "b"})
    same_tree(started, {"a": {"w": jnp.ones(2), "extra": jnp.full(3, 7.0)}})


def test_dtypes_are_the_students_and_keys_are_copied():
    student = {"w": jnp.zeros(2, jnp.bfloat16), "key": jax.random.key(0)}
    teacher = {"w": jnp.ones(2), "key": jax.random.key(1)}
    started = from_teacher(student, teacher, {"": ""})
    assert started["w"].dtype == jnp.bfloat16 and (started["w"] == 1).all()
    assert (
        jax.random.key_data(started["key"]) == jax.random.key_data(teacher["key"])
    ).all()


def test_copies_may_be_donated():
    teacher = {"w": jnp.ones(4)}
    started = from_teacher({"w": jnp.zeros(4)}, teacher, {"w": "w"})
    taken = take_layers(teacher, range(4))
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(started)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(taken)
    np.testing.assert_array_equal(teacher["w"], 1)


def test_states_of_nnx_have_the_same_paths():
    class Net(nnx.Module):
        def __init__(self, seed):
            self.first = nnx.Linear(2, 2, rngs=nnx.Rngs(seed))
            self.second = nnx.Linear(2, 2, rngs=nnx.Rngs(seed + 10))

    student, teacher = nnx.state(Net(0)), nnx.state(Net(1))
    started = from_teacher(student, teacher, {"first": "second"})
    assert jax.tree.structure(started) == jax.tree.structure(student)
    kernels = [jax.tree.leaves(x)[1] for x in (started["first"], teacher["second"])]
    np.testing.assert_array_equal(*kernels)


def test_what_cannot_be_copied_is_loud(student, teacher):
    with pytest.raises(
        ValueError, match="'layer_7' must be a path prefix in the student; c"
    ):
        from_teacher(student[0], teacher[0], {"layer_7": "layer_0"})
    with pytest.raises(
        ValueError,
        match="'layer0' must be a path prefix in the teacher; closest: 'layer_0'",
    ):
        from_teacher(student[0], teacher[0], {"layer_0": "layer0"})
    with pytest.raises(
        ValueError,
        match=r"equal shapes, got \(4, 4\) for 'layer_1/kernel' of the student and "
        r"\(4, 3\) for 'head/kernel' of the teacher",
    ) as error:
        from_teacher(student[0], teacher[0], {"layer_1/kernel": "head/kernel"})
    assert "Remove the pair" in str(error.value)
    with pytest.raises(
        ValueError,
        match="'a' of the student copied none from 'b'.*'a/w'; teacher: 'b/v'",
    ):
        from_teacher({"a": {"w": jnp.ones(2)}}, {"b": {"v": jnp.ones(2)}}, {"a": "b"})
    with pytest.raises(ValueError, match="must not be empty"):
        from_teacher(student[0], teacher[0], {})


@examples(15)
@hypothesis.given(
    depth=st.integers(1, 5),
    axis=st.integers(-2, 1),
    data=st.data(),
    keep=st.integers(1, 6),
)
def test_taken_layers_are_those_of_numpy(depth, axis, data, keep):
    index = st.integers(-depth, depth - 1)
    indices = data.draw(st.lists(index, min_size=keep, max_size=keep))
    x = np.arange(depth * 3).reshape((depth, 3) if axis in (0, -2) else (3, depth))
    got = take_layers({"w": jnp.asarray(x)}, indices, axis)["w"]
    np.testing.assert_array_equal(got, np.take(x, indices, axis))


def test_a_student_of_scanned_layers_starts_as_some_of_them():
    class Scanned(nn.Module):
        depth: int

        @nn.compact
        def __call__(self, x):
            def body(layer, x, _):
                return nn.relu(layer(x)), None

            scan = nn.scan(
                body,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.depth,
            )
            return scan(nn.Dense(4, name="layers"), x, None)[0]

    x = jnp.ones((1, 4))
    student, teacher = (
        Scanned(depth).init(jax.random.key(depth), x)["params"] for depth in (2, 5)
    )
    kept = {"layers": take_layers(teacher["layers"], [1, 4])}
    started = from_teacher(student, kept, {"layers": "layers"})
    np.testing.assert_array_equal(
        started["layers"]["kernel"], teacher["layers"]["kernel"][jnp.array([1, 4])]
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(a.shape, b.shape), started, student
    )
    with pytest.raises(ValueError, match=r"\(2, 4\)|\(2, 4, 4\)"):
        from_teacher(student, teacher, {"layers": "layers"})


@pytest.mark.parametrize(
    "tree, indices, axis, text",
    [
        ({"w": jnp.ones((3, 2))}, [3], 0, "indices must be in .-3, 3., got 3"),
        ({"w": jnp.ones((3, 2))}, [-4], 0, "indices must be in .-3, 3., got -4"),
        (
            {"w": jnp.ones((3, 2))},
            [],
            0,
            r"at least one index.* indices=\[\] and 1 leaves",
        ),
        ({}, [0], 0, "at least one .* and 0 leaves"),
        (
            {"w": jnp.ones((3, 2)), "b": jnp.ones(3)},
            [0],
            1,
            r"must have axis 1, got 'b' of shape \(3,\)",
        ),
        (
            {"w": jnp.ones((3, 2)), "b": jnp.ones(2)},
            [0],
            0,
            "number of layers .* got 2 for 'b' and 3 for 'w'. Pass",
        ),
    ],
)
def test_layers_that_are_not_there_are_refused(tree, indices, axis, text):
    with pytest.raises(ValueError, match=text):
        take_layers(tree, indices, axis)
