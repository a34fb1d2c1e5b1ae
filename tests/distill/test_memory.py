# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal, put
from two_layers import cache_size

import jaxcompress as jc
from jaxcompress import distill

EXAMPLES, WIDTH, NEGATIVES = 12, 5, 7
crd = jax.jit(distill.crd, static_argnames="contrast")
FIELDS = ("student", "teacher", "student_log_z", "teacher_log_z")


def embeddings(seed, shape=(4, WIDTH)):
    return normal(*shape, seed=seed)


def empty():
    student, teacher = (
        x / jnp.linalg.norm(x, axis=1, keepdims=True)
        for x in (embeddings(i, (EXAMPLES, WIDTH)) for i in (90, 91))
    )
    unknown = jnp.float32(jnp.nan)
    return distill.Memory(student, teacher, unknown, unknown)


def drawn(seed, ids):
    steps = np.random.default_rng(seed).integers(1, EXAMPLES, (len(ids), NEGATIVES))
    return put((np.asarray(ids)[:, None] + steps) % EXAMPLES, jnp.int32)


IDS = put([3, 0, 11, 7], jnp.int32)
OTHERS = drawn(0, IDS)


class Paper:
    """The formulas of section 3 of the paper, in float64, an example at a time."""

    def __init__(self, start, temperature, momentum):
        self.banks = [np.asarray(x, np.float64) for x in (start.student, start.teacher)]
        self.z = [None, None]
        self.temperature, self.momentum = temperature, momentum

    def losses(self, student, teacher, ids, negatives):
        pair = [np.asarray(x, np.float64) for x in (student, teacher)]
        pair = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in pair]
        number, total = negatives.shape[1], np.zeros(len(ids))
        for side in (0, 1):
            other = self.banks[1 - side]
            e = np.array(
                [
                    [np.exp(other[k] @ x / self.temperature) for k in (i, *row)]
                    for x, i, row in zip(pair[side], ids, negatives, strict=True)
                ]
            )
            if self.z[side] is None:
                self.z[side] = e.mean() * EXAMPLES
            p = e / self.z[side]
            h = p / (p + number / EXAMPLES)
            total -= np.log(h[:, 0]) + np.log(1 - h[:, 1:]).sum(1)
        for bank, x in zip(self.banks, pair, strict=True):
            for i, v in zip(ids, x, strict=True):
                new = self.momentum * bank[i] + (1 - self.momentum) * v
                bank[i] = new / np.linalg.norm(new)
        return total


@pytest.mark.parametrize(("temperature", "momentum"), [(0.07, 0.5), (1.0, 0.9)])
def test_it_is_the_papers_formula_over_several_batches(temperature, momentum):
    bank = empty()
    paper = Paper(bank, temperature, momentum)
    for t in range(3):
        ids = jnp.asarray(np.random.default_rng(t).permutation(EXAMPLES)[:4], jnp.int32)
        others, s, u = drawn(t, ids), embeddings(t), 3 * embeddings(t + 10)
        want = paper.losses(s, u, np.asarray(ids), np.asarray(others))
        got, bank = crd(
            s, u, bank, ids, others, temperature=temperature, momentum=momentum
        )
        np.testing.assert_allclose(got, want, rtol=1e-4)
        np.testing.assert_allclose(bank.student, paper.banks[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bank.teacher, paper.banks[1], rtol=1e-4, atol=1e-6)
        constants = jnp.exp(jnp.stack([bank.student_log_z, bank.teacher_log_z]))
        np.testing.assert_allclose(
            constants, [float(z) for z in paper.z if z], rtol=1e-4
        )


def test_info_nce_is_a_cross_entropy_that_does_not_know_the_constant():
    s, u = embeddings(0), embeddings(1)
    got, seen = crd(s, u, empty(), IDS, OTHERS, contrast=distill.info_nce)
    rows = np.concatenate([np.asarray(IDS)[:, None], OTHERS], 1)
    want = np.zeros(4)
    for x, bank in ((s, empty().teacher), (u, empty().student)):
        x = np.asarray(x / jnp.linalg.norm(x, axis=1, keepdims=True), np.float64)
        scores = np.einsum("nkw,nw->nk", np.asarray(bank)[rows], x) / 0.07
        want += np.log(np.exp(scores).sum(1)) - scores[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-4)
    other = distill.Memory(
        empty().student, empty().teacher, seen.student_log_z + 3, jnp.float32(0)
    )
    again, _ = crd(s, u, other, IDS, OTHERS, contrast=distill.info_nce)
    np.testing.assert_allclose(again, got, rtol=1e-4)


@pytest.mark.parametrize("contrast", [distill.nce, distill.info_nce])
def test_the_loss_is_lower_where_the_memory_holds_the_same_embedding(contrast):
    bank = empty()
    same, _ = crd(
        bank.teacher[IDS], bank.student[IDS], bank, IDS, OTHERS, contrast=contrast
    )
    else_, _ = crd(embeddings(0), embeddings(1), bank, IDS, OTHERS, contrast=contrast)
    assert same.mean() < else_.mean()


def graded(s, u, bank, ids, others, where):
    def total(s, u, bank):
        losses, new = distill.crd(s, u, bank, ids, others, where=where)
        # A NaN stays in sight in the values; in the sum it would be everywhere.
        return jnp.nansum(losses), (losses, new)

    (_, out), grads = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(s, u, bank)
    return *out, grads


graded = jax.jit(graded)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30])
@pytest.mark.parametrize("unknown", [-1, 10**6])
def test_padding_changes_nothing_and_is_not_remembered(bad, unknown):
    s, u, where = embeddings(0), embeddings(1), jnp.array([1, 0, 1, 1, 0, 1], bool)
    places = jnp.flatnonzero(where)
    p, q = (jnp.full((6, WIDTH), bad).at[places].set(x) for x in (s, u))
    ids = jnp.full(6, unknown).at[places].set(IDS)
    others = jnp.full((6, NEGATIVES), unknown).at[places].set(OTHERS)
    losses, new, grads = graded(p, q, empty(), ids, others, where)
    wanted, bank, want_grads = graded(s, u, empty(), IDS, OTHERS, jnp.ones(4, bool))
    assert not losses[~where].any()
    np.testing.assert_allclose(losses[where], wanted, rtol=1e-5)
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(new, field), getattr(bank, field), rtol=1e-5, atol=1e-7
        )
    for grad, want in zip(grads[:2], want_grads[:2], strict=True):
        assert not grad[~where].any()
        np.testing.assert_allclose(grad[where], want, rtol=1e-3, atol=1e-5)


def test_gradients_reach_both_embeddings_and_no_memory():
    s, u = embeddings(0), embeddings(1)
    _, _, (of_student, of_teacher, of_memory) = graded(
        s, u, empty(), IDS, OTHERS, jnp.ones(4, bool)
    )
    assert not any(leaf.any() for leaf in jax.tree.leaves(of_memory))
    bank = crd(s, u, empty(), IDS, OTHERS)[1]  # the constant is known from here on
    for grad_of, direction in ((0, embeddings(2)), (1, embeddings(3))):

        @jax.jit
        def along(step, grad_of=grad_of, direction=direction):
            moved, other = (s + step * direction, u), (s, u + step * direction)
            a, b = (moved, other)[grad_of]
            return distill.crd(a, b, bank, IDS, OTHERS, temperature=0.5)[0].sum()

        slope = jax.grad(along)(0.0)
        differences = (along(1e-2) - along(-1e-2)) / 2e-2
        np.testing.assert_allclose(slope, differences, rtol=1e-2)
    assert of_student.any() and of_teacher.any()


def test_nothing_flows_out_of_the_memory_that_is_returned():
    def total(s):
        new = distill.crd(s, embeddings(1), empty(), IDS, OTHERS)[1]
        return sum(leaf.sum() for leaf in jax.tree.leaves(new))

    assert not jax.jit(jax.grad(total))(embeddings(0)).any()


def test_of_an_id_that_is_there_twice_the_last_that_counts_is_kept():
    ids, s, u = jnp.array([3, 5, 3, 3]), embeddings(0), embeddings(1)
    where = jnp.array([True, True, True, False])
    losses, new, _ = graded(s, u, empty(), ids, OTHERS, where)
    alone, wanted, _ = graded(s, u, empty(), ids, OTHERS, jnp.array([0, 1, 1, 0], bool))
    np.testing.assert_array_equal(new.student, wanted.student)
    np.testing.assert_array_equal(new.teacher, wanted.teacher)
    assert losses[0] > 0 and alone[0] == 0  # it has a loss of its own all the same
    changed = np.flatnonzero((new.student != empty().student).any(1))
    assert changed.tolist() == [3, 5]


@pytest.mark.parametrize("unknown", [-1, EXAMPLES])
def test_an_id_that_is_nowhere_cannot_be_overlooked(unknown):
    s, u, every = embeddings(0), embeddings(1), jnp.ones(4, bool)
    losses, new, grads = graded(s, u, empty(), IDS.at[1].set(unknown), OTHERS, every)
    of_others, seen, _ = graded(s, u, empty(), IDS, OTHERS.at[1, 2].set(unknown), every)
    without, wanted, _ = graded(s, u, empty(), IDS, OTHERS, every.at[1].set(False))
    for got, bank in ((losses, new), (of_others, seen)):
        assert jnp.isnan(got).tolist() == [False, True, False, False]
        np.testing.assert_allclose(got[every.at[1].set(False)], without[without != 0])
        np.testing.assert_array_equal(bank.student, wanted.student)
    assert all(jnp.isfinite(g).all() and not g[1].any() for g in grads[:2])


def test_a_batch_in_which_nothing_counts_leaves_the_memory_as_it_is():
    s, u, none = embeddings(0), embeddings(1), jnp.zeros(4, bool)
    losses, new, grads = graded(s, u, empty(), IDS, OTHERS, none)
    assert not losses.any() and not any(g.any() for g in grads[:2])
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(new, field), getattr(empty(), field))
    later, _, _ = graded(s, u, new, IDS, OTHERS, ~none)
    wanted, _, _ = graded(s, u, empty(), IDS, OTHERS, ~none)
    np.testing.assert_array_equal(later, wanted)


def test_short_floats_are_computed_in_float32():
    s, u = (embeddings(i).astype(jnp.bfloat16) for i in (0, 1))
    losses, new, grads = graded(s, u, empty(), IDS, OTHERS, jnp.ones(4, bool))
    s, u = (x.astype(jnp.float32) for x in (s, u))
    np.testing.assert_allclose(losses, crd(s, u, empty(), IDS, OTHERS)[0], rtol=1e-5)
    assert losses.dtype == new.student.dtype == new.student_log_z.dtype == jnp.float32
    assert grads[0].dtype == jnp.bfloat16


def test_a_scan_is_a_loop():
    stacked = embeddings(0, (3, 4, WIDTH)), embeddings(1, (3, 4, WIDTH))
    ids = jnp.stack([IDS, IDS[::-1], (IDS + 1) % EXAMPLES])
    others = jnp.stack([drawn(t, row) for t, row in enumerate(ids)])

    def body(bank, batch):
        s, u, ids, others = batch
        losses, bank = distill.crd(s, u, bank, ids, others)
        return bank, losses

    bank, losses = jax.lax.scan(body, empty(), (*stacked, ids, others))
    one = empty()
    for t in range(3):
        got, one = crd(stacked[0][t], stacked[1][t], one, ids[t], others[t])
        np.testing.assert_allclose(losses[t], got, rtol=1e-4)
    np.testing.assert_allclose(bank.student, one.student, rtol=1e-5, atol=1e-6)


def loss_of(params, batch, *, model_state, rng):
    student, teacher = batch["x"] @ params["student"], batch["x"] @ params["teacher"]
    others = distill.draw_negatives(rng, batch["id"], EXAMPLES, NEGATIVES)
    losses, new = distill.crd(student, teacher, model_state, batch["id"], others)
    return losses.mean(), jc.Aux(model_state=new)


loss_and_grad = jax.jit(jax.value_and_grad(loss_of, has_aux=True))


@pytest.mark.parametrize("parts", [1, 2])
def test_training_carries_the_memory_and_trains_both_projectors(parts):
    init, step = jc.train_step(loss_of, optax.sgd(0.1), micro_batches=parts)
    params = {
        "student": embeddings(5, (6, WIDTH)),
        "teacher": embeddings(6, (6, WIDTH)),
    }
    x = embeddings(7, (4, 6))
    key = jax.random.key(0)
    state = init(params, model_state=empty(), rng=key)
    after, metrics = step(state, {"x": x, "id": IDS})

    rng, bank, losses, grads = jax.random.fold_in(key, 0), empty(), [], []
    keys = [rng] if parts == 1 else jax.random.split(rng, parts)
    for i, k in enumerate(keys):  # each part sees what the ones before have left
        rows = slice(i * 4 // parts, (i + 1) * 4 // parts)
        (loss, aux), grad = loss_and_grad(
            params, {"x": x[rows], "id": IDS[rows]}, model_state=bank, rng=k
        )
        bank = aux.model_state
        losses.append(loss)
        grads.append(grad)
    np.testing.assert_allclose(metrics["loss"], jnp.stack(losses).mean(), rtol=1e-5)
    for name in params:
        mean = jnp.stack([grad[name] for grad in grads]).mean(0)
        assert mean.any()
        np.testing.assert_allclose(
            after.params[name], params[name] - 0.1 * mean, rtol=1e-4, atol=1e-5
        )
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(after.model_state, field),
            getattr(bank, field),
            rtol=1e-4,
            atol=1e-6,
        )
    for _ in range(2):
        after, _ = step(after, {"x": x, "id": IDS})
    assert cache_size(step) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"student": jnp.ones((4, 3))},
            ValueError,
            r"student and teacher must have .*got \(4, 3\).*projector",
        ),
        (
            {"teacher": jnp.ones((3, 5))},
            ValueError,
            r"student and teacher must have .* and \(3, 5\)",
        ),
        ({"ids": IDS[None]}, ValueError, r"ids must have shape .*got \(1, 4\)"),
        ({"ids": jnp.ones(4)}, TypeError, "ids must be integers, got dtype float32"),
        (
            {"negatives": jnp.ones((4, 2))},
            TypeError,
            "negatives must be integers, got dtype float32",
        ),
        (
            {"negatives": OTHERS[:2]},
            ValueError,
            r"negatives must have shape \(4, at least 1\), got \(2, 7",
        ),
        (
            {"negatives": OTHERS[:, :0]},
            ValueError,
            r"negatives must have .* got \(4, 0",
        ),
        (
            {"where": jnp.ones(3, bool)},
            ValueError,
            r"where must have shape \(4,\).* got \(3,",
        ),
        ({"temperature": 0.0}, ValueError, "temperature must be positive, got 0.0"),
        ({"momentum": 1.5}, ValueError, "momentum must be in .0, 1., got 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {
        "student": embeddings(0),
        "teacher": embeddings(1),
        "memory": empty(),
        "ids": IDS,
        "negatives": OTHERS,
    }
    with pytest.raises(error, match=message):
        distill.crd(**given | change)
