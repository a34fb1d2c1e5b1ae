# SPDX-License-Identifier: Apache-2.0
"""On-policy distillation: sequences that the model itself generates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._arguments import check_whole

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
    """Continue prompts with tokens sampled from a model, for on-policy distillation (GKD).

    Each token costs a pass over the whole sequence. If the model has a step function,
    with a cache or a recurrent state, ``rollout_steps`` costs one step per token. The
    samples are data: no gradient flows through them.

    To distill on them, apply any loss of ``jc.distill`` to the logits of both networks
    for ``tokens[:, :-1]``, with ``where=counts[:, 1:]``: the logits at a position
    predict the next token.

    Args:
      logits_of: ``tokens (batch, length) -> logits (batch, length, vocabulary)``. It
        must be causal: the logits at a position depend only on tokens up to there; see
        ``check_causal``. Close it over the student's parameters, or over the teacher's
        for sequence-level distillation.
      tokens: integers ``(batch, length)``: prompts, followed by space for the generated
        tokens. The content of that space is never read.
      start: the first position to generate, at least 1: an int, or integers
        ``(batch,)``, one per example, in which values below 1 are treated as 1.
      key: a PRNG key; the token at position i is drawn with ``fold_in(key, i)``.
      temperature: T >= 0 that divides the logits. At 0 the likeliest token is taken,
        the first one in a tie. A number or a traced scalar.
      end: the token that ends a sequence; everything after it is ``end`` too. Only a
        generated token ends a sequence, not one in the prompt.

    Returns:
      The tokens ``(batch, length)``, unchanged before ``start``; and bool
      ``(batch, length)``: the generated positions that count, including the first
      ``end``.

    Raises:
      ValueError: if a shape is wrong, or start or temperature is out of range.
      TypeError: if tokens are not integers.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def logits_of(tokens):  # predicts (token + 1) mod 5
      ...     return 99.0 * jax.nn.one_hot((tokens + 1) % 5, 5)
      >>> tokens = jnp.array([[3, 0, 0, 0], [1, 0, 0, 0]])
      >>> key = jax.random.key(0)
      >>> output, counts = jc.distill.rollout(logits_of, tokens, 1, key, end=4)
      >>> output.tolist(), counts.sum(1).tolist()
      ([[3, 4, 4, 4], [1, 2, 3, 4]], [1, 3])

    References:
      Agarwal et al., GKD, 2023, https://arxiv.org/abs/2306.13649;
      Kim and Rush, 2016, https://arxiv.org/abs/1606.07947
    """
    starts = _check_start(tokens, start, temperature)
    length = tokens.shape[1]

    def body(position: jax.Array, carry: Any) -> Any:
        tokens, over = carry
        logits = lax.dynamic_index_in_dim(
            logits_of(tokens), position - 1, axis=1, keepdims=False
        )
        sampled = _sample(logits, jax.random.fold_in(key, position), temperature)
        current = lax.dynamic_index_in_dim(tokens, position, axis=1, keepdims=False)
        token, over = _advance(current, sampled, position >= starts, over, end)
        return lax.dynamic_update_index_in_dim(tokens, token, position, axis=1), over

    # An int gives a static number of passes, so the loop becomes a scan.
    if isinstance(start, int):
        first = min(start, length)
    else:
        first = jnp.minimum(jnp.min(starts), length)
    over = jnp.zeros(len(tokens), bool)
    generated, _ = lax.fori_loop(first, length, body, (tokens, over))
    return generated, _mark_counted(generated, starts, end)


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
    """``rollout`` for a model that reads one token at a time: recurrent, or with a cache.

    With the same key both give the same sequences, unless rounding changes a sample.

    Args:
      step: ``(carry, token (batch,)) -> (carry, logits (batch, vocabulary))``.
      carry: the initial carry: a state, or an empty cache of keys and values.
      tokens: see ``rollout``; prompts are read one token at a time too.
      start: see ``rollout``.
      key: see ``rollout``.
      temperature: see ``rollout``.
      end: see ``rollout``.

    Returns:
      Tokens and the bool array of counted positions, as ``rollout``.

    Raises:
      ValueError: if a shape is wrong, or start or temperature is out of range.
      TypeError: if tokens are not integers.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def step(carry, token):  # the next number, of five
      ...     return carry, 99.0 * jax.nn.one_hot((token + 1) % 5, 5)
      >>> tokens = jnp.array([[3, 0, 0, 0]])
      >>> output, counts = jc.distill.rollout_steps(step, (), tokens, 1, jax.random.key(0))
      >>> output.tolist()
      [[3, 4, 0, 1]]
    """
    starts = _check_start(tokens, start, temperature)

    def body(state: Any, column: Any) -> Any:
        carry, token, over = state
        position, current = column
        carry, logits = step(carry, token)
        sampled = _sample(logits, jax.random.fold_in(key, position), temperature)
        token, over = _advance(current, sampled, position >= starts, over, end)
        return (carry, token, over), token

    first, rest = tokens[:, 0], tokens[:, 1:].T
    over = jnp.zeros(len(tokens), bool)
    positions = jnp.arange(1, tokens.shape[1], dtype=jnp.int32)
    _, generated = lax.scan(body, (carry, first, over), (positions, rest))
    generated = jnp.concatenate([first[:, None], generated.T], axis=1)
    return generated, _mark_counted(generated, starts, end)


def own_or_data(
    key: jax.Array, own: Tree, data: Tree, fraction: float | jax.Array
) -> Tree:
    """Mix on-policy and data examples: take each from the student's own with a probability.

    This is GKD's lambda, applied per example instead of per batch: 0 means data only, 1
    means the student's own only.

    Args:
      key: a PRNG key.
      own: a pytree of arrays ``(batch, ...)``, the result of ``rollout``.
      data: the same for the data, ``(tokens, where)``.
      fraction: probability of own, from 0 to 1; a number or a traced scalar, from a
        schedule. The rollout costs the same whatever it is.

    Returns:
      A pytree like both; all leaves of an example come from the same source.

    Raises:
      ValueError: if the fraction is out of range, or the shapes differ.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> own, data = jnp.ones((4, 2), int), jnp.zeros((4, 2), int)
      >>> jc.distill.own_or_data(jax.random.key(0), own, data, 1.0).sum().tolist()
      8
    """
    if not isinstance(fraction, jax.Array) and not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}.")
    batch = len(jax.tree.leaves(own)[0])
    use_own = jax.random.uniform(key, (batch,)) < fraction

    def pick(own: jax.Array, data: jax.Array) -> jax.Array:
        if own.shape != data.shape or own.shape[:1] != (batch,):
            raise ValueError(
                "own and data must have the same shape and batch, got "
                f"{own.shape} and {data.shape}."
            )
        return jnp.where(use_own.reshape(batch, *(1,) * (own.ndim - 1)), own, data)

    return jax.tree.map(pick, own, data)


def check_causal(logits_of: Logits, tokens: jax.Array) -> None:
    """Check once before training that the logits of a model do not depend on later tokens.

    ``rollout`` cannot detect this: a model that is not causal would see the data at the
    positions where it generates. The check changes the second half of the sequences;
    the logits of the first half must not change.

    Args:
      logits_of: as in ``rollout``, without dropout.
      tokens: integers ``(batch, length)``, with length at least 2.

    Raises:
      ValueError: naming the first position whose logits depend on later tokens, or are
        NaN.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> jc.distill.check_causal(lambda t: jax.nn.one_hot(t, 5), jnp.zeros((1, 4), int))
    """
    middle = tokens.shape[1] // 2
    logits = logits_of(tokens)
    other_tokens = (tokens + 1) % logits.shape[-1]
    changed = logits_of(tokens.at[:, middle:].set(other_tokens[:, middle:]))
    if (bad := np.flatnonzero(jnp.isnan(logits).any((0, 2)))).size:
        raise ValueError(
            f"logits_of must not return NaN, but does at position {bad[0]}."
        )
    # Logits of -inf rule a token out. They agree, but their difference is NaN.
    gap = jnp.where(logits == changed, 0, jnp.abs(logits - changed))
    gap = jnp.max(gap[:, :middle], axis=(0, 2))
    # A tolerance, because two compiled programs may round differently.
    size = jnp.max(jnp.abs(logits), where=jnp.isfinite(logits), initial=0)
    leaks = np.flatnonzero(~(gap <= 1e-4 * (1 + size)))
    if leaks.size:
        raise ValueError(
            "logits_of must be causal, but the logits at position "
            f"{leaks[0]} of {tokens.shape[1]} change with tokens from {middle} on. Mask "
            "the attention, or pad convolutions on the left only."
        )


def _check_start(
    tokens: jax.Array, start: int | jax.Array, temperature: float | jax.Array
) -> jax.Array:
    """Validate the inputs; return start as integers ``(batch,)``, at least 1."""
    if tokens.ndim != 2 or not tokens.shape[1]:
        raise ValueError(f"tokens must have shape (batch, length), got {tokens.shape}.")
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"tokens must be integers, got dtype {tokens.dtype}.")
    if not isinstance(temperature, jax.Array) and not temperature >= 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}.")
    batch = len(tokens)
    if not isinstance(start, jax.Array):
        check_whole(start=start)
        if start < 1:
            raise ValueError(
                f"start must be at least 1, got {start}. The first token must come from "
                "the prompt, because no logits precede it."
            )
        return jnp.full(batch, start, jnp.int32)
    if start.shape != (batch,) or not jnp.issubdtype(start.dtype, jnp.integer):
        raise ValueError(
            f"start must be an int or integers of shape {(batch,)}, one per example, got "
            f"{start.dtype} {start.shape}."
        )
    return jnp.maximum(start, 1)


def _sample(
    logits: jax.Array, key: jax.Array, temperature: float | jax.Array
) -> jax.Array:
    logits = lax.stop_gradient(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # Noise times T, not logits over T: the same sample, and it works at T = 0.
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return jnp.argmax(logits + temperature * noise, axis=-1)


def _advance(
    current: jax.Array,
    sampled: jax.Array,
    generated: jax.Array,
    over: jax.Array,
    end: int | None,
) -> tuple[jax.Array, jax.Array]:
    """Return the token at a position, and which examples have ended after it."""
    token = jnp.where(generated, sampled.astype(current.dtype), current)
    if end is None:
        return token, over
    token = jnp.where(over, jnp.asarray(end, current.dtype), token)
    return token, over | (generated & (token == end))


def _mark_counted(tokens: jax.Array, start: jax.Array, end: int | None) -> jax.Array:
    generated = jnp.arange(tokens.shape[1])[None, :] >= start[:, None]
    if end is None:
        return generated
    ends = (generated & (tokens == end)).astype(jnp.int32)
    return generated & (jnp.cumsum(ends, axis=1) - ends == 0)
