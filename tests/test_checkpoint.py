# SPDX-License-Identifier: Apache-2.0
import errno
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal

import jaxcompress as jc

PARAMS = {"a": {"kernel": normal(8, 4)}}


def loss_fn(params, batch, *, rng):
    noise = jax.random.normal(rng, ())
    return jnp.mean((batch @ params["a"]["kernel"]) ** 2) + 0 * noise


def make():
    c = jc.chain(
        jc.magnitude_pruning(optax.polynomial_schedule(0.0, 0.8, 3, 10), every=2),
        jc.weight_sharing(4, every=3),
    )
    init, step = jc.train_step(loss_fn, optax.adam(0.01), c)
    return init(PARAMS, rng=jax.random.key(7)), step


def batch(step):
    return normal(6, 8, seed=step)


def raw(tree):
    def data(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return [data(x).tobytes() for x in jax.tree.leaves(tree)]


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    state, step = make()
    for i in range(9):
        if i == 5:
            jc.save_checkpoint(tmp_path, 5, state)
        state, _ = step(state, batch(i))
    again, step = make()
    again = jc.restore_checkpoint(tmp_path, again)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for i in range(int(again.step), 9):
        again, _ = step(again, batch(i))
    assert raw(again) == raw(state)


@pytest.mark.parametrize(
    "tree",
    [
        {
            "x": jnp.arange(3, dtype=jnp.bfloat16),
            "none": None,
            "empty": jnp.zeros((0, 2)),
        },
        (jnp.ones(2, bool), [jnp.int8(3), np.arange(3, dtype=np.uint16)]),
        jnp.ones(()),
        jax.jit(lambda p: jc.compress(jc.weight_quantization(bits=4), p))(PARAMS),
        {"key": jax.random.key(3), "keys": jax.random.split(jax.random.key(1), 3)},
        {"a": np.float32(3), "b": np.int8(2), "c": np.bool_(True), "d": np.ones(2)},
        {},
        {"nothing": jnp.zeros((0, 2)), "none": None},
    ],
    ids=[
        *("dtypes", "tuples", "one array", "compressed", "keys", "scalars of numpy"),
        *("empty", "only empty arrays"),
    ],
)
def test_trees_come_back_as_they_were(tree, tmp_path):
    jc.save_checkpoint(tmp_path, 1, tree)
    again = jc.restore_checkpoint(tmp_path, tree)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    assert raw(again) == raw(tree)


def test_restoring_keeps_the_sharding_of_like(tmp_path):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", None))
    jc.save_checkpoint(tmp_path, 0, PARAMS)
    like = jax.tree.map(lambda p: jax.device_put(jnp.zeros_like(p), rows), PARAMS)
    again = jc.restore_checkpoint(tmp_path, like)["a"]["kernel"]
    assert again.sharding == rows
    np.testing.assert_array_equal(again, PARAMS["a"]["kernel"])


def test_what_was_on_no_device_in_particular_is_so_again(tmp_path):
    state = {"w": jnp.ones((4, 2), jnp.bfloat16), "key": jax.random.key(1)}
    pinned = jax.device_put(state, jax.devices()[1])
    jc.save_checkpoint(tmp_path, 0, state)
    free, kept = (jc.restore_checkpoint(tmp_path, like) for like in (state, pinned))
    assert not any(x.committed for x in jax.tree.leaves(free))
    assert {x.device for x in jax.tree.leaves(kept)} == {jax.devices()[1]}
    # So it may stand beside arrays of another device.
    np.testing.assert_array_equal(free["w"] + pinned["w"], 2 * np.ones((4, 2)))


def test_only_the_newest_stay_and_none_is_replaced(tmp_path):
    for step in (1, 2, 3):
        jc.save_checkpoint(tmp_path, step, {"x": jnp.full(2, float(step))}, keep=2)
    assert jc.checkpoint_steps(tmp_path) == [2, 3]
    like = {"x": jnp.zeros(2)}
    assert jc.restore_checkpoint(tmp_path, like)["x"].tolist() == [3.0, 3.0]
    assert jc.restore_checkpoint(tmp_path, like, step=2)["x"].tolist() == [2.0, 2.0]
    for step in (1, 3):
        with pytest.raises(
            jc.CheckpointError, match="already holds .* step 3, so step"
        ):
            jc.save_checkpoint(tmp_path, step, {"x": jnp.zeros(2)})
    assert jc.restore_checkpoint(tmp_path, like)["x"].tolist() == [3.0, 3.0]


def test_a_missing_checkpoint_is_named(tmp_path):
    assert jc.checkpoint_steps(tmp_path / "nowhere") == []
    with pytest.raises(jc.CheckpointError, match="^no checkpoint in"):
        jc.restore_checkpoint(tmp_path, PARAMS)
    jc.save_checkpoint(tmp_path, 4, PARAMS)
    with pytest.raises(jc.CheckpointError, match=r"no checkpoint of step 9 .*\[4\]"):
        jc.restore_checkpoint(tmp_path, PARAMS, step=9)


def test_another_model_is_refused_with_the_leaves(tmp_path):
    jc.save_checkpoint(tmp_path, 0, {"w": jnp.ones((2, 3)), "b": jnp.ones(3)})
    like = {"w": jnp.ones((2, 4)), "c": jnp.ones(3, jnp.int32)}
    with pytest.raises(jc.CheckpointError) as error:
        jc.restore_checkpoint(tmp_path, like)
    text = str(error.value)
    assert "w: saved float32[2, 3], expected float32[2, 4]" in text
    assert "b: saved float32[3], expected nothing" in text
    assert "c: saved nothing, expected int32[3]" in text


def test_a_damaged_checkpoint_is_refused_and_the_older_one_named(tmp_path):
    for step in (1, 2):
        jc.save_checkpoint(tmp_path, step, PARAMS)
    files = [f for f in (tmp_path / "2").rglob("*") if f.is_file()]
    for file in files:
        if file.stat().st_size > 40:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(jc.CheckpointError) as error:
        jc.restore_checkpoint(tmp_path, PARAMS)
    assert "step 2" in str(error.value) and "restore step 1" in str(error.value)
    again = jc.restore_checkpoint(tmp_path, PARAMS, step=1)
    assert raw(again) == raw(PARAMS)


def test_a_file_in_the_way_is_said(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(jc.CheckpointError, match="that you may write to it"):
        jc.save_checkpoint(file, 0, PARAMS)
    assert file.read_text() == "not a folder"


def test_two_leaves_of_one_name_are_refused(tmp_path):
    with pytest.raises(jc.CheckpointError, match="share a path: .'a.b'"):
        jc.save_checkpoint(tmp_path, 0, {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}})


def test_numbers_come_back_as_numbers_of_their_kind(tmp_path):
    state = {"a": 2, "b": 0.1, "c": True, "d": 1j, "e": np.float32(0.1), "f": 2**40}
    jc.save_checkpoint(tmp_path, 1, state)
    like = {name: type(value)(0) for name, value in state.items()}
    again = jc.restore_checkpoint(tmp_path, like)
    assert again == state
    assert [type(x) for x in again.values()] == [type(x) for x in state.values()]


def test_a_leaf_that_is_no_array_is_named(tmp_path):
    for leaf in ("text", np.array(["a"]), object()):
        with pytest.raises(jc.CheckpointError, match="'a.b' is a .* convert it to an"):
            jc.save_checkpoint(tmp_path, 0, {"a": {"b": leaf}})
    assert not jc.checkpoint_steps(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"step": -1}, ValueError, "step must be at least 0, got -1"),
        ({"step": 1.5}, TypeError, "step must be a whole number, got 1.5"),
        ({"step": True}, TypeError, "step must be a whole number, got True"),
        ({"step": "3"}, TypeError, "step must be a whole number, got '3'"),
        ({"step": 9, "keep": 0}, ValueError, "keep must be at least 1, got 0"),
        ({"step": 9, "keep": True}, TypeError, "keep must be a whole number"),
    ],
)
def test_steps_that_would_be_lost_are_refused(tmp_path, options, error, message):
    jc.save_checkpoint(tmp_path, 4, PARAMS)
    with pytest.raises(error, match=message):
        jc.save_checkpoint(tmp_path, options.pop("step"), PARAMS, **options)
    assert jc.checkpoint_steps(tmp_path) == [4]


def test_a_step_may_be_a_whole_number_of_any_library(tmp_path):
    for step in (np.int32(1), jnp.int32(2)):
        jc.save_checkpoint(tmp_path, step, PARAMS)
    assert jc.checkpoint_steps(tmp_path) == [1, 2]


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path):
    ours = ["7.orbax-checkpoint-tmp", "7.orbax-checkpoint-tmp-123", "1.deleted"]
    others = ["notes", "x.orbax-checkpoint-tmp", "7.orbax-checkpoint-tmp.bak", "kept"]
    for name in [*ours, *others]:
        (tmp_path / name / "inside").mkdir(parents=True)
    (tmp_path / "8.deleted").symlink_to(tmp_path / "kept")
    jc.save_checkpoint(tmp_path, 7, PARAMS)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, "7", ".lock", "8.deleted"}
    assert (tmp_path / "kept" / "inside").exists()


def fail_to_save(monkeypatch, error):
    import orbax.checkpoint as ocp

    def save(self, step, **options):
        (self.directory / f"{step}.orbax-checkpoint-tmp").mkdir()
        raise error

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("RESOURCE_EXHAUSTED: Error writing ... No space left on device"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
    ids=str,
)
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path, monkeypatch, error):
    jc.save_checkpoint(tmp_path, 1, PARAMS)
    fail_to_save(monkeypatch, error)
    with pytest.raises(
        jc.CheckpointError, match="step 2 was not saved to .*: the disk is full.* keep="
    ):
        jc.save_checkpoint(tmp_path, 2, PARAMS)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "1"}
    assert raw(jc.restore_checkpoint(tmp_path, PARAMS)) == raw(PARAMS)


def test_two_that_save_at_the_same_time_are_told_so(tmp_path):
    holder = """
        import sys, time
        from jaxcompress._lock import FolderLock
        lock = FolderLock(sys.argv[1])
        print(lock.take(), flush=True)
        time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(holder), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == "True\n"
        with pytest.raises(jc.CheckpointError, match="another process is saving .* 3"):
            jc.save_checkpoint(tmp_path, 3, PARAMS)
        child.kill()
    jc.save_checkpoint(tmp_path, 3, PARAMS)  # a lock ends with its process


def test_a_checkpoint_that_vanishes_while_it_is_read_is_not_called_damaged(
    tmp_path, monkeypatch
):
    import orbax.checkpoint as ocp

    def restore(self, step, **options):
        shutil.rmtree(tmp_path / str(step))
        raise FileNotFoundError(step)

    jc.save_checkpoint(tmp_path, 3, PARAMS)
    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    with pytest.raises(jc.CheckpointError, match="step 3 .* was deleted while it was"):
        jc.restore_checkpoint(tmp_path, PARAMS)


def test_values_that_do_not_match_their_checksum_are_refused(tmp_path):
    import orbax.checkpoint as ocp

    from jaxcompress.checkpoint._leaves import CHECKSUMS, checksums, named

    good, bad = {"a": jnp.zeros(3), "b": jnp.ones(3)}, {"a": jnp.zeros(3)}
    bad["b"] = jnp.array([1.0, 1.0, -1.0])
    for step, sums in ((1, checksums(named(good))), (2, None)):
        leaves = named(bad) | ({} if sums is None else {CHECKSUMS: sums})
        with ocp.CheckpointManager(tmp_path) as manager:
            manager.save(step, args=ocp.args.StandardSave(leaves))
    with pytest.raises(jc.CheckpointError, match=r"step 1 .*checksums of \['b'\]"):
        jc.restore_checkpoint(tmp_path, good, step=1)
    with pytest.raises(jc.CheckpointError, match="step 2 .*it has no checksums"):
        jc.restore_checkpoint(tmp_path, good, step=2)
