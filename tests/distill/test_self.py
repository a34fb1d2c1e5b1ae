# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.distill import earlier_teacher, ema_teacher, kl

PARAMS = {"w": jnp.arange(12.0).reshape(4, 3) / 10, "count": jnp.array(3)}
X = normal(5, 4)


def run(compressor, values, start=None):
    state = compressor.init(PARAMS if start is None else start)
    for value in values:
        _, state = compressor.update(value, state)
    return state.teacher.params


def test_the_average_is_the_sum_written_out():
    values = [{"w": PARAMS["w"] + i, "count": jnp.array(i)} for i in range(1, 5)]
    got = run(ema_teacher(0.75), values)
    want = 0.75**4 * PARAMS["w"] + sum(
        0.25 * 0.75 ** (3 - i) * value["w"] for i, value in enumerate(values)
    )
    np.testing.assert_allclose(got["w"], want, rtol=1e-6)
    assert got["count"] == 4


def test_a_schedule_of_the_decay_sees_the_number_of_the_update():
    warm = ema_teacher(lambda count: 1 - 1 / (1 + count))  # the plain mean of all
    values = [{"w": jnp.full((2, 2), float(i))} for i in range(1, 6)]
    got = run(warm, values, {"w": jnp.zeros((2, 2))})
    np.testing.assert_allclose(got["w"], np.mean(range(6)), rtol=1e-6)


def test_small_steps_are_not_lost_in_bfloat16():
    start = {"w": jnp.ones(3, jnp.bfloat16)}
    got = run(ema_teacher(0.999), [{"w": 2 * start["w"]}] * 10, start)
    assert got["w"].dtype == jnp.float32
    np.testing.assert_allclose(got["w"], 2 - 0.999**10, rtol=1e-5)


def test_an_earlier_teacher_is_copied_at_each_multiple():
    values = [{"w": jnp.float32(i)} for i in range(1, 8)]
    seen = [float(run(earlier_teacher(3), values[:n], {"w": jnp.float32(0)})["w"])
            for n in range(8)]  # fmt: skip
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6]
    inf = [{"w": jnp.float32(np.inf)}]  # not copied, so not in the teacher
    assert run(earlier_teacher(3), inf, {"w": jnp.float32(0)})["w"] == 0


@pytest.mark.parametrize("first", [True, False])
def test_the_step_hands_the_teacher_to_the_loss(first):
    """It averages what it sees, raw parameters or rounded ones, and gets no gradient."""
    int2, ema = jc.weight_quantization(bits=2), ema_teacher(0.5)
    both = jc.chain(ema, int2) if first else jc.chain(int2, ema)
    params = {"w": jnp.copy(PARAMS["w"])}

    def loss(view, x, *, teacher):
        distance = kl(x @ view["w"], x @ teacher["w"]).mean()
        return distance + jnp.sum(view["w"] ** 2), jc.Aux({"distance": distance})

    init, step = jc.train_step(loss, optax.sgd(0.1), both, donate=True)
    state = init(params)
    raw, view_of = PARAMS["w"], lambda w: int2.apply({"w": w}, int2.init({"w": w}))["w"]
    average = raw if first else view_of(raw)
    for _ in range(3):
        view = view_of(raw)
        grad = jax.grad(lambda v, t=average: loss({"w": v}, X, teacher={"w": t})[0])(
            view
        )
        raw = raw - 0.1 * grad
        average = (average + (raw if first else view_of(raw))) / 2
        state, metrics = step(state, X)
        np.testing.assert_allclose(state.params["w"], raw, rtol=1e-4, atol=1e-5)
    (mark,) = (s.teacher for s in state.compression if hasattr(s, "teacher"))
    np.testing.assert_allclose(mark.params["w"], average, rtol=1e-4, atol=1e-5)
    assert metrics["distance"] > 0
    shipped = both.finalize(state.params, state.compression)
    assert isinstance(shipped["w"], jc.QArray)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="decay must be in .0, 1., got 1.5"):
        ema_teacher(1.5)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        earlier_teacher(0)
    two = jc.chain(ema_teacher(0.9), earlier_teacher(5))
    init, _ = jc.train_step(
        lambda p, x, *, teacher: jnp.sum(p["w"]), optax.sgd(1.0), two
    )
    with pytest.raises(ValueError, match="keeps 2 teachers"):
        init({"w": PARAMS["w"]})
