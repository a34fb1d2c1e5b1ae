# SPDX-License-Identifier: Apache-2.0
import functools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples

import jaxcompress as jc
from jaxcompress.prune.patterns import (
    Blocks,
    NOfM,
    PerOutput,
    Slices,
    by_path,
    fits,
    left_out,
    unstructured,
)

# pattern, path, shape, extents of a group
GROUPS = [
    (Blocks((4, 4)), "kernel", (9, 9), (4, 4)),
    (Blocks((4, 4)), "kernel", (8, 12), (4, 4)),
    (Blocks((9, 4)), "kernel", (1, 6), (1, 4)),
    (Blocks((None, 2)), "kernel", (5, 7), (5, 2)),
    (Blocks((2,)), "bias", (7,), (2,)),
    (Blocks((2, 3, 2)), "stack", (3, 4, 5), (2, 3, 2)),
    (Blocks((..., 4, 4)), "kernel", (2, 3, 5, 8), (1, 1, 4, 4)),
    (Blocks((4, ..., None)), "kernel", (6, 1, 3, 2), (4, 1, 1, 2)),
    (Slices(), "layers/0/weight", (6, 5), (1, 5)),
    (
        Slices(axes={"Conv*": jc.Axes(outputs=-1)}),
        "Conv_0/kernel",
        (3, 3, 2, 5),
        (3, 3, 2, 1),
    ),
    (Slices(axes=jc.Axes(outputs=(0, -1))), "stack", (2, 4, 3), (1, 4, 1)),
]
# pattern, path, shape, output axes
OUTPUTS = [
    (PerOutput(), "kernel", (7, 5), (1,)),
    (PerOutput(), "weight", (4, 6), (0,)),
    (PerOutput(axes=jc.Axes(outputs=-1)), "kernel", (3, 1, 2, 4), (3,)),
    (PerOutput(axes=jc.Axes(outputs=(0, -1))), "stack", (2, 5, 3), (0, 2)),
]


def drawn(shape, seed) -> Any:
    """Scores that often tie and whose sums are exact."""
    numbers = np.random.default_rng(seed).integers(0, 12, shape)
    return np.asarray(numbers / 8, np.float32)


@functools.cache
def every_count(pattern_index):
    """Masks for all counts of a case, in one program."""
    pattern, path, shape, _ = (GROUPS + OUTPUTS)[pattern_index]
    counts = jnp.arange(np.prod(shape) + 1, dtype=jnp.uint32)
    program = jax.jit(jax.vmap(lambda s, c: pattern(path, s, c), in_axes=(None, 0)))
    return lambda scores: np.asarray(program(scores, counts))


def group_ids(shape, extents):
    """Number of the group of each weight, row-major, and how many there are."""
    tiles = [-(-size // b) for size, b in zip(shape, extents, strict=True)]
    index = np.indices(shape)
    along = [i // b for i, b in zip(index, extents, strict=True)]
    return np.ravel_multi_index(along, tiles), int(np.prod(tiles))


def group_oracle(scores, extents, count):
    ids, groups = group_ids(scores.shape, extents)
    sums = np.bincount(ids.ravel(), scores.ravel()).astype(np.float32)
    means = sums * (np.float32(1) / np.bincount(ids.ravel()).astype(np.float32))
    if scores.size % groups:
        number = int(np.round(np.float32(count) * np.float32(groups / scores.size)))
    else:
        number = int(np.floor(count / (scores.size // groups) + 0.5))
    pruned = np.argsort(means, kind="stable")[: min(number, groups - 1)]
    return ~np.isin(ids, pruned)


def output_oracle(scores, axes, count):
    rest = [a for a in range(scores.ndim) if a not in axes]
    rows = scores.transpose(*axes, *rest)
    flat = rows.reshape(-1, int(np.prod([scores.shape[a] for a in rest])))
    number = min(int(np.floor(count / len(flat) + 0.5)), flat.shape[1] - 1)
    keep = np.ones(flat.shape, bool)
    first = np.argsort(flat, axis=1, kind="stable")[:, :number]
    np.put_along_axis(keep, first, False, axis=1)
    return keep.reshape(rows.shape).transpose(np.argsort([*axes, *rest]))


@pytest.mark.parametrize("index", range(len(GROUPS) + len(OUTPUTS)))
@examples(5)
@hypothesis.given(seed=st.integers(0, 9999))
def test_masks_equal_the_oracle_for_every_count_and_are_monotone(index, seed):
    _, _, shape, how = (GROUPS + OUTPUTS)[index]
    oracle = group_oracle if index < len(GROUPS) else output_oracle
    scores = drawn(shape, seed)
    masks = every_count(index)(scores)
    for count in range(scores.size + 1):
        np.testing.assert_array_equal(masks[count], oracle(scores, how, count))
    assert masks[0].all() and masks[-1].any()
    assert not (masks[1:] & ~masks[:-1]).any()


@pytest.mark.parametrize("index", [0, 9, len(GROUPS) + 2])
def test_alone_equals_vmapped_and_eager_equals_jit(index):
    pattern, path, shape, _ = (GROUPS + OUTPUTS)[index]
    scores = drawn(shape, 1)
    masks = every_count(index)(scores)
    for count in (3, scores.size // 2):
        np.testing.assert_array_equal(pattern(path, scores, count), masks[count])
        by_int = pattern(path, jnp.asarray(scores), jnp.int32(count))
        np.testing.assert_array_equal(by_int, masks[count])


def test_nine_blocks_of_nine_by_nine():
    # The last weight is a block of its own, whose mean is the lowest.
    scores = jnp.full((9, 9), 2.0).at[8, 8].set(1)
    keep = Blocks((4, 4))("kernel", scores, jnp.uint32(9))
    assert keep.shape == (9, 9) and not keep[8, 8] and int(keep.sum()) == 80


def test_half_floats_are_summed_wide():
    ones = jnp.ones((4096, 2), jnp.float16)
    scores = ones.at[0, 0].set(1.5).astype(jnp.bfloat16)
    keep = Slices()("kernel", scores, jnp.uint32(4096))
    assert keep[:, 0].all() and not keep[:, 1].any()
    assert jnp.isfinite(Slices().spread("kernel", 60000 * ones)).all()


@pytest.mark.parametrize("index", [0, 3, 8, 10])
def test_spread_gives_each_weight_the_mean_of_its_group(index):
    pattern, path, shape, extents = GROUPS[index]
    scores = drawn(shape, 5)
    ids, _ = group_ids(shape, extents)
    means = np.bincount(ids.ravel(), scores.ravel()) / np.bincount(ids.ravel())
    spread = pattern.spread(path, scores)
    assert spread.dtype == jnp.float32
    np.testing.assert_allclose(spread, means[ids], rtol=1e-6)
    count = jnp.uint32(scores.size // 2)  # budgets and patterns may both see it
    masks = pattern(path, scores, count), pattern(path, spread, count)
    np.testing.assert_array_equal(*masks)


def test_sharded_scores_have_the_same_masks():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(None, "x")
    columns = jax.sharding.NamedSharding(mesh, spec)
    scores = drawn((32, 64), 0)

    @jax.jit
    def masks(scores):
        patterns = Slices(), Blocks((4, 4)), PerOutput()
        return [pattern("kernel", scores, jnp.uint32(999)) for pattern in patterns]

    sharded = jax.block_until_ready(masks(jax.device_put(scores, columns)))
    np.testing.assert_array_equal(sharded[0], group_oracle(scores, (32, 1), 999))
    np.testing.assert_array_equal(sharded[1], group_oracle(scores, (4, 4), 999))
    np.testing.assert_array_equal(sharded[2], output_oracle(scores, (1,), 999))


def test_the_first_glob_decides_and_a_path_without_one_is_named():
    pattern = by_path({"a/*": NOfM(2, 4), "*/kernel": Slices(axes=jc.Axes(outputs=-1))})
    scores = drawn((8, 4), 0)
    count = jnp.uint32(16)
    expected = NOfM(2, 4)("a/kernel", scores, count)
    np.testing.assert_array_equal(pattern("a/kernel", scores, count), expected)
    assert pattern("b/kernel", scores, count).all(0).sum() == 2
    assert pattern.max_sparsity == 0.5
    assert pattern.spread("b/kernel", scores)[0, 0] == scores[:, 0].mean()
    with pytest.raises(
        ValueError, match="'c/w': no glob of by_path matches this leaf .'a/"
    ):
        pattern("c/w", scores, count)
    with pytest.raises(ValueError, match="at least one .*, got an empty dict"):
        by_path({})


def test_leaves_that_do_not_fit_are_left_out_on_purpose():
    params = {
        "a": {"kernel": jnp.ones((8, 3)), "bias": jnp.ones(3)},
        "b": {"kernel": jnp.ones((6, 3))},
        "c": {"kernel": jnp.ones((4, 1))},
    }

    def chosen(pattern):
        where = fits(pattern)
        kept = [n for n in params if where(f"{n}/kernel", params[n]["kernel"])]
        assert not where("a/bias", params["a"]["bias"])
        return "".join(kept), left_out(pattern, params)

    reason = "axis 0 of (6, 3) is not a multiple of 4."
    assert chosen(NOfM(2, 4)) == ("ac", {"b/kernel": reason})
    assert chosen(unstructured) == ("abc", {})
    assert chosen(Slices())[0] == "ab"
    assert chosen(Slices())[1] == {
        "c/kernel": "(4, 1) is a single slice, and at least one is always kept."
    }
    assert chosen(PerOutput()) == ("abc", {})
    assert chosen(Blocks((4, 4)))[0] == "ab"
    mixed = by_path({"b/*": NOfM(2, 4), "c/*": unstructured})
    assert chosen(mixed)[0] == "c"
    assert chosen(mixed)[1]["b/kernel"] == reason
    assert "no glob" in chosen(mixed)[1]["a/kernel"]
    pruner = jc.magnitude_pruning(0.5, pattern=NOfM(2, 4), where=fits(NOfM(2, 4)))
    assert jax.eval_shape(pruner.init, params).masks["b"]["kernel"] is None


@pytest.mark.parametrize(
    ("pattern", "path", "shape", "message"),
    [
        (Blocks((4, 4)), "kernel", (3, 3, 8, 8), "one extent per axis of .3, 3, 8, 8"),
        (Blocks((4, 4)), "bias", (8,), r"rank 1, got \(4, 4\)"),
        (
            Blocks((..., 4, 4)),
            "bias",
            (8,),
            r"one extent per axis .* got \(\.\.\., 4, 4\)",
        ),
        (
            Blocks((9, None)),
            "kernel",
            (4, 5),
            "'kernel': .4, 5. is a single block.*fits",
        ),
        (
            Slices(),
            "kernel",
            (4, 1),
            "is a single slice, and at least one is always kept",
        ),
        (Slices(), "kernel", (3, 3, 2, 4), "Pass axes="),
        (Slices(axes=jc.Axes(outputs=4)), "kernel", (3, 2), "there is no axis 4"),
        (Slices(), "kernel", (0, 1), "is a single slice"),
        (Blocks((2, 2)), "kernel", (0, 3), "is a single block"),
        (PerOutput(), "kernel", (4, 0), "at least two weights"),
        (
            PerOutput(),
            "kernel",
            (1, 5),
            "each output of .1, 5. must have at least two weights",
        ),
        (PerOutput(), "kernel", (3, 3, 2, 4), "Pass axes="),
    ],
)
def test_what_cannot_be_pruned_is_refused_by_name(pattern, path, shape, message):
    with pytest.raises(ValueError, match=message):
        pattern(path, np.ones(shape, np.float32), jnp.uint32(1))


def test_an_ambiguous_axis_is_no_reason_to_leave_a_leaf_out():
    with pytest.raises(ValueError, match="'kernel' has shape .3, 3, 2, 4.*Pass axes="):
        fits(NOfM(2, 4))("kernel", jnp.ones((3, 3, 2, 4)))
    with pytest.raises(ValueError, match="Pass axes="):
        left_out(Slices(), {"kernel": jnp.ones((3, 3, 2, 4))})


@pytest.mark.parametrize("shape", [(), (0, 4), (4, -1), (2.5, 1), (True, ..., ...)])
def test_bad_blocks(shape):
    with pytest.raises(ValueError, match="extents must be positive|at most one `...`"):
        Blocks(shape)
