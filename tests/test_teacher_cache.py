# SPDX-License-Identifier: Apache-2.0
"""A teacher's answers on disk: what is asked for comes back, or an error that says why."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import distill, teacher_cache
from jaxcompress.teacher_cache import CacheError, Key, fingerprint, read, write

PARAMS = {
    "kernel": jax.random.normal(jax.random.key(0), (4, 10)),
    "bias": jnp.zeros(10),
}
KEY = Key(teacher=fingerprint(PARAMS), classes=10, k=3, temperature=2.0, inputs="as is")


def logits(ids, seed=0):
    x = jax.random.normal(jax.random.fold_in(jax.random.key(1), seed), (100, 4))
    return (x @ PARAMS["kernel"])[jnp.asarray(ids)]


def filled(folder, *batches, shard=4):
    with write(folder, KEY, shard=shard) as cache:
        for ids in batches:
            cache.add(ids, logits(ids))


def test_answers_come_back_in_the_order_they_are_asked_for(tmp_path):
    filled(tmp_path, [5, 3, 8], [1, 9, 0, 7], [2])
    answers = read(tmp_path, KEY)
    assert len(answers) == 8
    asked = [9, 3, 3, 0, 5]
    want = distill.top_k(logits(asked), 3, temperature=2.0)
    for got, expected in zip(answers(asked), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    loss = distill.top_k_kl(logits(asked), answers(asked))
    np.testing.assert_allclose(loss, 0, atol=1e-5)


def test_each_seed_of_an_augmentation_has_an_answer_of_its_own(tmp_path):
    with write(tmp_path, KEY) as cache:
        cache.add(
            [1, 1], jnp.concatenate([logits([1], 0), logits([1], 7)]), seeds=[0, 7]
        )
    answers = read(tmp_path, KEY)
    for seed in (0, 7):
        want = distill.top_k(logits([1], seed), 3, temperature=2.0)
        np.testing.assert_array_equal(answers([1], seeds=seed).indices, want.indices)
    with pytest.raises(CacheError, match="no answer for example 1 with seed 2"):
        answers([1], seeds=2)


def test_another_input_than_the_teacher_had_is_refused(tmp_path):
    ids, x = [3, 1], np.arange(8.0, dtype=np.float32).reshape(2, 4)
    with write(tmp_path / "with", KEY, shard=1) as cache:
        cache.add(ids, logits(ids), inputs=x)
    answers = read(tmp_path / "with", KEY)
    want = answers([1, 3])
    np.testing.assert_array_equal(answers([1, 3], inputs=x[::-1]).indices, want.indices)
    other = x.copy()
    other[1, 2] += 1e-6
    with pytest.raises(CacheError, match="example 1 with seed 0 differs .* 0 others"):
        answers(ids, inputs=other)
    with pytest.raises(CacheError, match="same augmentation, seeds and dtype"):
        answers(ids, inputs=x.astype(np.float64))
    with pytest.raises(ValueError, match="each of the 2 ids, got shape"):
        answers(ids, inputs=x[:1])
    with write(tmp_path / "with", KEY) as cache:
        with pytest.raises(ValueError, match="each of the 1 ids, got shape"):
            cache.add([7], logits([7]), inputs=x)
        assert (7, 0) not in cache
    with write(tmp_path / "without", KEY) as cache:
        cache.add(ids, logits(ids))
    with pytest.raises(CacheError, match="written without inputs="):
        read(tmp_path / "without", KEY)(ids, inputs=x)


def test_pairs_of_far_ids_and_seeds_are_kept_apart(tmp_path):
    ids = [2**62, -1, 5, 5, 0, 2**62]
    seeds = [-(2**62), 3, 2**62, 3, 0, 3]
    with write(tmp_path, KEY, shard=2) as cache:
        cache.add(ids, logits(range(6)), seeds=seeds)
    answers = read(tmp_path, KEY)
    for i in (5, 0, 3, 1, 4, 2):
        want = distill.top_k(logits([i]), 3, temperature=2.0)
        got = answers([ids[i]], seeds=[seeds[i]])
        np.testing.assert_array_equal(got.log_probs, want.log_probs)
    for pair in ((5, 0), (0, 3), (4, 3), (5, 4)):
        with pytest.raises(CacheError, match=f"example {pair[0]} with seed {pair[1]}"):
            answers([pair[0]], seeds=pair[1])


def test_a_run_goes_on_where_another_stopped(tmp_path):
    filled(tmp_path, [0, 1, 2])
    with write(tmp_path, KEY) as cache:
        assert (1, 0) in cache and (3, 0) not in cache
        cache.add([2, 3], 100 + logits([2, 3]))  # what is there is not replaced
    assert len(read(tmp_path, KEY)) == 4
    want = distill.top_k(logits([2]), 3, temperature=2.0)
    np.testing.assert_array_equal(read(tmp_path, KEY)([2]).log_probs, want.log_probs)


def test_a_run_that_is_killed_loses_the_last_shard_at_most(tmp_path):
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_teacher_cache import KEY, logits, write
with write({str(tmp_path)!r}, KEY, shard=4) as cache:
    cache.add(list(range(10)), logits(list(range(10))))
    open({str(tmp_path / ".000002.safetensors.0.tmp")!r}, "wb").write(b"half")
    os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == 9
    assert len(read(tmp_path, KEY)) == 8
    filled(tmp_path, list(range(10)))
    assert len(read(tmp_path, KEY)) == 10 and not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("teacher", fingerprint({**PARAMS, "bias": jnp.ones(10)})),
        ("k", 4),
        ("temperature", 1.0),
        ("inputs", "flipped"),
        ("classes", 11),
    ],
)
def test_the_cache_of_something_else_is_refused_with_the_reason(tmp_path, field, value):
    filled(tmp_path, [0])
    other = dataclasses.replace(KEY, **{field: value})
    for use in (
        lambda: read(tmp_path, other),
        lambda: write(tmp_path, other).__enter__(),
    ):
        with pytest.raises(
            CacheError, match=f"{field} is .* in the cache, but the key has"
        ):
            use()


def test_a_fingerprint_is_of_paths_shapes_dtypes_and_bits():
    a = {"w": jnp.zeros((2, 3))}
    others = [
        {"v": a["w"]},
        {"w": a["w"].reshape(3, 2)},
        {"w": a["w"].astype(jnp.bfloat16)},
        {"w": a["w"].at[0, 0].set(-0.0)},
    ]
    prints = [fingerprint(x) for x in (a, *others)]
    assert len(set(prints)) == 5 and fingerprint({"w": jnp.zeros((2, 3))}) == prints[0]


def test_what_is_no_cache_is_refused(tmp_path):
    with pytest.raises(CacheError, match="is not a teacher cache"):
        read(tmp_path, KEY)
    with write(tmp_path, KEY):
        pass
    with pytest.raises(CacheError, match="holds no answers yet"):
        read(tmp_path, KEY)
    filled(tmp_path, [0, 1])
    (shard,) = tmp_path.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(CacheError, match="is damaged. Delete it"):
        read(tmp_path, KEY)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CacheError, match="manifest.json is damaged"):
        read(tmp_path, KEY)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(CacheError, match="must be empty or a teacher cache"):
        write(other, KEY).__enter__()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cache: cache.add([0, 1], logits([0])), "logits must have shape"),
        (lambda cache: cache.add([0.5], logits([0])), "ids must be integers"),
        (
            lambda cache: cache.add([0], jnp.full((1, 10), jnp.nan)),
            "logits contain NaN",
        ),
    ],
)
def test_bad_answers_are_refused(tmp_path, call, message):
    with write(tmp_path, KEY) as cache, pytest.raises(ValueError, match=message):
        call(cache)


def test_bad_keys():
    with pytest.raises(ValueError, match="k must be between 1 and classes=10, got 11"):
        dataclasses.replace(KEY, k=11)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        dataclasses.replace(KEY, temperature=0)
    with pytest.raises(ValueError, match="shard must be at least 1 .*, got 0"):
        teacher_cache.write("anywhere", KEY, shard=0).__enter__()


def test_a_damaged_shard_is_named_and_only_its_answers_are_computed_again(tmp_path):
    filled(tmp_path, list(range(20)))
    before = set(tmp_path.glob("*.safetensors"))
    damaged = sorted(before)[2]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1  # a bit of an answer: no other number looks wrong
    damaged.write_bytes(content)
    for use in (read, lambda *args: write(*args).__enter__()):
        with pytest.raises(CacheError, match=f"{damaged.name} is damaged. Delete it"):
            use(tmp_path, KEY)
    damaged.unlink()
    for count in (4, 0):  # no resumed run overwrites another shard
        with write(tmp_path, KEY, shard=4) as cache:
            missing = [i for i in range(20) if (i, 0) not in cache]
            assert len(missing) == count
            if missing:
                cache.add(missing, logits(missing))
    assert set(tmp_path.glob("*.safetensors")) == before
    answers = read(tmp_path, KEY)
    want = distill.top_k(logits(range(20)), 3, temperature=2.0)
    for got, expected in zip(answers(range(20)), want, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    with write(tmp_path, KEY, shard=2) as one, write(tmp_path, KEY, shard=2) as two:
        one.add([0, 1, 2, 3], logits([0, 1, 2, 3]))
        (tmp_path / ".unfinished.safetensors.0.tmp").write_bytes(b"half")
        with write(tmp_path, KEY, shard=2) as three:  # removes nothing of theirs
            three.add([8], logits([8]))
        assert (tmp_path / ".unfinished.safetensors.0.tmp").exists()
        two.add([3, 4, 5, 6], logits([3, 4, 5, 6]))
        one.add([7], logits([7]))
    answers = read(tmp_path, KEY)
    assert len(answers) == 9
    want = distill.top_k(logits(range(9)), 3, temperature=2.0)
    np.testing.assert_array_equal(answers(range(9)).log_probs, want.log_probs)
    filled(tmp_path)  # the last one cleans up
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_shard_of_another_key_is_refused_even_without_the_manifest(tmp_path):
    filled(tmp_path, [0, 1])
    (tmp_path / "manifest.json").unlink()
    other = dataclasses.replace(KEY, temperature=1.0)
    with pytest.raises(CacheError, match="not the checksum .* the cache's key"):
        write(tmp_path, other).__enter__()
    (tmp_path / "manifest.json").unlink()
    filled(tmp_path, [2])
    assert len(read(tmp_path, KEY)) == 3
