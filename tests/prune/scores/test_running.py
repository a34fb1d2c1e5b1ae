# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal, put

import jaxcompress as jc
from jaxcompress import prune
from jaxcompress.prune.schedules import cubic

PARAMS = {
    "a": {"kernel": normal(6, 4)},
    "b": {"kernel": normal(4, 3, seed=1), "bias": None},
}
GRADS = [
    jax.tree.map(lambda p, i=i: put(np.sin(i + 9 * np.asarray(p))), PARAMS)
    for i in range(1, 6)
]


def equal(a, b, rtol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, 1e-7), a, b)


def run(pruner, params=PARAMS, grads=GRADS):
    """Updates without an optimizer, in one program."""
    state = pruner.init(params)
    update = jax.jit(pruner.update)
    for g in grads:
        params, state = update(params, state, grads=g, value=0.0)
    return state


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_averages_and_fisher_equal_their_formulas(decay):
    state = run(
        prune.prune(
            0.5, score=prune.scores.averaged(prune.scores.saliency, decay), every=9
        )
    )
    fisher = prune.scores.fisher(decay)
    squares = run(prune.prune(0.5, score=fisher, every=9))
    for name in "ab":
        w = np.asarray(PARAMS[name]["kernel"], np.float64)
        mean = square = 0.0 * w
        for grads in GRADS:
            g = np.asarray(grads[name]["kernel"], np.float64)
            mean = decay * mean + (1 - decay) * np.abs(w * g)
            square = decay * square + (1 - decay) * g**2
        np.testing.assert_allclose(state.memory[name]["kernel"], mean, rtol=1e-5)
        found = fisher.read(PARAMS, squares.memory)[name]["kernel"]
        np.testing.assert_allclose(found, w**2 * square / 2, rtol=1e-5)
    assert all(m.all() for m in jax.tree.leaves(state.masks))  # not drawn yet


def test_masks_are_drawn_from_the_memory():
    score = prune.scores.averaged(prune.scores.saliency, 0.5)
    state = run(prune.prune(0.5, score=score, every=5))
    for name in "ab":
        memory = np.asarray(state.memory[name]["kernel"])
        pruned = np.argsort(memory.ravel(), kind="stable")[: memory.size // 2]
        assert set(np.flatnonzero(~state.masks[name]["kernel"])) == set(pruned.tolist())


def test_half_floats_are_gathered_in_full_ones():
    halves = jax.tree.map(lambda p: (1e-3 * p).astype(jnp.float16), (PARAMS, GRADS))
    for score in (
        prune.scores.averaged(prune.scores.saliency),
        prune.scores.fisher(),
        prune.scores.movement(0.1),
    ):
        state = run(prune.prune(0.5, score=score), *halves)
        for memory in jax.tree.leaves(state.memory):
            assert memory.dtype == jnp.float32 and not memory.weak_type
            assert jnp.count_nonzero(memory) == memory.size  # squares of 1e-6


TARGET = jax.tree.map(lambda p: jnp.cos(5 * p), PARAMS)


def loss_fn(view, batch=None):
    del batch
    first, second = view["a"]["kernel"], view["b"]["kernel"]
    return jnp.sum(
        (first @ second - TARGET["a"]["kernel"] @ TARGET["b"]["kernel"]) ** 2
    )


def test_movement_is_what_sgd_makes_of_straight_through_scores():
    """With weights that are not trained, scores alone decide (Sanh et al., section 4)."""
    pruner = prune.prune(
        0.5,
        score=prune.scores.movement(),
        budget=prune.budgets.global_,
        pruned=prune.treatments.frozen,
    )

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss_fn)(pruner.apply(params, state))
        return pruner.update(params, state, grads=grads)

    def masks_of(scores):
        flat = np.concatenate([np.asarray(s).ravel() for s in jax.tree.leaves(scores)])
        kept = np.ones(flat.size, np.float32)
        kept[np.argsort(flat, kind="stable")[: flat.size // 2]] = 0
        a, b = np.split(kept, [24])
        return {
            "a": {"kernel": a.reshape(6, 4)},
            "b": {"kernel": b.reshape(4, 3), "bias": None},
        }

    @jax.jit
    def score_grads(scores, masks):
        def through(scores):
            def one(w, m, s):
                return w * (m + s - jax.lax.stop_gradient(s))

            return loss_fn(jax.tree.map(one, PARAMS, masks, scores))

        return jax.grad(through)(scores)

    params, state = PARAMS, pruner.init(PARAMS)
    scores = jax.tree.map(jnp.zeros_like, PARAMS)
    masks = jax.tree.map(jnp.ones_like, PARAMS)
    seen = set()
    for _ in range(6):
        params, state = step(params, state)
        scores = jax.tree.map(jnp.subtract, scores, score_grads(scores, masks))
        equal(state.memory, scores, 1e-5)
        masks = masks_of(state.memory)
        jax.tree.map(np.testing.assert_array_equal, state.masks, masks)
        seen.add(np.concatenate([m.ravel() for m in jax.tree.leaves(masks)]).tobytes())
    assert len(seen) > 1  # weights went and came back
    equal(params, PARAMS)


def test_movement_takes_the_weights_that_the_gradient_was_taken_at():
    pruner = jc.movement_pruning(cubic(0.5, end=4))
    init, step = jc.train_step(loss_fn, optax.sgd(0.05), pruner)
    state = init(PARAMS)
    gradient = jax.jit(jax.grad(loss_fn))
    scores = jax.tree.map(jnp.zeros_like, PARAMS)
    for _ in range(5):
        grads = gradient(pruner.apply(state.params, state.compression))
        scores = jax.tree.map(lambda s, w, g: s - w * g, scores, state.params, grads)
        state, _ = step(state, None)
        equal(state.compression.memory, scores, 1e-4)


def test_movement_prefers_weights_that_leave_zero():
    w = {"kernel": jnp.asarray([[5.0, -5.0, 1.0, -1.0]])}
    grads = {"kernel": jnp.asarray([[1.0, -1.0, -1.0, 1.0]])}  # large ones shrink
    pruner = jc.movement_pruning(0.5)
    _, state = jax.jit(pruner.update)(w, pruner.init(w), grads=grads)
    assert state.masks["kernel"].tolist() == [[False, False, True, True]]
    assert pruner.apply(w, state)["kernel"].tolist() == [[0, 0, 1, -1]]


def test_soft_movement_is_sparser_the_more_it_is_regularized():
    params = {"kernel": PARAMS["a"]["kernel"]}

    def sparsity(regularization):
        pruner = prune.soft_movement_pruning(regularization=regularization)

        def one(carry, _):
            params, state = carry
            view = pruner.apply(params, state)["kernel"]
            grads = {"kernel": 0.1 * (view - TARGET["a"]["kernel"])}
            return pruner.update(params, state, grads=grads), None

        start = params, pruner.init(params)
        (_, state), _ = jax.lax.scan(one, start, length=50)
        return 1 - state.masks["kernel"].mean()

    found = [
        float(s) for s in jax.jit(jax.vmap(sparsity))(jnp.array([1e-4, 0.1, 0.5, 5]))
    ]
    one_left = 1 - 1 / params["kernel"].size
    assert found == sorted(found) and found[0] < found[2]
    np.testing.assert_allclose(found[-1], one_left, rtol=1e-6)


def test_the_push_of_soft_movement_is_the_gradient_of_the_penalty():
    score = prune.scores.movement(0.3)
    memory = jax.tree.map(lambda p: 3 * p, PARAMS)
    pushed = score.add(PARAMS, memory, grads=GRADS[0])
    plain = prune.scores.movement().add(PARAMS, memory, grads=GRADS[0])

    def penalty(m):
        return 0.3 * sum(jax.nn.sigmoid(x).sum() for x in jax.tree.leaves(m))

    pushes = jax.grad(penalty)(memory)
    equal(pushed, jax.tree.map(jnp.subtract, plain, pushes), 1e-5)


@pytest.mark.parametrize(
    "score",
    [
        prune.scores.movement(),
        prune.scores.averaged(prune.scores.saliency),
        prune.scores.fisher(),
    ],
)
def test_what_is_missing_is_said_and_eager_equals_jit(score):
    pruner = prune.prune(0.5, score=score, pruned=prune.treatments.frozen)
    state = pruner.init(PARAMS)
    with pytest.raises(TypeError, match="needs grads=..."):
        pruner.update(PARAMS, state)
    compiled = jax.jit(pruner.update)(PARAMS, state, grads=GRADS[0])
    eager = pruner.update(PARAMS, state, grads=GRADS[0])
    equal(eager, compiled, 1e-6)


def test_what_makes_a_score_is_not_one():
    with pytest.raises(TypeError, match="score must take .* got fisher"):
        prune.scores.averaged(prune.scores.fisher)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("decay", [1.0, -0.1, 99])
def test_a_bad_decay(decay):
    for make in (
        lambda: prune.scores.averaged(prune.scores.snip, decay),
        lambda: prune.scores.fisher(decay),
    ):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\), got"):
            make()
