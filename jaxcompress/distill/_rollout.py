# SPDX-License-Identifier: Apache-2.0
"""On-policy distillation: sequences that a model makes itself, to be compared on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Tree = TypeVar("Tree")
Logits = Callable[[jax.Array], jax.Array]
Step = Callable[[Any, jax.Array], tuple[Any, jax.Array]]


def rollout(
    logits_of: Logits,
    tokens: jax.Array,
    start: int | jax.Array,
    key: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    end: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Sequences that a model goes on with by itself, one sampled token after the other.

    Each token costs a pass over the whole sequence; ``rollout_steps`` costs one step, of
    models that have one. No gradient flows through what is sampled: it is data.

    Distillation on it is any loss of ``jc.distill`` on the logits of both networks, of
    ``tokens[:, :-1]``, with ``where=counts[:, 1:]``: a position's logits are about the
    token behind it.

    Args:
      logits_of: ``tokens (batch, length) -> logits (batch, length, vocabulary)``, causal:
        the logits at a position depend on tokens up to there; see ``check_causal``.
        Close it over the parameters, or a teacher's: that is sequence-level distillation.
      tokens: integers ``(batch, length)``: prompts, and space behind them for what is
        generated; whatever the space holds is never read.
      start: the first position that is generated, at least 1: an int, or integers
        ``(batch,)``, one an example, of which those below 1 are taken for 1.
      key: a PRNG key; the token at position i is drawn with ``fold_in(key, i)``.
      temperature: T >= 0 that logits are divided by; at 0 the likeliest token is taken,
        the first of equal ones. A number or a traced scalar.
      end: the token after which an example is over; what follows it is ``end`` too.
        Only a generated one ends it, not one in the prompt.

    Returns:
      The tokens ``(batch, length)``, as they were before start; and bool
      ``(batch, length)``: the generated positions that count, the first ``end`` included.

    Raises:
      ValueError: if the shapes do not fit, or start or temperature is out of range.
      TypeError: if tokens are no integers.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def logits_of(tokens):  # the next number, of five
      ...     return 99.0 * jax.nn.one_hot((tokens + 1) % 5, 5)
      >>> tokens = jnp.array([[3, 0, 0, 0], [1, 0, 0, 0]])
      >>> made, counts = jc.distill.rollout(logits_of, tokens, 1, jax.random.key(0), end=4)
      >>> made.tolist(), counts.sum(1).tolist()
      ([[3, 4, 4, 4], [1, 2, 3, 4]], [1, 3])

    References:
      Agarwal et al., GKD, 2023, https://arxiv.org/abs/2306.13649;
      Kim and Rush, 2016, https://arxiv.org/abs/1606.07947
    """
    starts = _checked(tokens, start, temperature)
    length = tokens.shape[1]

    def body(position: jax.Array, carry: Any) -> Any:
        tokens, over = carry
        logits = lax.dynamic_index_in_dim(
            logits_of(tokens), position - 1, axis=1, keepdims=False
        )
        drawn = _draw(logits, jax.random.fold_in(key, position), temperature)
        given = lax.dynamic_index_in_dim(tokens, position, axis=1, keepdims=False)
        token, over = _next(given, drawn, position >= starts, over, end)
        return lax.dynamic_update_index_in_dim(tokens, token, position, axis=1), over

    # Of an int the number of passes is known, and the loop is a scan.
    if isinstance(start, int):
        first = min(start, length)
    else:
        first = jnp.minimum(jnp.min(starts), length)
    over = jnp.zeros(len(tokens), bool)
    made, _ = lax.fori_loop(first, length, body, (tokens, over))
    return made, _counts(made, starts, end)


def rollout_steps(
    step: Step,
    carry: Any,
    tokens: jax.Array,
    start: int | jax.Array,
    key: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    end: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``rollout`` of a model that reads a token at a time: recurrent, or with a cache.

    With one key both give the same sequences, but for what rounding does to a draw.

    Args:
      step: ``(carry, token (batch,)) -> (carry, logits (batch, vocabulary))``.
      carry: what it starts from: a state, or an empty cache of keys and values.
      tokens: see ``rollout``; prompts are read a token at a time too.
      start: see ``rollout``.
      key: see ``rollout``.
      temperature: see ``rollout``.
      end: see ``rollout``.

    Returns:
      Tokens and what counts, as ``rollout``.

    Raises:
      ValueError: if the shapes do not fit, or start or temperature is out of range.
      TypeError: if tokens are no integers.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def step(carry, token):  # the next number, of five
      ...     return carry, 99.0 * jax.nn.one_hot((token + 1) % 5, 5)
      >>> tokens = jnp.array([[3, 0, 0, 0]])
      >>> made, counts = jc.distill.rollout_steps(step, (), tokens, 1, jax.random.key(0))
      >>> made.tolist()
      [[3, 4, 0, 1]]
    """
    starts = _checked(tokens, start, temperature)

    def body(state: Any, column: Any) -> Any:
        carry, token, over = state
        position, given = column
        carry, logits = step(carry, token)
        drawn = _draw(logits, jax.random.fold_in(key, position), temperature)
        token, over = _next(given, drawn, position >= starts, over, end)
        return (carry, token, over), token

    first, rest = tokens[:, 0], tokens[:, 1:].T
    over = jnp.zeros(len(tokens), bool)
    positions = jnp.arange(1, tokens.shape[1], dtype=jnp.int32)
    _, made = lax.scan(body, (carry, first, over), (positions, rest))
    made = jnp.concatenate([first[:, None], made.T], axis=1)
    return made, _counts(made, starts, end)


def own_or_data(
    key: jax.Array, own: Tree, data: Tree, fraction: float | jax.Array
) -> Tree:
    """Each example out of the student's own or out of the data, by chance.

    GKD's lambda, here for each example and not for a batch as a whole: 0 is data only,
    1 the student's own only.

    Args:
      key: a PRNG key.
      own: a pytree of arrays ``(batch, ...)``: what ``rollout`` gave.
      data: the same for the data, ``(tokens, where)``.
      fraction: probability of own, from 0 to 1; a number or a traced scalar, from a
        schedule. The rollout has its cost whatever it is.

    Returns:
      A pytree like both; all leaves of an example are from one of the two.

    Raises:
      ValueError: if the fraction is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> own, data = jnp.ones((4, 2), int), jnp.zeros((4, 2), int)
      >>> jc.distill.own_or_data(jax.random.key(0), own, data, 1.0).sum().tolist()
      8
    """
    if not isinstance(fraction, jax.Array) and not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction} is not from 0 to 1.")
    batch = len(jax.tree.leaves(own)[0])
    chosen = jax.random.uniform(key, (batch,)) < fraction

    def pick(own: jax.Array, data: jax.Array) -> jax.Array:
        if own.shape != data.shape or own.shape[:1] != (batch,):
            raise ValueError(
                f"own {own.shape} and data {data.shape} are not of the same examples."
            )
        return jnp.where(chosen.reshape(batch, *(1,) * (own.ndim - 1)), own, data)

    return jax.tree.map(pick, own, data)


def check_causal(logits_of: Logits, tokens: jax.Array) -> None:
    """Refuse a model whose logits depend on tokens further on, once before a training.

    ``rollout`` cannot tell: such a model would see what the data had where it generates.
    The second half of the sequences is changed; the logits of the first may not.

    Args:
      logits_of: as in ``rollout``, without dropout.
      tokens: integers ``(batch, length)``, of a length of 2 or more.

    Raises:
      ValueError: naming the first position that knows more than it should.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> jc.distill.check_causal(lambda t: jax.nn.one_hot(t, 5), jnp.zeros((1, 4), int))
    """
    middle = tokens.shape[1] // 2
    logits = logits_of(tokens)
    other = (tokens + 1) % logits.shape[-1]
    changed = logits_of(tokens.at[:, middle:].set(other[:, middle:]))
    gap = jnp.max(jnp.abs(logits - changed)[:, :middle], axis=(0, 2))
    # What is exact in one program may be rounded otherwise in another.
    far = np.flatnonzero(gap > 1e-4 * (1 + jnp.max(jnp.abs(logits))))
    if far.size:
        raise ValueError(
            f"the logits at position {far[0]} of {tokens.shape[1]} change with tokens "
            f"from {middle} on: the model is not causal. Mask its attention, or pad its "
            "convolutions on the left only."
        )


def _checked(
    tokens: jax.Array, start: int | jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """Start as integers ``(batch,)``, at least 1."""
    if tokens.ndim != 2 or not tokens.shape[1]:
        raise ValueError(f"tokens {tokens.shape} are not (batch, length).")
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"tokens of dtype {tokens.dtype}: integers are expected.")
    if not isinstance(temperature, jax.Array) and not temperature >= 0:
        raise ValueError(f"temperature={temperature} is below 0.")
    batch = len(tokens)
    if isinstance(start, int):
        if start < 1:
            raise ValueError(
                f"start={start} is below 1: the first token of a sequence is given, "
                "since a model has no logits in front of it."
            )
        return jnp.full(batch, start, jnp.int32)
    if start.shape != (batch,) or not jnp.issubdtype(start.dtype, jnp.integer):
        raise ValueError(
            f"start {start.dtype} {start.shape} is neither an int nor integers "
            f"{(batch,)}, one an example."
        )
    return jnp.maximum(start, 1)


def _draw(
    logits: jax.Array, key: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    logits = lax.stop_gradient(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # Noise times T, not logits over T: the same draw, and at 0 the largest.
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return jnp.argmax(logits + temperature * noise, axis=-1)


def _next(
    given: jax.Array,
    drawn: jax.Array,
    generated: jax.Array,
    over: jax.Array,
    end: int | None,
) -> tuple[jax.Array, jax.Array]:
    """The token at a position, and which examples are over behind it."""
    token = jnp.where(generated, drawn.astype(given.dtype), given)
    if end is None:
        return token, over
    token = jnp.where(over, jnp.asarray(end, given.dtype), token)
    return token, over | (generated & (token == end))


def _counts(tokens: jax.Array, start: jax.Array, end: int | None) -> jax.Array:
    generated = jnp.arange(tokens.shape[1])[None, :] >= start[:, None]
    if end is None:
        return generated
    ends = (generated & (tokens == end)).astype(jnp.int32)
    return generated & (jnp.cumsum(ends, axis=1) - ends == 0)
