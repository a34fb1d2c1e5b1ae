# SPDX-License-Identifier: Apache-2.0
"""What a network knows of a text, and what its own writing is worth to the teacher."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcompress as jc

from .. import old_common as common
from . import _network as network
from ._config import Config
from ._rows import LOSSES
from ._runs import Params, behind, written

CHUNK = 500  # sequences at once


class Compared(NamedTuple):
    """A network beside the teacher on some sequences, in bits a character."""

    student: float  # what the sequences cost the network
    teacher: float  # what they cost the teacher
    kl: float  # kl of the network from the teacher
    reverse_kl: float


def compare(
    params: Params, teacher: Params, tokens: np.ndarray | jax.Array, config: Config
) -> Compared:
    """Means over the first sequences of ``(n, length)``, behind their prompts."""
    tokens = tokens[: config.judged]
    parts = [tokens[i : i + CHUNK] for i in range(0, len(tokens), CHUNK)]
    compared = _compiled(config.prompt, config.quick)
    found = [len(x) * np.asarray(compared(params, teacher, x), float) for x in parts]
    means = np.sum(found, axis=0) / len(tokens) / math.log(2)
    return Compared(*means.tolist())


def own(
    params: Params, teacher: Params, tokens: np.ndarray, config: Config, seed: int
) -> Compared:
    """The same on what the network writes behind the prompts of a text.

    Prompts are spread evenly over the text.
    """
    number = min(config.written, len(tokens))
    prompts = jnp.asarray(tokens[:: len(tokens) // number][:number])
    write = _writing(config.prompt, config.quick)
    return compare(
        params, teacher, write(params, prompts, jax.random.key(seed)), config
    )


@functools.cache
def _compiled(prompt: int, quick: bool) -> Callable[..., jax.Array]:
    def compared(params: Params, teacher: Params, tokens: jax.Array) -> jax.Array:
        student, of_teacher, following = behind(params, teacher, tokens, prompt)
        cross_entropy = LOSSES["cross-entropy"]
        values = (
            cross_entropy(student, of_teacher, following),
            cross_entropy(of_teacher, student, following),
            jc.distill.kl(student, of_teacher),
            jc.distill.reverse_kl(student, of_teacher),
        )
        return jnp.stack([value.mean() for value in values])

    return common.compiled(compared, quick=quick)


@functools.cache
def _writing(prompt: int, quick: bool) -> Callable[..., jax.Array]:
    def write(params: Params, tokens: jax.Array, key: jax.Array) -> jax.Array:
        return written(params, tokens, prompt, key)[0]

    return common.compiled(write, quick=quick)


def cost(params: Params, tokens: np.ndarray, config: Config) -> dict[str, float]:
    """Milliseconds that a batch of rollouts takes, by steps and by whole passes.

    The fastest of five, since others may use the machine too.
    """
    prompts, key = jnp.asarray(tokens[: config.batch_size]), jax.random.key(0)

    def passes(params: Params, tokens: jax.Array, key: jax.Array) -> jax.Array:
        logits_of = functools.partial(network.logits, params)
        return jc.distill.rollout(logits_of, tokens, config.prompt, key)[0]

    ways = {
        "steps": _writing(config.prompt, config.quick),
        "passes": common.compiled(passes, quick=config.quick),
    }
    made: dict[str, float] = {}
    for name, way in ways.items():
        jax.block_until_ready(way(params, prompts, key))
        times = []
        for _ in range(5):
            before = time.perf_counter()
            jax.block_until_ready(way(params, prompts, key))
            times.append(time.perf_counter() - before)
        made[name] = 1000 * min(times)
    return made
