# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put
from two_layers import cache_size

import jaxcompress as jc
from jaxcompress import distill

VOCABULARY, WIDTH = 4, 6
TABLE = jnp.asarray(
    np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY)), jnp.float32
)
PROMPTS = put([[0, 1, 2, 3, 3, 3, 3, 3], [3, 3, 1, 0, 0, 0, 0, 0]], jnp.int32)
WAYS = ("passes", "steps")
every_way = pytest.mark.parametrize("way", WAYS)


def bigrams(table, tokens):
    return table[tokens]


def params_of(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "in": (VOCABULARY, WIDTH),
        "state": (WIDTH, WIDTH),
        "out": (WIDTH, VOCABULARY),
    }
    return {name: put(rng.normal(size=shape)) for name, shape in shapes.items()}


def rnn_step(params, state, token):
    state = jnp.tanh(params["in"][token] + state @ params["state"])
    return state, 2 * state @ params["out"]


def rnn(params, tokens):
    """Logits ``(batch, length, vocabulary)`` of a recurrent network."""
    step = functools.partial(rnn_step, params)
    empty = jnp.zeros((len(tokens), WIDTH))
    return jax.lax.scan(step, empty, tokens.T)[1].transpose(1, 0, 2)


def sequences(way, params, tokens, start, key, temperature=1.0, *, end=None):
    options = {"temperature": temperature, "end": end}
    if way == "passes":
        logits_of = functools.partial(rnn, params)
        return distill.rollout(logits_of, tokens, start, key, **options)
    step, empty = functools.partial(rnn_step, params), jnp.zeros((len(tokens), WIDTH))
    return distill.rollout_steps(step, empty, tokens, start, key, **options)


@functools.cache  # so that tests share what is compiled
def made_by(way, end=None):
    """``(params, tokens, start, key, temperature)`` to tokens and what counts."""
    return jax.jit(functools.partial(sequences, way, end=end))


KEY = jax.random.key(3)
STARTS = put([4, 2], jnp.int32)


def test_samples_have_the_frequencies_of_a_bigram_table():
    tokens = jnp.zeros((2000, 6), jnp.int32)

    @jax.jit
    def made(temperature):
        return distill.rollout(
            functools.partial(bigrams, TABLE), tokens, 1, KEY, temperature=temperature
        )[0]

    for temperature in (1.0, 0.5):
        sampled = np.asarray(made(temperature))
        counts = np.zeros((VOCABULARY, VOCABULARY))
        np.add.at(counts, (sampled[:, :-1].ravel(), sampled[:, 1:].ravel()), 1)
        scaled = np.exp(np.asarray(TABLE, np.float64) / temperature)
        expected = scaled / scaled.sum(1, keepdims=True) * counts.sum(1, keepdims=True)
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert expected.min() > 5
        assert statistic < 32.9  # chi-square, 12 degrees of freedom: 0.1 %
    # The hottest samples of this key do not fit the coldest distribution.
    hot = np.zeros((VOCABULARY, VOCABULARY))
    sampled = np.asarray(made(1.0))
    np.add.at(hot, (sampled[:, :-1].ravel(), sampled[:, 1:].ravel()), 1)
    assert ((hot - expected) ** 2 / expected).sum() > 100


@every_way
def test_greedy_is_a_loop(way):
    params = params_of(1)
    made, counts = made_by(way)(params, PROMPTS, STARTS, KEY, 0.0)
    for row, start, got in zip(PROMPTS.tolist(), STARTS.tolist(), made, strict=True):
        row = row[:start]
        while len(row) < PROMPTS.shape[1]:
            logits = rnn(params, jnp.array([row + [0] * (8 - len(row))]))
            row.append(int(logits[0, len(row) - 1].argmax()))
        assert got.tolist() == row
    assert (
        counts.tolist() == (np.arange(8)[None] >= np.asarray(STARTS)[:, None]).tolist()
    )


def test_steps_give_the_sequences_of_whole_passes():
    params = params_of(2)
    of_passes, of_steps = (
        made_by(way, end=2)(params, PROMPTS, STARTS, KEY, 1.0) for way in WAYS
    )
    np.testing.assert_array_equal(of_passes[0], of_steps[0])
    np.testing.assert_array_equal(of_passes[1], of_steps[1])


@every_way
def test_prompts_are_kept_and_the_space_behind_them_is_never_read(way):
    params = params_of(3)
    made, _ = made_by(way)(params, PROMPTS, STARTS, KEY, 1.0)
    behind = jnp.arange(8)[None] >= STARTS[:, None]
    again, _ = made_by(way)(params, jnp.where(behind, 1, PROMPTS), STARTS, KEY, 1.0)
    np.testing.assert_array_equal(made, again)
    np.testing.assert_array_equal(
        jnp.where(behind, 0, made), jnp.where(behind, 0, PROMPTS)
    )


@every_way
def test_a_number_is_that_start_for_all_and_nothing_is_left_behind_the_length(way):
    params = params_of(3)
    fn = functools.partial(sequences, way, params, PROMPTS)
    for got, want in zip(
        jax.jit(lambda: fn(3, KEY, 1.0))(),
        made_by(way)(params, PROMPTS, jnp.array([3, 3]), KEY, 1.0),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)
    made, counts = made_by(way)(params, PROMPTS, jnp.array([8, 20]), KEY, 1.0)
    np.testing.assert_array_equal(made, PROMPTS)
    assert not counts.any()
    made, counts = made_by(way)(params, PROMPTS, jnp.array([0, -5]), KEY, 1.0)
    np.testing.assert_array_equal(made[:, 0], PROMPTS[:, 0])
    assert counts[:, 1:].all() and not counts[:, 0].any()


@every_way
def test_the_key_decides(way):
    params = params_of(4)
    first, again, other = (
        made_by(way)(params, PROMPTS, STARTS, jax.random.key(seed), 1.0)[0]
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@every_way
def test_an_example_is_over_behind_its_end_token(way):
    params, end = params_of(12), 3
    free, _ = made_by(way)(params, PROMPTS, STARTS, KEY, 1.0)
    made, counts = made_by(way, end=end)(params, PROMPTS, STARTS, KEY, 1.0)
    ended = 0
    for row, was, mask, start in zip(made, free, counts, STARTS, strict=True):
        behind = np.flatnonzero((was == end) & (jnp.arange(8) >= start))
        last = behind[0] if behind.size else 7
        ended += bool(behind.size and last < 7)
        assert row[: last + 1].tolist() == was[: last + 1].tolist()
        assert (row[last + 1 :] == end).all()
        assert np.flatnonzero(mask).tolist() == list(range(int(start), last + 1))
    assert ended  # some example of this key stops early
    assert (PROMPTS[1, :2] == end).all() and counts[1].any()  # those do not end it


@every_way
def test_one_program_serves_all_starts_and_temperatures(way):
    traced = 0

    @jax.jit
    def made(start, temperature):
        nonlocal traced
        traced += 1
        return sequences(way, params_of(0), PROMPTS, start, KEY, temperature)

    for start, temperature in ((STARTS, 1.0), (STARTS + 1, 0.0), (STARTS, 2.0)):
        made(start, temperature)
    assert traced == 1


@every_way
def test_no_gradient_flows_through_samples(way):
    def loss(params, fixed):
        made, counts = sequences(way, params, PROMPTS, STARTS, KEY, 1.0)
        made = jnp.where(fixed >= 0, fixed, made)
        logits, teacher = (rnn(p, made[:, :-1]) for p in (params, params_of(9)))
        return distill.reverse_kl(logits, teacher, where=counts[:, 1:]).sum()

    params, data = params_of(6), jnp.full_like(PROMPTS, -1)
    grad = jax.jit(jax.grad(loss))
    sampled = made_by(way)(params, PROMPTS, STARTS, KEY, 1.0)[0]
    through, constant = grad(params, data), grad(params, sampled)
    for name in params:
        assert through[name].any()
        np.testing.assert_array_equal(through[name], constant[name])


def test_training_on_what_the_student_makes():
    def loss_fn(params, batch, teacher, fraction, *, rng):
        sample, choose = jax.random.split(rng)
        made, counts = sequences("steps", params, batch, 1, sample, 1.0)
        tokens, where = distill.own_or_data(
            choose, (made, counts), (batch, jnp.ones(batch.shape, bool)), fraction
        )
        logits, of_teacher = (rnn(p, tokens[:, :-1]) for p in (params, teacher))
        losses = distill.kl(logits, of_teacher, where=where[:, 1:])
        return losses.sum() / where[:, 1:].sum()

    init, step = jc.train_step(loss_fn, optax.adam(0.03))
    state = init(params_of(7), rng=KEY)
    batch = jnp.tile(PROMPTS, (8, 1))
    losses = []
    for t in range(40):
        state, metrics = step(state, batch, params_of(8), jnp.float32(t / 39))
        losses.append(metrics["loss"])
    assert cache_size(step) == 1
    assert losses[-1] < losses[0] / 2


def test_own_or_data_is_a_choice_an_example():
    own = {"tokens": jnp.ones((1000, 3), jnp.int32), "where": jnp.ones(1000, bool)}
    data = {"tokens": jnp.zeros((1000, 3), jnp.int32), "where": jnp.zeros(1000, bool)}
    chosen = jax.jit(distill.own_or_data)
    for fraction, low, high in ((0.0, 0, 0), (1.0, 1000, 1000), (0.3, 228, 372)):
        got = chosen(KEY, own, data, fraction)  # 300 and 5 deviations of it
        assert low <= int(got["where"].sum()) <= high
        assert (got["tokens"] == got["where"][:, None]).all()


def test_a_model_that_looks_ahead_is_refused():
    def ahead(tokens):
        return bigrams(TABLE, jnp.roll(tokens, -1, axis=1))

    def everywhere(tokens):
        return bigrams(TABLE, tokens) + tokens.mean(1)[:, None, None]

    distill.check_causal(functools.partial(rnn, params_of(0)), PROMPTS)
    with pytest.raises(
        ValueError, match="position 3 of 8 change with tokens from 4 on"
    ):
        distill.check_causal(ahead, PROMPTS)
    with pytest.raises(ValueError, match="must be causal.*position 0 of 8"):
        distill.check_causal(everywhere, PROMPTS)


def test_neither_nan_nor_tokens_that_are_ruled_out_hide_a_leak():
    def ahead(tokens):
        logits = bigrams(TABLE, jnp.roll(tokens, -1, axis=1))
        return logits.at[..., 0].set(-jnp.inf)

    with pytest.raises(ValueError, match="position 3 of 8 change with tokens from 4"):
        distill.check_causal(ahead, PROMPTS)
    distill.check_causal(
        lambda tokens: bigrams(TABLE, tokens).at[..., 0].set(-jnp.inf), PROMPTS
    )
    with pytest.raises(ValueError, match="must not return NaN, but does at position 2"):
        distill.check_causal(
            lambda tokens: bigrams(TABLE, tokens).at[:, 2].set(jnp.nan), PROMPTS
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"tokens": PROMPTS[0]},
            ValueError,
            r"tokens must have shape \(batch, length\), got \(8,",
        ),
        (
            {"tokens": jnp.ones((2, 8))},
            TypeError,
            "tokens must be integers, got dtype float32",
        ),
        ({"start": 0}, ValueError, "start must be at least 1, got 0. The first token"),
        (
            {"start": jnp.ones(3, int)},
            ValueError,
            r"start must be an int or .* got int32 \(3,",
        ),
        (
            {"start": jnp.ones(2)},
            ValueError,
            r"start must be an int or .* got float32 \(2,",
        ),
        ({"temperature": -1.0}, ValueError, "temperature must be at least 0, got -1.0"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"tokens": PROMPTS, "start": 1, "key": KEY} | change
    with pytest.raises(error, match=message):
        distill.rollout(functools.partial(bigrams, TABLE), **given)
    with pytest.raises(error, match=message):
        distill.rollout_steps(lambda c, t: (c, TABLE[t]), (), **given)


def test_other_mixtures_are_refused():
    with pytest.raises(ValueError, match="fraction must be in .0, 1., got 1.5"):
        distill.own_or_data(KEY, PROMPTS, PROMPTS, 1.5)
    with pytest.raises(
        ValueError, match=r"same shape and batch, got \(2, 8\) and \(1, 8"
    ):
        distill.own_or_data(KEY, PROMPTS, PROMPTS[:1], 0.5)
