# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put

import jaxcompress as jc
from jaxcompress.prune import fisher_pruning
from jaxcompress.prune.scores import fisher_blocks, fisher_diagonal
from jaxcompress.prune.scores._fisher import from_weight_blocks, weight_blocks
from research.data import load


def forward(params, x):
    for i, name in enumerate(sorted(params)):
        x = x if i == 0 else jax.nn.relu(x)
        x = x @ params[name]["kernel"] + params[name]["bias"][None]
    return x


def cross_entropy(params, batch):
    logits = forward(params, batch["x"])
    labels = batch["y"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def network(seed, widths):
    """Random parameters, drawn without a compilation."""
    rng = np.random.default_rng(seed)
    sizes = list(zip(widths, widths[1:], strict=False))
    return {
        f"Dense_{i}": {
            "kernel": jnp.asarray(
                rng.normal(size=size) * (2 / size[0]) ** 0.5, jnp.float32
            ),
            "bias": jnp.zeros(size[1]),
        }
        for i, size in enumerate(sizes)
    }


def small():
    params, rng = network(0, (5, 4, 3)), np.random.default_rng(1)
    x = put(rng.normal(size=(7, 5)))
    batch = {"x": x, "y": jnp.asarray(rng.integers(0, 3, 7))}
    return params, batch


def per_example(params, batch):
    """Gradients one example after another, float64 (examples, *leaf)."""
    rows = [jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for i in range(7)]
    grad = jax.jit(jax.grad(cross_entropy))
    grads = [grad(params, row) for row in rows]
    return jax.tree.map(lambda *g: np.stack(g).astype(np.float64), *grads)


@pytest.mark.parametrize(
    ("path", "shape"),
    [("kernel", (5, 4)), ("weight", (4, 5)), ("kernel", (3, 2, 5, 4)), ("bias", (7,))],
)
@pytest.mark.parametrize("block", [1, 3, 64])
def test_blocks_hold_consecutive_weights_of_an_output(path, shape, block):
    leaf = jnp.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    blocks = weight_blocks(path, leaf, block)
    assert blocks.shape == (-(-leaf.size // block), block)
    np.testing.assert_array_equal(from_weight_blocks(path, blocks, leaf), leaf)
    first = leaf if path == "weight" else jnp.moveaxis(leaf, -1, 0)
    np.testing.assert_array_equal(blocks.ravel()[: leaf.size], first.ravel())


def test_blocks_are_sums_over_examples():
    params, batch = small()
    found = fisher_blocks(cross_entropy, params, batch, 8, chunk=3)
    grads = per_example(params, batch)
    for name in params:
        assert found[name]["bias"] is None
        fisher = found[name]["kernel"]
        assert fisher.count.dtype == jnp.uint32 and fisher.count == 7
        rows = np.stack([weight_blocks("kernel", g, 8) for g in grads[name]["kernel"]])
        expected = np.einsum("ebi,ebj->bij", rows, rows)
        np.testing.assert_allclose(fisher.blocks, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(fisher.mean, expected / 7, rtol=1e-4, atol=1e-6)


def test_sums_of_two_batches_are_those_of_both():
    params, batch = small()
    blocks = jax.jit(lambda batch: fisher_blocks(cross_entropy, params, batch, 4))
    parts = [jax.tree.map(lambda x, s=s: x[s], batch) for s in np.split(range(7), [3])]
    together = jax.tree.map(jnp.add, *map(blocks, parts))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        together,
        blocks(batch),
    )


def test_the_diagonal_is_the_blocks_of_one():
    params, batch = small()
    found = fisher_diagonal(cross_entropy, params, batch, where="*", chunk=4)
    grads = per_example(params, batch)
    jax.tree.map(
        lambda x, g: np.testing.assert_allclose(
            x, (g**2).mean(0), rtol=1e-4, atol=1e-7
        ),
        found,
        grads,
    )
    ones = fisher_blocks(cross_entropy, params, batch, 1)
    for name in params:
        fisher, kernel = ones[name]["kernel"], params[name]["kernel"]
        diagonal = from_weight_blocks("kernel", fisher.mean, kernel)
        np.testing.assert_allclose(
            diagonal, found[name]["kernel"], rtol=1e-4, atol=1e-7
        )


def test_pruning_is_that_of_the_papers():
    """Scores, one ranking, and the joint update of WoodFisher, in float64."""
    params, batch = small()
    fisher = fisher_blocks(cross_entropy, params, batch, 6)
    pruner = fisher_pruning(0.5, damping=0.1)
    pruned, _ = jax.jit(pruner.update)(params, pruner.init(params), fisher=fisher)
    blocks = {
        name: np.asarray(fisher[name]["kernel"].mean, np.float64) for name in params
    }
    diagonals = np.concatenate(
        [np.diagonal(f, 0, 1, 2).ravel() for f in blocks.values()]
    )
    added = 0.1 * diagonals[diagonals > 0].mean()
    scores, inverses = {}, {}
    for name, f in blocks.items():
        inverses[name] = np.linalg.inv(f + added * np.eye(6))
        w = np.asarray(weight_blocks("kernel", params[name]["kernel"], 6), np.float64)
        scores[name] = w, w**2 / np.diagonal(inverses[name], 0, 1, 2)
    sizes = {name: layer["kernel"].size for name, layer in params.items()}
    real = [s.ravel()[: sizes[name]] for name, (_, s) in scores.items()]
    threshold = np.sort(np.concatenate(real))[16 - 1]
    for name, (w, score) in scores.items():
        for block in range(len(w)):
            drop, inverse = score[block] <= threshold, inverses[name][block]
            force = np.linalg.solve(inverse[np.ix_(drop, drop)], w[block, drop])
            w[block] = np.where(drop, 0, w[block] - inverse[:, drop] @ force)
        found = weight_blocks("kernel", pruned[name]["kernel"], 6)
        np.testing.assert_allclose(found, w, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(pruned[name]["bias"], params[name]["bias"])
    kernels = [layer["kernel"] for layer in pruned.values()]
    assert sum(int((kernel == 0).sum()) for kernel in kernels) == 16


def test_nonsense_is_refused():
    params, batch = small()
    with pytest.raises(
        ValueError, match="block and chunk must be at least 1, got block=0, chunk=32"
    ):
        fisher_blocks(cross_entropy, params, batch, 0)
    with pytest.raises(ValueError, match="selected none of 4 leaves"):
        fisher_diagonal(cross_entropy, params, batch, where="*/kernal")


# The ordering of the papers, on real data: 64-40-20-10 on digits, pruned by 80 % and not
# trained on. The damping of K-FAC was chosen on the validation split.
SEEDS, EPOCHS, SPARSITY = 3, 30, 0.8


@functools.cache
def trained():
    """Networks of several seeds, stacked, and the training split."""
    train = load("digits").train
    x, y = jnp.asarray(train.x.reshape(len(train), -1)), jnp.asarray(train.y)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, EPOCHS * 19))

    def step(carry, rows):
        params, state = carry
        grads = jax.grad(cross_entropy)(params, {"x": x[rows], "y": y[rows]})
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    def fit(params, rows):
        return jax.lax.scan(step, (params, optimizer.init(params)), rows)[0][0]

    def rows(seed):
        rng = np.random.default_rng(seed)
        order = [rng.permutation(len(x))[: 19 * 64] for _ in range(EPOCHS)]
        return jnp.asarray(np.concatenate(order).reshape(-1, 64))

    starts = [network(seed, (64, 40, 20, 10)) for seed in range(SEEDS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    orders = jnp.stack([rows(seed) for seed in range(SEEDS)])
    return jax.jit(jax.vmap(fit))(stacked, orders), {"x": x, "y": y}


def accuracies(networks):
    """Per cent on the test split, one a network."""
    test = load("digits").test
    x = jnp.asarray(test.x.reshape(len(test), -1))
    right = jax.vmap(lambda p: forward(p, x).argmax(-1) == jnp.asarray(test.y))(
        networks
    )
    return 100 * np.asarray(right).mean(1)


def kfac(params, inputs, per_example, damping, joint):
    """K-FAC: the Fisher matrix of a layer is A (x) G; float64, in numpy.

    Args:
      params: a network.
      inputs: ``observe``'s Gram matrices of its layers.
      per_example: gradients of the biases, which are those of the outputs.
      damping: of both factors, relative to their mean diagonals.
      joint: whether the pruned weights are made up for together, or each as if it were
        the only one.
    """
    scores, factors, pruned = {}, {}, {}
    for name, layer in params.items():
        g = np.asarray(per_example[name]["bias"], np.float64)
        gram = np.asarray(inputs[name]["kernel"].gram, np.float64) / len(g)
        a, g = gram, g.T @ g / len(g)
        a, g = (x + damping * np.trace(x) / len(x) * np.eye(len(x)) for x in (a, g))
        both = np.linalg.inv(a), np.linalg.inv(g)
        factors[name] = a, g, *both
        w = np.asarray(layer["kernel"], np.float64)
        scores[name] = w**2 / np.outer(*map(np.diag, both))
    threshold = lowest(scores)
    for name, layer in params.items():
        w, drop = np.asarray(layer["kernel"], np.float64), scores[name] <= threshold
        a, g, a_inverse, g_inverse = factors[name]
        if joint:
            i, j = np.nonzero(~drop)
            push = (a @ np.where(drop, w, 0) @ g)[i, j]
            new = np.zeros_like(w)
            fisher = a[i][:, i] * g[j][:, j]
            new[i, j] = w[i, j] + np.linalg.solve(fisher, push)
        else:
            alone = np.outer(np.diag(a_inverse), np.diag(g_inverse))
            step = a_inverse @ np.where(drop, w / alone, 0) @ g_inverse
            new = np.where(drop, 0, w - step)
        pruned[name] = {"kernel": jnp.asarray(new, jnp.float32), "bias": layer["bias"]}
    return pruned


def by_diagonal(params, per_example):
    """Optimal Brain Damage: nothing makes up for what is removed; in numpy."""
    kernels = {name: np.asarray(layer["kernel"]) for name, layer in params.items()}
    scores = {
        name: w**2 * (np.asarray(per_example[name]["kernel"]) ** 2).mean(0)
        for name, w in kernels.items()
    }
    threshold = lowest(scores)
    return {
        name: {
            "kernel": jnp.asarray(np.where(scores[name] <= threshold, 0, w)),
            "bias": params[name]["bias"],
        }
        for name, w in kernels.items()
    }


def lowest(scores):
    """The largest score that is pruned."""
    every = np.concatenate([s.ravel() for s in scores.values()])
    return np.sort(every)[round(SPARSITY * len(every)) - 1]


def by_blocks(networks, batch):
    def prune(params):
        fisher = fisher_blocks(cross_entropy, params, batch, 64, chunk=128)
        return jc.compress(fisher_pruning(SPARSITY), params, fisher=fisher)

    return jax.jit(jax.vmap(prune))(networks)


@pytest.mark.slow
def test_the_more_of_the_curvature_is_known_the_better():
    networks, batch = trained()

    @jax.jit
    @jax.vmap
    def prepare(params):
        stats = jc.observe(forward, params, [batch["x"]], jc.program.statistics.gram())
        one = jax.tree.map(lambda x: x[:, None], batch)
        return stats, jax.vmap(jax.grad(cross_entropy), (None, 0))(params, one)

    known = (networks, *prepare(networks))

    def accuracy(prune):
        each = [jax.tree.map(lambda x, i=i: x[i], known) for i in range(SEEDS)]
        pruned = [prune(*network) for network in each]
        return accuracies(jax.tree.map(lambda *x: jnp.stack(x), *pruned)).mean()

    dense = accuracies(networks).mean()
    blocks = accuracies(by_blocks(networks, batch)).mean()
    diagonal = accuracy(lambda params, _, grads: by_diagonal(params, grads))
    alone = accuracy(functools.partial(kfac, damping=0.1, joint=False))
    joint = accuracy(functools.partial(kfac, damping=0.1, joint=True))
    # Published, at 95 % of a larger network: 19.88 by the diagonal, 81.26 by K-FAC, 84.18
    # by blocks, 93.97 dense. K-FAC here with an update for each pruned weight as if it
    # were the only one; whether it beats the diagonal then depends on the seeds.
    assert diagonal + 10 < blocks < dense
    assert alone + 5 < blocks
    # With all pruned weights made up for together, as the blocks are, K-FAC is no worse
    # than they are: it knows a whole layer, they know 64 weights of one output.
    assert diagonal + 10 < joint < dense
    assert abs(joint - blocks) < 8
